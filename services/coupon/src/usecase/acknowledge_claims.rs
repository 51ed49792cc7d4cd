//! Acknowledges in Redis that ranked claims are stored. No caller waits for it, and the sweep of unfinished claims
//! repeats acknowledgements that are lost.

use crate::domain::RankedClaim;
use stampede_lua::{Redis, coupon};
use stampede_vocab::{CampaignId, UserId};
use std::collections::HashMap;
use tokio::sync::mpsc;

/// Queued batches. The sweep acknowledges what does not fit.
const MAX_QUEUED: usize = 256;
/// Batches that one round drains from the queue.
const MAX_DRAINED: usize = 16;

/// Queues claims to be acknowledged. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Acknowledger {
    queue: mpsc::Sender<Vec<RankedClaim>>,
}

/// Acknowledges the claims that an [`Acknowledger`] queues.
#[derive(Debug)]
pub struct AcknowledgeClaims {
    redis: Redis,
    queue: mpsc::Receiver<Vec<RankedClaim>>,
}

impl Acknowledger {
    /// Returns both ends of a queue.
    pub fn new(redis: Redis) -> (Self, AcknowledgeClaims) {
        let (sender, receiver) = mpsc::channel(MAX_QUEUED);
        (Self { queue: sender }, AcknowledgeClaims { redis, queue: receiver })
    }

    /// Queues these claims. Drops them if the queue is full: the sweep acknowledges them.
    pub fn acknowledge(&self, claims: Vec<RankedClaim>) {
        if self.queue.try_send(claims).is_err() {
            tracing::debug!("stored claims are left to the sweep to acknowledge");
        }
    }
}

impl AcknowledgeClaims {
    /// Acknowledges the queued claims, and waits while there are none. Returns false once the queue is closed.
    pub async fn acknowledge_next(&mut self) -> bool {
        let mut batches = Vec::new();
        if self.queue.recv_many(&mut batches, MAX_DRAINED).await == 0 {
            return false;
        }
        let mut claims = HashMap::<CampaignId, Vec<(UserId, i32)>>::new();
        for ranked in batches.into_iter().flatten() {
            claims.entry(ranked.claim.campaign_id).or_default().push((ranked.claim.user_id, ranked.rank));
        }
        for (campaign, claims) in claims {
            self.acknowledge_campaign(campaign, &claims).await;
        }
        true
    }

    async fn acknowledge_campaign(&self, campaign: CampaignId, claims: &[(UserId, i32)]) {
        for chunk in claims.chunks(coupon::MAX_CLAIMS) {
            if let Err(error) = coupon::acknowledge(&self.redis, campaign, chunk).await {
                tracing::debug!(campaign.id = %campaign, error.cause = %error, "stored claims are left to the sweep to acknowledge");
                return;
            }
        }
    }
}
