//! The topics, who writes them, and who reads them: one place for the services, the tools and the documentation.

use std::fmt;

/// What one service tells the others. The topic is `<prefix>.<service>`, by default `stampede.order`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// What happens to events.
    Event,
    /// What happens to coupons.
    Coupon,
    /// What the ledger has decided.
    Inventory,
    /// What happens to orders, and what they ask for.
    Order,
    /// How payments ended.
    Payment,
}

impl Topic {
    /// Every topic.
    pub const ALL: [Self; 5] = [Self::Event, Self::Coupon, Self::Inventory, Self::Order, Self::Payment];

    /// The service that writes it.
    pub const fn service(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Coupon => "coupon",
            Self::Inventory => "inventory",
            Self::Order => "order",
            Self::Payment => "payment",
        }
    }

    /// The services that read it, each as one consumer group.
    pub const fn consumers(self) -> &'static [&'static str] {
        match self {
            Self::Event => &["inventory"],
            Self::Coupon => &[],
            Self::Inventory | Self::Payment => &["order"],
            Self::Order => &["coupon", "inventory", "payment"],
        }
    }

    /// Name of the topic under this prefix.
    pub fn name(self, prefix: &str) -> String {
        format!("{prefix}.{}", self.service())
    }

    /// Where a message of the topic goes that this consumer cannot apply.
    pub fn dead_letters(self, prefix: &str, consumer: &str) -> String {
        format!("{}.{consumer}.dlq", self.name(prefix))
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.service())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_the_prefix() {
        assert_eq!(Topic::Order.name("stampede"), "stampede.order");
        assert_eq!(Topic::Order.dead_letters("t1", "coupon"), "t1.order.coupon.dlq");
    }
}
