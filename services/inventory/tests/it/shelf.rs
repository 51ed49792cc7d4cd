//! The shelf of an event: how it comes to be there, moves, is watched and set right.

use crate::sale::{Sale, get_stock, is_refused, level, seconds_from_now};
use futures_util::StreamExt;
use stampede_proto::inventory::v1::{self as proto, RefusalReason};
use stampede_testkit::{as_operator, eventually};

#[tokio::test]
async fn an_event_stages_itself_moves_its_window_and_closes_when_it_is_cancelled() {
    let sale = Sale::unstaged(&[]).await;
    let shelf = sale.shelf(1);
    let tomorrow = proto::StageStockRequest {
        open_time: Some(seconds_from_now(86_400)),
        close_time: Some(seconds_from_now(90_000)),
        ..shelf.clone()
    };
    sale.event_scheduled(tomorrow).await;
    let staged = || async { sale.api().get_stock(get_stock(&sale)).await.is_ok().then_some(()) };
    eventually("the event is staged", staged).await;
    assert!(is_refused(&sale, RefusalReason::EventNotOpen).await);

    sale.event_scheduled(proto::StageStockRequest { event_version: 2, ..shelf }).await;
    let opened = || async { (!is_refused(&sale, RefusalReason::EventNotOpen).await).then_some(()) };
    eventually("the window has moved", opened).await;
    let reserved = sale.reserved(&sale.order([1, 0])).await;
    assert_eq!((reserved.lines[0].title.as_str(), reserved.lines[0].gift_title.as_str()), ("Item 0", "Gift of item 0"));

    sale.event_cancelled(3).await;
    // A buyer who came before the news keeps the units, so each question is another buyer's.
    let closed = || async { is_refused(&sale, RefusalReason::EventClosed).await.then_some(()) };
    eventually("the event is closed", closed).await;
}

#[tokio::test]
async fn a_watch_shows_each_change_and_ends_with_the_event() {
    let sale = Sale::open().await;
    let request = proto::WatchStockRequest { event_id: sale.event_id.to_string() };
    let mut watch = sale.api().watch_stock(request).await.unwrap().into_inner();
    assert_eq!(watch.next().await.unwrap().unwrap().stocks.len(), 2);
    let order = sale.order([0, 1]);
    sale.reserved(&order).await;
    let changed = watch.next().await.unwrap().unwrap();
    assert_eq!(changed.stocks.iter().map(|stock| stock.held_units + stock.committed_units).sum::<i32>(), 1);
    sale.event_cancelled(2).await;
    let rest: Vec<_> = watch.collect().await;
    assert!(rest.iter().all(Result::is_ok) && !rest.is_empty());
}

#[tokio::test]
async fn reconciling_reports_what_differed_and_sets_it_right() {
    let sale = Sale::open().await;
    let order = sale.order([0, 1]);
    sale.reserved(&order).await;
    sale.stock_becomes(1, level(2, 1, 0)).await;
    let reconcile = || async {
        let request = as_operator(proto::ReconcileRequest { event_id: sale.event_id.to_string() });
        sale.api().reconcile(request).await.unwrap().into_inner().drifts
    };
    assert_eq!(reconcile().await, []);
    sale.lose_redis().await;
    reconcile().await;
    assert_eq!(sale.stock(1).await, Some(level(2, 1, 0)));
    assert_eq!(reconcile().await, []);
}

#[tokio::test]
async fn an_older_version_of_an_event_changes_nothing() {
    let sale = Sale::open().await;
    sale.api().stage_stock(as_operator(sale.shelf(3))).await.unwrap();
    let mut old = sale.shelf(2);
    old.items[1].total_units = 99;
    sale.api().stage_stock(as_operator(old)).await.unwrap();
    assert_eq!(sale.stock(1).await, Some(level(3, 0, 0)));
}

#[tokio::test]
async fn an_order_is_known_though_its_event_is_before_its_opening_again() {
    let sale = Sale::open().await;
    let order = sale.order([0, 1]);
    let first = sale.reserved(&order).await;
    sale.stock_becomes(1, level(2, 1, 0)).await;

    // As it looks to the script, too, when the clock of Redis is set back.
    let later = proto::StageStockRequest { open_time: Some(seconds_from_now(1_800)), ..sale.shelf(2) };
    sale.api().stage_stock(as_operator(later)).await.unwrap();
    assert!(is_refused(&sale, RefusalReason::EventNotOpen).await);
    let repeat = sale.reserved(&order).await;
    assert_eq!((repeat.arrival, repeat.commit_time), (first.arrival, first.commit_time));
    assert_eq!(sale.refusal(&order.again()).await, (RefusalReason::EventNotOpen, 0), "another order");
}
