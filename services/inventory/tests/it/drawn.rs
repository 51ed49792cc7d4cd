//! What a history does, as a value that a seed draws and that can lose steps, see [`shrink`](crate::shrink). Each step
//! has a seed of its own for all that it chooses: the others choose the same without it.

use proptest::{
    arbitrary::any,
    collection::vec,
    strategy::{Just, Strategy, Union, ValueTree},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use std::iter;

const STEPS: usize = 14;
const ITEMS: usize = 2;

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Place,
    Repeat,
    Duplicates,
    AskOtherwise,
    DieBeforeTheCommit,
    GoAway,
    TakeBack,
    End,
    PayLate,
    LoseRedis,
    RollBack,
    Repair,
}

/// A step, and the seed of what it chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub kind: Kind,
    pub choices: u64,
}

/// What there is of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Units {
    pub total: i32,
    pub limit_per_buyer: i32,
    pub gift_total: i32,
}

/// The items of an event, and what happens to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawn {
    pub items: Vec<Units>,
    pub steps: Vec<Step>,
}

/// The history of a seed, with all its steps. It first loses steps, and then units.
pub fn of_seed(seed: u64) -> impl ValueTree<Value = Drawn> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let (mut runner, strategy) = (TestRunner::new_with_rng(Config::default(), rng), drawn());
    // A list that is never drawn shorter cannot lose steps.
    let mut trees = iter::repeat_with(|| strategy.new_tree(&mut runner).expect("nothing is rejected"));
    trees.find(|tree| tree.current().steps.len() == STEPS).expect("some have all steps")
}

fn drawn() -> impl Strategy<Value = Drawn> {
    // What is left is as it was drawn: another kind of step, or another choice, is not simpler.
    let step = (kind(), any::<u64>()).prop_map(|(kind, choices)| Step { kind, choices }).no_shrink();
    let units = (1..=6_i32, 1..=2_i32, 0..=2_i32);
    let units = units.prop_map(|(total, limit_per_buyer, gift_total)| Units { total, limit_per_buyer, gift_total });
    (vec(step, 0..=STEPS), vec(units, ITEMS)).prop_map(|(steps, items)| Drawn { items, steps })
}

fn kind() -> impl Strategy<Value = Kind> {
    Union::new_weighted(vec![
        (5, Just(Kind::Place)),
        (2, Just(Kind::Repeat)),
        (1, Just(Kind::Duplicates)),
        (1, Just(Kind::AskOtherwise)),
        (1, Just(Kind::DieBeforeTheCommit)),
        (1, Just(Kind::GoAway)),
        (1, Just(Kind::TakeBack)),
        (2, Just(Kind::End)),
        (1, Just(Kind::PayLate)),
        (1, Just(Kind::LoseRedis)),
        (1, Just(Kind::RollBack)),
        (1, Just(Kind::Repair)),
    ])
}

#[test]
fn a_seed_draws_the_same_history_each_time_and_another_seed_another_one() {
    let drawn = |seed| of_seed(seed).current();
    assert_eq!(drawn(7), drawn(7));
    assert_eq!((drawn(7).steps.len(), drawn(7).items.len()), (STEPS, ITEMS));
    assert_ne!(drawn(7), drawn(8));
}
