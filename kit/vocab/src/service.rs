//! The registry of services: names, ports, the services that each calls, the messages that it consumes, and whether it
//! has work to wait for. Everything that needs a list of services reads this one.

use std::{fmt, str::FromStr};

/// Offset of the admin port of a process from its own port.
pub const ADMIN_PORT_OFFSET: u16 = 100;

/// The Redis database of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisUse {
    /// The one of stock, coupons and tokens.
    Main,
    /// The one of the timers of events, whose keys expire.
    Timers,
}

/// The entry of a service.
struct Facts {
    name: &'static str,
    port: u16,
    calls: &'static [Service],
    /// Topics that it reads, each with the messages that it consumes. It skips all others.
    takes: &'static [(Service, &'static [&'static str])],
    redis: Option<RedisUse>,
    /// Whether it has work that ends later, beside messages, such as a charge under way.
    has_work: bool,
}

/// Declares the services, so that none can be left out of [`Service::ALL`].
macro_rules! services {
    ($($(#[$doc:meta])* $service:ident: $facts:expr;)+) => {
        /// A service of the mesh: a process with a schema and a topic of its own.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Service {
            $($(#[$doc])* $service,)+
        }

        impl Service {
            /// Every service, in an order in which each starts after most of those that it calls.
            pub const ALL: [Self; [$(Self::$service),+].len()] = [$(Self::$service),+];

            const fn facts(self) -> Facts {
                match self {
                    $(Self::$service => $facts,)+
                }
            }
        }
    };
}

services! {
    /// Sale events and their times.
    Event: Facts {
        name: "event",
        port: 7101,
        calls: &[Service::Inventory],
        takes: &[],
        redis: Some(RedisUse::Timers),
        has_work: false,
    };
    /// Campaigns and coupons.
    Coupon: Facts {
        name: "coupon",
        port: 7102,
        calls: &[Service::Order],
        takes: &[(
            Service::Order,
            &["OrderFulfilled", "OrderCancelled", "OrderExpired", "OrderRefunded"],
        )],
        redis: Some(RedisUse::Main),
        has_work: true,
    };
    /// Stock and the ledger.
    Inventory: Facts {
        name: "inventory",
        port: 7103,
        calls: &[Service::Order],
        takes: &[
            (Service::Event, &["EventScheduled", "EventCancelled"]),
            (
                Service::Order,
                &["OrderPaidLate", "OrderCancelled", "OrderExpired", "OrderRefunded"],
            ),
        ],
        redis: Some(RedisUse::Main),
        has_work: true,
    };
    /// Orders and goods.
    Order: Facts {
        name: "order",
        port: 7104,
        calls: &[Service::Inventory, Service::Coupon],
        takes: &[
            (Service::Event, &["EventCancelled"]),
            (Service::Inventory, &["StockCommitted", "StockRejected"]),
            (Service::Payment, &["PaymentApproved", "PaymentDeclined", "PaymentRefunded"]),
        ],
        redis: None,
        has_work: true,
    };
    /// Payments and refunds.
    Payment: Facts {
        name: "payment",
        port: 7105,
        calls: &[],
        takes: &[(Service::Order, &["PaymentRequested", "RefundRequested", "OrderExpired", "OrderCancelled"])],
        redis: None,
        has_work: true,
    };
}

impl Service {
    /// Returns its name: the end of its schema and topic, and the argument of `stampede serve`.
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    /// Returns the services whose topics it reads, as the consumer group `<prefix>.<name>`.
    pub fn reads(self) -> impl Iterator<Item = Self> {
        self.facts().takes.iter().map(|(writer, _)| *writer)
    }

    /// Returns the services that read its topic.
    pub fn readers(self) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |reader| reader.reads().any(|writer| writer == self))
    }

    /// Returns the messages that it consumes from the topic of `writer`, by their names within the package; empty if it
    /// does not read that topic.
    pub fn takes(self, writer: Self) -> &'static [&'static str] {
        let from_writer = self.facts().takes.iter().find(|(from, _)| *from == writer);
        from_writer.map(|(_, names)| *names).unwrap_or_default()
    }

    /// Returns whether it has work that ends later, beside messages: the audit waits for it, by a count of its own. An
    /// event is no such work: it opens and ends at its times.
    pub const fn has_work(self) -> bool {
        self.facts().has_work
    }

    /// Returns the name of its topic, such as `stampede.order` under the prefix `stampede`.
    pub fn topic(self, prefix: &str) -> String {
        format!("{prefix}.{self}")
    }

    /// Returns the name of the dead-letter topic of `reader` for its messages.
    pub fn dead_letters(self, prefix: &str, reader: Self) -> String {
        format!("{prefix}.{self}.{reader}.dlq")
    }

    /// Returns the environment variable with the URLs of its replicas.
    pub fn urls_variable(self) -> String {
        format!("STAMPEDE_{}_URLS", self.name().to_uppercase())
    }

    /// Returns the CloudEvents source of its messages.
    pub fn source(self) -> String {
        format!("/stampede/{self}")
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A process of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Process {
    /// The simulator of a payment provider.
    Sandbox,
    /// A service.
    Service(Service),
    /// The HTTP gateway.
    Gateway,
}

impl Process {
    /// Returns every process, each after those that it calls.
    pub fn all() -> impl Iterator<Item = Self> {
        let services = Service::ALL.into_iter().map(Self::Service);
        std::iter::once(Self::Sandbox).chain(services).chain([Self::Gateway])
    }

    /// Returns its name, as in `stampede serve <name>`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sandbox => "sandbox",
            Self::Service(service) => service.name(),
            Self::Gateway => "gateway",
        }
    }

    /// Returns its default port.
    pub const fn port(self) -> u16 {
        match self {
            Self::Sandbox => 7190,
            Self::Service(service) => service.facts().port,
            Self::Gateway => 8080,
        }
    }

    /// Returns the services that it calls.
    pub const fn calls(self) -> &'static [Service] {
        match self {
            Self::Sandbox => &[],
            Self::Service(service) => service.facts().calls,
            Self::Gateway => &Service::ALL,
        }
    }

    /// Returns the Redis database that it uses.
    pub const fn redis(self) -> Option<RedisUse> {
        match self {
            Self::Sandbox => None,
            Self::Service(service) => service.facts().redis,
            Self::Gateway => Some(RedisUse::Main),
        }
    }
}

impl From<Service> for Process {
    fn from(service: Service) -> Self {
        Self::Service(service)
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name of no process.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}: no such process")]
pub struct UnknownProcess(String);

impl FromStr for Process {
    type Err = UnknownProcess;

    fn from_str(text: &str) -> Result<Self, UnknownProcess> {
        Self::all().find(|process| process.name() == text).ok_or_else(|| UnknownProcess(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_process_has_a_name_and_ports_of_its_own() {
        let names: HashSet<_> = Process::all().map(Process::name).collect();
        let ports: HashSet<_> = Process::all().flat_map(|one| [one.port(), one.port() + ADMIN_PORT_OFFSET]).collect();
        assert_eq!((names.len(), ports.len()), (Process::all().count(), 2 * Process::all().count()));
        for process in Process::all() {
            assert_eq!(process.name().parse(), Ok(process));
        }
        assert!("orders".parse::<Process>().is_err());
    }

    #[test]
    fn no_service_calls_or_reads_itself() {
        for service in Service::ALL {
            assert!(!Process::from(service).calls().contains(&service), "{service}");
            assert!(service.reads().all(|writer| writer != service), "{service}");
        }
    }

    #[test]
    fn who_reads_a_topic_takes_something_from_it_and_nobody_else_does() {
        for reader in Service::ALL {
            for writer in Service::ALL {
                let reads = writer.readers().any(|one| one == reader);
                assert_eq!(!reader.takes(writer).is_empty(), reads, "{reader} from {writer}");
            }
        }
    }

    #[test]
    fn names_of_topics_carry_the_prefix() {
        assert_eq!(Service::Order.topic("stampede"), "stampede.order");
        assert_eq!(Service::Order.dead_letters("t1", Service::Coupon), "t1.order.coupon.dlq");
        assert_eq!(Service::Order.source(), "/stampede/order");
    }
}
