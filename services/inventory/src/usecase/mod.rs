//! What the service does, one file a verb. Opens transactions, decides by the domain, knows no contract.

mod apply;
mod error;
mod hold;
mod mirror;
mod reconcile;
mod shelve;
mod sweep;
mod unknown_events;
mod view;

pub use apply::{Asked, Effects, apply};
pub use error::InventoryError;
pub use hold::{EventHold, EventReservation, Reserved};
pub use reconcile::LedgerVersions;
pub use sweep::{HoldAges, Sweep};

use crate::domain::StockView;
use hold::Reserver;
use stampede_db::Database;
use stampede_lua::stock::Stock;
use stampede_outbox::Outbox;
use stampede_vocab::{EventId, SharedClock};
use stampede_watch::Hub;
use std::time::Duration;

/// How often a watched event is looked at.
const WATCH_PERIOD: Duration = Duration::from_millis(200);
/// How long after its closing Redis keeps the items of an event; later the ledger alone is shown.
const KEPT_AFTER_CLOSING: Duration = Duration::from_secs(24 * 3_600);

/// The stock of all events: the ledger in MySQL, which is the truth, and Redis, which is fast. Cheap to clone.
#[derive(Clone)]
pub struct Inventory {
    db: Database,
    redis: Stock,
    outbox: Outbox,
    clock: SharedClock,
    reserver: Reserver,
    hub: Hub<EventId, StockView>,
}

impl Inventory {
    /// The stock in these servers. Needs a tokio runtime.
    pub fn new(db: Database, redis: Stock, outbox: Outbox, clock: SharedClock) -> Self {
        let reserver = Reserver::new(db.clone(), redis.clone());
        let viewer = view::Viewer { db: db.clone(), redis: redis.clone(), clock: clock.clone() };
        let hub = Hub::new(WATCH_PERIOD, move |events| viewer.clone().ready_views(events));
        Self { db, redis, outbox, clock, reserver, hub }
    }

    /// The clock of the service.
    pub fn clock(&self) -> &SharedClock {
        &self.clock
    }
}
