//! Between the contract and the domain: requests in, stock and problems out. Says which field is at fault.

use crate::{
    domain::{Drift, Shelf, ShelfItem, StockLevel, StockView, Window},
    usecase::{EventHold, EventReservation, InventoryError, Reserved},
    wire::{instant, money, parse, timestamp},
};
use stampede_batch::BatchError;
use stampede_db::DbError;
use stampede_lua::{
    RedisError,
    stock::{Cause, Decision, HeldLine, Hold, MAX_RESERVATIONS, Refusal, Reservation, WantedLine},
};
use stampede_proto::{inventory::v1 as proto, r#type::v1::Money as ProtoMoney};
use stampede_status::{Problem, Reason};
use stampede_vocab::{EventId, Fingerprint, InvalidField, Money, Quantity};
use std::{collections::HashSet, ops::RangeInclusive};

/// How many lines an order may have.
const LINES: RangeInclusive<usize> = 1..=20;
/// How many reservations or holds one call may have.
const PER_CALL: RangeInclusive<usize> = 1..=MAX_RESERVATIONS;

/// The id in the field `event_id`.
pub(super) fn event_id(text: &str) -> Result<EventId, InvalidField> {
    parse("event_id", text)
}

/// What is to be put on the shelf.
pub(super) fn shelf(request: proto::StageStockRequest) -> Result<Shelf, InvalidField> {
    let event_id = event_id(&request.event_id)?;
    let window = Window::new(instant("opens_at", request.opens_at)?, instant("closes_at", request.closes_at)?)?;
    let items = each("items", request.items, shelf_item)?;
    Shelf::new(event_id, request.event_version, window, items)
}

/// The reservations of one call.
pub(super) fn reservations(request: proto::ReserveRequest) -> Result<Vec<EventReservation>, InvalidField> {
    within_count("reservations", request.reservations.len(), PER_CALL)?;
    each("reservations", request.reservations, reservation)
}

/// The holds of one call.
pub(super) fn holds(request: proto::ReleaseRequest) -> Result<Vec<EventHold>, InvalidField> {
    within_count("holds", request.holds.len(), PER_CALL)?;
    each("holds", request.holds, |hold| {
        let (event_id, order_id) = (event_id(&hold.event_id)?, parse("order_id", &hold.order_id)?);
        Ok(EventHold { event_id, order_id, held_at: instant("held_at", hold.held_at)? })
    })
}

/// The answer to one reservation.
pub(super) fn result(reserved: Reserved) -> proto::ReservationResult {
    let outcome = match reserved {
        Reserved::Decided(Decision::Held(hold)) => proto::reservation_result::Outcome::Hold(held(&hold)),
        Reserved::Decided(Decision::Refused(refusal)) => proto::reservation_result::Outcome::Refusal(refused(refusal)),
        Reserved::EventNotFound => proto::reservation_result::Outcome::Refusal(proto::Refusal {
            reason: proto::RefusalReason::EventNotFound.into(),
            ..proto::Refusal::default()
        }),
    };
    proto::ReservationResult { outcome: Some(outcome) }
}

/// What is left of each item.
pub(super) fn stocks(view: StockView) -> Vec<proto::Stock> {
    view.levels.into_iter().map(stock).collect()
}

/// An item that differed.
pub(super) fn drift(drift: Drift) -> proto::Drift {
    proto::Drift {
        item_id: drift.item_id.to_string(),
        ledger_units: drift.ledger_units,
        redis_units: drift.redis_units.unwrap_or(-1),
    }
}

/// What the caller is told of a field.
pub(super) fn invalid(error: InvalidField) -> Problem {
    Problem::invalid_field(error.field, error.problem)
}

/// What the caller is told of a failure.
pub(super) fn problem(error: InventoryError) -> Problem {
    match error {
        InventoryError::EventNotFound(_) => Problem::new(Reason::EventNotFound, error.to_string()).field("event_id"),
        InventoryError::NotReady(_) => Problem::new(Reason::NotReady, error.to_string()).field("event_id"),
        InventoryError::Batch(BatchError::Overloaded) => Problem::new(Reason::Overloaded, error.to_string()),
        InventoryError::Batch(BatchError::Closed) => Problem::internal_error(error),
        InventoryError::Db(error) => db_problem(&error),
        InventoryError::Redis(error) => redis_problem(&error),
    }
}

fn db_problem(error: &DbError) -> Problem {
    if error.is_unreachable() {
        Problem::unavailable("the inventory database", error)
    } else {
        Problem::internal_error(error)
    }
}

fn redis_problem(error: &RedisError) -> Problem {
    match error {
        RedisError::Server(_) | RedisError::Pool(_) | RedisError::TimedOut(_) => {
            Problem::unavailable("the stock", error)
        }
        RedisError::Reply { .. } | RedisError::Refused(_) => Problem::internal_error(error),
    }
}

fn shelf_item(item: proto::StagedItem) -> Result<ShelfItem, InvalidField> {
    ShelfItem {
        item_id: parse("item_id", &item.item_id)?,
        total_units: item.total_units,
        limit_per_buyer: item.limit_per_buyer,
        gift_total_units: item.gift_total_units,
        unit_price: money("unit_price", item.unit_price)?,
    }
    .checked()
}

fn reservation(wanted: proto::Reservation) -> Result<EventReservation, InvalidField> {
    within_count("lines", wanted.lines.len(), LINES)?;
    let lines = each("lines", wanted.lines, |line| {
        Ok(WantedLine { item_id: parse("item_id", &line.item_id)?, units: Quantity::new(line.units.into())? })
    })?;
    let mut seen = HashSet::with_capacity(lines.len());
    if let Some(index) = lines.iter().position(|line| !seen.insert(line.item_id)) {
        return Err(InvalidField::new(format!("lines[{index}].item_id"), "must not be there twice"));
    }
    let order_id = parse("order_id", &wanted.order_id)?;
    let user_id = parse("user_id", &wanted.user_id)?;
    let fingerprint = Fingerprint::parse(&wanted.request_fingerprint)?;
    let reservation = Reservation { order_id, user_id, fingerprint, lines };
    Ok(EventReservation { event_id: event_id(&wanted.event_id)?, reservation })
}

/// Reads each of a repeated field; an error names its place.
fn each<T, U>(
    field: &str,
    values: Vec<T>,
    read: impl Fn(T) -> Result<U, InvalidField>,
) -> Result<Vec<U>, InvalidField> {
    let read = |(index, value)| read(value).map_err(|error| error.within(&format!("{field}[{index}]")));
    values.into_iter().enumerate().map(read).collect()
}

fn within_count(field: &str, count: usize, allowed: RangeInclusive<usize>) -> Result<(), InvalidField> {
    if allowed.contains(&count) {
        return Ok(());
    }
    let (least, most) = allowed.into_inner();
    Err(InvalidField::new(field, format!("must be {least} to {most}, but are {count}")))
}

fn held(hold: &Hold) -> proto::Hold {
    proto::Hold {
        lines: hold.lines.iter().map(held_line).collect(),
        arrival: hold.arrival,
        held_at: Some(timestamp(hold.held_at)),
    }
}

fn held_line(line: &HeldLine) -> proto::HeldLine {
    proto::HeldLine {
        item_id: line.item_id.to_string(),
        units: line.units,
        unit_price: Some(price(line.unit_price)),
        gift_units: line.gift_units,
    }
}

fn price(amount: Money) -> ProtoMoney {
    ProtoMoney { minor_units: amount.minor_units, currency: amount.currency.to_string() }
}

fn refused(refusal: Refusal) -> proto::Refusal {
    proto::Refusal {
        reason: reason(refusal.cause).into(),
        item_id: refusal.item_id.map(|item| item.to_string()).unwrap_or_default(),
        allowed_units: refusal.allowed_units,
    }
}

fn reason(cause: Cause) -> proto::RefusalReason {
    match cause {
        Cause::RequestIdReused => proto::RefusalReason::RequestIdReused,
        Cause::EventNotOpen => proto::RefusalReason::EventNotOpen,
        Cause::EventClosed => proto::RefusalReason::EventClosed,
        Cause::NotReady => proto::RefusalReason::NotReady,
        Cause::ItemNotFound => proto::RefusalReason::ItemNotFound,
        Cause::CurrencyMismatch => proto::RefusalReason::CurrencyMismatch,
        Cause::LimitReached => proto::RefusalReason::LimitReached,
        Cause::SoldOut => proto::RefusalReason::SoldOut,
    }
}

fn stock(level: StockLevel) -> proto::Stock {
    proto::Stock {
        item_id: level.item_id.to_string(),
        total_units: level.total_units,
        left_units: level.left_units,
        committed_units: level.committed_units,
        held_units: level.held_units,
        left_gift_units: level.left_gift_units,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = "evt_0000000000000000000000001a";
    const ORDER: &str = "ord_0000000000000000000000001a";
    const USER: &str = "usr_0000000000000000000000001a";
    const ITEM: &str = "itm_0000000000000000000000001a";

    fn wanted(units: &[i32]) -> proto::Reservation {
        let line = |units: &i32| proto::ReservationLine { item_id: ITEM.into(), units: *units };
        proto::Reservation {
            order_id: ORDER.into(),
            user_id: USER.into(),
            event_id: EVENT.into(),
            lines: units.iter().map(line).collect(),
            request_fingerprint: vec![1; 32],
        }
    }

    fn field_at_fault(reservations: Vec<proto::Reservation>) -> String {
        super::reservations(proto::ReserveRequest { reservations }).unwrap_err().field
    }

    #[test]
    fn a_bad_reservation_is_named_with_its_field() {
        let table = [
            (vec![], "reservations"),
            (vec![wanted(&[1]); 257], "reservations"),
            (vec![wanted(&[])], "reservations[0].lines"),
            (vec![wanted(&[1]), wanted(&[0])], "reservations[1].lines[0].units"),
            (vec![wanted(&[1, 1])], "reservations[0].lines[1].item_id"),
            (vec![proto::Reservation { user_id: ORDER.into(), ..wanted(&[1]) }], "reservations[0].user_id"),
            (
                vec![proto::Reservation { request_fingerprint: vec![1; 31], ..wanted(&[1]) }],
                "reservations[0].request_fingerprint",
            ),
        ];
        for (reservations, field) in table {
            assert_eq!(field_at_fault(reservations), field);
        }
    }

    fn staged() -> proto::StageStockRequest {
        let unit_price = Some(ProtoMoney { minor_units: 100, currency: "EUR".into() });
        let seconds = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        proto::StageStockRequest {
            event_id: EVENT.into(),
            event_version: 1,
            opens_at: seconds(1),
            closes_at: seconds(2),
            items: vec![proto::StagedItem {
                item_id: ITEM.into(),
                total_units: 5,
                limit_per_buyer: 1,
                gift_total_units: 0,
                unit_price,
            }],
        }
    }

    #[test]
    fn a_bad_shelf_is_named_with_its_field() {
        type Spoil = fn(&mut proto::StageStockRequest);
        let table: [(Spoil, &str); 8] = [
            (|request| request.event_id = "x".into(), "event_id"),
            (|request| request.event_version = 0, "event_version"),
            (|request| request.opens_at = None, "opens_at"),
            (|request| request.closes_at = request.opens_at, "closes_at"),
            (|request| request.items.clear(), "items"),
            (|request| request.items.extend(request.items.clone()), "items[1].item_id"),
            (|request| request.items[0].total_units = 0, "items[0].total_units"),
            (|request| request.items[0].unit_price = None, "items[0].unit_price"),
        ];
        assert!(shelf(staged()).is_ok());
        for (spoil, field) in table {
            let mut request = staged();
            spoil(&mut request);
            assert_eq!(shelf(request).unwrap_err().field, field);
        }
    }
}
