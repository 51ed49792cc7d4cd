//! Orders as values: their fields, their state machine, and the messages about them. No async, no I/O, no clock.

mod cancellation;
mod draft;
mod end_request;
mod error;
mod filter;
mod order;
mod outgoing;
mod pay_request;
mod pricing;
mod reservation;
mod state;
mod transition;

pub use cancellation::{Cancellation, Progress, Tally, Treatment};
pub use draft::{Draft, RequestedLine};
pub use end_request::{EndRequest, EndVerb};
pub use error::{CommandRefusal, CouponRefusal, PlaceRefusal, StockReason, StockRefusal};
pub use filter::OrderFilter;
pub use order::{Form, Goods, GoodsKind, Line, Order, OrderStatus};
pub use outgoing::{MessageBody, OutgoingMessage};
pub use pay_request::PayRequest;
pub use pricing::Prices;
pub use reservation::Reserved;
pub use state::{RefundOrigin, State, StateName};
pub use transition::{Input, LAST_ASK_BACKOFF, MANY_ASKS, MAX_ASK_BACKOFF, NoStep, PaymentPolicy, Step};
