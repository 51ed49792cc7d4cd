//! Reserves units. Calls for an event that queue while its batch is in flight go out as one. Each event has a queue of
//! its own: inventory answers a batch when all of it is decided, which takes seconds if rows of the event are locked.

use super::{MAX_ATTEMPTS, PeerError, TIMEOUT, by_event::EventClient};
use crate::domain::{Draft, Line, Order, PlaceRefusal, RequestedLine, Reserved, StockReason, StockRefusal};
use stampede_batch::BatchConfig;
use stampede_chassis::{MeshChannel, retry_unavailable};
use stampede_proto::{
    convert::{stored_money, time, timestamp},
    inventory::v1::{
        self as inventory, RefusalReason, inventory_service_client::InventoryServiceClient, reservation_result::Outcome,
    },
};
use stampede_vocab::{EventId, InvalidField, OrderId, Quantity, Service, Timestamp, field};
use tonic::Status;

const PEER: Service = Service::Inventory;

/// The queue of an event. With the two batches in flight it holds three quarters of what all may hold together, so that
/// the other events have places.
const RESERVE: BatchConfig =
    BatchConfig { name: "reserve", max_batch: 256, max_in_flight: 2, max_queued: 5_632, must_run: false };

type Client = InventoryServiceClient<MeshChannel>;

/// The inventory service. Cheap to clone.
#[derive(Clone)]
pub struct Inventory {
    client: Client,
    reserve: EventClient<inventory::Reservation, inventory::ReservationResult>,
}

impl Inventory {
    pub fn new(channel: MeshChannel) -> Self {
        let client = Client::new(channel);
        let batch_client = client.clone();
        let reserve = EventClient::new(PEER, RESERVE, move |wanted| reserve_all(batch_client.clone(), wanted));
        Self { client, reserve }
    }

    /// Reserves the units of one order, all or nothing. Idempotent. After an error the units may or may not be
    /// reserved.
    pub async fn reserve(&self, draft: &Draft) -> Result<Result<Reserved, PlaceRefusal>, PeerError> {
        outcome(draft, self.reserve.call(draft.event, reservation(draft)).await?)
    }

    /// Reserves the units of a pending order, which is written already. Returns the committed units, `Some(None)` if
    /// there are none, and `None` if that is not known yet.
    pub async fn reserve_written(&self, order: &Order) -> Result<Option<Option<Reserved>>, PeerError> {
        match self.reserve.call(order.event, reservation_of(order)).await?.outcome {
            Some(Outcome::Reserved(reserved)) => {
                let reserved = self::reserved(reserved).map_err(|error| PeerError::invalid(PEER, error))?;
                Ok(reserved.is_committed.then_some(Some(reserved)))
            }
            Some(Outcome::Refusal(refusal)) if refusal.reason() != RefusalReason::NotReady => Ok(Some(None)),
            Some(Outcome::Refusal(_)) | None => Ok(None),
        }
    }

    /// Withdraws a reservation whose order was not written. The units are freed once every concurrent duplicate of the
    /// request is withdrawn too. Those of an order that is known to be written are kept.
    pub async fn release(&self, event: EventId, order: OrderId, request_time: Timestamp) -> Result<(), PeerError> {
        let reservation = inventory::ReservationRef {
            event_id: event.to_string(),
            order_id: order.to_string(),
            request_time: Some(timestamp(request_time)),
        };
        let request = inventory::ReleaseRequest { reservations: vec![reservation] };
        let call = || {
            let (mut client, request) = (self.client.clone(), request.clone());
            async move { client.release(request).await }
        };
        let outcome = retry_unavailable(MAX_ATTEMPTS, TIMEOUT, call).await;
        outcome.map(drop).map_err(|status| PeerError::Failed { peer: PEER, status })
    }
}

async fn reserve_all(
    mut client: Client,
    reservations: Vec<inventory::Reservation>,
) -> Result<Vec<inventory::ReservationResult>, Status> {
    Ok(client.reserve(inventory::ReserveRequest { reservations }).await?.into_inner().results)
}

fn reservation(draft: &Draft) -> inventory::Reservation {
    let line = |wanted: &RequestedLine| inventory::ReservationLine {
        item_id: wanted.item.to_string(),
        units: wanted.units.get(),
    };
    inventory::Reservation {
        order_id: draft.order.to_string(),
        user_id: draft.buyer.to_string(),
        event_id: draft.event.to_string(),
        lines: draft.lines.iter().map(line).collect(),
        request_fingerprint: draft.fingerprint().as_bytes().to_vec(),
    }
}

fn reservation_of(order: &Order) -> inventory::Reservation {
    let line = |line: &Line| inventory::ReservationLine { item_id: line.item.to_string(), units: line.units.get() };
    inventory::Reservation {
        order_id: order.id.to_string(),
        user_id: order.buyer.to_string(),
        event_id: order.event.to_string(),
        lines: order.lines.iter().map(line).collect(),
        request_fingerprint: order.fingerprint.as_bytes().to_vec(),
    }
}

fn outcome(draft: &Draft, result: inventory::ReservationResult) -> Result<Result<Reserved, PlaceRefusal>, PeerError> {
    match result.outcome {
        Some(Outcome::Reserved(reserved)) => {
            self::reserved(reserved).map(Ok).map_err(|error| PeerError::invalid(PEER, error))
        }
        Some(Outcome::Refusal(refusal)) => Ok(Err(self::refusal(draft, &refusal)?)),
        None => Err(PeerError::invalid(PEER, "a result without an outcome")),
    }
}

fn reserved(reserved: inventory::Reserved) -> Result<Reserved, InvalidField> {
    field::ensure_count("lines", reserved.lines.len(), 1..=usize::MAX)?;
    let lines = field::each("lines", &reserved.lines, reserved_line)?;
    let request_time =
        reserved.request_time.map(|request_time| time("request_time", Some(request_time))).transpose()?;
    Ok(Reserved { lines, arrival: reserved.arrival, request_time, is_committed: reserved.commit_time.is_some() })
}

fn reserved_line(line: &inventory::ReservedLine) -> Result<Line, InvalidField> {
    Ok(Line {
        item: field::id("item_id", &line.item_id)?,
        units: Quantity::new(line.units.into())?,
        unit_price: stored_money("unit_price", line.unit_price.as_ref())?,
        gift_units: line.gift_units,
        title: line.title.as_str().into(),
        gift_title: line.gift_title.as_str().into(),
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
        RefusalReason::Released => StockReason::Released,
    };
    let line = refusal.item_id.parse().ok().and_then(|item| draft.line_of(item));
    Ok(PlaceRefusal::Stock(StockRefusal { reason, line, allowed_units: refusal.allowed_units }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Prices, State};
    use stampede_proto::r#type::v1::Money;
    use stampede_vocab::{ItemId, RequestId, UserId};
    use uuid::Uuid;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    fn draft() -> Draft {
        let wanted = RequestedLine { item: ItemId::from_uuid(Uuid::from_u128(9)), units: Quantity::new(2).unwrap() };
        let (buyer, event) = (UserId::from_uuid(Uuid::from_u128(1)), EventId::from_uuid(Uuid::from_u128(3)));
        Draft::new(buyer, RequestId::parse("r").unwrap(), event, vec![wanted], None, None).unwrap()
    }

    /// Without a commit time it is byte for byte the answer of an inventory that has not asked its ledger yet, as an
    /// earlier release sends it.
    fn answer(draft: &Draft, committed_at: Option<Timestamp>) -> inventory::ReservationResult {
        let line = inventory::ReservedLine {
            item_id: draft.lines[0].item.to_string(),
            units: 2,
            unit_price: Some(Money { minor_units: 1_999, currency: "EUR".into() }),
            ..inventory::ReservedLine::default()
        };
        let reserved = inventory::Reserved {
            lines: vec![line],
            arrival: 7,
            request_time: Some(timestamp(at(5))),
            commit_time: committed_at.map(timestamp),
        };
        inventory::ReservationResult { outcome: Some(Outcome::Reserved(reserved)) }
    }

    fn placed(draft: &Draft, answer: inventory::ReservationResult) -> Order {
        let reserved = outcome(draft, answer).unwrap().unwrap();
        let prices = Prices::of(&reserved.lines).unwrap();
        Order::place(draft, reserved, prices, at(10), at(20))
    }

    #[test]
    fn an_order_can_be_paid_only_if_the_ledger_has_its_units() {
        let draft = draft();
        let committed = placed(&draft, answer(&draft, Some(at(6))));
        assert_eq!(committed.state, State::AwaitingPayment { pay_deadline: at(20) });
        let held = placed(&draft, answer(&draft, None));
        assert_eq!(held.state, State::Pending);
    }
}
