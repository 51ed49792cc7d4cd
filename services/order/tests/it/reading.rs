//! Reading orders: one's own, page by page, and as they change.

use crate::sale::{Sale, buyer_of, refusal, refused};
use anyhow::{Context, Result};
use stampede_proto::order::v1::{
    GetOrderRequest, ListOrdersRequest, LookUpOrdersRequest, Order, OrderState, WatchOrderRequest,
};
use stampede_status::Reason;
use stampede_testkit::{as_buyer, as_inventory_service, as_operator, buyer};
use stampede_vocab::{OrderId, RequestId, limits::DEFAULT_ORDER_WRITE_LIMIT_MS};
use tonic::Request;

#[tokio::test]
async fn an_order_of_somebody_else_is_not_there() -> Result<()> {
    let sale = Sale::open().await?;
    let order = sale.payable_lamp(buyer()).await?;
    let get = || GetOrderRequest { order_id: order.order_id.clone() };
    let watch = || WatchOrderRequest { order_id: order.order_id.clone() };
    let not_found = refused(Reason::OrderNotFound, "order_id");
    let mut client = sale.mesh.order();
    assert_eq!(refusal(&client.get_order(as_buyer(buyer(), get())).await.unwrap_err()), not_found);
    assert_eq!(refusal(&client.watch_order(as_buyer(buyer(), watch())).await.unwrap_err()), not_found);
    let thief = Order { user_id: buyer().to_string(), ..order.clone() };
    assert_eq!(refusal(&sale.pay(&thief, "p").await.unwrap_err()), not_found);
    assert_eq!(refusal(&sale.cancel(&thief, "c").await.unwrap_err()), not_found);
    assert!(client.get_order(as_buyer(buyer_of(&order), get())).await.is_ok());
    assert!(client.get_order(as_operator(get())).await.is_ok());
    assert_eq!(sale.now(&order).await?.version, order.version, "nothing has changed");
    sale.mesh.stop().await
}

/// Every order of a list, read in pages of `page_size`.
async fn whole_list(
    sale: &Sale,
    page_size: i32,
    request: impl Fn(ListOrdersRequest) -> Request<ListOrdersRequest>,
) -> Result<Vec<Order>> {
    let (mut orders, mut page_token) = (Vec::new(), String::new());
    loop {
        let event_id = sale.event.to_string();
        let page = request(ListOrdersRequest { page_size, page_token, event_id, ..ListOrdersRequest::default() });
        let page = sale.mesh.order().list_orders(page).await?.into_inner();
        assert!(page.orders.len() <= page_size as usize);
        orders.extend(page.orders);
        if page.next_page_token.is_empty() {
            return Ok(orders);
        }
        page_token = page.next_page_token;
    }
}

#[tokio::test]
async fn a_buyer_sees_their_own_newest_first_and_an_operator_all_by_arrival() -> Result<()> {
    let sale = Sale::open().await?;
    let somebody = buyer();
    let mut own = Vec::new();
    for request in ["a", "b", "c", "d", "e"] {
        own.push(sale.place(somebody, sale.wish(request, &[(sale.kettle, 1)])).await?.order_id);
        sale.place(buyer(), sale.wish(request, &[(sale.lamp, 1)])).await?;
    }
    own.reverse();
    for page_size in [1, 2, 5, 100] {
        let seen = whole_list(&sale, page_size, |request| as_buyer(somebody, request)).await?;
        assert_eq!(seen.into_iter().map(|order| order.order_id).collect::<Vec<_>>(), own, "{page_size} a page");
        let all = whole_list(&sale, page_size, as_operator).await?;
        let arrivals: Vec<i64> = all.iter().map(|order| order.arrival).collect();
        assert_eq!(arrivals, (1..=10).collect::<Vec<_>>(), "{page_size} a page");
    }
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_page_token_of_another_list_is_refused() -> Result<()> {
    let sale = Sale::open().await?;
    let somebody = buyer();
    for request in ["a", "b"] {
        sale.place(somebody, sale.wish(request, &[(sale.kettle, 1)])).await?;
    }
    let mut client = sale.mesh.order();
    let list = |page_token: &str| ListOrdersRequest {
        page_size: 1,
        page_token: page_token.to_owned(),
        ..ListOrdersRequest::default()
    };
    let token = client.list_orders(as_buyer(somebody, list(""))).await?.into_inner().next_page_token;
    for (user, token) in [(buyer(), token.as_str()), (somebody, "nonsense")] {
        let status = client.list_orders(as_buyer(user, list(token))).await.unwrap_err();
        assert_eq!(refusal(&status), refused(Reason::InvalidPageToken, "page_token"));
    }
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_watcher_sees_the_order_change_up_to_its_end() -> Result<()> {
    let sale = Sale::open().await?;
    let order = sale.payable_lamp(buyer()).await?;
    let watch = WatchOrderRequest { order_id: order.order_id.clone() };
    let mut changes = sale.mesh.order().watch_order(as_buyer(buyer_of(&order), watch)).await?.into_inner();
    let mut next = async || -> Result<OrderState> {
        let change = changes.message().await?.context("the stream goes on")?;
        Ok(change.order.context("an order")?.state())
    };
    assert_eq!(next().await?, OrderState::AwaitingPayment);
    let paying = sale.pay(&order, "p").await?;
    assert_eq!(next().await?, OrderState::Paying);
    sale.approve(&paying).await?;
    assert_eq!(next().await?, OrderState::Fulfilled);
    assert!(changes.message().await?.is_none(), "the stream ends with the order");
    sale.mesh.stop().await
}

#[tokio::test]
async fn services_look_up_what_was_written_and_nobody_else_does() -> Result<()> {
    let sale = Sale::open().await?;
    let order = sale.payable_lamp(buyer()).await?;
    let never = OrderId::derive(buyer(), &RequestId::parse("never")?).to_string();
    let look_up = || LookUpOrdersRequest { order_ids: vec![never.clone(), order.order_id.clone()] };
    let mut client = sale.mesh.order();
    let answer = client.look_up_orders(as_inventory_service(look_up())).await?.into_inner();
    assert_eq!(u64::try_from(answer.write_limit_ms)?, DEFAULT_ORDER_WRITE_LIMIT_MS);
    let found = answer.orders;
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].order_id, found[0].state()), (&order.order_id, OrderState::AwaitingPayment));
    for request in [as_operator(look_up()), as_buyer(buyer_of(&order), look_up())] {
        assert_eq!(refusal(&client.look_up_orders(request).await.unwrap_err()).0, Reason::PermissionDenied);
    }
    sale.mesh.stop().await
}
