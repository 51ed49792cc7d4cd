//! Between the contract and the domain: requests in, events and problems out. Says which field is at fault.

use crate::{
    domain::{Event, Fingerprint, Gift, Item, NewEvent, NewItem, Refusal, State, Times},
    usecase::{EventError, Page},
    wire::{money, timestamp},
};
use prost::Message;
use sha2::{Digest, Sha256};
use stampede_chassis::Identity;
use stampede_db::DbError;
use stampede_proto::{event::v1 as proto, r#type::v1::Money as ProtoMoney};
use stampede_status::{Problem, Reason};
use stampede_vocab::{EventId, InvalidField, Money, PageToken, RequestId, Timestamp, UserId};
use std::collections::HashSet;

/// Most events of one watch.
const MAX_WATCHED: usize = 100;
/// Name of the list in its page tokens.
const LIST: &str = "events";
/// The last second of the year 9999, where protobuf's timestamps end.
const LAST_SECOND: i64 = 253_402_300_799;

/// Who calls, as an id.
pub(super) fn caller(identity: &Identity) -> Result<UserId, Problem> {
    identity.user_id.parse().map_err(|_| Problem::new(Reason::Unauthenticated, "the caller has no user id"))
}

/// The event that the request asks for.
pub(super) fn new_event(caller: UserId, request: proto::CreateEventRequest) -> Result<NewEvent, InvalidField> {
    let request_id = RequestId::parse(&request.request_id)?;
    let fingerprint = fingerprint(&request);
    let times = times(request.opens_at, request.closes_at)?;
    let items = request.items.into_iter().enumerate().map(|(index, item)| {
        let path = format!("items[{index}]");
        new_item(item).map_err(|error| error.within(&path))
    });
    NewEvent::new((caller, request_id, fingerprint), request.name, times, items.collect::<Result<_, _>>()?)
}

/// Both times of an event.
pub(super) fn times(
    opens_at: Option<prost_types::Timestamp>,
    closes_at: Option<prost_types::Timestamp>,
) -> Result<Times, InvalidField> {
    Times::new(instant("opens_at", opens_at)?, instant("closes_at", closes_at)?)
}

/// The id in the field `event_id`.
pub(super) fn event_id(text: &str) -> Result<EventId, InvalidField> {
    parse_id("event_id", text)
}

/// The ids of a watch, each once.
pub(super) fn watched_ids(texts: &[String]) -> Result<Vec<EventId>, InvalidField> {
    if !(1..=MAX_WATCHED).contains(&texts.len()) {
        return Err(InvalidField::new("event_ids", format!("must be 1 to {MAX_WATCHED} ids")));
    }
    let ids = texts.iter().enumerate().map(|(index, text)| parse_id(&format!("event_ids[{index}]"), text));
    Ok(ids.collect::<Result<HashSet<_>, _>>()?.into_iter().collect())
}

/// Where the page starts.
pub(super) fn page_token(token: &str) -> Result<Option<(Timestamp, EventId)>, Problem> {
    let token = PageToken::parse(LIST, token)
        .map_err(|error| Problem::new(Reason::InvalidPageToken, error.problem).field(error.field))?;
    Ok(token.map(|token| (Timestamp::from_micros(token.after), EventId::from_uuid(token.id))))
}

/// The answer of ListEvents.
pub(super) fn page(page: Page) -> proto::ListEventsResponse {
    let last = page.events.last().filter(|_| page.more);
    let next_page_token = last.map(|last| PageToken::new(LIST, last.created_at.micros(), last.id().uuid()).to_string());
    proto::ListEventsResponse {
        next_page_token: next_page_token.unwrap_or_default(),
        events: page.events.into_iter().map(event).collect(),
    }
}

/// An event as the contract shows it.
pub(super) fn event(event: Event) -> proto::Event {
    let schedule = event.schedule;
    proto::Event {
        event_id: schedule.event_id.to_string(),
        name: event.name,
        state: state(schedule.state).into(),
        opens_at: Some(timestamp(schedule.times.opens_at())),
        closes_at: Some(timestamp(schedule.times.closes_at())),
        items: event.items.into_iter().map(item).collect(),
        opened_at: schedule.state.opened_at().map(timestamp),
        closed_at: schedule.state.ended_at().map(timestamp),
        create_time: Some(timestamp(event.created_at)),
        update_time: Some(timestamp(schedule.updated_at)),
        version: schedule.version,
    }
}

/// What the caller is told of a field.
pub(super) fn invalid(error: InvalidField) -> Problem {
    Problem::invalid_field(error.field, error.problem)
}

/// What the caller is told of a failure.
pub(super) fn problem(error: EventError) -> Problem {
    match error {
        EventError::Refused(refusal) => refused(refusal),
        EventError::Db(error) => db_problem(&error),
    }
}

/// What the caller of a watch is told of a failure: an unknown event is named by its place in `asked`.
pub(super) fn watch_problem(error: EventError, asked: &[String]) -> Problem {
    let place = match &error {
        EventError::Refused(Refusal::NotFound(id)) => asked.iter().position(|text| *text == id.to_string()),
        _ => None,
    };
    let problem = problem(error);
    match place {
        Some(index) => problem.field(format!("event_ids[{index}]")),
        None => problem,
    }
}

fn refused(refusal: Refusal) -> Problem {
    let detail = refusal.to_string();
    match refusal {
        Refusal::Invalid(error) => invalid(error),
        Refusal::NotFound(_) => Problem::new(Reason::EventNotFound, detail).field("event_id"),
        Refusal::RequestIdReused => Problem::new(Reason::RequestIdReused, detail).field("request_id"),
        Refusal::NotScheduled { state } => {
            Problem::new(Reason::EventNotScheduled, detail).field("event_id").meta("state", state)
        }
        Refusal::TooLate { .. } => Problem::new(Reason::RescheduleTooLate, detail).field("event_id"),
        Refusal::Closed { state } => Problem::new(Reason::EventClosed, detail).field("event_id").meta("state", state),
        // Time asks for these transitions, never a caller.
        Refusal::NotDue { .. } => Problem::internal_error(detail),
    }
}

fn db_problem(error: &DbError) -> Problem {
    if error.is_unreachable() {
        Problem::unavailable("the event database", error)
    } else {
        Problem::internal_error(error)
    }
}

fn parse_id(field: &str, text: &str) -> Result<EventId, InvalidField> {
    text.parse().map_err(|error| InvalidField::new(field, format!("{error}")))
}

/// An instant in whole microseconds, rounded up so that nothing happens before it.
fn instant(field: &str, value: Option<prost_types::Timestamp>) -> Result<Timestamp, InvalidField> {
    let value = value.ok_or_else(|| InvalidField::new(field, "must be set"))?;
    if !(0..=LAST_SECOND).contains(&value.seconds) || !(0..1_000_000_000).contains(&value.nanos) {
        return Err(InvalidField::new(field, "must be a time from 1970 to 9999"));
    }
    let micros = (i64::from(value.nanos) + 999) / 1_000;
    Ok(Timestamp::from_micros(value.seconds * 1_000_000 + micros))
}

/// Of all that the request says but its id.
fn fingerprint(request: &proto::CreateEventRequest) -> Fingerprint {
    let said = proto::CreateEventRequest { request_id: String::new(), ..request.clone() };
    Fingerprint(Sha256::digest(said.encode_to_vec()).into())
}

fn new_item(item: proto::NewItem) -> Result<NewItem, InvalidField> {
    let price = item.unit_price.ok_or_else(|| InvalidField::new("unit_price", "must be set"))?;
    let price = unit_price(&price).map_err(|error| error.within("unit_price"))?;
    let gift = item.gift.map(|gift| Gift { title: gift.title, total_units: gift.total_units });
    NewItem::new(item.title, price, item.total_units, item.limit_per_buyer, gift)
}

fn unit_price(price: &ProtoMoney) -> Result<Money, InvalidField> {
    Ok(Money::new(price.minor_units, price.currency.parse()?))
}

fn state(state: State) -> proto::EventState {
    match state {
        State::Scheduled => proto::EventState::Scheduled,
        State::Open { .. } => proto::EventState::Open,
        State::Closed { .. } => proto::EventState::Closed,
        State::Cancelled { .. } => proto::EventState::Cancelled,
    }
}

fn item(item: Item) -> proto::Item {
    proto::Item {
        item_id: item.id.to_string(),
        title: item.title,
        unit_price: Some(money(item.unit_price)),
        total_units: item.total_units,
        limit_per_buyer: item.limit_per_buyer,
        gift: item.gift.map(|gift| proto::Gift { title: gift.title, total_units: gift.total_units }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64, nanos: i32) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp { seconds, nanos })
    }

    #[test]
    fn an_instant_is_rounded_up_to_a_microsecond() {
        for (nanos, micros) in [(0, 0), (1, 1), (1_000, 1), (1_001, 2), (999_999_999, 1_000_000)] {
            assert_eq!(instant("opens_at", at(2, nanos)), Ok(Timestamp::from_micros(2_000_000 + micros)), "{nanos}");
        }
    }

    #[test]
    fn an_instant_that_is_none_is_refused_by_field() {
        for bad in [None, at(-1, 0), at(LAST_SECOND + 1, 0), at(0, -1), at(0, 1_000_000_000)] {
            assert_eq!(instant("closes_at", bad).unwrap_err().field, "closes_at", "{bad:?}");
        }
    }

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
    fn watched_ids_are_bounded_and_named() {
        let id = "evt_0000000000000000000000001a".to_owned();
        assert_eq!(watched_ids(&[id.clone(), id.clone()]).unwrap().len(), 1);
        assert_eq!(watched_ids(&[]).unwrap_err().field, "event_ids");
        assert_eq!(watched_ids(&vec![id.clone(); 101]).unwrap_err().field, "event_ids");
        assert_eq!(watched_ids(&[id, "x".to_owned()]).unwrap_err().field, "event_ids[1]");
    }
}
