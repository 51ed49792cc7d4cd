//! The address that a request is from, as limits know it.

use axum::extract::ConnectInfo;
use http::Extensions;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The network that a request is from: an IPv4 address, or an IPv6 /64, which is what one customer has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source(String);

impl Source {
    /// Reads it from what the server says of the connection; `None` if that says nothing, as in a test without a server.
    pub fn of(extensions: &Extensions) -> Option<Self> {
        let ConnectInfo(peer) = extensions.get::<ConnectInfo<SocketAddr>>()?;
        Some(Self::of_address(peer.ip()))
    }

    fn of_address(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.to_string()),
            IpAddr::V6(address) => {
                let network = Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX));
                Self(format!("{network}/64"))
            }
        }
    }

    /// The network as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_is_one_and_an_ipv6_network_is_one() {
        for (address, expected) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:0:1:aaaa::1", "2001:db8:0:1::/64"),
            ("2001:db8:0:1:bbbb:2:3:4", "2001:db8:0:1::/64"),
        ] {
            assert_eq!(Source::of_address(address.parse().unwrap()).as_str(), expected, "{address}");
        }
    }

    #[test]
    fn it_is_read_from_the_connection() {
        let mut extensions = Extensions::new();
        assert_eq!(Source::of(&extensions), None);
        extensions.insert(ConnectInfo(SocketAddr::from(([192, 0, 2, 7], 4_711))));
        assert_eq!(Source::of(&extensions).unwrap().as_str(), "192.0.2.7");
    }
}
