//! Whom a bound of their address has refused: the only lines of a log that have the address of a client.
//!
//! Decides nothing; whoever bounds by address does.

use crate::peer::Block;
use std::{
    mem,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Least time between two lines, so that an attack fills no log.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells the log whom a bound of their address has refused, so that they can be kept out in front of the process.
#[derive(Debug, Default)]
pub struct Offenders(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    /// When the last line was written.
    last: Option<Instant>,
    /// Refusals since then.
    unsaid: u64,
}

impl Offenders {
    /// Says that this bound has refused something to this client, and how many refusals had no line since the last one.
    /// There is at most one a second: it names one of those whom it is about. It belongs to no span, so that no trace
    /// has the address beside what a buyer did.
    pub fn refused(&self, client: Block, bound: &str) {
        if let Some(unsaid) = self.due() {
            tracing::info!(
                parent: None,
                client.block = %client,
                bound.name = bound,
                bound.unsaid = unsaid,
                "a client is over the bound of its address"
            );
        }
    }

    /// What had no line so far, if there may be one.
    fn due(&self) -> Option<u64> {
        // Nothing under this lock can panic.
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if told.last.is_some_and(|last| now < last + PAUSE) {
            told.unsaid += 1;
            return None;
        }
        told.last = Some(now);
        Some(mem::take(&mut told.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use tokio::time::advance;
    use tracing_subscriber::fmt;

    use super::*;

    /// What was logged.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        fn lines(&self) -> Vec<String> {
            String::from_utf8_lossy(&self.0.lock().unwrap()).lines().map(str::to_owned).collect()
        }
    }

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_line_a_second_names_a_client_and_how_many_had_none() {
        let (log, offenders) = (Log::default(), Offenders::default());
        let writer = log.clone();
        let subscriber = fmt().with_writer(move || writer.clone()).with_ansi(false).without_time().finish();
        let _logging = tracing::subscriber::set_default(subscriber);
        let _request = tracing::info_span!("request").entered();
        let clients = ["192.0.2.1", "192.0.2.2", "2001:db8::1"].map(|text| Block::of(text.parse().unwrap()));
        for client in clients {
            offenders.refused(client, "streams");
        }
        assert_eq!(log.lines().len(), 1, "{:?}", log.lines());
        advance(PAUSE).await;
        offenders.refused(clients[2], "streams");
        let lines = log.lines();
        assert!(lines[0].contains("client.block=192.0.2.1") && lines[0].contains("bound.unsaid=0"), "{lines:?}");
        assert!(lines[1].contains("client.block=2001:db8::/64") && lines[1].contains("bound.unsaid=2"), "{lines:?}");
        assert!(lines.iter().all(|line| !line.contains("request")), "they are in a span: {lines:?}");
    }
}
