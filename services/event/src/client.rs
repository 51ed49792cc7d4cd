//! Client of the inventory service: notifies it of new times and of cancellations, which it confirms.
//!
//! Its consumer gets them by message as well. By the call the operator is answered only once nothing is sold at the old
//! times any more.

use crate::domain::{Event, Item};
use stampede_chassis::{MeshChannel, retry_unavailable};
use stampede_proto::{
    convert::timestamp,
    inventory::v1::{StageStockRequest, StagedItem, inventory_service_client::InventoryServiceClient},
};
use stampede_vocab::EventId;
use std::time::Duration;
use tonic::Status;

/// Attempts of a call, including the first.
const MAX_ATTEMPTS: u32 = 4;
/// Time-out of a call with all its attempts: less than the default deadline of this service's callers.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Inventory has not confirmed the change of an event. It may have taken effect there, and the message will make sure.
#[derive(Debug, Clone, thiserror::Error)]
#[error("inventory has not confirmed {event_id}: {:?}, {}", status.code(), status.message())]
pub struct Unconfirmed {
    pub event_id: EventId,
    pub status: Status,
}

/// A client of the inventory service. Cheap to clone.
#[derive(Clone)]
pub struct Inventory {
    client: InventoryServiceClient<MeshChannel>,
}

impl Inventory {
    pub fn new(channel: MeshChannel) -> Self {
        Self { client: InventoryServiceClient::new(channel) }
    }

    /// Sends an event's items and times to inventory. Returns once they are in effect there. The version makes the call
    /// idempotent: a repeat, or a late call with an older version, changes nothing.
    pub async fn confirm(&self, event: &Event) -> Result<(), Unconfirmed> {
        let request = staged(event);
        let call = || {
            let (mut client, request) = (self.client.clone(), request.clone());
            async move { client.stage_stock(request).await }
        };
        let outcome = retry_unavailable(MAX_ATTEMPTS, TIMEOUT, call).await;
        outcome.map(drop).map_err(|status| Unconfirmed { event_id: event.id(), status })
    }
}

fn staged(event: &Event) -> StageStockRequest {
    let schedule = &event.schedule;
    StageStockRequest {
        event_id: schedule.event_id.to_string(),
        event_version: schedule.version,
        open_time: Some(timestamp(schedule.times.open_time())),
        close_time: Some(timestamp(schedule.times.close_time())),
        items: event.items.iter().map(staged_item).collect(),
        cancel_time: schedule.state.cancel_time().map(timestamp),
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
