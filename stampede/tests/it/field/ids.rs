//! Names that differ in little, and lists of rows with the same time.

use super::{item, on_sale, wish};
use crate::{
    sale::{LONG, Sale, eur, fresh, in_us},
    sold::in_sql,
};
use futures_util::future::join_all;
use sqlx::{AssertSqlSafe, MySqlPool};
use stampede_proto::{
    coupon::v1::{ClaimCouponRequest, ListCampaignsRequest, ListCouponsRequest},
    event::v1::{CreateEventRequest, Event, ListEventsRequest},
    order::v1::{CancelOrderRequest, ListOrdersRequest, Order, OrderState, PayOrderRequest, RefundOrderRequest},
};
use stampede_testkit::{Mesh, MeshBuilder, Process, Service, World, as_buyer, as_operator, buyer};
use stampede_vocab::{OrderId, UserId};
use std::{cell::RefCell, collections::BTreeSet};
use tonic::Code;

/// Rows with the same time: more than two pages, and no whole number of them.
const ROWS: usize = 17;
const PAGE_SIZE: i32 = 7;
/// Most pages: more than any of the lists has.
const MOST_PAGES: usize = 200;
/// The time of all rows.
const ONE_TIME: &str = "1750000000000000";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn similar_names_are_distinct_and_lists_are_complete() {
    let world = World::prepared().await.unwrap();
    let mesh = MeshBuilder::default()
        .set(Service::Order, "STAMPEDE_PAY_WINDOW_MS", LONG.as_millis())
        .start(&world, Process::all())
        .await
        .unwrap();
    let event = on_sale(&mesh, item(eur(1_999), 1_000, 100)).await;
    let mut sale = Sale { world, mesh, event };
    case_26_names_that_differ_in_case_are_two_and_others_than_ascii_are_none(&sale).await;
    case_26_messages_are_new_ones_although_the_counters_of_their_rows_begin_anew(&mut sale).await;
    case_25_rows_of_one_time_are_each_on_one_page(&sale).await;
}

async fn case_26_names_that_differ_in_case_are_two_and_others_than_ascii_are_none(sale: &Sale) {
    let user = buyer();
    let mut orders = BTreeSet::new();
    for request_id in ["abc", "ABC", "aBc", "abc"] {
        let placed = sale.place_as(user, request_id, &[(0, 1)], "").await;
        orders.insert(placed.unwrap_or_else(|refused| panic!("case 26: {request_id}: {refused:?}")).order_id);
    }
    assert_eq!(orders.len(), 3, "case 26: the fourth is a repeat of the first, and the others are not");
    for request_id in ["abc ", "àbc", "ａbc", "abc\0", ""] {
        let placed = sale.place_as(user, request_id, &[(0, 1)], "").await;
        let Err(refused) = placed else { panic!("case 26: {request_id:?} is taken for a name") };
        assert_eq!(refused.code(), Code::InvalidArgument, "case 26: {request_id:?}: {refused:?}");
    }
    let terms = later();
    let mut events = BTreeSet::new();
    for request_id in ["abc", "ABC", "abc"] {
        let request = CreateEventRequest { request_id: request_id.to_owned(), ..terms.clone() };
        let created = sale.mesh.event().create_event(as_operator(request)).await.unwrap().into_inner();
        events.insert(created.event.unwrap().event_id);
    }
    assert_eq!(events.len(), 2, "case 26: the third is a repeat of the first");
    what_is_done_once_is_repeated_under_its_very_name_alone(sale).await;
    what_is_paid_and_refunded_is_repeated_under_its_very_name_alone(sale).await;
}

/// The name is stored and compared, where the id of what is created is made of the name.
async fn what_is_done_once_is_repeated_under_its_very_name_alone(sale: &Sale) {
    let user = buyer();
    let order = sale.placed(user, &[(0, 1)], "").await;
    // It is claimed under the name "claim".
    let coupon = sale.claim(user).await;
    for (by_another, cancel, claim) in [(false, "abc", "claim"), (true, "ABC", "CLAIM"), (false, "abc", "claim")] {
        let request = CancelOrderRequest { order_id: order.order_id.clone(), request_id: cancel.to_owned() };
        let cancelled = sale.mesh.order().cancel_order(as_buyer(user, request)).await.map(drop);
        let request = ClaimCouponRequest { campaign_id: coupon.campaign_id.clone(), request_id: claim.to_owned() };
        let claimed = sale.mesh.coupon().claim_coupon(as_buyer(user, request)).await.map(drop);
        let expected = if by_another { Err(Code::FailedPrecondition) } else { Ok(()) };
        for (name, answer) in [(cancel, cancelled), (claim, claimed)] {
            assert_eq!(answer.map_err(|refused| refused.code()), expected, "case 26: {name}");
        }
    }
}

/// The same of a payment and of a refund: both are done, whichever name comes next.
async fn what_is_paid_and_refunded_is_repeated_under_its_very_name_alone(sale: &Sale) {
    let user = buyer();
    let order = sale.placed(user, &[(0, 1)], "").await;
    let order_id = &order.order_id;
    let pay = async |request_id: &str| {
        let (order_id, request_id) = (order_id.clone(), request_id.to_owned());
        let request = PayOrderRequest { order_id, request_id, payment_method: "pm_card_ok".to_owned() };
        sale.mesh.order().pay_order(as_buyer(user, request)).await.map(drop)
    };
    pay("abc").await.unwrap();
    sale.until(user, &order, OrderState::Fulfilled).await;
    let refused = pay("ABC").await.map_err(|refused| refused.code());
    assert_eq!(refused, Err(Code::FailedPrecondition), "case 26: another payment of what is paid");
    pay("abc").await.unwrap_or_else(|refused| panic!("case 26: the payment again: {refused:?}"));

    let refund = async |request_id: &str| {
        let request = RefundOrderRequest { order_id: order_id.clone(), request_id: request_id.to_owned() };
        sale.mesh.order().refund_order(as_operator(request)).await.map(drop)
    };
    refund("abc").await.unwrap();
    let refused = refund("ABC").await.map_err(|refused| refused.code());
    assert_eq!(refused, Err(Code::FailedPrecondition), "case 26: another refund of what is refunded");
    refund("abc").await.unwrap_or_else(|refused| panic!("case 26: the refund again: {refused:?}"));
}

/// Empties every outbox as a restore of an old copy would, and rebuilds it as after a great deletion. If the row number
/// identified a message, consumers would take the next ones for repeats.
const AS_NEW: &str = "DELETE FROM outbox_unsent; DELETE FROM outbox; ALTER TABLE outbox_unsent ENGINE=InnoDB; \
     ALTER TABLE outbox ENGINE=InnoDB; ALTER TABLE outbox AUTO_INCREMENT = 1; \
     UPDATE outbox_leases SET floor_id = 0";

async fn case_26_messages_are_new_ones_although_the_counters_of_their_rows_begin_anew(sale: &mut Sale) {
    sale.bought(buyer(), &[(0, 1)], "").await;
    // It waits until everything is sent.
    sale.audit();
    for service in Service::ALL {
        sale.mesh.terminate(service).await.unwrap();
    }
    for service in Service::ALL {
        run(&sale.world, service, AS_NEW.to_owned()).await;
    }
    for service in Service::ALL {
        sale.mesh.restart(service).await.unwrap();
    }
    for _ in 0..2 {
        sale.bought(buyer(), &[(0, 1)], "").await;
    }
}

/// Runs statements in the schema of a service.
async fn run(world: &World, service: Service, sql: String) {
    let db = MySqlPool::connect(&format!("{}?ssl-mode=disabled", world.service_database_url(service))).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&db).await.unwrap();
    db.close().await;
}

/// Sets all rows of a table to one time.
async fn at_one_time(world: &World, service: Service, table: &str) {
    run(world, service, format!("UPDATE {table} SET created_us = {ONE_TIME}")).await;
}

/// Reads all pages of a list, one after the other.
async fn whole(page_after: impl AsyncFn(String) -> (Vec<String>, String)) -> Vec<String> {
    let (mut all, mut token) = (Vec::new(), String::new());
    for _ in 0..MOST_PAGES {
        let (ids, next) = page_after(token).await;
        all.extend(ids);
        if next.is_empty() {
            return all;
        }
        token = next;
    }
    panic!("case 25: a list does not end after {MOST_PAGES} pages");
}

/// Sets an order to the time of all rows, so that it stands before, after or at the edge of a page.
async fn at_that_time(world: &World, order: &Order) {
    let id: OrderId = order.order_id.parse().unwrap();
    let sql = format!("UPDATE orders SET created_us = {ONE_TIME} WHERE id = {}", in_sql(id.as_bytes()));
    run(world, Service::Order, sql).await;
}

async fn cancel(sale: &Sale, user: UserId, order: &Order) {
    sale.until(user, order, OrderState::AwaitingPayment).await;
    let request = CancelOrderRequest { order_id: order.order_id.clone(), request_id: fresh() };
    sale.mesh.order().cancel_order(as_buyer(user, request)).await.unwrap();
}

async fn case_25_rows_of_one_time_are_each_on_one_page(sale: &Sale) {
    let user = buyer();
    let (mut orders, mut payable) = (BTreeSet::new(), Vec::new());
    let mut events = BTreeSet::from([sale.event.event_id.clone()]);
    for _ in 0..ROWS {
        let order = sale.place(user, &[(0, 1)], "").await.unwrap();
        orders.insert(order.order_id.clone());
        payable.push(order);
        events.insert(of_later(&sale.mesh).await.event_id);
    }
    // Of a campaign of its own each.
    let coupons = join_all((0..ROWS).map(|_| sale.claim(user))).await;
    let campaigns: BTreeSet<String> = coupons.iter().map(|coupon| coupon.campaign_id.clone()).collect();
    let coupons: BTreeSet<String> = coupons.into_iter().map(|coupon| coupon.coupon_id).collect();
    at_one_time(&sale.world, Service::Order, "orders").await;
    at_one_time(&sale.world, Service::Event, "events").await;
    at_one_time(&sale.world, Service::Coupon, "campaigns").await;
    at_one_time(&sale.world, Service::Coupon, "coupons").await;
    for page_size in [PAGE_SIZE, 1] {
        let to_cancel = RefCell::new(payable.iter());
        let listed = whole(async |page_token: String| {
            // A newer row is inserted before each page, and before the long ones a row of the same time too, and one
            // that is listed is cancelled.
            let placed = sale.place(user, &[(0, 1)], "").await.unwrap();
            if page_size > 1 {
                at_that_time(&sale.world, &placed).await;
                sale.place(user, &[(0, 1)], "").await.unwrap();
                let next = to_cancel.borrow_mut().next();
                cancel(sale, user, next.unwrap()).await;
            }
            let request = ListOrdersRequest { page_size, page_token, ..Default::default() };
            let page = sale.mesh.order().list_orders(as_buyer(user, request)).await.unwrap().into_inner();
            (page.orders.into_iter().map(|order| order.order_id).collect::<Vec<_>>(), page.next_page_token)
        });
        assert_each_once("orders", listed.await, &orders);
        let listed = whole(async |page_token: String| {
            let request = ListEventsRequest { page_size, page_token };
            let page = sale.mesh.event().list_events(as_operator(request)).await.unwrap().into_inner();
            (page.events.into_iter().map(|event| event.event_id).collect::<Vec<_>>(), page.next_page_token)
        });
        assert_each_once("events", listed.await, &events);
        let listed = whole(async |page_token: String| {
            let request = ListCampaignsRequest { page_size, page_token };
            let page = sale.mesh.coupon().list_campaigns(request).await.unwrap().into_inner();
            (page.campaigns.into_iter().map(|campaign| campaign.campaign_id).collect::<Vec<_>>(), page.next_page_token)
        });
        assert_each_once("campaigns", listed.await, &campaigns);
        let listed = whole(async |page_token: String| {
            let request = ListCouponsRequest { page_size, page_token, campaign_id: String::new() };
            let page = sale.mesh.coupon().list_coupons(as_buyer(user, request)).await.unwrap().into_inner();
            (page.coupons.into_iter().map(|coupon| coupon.coupon_id).collect::<Vec<_>>(), page.next_page_token)
        });
        assert_each_once("coupons", listed.await, &coupons);
    }
}

/// An event that opens after the test, so that nothing else changes its row.
async fn of_later(mesh: &Mesh) -> Event {
    mesh.event().create_event(as_operator(later())).await.unwrap().into_inner().event.unwrap()
}

fn later() -> CreateEventRequest {
    CreateEventRequest { open_time: in_us(LONG), close_time: in_us(2 * LONG), ..wish(item(eur(1_999), 10, 1)) }
}

/// Checks that every expected id is in the list exactly once.
fn assert_each_once(what: &str, listed: Vec<String>, expected: &BTreeSet<String>) {
    let known: Vec<String> = listed.into_iter().filter(|id| expected.contains(id)).collect();
    assert_eq!(known.len(), expected.len(), "case 25: {what} that are listed, and those that there are");
    assert_eq!(BTreeSet::from_iter(known), *expected, "case 25: {what}");
}
