//! Work that one worker does at a time: claimed, advanced, ended, released, lost.

use super::shelf::{Shelf, item, item_id};
use stampede_lua::stock::{Claim, Progress, Work};
use std::time::Duration;

const TERM: Duration = Duration::from_secs(3_600);

impl Shelf {
    fn copy(&self, is_staged: bool) -> Work {
        Work::Copy { event_id: self.event, item_id: item_id(1), is_staged, until: None }
    }

    /// A copy of the changes up to this version, of the staged item.
    fn copy_until(&self, version: i64) -> Work {
        Work::Copy { event_id: self.event, item_id: item_id(1), is_staged: true, until: Some(version) }
    }

    async fn claim(&self, work: Work, owner: &str) -> Claim {
        self.stock.claim(work, owner, TERM, "begin").await.unwrap()
    }

    async fn advance(&self, work: Work, owner: &str, from: &str, progress: Progress<'_>) -> bool {
        self.stock.advance(work, owner, TERM, from, progress).await.unwrap()
    }
}

fn taken(cursor: &str) -> Claim {
    Claim::Taken(cursor.to_owned())
}

#[tokio::test]
async fn one_worker_has_the_work_and_the_next_goes_on_where_it_is() {
    let shelf = Shelf::missing().await;
    for work in [Work::Pass, shelf.copy(false)] {
        assert_eq!(shelf.claim(work, "a").await, taken("begin"));
        assert_eq!(shelf.claim(work, "b").await, Claim::Busy);
        assert!(shelf.advance(work, "a", "begin", Progress::To("1")).await);
        assert!(shelf.advance(work, "a", "begin", Progress::To("1")).await, "the same call again");
        assert!(!shelf.advance(work, "b", "1", Progress::To("2")).await, "it is the other's");
        assert!(!shelf.advance(work, "a", "begin", Progress::To("2")).await, "it is not there");
        assert!(!shelf.stock.give_up(work, "b").await.unwrap());
        assert!(shelf.stock.give_up(work, "a").await.unwrap());
        assert_eq!(shelf.claim(work, "b").await, taken("1"));
        assert!(!shelf.advance(work, "a", "1", Progress::To("2")).await);
        assert!(shelf.advance(work, "b", "1", Progress::Done(None)).await);
        assert_eq!(shelf.claim(work, "c").await, Claim::Done);
    }
}

#[tokio::test]
async fn work_that_was_done_or_is_under_way_begins_anew_after_a_reset() {
    let shelf = Shelf::missing().await;
    assert_eq!(shelf.claim(Work::Pass, "a").await, taken("begin"));
    assert!(shelf.advance(Work::Pass, "a", "begin", Progress::Done(None)).await);
    shelf.stock.restart(Work::Pass).await.unwrap();
    assert_eq!(shelf.claim(Work::Pass, "a").await, taken("begin"));
    assert!(shelf.advance(Work::Pass, "a", "begin", Progress::To("1")).await);
    shelf.stock.restart(Work::Pass).await.unwrap();
    assert_eq!(shelf.claim(Work::Pass, "b").await, taken("begin"));
    assert!(!shelf.advance(Work::Pass, "a", "1", Progress::To("2")).await, "it is the other's");
}

#[tokio::test]
async fn a_claim_that_is_not_moved_on_ends() {
    let shelf = Shelf::missing().await;
    let claimed = shelf.stock.claim(Work::Pass, "a", Duration::ZERO, "begin").await.unwrap();
    assert_eq!(claimed, taken("begin"));
    assert_eq!(shelf.claim(Work::Pass, "b").await, taken("begin"));
    assert!(!shelf.advance(Work::Pass, "a", "begin", Progress::To("1")).await);
}

#[tokio::test]
async fn the_end_of_a_copy_ends_the_doubt_and_a_staged_item_may_be_copied_again() {
    let shelf = Shelf::open(vec![item(1, 9)]).await;
    assert_eq!(shelf.claim(shelf.copy(false), "a").await, Claim::Changed, "it is staged");
    shelf.sync(7, 2, (1, 1), &[]).await;
    let work = shelf.copy(true);
    assert_eq!(shelf.claim(work, "a").await, taken("begin"));
    assert!(shelf.advance(work, "a", "begin", Progress::Done(Some((1, 4)))).await);
    assert_eq!((shelf.item(1).await.stale_from, shelf.item(1).await.stale_at), (Some(5), Some(6)));
    assert_eq!(shelf.claim(work, "b").await, taken("begin"));
    assert!(shelf.advance(work, "b", "begin", Progress::Done(Some((5, 7)))).await);
    assert_eq!(shelf.item(1).await.stale_at, None);
}

#[tokio::test]
async fn what_another_has_copied_since_it_was_compared_is_not_copied_again() {
    let shelf = Shelf::open(vec![item(1, 9)]).await;
    shelf.sync(7, 2, (1, 1), &[]).await;
    assert_eq!(shelf.claim(shelf.copy_until(7), "a").await, taken("begin"));
    assert!(shelf.advance(shelf.copy_until(7), "a", "begin", Progress::Done(Some((1, 7)))).await);
    assert_eq!(shelf.claim(shelf.copy_until(7), "b").await, Claim::Done);
    assert_eq!(shelf.claim(shelf.copy_until(8), "b").await, taken("begin"), "it misses a change");
    assert!(shelf.advance(shelf.copy_until(8), "b", "begin", Progress::Done(Some((8, 8)))).await);
    assert_eq!(shelf.claim(shelf.copy(true), "c").await, taken("begin"), "it is copied whatever it has");
}

#[tokio::test]
async fn what_was_copied_before_it_was_staged_is_copied_again_once_it_is() {
    let shelf = Shelf::missing().await;
    let work = shelf.copy(false);
    assert_eq!(shelf.claim(work, "a").await, taken("begin"));
    assert!(shelf.advance(work, "a", "begin", Progress::Done(Some((0, 3)))).await);
    assert!(shelf.stage(1, super::shelf::LONG_AGO, super::shelf::FAR, vec![item(1, 9)]).await);
    assert_eq!(shelf.claim(shelf.copy(true), "a").await, taken("begin"));
}

#[tokio::test]
async fn what_is_on_hold_is_counted_by_the_holds() {
    let shelf = Shelf::open(vec![item(1, 9), item(2, 9)]).await;
    shelf.hold(1, 1, &[(1, 2), (2, 1)]).await;
    shelf.hold(2, 2, &[(1, 1)]).await;
    let items = [item_id(1), item_id(2), item_id(3)];
    let count = || shelf.stock.count_held(shelf.event, &items);
    assert_eq!(count().await.unwrap(), [0, 0, 0], "and one that is not staged has none");
    assert!(!shelf.item(1).await.has_uncounted_buyers);
    assert_eq!(shelf.stock.recount(shelf.event, item_id(1), 0, 1_000).await.unwrap(), (None, 0));
    assert_eq!(shelf.item(1).await.held_units, 3);

    shelf.set_behind(1, &[("held", 1), ("u:nobody", 4)]).await;
    assert_eq!(count().await.unwrap(), [1, 0, 0]);
    assert_eq!((shelf.item(1).await.held_units, shelf.item(1).await.has_uncounted_buyers), (3, true));
    assert_eq!(count().await.unwrap(), [0, 0, 0], "who has no hold is not looked at");
    assert_eq!(shelf.stock.recount(shelf.event, item_id(1), 0, 1_000).await.unwrap(), (None, 1));
    assert!(!shelf.item(1).await.has_uncounted_buyers);
}
