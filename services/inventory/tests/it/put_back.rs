//! Somebody puts an earlier copy of an event in place of its keys, by hand, while Redis and the services run.

use crate::{
    event_keys::EventKeys,
    sale::{Level, Order, Sale, level, quick},
};
use stampede_lua::Keys;
use stampede_proto::inventory::v1::{RefusalReason, reservation_result::Outcome};
use stampede_testkit::{AdminRedis, OwnRedis, Service, eventually};
use std::collections::BTreeSet;

/// Between two rounds of the reconciler: longer than an order takes, so that one most often comes before it.
const ROUND_MS: u64 = 1_000;

/// Returns the place of arrival. Until then the event may be NOT_READY, and nothing else.
async fn place(sale: &Sale, order: &Order) -> i64 {
    eventually("the event takes orders again by itself", || async {
        match sale.reserve(order).await {
            Outcome::Reserved(reserved) => Some(reserved.arrival),
            Outcome::Refusal(refusal) => {
                assert_eq!(refusal.reason(), RefusalReason::NotReady);
                None
            }
        }
    })
    .await
}

#[tokio::test]
async fn no_place_of_arrival_is_given_twice_and_the_event_is_rebuilt() {
    let redis = OwnRedis::start(&[]).await.unwrap();
    let mesh = quick().set(Service::Inventory, "STAMPEDE_REDIS_URL", redis.url()).set(
        Service::Inventory,
        "STAMPEDE_INVENTORY_RECONCILE_INTERVAL_MS",
        ROUND_MS,
    );
    let mut sale = Sale::with(mesh, &[]).await;
    sale.begin_another().await;
    let (conn, names) =
        (AdminRedis::connect(&redis.admin_url()).await.unwrap(), Keys::new(sale.world.redis_key_prefix()));
    let mut keys = EventKeys::new(conn, &names, sale.event_id, 2);
    let mut places = vec![sale.reserved(&sale.order([1, 0])).await.arrival];
    sale.committed_becomes(0, 1).await;
    keys.copy().await;
    places.push(sale.reserved(&sale.order([0, 1])).await.arrival);
    sale.committed_becomes(1, 1).await;

    keys.roll_back(false).await;
    // The copy has the place of the second order to give, to whoever asks for whatever item.
    for order in [sale.order([1, 0]), sale.order([0, 1])] {
        places.push(place(&sale, &order).await);
    }
    assert_eq!(places.iter().collect::<BTreeSet<_>>().len(), places.len(), "{places:?}");
    assert!(places.is_sorted(), "the order of arrival is kept: {places:?}");
    sale.stock_becomes(0, Level { left: 3, committed: 2, held: 0, left_gifts: 0 }).await;
    sale.stock_becomes(1, level(1, 2, 0)).await;
}
