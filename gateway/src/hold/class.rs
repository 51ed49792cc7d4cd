//! What requests are for, and which share of all places is kept for each kind: a crowd that looks never pushes out one
//! that pays.

use crate::routes::{Access, Endpoint, Native, Route};
use http::Method;

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A buyer pays: late is lost.
    Paying,
    /// The provider tells how a payment ended.
    Notices,
    /// An order is placed or cancelled; and every other act of a buyer.
    Ordering,
    /// A coupon is claimed.
    Claiming,
    /// A token is issued, checked, refreshed or revoked.
    Logins,
    /// An operator runs the sale.
    Operators,
    /// A buyer looks at what is their own.
    OwnReads,
    /// Anybody looks at what is for all.
    PublicReads,
}

/// The routes whose class does not follow from who may use them.
pub const NAMED: [(&str, Class); 5] = [
    ("POST /v1/orders/{order_id}:pay", Class::Paying),
    ("POST /v1/payments:webhook", Class::Notices),
    ("POST /v1/orders", Class::Ordering),
    ("POST /v1/orders/{order_id}:cancel", Class::Ordering),
    ("POST /v1/campaigns/{campaign_id}:claim", Class::Claiming),
];

impl Class {
    /// Every class, in the order of its number.
    pub const ALL: [Self; 8] = [
        Self::Paying,
        Self::Notices,
        Self::Ordering,
        Self::Claiming,
        Self::Logins,
        Self::Operators,
        Self::OwnReads,
        Self::PublicReads,
    ];
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The class of the requests of a route. A new RPC has one without being named here.
    pub fn of(route: &Route) -> Self {
        if let Some((_, class)) = NAMED.iter().find(|(name, _)| *name == route.name) {
            return *class;
        }
        match (&route.endpoint, route.access) {
            (Endpoint::Native(Native::Index | Native::Page(_)), _) => Self::PublicReads,
            (Endpoint::Native(_), _) => Self::Logins,
            (Endpoint::Rpc(_), Access::Operator) => Self::Operators,
            (Endpoint::Rpc(_), Access::Authenticated) if route.method == Method::GET => Self::OwnReads,
            (Endpoint::Rpc(_), Access::Authenticated) => Self::Ordering,
            (Endpoint::Rpc(_), Access::Public) => Self::PublicReads,
        }
    }

    /// Its place in [`Class::ALL`].
    pub const fn number(self) -> usize {
        self as usize
    }

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Paying => "paying",
            Self::Notices => "notices",
            Self::Ordering => "ordering",
            Self::Claiming => "claiming",
            Self::Logins => "logins",
            Self::Operators => "operators",
            Self::OwnReads => "own_reads",
            Self::PublicReads => "public_reads",
        }
    }

    /// The part of all places, in percent, that is kept for it. What is kept for nobody is for whoever comes first.
    pub const fn kept_percent(self) -> usize {
        match self {
            Self::Paying | Self::Ordering | Self::Claiming => 12,
            Self::Logins | Self::OwnReads | Self::PublicReads => 6,
            Self::Notices | Self::Operators => 4,
        }
    }

    /// The same of open streams, and of what they are about. Whoever waits for their own order must find a place in a
    /// crowd that watches an event.
    pub const fn kept_percent_of_streams(self) -> usize {
        match self {
            Self::OwnReads => 12,
            _ => 0,
        }
    }

    /// The same of bytes that are on their way: those of one class are like those of another.
    pub const fn kept_percent_of_bytes(self) -> usize {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::Table;

    #[test]
    fn every_named_route_is_in_the_contract() {
        let table = Table::of_contract(stampede_proto::DESCRIPTOR_SET).unwrap();
        for (name, class) in NAMED {
            let route = table.routes().find(|route| route.name == name).unwrap_or_else(|| panic!("no route {name}"));
            assert_eq!(Class::of(route), class, "{name}");
        }
    }

    #[test]
    fn the_others_have_the_class_of_who_uses_them() {
        let table = Table::of_contract(stampede_proto::DESCRIPTOR_SET).unwrap();
        for (name, class) in [
            ("GET /", Class::PublicReads),
            ("GET /docs", Class::PublicReads),
            ("POST /v1/auth/tokens", Class::Logins),
            ("POST /v1/events", Class::Operators),
            ("GET /v1/orders/{order_id}", Class::OwnReads),
            ("GET /v1/events", Class::PublicReads),
            ("GET /v1/events:watch", Class::PublicReads),
        ] {
            let route = table.routes().find(|route| route.name == name).unwrap_or_else(|| panic!("no route {name}"));
            assert_eq!(Class::of(route), class, "{name}");
        }
    }

    #[test]
    fn the_page_has_what_is_kept_for_each() {
        const PAGE: &str = include_str!("../../../docs/security.md");
        for class in Class::ALL {
            let row = format!("| `{}` | {} % |", class.name(), class.kept_percent());
            assert!(PAGE.contains(&row), "docs/security.md has no {row}");
            let of_streams = format!("{} % are kept for `{}`", class.kept_percent_of_streams(), class.name());
            assert_eq!(PAGE.contains(&of_streams), class.kept_percent_of_streams() > 0, "{of_streams}");
        }
    }

    #[test]
    fn some_places_are_kept_for_each_and_some_for_nobody() {
        assert!(Class::ALL.iter().all(|class| Class::ALL[class.number()] == *class && class.kept_percent() > 0));
        assert!(Class::ALL.iter().map(|class| class.kept_percent()).sum::<usize>() < 75);
    }
}
