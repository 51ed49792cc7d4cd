//! The memory of Redis: what is over is forgotten, and what is new waits for room.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use crate::sale::{Sale, Step, is_refused, reason, seconds_from_now};
use stampede_lua::Keys;
use stampede_proto::inventory::v1::{self as proto, RefusalReason};
use stampede_status::Reason;
use stampede_testkit::{OwnRedis, as_operator, buyer, eventually};
use stampede_vocab::{EventId, ItemId, RequestId};

const DAY_S: i64 = 24 * 3_600;
/// What Redis says of a key that it does not have.
const GONE: i64 = -2;

/// When Redis forgets the event and each of its items, in milliseconds since the epoch: -1 never.
async fn forgotten_at(sale: &Sale) -> [i64; 3] {
    let keys = Keys::new(sale.world.redis_key_prefix());
    let item = |index| keys.stock_item(sale.event_id, sale.item(index));
    let mut conn = sale.world.admin_redis().await.unwrap();
    let mut times = [0; 3];
    for (time, key) in times.iter_mut().zip([keys.stock_event(sale.event_id), item(0), item(1)]) {
        *time = redis::cmd("PEXPIRETIME").arg(key).query_async(&mut conn).await.unwrap();
    }
    times
}

/// A day after this time, for each key.
fn a_day_after(time: &prost_types::Timestamp) -> [i64; 3] {
    [(time.seconds + DAY_S) * 1_000; 3]
}

/// The event is as an earlier release has staged it.
async fn keeps_its_window_for_good(sale: &Sale) {
    let key = Keys::new(sale.world.redis_key_prefix()).stock_event(sale.event_id);
    let mut conn = sale.world.admin_redis().await.unwrap();
    let mut before = redis::pipe();
    before.atomic().cmd("PERSIST").arg(&key).cmd("HDEL").arg(&key).arg("expires_ms");
    before.exec_async(&mut conn).await.unwrap();
}

/// The place of arrival from which on the event would go on after a loss of Redis.
async fn arrivals_floor(sale: &Sale) -> Option<i64> {
    let floor = sqlx::query_scalar("SELECT MAX(arrivals_floor) FROM stock WHERE event_id = ?");
    let mut conn = sale.inventory_db.acquire().await.unwrap();
    floor.bind(sale.event_id.uuid()).fetch_one(&mut *conn).await.unwrap()
}

async fn reconcile(sale: &Sale) {
    let request = proto::ReconcileRequest { event_id: sale.event_id.to_string() };
    sale.api().reconcile(as_operator(request)).await.unwrap();
}

#[tokio::test]
async fn an_event_is_kept_for_a_day_after_its_close_wherever_that_is_moved() {
    let sale = Sale::open().await;
    sale.reserved(&sale.order([1, 1])).await;
    let close_time = seconds_from_now(5_000);
    let moved = proto::StageStockRequest { close_time: Some(close_time), ..sale.shelf(2) };
    sale.api().stage_stock(as_operator(moved)).await.unwrap();
    let until = a_day_after(&close_time);
    assert_eq!(forgotten_at(&sale).await, until);
    sale.reserved(&sale.order([1, 1])).await;
    assert_eq!(forgotten_at(&sale).await, until, "an order leaves it as it is");
    sale.lose_redis().await;
    reconcile(&sale).await;
    assert_eq!(forgotten_at(&sale).await, until, "so does a rebuild");
    keeps_its_window_for_good(&sale).await;
    let kept = || async { (forgotten_at(&sale).await == until).then_some(()) };
    eventually("what an earlier release has staged gets its time", kept).await;

    let cancel_time = seconds_from_now(0);
    let cancelled = proto::StageStockRequest { cancel_time: Some(cancel_time), ..sale.shelf(3) };
    sale.api().stage_stock(as_operator(cancelled)).await.unwrap();
    assert_eq!(forgotten_at(&sale).await, a_day_after(&cancel_time));
    sale.mesh.stop().await.unwrap();
}

#[tokio::test]
async fn an_event_that_redis_has_forgotten_is_answered_by_the_ledger_and_stays_forgotten() {
    let sale = Sale::open().await;
    let (order, other) = (sale.order([0, 1]), sale.order([0, 1]));
    let first = sale.reserved(&order).await;
    sale.reserved(&other).await;
    sale.committed_becomes(1, 2).await;
    let floor = arrivals_floor(&sale).await;
    let long_ago = proto::StageStockRequest {
        open_time: Some(seconds_from_now(-3 * DAY_S)),
        close_time: Some(seconds_from_now(-2 * DAY_S)),
        ..sale.shelf(2)
    };
    sale.api().stage_stock(as_operator(long_ago.clone())).await.unwrap();
    assert_eq!(forgotten_at(&sale).await, [GONE; 3]);

    let closed = || async { is_refused(&sale, RefusalReason::EventClosed).await.then_some(()) };
    eventually("the event is closed", closed).await;
    let repeat = sale.reserved(&order).await;
    assert_eq!((repeat.arrival, &repeat.lines, repeat.commit_time), (first.arrival, &first.lines, first.commit_time));
    reconcile(&sale).await;
    let staged_anew = proto::StageStockRequest { event_version: 3, ..long_ago };
    sale.api().stage_stock(as_operator(staged_anew)).await.unwrap();
    assert_eq!((forgotten_at(&sale).await, arrivals_floor(&sale).await), ([GONE; 3], floor));
    // The second one is applied once what follows the first one is done.
    for order in [&order, &other] {
        sale.order_says(order, &[Step::Cancelled]).await;
        eventually("its units are given back", || async { (sale.in_ledger(order).await == 0).then_some(()) }).await;
    }
    assert_eq!(sale.stock(1).await.map(|level| (level.left, level.committed)), Some((3, 0)));
    assert_eq!(forgotten_at(&sale).await, [GONE; 3], "what comes back is not copied");
    sale.mesh.stop().await.unwrap();
}

#[tokio::test]
async fn nothing_new_is_staged_and_what_is_there_goes_on_being_sold() {
    let redis = OwnRedis::start(&[("maxmemory", "50mb")]).await.unwrap();
    let sale = Sale::on_redis(&redis).await;
    redis.fill(45).await.unwrap();

    let event_id = EventId::derive(buyer(), &RequestId::parse("another").unwrap());
    let mut another = proto::StageStockRequest { event_id: event_id.to_string(), ..sale.shelf(1) };
    for (item, index) in another.items.iter_mut().zip(0..) {
        item.item_id = ItemId::derive(event_id, index).to_string();
    }
    let refused = sale.api().stage_stock(as_operator(another.clone())).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::Overloaded);
    sale.reserved(&sale.order([1, 1])).await;
    // An event that was there before may move, and be put back.
    sale.api().stage_stock(as_operator(sale.shelf(2))).await.unwrap();

    redis.empty().await.unwrap();
    sale.api().stage_stock(as_operator(another)).await.unwrap();
}
