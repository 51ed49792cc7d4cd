//! Ids with a readable prefix: 128 bits in the database, `ord_01j9...` everywhere else (the TypeID form).
//!
//! An id that must be the same for a repeat is derived from its natural key (UUID version 5), so no lookup is needed to
//! name it.

use crate::{RequestId, base32};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// A malformed id, or one of another kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is not an id of this kind: expected \"{prefix}_\" and {len} characters of 0-9 a-z without i, l, o, u", len = base32::LEN)]
pub struct ParseIdError {
    prefix: &'static str,
}

/// Namespace of all derived ids. With another one, repeats would get new ids.
const NAMESPACE: Uuid = Uuid::from_u128(0x5a3d_4f10_9c1e_4b7a_8f4e_2d61_7c0b_93e5);

fn derive(kind: &str, parts: &[&[u8]]) -> Uuid {
    // Every part is preceded by its length, so no two lists of parts encode alike.
    let mut name = kind.as_bytes().to_vec();
    for part in parts {
        name.extend_from_slice(&(part.len() as u64).to_be_bytes());
        name.extend_from_slice(part);
    }
    Uuid::new_v5(&NAMESPACE, &name)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// Prefix of the text form, before the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// Wraps 128 bits.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// Returns the 128 bits.
            pub const fn uuid(&self) -> Uuid {
                self.0
            }

            /// Returns the 16 bytes, as in a `BINARY(16)` column.
            pub fn as_bytes(&self) -> &[u8] {
                self.0.as_bytes()
            }

            /// Reads the bytes of a `BINARY(16)` column. Fails for any other length.
            pub fn try_from_bytes(bytes: &[u8]) -> Result<Self, ParseIdError> {
                Uuid::from_slice(bytes).map(Self).map_err(|_| ParseIdError { prefix: $prefix })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let text = base32::encode(self.0.as_u128());
                write!(f, "{}_{}", $prefix, std::str::from_utf8(&text).expect("base32 is ASCII"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                text.strip_prefix(concat!($prefix, "_"))
                    .and_then(base32::decode)
                    .map(|value| Self(Uuid::from_u128(value)))
                    .ok_or(ParseIdError { prefix: $prefix })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

id!(
    /// A sale event.
    EventId, "evt"
);
id!(
    /// One thing on sale in one event.
    ItemId, "itm"
);
id!(
    /// A batch of coupons with a quota.
    CampaignId, "cmp"
);
id!(
    /// One coupon of a campaign.
    CouponId, "cpn"
);
id!(
    /// A purchase.
    OrderId, "ord"
);
id!(
    /// The payment of one order.
    PaymentId, "pay"
);
id!(
    /// A buyer or an operator.
    UserId, "usr"
);

impl EventId {
    /// Derives the id of the event that this caller creates with this request.
    pub fn derive(caller: UserId, request: &RequestId) -> Self {
        Self(derive(Self::PREFIX, &[caller.as_bytes(), request.as_str().as_bytes()]))
    }
}

impl ItemId {
    /// Derives the id of the item at this index (from 0) of the event.
    pub fn derive(event: EventId, index: usize) -> Self {
        Self(derive(Self::PREFIX, &[event.as_bytes(), &(index as u64).to_be_bytes()]))
    }
}

impl CampaignId {
    /// Derives the id of the campaign that this caller creates with this request.
    pub fn derive(caller: UserId, request: &RequestId) -> Self {
        Self(derive(Self::PREFIX, &[caller.as_bytes(), request.as_str().as_bytes()]))
    }
}

impl CouponId {
    /// Derives the id of the one coupon that this user can have of the campaign.
    pub fn derive(campaign: CampaignId, user: UserId) -> Self {
        Self(derive(Self::PREFIX, &[campaign.as_bytes(), user.as_bytes()]))
    }
}

impl OrderId {
    /// Derives the id of the order that this buyer places with this request.
    pub fn derive(buyer: UserId, request: &RequestId) -> Self {
        Self(derive(Self::PREFIX, &[buyer.as_bytes(), request.as_str().as_bytes()]))
    }
}

impl PaymentId {
    /// Derives the id of the one payment of the order.
    pub fn derive(order: OrderId) -> Self {
        Self(derive(Self::PREFIX, &[order.as_bytes()]))
    }
}

impl UserId {
    /// Returns a new random user.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where an id is not derived: a new user is nobody's repeat"
    )]
    pub fn random() -> Self {
        Self(Uuid::now_v7())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(n: u128) -> UserId {
        UserId::from_uuid(Uuid::from_u128(n))
    }

    #[test]
    fn the_text_form_reads_back() {
        let id = OrderId::from_uuid(Uuid::from_u128(42));
        assert_eq!(id.to_string(), "ord_0000000000000000000000001a");
        assert_eq!("ord_0000000000000000000000001a".parse(), Ok(id));
    }

    #[test]
    fn an_id_of_another_kind_is_refused_by_name() {
        let error = user(1).to_string().parse::<OrderId>().unwrap_err();
        assert!(error.to_string().contains("\"ord_\""), "{error}");
    }

    #[test]
    fn a_repeat_derives_the_same_id_and_anything_else_another() {
        let request = RequestId::parse("r-1").unwrap();
        let other = RequestId::parse("r-2").unwrap();
        assert_eq!(OrderId::derive(user(1), &request), OrderId::derive(user(1), &request));
        assert_ne!(OrderId::derive(user(1), &request), OrderId::derive(user(2), &request));
        assert_ne!(OrderId::derive(user(1), &request), OrderId::derive(user(1), &other));
        assert_ne!(OrderId::derive(user(1), &request).uuid(), EventId::derive(user(1), &request).uuid());
    }

    #[test]
    fn bytes_of_another_length_are_refused() {
        assert_eq!(UserId::try_from_bytes(user(7).as_bytes()), Ok(user(7)));
        assert!(UserId::try_from_bytes(&[0; 15]).is_err());
    }
}
