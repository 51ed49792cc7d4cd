//! Notices to the merchant after each capture, decline and refund. Delivery is best effort, as with every provider: the
//! queue is bounded, tries are few, and an undelivered notice is dropped with a warning. The records are the truth.

use crate::{
    fate::Fates,
    records::{Charge, ChargeStatus, Refund, RefundStatus},
    signature,
};
use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::{Method, Request, Uri, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::Serialize;
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;

const MAX_QUEUED: usize = 4_096;
const MAX_IN_FLIGHT: usize = 32;
const TRIES: u32 = 3;
const TRY_TIMEOUT: Duration = Duration::from_secs(2);
const FIRST_PAUSE_MS: u64 = 200;

/// A notice to the merchant.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Notice {
    r#type: &'static str,
    key: String,
    charge_id: String,
    amount_minor: i64,
    currency: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    decline_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refund_id: Option<String>,
}

impl Notice {
    /// Returns the notice of a charge that has ended; none while it is pending.
    pub(crate) fn of_charge(charge: &Charge) -> Option<Notice> {
        let (r#type, status) = match charge.status {
            ChargeStatus::Pending => return None,
            ChargeStatus::Captured => ("charge.captured", "captured"),
            ChargeStatus::Declined => ("charge.declined", "declined"),
        };
        Some(Notice {
            r#type,
            key: charge.key.clone(),
            charge_id: charge.id.clone(),
            amount_minor: charge.amount_minor,
            currency: charge.currency.clone(),
            status,
            decline_code: charge.decline_code.clone(),
            refund_id: None,
        })
    }

    /// Returns the notice of a refund that has ended; none while it is pending.
    pub(crate) fn of_refund(refund: &Refund) -> Option<Notice> {
        let (r#type, status) = match refund.status {
            RefundStatus::Pending => return None,
            RefundStatus::Refunded => ("refund.succeeded", "refunded"),
            RefundStatus::Failed => ("refund.failed", "failed"),
        };
        Some(Notice {
            r#type,
            key: refund.key.clone(),
            charge_id: refund.charge_id.clone(),
            amount_minor: refund.amount_minor,
            currency: refund.currency.clone(),
            status,
            decline_code: None,
            refund_id: Some(refund.id.clone()),
        })
    }
}

/// Queues notices. Drops all of them if no webhook is configured.
#[derive(Clone, Default)]
pub(crate) struct Notifier {
    queue: Option<mpsc::Sender<Notice>>,
    fates: Option<Arc<Fates>>,
}

impl Notifier {
    /// Returns a notifier and the delivery of its queue.
    pub(crate) fn new(url: Uri, secret: String, fates: Option<Arc<Fates>>) -> (Notifier, Delivery) {
        let (sender, queue) = mpsc::channel(MAX_QUEUED);
        let post = Post { client: Client::builder(TokioExecutor::new()).build_http(), url, secret };
        (Notifier { queue: Some(sender), fates }, Delivery { queue, post: Arc::new(post) })
    }

    /// Queues a notice, and in the seeded mode as often and as late as its fate is; never waits.
    pub(crate) fn notify(&self, notice: Option<Notice>) {
        let (Some(queue), Some(notice)) = (&self.queue, notice) else { return };
        let waits = self.fates.as_ref().map_or_else(|| vec![Duration::ZERO], |fates| fates.notices(&notice.key));
        for wait in waits {
            if wait.is_zero() {
                push(queue, notice.clone());
            } else {
                push_later(queue.downgrade(), notice.clone(), wait);
            }
        }
    }
}

fn push(queue: &mpsc::Sender<Notice>, notice: Notice) {
    if queue.try_send(notice).is_err() {
        tracing::warn!("a webhook notice was dropped: the queue is full");
    }
}

/// Queues a notice later, unless the sandbox has stopped by then.
fn push_later(queue: mpsc::WeakSender<Notice>, notice: Notice, wait: Duration) {
    tokio::spawn(async move {
        sleep(wait).await;
        if let Some(queue) = queue.upgrade() {
            push(&queue, notice);
        }
    });
}

/// Delivers queued notices, several at once.
pub(crate) struct Delivery {
    queue: mpsc::Receiver<Notice>,
    post: Arc<Post>,
}

impl Delivery {
    /// Delivers until every notifier is gone and the queue is empty.
    pub(crate) async fn run(mut self) {
        let slots = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
        let deliveries = TaskTracker::new();
        while let Some(notice) = self.queue.recv().await {
            let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
            let post = self.post.clone();
            deliveries.spawn(async move {
                post.deliver(&notice).await;
                drop(slot);
            });
        }
        deliveries.close();
        deliveries.wait().await;
    }
}

struct Post {
    client: Client<HttpConnector, Full<Bytes>>,
    url: Uri,
    secret: String,
}

impl Post {
    async fn deliver(&self, notice: &Notice) {
        for attempt in 1..=TRIES {
            match self.post(notice).await {
                Ok(()) => return,
                Err(error) if attempt == TRIES => {
                    tracing::warn!(
                        webhook.key = notice.key,
                        error.cause = format!("{error:#}"),
                        "notice was not delivered"
                    );
                }
                Err(_) => sleep(pause(attempt)).await,
            }
        }
    }

    async fn post(&self, notice: &Notice) -> anyhow::Result<()> {
        let body = serde_json::to_string(notice)?;
        let signature = signature::header(&self.secret, seconds_now()?, &body);
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.url)
            .header(CONTENT_TYPE, "application/json")
            .header(signature::HEADER, signature)
            .body(Full::from(body))?;
        let Ok(answer) = timeout(TRY_TIMEOUT, self.client.request(request)).await else {
            bail!("no answer within {TRY_TIMEOUT:?}");
        };
        let answer = answer.context("cannot reach the webhook")?;
        let status = answer.status();
        // Read to the end, so that the connection can be reused.
        timeout(TRY_TIMEOUT, answer.into_body().collect()).await??;
        ensure!(status.is_success(), "answered {status}");
        Ok(())
    }
}

/// Returns the time that a notice is signed with, anew for each try.
#[expect(clippy::disallowed_methods, reason = "the sandbox shares no code with the services")]
fn seconds_now() -> anyhow::Result<u64> {
    Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs())
}

/// Returns the pause before the next try: twice as long after each, give or take half.
fn pause(attempt: u32) -> Duration {
    let whole = FIRST_PAUSE_MS << attempt;
    Duration::from_millis(rand::random_range(whole / 2..=whole))
}
