//! The address of the other end of a connection, and the client behind it.
//!
//! Limits nothing itself; its callers count by address.

use http::{HeaderMap, HeaderName};
use std::{
    error::Error,
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

/// Header to which a proxy appends the address that it got a request from.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The addresses that count as one client: one of IPv4, or a /64 of IPv6, the usual allocation of a household.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Block(IpAddr);

impl Block {
    /// Returns the block of an address.
    pub fn of(address: IpAddr) -> Block {
        Block(match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) >> 64 << 64)),
            address @ IpAddr::V4(_) => address,
        })
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "{address}"),
            IpAddr::V6(first) => write!(f, "{first}/64"),
        }
    }
}

/// A network, such as `10.0.0.0/8`, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// First address; one of IPv4 is mapped to IPv6.
    first: u128,
    /// Prefix length.
    bits: u32,
}

/// A text that is no network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotANetwork;

impl fmt::Display for NotANetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected an address, or a network such as 10.0.0.0/8")
    }
}

impl Error for NotANetwork {}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Network, NotANetwork> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length.parse::<u32>().map_err(|_| NotANetwork)?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NotANetwork)?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let length = length.unwrap_or(width);
        if length > width {
            return Err(NotANetwork);
        }
        Ok(Network { first: as_ipv6(address), bits: 128 - width + length })
    }
}

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        // A shift by the whole width, for a network of all addresses, yields zero.
        (self.first ^ as_ipv6(address)).checked_shr(128 - self.bits).unwrap_or(0) == 0
    }
}

fn as_ipv6(address: IpAddr) -> u128 {
    u128::from(match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    })
}

/// A set of networks. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Networks(Arc<[Network]>);

impl Networks {
    /// Returns whether one of them contains the address.
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

impl From<Vec<Network>> for Networks {
    fn from(networks: Vec<Network>) -> Networks {
        Networks(networks.into())
    }
}

/// Address of the other end of a connection. The HTTP server adds it to every request as an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

impl Peer {
    /// Returns the address of the client: that of the peer, or behind a trusted proxy the last untrusted one in
    /// `x-forwarded-for`. Those before it may be forged.
    pub fn client(self, headers: &HeaderMap, trusted: &Networks) -> IpAddr {
        let mut client = self.0;
        let values = headers.get_all(FORWARDED_FOR).iter().rev().filter_map(|value| value.to_str().ok());
        for text in values.flat_map(|value| value.rsplit(',')) {
            if !trusted.contain(client) {
                break;
            }
            match parse_forwarded(text.trim()) {
                Some(address) => client = address,
                None => break,
            }
        }
        client
    }
}

/// Accepts an address with a port, which some proxies add.
fn parse_forwarded(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse::<SocketAddr>().map(|address| address.ip());
    text.parse::<IpAddr>().or_else(|_| with_port()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn networks(texts: &[&str]) -> Networks {
        texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Network>>().into()
    }

    #[test]
    fn a_slash_64_is_one_client_and_so_is_an_address_of_ipv4() {
        for (one, other, same) in [
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
        ] {
            assert_eq!(Block::of(ip(one)) == Block::of(ip(other)), same, "{one} {other}");
        }
        assert_eq!(Block::of(ip("::ffff:192.0.2.1")).to_string(), "192.0.2.1");
        assert_eq!(Block::of(ip("2001:db8:0:1:aaaa::1")).to_string(), "2001:db8:0:1::/64");
    }

    #[test]
    fn a_network_has_its_addresses_and_no_others() {
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("10.0.0.7", "10.0.0.7", true),
            ("10.0.0.7", "10.0.0.8", false),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "192.0.2.1", true),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
        ] {
            assert_eq!(networks(&[network]).contain(ip(address)), expected, "{network} {address}");
        }
        for text in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/", "proxy"] {
            assert_eq!(text.parse::<Network>(), Err(NotANetwork), "{text}");
        }
    }

    #[test]
    fn only_what_a_trusted_proxy_says_is_believed() {
        let trusted = networks(&["10.0.0.0/8"]);
        for (peer, forwarded, client) in [
            ("192.0.2.1", "198.51.100.1", "192.0.2.1"),
            ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
            ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
            ("10.0.0.1", "203.0.113.9, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
            ("10.0.0.1", "203.0.113.9, nonsense", "10.0.0.1"),
            ("10.0.0.1", "", "10.0.0.1"),
        ] {
            let headers = HeaderMap::from_iter([(FORWARDED_FOR, HeaderValue::from_static(forwarded))]);
            assert_eq!(Peer(ip(peer)).client(&headers, &trusted), ip(client), "{peer} {forwarded}");
        }
        assert_eq!(Peer(ip("10.0.0.1")).client(&HeaderMap::new(), &trusted), ip("10.0.0.1"));
    }
}
