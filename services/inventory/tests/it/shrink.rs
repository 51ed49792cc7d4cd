//! Looks for the smallest part of a history that fails, as proptest does, but awaits each play. A play on real servers
//! need not fail each time: what has failed once counts, and what has not is played again before it counts as well.

use crate::drawn::{Drawn, Kind, Units, of_seed};
use proptest::strategy::ValueTree;
use std::{
    fmt::{self, Debug, Display, Formatter},
    future::pending,
    time::Duration,
};
use tokio::time::{Instant, timeout_at};

/// Most plays of parts of one history.
const REPLAYS: usize = 64;
/// Longest time for all of them. One that is stuck takes half a minute.
const WITHIN: Duration = Duration::from_secs(120);
/// How often a part is played until it counts as well.
const TRIES: usize = 2;

/// The smallest value that has failed.
#[derive(Debug)]
pub struct Smallest<T> {
    pub value: T,
    pub fault: String,
    /// How many plays of smaller values came to an end.
    pub replays: usize,
    /// How many of these failed. If none, the value is the first one.
    pub failed: usize,
}

impl<T: Debug> Display for Smallest<T> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self { value, fault, replays, failed } = self;
        if *failed == 0 {
            return write!(formatter, "parts of it were played {replays} times, and never failed");
        }
        write!(formatter, "parts of it were played {replays} times, and {failed} failed, the smallest so: ")?;
        write!(formatter, "{fault}\n  {value:?}")
    }
}

impl<T: Clone + PartialEq> Smallest<T> {
    /// Whether it fails. None once it was looked for long enough.
    async fn fails(
        &mut self,
        value: T,
        play: &mut impl AsyncFnMut(T) -> Result<(), String>,
        until: Instant,
    ) -> Option<bool> {
        // What was needed has been put back. Played once more it need not fail.
        if value == self.value {
            return Some(true);
        }
        for _ in 0..TRIES {
            if self.replays == REPLAYS {
                return None;
            }
            let played = timeout_at(until, play(value.clone())).await.ok()?;
            self.replays += 1;
            if let Err(fault) = played {
                self.failed += 1;
                (self.value, self.fault) = (value, fault);
                return Some(true);
            }
        }
        Some(false)
    }
}

/// Plays ever smaller values of a tree whose value has failed with this fault.
pub async fn shrink<T>(
    mut tree: T,
    fault: String,
    mut play: impl AsyncFnMut(T::Value) -> Result<(), String>,
) -> Smallest<T::Value>
where
    T: ValueTree,
    T::Value: Clone + PartialEq,
{
    let until = Instant::now() + WITHIN;
    let mut smallest = Smallest { value: tree.current(), fault, replays: 0, failed: 0 };
    let mut is_another = tree.simplify();
    while is_another {
        let Some(fails) = smallest.fails(tree.current(), &mut play, until).await else { break };
        is_another = if fails { tree.simplify() } else { tree.complicate() };
    }
    smallest
}

/// Fails if Redis is lost and repaired, whichever comes first.
fn fails_with_both(drawn: &Drawn) -> Result<(), String> {
    let has = |kind| drawn.steps.iter().any(|step| step.kind == kind);
    if has(Kind::LoseRedis) && has(Kind::Repair) { Err("lost and repaired".into()) } else { Ok(()) }
}

/// The first history that fails so.
fn failing() -> impl ValueTree<Value = Drawn> {
    let mut trees = (1..).map(of_seed);
    trees.find(|tree| fails_with_both(&tree.current()).is_err()).expect("one of them has both")
}

/// Fails unless only what is needed is left, as it was drawn.
fn assert_shrunk(first: &Drawn, smallest: &Smallest<Drawn>) {
    let Drawn { items, steps } = &smallest.value;
    let kinds: Vec<Kind> = steps.iter().map(|step| step.kind).collect();
    let are_needed = matches!(kinds[..], [Kind::LoseRedis, Kind::Repair] | [Kind::Repair, Kind::LoseRedis]);
    assert!(are_needed && steps.iter().all(|step| first.steps.contains(step)), "{smallest:?}, of {first:?}");
    let least = Units { total: 1, limit_per_buyer: 1, gift_total: 0 };
    assert!(items.len() == first.items.len() && items.iter().all(|units| *units == least), "{smallest:?}");
    assert_eq!(smallest.fault, "lost and repaired");
}

#[tokio::test]
async fn a_history_that_fails_shrinks_to_the_steps_that_it_needs() {
    let tree = failing();
    let first = tree.current();
    let smallest = shrink(tree, "the first".into(), async |drawn: Drawn| fails_with_both(&drawn)).await;
    assert_shrunk(&first, &smallest);
}

#[tokio::test]
async fn so_does_one_that_fails_every_other_time() {
    let tree = failing();
    let first = tree.current();
    let mut plays = 0_usize;
    let smallest = shrink(tree, "the first".into(), async |drawn: Drawn| -> Result<(), String> {
        plays += 1;
        if plays.is_multiple_of(2) { fails_with_both(&drawn) } else { Ok(()) }
    });
    let smallest = smallest.await;
    assert_shrunk(&first, &smallest);
    assert_eq!(smallest.replays, plays);
    assert!(smallest.failed < smallest.replays, "{smallest:?}");
}

#[tokio::test]
async fn one_that_never_fails_again_stays_as_it_was() {
    let tree = failing();
    let first = tree.current();
    let smallest = shrink(tree, "the first".into(), async |_: Drawn| -> Result<(), String> { Ok(()) }).await;
    assert_eq!((&smallest.value, smallest.fault.as_str(), smallest.failed), (&first, "the first", 0));
    assert!(smallest.replays >= TRIES * first.steps.len(), "{smallest:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_found_in_time_counts_if_a_play_does_not_end() {
    let tree = failing();
    let first = tree.current();
    let mut plays = 0;
    let smallest = shrink(tree, "the first".into(), async |_: Drawn| -> Result<(), String> {
        plays += 1;
        if plays > 2 { pending().await } else { Err("again".into()) }
    });
    let smallest = smallest.await;
    let (fault, steps) = (smallest.fault.as_str(), smallest.value.steps.len());
    assert_eq!((fault, steps, smallest.failed), ("again", first.steps.len() - 2, 2), "{smallest:?}");
}
