//! Bad input gets the right reason, names its field, and changes nothing.

use crate::{
    runs::reserve_once_there_is_room,
    sale::{Sale, field_path, get_stock, level, reason, reservation_ref},
};
use stampede_proto::inventory::v1::{self as proto, RefusalReason, reservation_result::Outcome};
use stampede_status::{Problem, Reason};
use stampede_testkit::{as_buyer, as_operator, as_order_service, buyer, eventually};
use stampede_vocab::EventId;
use tonic::Code;

/// Reserves, and asks again while an event is NOT_READY: one that the database does not find within a moment, as on a
/// machine under load, is taken for one that is on its way.
async fn outcomes(sale: &Sale, reservations: &[proto::Reservation]) -> Vec<Outcome> {
    let is_on_its_way =
        |outcome: &Outcome| matches!(outcome, Outcome::Refusal(r) if r.reason() == RefusalReason::NotReady);
    eventually("every event was looked for", || async {
        let request = proto::ReserveRequest { reservations: reservations.to_vec() };
        let results = reserve_once_there_is_room(&sale.api(), request).await.results;
        let outcomes: Vec<Outcome> = results.into_iter().filter_map(|result| result.outcome).collect();
        (!outcomes.iter().any(is_on_its_way)).then_some(outcomes)
    })
    .await
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
    let outcomes = outcomes(&sale, &[sale.order([1, 0]).reservation()]).await;
    assert!(
        matches!(&outcomes[..], [Outcome::Refusal(r)] if r.reason() == RefusalReason::EventNotFound),
        "{outcomes:?}"
    );
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
    for _ in 0..2 {
        let outcomes = outcomes(&sale, &reservations).await;
        let [Outcome::Reserved(_), Outcome::Refusal(refusal), Outcome::Reserved(_)] = &outcomes[..] else {
            panic!("{outcomes:?}")
        };
        assert_eq!(refusal.reason(), RefusalReason::EventNotFound);
        sale.committed_becomes(0, 2).await;
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
        api.stage_stock(as_order_service(sale.shelf(9))).await.unwrap_err(),
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
        let status = sale.api().reserve(as_order_service(request)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(Problem::from_status(&status).field_path(), Some(field));
    }
    assert_eq!(sale.stock(0).await.unwrap().left, 5);
}

#[tokio::test]
async fn a_bad_release_names_its_field_and_gives_nothing_back() {
    let sale = Sale::open().await;
    let order = sale.order([0, 1]);
    let reserved = sale.reserved(&order).await;
    let good = reservation_ref(&sale, &order, &reserved);
    let bad = |spoil: fn(&mut proto::ReservationRef)| {
        let mut spoilt = good.clone();
        spoil(&mut spoilt);
        vec![good.clone(), spoilt]
    };
    let table = [
        (vec![], "reservations"),
        (vec![good.clone(); 257], "reservations"),
        (bad(|reservation| reservation.order_id = "ord_1".into()), "reservations[1].order_id"),
        (bad(|reservation| reservation.request_time = None), "reservations[1].request_time"),
    ];
    for (reservations, field) in table {
        let status = sale.api().release(as_order_service(proto::ReleaseRequest { reservations })).await.unwrap_err();
        assert_eq!((reason(&status), field_path(&status).as_deref()), (Reason::InvalidField, Some(field)));
    }
    sale.stock_becomes(1, level(2, 1, 0)).await;
}

#[tokio::test]
async fn a_bad_shelf_names_its_field_and_stages_nothing() {
    type Spoil = fn(&mut proto::StageStockRequest);
    let sale = Sale::unstaged(&[]).await;
    let table: [(&str, Spoil); 9] = [
        ("event_id", |shelf| shelf.event_id.clear()),
        ("event_version", |shelf| shelf.event_version = 0),
        ("close_time", |shelf| shelf.close_time = shelf.open_time),
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
        let status = sale.api().stage_stock(as_operator(shelf)).await.unwrap_err();
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
