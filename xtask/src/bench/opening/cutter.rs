//! Cuts the connections of subscribers to expired keys, for half of the time: in one period they are closed as soon as
//! they are made, in the next they are left alone.

use crate::bench::opening::redis::Connection;
use stampede_vocab::Timestamp;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

const PERIOD: Duration = Duration::from_secs(4);
/// Time between two cuts.
const TICK: Duration = Duration::from_millis(20);

/// A thread that cuts. It stops when this is dropped.
pub struct Cutter {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Cutter {
    /// Cuts subscribers of the Redis at HOST:PORT from here on.
    pub fn start(address: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (address, stopped) = (address.to_owned(), stop.clone());
        let thread = thread::spawn(move || cut_until(&address, &stopped));
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It does not panic, and nothing could be done if it did.
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

fn cut_until(address: &str, stop: &AtomicBool) {
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        if is_cut(Timestamp::now()) {
            if connection.is_none() {
                connection = Connection::open(address, 0).ok();
            }
            let cut = connection.as_mut().map(|redis| redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]));
            if !matches!(cut, Some(Ok(_))) {
                connection = None;
            }
        }
        thread::sleep(TICK);
    }
}

fn is_cut(at: Timestamp) -> bool {
    (at.since(Timestamp::from_micros(0)).as_secs() / PERIOD.as_secs()).is_multiple_of(2)
}

/// Returns the first instant from `earliest` on in the middle of a period with cuts, or of one without.
pub fn instant(earliest: Timestamp, cut: bool) -> Timestamp {
    let since_epoch = earliest.since(Timestamp::from_micros(0)).as_secs();
    let period = since_epoch / PERIOD.as_secs() + 1;
    let period = if period.is_multiple_of(2) == cut { period } else { period + 1 };
    Timestamp::from_micros(0).plus(Duration::from_secs(period * PERIOD.as_secs())).plus(PERIOD / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_in_a_period_of_its_kind_and_not_long_ahead() {
        for second in 0..20 {
            let earliest = Timestamp::from_micros(second * 1_000_000);
            for cut in [true, false] {
                let at = instant(earliest, cut);
                assert_eq!(is_cut(at), cut);
                assert!(at > earliest && at.since(earliest) <= PERIOD * 3, "{second}");
            }
        }
    }
}
