//! The use cases, one file each. A use case opens the transaction, calls the domain for decisions and the store for
//! SQL; it knows neither SQL nor the contracts.

mod ask_again;
mod change_order;
mod count_open_orders;
mod end_event_orders;
mod error;
mod event_cancellations;
mod expire_orders;
mod find_order;
mod finish_pending;
mod full_scans;
mod list_orders;
mod place_order;
mod sweep_batches;
mod transitions;
mod watch_order;
mod write_orders;

pub use ask_again::AskAgain;
pub use change_order::ChangeOrder;
pub use count_open_orders::CountOpenOrders;
pub use end_event_orders::EndEventOrders;
pub use error::Error;
pub use event_cancellations::EventCancellations;
pub use expire_orders::ExpireOrders;
pub use find_order::FindOrder;
pub use finish_pending::FinishPending;
pub use list_orders::{ListOrders, Listing};
pub use place_order::PlaceOrder;
pub use transitions::{Advanced, Change, Outcome, Transitions};
pub use watch_order::WatchOrder;
pub use write_orders::WriteOrders;

use crate::domain::Order;
use stampede_batch::BatchConfig;
use stampede_db::DbError;
use stampede_service::OnceAMinute;
use stampede_vocab::OrderId;

/// The lines about orders that cannot be read: sweeps and watches meet them in every round.
static LINES: OnceAMinute<OrderId> = OnceAMinute::new();

/// Limits of every batcher of this service: large enough to save most of the cost, small enough for a short latency.
const fn batch(name: &'static str) -> BatchConfig {
    BatchConfig { name, max_batch: 256, max_in_flight: 2, max_queued: 8_192, must_run: false }
}

/// Returns the order, or logs once a minute why it cannot be read, so that it is left out.
fn readable(id: OrderId, order: Result<Order, DbError>) -> Option<Order> {
    let log = |error: &DbError| {
        if LINES.is_due(id) {
            tracing::error!(order.id = %id, error.cause = %error, "order cannot be read");
        }
    };
    order.inspect_err(log).ok()
}
