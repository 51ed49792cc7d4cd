//! How often a failure that lasts is logged: at once, and then once a minute.

use std::time::Duration;
use tokio::time::Instant;

/// Time between two lines about the same failure.
const EVERY: Duration = Duration::from_secs(60);

/// Whether a failure is to be logged now.
#[derive(Debug, PartialEq, Eq)]
pub enum Telling {
    /// It has begun.
    Begun,
    /// It has lasted for this long, and nothing was logged for a minute.
    Lasts(Duration),
    /// It was logged just now.
    Silent,
}

/// A failure that may last.
#[derive(Debug, Default)]
pub struct Loud {
    /// When it began, and when it was last logged.
    told: Option<(Instant, Instant)>,
}

impl Loud {
    /// It is there, or still there.
    pub fn fails(&mut self) -> Telling {
        let now = Instant::now();
        match &mut self.told {
            None => {
                self.told = Some((now, now));
                Telling::Begun
            }
            Some((begun, last)) if now.duration_since(*last) >= EVERY => {
                *last = now;
                Telling::Lasts(now.duration_since(*begun))
            }
            Some(_) => Telling::Silent,
        }
    }

    /// It is over.
    pub fn passes(&mut self) {
        self.told = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn what_lasts_is_logged_once_a_minute() {
        let mut loud = Loud::default();
        assert_eq!(loud.fails(), Telling::Begun);
        let mut told = Vec::new();
        for second in 1..=130 {
            advance(Duration::from_secs(1)).await;
            if loud.fails() != Telling::Silent {
                told.push(second);
            }
        }
        assert_eq!(told, [60, 120]);
        loud.passes();
        assert_eq!(loud.fails(), Telling::Begun);
    }
}
