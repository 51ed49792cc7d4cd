//! Adaptive batching delay of workers: batches grow under load.

use std::time::Duration;

/// The pause after a round of work, which grows with the size of the round. Most of the cost of a round is fixed: under
/// load a longer pause makes larger batches, and after an idle time there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Linger {
    /// Pause after the smallest round. A round without work has no pause.
    pub min: Duration,
    /// Added for each message of the round.
    pub per_message: Duration,
    /// Longest pause.
    pub max: Duration,
}

impl Linger {
    /// Returns the pause after a round of `messages`.
    pub fn after(&self, messages: usize) -> Duration {
        if messages == 0 {
            return Duration::ZERO;
        }
        let messages = u32::try_from(messages).unwrap_or(u32::MAX);
        self.min.saturating_add(self.per_message.saturating_mul(messages)).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_with_the_round_up_to_a_bound() {
        let [min, per_message, max] = [10, 1, 80].map(Duration::from_millis);
        let linger = Linger { min, per_message, max };
        let pauses = [0, 1, 69, 70, 500, usize::MAX].map(|messages| linger.after(messages).as_millis());
        assert_eq!(pauses, [0, 11, 79, 80, 80, 80]);
    }
}
