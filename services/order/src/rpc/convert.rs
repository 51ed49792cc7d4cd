//! Converts between the contract and the domain. Validates requests field by field; errors name the first invalid
//! field.

use crate::{
    domain::{Draft, Goods, GoodsKind, Line, Order, OrderFilter, OrderStatus, Progress, RequestedLine, StateName},
    usecase::Listing,
};
use stampede_chassis::Identity;
use stampede_proto::{
    convert::{amount, decline_code, time, timestamp},
    order::v1 as proto,
};
use stampede_service::{Page, Paging};
use stampede_status::Problem;
use stampede_vocab::{
    EventId, InvalidField, OrderId, Quantity, RequestId, UserId, field,
    limits::{MAX_FILTER_STATES, MAX_PAYMENT_METHOD_CHARS},
    refuse_text_with_card_number,
};
use std::{collections::BTreeSet, time::Duration};

/// Most ids of one look-up.
const MAX_IDS: usize = stampede_vocab::limits::MAX_PER_CALL;

pub fn draft(buyer: UserId, request: &proto::PlaceOrderRequest) -> Result<Draft, Problem> {
    let request_id = RequestId::of_request(&request.request_id)?;
    let event = field::id("event_id", &request.event_id)?;
    let lines = field::each("lines", &request.lines, wanted)?;
    let coupon = field::optional_id("coupon_id", &request.coupon_id)?;
    let max_total = request.max_total.as_ref().map(|max| amount("max_total", Some(max))).transpose()?;
    Ok(Draft::new(buyer, request_id, event, lines, coupon, max_total)?)
}

fn wanted(line: &proto::NewOrderLine) -> Result<RequestedLine, InvalidField> {
    Ok(RequestedLine { item: field::id("item_id", &line.item_id)?, units: Quantity::new(line.units.into())? })
}

pub fn order_id(text: &str) -> Result<OrderId, Problem> {
    Ok(field::id("order_id", text)?)
}

pub fn event_id(text: &str) -> Result<EventId, Problem> {
    Ok(field::id("event_id", text)?)
}

/// Converts the progress of a cancellation to its contract form.
pub fn cancellation(progress: &Progress) -> proto::Cancellation {
    let Progress { cancellation, tally, count_time, settle_time } = progress;
    proto::Cancellation {
        event_id: cancellation.event.to_string(),
        cancel_time: Some(timestamp(cancellation.cancel_time)),
        refund_paid_orders: cancellation.refund_paid,
        ended_orders: tally.ended,
        kept_orders: tally.kept,
        refunds_begun: tally.refunding.saturating_add(tally.refunded),
        refunds_done: tally.refunded,
        remaining_orders: tally.remaining,
        count_time: count_time.map(timestamp),
        settle_time: settle_time.map(timestamp),
    }
}

/// Parses a request to end an order: the order id and the idempotency key.
pub fn end(order: &str, request: &str) -> Result<(OrderId, RequestId), Problem> {
    Ok((order_id(order)?, RequestId::of_request(request)?))
}

/// Parses a payment request: the order id, the idempotency key, and the token of the card or wallet.
pub fn payment(request: proto::PayOrderRequest) -> Result<(OrderId, RequestId, String), Problem> {
    let (order, request_id) = end(&request.order_id, &request.request_id)?;
    if !(1..=MAX_PAYMENT_METHOD_CHARS).contains(&request.payment_method.chars().count()) {
        let problem =
            format!("must be the token that the payment provider gave, 1 to {MAX_PAYMENT_METHOD_CHARS} characters");
        return Err(Problem::invalid_field("payment_method", problem));
    }
    refuse_text_with_card_number("payment_method", &request.payment_method)?;
    Ok((order, request_id, request.payment_method))
}

/// Parses the list, its filter and its page. Fails for a buyer who names another user, and for a filter by state alone
/// over all orders, which would scan everything ever sold.
pub fn listing(
    identity: &Identity,
    request: &proto::ListOrdersRequest,
) -> Result<(Listing, OrderFilter, Paging), Problem> {
    let event = field::optional_id("event_id", &request.event_id)?;
    let filter = filter(request)?;
    let listing = match (buyer(identity, &request.user_id)?, event) {
        (Some(buyer), event) => Listing::OfBuyer { buyer, event },
        (None, Some(event)) => Listing::OfEvent(event),
        (None, None) => Listing::All,
    };
    if listing == Listing::All && !filter.states.is_empty() && filter.from.is_none() {
        let problem = "must be set where states are asked for, and neither an event nor a buyer is";
        return Err(Problem::invalid_field("create_time_from", problem));
    }
    let paging = Paging::parse(listing.name(&filter), request.page_size, &request.page_token)?;
    Ok((listing, filter, paging))
}

/// Returns the buyer whose orders to list; `None` for all buyers.
fn buyer(identity: &Identity, requested: &str) -> Result<Option<UserId>, Problem> {
    let requested: Option<UserId> = field::optional_id("user_id", requested)?;
    let Some(own) = identity.owner()? else { return Ok(requested) };
    if requested.is_some_and(|requested| requested != own) {
        return Err(Problem::invalid_field("user_id", "must be your own id, or empty"));
    }
    Ok(Some(own))
}

fn filter(request: &proto::ListOrdersRequest) -> Result<OrderFilter, InvalidField> {
    field::ensure_count("states", request.states.len(), 0..=MAX_FILTER_STATES)?;
    let mut states = BTreeSet::new();
    for (index, number) in request.states.iter().enumerate() {
        let mut names = StateName::ALL.into_iter().filter(|name| i32::from(state(*name)) == *number).peekable();
        if names.peek().is_none() {
            return Err(InvalidField::new(format!("states[{index}]"), "must be a state of an order"));
        }
        states.extend(names);
    }
    let from = request.create_time_from.map(|from| time("create_time_from", Some(from))).transpose()?;
    let until = request.create_time_until.map(|until| time("create_time_until", Some(until))).transpose()?;
    OrderFilter::new(states, from, until)
}

pub fn order_ids(request: &proto::LookUpOrdersRequest) -> Result<Vec<OrderId>, Problem> {
    field::ensure_count("order_ids", request.order_ids.len(), 1..=MAX_IDS)?;
    Ok(field::ids("order_ids", &request.order_ids)?)
}

/// Converts an order to its contract form.
pub fn order(order: Order) -> proto::Order {
    proto::Order {
        order_id: order.id.to_string(),
        user_id: order.buyer.to_string(),
        event_id: order.event.to_string(),
        state: state(order.state.name()).into(),
        lines: order.lines.iter().map(line).collect(),
        subtotal: Some(order.prices.subtotal.into()),
        discount: Some(order.prices.discount.into()),
        total: Some(order.prices.total.into()),
        coupon_id: order.coupon.map(|coupon| coupon.to_string()).unwrap_or_default(),
        arrival: order.arrival,
        payment_attempts: order.attempts(),
        pay_deadline: order.state.pay_deadline().map(timestamp),
        goods: order.goods().iter().map(goods).collect(),
        create_time: Some(timestamp(order.created_at)),
        update_time: Some(timestamp(order.updated_at)),
        fulfill_time: order.state.fulfill_time().map(timestamp),
        version: order.version,
        payment_id: order.payment().map(|payment| payment.to_string()).unwrap_or_default(),
        last_decline: order.last_decline.as_deref().map(decline_code).unwrap_or_default().into(),
    }
}

fn line(line: &Line) -> proto::OrderLine {
    proto::OrderLine {
        item_id: line.item.to_string(),
        units: line.units.get(),
        unit_price: Some(line.unit_price.into()),
        gift_units: line.gift_units,
        title: line.title.to_string(),
        gift_title: if line.gift_units > 0 { line.gift_title.to_string() } else { String::new() },
    }
}

fn goods(goods: &Goods) -> proto::Goods {
    let kind = match goods.kind {
        GoodsKind::Item => proto::GoodsKind::Item,
        GoodsKind::Gift => proto::GoodsKind::Gift,
    };
    proto::Goods {
        item_id: goods.item.to_string(),
        kind: kind.into(),
        units: goods.units,
        grant_time: Some(timestamp(goods.grant_time)),
        title: goods.title.to_string(),
    }
}

const fn state(name: StateName) -> proto::OrderState {
    match name {
        // A pending order of an earlier release is finished within moments.
        StateName::Pending | StateName::AwaitingPayment => proto::OrderState::AwaitingPayment,
        StateName::Paying => proto::OrderState::Paying,
        StateName::Paid => proto::OrderState::Paid,
        StateName::Fulfilled => proto::OrderState::Fulfilled,
        StateName::Expired => proto::OrderState::Expired,
        StateName::Cancelled => proto::OrderState::Cancelled,
        StateName::Refunding => proto::OrderState::Refunding,
        StateName::Refunded => proto::OrderState::Refunded,
    }
}

/// Converts a page to its contract form.
pub fn page(page: Page<Order>) -> proto::ListOrdersResponse {
    let Page { rows, next_page_token } = page;
    proto::ListOrdersResponse { orders: rows.into_iter().map(order).collect(), next_page_token }
}

/// Converts order states to their contract form, with the time within which an order is written.
pub fn statuses(found: &[OrderStatus], write_limit: Duration) -> proto::LookUpOrdersResponse {
    let shown = |status: &OrderStatus| proto::OrderStatus {
        order_id: status.id.to_string(),
        // Callers free nothing of an order of a newer version.
        state: status.state.map_or(proto::OrderState::Unspecified, state).into(),
        coupon_id: status.coupon.map(|coupon| coupon.to_string()).unwrap_or_default(),
    };
    proto::LookUpOrdersResponse {
        orders: found.iter().map(shown).collect(),
        write_limit_ms: i64::try_from(write_limit.as_millis()).unwrap_or(i64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_chassis::Role;
    use stampede_proto::r#type::v1 as kind;
    use stampede_status::Reason;
    use stampede_vocab::{ItemId, PageToken, Timestamp};
    use uuid::Uuid;

    fn valid() -> proto::PlaceOrderRequest {
        let item_id = |n| ItemId::from_uuid(Uuid::from_u128(n)).to_string();
        proto::PlaceOrderRequest {
            request_id: "r-1".to_owned(),
            event_id: EventId::from_uuid(Uuid::nil()).to_string(),
            lines: vec![
                proto::NewOrderLine { item_id: item_id(1), units: 1 },
                proto::NewOrderLine { item_id: item_id(2), units: 2 },
            ],
            coupon_id: String::new(),
            max_total: None,
        }
    }

    fn field_at_fault(spoil: impl FnOnce(&mut proto::PlaceOrderRequest)) -> Option<String> {
        let mut request = valid();
        spoil(&mut request);
        let problem = draft(UserId::from_uuid(Uuid::nil()), &request).err()?;
        problem.field_path().map(str::to_owned)
    }

    #[test]
    fn a_valid_request_is_taken() {
        assert_eq!(field_at_fault(|_| ()), None);
    }

    #[test]
    fn whatever_is_wrong_is_named_as_the_caller_wrote_it() {
        type Spoil = fn(&mut proto::PlaceOrderRequest);
        let money = |minor_units, currency: &str| Some(kind::Money { minor_units, currency: currency.to_owned() });
        let table: [(&str, Spoil); 10] = [
            ("request_id", |request| request.request_id.clear()),
            ("event_id", |request| request.event_id = "evt_1".to_owned()),
            ("lines", |request| request.lines.clear()),
            ("lines", |request| request.lines = vec![request.lines[0].clone(); 21]),
            ("lines[1].item_id", |request| request.lines[1].item_id.clear()),
            ("lines[1].item_id", |request| request.lines[1].item_id = request.lines[0].item_id.clone()),
            ("lines[1].units", |request| request.lines[1].units = 0),
            ("lines[0].units", |request| request.lines[0].units = -1),
            ("lines[0].units", |request| request.lines[0].units = i32::MAX),
            ("coupon_id", |request| request.coupon_id = "cpn_".to_owned()),
        ];
        for (field, spoil) in table {
            assert_eq!(field_at_fault(spoil).as_deref(), Some(field));
        }
        let negative = field_at_fault(|request| request.max_total = money(-1, "EUR"));
        assert_eq!(negative.as_deref(), Some("max_total.minor_units"));
        let no_currency = field_at_fault(|request| request.max_total = money(1, "euro"));
        assert_eq!(no_currency.as_deref(), Some("max_total.currency"));
    }

    #[test]
    fn a_payment_method_is_what_the_payment_service_can_store() {
        let pay = |payment_method: String| {
            let order_id = OrderId::from_uuid(Uuid::nil()).to_string();
            payment(proto::PayOrderRequest { order_id, request_id: "p".to_owned(), payment_method })
        };
        assert!(pay("ä".repeat(255)).is_ok());
        for bad in [String::new(), "ä".repeat(256), "4242 4242 4242 4242".to_owned()] {
            assert_eq!(pay(bad).unwrap_err().field_path(), Some("payment_method"));
        }
    }

    #[test]
    fn a_page_token_is_of_its_list_and_filter() {
        let caller = caller(Role::Buyer);
        let (_, _, paging) = listing(&caller, &proto::ListOrdersRequest::default()).unwrap();
        assert_eq!((paging.after(), paging.limit()), (None, 51));
        let page = |list: String| proto::ListOrdersRequest {
            page_token: PageToken::new(list, 1, Uuid::nil()).to_string(),
            ..proto::ListOrdersRequest::default()
        };
        let own = page(format!("orders-{}", user(1)));
        assert!(listing(&caller, &own).is_ok());
        let paid = vec![proto::OrderState::Paid.into()];
        for foreign in [page("orders-somebody".to_owned()), proto::ListOrdersRequest { states: paid, ..own }] {
            assert_eq!(listing(&caller, &foreign).unwrap_err().reason(), Reason::InvalidPageToken);
        }
    }

    fn user(number: u128) -> UserId {
        UserId::from_uuid(Uuid::from_u128(number))
    }

    /// User 1.
    fn caller(role: Role) -> Identity {
        Identity { user_id: user(1).to_string(), role }
    }

    #[test]
    fn a_buyer_lists_what_is_theirs_and_an_operator_anything() {
        let request = |event: &str, of: &str| proto::ListOrdersRequest {
            event_id: event.to_owned(),
            user_id: of.to_owned(),
            ..proto::ListOrdersRequest::default()
        };
        let event = EventId::from_uuid(Uuid::from_u128(3));
        let (event_text, own, other) = (event.to_string(), user(1).to_string(), user(2).to_string());
        let list = |role, event: &str, of: &str| listing(&caller(role), &request(event, of)).map(|(list, _, _)| list);
        for of in ["", own.as_str()] {
            let all_own = list(Role::Buyer, "", of).unwrap();
            assert_eq!(all_own, Listing::OfBuyer { buyer: user(1), event: None });
        }
        assert_eq!(list(Role::Buyer, "", &other).unwrap_err().field_path(), Some("user_id"));
        let of_other = list(Role::Operator, &event_text, &other).unwrap();
        assert_eq!(of_other, Listing::OfBuyer { buyer: user(2), event: Some(event) });
        assert_eq!(list(Role::Operator, &event_text, "").unwrap(), Listing::OfEvent(event));
        assert_eq!(list(Role::Operator, "", "").unwrap(), Listing::All);
    }

    #[test]
    fn a_filter_is_read_with_all_that_a_state_is_stored_as() {
        let time = |seconds: i64| Some(stampede_proto::convert::timestamp(Timestamp::from_micros(seconds * 1_000_000)));
        let request = |states: &[i32], from, until| proto::ListOrdersRequest {
            states: states.to_vec(),
            create_time_from: from,
            create_time_until: until,
            ..proto::ListOrdersRequest::default()
        };
        let of =
            |role, request: &proto::ListOrdersRequest| listing(&caller(role), request).map(|(_, filter, _)| filter);
        let payable = i32::from(proto::OrderState::AwaitingPayment);
        let read = of(Role::Operator, &request(&[payable, payable], time(1), time(2))).unwrap();
        assert_eq!(read.states.into_iter().collect::<Vec<_>>(), [StateName::Pending, StateName::AwaitingPayment]);
        assert_eq!(
            (read.from, read.until),
            (Some(Timestamp::from_micros(1_000_000)), Some(Timestamp::from_micros(2_000_000)))
        );
        let fault = |role, bad| of(role, &bad).unwrap_err().field_path().unwrap().to_owned();
        assert_eq!(fault(Role::Buyer, request(&[payable, 0], None, None)), "states[1]");
        assert_eq!(fault(Role::Buyer, request(&[99], None, None)), "states[0]");
        assert_eq!(fault(Role::Buyer, request(&[payable; 17], None, None)), "states");
        assert_eq!(fault(Role::Buyer, request(&[], time(2), time(2))), "create_time_until");
        assert_eq!(fault(Role::Operator, request(&[payable], None, time(2))), "create_time_from");
        assert!(of(Role::Buyer, &request(&[payable], None, None)).is_ok());
    }

    #[test]
    fn a_look_up_is_bounded_and_names_the_bad_id() {
        let look_up = |ids: Vec<String>| order_ids(&proto::LookUpOrdersRequest { order_ids: ids });
        let fault = |ids| look_up(ids).unwrap_err().field_path().unwrap().to_owned();
        let good = OrderId::from_uuid(Uuid::nil()).to_string();
        assert_eq!(look_up(vec![good.clone(); 256]).unwrap().len(), 256);
        assert_eq!(fault(vec![]), "order_ids");
        assert_eq!(fault(vec![good.clone(); 257]), "order_ids");
        assert_eq!(fault(vec![good, "ord_x".to_owned()]), "order_ids[1]");
    }
}
