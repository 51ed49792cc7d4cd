//! A call at a share of its maximum. The maximum is what callers get who wait for their answers: the closed plan is
//! played with more and more of them, until that adds little. Then the open plan is played at a share of it, which is
//! the latency that buyers meet on a mesh that is not overloaded.

use crate::bench::{
    ghz::{Played, Runner},
    plan::{Load, Plan},
};

/// Callers of the closed plans as they are.
const FIRST_CALLERS: u32 = 64;
const MOST_CALLERS: u32 = 512;
/// Less gain by twice as many callers ends the search.
const WORTH: f64 = 1.05;
/// Part of the rate that has to be reached: below it ghz or the mesh was behind, and the latency is of another load.
const REACHED: f64 = 0.95;

/// Plays the closed plan with more and more callers, and then the open one at so many percent of the best of them.
pub fn play(runner: &mut Runner<'_>, closed: &Plan, open: &Plan, percent: u32) -> anyhow::Result<Vec<Played>> {
    let mut played = Vec::new();
    let mut search = Search::default();
    while let Some(callers) = search.next_callers() {
        let one = runner.play(closed, Load::Callers(callers))?;
        search.note(one.per_s);
        played.push(one);
        runner.settle()?;
    }
    let rate = share_of(search.best_per_s, percent);
    let mut one = runner.play(open, Load::Rate(rate))?;
    if one.per_s < f64::from(rate) * REACHED {
        one.unexpected.push(format!("{:.0} calls a second, where {rate} were due", one.per_s));
    }
    played.push(one);
    runner.settle()?;
    Ok(played)
}

/// How many callers are tried, and what the best of them got.
#[derive(Debug, Default)]
struct Search {
    tries: u32,
    best_per_s: f64,
    is_over: bool,
}

impl Search {
    fn next_callers(&self) -> Option<u32> {
        let callers = FIRST_CALLERS << self.tries;
        (!self.is_over && callers <= MOST_CALLERS).then_some(callers)
    }

    fn note(&mut self, per_s: f64) {
        self.is_over = per_s < self.best_per_s * WORTH;
        self.best_per_s = self.best_per_s.max(per_s);
        self.tries += 1;
    }
}

/// So many percent of a rate, at least one call a second.
fn share_of(per_s: f64, percent: u32) -> u32 {
    let share = (per_s * f64::from(percent) / 100.0) as u32;
    share.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The callers that are tried, of whom so many get so much.
    fn tried(rates: &[f64]) -> (Vec<u32>, f64) {
        let (mut search, mut tried) = (Search::default(), Vec::new());
        for per_s in rates {
            let Some(callers) = search.next_callers() else { break };
            tried.push(callers);
            search.note(*per_s);
        }
        (tried, search.best_per_s)
    }

    #[test]
    fn callers_are_doubled_until_that_adds_little() {
        assert_eq!(tried(&[900.0, 1_200.0, 1_220.0, 5_000.0]), (vec![64, 128, 256], 1_220.0));
        assert_eq!(tried(&[900.0, 700.0, 5_000.0]), (vec![64, 128], 900.0));
    }

    #[test]
    fn the_search_ends_at_the_most_callers() {
        assert_eq!(tried(&[1.0, 2.0, 3.0, 4.0, 5.0]), (vec![64, 128, 256, 512], 4.0));
    }

    #[test]
    fn a_share_is_of_the_maximum_and_never_nothing() {
        assert_eq!((share_of(1_220.5, 60), share_of(0.0, 60)), (732, 1));
    }
}
