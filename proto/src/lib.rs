//! The only contract between Stampede's processes: generated code and its descriptors, the conversions of the values
//! that all of it shares, and who takes which message. No logic.
//!
//! The modules follow the proto packages: `stampede.order.v1` is [`order::v1`], and the messages on Kafka are
//! [`message::v1`].
//!
//! ```
//! use stampede_proto::{message::v1::OrderExpired, messages};
//!
//! let expired = OrderExpired { order_id: "ord_1".to_owned(), ..OrderExpired::default() };
//! let (message_type, payload) = messages::encode(&expired);
//! assert_eq!(message_type, "stampede.message.v1.OrderExpired");
//! assert_eq!(<OrderExpired as prost::Message>::decode(payload.as_slice()), Ok(expired));
//! ```

#![warn(missing_docs)]

pub mod convert;
pub mod messages;

/// Every file of the contract with all options and comments, for reflection and for the gateway.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.binpb"));

mod generated {
    #![expect(
        missing_docs,
        clippy::all,
        clippy::allow_attributes,
        clippy::too_many_lines,
        reason = "generated code; comments are carried where the proto has them"
    )]
    include!(concat!(env!("OUT_DIR"), "/mod.rs"));
}

pub use generated::stampede::*;
