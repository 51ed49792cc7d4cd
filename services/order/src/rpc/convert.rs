//! Conversions between the contract and the domain. Requests are validated field by field; the error names the first
//! field at fault.

use crate::{
    domain::{Draft, Goods, GoodsKind, Line, Order, OrderStatus, StateName, Wanted},
    usecase::Listing,
};
use stampede_chassis::Identity;
use stampede_proto::{
    convert::{amount, timestamp},
    order::v1 as proto,
};
use stampede_service::{Page, Paging};
use stampede_status::Problem;
use stampede_vocab::{InvalidField, OrderId, Quantity, RequestId, UserId, field, limits::MAX_PAYMENT_METHOD_CHARS};

/// Most ids of one look-up.
const MAX_IDS: usize = stampede_vocab::limits::MAX_PER_CALL;

/// Reads a requested order.
pub fn draft(buyer: UserId, request: &proto::PlaceOrderRequest) -> Result<Draft, Problem> {
    let request_id = RequestId::parse(&request.request_id)?;
    let event = field::id("event_id", &request.event_id)?;
    let lines = field::each("lines", &request.lines, wanted)?;
    let coupon = field::optional_id("coupon_id", &request.coupon_id)?;
    let max_total = request.max_total.as_ref().map(|max| amount("max_total", Some(max))).transpose()?;
    Ok(Draft::new(buyer, request_id, event, lines, coupon, max_total)?)
}

fn wanted(line: &proto::NewOrderLine) -> Result<Wanted, InvalidField> {
    Ok(Wanted { item: field::id("item_id", &line.item_id)?, units: Quantity::new(line.units.into())? })
}

pub fn order_id(text: &str) -> Result<OrderId, Problem> {
    Ok(field::id("order_id", text)?)
}

/// Reads a request to end an order: the order, and the idempotency key.
pub fn end(order: &str, request: &str) -> Result<(OrderId, RequestId), Problem> {
    Ok((order_id(order)?, RequestId::parse(request)?))
}

/// Reads a request to pay: the order, the idempotency key, and the token of the card or wallet.
pub fn payment(request: proto::PayOrderRequest) -> Result<(OrderId, RequestId, String), Problem> {
    let (order, request_id) = end(&request.order_id, &request.request_id)?;
    if !(1..=MAX_PAYMENT_METHOD_CHARS).contains(&request.payment_method.chars().count()) {
        let problem =
            format!("must be the token that the payment provider gave, 1 to {MAX_PAYMENT_METHOD_CHARS} characters");
        return Err(Problem::invalid_field("payment_method", problem));
    }
    Ok((order, request_id, request.payment_method))
}

/// Reads which list, and which page of it. Fails for an operator who names no event.
pub fn listing(identity: &Identity, request: &proto::ListOrdersRequest) -> Result<(Listing, Paging), Problem> {
    let event = field::optional_id("event_id", &request.event_id)?;
    let listing = match (identity.owner()?, event) {
        (Some(buyer), event) => Listing::OfBuyer { buyer, event },
        (None, Some(event)) => Listing::OfEvent(event),
        (None, None) => return Err(Problem::invalid_field("event_id", "must name the event whose orders to list")),
    };
    let paging = Paging::parse(listing.name(), request.page_size, &request.page_token)?;
    Ok((listing, paging))
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
        last_decline: order.last_decline.unwrap_or_default(),
    }
}

fn line(line: &Line) -> proto::OrderLine {
    proto::OrderLine {
        item_id: line.item.to_string(),
        units: line.units.get(),
        unit_price: Some(line.unit_price.into()),
        gift_units: line.gift_units,
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

/// Converts order states to their contract form.
pub fn statuses(found: &[OrderStatus]) -> proto::LookUpOrdersResponse {
    let shown = |status: &OrderStatus| proto::OrderStatus {
        order_id: status.id.to_string(),
        // Of an order of a newer version nobody frees anything.
        state: status.state.map_or(proto::OrderState::Unspecified, state).into(),
        coupon_id: status.coupon.map(|coupon| coupon.to_string()).unwrap_or_default(),
    };
    proto::LookUpOrdersResponse { orders: found.iter().map(shown).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_chassis::Role;
    use stampede_proto::r#type::v1 as kind;
    use stampede_status::Reason;
    use stampede_vocab::{EventId, ItemId, PageToken};
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
        for bad in [String::new(), "ä".repeat(256)] {
            assert_eq!(pay(bad).unwrap_err().field_path(), Some("payment_method"));
        }
    }

    #[test]
    fn an_operator_lists_an_event_and_a_buyer_what_is_theirs() {
        let user_id = UserId::from_uuid(Uuid::from_u128(1)).to_string();
        let identity = |role| Identity { user_id: user_id.clone(), role };
        let request = |page_token: &str| proto::ListOrdersRequest {
            page_token: page_token.to_owned(),
            ..proto::ListOrdersRequest::default()
        };
        let (list, paging) = listing(&identity(Role::Buyer), &request("")).unwrap();
        assert!(matches!(list, Listing::OfBuyer { event: None, .. }));
        assert_eq!((paging.after(), paging.limit()), (None, 51));
        let refused = listing(&identity(Role::Operator), &request("")).unwrap_err();
        assert_eq!(refused.field_path(), Some("event_id"));
        let foreign = PageToken::new("orders-somebody", 1, Uuid::nil()).to_string();
        let refused = listing(&identity(Role::Buyer), &request(&foreign)).unwrap_err();
        assert_eq!(refused.reason(), Reason::InvalidPageToken);
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
