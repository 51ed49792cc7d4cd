//! An event of which Redis was rolled back to an earlier copy while the server ran.

use super::shelf::{FAR, LONG_AGO, Shelf, item, item_id, refused};
use stampede_lua::stock::{Cause, Staging};

#[tokio::test]
async fn an_event_that_is_distrusted_is_not_ready_and_has_no_holds_until_it_is_staged_again() {
    let shelf = Shelf::open(vec![item(1, 5)]).await;
    let hold = shelf.hold(1, 1, &[(1, 2)]).await;
    assert!(shelf.stock.distrust(shelf.event, 7).await.unwrap());
    assert!(!shelf.stock.distrust(shelf.event, 7).await.unwrap(), "once is enough");
    assert_eq!(shelf.refusal(1, 1, &[(1, 2)]).await, refused(Cause::NotReady, None, 0));

    assert_eq!(shelf.stock.count_held(shelf.event, &[item_id(1)]).await.unwrap(), [1]);
    assert_eq!(shelf.stock.recount(shelf.event, item_id(1), 0, 1_000).await.unwrap(), (None, 1));
    assert_eq!(shelf.item(1).await.held_units, 0);
    assert!(shelf.stage_after(1, (LONG_AGO, FAR), vec![item(1, 5)], 100).await);
    let again = shelf.hold(1, 1, &[(1, 2)]).await;
    assert_eq!((hold.arrival, again.arrival), (1, 101), "the place of before is not given again");
}

#[tokio::test]
async fn an_event_that_has_given_all_places_of_the_ledger_is_trusted() {
    let shelf = Shelf::open(vec![item(1, 5)]).await;
    shelf.hold(1, 1, &[(1, 1)]).await;
    for last_place in [0, 1] {
        assert!(!shelf.stock.distrust(shelf.event, last_place).await.unwrap());
    }
    assert_eq!(shelf.hold(1, 1, &[(1, 1)]).await.arrival, 1, "its hold is there");
    assert_eq!(shelf.hold(2, 2, &[(1, 1)]).await.arrival, 2);
}

#[tokio::test]
async fn an_event_that_does_not_know_its_places_is_distrusted_before_the_first_order() {
    let shelf = Shelf::open(vec![item(1, 5)]).await;
    shelf.lose_arrivals().await;
    assert!(shelf.stock.distrust(shelf.event, 0).await.unwrap());
    assert!(shelf.stage(1, LONG_AGO, FAR, vec![item(1, 5)]).await);
    assert_eq!(shelf.hold(1, 1, &[(1, 1)]).await.arrival, 1);
}

#[tokio::test]
async fn an_older_version_is_staged_once_the_event_is_distrusted_as_after_its_ledger_was_restored() {
    let shelf = Shelf::missing().await;
    assert!(shelf.stage(2, LONG_AGO, FAR, vec![item(1, 5)]).await);
    assert!(!shelf.stage(1, LONG_AGO, FAR, vec![item(1, 5)]).await, "the newer one is ready");
    assert!(shelf.stock.distrust(shelf.event, 7).await.unwrap());
    assert!(shelf.stage(1, LONG_AGO, FAR, vec![item(1, 5)]).await);
    assert_eq!(shelf.hold(1, 1, &[(1, 1)]).await.arrival, 1);
}

#[tokio::test]
async fn what_was_compared_before_it_was_distrusted_is_not_staged() {
    let shelf = Shelf::open(vec![item(1, 5)]).await;
    shelf.hold(1, 1, &[(1, 1)]).await;
    let moved = Staging { was_compared: true, ..shelf.staging(2, (LONG_AGO, FAR), vec![item(1, 5)], 0).await };
    assert!(shelf.stock.distrust(shelf.event, 7).await.unwrap());
    assert!(!shelf.stock.stage(&moved).await.unwrap());
    assert_eq!(shelf.refusal(2, 2, &[(1, 1)]).await, refused(Cause::NotReady, None, 0));

    assert!(shelf.stage_after(1, (LONG_AGO, FAR), vec![item(1, 5)], 100).await);
    assert!(shelf.stock.stage(&moved).await.unwrap(), "once it is ready again");
    assert_eq!(shelf.hold(2, 2, &[(1, 1)]).await.arrival, 101);
}
