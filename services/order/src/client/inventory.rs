//! Holds of units. Reservations that queue while others are under way go out together as one call.

use super::{BatchingClient, PeerError, with_retry};
use crate::domain::{Draft, Hold, Line, PlaceRefusal, StockReason, StockRefusal, Wanted};
use stampede_batch::BatchConfig;
use stampede_chassis::MeshChannel;
use stampede_proto::{
    convert::{money, time, timestamp},
    inventory::v1::{
        self as inventory, RefusalReason, inventory_service_client::InventoryServiceClient, reservation_result::Outcome,
    },
};
use stampede_vocab::{InvalidField, Quantity, Service, Timestamp, field};
use tonic::Status;

const PEER: Service = Service::Inventory;

const RESERVE: BatchConfig = BatchConfig { name: "reserve", max_batch: 256, max_in_flight: 2, max_queued: 8_192 };

type Client = InventoryServiceClient<MeshChannel>;

/// The inventory service. Cheap to clone.
#[derive(Clone)]
pub struct Inventory {
    client: Client,
    reserve: BatchingClient<inventory::Reservation, inventory::ReservationResult>,
}

impl Inventory {
    /// Speaks through this channel.
    pub fn new(channel: MeshChannel) -> Self {
        let client = Client::new(channel);
        let reserving = client.clone();
        let reserve = BatchingClient::new(PEER, RESERVE, move |wanted| reserve_all(reserving.clone(), wanted));
        Self { client, reserve }
    }

    /// Asks for the units of one order, all or nothing. A repeat gets the same hold. Fails if the service could not be
    /// asked; whether the units are held is not known then.
    pub async fn reserve(&self, draft: &Draft) -> Result<Result<Hold, PlaceRefusal>, PeerError> {
        outcome(draft, self.reserve.ask(reservation(draft)).await?)
    }

    /// Gives a hold back whose order was not written, unless it was asked for since it was `held_at`. What is in the
    /// ledger is not touched.
    pub async fn release(&self, draft: &Draft, held_at: Timestamp) -> Result<(), PeerError> {
        let hold = inventory::HoldRef {
            event_id: draft.event.to_string(),
            order_id: draft.order.to_string(),
            held_at: Some(timestamp(held_at)),
        };
        let request = inventory::ReleaseRequest { holds: vec![hold] };
        let call = || {
            let (mut client, request) = (self.client.clone(), request.clone());
            async move { client.release(request).await }
        };
        with_retry(call).await.map_err(|status| PeerError::Failed { peer: PEER, status })?;
        Ok(())
    }
}

async fn reserve_all(
    mut client: Client,
    reservations: Vec<inventory::Reservation>,
) -> Result<Vec<inventory::ReservationResult>, Status> {
    Ok(client.reserve(inventory::ReserveRequest { reservations }).await?.into_inner().results)
}

fn reservation(draft: &Draft) -> inventory::Reservation {
    let line =
        |wanted: &Wanted| inventory::ReservationLine { item_id: wanted.item.to_string(), units: wanted.units.get() };
    inventory::Reservation {
        order_id: draft.order.to_string(),
        user_id: draft.buyer.to_string(),
        event_id: draft.event.to_string(),
        lines: draft.lines.iter().map(line).collect(),
        request_fingerprint: draft.fingerprint().as_bytes().to_vec(),
    }
}

fn outcome(draft: &Draft, result: inventory::ReservationResult) -> Result<Result<Hold, PlaceRefusal>, PeerError> {
    match result.outcome {
        Some(Outcome::Hold(hold)) => held(hold).map(Ok).map_err(|error| PeerError::invalid(PEER, error)),
        Some(Outcome::Refusal(refusal)) => Ok(Err(self::refusal(draft, &refusal)?)),
        None => Err(PeerError::invalid(PEER, "a result without an outcome")),
    }
}

fn held(hold: inventory::Hold) -> Result<Hold, InvalidField> {
    field::ensure_count("lines", hold.lines.len(), 1..=usize::MAX)?;
    let lines = field::each("lines", &hold.lines, held_line)?;
    Ok(Hold { lines, arrival: hold.arrival, held_at: time("held_at", hold.held_at)? })
}

fn held_line(line: &inventory::HeldLine) -> Result<Line, InvalidField> {
    Ok(Line {
        item: field::id("item_id", &line.item_id)?,
        units: Quantity::new(line.units.into())?,
        unit_price: money("unit_price", line.unit_price.as_ref())?,
        gift_units: line.gift_units,
    })
}

fn refusal(draft: &Draft, refusal: &inventory::Refusal) -> Result<PlaceRefusal, PeerError> {
    let reason = match refusal.reason() {
        RefusalReason::Unspecified => return Err(PeerError::invalid(PEER, "a refusal without a reason")),
        RefusalReason::RequestIdReused => return Ok(PlaceRefusal::RequestIdReused),
        RefusalReason::EventNotFound => StockReason::EventNotFound,
        RefusalReason::EventNotOpen => StockReason::EventNotOpen,
        RefusalReason::EventClosed => StockReason::EventClosed,
        RefusalReason::SoldOut => StockReason::SoldOut,
        RefusalReason::LimitReached => StockReason::LimitReached,
        RefusalReason::ItemNotFound => StockReason::ItemNotFound,
        RefusalReason::NotReady => StockReason::NotReady,
        RefusalReason::CurrencyMismatch => StockReason::CurrencyMismatch,
    };
    let line = refusal.item_id.parse().ok().and_then(|item| draft.line_of(item));
    Ok(PlaceRefusal::Stock(StockRefusal { reason, line, allowed_units: refusal.allowed_units }))
}
