//! Holds of units. Reservations that queue while others are under way go out together as one call.

use super::{Asker, PeerError, persistently};
use crate::{
    domain::{Draft, Hold, Line, PlaceRefusal, StockReason, StockRefusal, Wanted},
    wire::timestamp,
};
use stampede_batch::BatchConfig;
use stampede_chassis::MeshChannel;
use stampede_proto::inventory::v1::{
    self as inventory, RefusalReason, inventory_service_client::InventoryServiceClient, reservation_result::Outcome,
};
use stampede_proto::r#type::v1 as kind;
use stampede_vocab::{Money, Quantity, Timestamp};
use tonic::Status;

const PEER: &str = "inventory";

const RESERVE: BatchConfig = BatchConfig { name: "reserve", max_batch: 256, max_in_flight: 2, max_queued: 8_192 };

type Client = InventoryServiceClient<MeshChannel>;

/// The inventory service. Cheap to clone.
#[derive(Clone)]
pub struct Inventory {
    client: Client,
    reserve: Asker<inventory::Reservation, inventory::ReservationResult>,
}

impl Inventory {
    /// Speaks through this channel.
    pub fn new(channel: MeshChannel) -> Self {
        let client = Client::new(channel);
        let reserving = client.clone();
        let reserve = Asker::new(PEER, RESERVE, move |wanted| reserve_all(reserving.clone(), wanted));
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
        persistently(call).await.map_err(|status| PeerError::Failed { peer: PEER, status })?;
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
        Some(Outcome::Hold(hold)) => {
            let lines = hold.lines.iter().map(held_line).collect::<Option<Vec<_>>>();
            let lines = lines.filter(|lines| !lines.is_empty());
            let lines = lines.ok_or_else(|| PeerError::senseless(PEER, "a hold with an unreadable line"))?;
            let held_at = hold.held_at.as_ref().map(instant);
            let held_at = held_at.ok_or_else(|| PeerError::senseless(PEER, "a hold without its time"))?;
            Ok(Ok(Hold { lines, arrival: hold.arrival, held_at }))
        }
        Some(Outcome::Refusal(refusal)) => Ok(Err(self::refusal(draft, &refusal)?)),
        None => Err(PeerError::senseless(PEER, "a result without an outcome")),
    }
}

fn held_line(line: &inventory::HeldLine) -> Option<Line> {
    Some(Line {
        item: line.item_id.parse().ok()?,
        units: Quantity::new(line.units.into()).ok()?,
        unit_price: money(line.unit_price.as_ref()?)?,
        gift_units: line.gift_units,
    })
}

/// An amount as another service gives it; `None` for a currency that is none.
pub(super) fn money(money: &kind::Money) -> Option<Money> {
    Some(Money::new(money.minor_units, money.currency.parse().ok()?))
}

/// An instant as another service gives it.
fn instant(at: &prost_types::Timestamp) -> Timestamp {
    Timestamp::from_micros(at.seconds.saturating_mul(1_000_000).saturating_add(i64::from(at.nanos / 1_000)))
}

fn refusal(draft: &Draft, refusal: &inventory::Refusal) -> Result<PlaceRefusal, PeerError> {
    let reason = match refusal.reason() {
        RefusalReason::Unspecified => return Err(PeerError::senseless(PEER, "a refusal without a reason")),
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
