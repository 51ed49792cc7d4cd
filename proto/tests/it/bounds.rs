//! The bounds that the contract tells are the limits that the services check.

use prost_reflect::{
    DescriptorPool, DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor, Value,
};
use stampede_vocab::{Fingerprint, PageSize, Quantity, RequestId, limits::*};
use std::collections::{BTreeMap, BTreeSet};

/// Name of a bound, and its value as text.
type Bounds = BTreeMap<String, String>;

fn bounds<const N: usize>(bounds: [(&str, &dyn ToString); N]) -> Bounds {
    bounds.map(|(name, value)| (name.to_owned(), value.to_string())).into()
}

fn units(most: impl ToString) -> Bounds {
    bounds([("min", &1), ("max", &most)])
}

fn chars(most: usize) -> Bounds {
    bounds([("min_length", &1), ("max_length", &most)])
}

fn values(most: usize) -> Bounds {
    bounds([("min_items", &1), ("max_items", &most)])
}

/// What each bounded field may be, by the end of its full name: the same name means the same, unless more is said.
fn expected() -> Vec<(&'static str, Bounds)> {
    let at_least = |least: i32| bounds([("min", &least)]);
    let currency = bounds([("pattern", &"^[A-Z]{3}$")]);
    let request_id = bounds([("min_length", &1), ("max_length", &RequestId::MAX_LEN), ("pattern", &"^[!-~]+$")]);
    let fingerprint = bounds([("min_length", &Fingerprint::LEN), ("max_length", &Fingerprint::LEN)]);
    vec![
        (".request_id", request_id),
        (".request_fingerprint", fingerprint),
        (".currency", currency),
        (".page_size", at_least(0)),
        (".expected_version", at_least(1)),
        (".CreateEventRequest.name", chars(MAX_NAME_CHARS)),
        (".CreateCampaignRequest.name", chars(MAX_NAME_CHARS)),
        (".NewItem.title", chars(MAX_NAME_CHARS)),
        (".Gift.title", chars(MAX_NAME_CHARS)),
        (".NewItem.total_units", units(MAX_TOTAL_UNITS)),
        (".Gift.total_units", units(MAX_TOTAL_UNITS)),
        (".NewItem.limit_per_buyer", units(MAX_LIMIT_PER_BUYER)),
        (".CreateCampaignRequest.quota", units(MAX_QUOTA)),
        (".CreateEventRequest.items", values(MAX_EVENT_ITEMS)),
        (".WatchEventsRequest.event_ids", values(MAX_WATCHED_EVENTS)),
        (".HoldCouponsRequest.holds", values(MAX_PER_CALL)),
        (".ReserveRequest.reservations", values(MAX_PER_CALL)),
        (".ReleaseRequest.reservations", values(MAX_PER_CALL)),
        (".LookUpOrdersRequest.order_ids", values(MAX_PER_CALL)),
        (".Reservation.lines", values(MAX_ORDER_LINES)),
        (".ListOrdersRequest.states", bounds([("max_items", &MAX_FILTER_STATES)])),
        (".PlaceOrderRequest.lines", values(MAX_ORDER_LINES)),
        (".ReservationLine.units", units(Quantity::MAX)),
        (".NewOrderLine.units", units(Quantity::MAX)),
        (".PayOrderRequest.payment_method", chars(MAX_PAYMENT_METHOD_CHARS)),
        (".StageStockRequest.event_version", at_least(1)),
        (".StageStockRequest.items", bounds([("min_items", &1)])),
        (".StagedItem.total_units", at_least(1)),
        (".StagedItem.limit_per_buyer", at_least(1)),
        (".StagedItem.gift_total_units", at_least(0)),
    ]
}

fn contract() -> DescriptorPool {
    DescriptorPool::decode(stampede_proto::DESCRIPTOR_SET).expect("it is a descriptor set")
}

fn extension(pool: &DescriptorPool, name: &str) -> ExtensionDescriptor {
    pool.get_extension_by_name(name).unwrap_or_else(|| panic!("there is no {name}"))
}

fn ours(pool: &DescriptorPool) -> impl Iterator<Item = MessageDescriptor> {
    pool.all_messages().filter(|message| message.full_name().starts_with("stampede."))
}

/// The bounds of every field that has some, by its full name.
fn told() -> BTreeMap<String, Bounds> {
    let pool = contract();
    let extension = extension(&pool, "stampede.type.v1.bounds");
    let mut told = BTreeMap::new();
    for field in ours(&pool).flat_map(|message| message.fields().collect::<Vec<_>>()) {
        let options = field.options();
        if options.has_extension(&extension) {
            let value = options.get_extension(&extension);
            told.insert(field.full_name().to_owned(), read(value.as_message().expect("bounds are a message")));
        }
    }
    told
}

fn read(message: &DynamicMessage) -> Bounds {
    message.fields().map(|(field, value)| (field.name().to_owned(), text(value))).collect()
}

fn text(value: &Value) -> String {
    match value {
        Value::I32(number) => number.to_string(),
        Value::I64(number) => number.to_string(),
        Value::String(text) => text.clone(),
        other => panic!("a bound is a number or a text: {other:?}"),
    }
}

#[test]
fn the_contract_tells_the_limits_that_are_checked() {
    let (told, expected) = (told(), expected());
    for (field, bounds) in &told {
        let known = expected.iter().find(|(end, _)| field.ends_with(end));
        let (_, checked) = known.unwrap_or_else(|| panic!("{field} has bounds, and no limit here"));
        assert_eq!(bounds, checked, "{field}");
    }
    for (end, _) in &expected {
        assert!(told.keys().any(|field| field.ends_with(end)), "no field {end} has bounds");
    }
}

#[test]
fn the_same_field_is_bounded_in_every_request() {
    let told = told();
    let everywhere = ["request_id", "request_fingerprint", "page_size"];
    for field in ours(&contract()).flat_map(|message| message.fields().collect::<Vec<_>>()) {
        if everywhere.contains(&field.name()) {
            assert!(told.contains_key(field.full_name()), "{} has no bounds", field.full_name());
        }
    }
}

#[test]
fn bounds_fit_the_kind_of_their_field() {
    let (pool, told) = (contract(), told());
    for field in ours(&pool).flat_map(|message| message.fields().collect::<Vec<_>>()) {
        let allowed = allowed(&field);
        for name in told.get(field.full_name()).into_iter().flat_map(Bounds::keys) {
            assert!(allowed.contains(name.as_str()), "{name} does not bound {}", field.full_name());
        }
    }
}

fn allowed(field: &FieldDescriptor) -> BTreeSet<&'static str> {
    if field.is_list() {
        return ["min_items", "max_items"].into();
    }
    match field.kind() {
        Kind::Int32 | Kind::Int64 => ["min", "max"].into(),
        Kind::String => ["min_length", "max_length", "pattern"].into(),
        Kind::Bytes => ["min_length", "max_length"].into(),
        _ => BTreeSet::new(),
    }
}

#[test]
fn the_most_rows_of_a_page_are_those_that_comments_name() {
    assert_eq!(PageSize::MAX, 100, "the comments of every page_size say so");
}
