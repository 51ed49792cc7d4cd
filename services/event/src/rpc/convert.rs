//! Converts between the contract and the domain. Errors name the invalid field.

use crate::domain::{Event, Gift, Item, NewEvent, NewItem, PaidOrders, State, Times};
use prost::Message;
use sha2::{Digest, Sha256};
use stampede_proto::{
    convert::{money, time, timestamp},
    event::v1 as proto,
};
use stampede_service::{Page, Paging};
use stampede_status::Problem;
use stampede_vocab::{EventId, Fingerprint, InvalidField, RequestId, UserId, field, limits::MAX_WATCHED_EVENTS};
use std::collections::HashSet;

/// Converts a request to create an event.
pub fn new_event(caller: UserId, request: proto::CreateEventRequest) -> Result<NewEvent, Problem> {
    let request_id = RequestId::of_request(&request.request_id)?;
    let fingerprint = fingerprint(&request);
    let times = times(request.open_time, request.close_time)?;
    let items = field::each("items", request.items, new_item)?;
    Ok(NewEvent::new((caller, request_id, fingerprint), request.name, times, items)?)
}

pub fn times(
    open_time: Option<prost_types::Timestamp>,
    close_time: Option<prost_types::Timestamp>,
) -> Result<Times, Problem> {
    Ok(Times::new(time("open_time", open_time)?, time("close_time", close_time)?)?)
}

/// Parses the field `event_id`.
pub fn event_id(text: &str) -> Result<EventId, Problem> {
    Ok(field::id("event_id", text)?)
}

/// Validates the version that the caller expects; `None` for any.
pub fn expected_version(version: Option<i64>) -> Result<Option<i64>, Problem> {
    match version {
        Some(version) if version < 1 => Err(Problem::invalid_field("expected_version", "must be at least 1, or unset")),
        version => Ok(version),
    }
}

/// Converts the fate of the paid orders of an event that is cancelled.
pub fn paid_orders(value: i32) -> Result<PaidOrders, Problem> {
    match proto::PaidOrders::try_from(value) {
        Ok(proto::PaidOrders::Unspecified | proto::PaidOrders::Keep) => Ok(PaidOrders::Keep),
        Ok(proto::PaidOrders::Refund) => Ok(PaidOrders::Refund),
        Err(_) => Err(Problem::invalid_field("paid_orders", "must be PAID_ORDERS_KEEP or PAID_ORDERS_REFUND")),
    }
}

/// Parses the ids of a watch, without duplicates.
pub fn watched_ids(texts: &[String]) -> Result<Vec<EventId>, Problem> {
    field::ensure_count("event_ids", texts.len(), 1..=MAX_WATCHED_EVENTS)?;
    let mut seen = HashSet::new();
    let mut ids = field::ids("event_ids", texts)?;
    ids.retain(|id| seen.insert(*id));
    Ok(ids)
}

/// Parses the page of all events that is requested.
pub fn events(request: &proto::ListEventsRequest) -> Result<Paging, Problem> {
    Ok(Paging::parse("events", request.page_size, &request.page_token)?)
}

pub fn page(page: Page<Event>) -> proto::ListEventsResponse {
    let Page { rows, next_page_token } = page;
    proto::ListEventsResponse { events: rows.into_iter().map(event).collect(), next_page_token }
}

pub fn event(event: Event) -> proto::Event {
    let schedule = event.schedule;
    proto::Event {
        event_id: schedule.event_id.to_string(),
        name: event.name,
        state: state(schedule.state).into(),
        open_time: Some(timestamp(schedule.times.open_time())),
        close_time: Some(timestamp(schedule.times.close_time())),
        items: event.items.into_iter().map(item).collect(),
        actual_open_time: schedule.state.actual_open_time().map(timestamp),
        actual_close_time: schedule.state.actual_close_time().map(timestamp),
        create_time: Some(timestamp(event.created_at)),
        update_time: Some(timestamp(schedule.updated_at)),
        version: schedule.version,
        paid_orders: schedule.state.paid_orders().map_or(proto::PaidOrders::Unspecified, proto_paid_orders).into(),
        cancel_time: schedule.state.cancel_time().map(timestamp),
    }
}

/// Returns the fingerprint of the request, without its request id.
fn fingerprint(request: &proto::CreateEventRequest) -> Fingerprint {
    let without_id = proto::CreateEventRequest { request_id: String::new(), ..request.clone() };
    Fingerprint::new(Sha256::digest(without_id.encode_to_vec()).into())
}

fn new_item(item: proto::NewItem) -> Result<NewItem, InvalidField> {
    let price = money("unit_price", item.unit_price.as_ref())?;
    let gift = item.gift.map(|gift| Gift { title: gift.title, total_units: gift.total_units });
    NewItem::new(item.title, price, item.total_units, item.limit_per_buyer, gift)
}

fn state(state: State) -> proto::EventState {
    match state {
        State::Scheduled => proto::EventState::Scheduled,
        State::Open { .. } => proto::EventState::Open,
        State::Closed { .. } => proto::EventState::Closed,
        State::Cancelled { .. } => proto::EventState::Cancelled,
    }
}

fn proto_paid_orders(paid_orders: PaidOrders) -> proto::PaidOrders {
    match paid_orders {
        PaidOrders::Keep => proto::PaidOrders::Keep,
        PaidOrders::Refund => proto::PaidOrders::Refund,
    }
}

fn item(item: Item) -> proto::Item {
    proto::Item {
        item_id: item.id.to_string(),
        title: item.title,
        unit_price: Some(item.unit_price.into()),
        total_units: item.total_units,
        limit_per_buyer: item.limit_per_buyer,
        gift: item.gift.map(|gift| proto::Gift { title: gift.title, total_units: gift.total_units }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_covers_all_but_the_request_id() {
        let request =
            proto::CreateEventRequest { request_id: "a".to_owned(), name: "Sale".to_owned(), ..Default::default() };
        let renamed = proto::CreateEventRequest { request_id: "b".to_owned(), ..request.clone() };
        let other = proto::CreateEventRequest { name: "Sales".to_owned(), ..request.clone() };
        assert_eq!(fingerprint(&request), fingerprint(&renamed));
        assert_ne!(fingerprint(&request), fingerprint(&other));
    }

    #[test]
    fn an_expected_version_is_one_that_an_event_can_have() {
        assert_eq!(expected_version(None).unwrap(), None);
        assert_eq!(expected_version(Some(1)).unwrap(), Some(1));
        for bad in [0, -1] {
            assert_eq!(expected_version(Some(bad)).unwrap_err().field_path(), Some("expected_version"), "{bad}");
        }
    }

    #[test]
    fn paid_orders_are_kept_unless_the_request_says_otherwise() {
        assert_eq!(paid_orders(0).unwrap(), PaidOrders::Keep);
        assert_eq!(paid_orders(proto::PaidOrders::Refund.into()).unwrap(), PaidOrders::Refund);
        assert_eq!(paid_orders(9).unwrap_err().field_path(), Some("paid_orders"));
    }

    #[test]
    fn watched_ids_are_bounded_and_named() {
        let id = "evt_0000000000000000000000001a".to_owned();
        assert_eq!(watched_ids(&[id.clone(), id.clone()]).unwrap().len(), 1);
        let fault = |ids: &[String]| watched_ids(ids).unwrap_err().field_path().unwrap().to_owned();
        assert_eq!(fault(&[]), "event_ids");
        assert_eq!(fault(&vec![id.clone(); 101]), "event_ids");
        assert_eq!(fault(&[id, "x".to_owned()]), "event_ids[1]");
    }
}
