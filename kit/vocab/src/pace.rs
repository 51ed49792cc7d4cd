//! How long a worker gathers before its next round. What comes after a time of quiet is worked on at once.

use std::time::Duration;

/// The pause after a round of work, which grows with what the round had: unnoticed while there is little to do, and
/// long enough for large batches in a rush, when most of the cost of a round is the same for one message as for many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Pause after any round that had something: what comes within it is too much for rounds of one.
    pub shortest: Duration,
    /// More for each piece of the round.
    pub per_piece: Duration,
    /// Longest pause.
    pub longest: Duration,
}

impl Pace {
    /// The pause after a round of so many pieces.
    pub fn after(&self, pieces: usize) -> Duration {
        if pieces == 0 {
            return Duration::ZERO;
        }
        let pieces = u32::try_from(pieces).unwrap_or(u32::MAX);
        self.shortest.saturating_add(self.per_piece.saturating_mul(pieces)).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_with_the_round_up_to_a_bound() {
        let [shortest, per_piece, longest] = [10, 1, 80].map(Duration::from_millis);
        let pace = Pace { shortest, per_piece, longest };
        let pauses = [0, 1, 69, 70, 500, usize::MAX].map(|pieces| pace.after(pieces).as_millis());
        assert_eq!(pauses, [0, 11, 79, 80, 80, 80]);
    }
}
