//! The words of a sale as pure values: ids, money, quantity and time. No I/O, no async.
//!
//! Every value is valid by construction: a [`Quantity`] is never zero, a [`RequestId`] always prints, an [`OrderId`] is
//! never mistaken for an [`ItemId`].
//!
//! ```
//! use stampede_vocab::{Money, OrderId, Quantity, RequestId, UserId};
//!
//! let price = Money::new(1999, "EUR".parse().unwrap());
//! assert_eq!(price.checked_mul(Quantity::new(2).unwrap()).unwrap().minor_units, 3998);
//!
//! // The same caller and request id give the same order: a repeat finds what the first one made.
//! let (buyer, request) = (UserId::random(), RequestId::parse("my-first-order").unwrap());
//! let order = OrderId::derive(buyer, &request);
//! assert_eq!(order.to_string().parse(), Ok(OrderId::derive(buyer, &request)));
//! ```

#![warn(missing_docs)]

mod backoff;
mod base32;
mod base64url;
mod card_number;
pub mod clock;
mod currency;
pub mod field;
mod fingerprint;
mod id;
mod invalid;
pub mod limits;
mod linger;
mod money;
mod page;
mod quantity;
mod redis_user;
mod request_id;
mod service;
mod timestamp;
mod traceparent;

pub use backoff::{backoff, backoff_from, backoff_within};
pub use card_number::{refuse_card_number, refuse_text_with_card_number};
pub use currency::Currency;
pub use fingerprint::Fingerprint;
pub use id::{CampaignId, CouponId, EventId, ItemId, OrderId, ParseIdError, PaymentId, UserId};
pub use invalid::InvalidField;
pub use linger::Linger;
pub use money::{Money, MoneyError};
pub use page::{PageSize, PageToken};
pub use quantity::Quantity;
pub use redis_user::{REDIS_SCRIPT_COMMANDS, REDIS_USER, redis_rules, redis_users_file};
pub use request_id::RequestId;
pub use service::{ADMIN_PORT_OFFSET, Process, RedisUse, Service, UnknownProcess};
pub use timestamp::Timestamp;
pub use traceparent::Traceparent;
