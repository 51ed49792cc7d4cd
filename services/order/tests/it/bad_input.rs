//! Bad input gets the right reason, names the field, and changes nothing.

use crate::sale::{Sale, UNITS, campaign, eur, refusal, refused};
use anyhow::Result;
use stampede_proto::{
    coupon::v1::{CouponState, CreateCampaignRequest},
    order::v1::{
        CancelOrderRequest, GetOrderRequest, ListOrdersRequest, OrderState, PayOrderRequest, PlaceOrderRequest,
        RefundOrderRequest,
    },
    r#type::v1::Money,
};
use stampede_status::Reason;
use stampede_testkit::{as_buyer, as_operator, buyer, eventually};
use stampede_vocab::{EventId, ItemId, Timestamp};
use std::time::Duration;
use tonic::{Code, Request};
use uuid::Uuid;

const DAY: Duration = Duration::from_secs(86_400);
/// A number for tests that an issuer publishes.
const CARD: &str = "4242 4242 4242 4242";
const UNKNOWN_COUPON: &str = "cpn_0000000000000000000000001a";

/// Makes a good request bad in one place.
type Spoil<R> = fn(&mut R);

#[rustfmt::skip]
const BAD_ORDERS: [(Reason, &str, Spoil<PlaceOrderRequest>); 19] = [
    (Reason::InvalidField, "request_id", |r| r.request_id.clear()),
    (Reason::InvalidField, "request_id", |r| r.request_id = "x".repeat(65)),
    (Reason::InvalidField, "request_id", |r| r.request_id = "a b".to_owned()),
    (Reason::InvalidField, "event_id", |r| r.event_id.clear()),
    (Reason::InvalidField, "event_id", |r| r.event_id = "evt_1".to_owned()),
    (Reason::InvalidField, "lines", |r| r.lines.clear()),
    (Reason::InvalidField, "lines", |r| r.lines = vec![r.lines[0].clone(); 21]),
    (Reason::InvalidField, "lines[1].item_id", |r| r.lines[1].item_id = "itm_".to_owned()),
    (Reason::InvalidField, "lines[1].item_id", |r| r.lines[1].item_id = r.lines[0].item_id.clone()),
    (Reason::InvalidField, "lines[0].units", |r| r.lines[0].units = 0),
    (Reason::InvalidField, "lines[1].units", |r| r.lines[1].units = -3),
    (Reason::InvalidField, "lines[1].units", |r| r.lines[1].units = i32::MAX),
    (Reason::InvalidField, "coupon_id", |r| r.coupon_id = "coupon".to_owned()),
    (Reason::InvalidField, "max_total.minor_units", |r| r.max_total = Some(eur(-1))),
    (Reason::InvalidField, "max_total.currency", |r| r.max_total = Some(Money::default())),
    (Reason::LimitReached, "lines[0].units", |r| r.lines[0].units = 3),
    (Reason::ItemNotFound, "lines[1].item_id", |r| r.lines[1].item_id = ItemId::from_uuid(Uuid::nil()).to_string()),
    (Reason::EventNotFound, "event_id", |r| r.event_id = EventId::from_uuid(Uuid::nil()).to_string()),
    (Reason::CouponNotFound, "coupon_id", |r| r.coupon_id = UNKNOWN_COUPON.to_owned()),
];

#[tokio::test]
async fn a_bad_order_is_refused_by_its_field_and_takes_nothing() -> Result<()> {
    let sale = Sale::open().await?;
    for (reason, field, spoil) in BAD_ORDERS {
        let mut wish = sale.wish("r", &[(sale.lamp, 1), (sale.kettle, 1)]);
        spoil(&mut wish);
        let status = sale.place(buyer(), wish).await.unwrap_err();
        assert_eq!(refusal(&status), refused(reason, field), "{status:?}");
    }
    assert_eq!(sale.orders_written().await?, 0);
    sale.settles_at(sale.lamp, UNITS).await;
    assert_eq!(sale.settles_at(sale.kettle, UNITS).await.left_gift_units, 1);
    sale.mesh.stop().await
}

#[tokio::test]
async fn outside_its_window_an_event_sells_nothing() -> Result<()> {
    let sale = Sale::open().await?;
    let now = Timestamp::now();
    let windows = [(2, now.plus(DAY), Reason::EventNotOpen), (3, now.minus(DAY), Reason::EventClosed)];
    for (number, open_time, reason) in windows {
        let event = EventId::from_uuid(Uuid::from_u128(number));
        sale.stage(event, open_time).await?;
        let mut wish = sale.wish("r", &[(ItemId::derive(event, 0), 1)]);
        wish.event_id = event.to_string();
        let status = sale.place(buyer(), wish).await.unwrap_err();
        assert_eq!(refusal(&status), refused(reason, "event_id"));
        assert_eq!(status.code(), Code::FailedPrecondition);
    }
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_bad_payment_starts_nothing() -> Result<()> {
    let sale = Sale::open().await?;
    let somebody = buyer();
    let order = sale.payable_lamp(somebody).await?;
    let good = PayOrderRequest {
        order_id: order.order_id.clone(),
        request_id: "p".to_owned(),
        payment_method: "pm_card_ok".to_owned(),
    };
    let bad: [(&str, Spoil<PayOrderRequest>); 8] = [
        ("order_id", |request| request.order_id = "ord_".to_owned()),
        ("request_id", |request| request.request_id.clear()),
        ("request_id", |request| request.request_id = "x".repeat(65)),
        ("payment_method", |request| request.payment_method.clear()),
        ("payment_method", |request| request.payment_method = "x".repeat(256)),
        ("payment_method", |request| request.payment_method = CARD.to_owned()),
        ("payment_method", |request| request.payment_method = format!("card {CARD}")),
        ("request_id", |request| request.request_id = CARD.replace(' ', "-")),
    ];
    for (field, spoil) in bad {
        let mut request = good.clone();
        spoil(&mut request);
        let status = sale.mesh.order().pay_order(as_buyer(somebody, request)).await.unwrap_err();
        assert_eq!(refusal(&status), refused(Reason::InvalidField, field));
        let said = format!("{status:?}").replace('-', " ");
        assert!(!said.contains(CARD), "{said}");
    }
    assert_eq!(sale.now(&order).await?.payment_attempts, 0);
    let longest = "x".repeat(255);
    sale.pay_with(&order, "p", &longest).await?;
    let reused = sale.pay(&order, "p").await.unwrap_err();
    assert_eq!(refusal(&reused), refused(Reason::RequestIdReused, "request_id"));
    assert_eq!(sale.pay_with(&order, "p", &longest).await?.payment_attempts, 1);
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_bad_cancellation_or_refund_ends_nothing() -> Result<()> {
    let sale = Sale::open().await?;
    let somebody = buyer();
    let order = sale.payable_lamp(somebody).await?;
    let good = order.order_id.as_str();
    let long = "x".repeat(65);
    let bad = [
        ("order_id", ["", "r"]),
        ("order_id", ["evt_0000000000000000000000001a", "r"]),
        ("request_id", [good, ""]),
        ("request_id", [good, &long]),
        ("request_id", [good, "a b"]),
    ];
    for (field, [order_id, request_id]) in bad.map(|(field, pair)| (field, pair.map(str::to_owned))) {
        let cancel = CancelOrderRequest { order_id: order_id.clone(), request_id: request_id.clone() };
        let status = sale.mesh.order().cancel_order(as_buyer(somebody, cancel)).await.unwrap_err();
        assert_eq!(refusal(&status), refused(Reason::InvalidField, field));
        let refund = RefundOrderRequest { order_id, request_id };
        let status = sale.mesh.order().refund_order(as_operator(refund)).await.unwrap_err();
        assert_eq!(refusal(&status), refused(Reason::InvalidField, field));
    }
    assert_eq!(sale.now(&order).await?, order);
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_price_that_cannot_be_is_refused_and_given_back() -> Result<()> {
    let sale = Sale::open().await?;
    let dollars = Money { minor_units: 500, currency: "USD".to_owned() };
    let event = sale.another_event(7, &[eur(i64::MAX), eur(1), dollars]).await?;
    let item = |index| ItemId::derive(event, index);
    let table = [
        (Reason::TotalOverflow, "lines", vec![(item(0), 2)]),
        (Reason::TotalOverflow, "lines", vec![(item(0), 1), (item(1), 1)]),
        (Reason::CurrencyMismatch, "lines", vec![(item(1), 1), (item(2), 1)]),
    ];
    for (reason, field, lines) in table {
        let wish = PlaceOrderRequest { event_id: event.to_string(), ..sale.wish("r", &lines) };
        let status = sale.place(buyer(), wish).await.unwrap_err();
        assert_eq!(refusal(&status), refused(reason, field), "{lines:?}");
    }
    assert_eq!(sale.orders_written().await?, 0);
    for index in 0..3 {
        let stock = sale.stock_of(event, item(index)).await?;
        assert_eq!(stock.left_units, UNITS, "what was taken goes back before the answer");
    }
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_coupon_that_does_not_fit_is_refused_and_keeps_nothing() -> Result<()> {
    let sale = Sale::open().await?;
    let somebody = buyer();
    let dollars = Some(Money { minor_units: 500, currency: "USD".to_owned() });
    let dollars = CreateCampaignRequest { discount: dollars, ..campaign("dollars") };
    let elsewhere = EventId::from_uuid(Uuid::from_u128(9)).to_string();
    let elsewhere = CreateCampaignRequest { event_id: elsewhere, ..campaign("elsewhere") };
    let used = sale.coupon_of(somebody, campaign("used")).await?;
    let first = PlaceOrderRequest { coupon_id: used.coupon_id.clone(), ..sale.wish("first", &[(sale.lamp, 1)]) };
    let first = sale.place(somebody, first).await?;
    sale.reaches(&first, OrderState::AwaitingPayment).await;
    sale.approve(&sale.pay(&first, "p").await?).await?;
    eventually("the coupon is used", || async {
        sale.coupon(&used).await.ok().filter(|now| now.state() == CouponState::Used)
    })
    .await;
    let table = [
        (Reason::CurrencyMismatch, sale.coupon_of(somebody, dollars).await?),
        (Reason::CouponWrongEvent, sale.coupon_of(somebody, elsewhere).await?),
        (Reason::CouponInUse, used),
    ];
    for (reason, coupon) in table {
        let before = sale.coupon(&coupon).await?;
        let wish = PlaceOrderRequest { coupon_id: coupon.coupon_id.clone(), ..sale.wish("r", &[(sale.kettle, 1)]) };
        let status = sale.place(somebody, wish).await.unwrap_err();
        assert_eq!(refusal(&status), refused(reason, "coupon_id"));
        assert_eq!(sale.coupon(&coupon).await?, before);
        let stock = sale.stock(sale.kettle).await?;
        assert_eq!(stock.left_units, UNITS, "what was taken goes back before the answer");
    }
    assert_eq!(sale.orders_written().await?, 1);
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_call_says_who_calls_and_a_list_what_it_is_of() -> Result<()> {
    let sale = Sale::open().await?;
    let mut client = sale.mesh.order();
    let nobody = client.place_order(Request::new(sale.wish("r", &[(sale.lamp, 1)]))).await.unwrap_err();
    assert_eq!((refusal(&nobody).0, nobody.code()), (Reason::Unauthenticated, Code::Unauthenticated));
    let whole_past = ListOrdersRequest { states: vec![OrderState::Paying.into()], ..ListOrdersRequest::default() };
    let whole_past = client.list_orders(as_operator(whole_past)).await.unwrap_err();
    assert_eq!(refusal(&whole_past), refused(Reason::InvalidField, "create_time_from"));
    let of_other = ListOrdersRequest { user_id: buyer().to_string(), ..ListOrdersRequest::default() };
    let of_other = client.list_orders(as_buyer(buyer(), of_other)).await.unwrap_err();
    assert_eq!(refusal(&of_other), refused(Reason::InvalidField, "user_id"));
    let page = ListOrdersRequest { page_size: -1, ..ListOrdersRequest::default() };
    let negative = client.list_orders(as_buyer(buyer(), page)).await.unwrap_err();
    assert_eq!(refusal(&negative), refused(Reason::InvalidField, "page_size"));
    let malformed = GetOrderRequest { order_id: "evt_0000000000000000000000001a".to_owned() };
    let status = client.get_order(as_buyer(buyer(), malformed)).await.unwrap_err();
    assert_eq!(refusal(&status), refused(Reason::InvalidField, "order_id"));
    assert!(status.message().contains("ord_"), "it says how an order id looks: {}", status.message());
    sale.mesh.stop().await
}
