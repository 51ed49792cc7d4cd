//! Lists with filters: a buyer's own orders by state, and anybody's by buyer, event, state and time for an operator.

use crate::sale::{Sale, eur};
use anyhow::Result;
use stampede_proto::order::v1::{ListOrdersRequest, Order, OrderState, PlaceOrderRequest};
use stampede_testkit::{MeshBuilder, Service, as_buyer, as_operator, buyer};
use stampede_vocab::{ItemId, UserId};
use tonic::Request;

/// The ids of a list, read in pages of two, which may be short.
async fn ids(
    sale: &Sale,
    wanted: ListOrdersRequest,
    by: impl Fn(ListOrdersRequest) -> Request<ListOrdersRequest>,
) -> Result<Vec<String>> {
    let (mut ids, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = by(ListOrdersRequest { page_size: 2, page_token, ..wanted.clone() });
        let page = sale.mesh.order().list_orders(request).await?.into_inner();
        ids.extend(page.orders.into_iter().map(|order| order.order_id));
        if page.next_page_token.is_empty() {
            return Ok(ids);
        }
        page_token = page.next_page_token;
    }
}

fn ids_of<const N: usize>(orders: [&Order; N]) -> Vec<String> {
    orders.map(|order| order.order_id.clone()).to_vec()
}

fn in_states(states: &[OrderState]) -> ListOrdersRequest {
    let states = states.iter().map(|state| i32::from(*state)).collect();
    ListOrdersRequest { states, ..ListOrdersRequest::default() }
}

#[tokio::test]
async fn a_buyer_picks_out_their_orders_by_state() -> Result<()> {
    let sale = Sale::open().await?;
    let somebody = buyer();
    let mut orders = Vec::new();
    for request in ["a", "b", "c", "d", "e"] {
        orders.push(sale.place(somebody, sale.wish(request, &[(sale.kettle, 1)])).await?);
    }
    let [rejected, cancelled, paying, open, last] = &orders[..] else { panic!("five orders") };
    sale.leave_as_before(rejected, "REJECTED", 0).await?;
    sale.cancel(cancelled, "c").await?;
    sale.pay(paying, "p").await?;
    for (states, expected) in [
        (vec![], ids_of([last, open, paying, cancelled, rejected])),
        (vec![OrderState::AwaitingPayment], ids_of([last, open])),
        (vec![OrderState::Paying, OrderState::AwaitingPayment], ids_of([last, open, paying])),
        (vec![OrderState::Cancelled], ids_of([cancelled, rejected])),
        (vec![OrderState::Refunded], Vec::new()),
    ] {
        let seen = ids(&sale, in_states(&states), |request| as_buyer(somebody, request)).await?;
        assert_eq!(seen, expected, "{states:?}");
    }
    sale.mesh.stop().await
}

/// How many orders a page has, and whether another one follows, for each page of a list.
async fn pages(sale: &Sale, wanted: ListOrdersRequest, page_size: i32) -> Result<Vec<(usize, bool)>> {
    let (mut pages, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = as_operator(ListOrdersRequest { page_size, page_token, ..wanted.clone() });
        let page = sale.mesh.order().list_orders(request).await?.into_inner();
        page_token = page.next_page_token;
        pages.push((page.orders.len(), !page_token.is_empty()));
        if page_token.is_empty() {
            return Ok(pages);
        }
    }
}

#[tokio::test]
async fn a_page_looks_at_so_many_orders_and_leads_on_behind_them() -> Result<()> {
    let sale = Sale::open_with(MeshBuilder::default().set(Service::Order, "STAMPEDE_ORDER_LIST_LOOKS_AT", 2)).await?;
    let (ann, bob) = (buyer(), buyer());
    let mut orders = Vec::new();
    for request in ["a", "b", "c", "d", "e"] {
        orders.push(sale.place(ann, sale.wish(request, &[(sale.kettle, 1)])).await?);
    }
    let other = sale.place(bob, sale.wish("f", &[(sale.lamp, 1)])).await?;
    let [first, .., last] = &orders[..] else { panic!("five orders") };
    sale.cancel(first, "c").await?;

    // By arrival: two, two and two, of which the first alone is cancelled.
    let of_event = ListOrdersRequest { event_id: sale.event.to_string(), ..ListOrdersRequest::default() };
    let cancelled = ListOrdersRequest { states: in_states(&[OrderState::Cancelled]).states, ..of_event.clone() };
    assert_eq!(pages(&sale, cancelled.clone(), 50).await?, [(1, true), (0, true), (0, false)]);
    assert_eq!(ids(&sale, cancelled, as_operator).await?, ids_of([first]));
    // Only the last two were accepted since then.
    let since = ListOrdersRequest { create_time_from: last.create_time, ..of_event.clone() };
    assert_eq!(pages(&sale, since.clone(), 50).await?, [(0, true), (0, true), (2, false)]);
    assert_eq!(ids(&sale, since, as_operator).await?, ids_of([last, &other]));
    // Newest first: two, two, and the one that is cancelled.
    let anns = |request| as_buyer(ann, request);
    assert_eq!(ids(&sale, in_states(&[OrderState::Cancelled]), anns).await?, ids_of([first]));
    let all_anns = ListOrdersRequest { user_id: ann.to_string(), ..of_event.clone() };
    assert_eq!(pages(&sale, all_anns.clone(), 50).await?, [(2, true), (2, true), (1, false)]);
    assert_eq!(pages(&sale, all_anns, 1).await?, [(1, true), (1, true), (1, true), (1, true), (1, false)]);
    let everybodys = ListOrdersRequest {
        create_time_from: first.create_time,
        states: in_states(&[OrderState::Cancelled]).states,
        ..ListOrdersRequest::default()
    };
    assert_eq!(pages(&sale, everybodys, 50).await?, [(0, true), (0, true), (1, false)]);
    // Nothing is passed over here.
    assert_eq!(pages(&sale, of_event, 50).await?, [(6, false)]);
    sale.mesh.stop().await
}

#[tokio::test]
async fn an_operator_lists_by_buyer_event_state_and_time() -> Result<()> {
    let sale = Sale::open().await?;
    let other_event = sale.another_event(2, &[eur(100)]).await?;
    let elsewhere = PlaceOrderRequest {
        event_id: other_event.to_string(),
        ..sale.wish("elsewhere", &[(ItemId::derive(other_event, 0), 1)])
    };
    let (ann, bob): (UserId, UserId) = (buyer(), buyer());
    let here = |request: &str| sale.wish(request, &[(sale.kettle, 1)]);
    let first = sale.place(ann, here("first")).await?;
    let second = sale.place(bob, here("second")).await?;
    let third = sale.place(ann, elsewhere).await?;
    sale.cancel(&second, "c").await?;

    let all = ListOrdersRequest::default;
    let (anns, event_id) = (ann.to_string(), sale.event.to_string());
    let cancelled = || in_states(&[OrderState::Cancelled]);
    let since = |request: ListOrdersRequest, order: &Order| ListOrdersRequest {
        create_time_from: order.create_time,
        ..request
    };
    let until = |request: ListOrdersRequest, order: &Order| ListOrdersRequest {
        create_time_until: order.create_time,
        ..request
    };
    for (what, request, expected) in [
        ("all", all(), ids_of([&third, &second, &first])),
        ("since", since(all(), &second), ids_of([&third, &second])),
        ("until", until(all(), &second), ids_of([&first])),
        ("range", until(since(all(), &first), &third), ids_of([&second, &first])),
        ("cancelled", since(cancelled(), &first), ids_of([&second])),
        ("cancelled later", since(cancelled(), &third), Vec::new()),
        ("buyer", ListOrdersRequest { user_id: anns.clone(), ..all() }, ids_of([&third, &first])),
        ("buyer in event", ListOrdersRequest { user_id: anns, event_id: event_id.clone(), ..all() }, ids_of([&first])),
        ("event", ListOrdersRequest { event_id: event_id.clone(), ..all() }, ids_of([&first, &second])),
        ("event since", since(ListOrdersRequest { event_id: event_id.clone(), ..all() }, &second), ids_of([&second])),
        ("event, cancelled", ListOrdersRequest { event_id, ..cancelled() }, ids_of([&second])),
    ] {
        assert_eq!(ids(&sale, request, as_operator).await?, expected, "{what}");
    }
    sale.mesh.stop().await
}
