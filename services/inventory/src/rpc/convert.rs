//! Converts between the contract and the domain. Errors name the invalid field.

use crate::{
    domain::{
        Drift, Label, Offered, OrderedLine, Refusal, RefusalReason, ReservedUnits, Shelf, ShelfItem, StockLevel,
        StockView, Titles, Window,
    },
    usecase::{EventReservation, Reserved},
};
use stampede_lua::stock::{InLedger, MAX_RESERVATIONS, Reservation, WantedLine};
use stampede_proto::{
    convert::{stored_money, time, timestamp},
    inventory::v1 as proto,
};
use stampede_status::Problem;
use stampede_vocab::{
    EventId, Fingerprint, InvalidField, OrderId, Quantity, Timestamp, field, limits::MAX_ORDER_LINES,
};
use std::{collections::HashSet, ops::RangeInclusive};

/// Allowed number of lines of an order.
const LINES: RangeInclusive<usize> = 1..=MAX_ORDER_LINES;
/// Allowed number of reservations in one call.
const PER_CALL: RangeInclusive<usize> = 1..=MAX_RESERVATIONS;

/// Parses the field `event_id`.
pub fn event_id(text: &str) -> Result<EventId, Problem> {
    Ok(field::id("event_id", text)?)
}

/// Converts a request to stage an event.
pub fn shelf(request: proto::StageStockRequest) -> Result<Shelf, Problem> {
    let event_id = event_id(&request.event_id)?;
    let mut window = Window::new(time("open_time", request.open_time)?, time("close_time", request.close_time)?)?;
    if request.cancel_time.is_some() {
        window = window.ended_at(time("cancel_time", request.cancel_time)?);
    }
    let items = field::each("items", request.items, offered)?;
    Ok(Shelf::new(event_id, request.event_version, window, items)?)
}

pub fn reservations(request: proto::ReserveRequest) -> Result<Vec<EventReservation>, Problem> {
    field::ensure_count("reservations", request.reservations.len(), PER_CALL)?;
    Ok(field::each("reservations", request.reservations, reservation)?)
}

/// Converts the reservations to give back.
pub fn reservation_refs(request: &proto::ReleaseRequest) -> Result<Vec<(OrderId, Timestamp)>, Problem> {
    field::ensure_count("reservations", request.reservations.len(), PER_CALL)?;
    Ok(field::each("reservations", &request.reservations, reservation_ref)?)
}

fn reservation_ref(reservation: &proto::ReservationRef) -> Result<(OrderId, Timestamp), InvalidField> {
    Ok((field::id("order_id", &reservation.order_id)?, time("request_time", reservation.request_time)?))
}

/// Converts the outcome of one reservation.
pub fn result(reserved: Reserved) -> proto::ReservationResult {
    let outcome = match reserved {
        Reserved::Units { units, labels, request_time } => {
            proto::reservation_result::Outcome::Reserved(units_in_ledger(&units, &labels, request_time))
        }
        Reserved::Refused(refusal) => proto::reservation_result::Outcome::Refusal(refused(&refusal)),
    };
    proto::ReservationResult { outcome: Some(outcome) }
}

pub fn stocks(view: StockView) -> Vec<proto::Stock> {
    view.levels.into_iter().map(stock).collect()
}

/// Converts an item whose units differed.
pub fn drift(drift: Drift) -> proto::Drift {
    proto::Drift {
        item_id: drift.item_id.to_string(),
        ledger_units: drift.ledger_units,
        redis_units: drift.redis_units.unwrap_or(-1),
    }
}

fn offered(item: proto::StagedItem) -> Result<Offered, InvalidField> {
    let numbers = ShelfItem {
        item_id: field::id("item_id", &item.item_id)?,
        total_units: item.total_units,
        limit_per_buyer: item.limit_per_buyer,
        gift_total_units: item.gift_total_units,
        unit_price: stored_money("unit_price", item.unit_price.as_ref())?,
    };
    Ok(Offered { item: numbers.checked()?, titles: Titles::new(item.title, item.gift_title)? })
}

fn reservation(wanted: proto::Reservation) -> Result<EventReservation, InvalidField> {
    field::ensure_count("lines", wanted.lines.len(), LINES)?;
    let lines = field::each("lines", wanted.lines, |line| {
        Ok(WantedLine { item_id: field::id("item_id", &line.item_id)?, units: Quantity::new(line.units.into())? })
    })?;
    let mut seen = HashSet::with_capacity(lines.len());
    if let Some(index) = lines.iter().position(|line| !seen.insert(line.item_id)) {
        return Err(InvalidField::new(format!("lines[{index}].item_id"), "must not be there twice"));
    }
    let order_id = field::id("order_id", &wanted.order_id)?;
    let user_id = field::id("user_id", &wanted.user_id)?;
    let fingerprint = Fingerprint::parse(&wanted.request_fingerprint)?;
    let reservation = Reservation { order_id, user_id, fingerprint, ledger: InLedger::Unknown, lines };
    Ok(EventReservation { event_id: field::id("event_id", &wanted.event_id)?, reservation })
}

fn units_in_ledger(units: &ReservedUnits, labels: &[Label], request_time: Option<Timestamp>) -> proto::Reserved {
    proto::Reserved {
        lines: units.lines.iter().zip(labels).map(reserved_line).collect(),
        arrival: units.arrival,
        request_time: request_time.map(timestamp),
        commit_time: Some(timestamp(units.committed_at)),
    }
}

fn reserved_line((line, label): (&OrderedLine, &Label)) -> proto::ReservedLine {
    proto::ReservedLine {
        item_id: line.item_id.to_string(),
        units: line.units,
        unit_price: Some(label.unit_price.into()),
        gift_units: line.gift_units,
        title: label.titles.item.clone(),
        gift_title: label.titles.gift.clone(),
    }
}

fn refused(refusal: &Refusal) -> proto::Refusal {
    proto::Refusal {
        reason: reason(refusal.reason).into(),
        item_id: refusal.item_id.map(|item| item.to_string()).unwrap_or_default(),
        allowed_units: refusal.allowed_units,
    }
}

fn reason(reason: RefusalReason) -> proto::RefusalReason {
    match reason {
        RefusalReason::RequestIdReused => proto::RefusalReason::RequestIdReused,
        RefusalReason::Released => proto::RefusalReason::Released,
        RefusalReason::EventNotFound => proto::RefusalReason::EventNotFound,
        RefusalReason::EventNotOpen => proto::RefusalReason::EventNotOpen,
        RefusalReason::EventClosed => proto::RefusalReason::EventClosed,
        RefusalReason::NotReady => proto::RefusalReason::NotReady,
        RefusalReason::ItemNotFound => proto::RefusalReason::ItemNotFound,
        RefusalReason::CurrencyMismatch => proto::RefusalReason::CurrencyMismatch,
        RefusalReason::LimitReached => proto::RefusalReason::LimitReached,
        RefusalReason::SoldOut => proto::RefusalReason::SoldOut,
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
    use stampede_proto::r#type::v1::Money as ProtoMoney;

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
        super::reservations(proto::ReserveRequest { reservations }).unwrap_err().field_path().unwrap().to_owned()
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
            open_time: seconds(1),
            close_time: seconds(2),
            items: vec![proto::StagedItem {
                item_id: ITEM.into(),
                total_units: 5,
                limit_per_buyer: 1,
                gift_total_units: 0,
                unit_price,
                title: "Lamp".into(),
                gift_title: String::new(),
            }],
            cancel_time: None,
        }
    }

    #[test]
    fn the_window_of_a_cancelled_event_ends_with_it() {
        let cancelled = |seconds| {
            let cancel_time = Some(prost_types::Timestamp { seconds, nanos: 0 });
            shelf(proto::StageStockRequest { cancel_time, ..staged() }).unwrap().window.close_time
        };
        assert_eq!(cancelled(0), Timestamp::from_micros(0), "before it opened");
        assert_eq!(cancelled(3), Timestamp::from_micros(2_000_000), "it had closed before");
    }

    #[test]
    fn a_bad_shelf_is_named_with_its_field() {
        type Spoil = fn(&mut proto::StageStockRequest);
        let table: [(Spoil, &str); 9] = [
            (|request| request.event_id = "x".into(), "event_id"),
            (|request| request.event_version = 0, "event_version"),
            (|request| request.open_time = None, "open_time"),
            (|request| request.close_time = request.open_time, "close_time"),
            (|request| request.items.clear(), "items"),
            (|request| request.items.extend(request.items.clone()), "items[1].item_id"),
            (|request| request.items[0].total_units = 0, "items[0].total_units"),
            (|request| request.items[0].unit_price = None, "items[0].unit_price"),
            (|request| request.items[0].title = "x".repeat(201), "items[0].title"),
        ];
        assert!(shelf(staged()).is_ok());
        for (spoil, field) in table {
            let mut request = staged();
            spoil(&mut request);
            assert_eq!(shelf(request).unwrap_err().field_path(), Some(field));
        }
    }
}
