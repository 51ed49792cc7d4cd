//! Priority classes of requests, each with a share of all permits reserved for it: a crowd that reads never starves a
//! buyer who pays.

use crate::routes::{Access, Endpoint, Native, Route};
use http::Method;

/// The priority class of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A buyer pays: late is lost.
    Paying,
    /// The provider reports how a payment ended.
    Notices,
    /// An order is placed or cancelled; and every other act of a buyer.
    Ordering,
    Claiming,
    /// A token is issued, checked, refreshed or revoked.
    Logins,
    /// An operator runs the sale.
    Operators,
    /// A buyer reads their own resources.
    OwnReads,
    /// Anybody reads what is public.
    PublicReads,
}

/// Routes whose class does not follow from their access.
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
    pub const COUNT: usize = Self::ALL.len();

    /// Returns the class of the requests of a route. New RPCs need no entry here.
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

    /// Returns its index in [`Class::ALL`].
    pub const fn number(self) -> usize {
        self as usize
    }

    /// Returns its name in metrics.
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

    /// Returns the share of all permits that is reserved for it, in percent; and of the bytes of bodies that arrive in
    /// parts. The rest is first come, first served.
    pub const fn kept_percent(self) -> usize {
        match self {
            Self::Paying | Self::Ordering | Self::Claiming => 12,
            Self::Logins | Self::OwnReads | Self::PublicReads => 6,
            Self::Notices | Self::Operators => 4,
        }
    }

    /// Returns the same share of open streams and of their subjects. A buyer who waits for their own order must get a
    /// permit while a crowd watches an event.
    pub const fn kept_percent_of_streams(self) -> usize {
        match self {
            Self::OwnReads => 12,
            _ => 0,
        }
    }

    /// Returns the same share of the bytes of unread answers. The rest has room for the largest list that there is.
    pub const fn kept_percent_of_answers(self) -> usize {
        match self {
            Self::OwnReads => 12,
            Self::Paying | Self::Ordering | Self::Claiming | Self::Operators => 4,
            Self::Notices | Self::Logins | Self::PublicReads => 0,
        }
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
