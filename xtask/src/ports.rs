//! Ports on the loopback: the one that a flag names or an error, else the next free one.

use crate::cli::PortArgs;
use anyhow::{Context, bail};
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, TcpListener},
};

/// Number of ports that are tried above the default.
const REACH: u16 = 200;

/// Hands out ports, each once, even before anything listens on them.
#[derive(Debug, Default)]
pub struct Ports {
    given: BTreeSet<u16>,
}

impl Ports {
    /// Reserves the ports that the contributor named, so that none of them is taken as the next free one.
    pub fn reserving(requested: &PortArgs) -> anyhow::Result<Self> {
        let mut ports = Self::default();
        for (flag, port) in requested.named() {
            ports.reserve(flag, port)?;
        }
        Ok(ports)
    }

    fn reserve(&mut self, flag: &str, port: u16) -> anyhow::Result<()> {
        if self.given.contains(&port) {
            bail!("port {port} is asked for twice, the second time by {flag}");
        }
        if !self.take(port) {
            bail!("port {port}, asked for by {flag}, is in use; free it or ask for another");
        }
        Ok(())
    }

    /// Returns the port that the contributor named, which was reserved, or the first free one from `default` on.
    pub fn pick(&mut self, what: &str, requested: Option<u16>, default: u16) -> anyhow::Result<u16> {
        match requested {
            Some(port) => Ok(port),
            None => self.next_free(what, default),
        }
    }

    fn next_free(&mut self, what: &str, first: u16) -> anyhow::Result<u16> {
        let last = first.saturating_add(REACH);
        let free = (first..=last).find(|port| self.take(*port));
        free.with_context(|| format!("no free port for {what} from {first} to {last}"))
    }

    fn take(&mut self, port: u16) -> bool {
        !self.given.contains(&port) && is_free(port) && self.given.insert(port)
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn occupied() -> (TcpListener, u16) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        (listener, port)
    }

    #[test]
    fn a_port_in_use_that_was_asked_for_is_an_error() {
        let (_listener, port) = occupied();
        let requested = PortArgs { redis_port: Some(port), ..PortArgs::default() };
        let error = Ports::reserving(&requested).expect_err("it is in use").to_string();
        assert!(error.contains(&port.to_string()) && error.contains("--redis-port"), "{error}");
    }

    #[test]
    fn a_named_port_is_not_taken_as_the_next_free_one() {
        let (listener, port) = occupied();
        drop(listener);
        let requested = PortArgs { gateway_port: Some(port), ..PortArgs::default() };
        let mut ports = Ports::reserving(&requested).expect("it is free");
        assert_ne!(ports.pick("redis", None, port).expect("some port is free"), port);
        assert_eq!(ports.pick("gateway", requested.gateway_port, 1).expect("it was set aside"), port);
    }

    #[test]
    fn one_port_cannot_be_asked_for_twice() {
        let (listener, port) = occupied();
        drop(listener);
        let requested = PortArgs { gateway_port: Some(port), kafka_port: Some(port), ..PortArgs::default() };
        let error = Ports::reserving(&requested).expect_err("twice").to_string();
        assert!(error.contains("twice"), "{error}");
    }

    #[test]
    fn a_default_in_use_moves_on() {
        let (_listener, port) = occupied();
        let picked = Ports::default().pick("redis", None, port).expect("some port is free");
        assert!(picked > port);
    }

    #[test]
    fn no_port_is_handed_out_twice() {
        let (listener, port) = occupied();
        drop(listener);
        let mut ports = Ports::default();
        let first = ports.pick("redis", None, port).expect("free");
        let second = ports.pick("kafka", None, port).expect("free");
        assert_ne!(first, second);
    }
}
