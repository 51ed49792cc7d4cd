//! One call to a service for all who read the same at a time, and its answer for those who come shortly after.
//!
//! What is public is the same for everybody, so a crowd that reads one event is one reader for its service. The call
//! belongs to none of them: whoever hangs up or waits less takes no answer from the others. All who wait hold their
//! permits until it ends, so what strangers leave behind is bounded as their requests are. Its failure is that of all
//! who waited for it, and is not kept. One that goes on for long is joined by nobody more.

use crate::{bounds::MAX_SHARED_READ_BYTES, problem::apart};
use bytes::Bytes;
use moka::future::Cache;
use opentelemetry::{KeyValue, global, metrics::Counter};
use stampede_status::Problem;
use std::{future::Future, sync::Arc, time::Duration};
use tokio::time::Instant;
use tracing::{Instrument, Span};

/// Bytes of an entry beside its request and its answer, roughly.
const ENTRY_BYTES: usize = 512;
/// Readers join only a call that began in the same period, which is so long. A service answers within milliseconds; a
/// call that takes longer may hang for its whole time, as on a replica of which only the health answers. It must not
/// hold those who come later, with their permits: they make another call, which most often goes to another replica.
const PERIOD: Duration = Duration::from_secs(1);
/// Outcome of a read that was answered by the call of another.
const HIT: &str = "hit";
/// Outcome of a read that made a call.
const MISS: &str = "miss";

/// The method, the request, and the number of the period in which its call began.
type Key = (Arc<str>, Bytes, u128);

/// Answers as JSON, each kept for a moment.
#[derive(Clone)]
pub struct SharedReads {
    answers: Cache<Key, Bytes>,
    counter: Counter<u64>,
    /// Begins the first period.
    since: Instant,
}

impl SharedReads {
    /// Keeps each answer for so long. Uses the present global meter.
    pub fn new(kept_for: Duration) -> Self {
        let answers = Cache::builder().max_capacity(MAX_SHARED_READ_BYTES).weigher(weight).time_to_live(kept_for);
        let reads = Self { answers: answers.build(), counter: counter(), since: Instant::now() };
        // A series that begins with its first count hides that count from queries of increases.
        reads.count(HIT, 0);
        reads.count(MISS, 0);
        reads
    }

    /// Returns the answer to a request of this method: the one that is kept, that of the call under way, or that of
    /// `call`. A call goes on without the one who waits here; the permit is held until it ends, and is returned.
    pub async fn answer<C, P>(
        &self,
        method: &Arc<str>,
        request: Bytes,
        call: C,
        permit: P,
    ) -> Result<(Bytes, P), Problem>
    where
        C: Future<Output = Result<Bytes, Problem>> + Send + 'static,
        P: Send + 'static,
    {
        let key = (Arc::clone(method), request, self.since.elapsed().as_millis() / PERIOD.as_millis());
        if let Some(answer) = self.kept(&key).await {
            self.count(HIT, 1);
            return Ok((answer, permit));
        }
        let reads = self.clone();
        let wait = async move { reads.join(key, call).await.map(|answer| (answer, permit)) };
        tokio::spawn(wait.instrument(Span::current())).await.map_err(Problem::internal_error)?
    }

    /// Returns the answer that is kept, of a call that began in this period or in the one before.
    async fn kept(&self, key: &Key) -> Option<Bytes> {
        if let Some(answer) = self.answers.get(key).await {
            return Some(answer);
        }
        let (method, request, period) = key;
        self.answers.get(&(Arc::clone(method), request.clone(), period.checked_sub(1)?)).await
    }

    /// Waits for the call under way, or makes one.
    async fn join<C>(&self, key: Key, call: C) -> Result<Bytes, Problem>
    where
        C: Future<Output = Result<Bytes, Problem>> + Send,
    {
        let mut is_first = false;
        let first = async {
            is_first = true;
            call.await
        };
        let outcome = self.answers.try_get_with(key, first).await;
        self.count(if is_first { MISS } else { HIT }, 1);
        if is_first {
            // By itself the cache applies its bound and its time now and then.
            self.answers.run_pending_tasks().await;
        }
        outcome.map_err(|problem| apart(Arc::unwrap_or_clone(problem)))
    }

    fn count(&self, outcome: &'static str, reads: u64) {
        self.counter.add(reads, &[KeyValue::new("outcome", outcome)]);
    }
}

/// Returns the bytes that an answer takes for as long as it is kept.
fn weight((_, request, _): &Key, answer: &Bytes) -> u32 {
    u32::try_from(request.len() + answer.len() + ENTRY_BYTES).unwrap_or(u32::MAX)
}

fn counter() -> Counter<u64> {
    global::meter("stampede")
        .u64_counter("stampede.gateway.shared_reads")
        .with_description("Public reads without a token, by whether another's call answered them.")
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_status::Reason;
    use std::future::pending;
    use tokio::time::{sleep, timeout};

    /// Longer than a test.
    const LONG: Duration = Duration::from_secs(600);

    async fn read(reads: &SharedReads, request: String, answer: Bytes) -> Bytes {
        let call = async move { Ok(answer) };
        reads.answer(&"/List".into(), request.into(), call, ()).await.unwrap().0
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded_by_its_bytes() {
        const ANSWER: usize = 1 << 20;
        let reads = SharedReads::new(LONG);
        for number in 0..2 * MAX_SHARED_READ_BYTES / ANSWER as u64 {
            read(&reads, number.to_string(), Bytes::from(vec![0_u8; ANSWER])).await;
            assert!(reads.answers.weighted_size() <= MAX_SHARED_READ_BYTES, "after {number}");
        }
        assert!(reads.answers.weighted_size() > MAX_SHARED_READ_BYTES / 2);
    }

    #[tokio::test]
    async fn an_answer_is_that_of_its_method_and_request() {
        let reads = SharedReads::new(LONG);
        for request in ["a", "b"] {
            assert_eq!(read(&reads, request.to_owned(), Bytes::from(request)).await, request);
            assert_eq!(read(&reads, request.to_owned(), Bytes::from("another")).await, request);
        }
        let call = async { Ok(Bytes::from("of another")) };
        let (other, ()) = reads.answer(&"/Get".into(), "a".into(), call, ()).await.unwrap();
        assert_eq!(other, "of another");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_is_joined_only_shortly_after_its_start() {
        let reads = SharedReads::new(LONG);
        let own = || read(&reads, "a".to_owned(), Bytes::from("own"));
        let hanging = reads.clone();
        tokio::spawn(async move { hanging.answer(&"/List".into(), "a".into(), pending(), ()).await });
        sleep(PERIOD / 2).await;
        timeout(PERIOD / 4, own()).await.expect_err("it waits for the call under way");
        sleep(PERIOD / 2).await;
        assert_eq!(timeout(PERIOD, own()).await.expect("it makes a call"), "own");
        sleep(PERIOD).await;
        let other = read(&reads, "a".to_owned(), Bytes::from("another"));
        assert_eq!(other.await, "own", "it is kept, though its call began in the period before");
    }

    async fn broken() -> Result<Bytes, Problem> {
        panic!("a bug")
    }

    #[tokio::test]
    async fn a_call_that_panics_is_internal_and_the_next_is_made() {
        let reads = SharedReads::new(LONG);
        let problem = reads.answer(&"/List".into(), "a".into(), broken(), ()).await.unwrap_err();
        assert_eq!(problem.reason(), Reason::Internal);
        assert_eq!(read(&reads, "a".to_owned(), Bytes::from("well")).await, "well");
    }
}
