//! Public reads of strangers, which share their calls for a moment: with a service that numbers its answers, and gives
//! none before a test lets it.

use crate::{
    front::{Answer, Front, good_token, request, with},
    grpc::WAITS_LONGER,
    meters::{Count, SHARED_READS},
    services,
};
use axum::{Router, extract, response::Response};
use futures_util::future::join_all;
use stampede_proto::event::v1::ListEventsResponse;
use stampede_status::{Problem, Reason};
use stampede_testkit::eventually;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;

const LIST: &str = "/v1/events";
/// Fails at the service.
const NONE: &str = "/v1/events/evt_1";
/// The longest time that an answer can be kept.
const KEPT_LONG: (&str, &str) = ("--shared-read-ms", "1000");

/// An event service.
#[derive(Clone, Default)]
struct Numbering {
    calls: Arc<AtomicUsize>,
    /// Cancelled once it may answer.
    open: CancellationToken,
}

impl Numbering {
    /// Lists no events, with the number of the call as the next page; there is no single event.
    async fn answer(self, request: extract::Request) -> Response {
        let number = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        self.open.cancelled().await;
        if request.uri().path().ends_with("/GetEvent") {
            return Status::from(Problem::new(Reason::EventNotFound, "there is no such event")).into_http();
        }
        services::answer(&ListEventsResponse { next_page_token: number.to_string(), ..ListEventsResponse::default() })
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Lets it answer, once it is called.
    async fn opens(&self) {
        eventually("the service is called", || async { (self.calls() > 0).then_some(()) }).await;
        self.open.cancel();
    }
}

/// Starts a gateway with this flag, before a service that is still closed.
async fn closed(flag: (&str, &str)) -> (Front, Numbering, DropGuard) {
    let service = Numbering::default();
    let answering = service.clone();
    let router = Router::new().fallback(move |request| answering.clone().answer(request));
    let (url, guard) = services::serve_router(router).await;
    (Front::start(&[("--event-urls", &*url), WAITS_LONGER, flag]).await, service, guard)
}

/// Starts the same before one that is open.
async fn open(flag: (&str, &str)) -> (Front, Numbering, DropGuard) {
    let (front, service, guard) = closed(flag).await;
    service.open.cancel();
    (front, service, guard)
}

/// Returns the number of the call that an answer is from.
fn number(answer: &Answer) -> usize {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["next_page_token"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_crowd_of_strangers_is_one_reader_for_the_service() {
    let (front, service, _guard) = closed(KEPT_LONG).await;
    let hits = Count::of(SHARED_READS, &[("outcome", "hit")]);
    let crowd = join_all((0..50).map(|_| front.get(LIST, "")));
    let knows = front.send(with(request("GET", LIST, "", ""), &[("if-none-match", "*")]));
    let (answers, known, ()) = tokio::join!(crowd, knows, service.opens());
    assert!(answers.iter().all(|answer| number(answer) == 1), "{answers:?}");
    assert_eq!(service.calls(), 1);
    assert_eq!((known.status.as_u16(), &known.headers["etag"]), (304, &answers[0].headers["etag"]));
    assert_eq!(answers[0].headers["cache-control"], "public, max-age=1");
    hits.has_grown_by(50);
}

#[tokio::test]
async fn who_asks_for_something_else_is_answered_that() {
    let (front, _service, _guard) = open(KEPT_LONG).await;
    let misses = Count::of(SHARED_READS, &[("outcome", "miss")]);
    for call in 1..=50 {
        let path = format!("{LIST}?page_size={call}");
        assert_eq!(number(&front.get(&path, "").await), call, "{path}");
    }
    misses.has_grown_by(50);
}

#[tokio::test]
async fn after_its_time_an_answer_is_asked_for_anew() {
    let (front, _service, _guard) = open(("--shared-read-ms", "50")).await;
    assert_eq!(number(&front.get(LIST, "").await), 1);
    eventually("another call is made", || async { (number(&front.get(LIST, "").await) == 2).then_some(()) }).await;
}

#[tokio::test]
async fn who_sends_a_token_reads_what_is_there_now() {
    let (front, _service, _guard) = open(KEPT_LONG).await;
    for (call, token) in [(1, ""), (2, "operator"), (3, "operator"), (4, "buyer")] {
        let token = if token.is_empty() { String::new() } else { good_token(token) };
        assert_eq!(number(&front.get(LIST, &token).await), call);
    }
}

#[tokio::test]
async fn without_a_time_each_read_is_a_call() {
    let (front, _service, _guard) = open(("--shared-read-ms", "0")).await;
    for call in 1..=3 {
        assert_eq!(number(&front.get(LIST, "").await), call);
    }
}

#[tokio::test]
async fn a_failure_is_that_of_those_who_waited_and_is_not_kept() {
    let (front, service, _guard) = closed(KEPT_LONG).await;
    let (answers, ()) = tokio::join!(join_all((0..10).map(|_| front.get(NONE, ""))), service.opens());
    assert!(answers.iter().all(|answer| answer.reason() == "EVENT_NOT_FOUND"), "{answers:?}");
    assert_eq!(service.calls(), 1);
    assert_eq!(front.get(NONE, "").await.reason(), "EVENT_NOT_FOUND");
    assert_eq!(service.calls(), 2);
}

#[tokio::test]
async fn who_leaves_or_waits_less_takes_no_answer_from_the_others() {
    let (front, service, _guard) = closed(KEPT_LONG).await;
    let hasty = async {
        // The call is begun by one who hangs up, before the others come.
        timeout(Duration::from_millis(50), front.get(LIST, "")).await.unwrap_err();
        let hasty = front.send(with(request("GET", LIST, "", ""), &[("grpc-timeout", "20m")])).await;
        service.opens().await;
        hasty
    };
    let (hasty, patient) = tokio::join!(hasty, join_all((0..5).map(|_| front.get(LIST, ""))));
    assert_eq!(hasty.reason(), "DEADLINE_EXCEEDED");
    assert!(patient.iter().all(|answer| number(answer) == 1), "{patient:?}");
    assert_eq!(service.calls(), 1);
}
