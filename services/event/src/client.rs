//! The inventory service, which is notified of new times and of cancellations, and confirms them.
//!
//! Its consumer hears of them as well, by message. The call is there so that an operator is answered only once nothing
//! is sold at the old times any more.

use crate::domain::{Event, Item, State};
use stampede_chassis::{Deadline, MeshChannel};
use stampede_proto::{
    convert::timestamp,
    inventory::v1::{StageStockRequest, StagedItem, inventory_service_client::InventoryServiceClient},
};
use stampede_status::{Problem, Reason};
use stampede_vocab::{EventId, backoff};
use std::time::Duration;
use tokio::time::sleep;
use tonic::Status;

/// Tries of a call, the first one included.
const ATTEMPTS: u32 = 4;
/// Time-out of a call with all its tries: less than a caller of this service waits by default.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Inventory has not confirmed the change of an event. It may have taken effect there, and will by message.
#[derive(Debug, Clone, thiserror::Error)]
#[error("inventory has not confirmed {event_id}: {:?}, {}", status.code(), status.message())]
pub struct Unconfirmed {
    pub event_id: EventId,
    /// The answer of inventory.
    pub status: Status,
}

/// The inventory service. Cheap to clone.
#[derive(Clone)]
pub struct Inventory {
    client: InventoryServiceClient<MeshChannel>,
}

impl Inventory {
    /// Speaks through this channel.
    pub fn new(channel: MeshChannel) -> Self {
        Self { client: InventoryServiceClient::new(channel) }
    }

    /// Notifies inventory of what the event offers, and when. Returns once it goes by that. It knows the version, so
    /// that a repeat changes nothing and an older call that comes late does not either.
    pub async fn confirm(&self, event: &Event) -> Result<(), Unconfirmed> {
        let request = staged(event);
        let outcome = Deadline::after(TIMEOUT).bound(self.stage(&request)).await;
        let outcome = outcome.unwrap_or_else(|problem| Err(problem.into()));
        outcome.map_err(|status| Unconfirmed { event_id: event.id(), status })
    }

    /// Tries again while nobody could take the call: another replica most often answers where one has died.
    async fn stage(&self, request: &StageStockRequest) -> Result<(), Status> {
        let mut attempt = 1;
        loop {
            match self.client.clone().stage_stock(request.clone()).await {
                Ok(_) => return Ok(()),
                Err(status) if attempt < ATTEMPTS && may_pass(&status) => {
                    sleep(backoff(attempt)).await;
                    attempt += 1;
                }
                Err(status) => return Err(status),
            }
        }
    }
}

fn may_pass(status: &Status) -> bool {
    Problem::from_status(status).reason() == Reason::Unavailable
}

fn staged(event: &Event) -> StageStockRequest {
    let schedule = &event.schedule;
    let cancel_time = match schedule.state {
        State::Cancelled { cancel_time, .. } => Some(timestamp(cancel_time)),
        State::Scheduled | State::Open { .. } | State::Closed { .. } => None,
    };
    StageStockRequest {
        event_id: schedule.event_id.to_string(),
        event_version: schedule.version,
        open_time: Some(timestamp(schedule.times.open_time())),
        close_time: Some(timestamp(schedule.times.close_time())),
        items: event.items.iter().map(staged_item).collect(),
        cancel_time,
    }
}

fn staged_item(item: &Item) -> StagedItem {
    StagedItem {
        item_id: item.id.to_string(),
        total_units: item.total_units,
        limit_per_buyer: item.limit_per_buyer,
        gift_total_units: item.gift.as_ref().map_or(0, |gift| gift.total_units),
        unit_price: Some(item.unit_price.into()),
        title: item.title.clone(),
        gift_title: item.gift.as_ref().map(|gift| gift.title.clone()).unwrap_or_default(),
    }
}
