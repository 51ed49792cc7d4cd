//! Logs clients that exceed a limit of their address: the only log lines with the address of a client.
//!
//! Limits nothing itself; its callers do.

use crate::peer::Block;
use std::{
    mem,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Shortest time between two lines, so that an attack does not fill the log.
const PAUSE: Duration = Duration::from_secs(1);

/// Logs clients that exceed a limit of their address, so that they can be blocked in front of the process.
#[derive(Debug, Default)]
pub struct Offenders(Mutex<Throttle>);

#[derive(Debug, Default)]
struct Throttle {
    last: Option<Instant>,
    /// Refusals without a line since then.
    suppressed: u64,
}

impl Offenders {
    /// Logs that this client exceeded `bound`, with the number of refusals since the last line. Writes at most one line
    /// a second, about one of the clients. The line belongs to no span, so that no trace has the address beside what a
    /// buyer did.
    pub fn refused(&self, client: Block, bound: &str) {
        if let Some(suppressed) = self.due() {
            tracing::info!(
                parent: None,
                client.block = %client,
                bound.name = bound,
                unsaid_refusal.count = suppressed,
                "a client is over the bound of its address"
            );
        }
    }

    /// Returns the number of refusals without a line, if a line is due.
    fn due(&self) -> Option<u64> {
        // Nothing under this lock can panic.
        let mut throttle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if throttle.last.is_some_and(|last| now < last + PAUSE) {
            throttle.suppressed += 1;
            return None;
        }
        throttle.last = Some(now);
        Some(mem::take(&mut throttle.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io, sync::Arc};
    use tokio::time::advance;
    use tracing_subscriber::fmt;

    /// Captures the log.
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
        assert!(
            lines[0].contains("client.block=192.0.2.1") && lines[0].contains("unsaid_refusal.count=0"),
            "{lines:?}"
        );
        assert!(
            lines[1].contains("client.block=2001:db8::/64") && lines[1].contains("unsaid_refusal.count=2"),
            "{lines:?}"
        );
        assert!(lines.iter().all(|line| !line.contains("request")), "they are in a span: {lines:?}");
    }
}
