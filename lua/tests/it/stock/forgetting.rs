//! When Redis forgets an event.

use super::shelf::{FAR, LONG_AGO, Shelf, item, refused};
use crate::coupon::forgotten_at;
use stampede_lua::stock::{Cause, Staging};
use std::time::Duration;

const MILLISECONDS: i64 = FAR.micros() / 1_000;

#[tokio::test]
async fn all_keys_of_an_event_go_at_the_time_with_which_it_is_staged() {
    let shelf = Shelf::open(vec![item(1, 5)]).await;
    let keys = shelf.keys(1);
    assert_eq!(forgotten_at(&keys).await, [MILLISECONDS, -2, MILLISECONDS], "there are no holds");
    shelf.hold(1, 1, &[(1, 1)]).await;
    assert_eq!(forgotten_at(&keys).await, [MILLISECONDS; 3]);

    let until = FAR.plus(Duration::from_secs(1));
    let moved = Staging { expires_at: until, ..shelf.staging(2, (LONG_AGO, FAR), vec![item(1, 5)], 0).await };
    assert!(shelf.stock.stage(&moved).await.unwrap());
    assert_eq!(forgotten_at(&keys).await, [MILLISECONDS + 1_000; 3]);
    assert_eq!(shelf.stock.snapshot(shelf.event, &[]).await.unwrap().event.unwrap().expires_at, Some(until));

    shelf.sync(1, 1, (1, 1), &[1]).await;
    assert_eq!(forgotten_at(&keys).await[1], -2, "the hold was the only one");
    shelf.hold(2, 2, &[(1, 1)]).await;
    assert_eq!(forgotten_at(&keys).await, [MILLISECONDS + 1_000; 3]);
}

#[tokio::test]
async fn an_event_whose_time_is_past_is_gone_at_once_with_its_holds_and_is_not_ready() {
    let shelf = Shelf::open(vec![item(1, 5)]).await;
    shelf.hold(1, 1, &[(1, 1)]).await;
    let past = Staging { expires_at: LONG_AGO, ..shelf.staging(2, (LONG_AGO, FAR), vec![item(1, 5)], 0).await };
    assert!(shelf.stock.stage(&past).await.unwrap());
    assert_eq!(forgotten_at(&shelf.keys(1)).await, [-2; 3]);
    assert_eq!(shelf.refusal(1, 1, &[(1, 1)]).await, refused(Cause::NotReady, None, 0));
}
