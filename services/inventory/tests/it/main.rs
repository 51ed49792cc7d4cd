//! The inventory service through its contract: holds, the ledger, what returns, and what happens when Redis is lost.

mod sale;

use futures_util::StreamExt;
use sale::{A_FEW_ROUNDS, Answer, Level, Order, Sale, Step, seconds_from_now};
use stampede_proto::inventory::v1::{self as proto, RefusalReason, reservation_result::Outcome};
use stampede_status::{Problem, Reason};
use stampede_testkit::{Service, as_buyer, as_operator, as_service, buyer, eventually};
use stampede_vocab::EventId;
use std::time::{Duration, Instant};
use tonic::{Code, Status};

const PLACED: Step = Step::Placed { gifts: 0 };

fn level(left: i32, committed: i32, held: i32) -> Level {
    Level { left, committed, held, left_gifts: 0 }
}

fn reason(status: &Status) -> Reason {
    Problem::from_status(status).reason()
}

fn field_path(status: &Status) -> Option<String> {
    Problem::from_status(status).field_path().map(str::to_owned)
}

fn rejected(reason: &str, sale: &Sale, index: usize) -> Answer {
    Answer::Rejected { reason: reason.to_owned(), item_id: sale.item(index).to_string() }
}

#[tokio::test]
async fn an_accepted_order_moves_from_the_hold_to_the_ledger() {
    let sale = Sale::open().await;
    let order = sale.order([2, 1]);
    let hold = sale.hold(&order).await;
    assert_eq!((hold.arrival, hold.lines.len()), (1, 2));
    assert_eq!(hold.lines[0].gift_units, 1);
    assert_eq!(hold.lines[0].unit_price.as_ref().unwrap().minor_units, 1999);
    assert_eq!(sale.stock(1).await, Some(level(2, 0, 1)));

    sale.order_says(&order, &[Step::Placed { gifts: 0 }]).await;
    assert_eq!(sale.answered(&order, 1).await, [Answer::Committed]);
    sale.stock_becomes(1, level(2, 1, 0)).await;
    sale.stock_becomes(0, Level { left: 3, committed: 2, held: 0, left_gifts: 2 }).await;
    assert_eq!(sale.refusal(&order.again()).await, (RefusalReason::LimitReached, 0));
    sale.mesh.stop().await.unwrap();
}

#[tokio::test]
async fn the_ledger_never_commits_more_than_there_is() {
    let sale = Sale::open().await;
    let orders: Vec<_> = (0..8).map(|_| sale.order([0, 1])).collect();
    // None of them has a hold, as if Redis had been lost.
    for order in &orders {
        sale.order_says(order, &[PLACED]).await;
    }
    let mut committed = 0;
    for order in &orders {
        match &sale.answered(order, 1).await[..] {
            [Answer::Committed] => committed += 1,
            answers => assert_eq!(answers, [rejected("SOLD_OUT", &sale, 1)]),
        }
    }
    assert_eq!(committed, 3);
    sale.stock_becomes(1, level(0, 3, 0)).await;
}

#[tokio::test]
async fn the_ledger_keeps_the_limit_and_the_gifts_without_redis() {
    let sale = Sale::open().await;
    let order = sale.order([0, 1]);
    sale.order_says(&order, &[PLACED]).await;
    assert_eq!(sale.answered(&order, 1).await, [Answer::Committed]);
    sale.order_says(&order.again(), &[PLACED]).await;
    assert_eq!(sale.answered(&order.again(), 1).await, [rejected("LIMIT_REACHED", &sale, 1)]);

    let gifted = sale.order([1, 0]);
    sale.order_says(&gifted, &[Step::Placed { gifts: 3 }]).await;
    assert_eq!(sale.answered(&gifted, 1).await, [rejected("SOLD_OUT", &sale, 0)]);
}

#[tokio::test]
async fn what_an_order_does_takes_effect_in_order_and_once() {
    let sale = Sale::open().await;
    let order = sale.order([0, 1]);
    sale.hold(&order).await;
    sale.order_says(&order, &[PLACED, Step::Cancelled, Step::Cancelled]).await;
    sale.stock_becomes(1, level(3, 0, 0)).await;
    assert_eq!(sale.answers(&order).await, [Answer::Committed]);
    sale.hold(&order.again()).await;
}

#[tokio::test]
async fn a_late_payment_takes_the_units_again_if_there_are_any() {
    let sale = Sale::open().await;
    let order = sale.order([0, 1]);
    sale.order_says(&order, &[PLACED, Step::Expired, Step::PaidLate]).await;
    assert_eq!(sale.answered(&order, 2).await, [Answer::Committed, Answer::Committed]);
    sale.stock_becomes(1, level(2, 1, 0)).await;

    sale.order_says(&order, &[Step::Expired]).await;
    sale.stock_becomes(1, level(3, 0, 0)).await;
    for _ in 0..3 {
        let other = sale.order([0, 1]);
        sale.order_says(&other, &[PLACED]).await;
        sale.answered(&other, 1).await;
    }
    sale.order_says(&order, &[Step::PaidLate]).await;
    assert_eq!(sale.answered(&order, 3).await[2], rejected("SOLD_OUT", &sale, 1));
}

#[tokio::test]
async fn a_rejected_order_leaves_no_hold() {
    let sale = Sale::open().await;
    let order = sale.order([1, 0]);
    sale.hold(&order).await;
    sale.order_says(&order, &[Step::Placed { gifts: 3 }]).await;
    sale.answered(&order, 1).await;
    sale.stock_becomes(0, Level { left: 5, committed: 0, held: 0, left_gifts: 2 }).await;
}

#[tokio::test]
async fn lost_redis_is_not_ready_and_comes_back_from_the_ledger() {
    let sale = Sale::open().await;
    let order = sale.order([2, 0]);
    let first = sale.hold(&order).await;
    sale.order_says(&order, &[Step::Placed { gifts: 1 }]).await;
    let settled = Level { left: 3, committed: 2, held: 0, left_gifts: 1 };
    sale.stock_becomes(0, settled).await;

    sale.lose_redis().await;
    sale.stock_becomes(0, settled).await;
    assert_eq!(sale.refusal(&order.again()).await, (RefusalReason::LimitReached, 0));
    assert!(sale.hold(&sale.order([1, 0])).await.arrival > first.arrival);
}

#[tokio::test]
async fn a_hold_whose_order_was_never_written_goes_back() {
    let sale = Sale::unstaged(&[Service::Order]).await;
    sale.api().stage_stock(as_service(sale.shelf(1))).await.unwrap();
    sale.hold(&sale.order([0, 1])).await;
    assert_eq!(sale.stock(1).await, Some(level(2, 0, 1)));
    sale.stock_becomes(1, level(3, 0, 0)).await;
}

#[tokio::test]
async fn a_hold_stays_while_nobody_can_be_asked_about_its_order() {
    let sale = Sale::open().await;
    sale.hold(&sale.order([0, 1])).await;
    tokio::time::sleep(A_FEW_ROUNDS).await;
    assert_eq!(sale.stock(1).await, Some(level(2, 0, 1)));
}

#[tokio::test]
async fn a_hold_that_was_granted_again_after_the_ledger_answered_goes_back() {
    let sale = Sale::open().await;
    let order = sale.order([2, 0]);
    sale.order_says(&order, &[PLACED, Step::Cancelled]).await;
    sale.answered(&order, 1).await;
    sale.hold(&order).await;
    sale.stock_becomes(0, Level { left: 5, committed: 0, held: 0, left_gifts: 2 }).await;
}

#[tokio::test]
async fn a_release_gives_back_what_is_held_once() {
    let sale = Sale::open().await;
    let order = sale.order([1, 1]);
    let first = sale.hold(&order).await;
    let again = sale.hold(&order).await;
    for (hold, released) in [(&first, 0), (&again, 1), (&again, 0)] {
        let request = as_service(proto::ReleaseRequest { holds: vec![hold_ref(&sale, &order, hold)] });
        assert_eq!(sale.api().release(request).await.unwrap().into_inner().released, released);
    }
    assert_eq!(sale.stock(1).await, Some(level(3, 0, 0)));
}

fn hold_ref(sale: &Sale, order: &Order, hold: &proto::Hold) -> proto::HoldRef {
    proto::HoldRef { event_id: sale.event_id.to_string(), order_id: order.order_id.to_string(), held_at: hold.held_at }
}

#[tokio::test]
async fn a_hold_is_refused_to_another_request_under_its_order() {
    let sale = Sale::open().await;
    let order = sale.order([0, 1]);
    sale.hold(&order).await;
    let other = proto::Reservation { request_fingerprint: vec![2; 32], ..sale.order([1, 0]).reservation() };
    let other = proto::Reservation { order_id: order.order_id.to_string(), ..other };
    let request = as_service(proto::ReserveRequest { reservations: vec![other] });
    let results = sale.api().reserve(request).await.unwrap().into_inner().results;
    let refusal = proto::Refusal { reason: RefusalReason::RequestIdReused.into(), ..proto::Refusal::default() };
    assert_eq!(results[0].outcome, Some(Outcome::Refusal(refusal)));
    assert_eq!((sale.stock(0).await.unwrap().held, sale.stock(1).await.unwrap().held), (0, 1));
}

#[tokio::test]
async fn a_hold_that_is_asked_for_again_and_again_stays() {
    let sale = Sale::unstaged(&[Service::Order]).await;
    sale.api().stage_stock(as_service(sale.shelf(1))).await.unwrap();
    let order = sale.order([0, 1]);
    let (started, mut last) = (Instant::now(), sale.hold(&order).await.arrival);
    while started.elapsed() < 3 * A_FEW_ROUNDS {
        let asked = Instant::now();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let arrival = sale.hold(&order).await.arrival;
        // Unless this machine stood still for longer than the age at which a hold goes back.
        assert!(arrival == last || asked.elapsed() > Duration::from_millis(250), "it is the same hold");
        last = arrival;
    }
    sale.stock_becomes(1, level(3, 0, 0)).await;
}

#[tokio::test]
async fn an_event_stages_itself_moves_its_window_and_closes_when_it_is_cancelled() {
    let sale = Sale::unstaged(&[]).await;
    let shelf = sale.shelf(1);
    let tomorrow = proto::StageStockRequest {
        opens_at: Some(seconds_from_now(86_400)),
        closes_at: Some(seconds_from_now(90_000)),
        ..shelf.clone()
    };
    sale.event_scheduled(tomorrow).await;
    let staged = || async { sale.api().get_stock(get_stock(&sale)).await.is_ok().then_some(()) };
    eventually("the event is staged", staged).await;
    assert!(is_refused(&sale, RefusalReason::EventNotOpen).await);

    sale.event_scheduled(proto::StageStockRequest { event_version: 2, ..shelf }).await;
    let opened = || async { (!is_refused(&sale, RefusalReason::EventNotOpen).await).then_some(()) };
    eventually("the window has moved", opened).await;

    sale.event_cancelled(3).await;
    // A buyer who came before the news keeps the hold, so each question is another buyer's.
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
    sale.hold(&order).await;
    let changed = watch.next().await.unwrap().unwrap();
    assert_eq!(changed.stocks.iter().map(|stock| stock.held_units).sum::<i32>(), 1);
    sale.event_cancelled(2).await;
    let rest: Vec<_> = watch.collect().await;
    assert!(rest.iter().all(Result::is_ok) && !rest.is_empty());
}

#[tokio::test]
async fn reconciling_tells_what_differed_and_sets_it_right() {
    let sale = Sale::open().await;
    let order = sale.order([0, 1]);
    sale.order_says(&order, &[PLACED]).await;
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
    sale.api().stage_stock(as_service(sale.shelf(3))).await.unwrap();
    let mut old = sale.shelf(2);
    old.items[1].total_units = 99;
    sale.api().stage_stock(as_service(old)).await.unwrap();
    assert_eq!(sale.stock(1).await, Some(level(3, 0, 0)));
}

/// Whether a new buyer is refused for this reason.
async fn is_refused(sale: &Sale, reason: RefusalReason) -> bool {
    matches!(sale.reserve(&sale.order([0, 1])).await, Outcome::Refusal(refusal) if refusal.reason() == reason)
}

fn get_stock(sale: &Sale) -> proto::GetStockRequest {
    proto::GetStockRequest { event_id: sale.event_id.to_string() }
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let sale = Sale::unstaged(&[]).await;
    let status = sale.api().get_stock(get_stock(&sale)).await.unwrap_err();
    assert_eq!((status.code(), reason(&status)), (Code::NotFound, Reason::EventNotFound));
    assert_eq!(field_path(&status).as_deref(), Some("event_id"));
    let watch = proto::WatchStockRequest { event_id: sale.event_id.to_string() };
    assert_eq!(reason(&sale.api().watch_stock(watch).await.unwrap_err()), Reason::EventNotFound);
    let reconcile = as_operator(proto::ReconcileRequest { event_id: sale.event_id.to_string() });
    assert_eq!(reason(&sale.api().reconcile(reconcile).await.unwrap_err()), Reason::EventNotFound);
    assert_eq!(sale.refusal(&sale.order([1, 0])).await, (RefusalReason::EventNotFound, 0));
}

#[tokio::test]
async fn a_batch_tells_what_is_not_there_from_what_is() {
    let sale = Sale::open().await;
    let unknown = EventId::from_uuid(uuid::Uuid::nil());
    let reservations = vec![
        sale.order([1, 0]).reservation(),
        proto::Reservation { event_id: unknown.to_string(), ..sale.order([1, 0]).reservation() },
        sale.order([1, 0]).reservation(),
    ];
    // The second time it is remembered.
    for held in [2, 2] {
        let request = as_service(proto::ReserveRequest { reservations: reservations.clone() });
        let results = sale.api().reserve(request).await.unwrap().into_inner().results;
        assert!(matches!(&results[1].outcome, Some(Outcome::Refusal(r)) if r.reason() == RefusalReason::EventNotFound));
        assert!(matches!((&results[0].outcome, &results[2].outcome), (Some(Outcome::Hold(_)), Some(Outcome::Hold(_)))));
        assert_eq!(sale.stock(0).await.unwrap().held, held);
    }
}

#[tokio::test]
async fn only_services_may_reserve_and_only_operators_reconcile() {
    let sale = Sale::open().await;
    let mut api = sale.api();
    let reserve = || proto::ReserveRequest { reservations: vec![sale.order([1, 0]).reservation()] };
    let denied = [
        api.reserve(as_buyer(buyer(), reserve())).await.unwrap_err(),
        api.reserve(as_operator(reserve())).await.unwrap_err(),
        api.stage_stock(as_operator(sale.shelf(9))).await.unwrap_err(),
        api.release(as_buyer(buyer(), proto::ReleaseRequest::default())).await.unwrap_err(),
        api.reconcile(as_buyer(buyer(), proto::ReconcileRequest::default())).await.unwrap_err(),
    ];
    for status in denied {
        assert_eq!(reason(&status), Reason::PermissionDenied, "{status:?}");
    }
    assert_eq!(reason(&api.reserve(reserve()).await.unwrap_err()), Reason::Unauthenticated);
    assert_eq!(sale.stock(1).await, Some(level(3, 0, 0)));
}

#[tokio::test]
async fn bad_input_names_its_field_and_changes_nothing() {
    let sale = Sale::open().await;
    let bad = |spoil: fn(&mut proto::Reservation)| {
        let mut reservation = sale.order([1, 0]).reservation();
        spoil(&mut reservation);
        proto::ReserveRequest { reservations: vec![sale.order([1, 0]).reservation(), reservation] }
    };
    let table = [
        (proto::ReserveRequest::default(), "reservations"),
        (bad(|wanted| wanted.order_id = "ord_x".into()), "reservations[1].order_id"),
        (bad(|wanted| wanted.event_id = wanted.user_id.clone()), "reservations[1].event_id"),
        (bad(|wanted| wanted.lines.clear()), "reservations[1].lines"),
        (bad(|wanted| wanted.lines[0].units = 0), "reservations[1].lines[0].units"),
        (bad(|wanted| wanted.lines[0].units = -1), "reservations[1].lines[0].units"),
        (bad(|wanted| wanted.lines[0].units = 1_000_001), "reservations[1].lines[0].units"),
        (bad(|wanted| wanted.user_id = "usr_".into()), "reservations[1].user_id"),
        (bad(|wanted| wanted.request_fingerprint.clear()), "reservations[1].request_fingerprint"),
        (bad(|wanted| wanted.lines.push(wanted.lines[0].clone())), "reservations[1].lines[1].item_id"),
    ];
    for (request, field) in table {
        let status = sale.api().reserve(as_service(request)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(Problem::from_status(&status).field_path(), Some(field));
    }
    assert_eq!(sale.stock(0).await.unwrap().held, 0);
}

#[tokio::test]
async fn a_bad_release_names_its_field_and_gives_nothing_back() {
    let sale = Sale::open().await;
    let order = sale.order([0, 1]);
    let hold = sale.hold(&order).await;
    let bad = |spoil: fn(&mut proto::HoldRef)| {
        let good = hold_ref(&sale, &order, &hold);
        let mut spoilt = good.clone();
        spoil(&mut spoilt);
        vec![good, spoilt]
    };
    let table = [
        (vec![], "holds"),
        (vec![hold_ref(&sale, &order, &hold); 257], "holds"),
        (bad(|hold| hold.event_id.clear()), "holds[1].event_id"),
        (bad(|hold| hold.order_id = "ord_1".into()), "holds[1].order_id"),
        (bad(|hold| hold.held_at = None), "holds[1].held_at"),
    ];
    for (holds, field) in table {
        let status = sale.api().release(as_service(proto::ReleaseRequest { holds })).await.unwrap_err();
        assert_eq!((reason(&status), field_path(&status).as_deref()), (Reason::InvalidField, Some(field)));
    }
    assert_eq!(sale.stock(1).await, Some(level(2, 0, 1)));
}

#[tokio::test]
async fn a_bad_shelf_names_its_field_and_stages_nothing() {
    type Spoil = fn(&mut proto::StageStockRequest);
    let sale = Sale::unstaged(&[]).await;
    let table: [(&str, Spoil); 9] = [
        ("event_id", |shelf| shelf.event_id.clear()),
        ("event_version", |shelf| shelf.event_version = 0),
        ("closes_at", |shelf| shelf.closes_at = shelf.opens_at),
        ("items", |shelf| shelf.items.clear()),
        ("items[1].item_id", |shelf| shelf.items[1].item_id = shelf.items[0].item_id.clone()),
        ("items[1].total_units", |shelf| shelf.items[1].total_units = -1),
        ("items[0].limit_per_buyer", |shelf| shelf.items[0].limit_per_buyer = 0),
        ("items[0].gift_total_units", |shelf| shelf.items[0].gift_total_units = -1),
        ("items[0].unit_price", |shelf| shelf.items[0].unit_price = None),
    ];
    for (field, spoil) in table {
        let mut shelf = sale.shelf(1);
        spoil(&mut shelf);
        let status = sale.api().stage_stock(as_service(shelf)).await.unwrap_err();
        assert_eq!((reason(&status), field_path(&status).as_deref()), (Reason::InvalidField, Some(field)));
    }
    assert_eq!(reason(&sale.api().get_stock(get_stock(&sale)).await.unwrap_err()), Reason::EventNotFound);
}

#[tokio::test]
async fn an_id_that_is_none_is_refused_by_its_field() {
    let sale = Sale::open().await;
    let event_id = sale.item(0).to_string();
    let bad = [
        sale.api().get_stock(proto::GetStockRequest { event_id: event_id.clone() }).await.map(drop),
        sale.api().watch_stock(proto::WatchStockRequest { event_id: event_id.clone() }).await.map(drop),
        sale.api().reconcile(as_operator(proto::ReconcileRequest { event_id })).await.map(drop),
    ];
    for status in bad.map(Result::unwrap_err) {
        assert_eq!((reason(&status), field_path(&status).as_deref()), (Reason::InvalidField, Some("event_id")));
    }
}

#[tokio::test]
async fn what_the_event_does_not_offer_is_refused_by_name() {
    let sale = Sale::open().await;
    let mut order = sale.order([1, 0]);
    order.lines.push((sale.item(7), 1));
    assert_eq!(sale.refusal(&order).await, (RefusalReason::ItemNotFound, 0));
    assert_eq!(sale.refusal(&sale.order([3, 0])).await, (RefusalReason::LimitReached, 2));
}
