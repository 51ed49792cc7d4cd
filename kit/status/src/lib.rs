//! The closed vocabulary of errors, and its gRPC and HTTP forms.
//!
//! A [`Reason`] is a code that callers may match on; a [`Problem`] is one occurrence of it. A problem keeps two texts
//! apart: `detail` is for the caller, `internal` is for the operator. The internal text is logged once, where the
//! problem is turned into an answer, and never sent.
//!
//! This crate must not know any service, and must not decide on retries.
//!
//! ```
//! use stampede_status::{Problem, Reason};
//!
//! let problem = Problem::new(Reason::SoldOut, "2 units are wanted, 1 is left")
//!     .field("lines[0].units")
//!     .meta("left_units", 1)
//!     .internal("shard 7");
//! let status: tonic::Status = problem.into();
//! assert_eq!(status.message(), "2 units are wanted, 1 is left");
//! let read = Problem::from_status(&status);
//! assert_eq!((read.reason(), read.field_path()), (Reason::SoldOut, Some("lines[0].units")));
//! assert_eq!(read.internal_detail(), None, "it is for the log alone");
//! ```

#![warn(missing_docs)]

mod grpc;
mod json;
mod problem;
mod reason;

pub use problem::Problem;
pub use reason::Reason;

/// The `domain` of every `google.rpc.ErrorInfo` this product sends.
pub const DOMAIN: &str = "stampede.sale";

/// Documentation of the reasons; the name of a reason is the fragment.
pub const DOCS_BASE: &str = "https://stampede.sale/errors";
