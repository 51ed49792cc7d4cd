//! Acknowledges in Redis that ranked claims are stored. Nobody waits for it, and what is lost of it is done by the
//! sweep of unfinished claims.

use crate::domain::RankedClaim;
use stampede_lua::{Redis, coupon};
use stampede_vocab::{CampaignId, UserId};
use std::collections::HashMap;
use tokio::sync::mpsc;

/// Batches that may wait; further ones are left to the sweep.
const MAX_QUEUED: usize = 256;
/// Batches taken together.
const MAX_TOGETHER: usize = 16;

/// Takes what is to be acknowledged. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Acknowledger {
    queue: mpsc::Sender<Vec<RankedClaim>>,
}

/// Acknowledges what an [`Acknowledger`] takes.
#[derive(Debug)]
pub struct AcknowledgeClaims {
    redis: Redis,
    queue: mpsc::Receiver<Vec<RankedClaim>>,
}

impl Acknowledger {
    /// An acknowledger, and what does its work.
    pub fn new(redis: Redis) -> (Self, AcknowledgeClaims) {
        let (sender, receiver) = mpsc::channel(MAX_QUEUED);
        (Self { queue: sender }, AcknowledgeClaims { redis, queue: receiver })
    }

    /// Has these claims acknowledged soon.
    pub fn acknowledge(&self, claims: Vec<RankedClaim>) {
        if self.queue.try_send(claims).is_err() {
            tracing::debug!("stored claims are left to the sweep to acknowledge");
        }
    }
}

impl AcknowledgeClaims {
    /// Acknowledges what has gathered; waits for the next if there is nothing. Returns whether more may come.
    pub async fn acknowledge_next(&mut self) -> bool {
        let mut batches = Vec::new();
        if self.queue.recv_many(&mut batches, MAX_TOGETHER).await == 0 {
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
