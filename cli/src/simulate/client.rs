//! HTTP client of a buyer: keep-alive connections, a timeout for each attempt, and retries of transient failures under
//! the same request id. It knows nothing of sales.

mod sse;
mod watch;

use super::{stats::Stats, wire::Problem};
use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header, uri::Authority};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    error::Error,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep, timeout},
};

pub use watch::MAX_WATCHES;

/// Timeout of one attempt; the gateway's is shorter.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// Most attempts of one request. With the pauses they span about sixteen seconds, longer than the restart of a process.
const MAX_TRIES: u32 = 16;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Share of connections that is reserved for follow-up requests.
const FOLLOW_UP_SHARE: usize = 4;

/// One request, ready to be sent any number of times.
#[derive(Clone)]
pub struct Call {
    method: Method,
    path: String,
    token: Option<HeaderValue>,
    body: Bytes,
    is_follow_up: bool,
    due: Option<Instant>,
}

impl Call {
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), token: None, body: Bytes::new(), is_follow_up: false, due: None }
    }

    /// Makes a POST with a JSON body.
    pub fn post(path: impl Into<String>, body: &impl Serialize) -> Self {
        let body = serde_json::to_vec(body).expect("a struct of strings and numbers is always JSON").into();
        Self { method: Method::POST, path: path.into(), token: None, body, is_follow_up: false, due: None }
    }

    /// Authorizes the request by this token.
    pub fn bearing(self, token: &HeaderValue) -> Self {
        Self { token: Some(token.clone()), ..self }
    }

    /// Schedules the request: the delay of its sending is measured.
    pub fn due(self, due: Instant) -> Self {
        Self { due: Some(due), ..self }
    }

    /// Marks a follow-up request, which does not queue behind new arrivals.
    pub fn follow_up(self) -> Self {
        Self { is_follow_up: true, ..self }
    }
}

#[derive(Debug, Clone)]
pub enum Failure {
    Refused(Box<Problem>),
    /// No answer came.
    Broken(String),
    /// The answer cannot be parsed.
    Unreadable(String),
}

impl Failure {
    /// Returns the reason under which it is counted.
    pub fn reason(&self) -> &str {
        match self {
            Self::Refused(problem) => &problem.reason,
            Self::Broken(_) => "CONNECTION_BROKEN",
            Self::Unreadable(_) => "UNREADABLE_ANSWER",
        }
    }

    /// Returns a description for people.
    pub fn detail(&self) -> &str {
        match self {
            Self::Refused(problem) => &problem.detail,
            Self::Broken(why) | Self::Unreadable(why) => why,
        }
    }

    /// Returns the trace id of the request, if the gateway answered.
    pub fn trace_id(&self) -> Option<&str> {
        match self {
            Self::Refused(problem) => Some(&problem.trace_id),
            Self::Broken(_) | Self::Unreadable(_) => None,
        }
    }

    /// Returns whether a retry may succeed.
    fn is_transient(&self) -> bool {
        match self {
            Self::Refused(problem) => matches!(
                problem.reason.as_str(),
                "NOT_READY" | "UNAVAILABLE" | "OVERLOADED" | "THROTTLED" | "DEADLINE_EXCEEDED"
            ),
            Self::Broken(_) => true,
            Self::Unreadable(_) => false,
        }
    }

    /// Returns the pause before the next try: exponential back-off, or the server's `retry_after_ms` if that is longer,
    /// with jitter.
    fn pause(&self, tries: u32) -> Duration {
        let retry_after = match self {
            Self::Refused(problem) => problem.retry_after_ms.map(Duration::from_millis),
            Self::Broken(_) | Self::Unreadable(_) => None,
        };
        let own = FIRST_PAUSE.saturating_mul(1 << tries.min(10));
        retry_after.unwrap_or(own).max(own).min(LONGEST_PAUSE).mul_f64(rand::random_range(0.5..1.0))
    }
}

/// The tries of one request so far.
#[derive(Default)]
struct Retry {
    tries: u32,
}

impl Retry {
    /// Waits before a retry. Returns false, at once, if that would not help or was done too often.
    async fn pause(&mut self, failure: &Failure, stats: &Stats) -> bool {
        if !failure.is_transient() || self.tries + 1 >= MAX_TRIES {
            return false;
        }
        stats.tried_again(failure.reason());
        sleep(failure.pause(self.tries)).await;
        self.tries += 1;
        true
    }
}

/// A client of one gateway. Shared by all buyers.
pub struct Client {
    pool: Pool<HttpConnector, Full<Bytes>>,
    gateway: Authority,
    arriving: Semaphore,
    follow_up: Semaphore,
    watches: Semaphore,
    traffic: Traffic,
    stats: Arc<Stats>,
}

/// Requests under way.
#[derive(Default)]
struct Traffic {
    now: AtomicUsize,
    peak: AtomicUsize,
    queued: AtomicUsize,
    queued_watches: AtomicUsize,
    most: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InFlight {
    /// The most that were under way at a time.
    pub peak: usize,
    /// The most that may be under way at a time.
    pub most: usize,
    /// Requests that had to wait in the client for one of those.
    pub queued: usize,
    /// Watches that had to wait in the client until others had ended.
    pub queued_watches: usize,
}

/// A request under way, until dropped.
struct UnderWay<'c> {
    traffic: &'c Traffic,
    _permit: SemaphorePermit<'c>,
}

impl Traffic {
    async fn enter<'c>(&'c self, lane: &'c Semaphore) -> UnderWay<'c> {
        let permit = permit(lane, &self.queued).await;
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.peak.fetch_max(now, Ordering::Relaxed);
        UnderWay { traffic: self, _permit: permit }
    }
}

/// Waits for a permit of the lane, and counts the wait.
async fn permit<'c>(lane: &'c Semaphore, queued: &AtomicUsize) -> SemaphorePermit<'c> {
    if let Ok(permit) = lane.try_acquire() {
        return permit;
    }
    queued.fetch_add(1, Ordering::Relaxed);
    lane.acquire().await.expect("the semaphore is never closed")
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.traffic.now.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Client {
    /// Returns a client of the gateway at `url`, with at most so many requests under way.
    ///
    /// One in [`FOLLOW_UP_SHARE`] is reserved for follow-up requests and retries, which otherwise would queue behind
    /// new arrivals, unlike on a buyer's own connection.
    pub fn new(url: &Uri, max_connections: usize, stats: Arc<Stats>) -> anyhow::Result<Self> {
        ensure!(url.scheme_str() == Some("http"), "--gateway-url must begin with http://, but is {url}");
        let gateway = url.authority().context("--gateway-url has no host")?.clone();
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(ANSWER_DEADLINE));
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(max_connections)
            .build(connector);
        let follow_up = (max_connections / FOLLOW_UP_SHARE).max(1);
        let arriving = (max_connections - follow_up).max(1);
        let traffic = Traffic { most: arriving + follow_up, ..Traffic::default() };
        let (arriving, follow_up) = (Semaphore::new(arriving), Semaphore::new(follow_up));
        let watches = Semaphore::new(MAX_WATCHES);
        Ok(Self { pool, gateway, arriving, follow_up, watches, traffic, stats })
    }

    /// Resets the peak of concurrent requests, at the start of the measurement.
    pub fn begin(&self) {
        self.traffic.peak.store(0, Ordering::Relaxed);
        self.traffic.queued.store(0, Ordering::Relaxed);
        self.traffic.queued_watches.store(0, Ordering::Relaxed);
    }

    pub fn in_flight(&self) -> InFlight {
        let Traffic { peak, queued, queued_watches, most, .. } = &self.traffic;
        let [peak, queued, queued_watches] = [peak, queued, queued_watches].map(|count| count.load(Ordering::Relaxed));
        InFlight { peak, most: *most, queued, queued_watches }
    }

    /// Sends the request, retries where that may help, and reads the answer.
    pub async fn call<T: DeserializeOwned>(&self, call: &Call) -> Result<T, Failure> {
        let mut retry = Retry::default();
        loop {
            let is_first = retry.tries == 0;
            let lane = if call.is_follow_up || !is_first { &self.follow_up } else { &self.arriving };
            match self.exchange(call, lane, call.due.filter(|_| is_first)).await {
                Ok(answer) => return Ok(answer),
                Err(failure) if !retry.pause(&failure, &self.stats).await => return Err(failure),
                Err(_) => {}
            }
        }
    }

    /// Sends the request once and reads the answer.
    pub async fn call_once<T: DeserializeOwned>(&self, call: &Call) -> Result<T, Failure> {
        self.exchange(call, &self.arriving, None).await
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        call: &Call,
        lane: &Semaphore,
        due: Option<Instant>,
    ) -> Result<T, Failure> {
        let _under_way = self.traffic.enter(lane).await;
        self.note_sent(due);
        let exchange =
            async { whole(self.pool.request(self.request(call)).await.map_err(|error| broken(&error))?).await };
        let (status, body) = within(ANSWER_DEADLINE, exchange).await??;
        if status.is_success() { read(status, &body) } else { Err(refusal(status, &body)) }
    }

    fn note_sent(&self, due: Option<Instant>) {
        if let Some(due) = due {
            self.stats.sent(due.elapsed());
        }
    }

    fn request(&self, call: &Call) -> Request<Full<Bytes>> {
        let uri = Uri::builder().scheme("http").authority(self.gateway.clone()).path_and_query(call.path.as_str());
        let mut request = Request::new(Full::new(call.body.clone()));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = uri.build().expect("paths are made of ids and page tokens");
        let headers = request.headers_mut();
        if !call.body.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(token) = &call.token {
            headers.insert(header::AUTHORIZATION, token.clone());
        }
        request
    }

    /// Sends the request on a connection of its own, and closes that `after` the last byte, without reading the answer.
    /// The gateway may or may not have handled it.
    pub async fn send_and_cut(&self, call: &Call, after: Duration) {
        let _under_way = self.traffic.enter(&self.arriving).await;
        self.note_sent(call.due);
        let Ok(Ok(mut connection)) = timeout(ANSWER_DEADLINE, self.connect()).await else { return };
        if connection.write_all(&self.raw(call)).await.is_ok() {
            sleep(after).await;
        }
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let port = self.gateway.port_u16().unwrap_or(80);
        let host = self.gateway.host().trim_start_matches('[').trim_end_matches(']');
        TcpStream::connect((host, port)).await
    }

    fn raw(&self, call: &Call) -> Vec<u8> {
        let Call { method, path, token, body, .. } = call;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
            self.gateway,
            body.len()
        );
        let mut raw = head.into_bytes();
        if let Some(token) = token {
            raw.extend_from_slice(b"authorization: ");
            raw.extend_from_slice(token.as_bytes());
            raw.extend_from_slice(b"\r\n");
        }
        raw.extend_from_slice(b"\r\n");
        raw.extend_from_slice(body);
        raw
    }
}

async fn within<F: Future>(longest: Duration, answer: F) -> Result<F::Output, Failure> {
    timeout(longest, answer).await.map_err(|_| Failure::Broken("no answer came in time".into()))
}

async fn whole(response: Response<Incoming>) -> Result<(StatusCode, Bytes), Failure> {
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|error| broken(&error))?;
    Ok((status, body.to_bytes()))
}

fn read<T: DeserializeOwned>(status: StatusCode, body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| Failure::Unreadable(format!("{status}: {error}")))
}

fn refusal(status: StatusCode, body: &[u8]) -> Failure {
    read(status, body).map_or_else(|unreadable| unreadable, Failure::Refused)
}

/// Returns the whole chain of causes: hyper's own text says little.
fn broken(error: &(dyn Error + 'static)) -> Failure {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    Failure::Broken(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(reason: &str, retry_after_ms: Option<u64>) -> Failure {
        let (detail, trace_id) = (String::new(), String::new());
        Failure::Refused(Box::new(Problem {
            reason: reason.into(),
            detail,
            trace_id,
            metadata: std::collections::BTreeMap::default(),
            retry_after_ms,
            field: None,
        }))
    }

    #[tokio::test]
    async fn what_waits_for_a_free_place_is_counted() {
        let (traffic, lane) = (Traffic { most: 1, ..Traffic::default() }, Semaphore::new(1));
        let first = traffic.enter(&lane).await;
        let mut second = Box::pin(traffic.enter(&lane));
        assert!(timeout(Duration::from_millis(1), &mut second).await.is_err());
        drop(first);
        drop(second.await);
        let now = [&traffic.now, &traffic.peak, &traffic.queued].map(|count| count.load(Ordering::Relaxed));
        assert_eq!(now, [0, 1, 1]);
    }

    #[test]
    fn only_what_passes_by_itself_is_tried_again() {
        assert!(refused("NOT_READY", None).is_transient());
        assert!(Failure::Broken("cut".into()).is_transient());
        assert!(!refused("SOLD_OUT", None).is_transient());
        assert!(!refused("INTERNAL", None).is_transient());
        assert!(!Failure::Unreadable("?".into()).is_transient());
    }

    #[test]
    fn pauses_grow_up_to_a_bound_and_are_no_shorter_than_retry_after() {
        let pause = |tries| refused("UNAVAILABLE", None).pause(tries);
        assert!(pause(0) <= FIRST_PAUSE && pause(0) >= FIRST_PAUSE / 2);
        assert!(pause(60) <= LONGEST_PAUSE && pause(60) >= LONGEST_PAUSE / 2);
        assert!(refused("NOT_READY", Some(400)).pause(0) >= Duration::from_millis(200));
    }
}
