//! What works beside the calls dies in the middle: a rebuild of Redis in each of its pages, the sweep of stale holds
//! between what the ledger says and what Redis is told. And a sweep that is late takes nothing from who came since.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use crate::{
    runs::reserve_once_there_is_room,
    sale::{Level, Order, level, quick},
    stand::{Stand, each_side_of_a_write},
};
use stampede_db::Statement;
use stampede_proto::inventory::v1::{self as proto, RefusalReason, reservation_result::Outcome};
use stampede_testkit::{FreezeAt, Service, Writes, as_operator, eventually};
use stampede_vocab::{OrderId, UserId};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Buyers whom a rebuild copies in one call, by the thousand.
const PAGE: u128 = 1_000;
/// Two pages and a bit.
const BUYERS: u128 = 2_300;
/// Units that nobody has bought.
const LEFT: i32 = 7;
const ITEM: usize = 0;

/// The buyer of this number, in the order in which a rebuild copies them.
fn buyer(number: u128) -> UserId {
    UserId::from_uuid(Uuid::from_u128((1 << 64) + number))
}

/// Sells a unit to each of the buyers, as the ledger has it.
async fn sell_to_many(stand: &Stand) {
    let sale = &stand.sale;
    let mut shelf = sale.shelf(2);
    shelf.items[ITEM].total_units = i32::try_from(BUYERS).unwrap() + LEFT;
    sale.api().stage_stock(as_operator(shelf)).await.unwrap();
    let mut conn = sale.inventory_db.acquire().await.unwrap();
    let mut ledger = Statement::new(
        "INSERT INTO ledger (order_id, item_id, user_id, event_id, arrival, units, gift_units, state, \
         committed_at_us) ",
    );
    let (item_id, event_id) = (sale.item(ITEM), sale.event_id);
    ledger.push_values(0..BUYERS, |mut row, number| {
        let order_id = OrderId::from_uuid(Uuid::from_u128((2 << 64) + number));
        row.push_bind(order_id.uuid())
            .push_bind(item_id.uuid())
            .push_bind(buyer(number).uuid())
            .push_bind(event_id.uuid())
            .push_bind(i64::try_from(number).unwrap() + 1)
            .push_bind(1)
            .push_bind(0)
            .push_bind("COMMITTED")
            .push_bind(1_i64);
    });
    ledger.execute(&mut conn).await.unwrap();
    let sold = "UPDATE stock SET committed_units = ?, version = version + 1 WHERE item_id = ?";
    let sold = sqlx::query(sold).bind(i64::try_from(BUYERS).unwrap()).bind(item_id.uuid());
    sold.execute(&mut *conn).await.unwrap();
}

/// What Redis has of single buyers.
async fn known_buyers(stand: &Stand) -> BTreeMap<UserId, i32> {
    let (mut buyers, mut cursor) = (BTreeMap::new(), Some(0));
    while let Some(from) = cursor {
        let page = stand.stock.buyers(stand.sale.event_id, stand.sale.item(ITEM), from, 1_000).await.unwrap();
        buyers.extend(page.committed);
        cursor = page.next;
    }
    buyers
}

/// Redis shows what was sold, and has each buyer.
async fn is_rebuilt(stand: &Stand) {
    let committed = i32::try_from(BUYERS).unwrap();
    stand.sale.stock_becomes(ITEM, Level { left: LEFT, committed, held: 0, left_gifts: 2 }).await;
    let sold = (0..BUYERS).map(|number| (buyer(number), 1)).collect();
    eventually("each buyer is known", || async { (known_buyers(stand).await == sold).then_some(()) }).await;
}

/// Where a rebuild is stopped, with how many buyers Redis has then; it can't be told in the middle of a page.
type Stop = (Writes, FreezeAt, Option<u128>);

/// Before and after the write with the first buyer of each page, after the one with its last, and around the end.
fn stops() -> Vec<Stop> {
    let of = |number: u128| Writes::With(buyer(number).to_string().into_bytes());
    let pages = (0..BUYERS).step_by(PAGE as usize).flat_map(|first| {
        let last = (first + PAGE).min(BUYERS) - 1;
        [
            (of(first), FreezeAt::Before(1), Some(first)),
            (of(first), FreezeAt::After(1), None),
            (of(last), FreezeAt::After(1), Some(last + 1)),
        ]
    });
    // Only what stages an event names a currency.
    let staging = Writes::With(b"EUR".to_vec());
    pages.chain([(staging.clone(), FreezeAt::Before(1), Some(BUYERS)), (staging, FreezeAt::After(1), None)]).collect()
}

/// Loses the event, and waits until its rebuild stops there.
async fn rebuild_stops_at(stand: &Stand, (writes, at, known): &Stop) {
    let step = format!("{at:?} {writes:?}");
    loop {
        stand.redis.freeze(writes.clone(), *at);
        stand.event_keys().lose().await;
        eventually(&format!("the rebuild stops {step}"), || async { stand.redis.is_frozen().then_some(()) }).await;
        let Some(known) = *known else { return };
        stand.redis.frozen().await;
        if known > 0 && known_buyers(stand).await.is_empty() {
            // It was a last write of the rebuild before: two workers may have staged the event.
            stand.redis.thaw();
            is_rebuilt(stand).await;
            continue;
        }
        return eventually(&format!("redis has {known} buyers {step}"), || async {
            (known_buyers(stand).await.len() as u128 == known).then_some(())
        })
        .await;
    }
}

/// Stops a rebuild of its own in each of these places, and begins it anew.
async fn dies_at(stops: &[Stop]) {
    let mut stand = Stand::new().await;
    stand.sale.begin_another().await;
    sell_to_many(&stand).await;
    is_rebuilt(&stand).await;
    for stop in stops {
        rebuild_stops_at(&stand, stop).await;
        stand.dies().await;
        // Whatever is there of the item, it grants nothing that the ledger would refuse.
        let known_buyer = Order { buyer: buyer(PAGE + 1), ..stand.sale.order([2, 0]) };
        let Outcome::Refusal(refusal) = stand.sale.reserve(&known_buyer).await else {
            panic!("over the limit {stop:?}")
        };
        assert!([RefusalReason::NotReady, RefusalReason::LimitReached].contains(&refusal.reason()), "{refusal:?}");
        is_rebuilt(&stand).await;
    }
    let next = stand.sale.reserved(&stand.sale.order([1, 0])).await;
    assert!(next.arrival > i64::try_from(BUYERS).unwrap(), "a place of arrival is never given twice");
    stand.sale.mesh.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_that_dies_in_any_page_is_begun_anew_and_grants_nothing_before() {
    let all = stops();
    // What has died keeps its claim on the copy for some seconds. So two stands wait for that side by side.
    let (some, others) = all.split_at(all.len() / 2);
    tokio::join!(dies_at(some), dies_at(others));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_that_dies_at_any_write_leaves_no_hold_and_drops_it_once() {
    let mut stand = Stand::new().await;
    let mut was_held = Vec::new();
    for step in 0.. {
        assert!(step < 20, "a drop takes more writes than that");
        stand.sale.begin_another().await;
        let order = stand.sale.order([0, 1]);
        let writes = Writes::With(order.order_id.to_string().into_bytes());
        stand.redis.freeze(writes, each_side_of_a_write(step));
        stand.is_granted_and_forgotten(&order).await;
        eventually("the sweep stops, or is over", || async {
            (stand.redis.is_frozen() || !stand.is_held(&order).await).then_some(())
        })
        .await;
        if !stand.redis.is_frozen() {
            break;
        }
        stand.redis.frozen().await;
        was_held.push(stand.is_held(&order).await);
        assert_eq!(stand.sale.in_ledger(&order).await, 0, "the ledger has said so");
        stand.dies().await;
        stand.sale.stock_becomes(1, level(3, 0, 0)).await;
        stand.sale.reserved(&order).await;
        stand.sale.stock_becomes(1, level(2, 1, 0)).await;
    }
    assert_eq!(was_held.first(), Some(&true), "it died before redis was told");
    assert_eq!(was_held.last(), Some(&false), "it died when redis had been told");
    stand.sale.mesh.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_that_is_late_takes_nothing_from_an_order_that_came_since() {
    let mut stand = Stand::new().await;
    // Another replica, which drops nothing by itself here.
    let other = quick().set(Service::Inventory, "STAMPEDE_INVENTORY_STALE_HOLD_AGE_MS", 600_000);
    let other = other.set(Service::Inventory, "STAMPEDE_REDIS_URL", stand.server.url());
    let other = other.start(&stand.sale.world, [Service::Inventory]).await.unwrap();
    for at in [FreezeAt::Before(1), FreezeAt::Before(2)] {
        stand.sale.begin_another().await;
        let order = stand.sale.order([0, 1]);
        stand.redis.freeze(Writes::With(order.order_id.to_string().into_bytes()), at);
        stand.is_granted_and_forgotten(&order).await;
        stand.redis.frozen().await;
        // The ledger has said that it does not know the order. Now it comes, and is committed and answered.
        let request = proto::ReserveRequest { reservations: vec![order.reservation()] };
        let results = reserve_once_there_is_room(&other.inventory(), request).await.results;
        assert!(matches!(results[0].outcome, Some(Outcome::Reserved(_))), "{results:?}");
        stand.redis.thaw();
        stand.sale.stock_becomes(1, level(2, 1, 0)).await;
        assert_eq!(stand.sale.in_ledger(&order).await, 1);
        assert_eq!(stand.sale.refusal(&order.again()).await, (RefusalReason::LimitReached, 0));
    }
    other.stop().await.unwrap();
    stand.sale.mesh.stop().await.unwrap();
}
