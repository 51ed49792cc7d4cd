//! How long a worker gathers before its next round.

use std::time::Duration;

/// The pause after a round of work, which grows with what the round had: unnoticed while there is little to do, and
/// long enough for large batches in a rush, when most of the cost of a round is the same for one message as for many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Pause for each piece of the round.
    pub per_piece: Duration,
    /// Longest pause.
    pub longest: Duration,
}

impl Pace {
    /// The pause after a round of so many pieces.
    pub fn after(&self, pieces: usize) -> Duration {
        let pieces = u32::try_from(pieces).unwrap_or(u32::MAX);
        self.per_piece.saturating_mul(pieces).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_with_the_round_up_to_a_bound() {
        let pace = Pace { per_piece: Duration::from_millis(1), longest: Duration::from_millis(80) };
        let pauses = [0, 1, 79, 80, 500, usize::MAX].map(|pieces| pace.after(pieces).as_millis());
        assert_eq!(pauses, [0, 1, 79, 80, 80, 80]);
    }
}
