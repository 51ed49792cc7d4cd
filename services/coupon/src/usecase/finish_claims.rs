//! Finishes claims that were ranked but not stored, because a process was killed in between or MySQL was unreachable.
//! Ranked means issued.

use crate::{
    domain::Campaign,
    store,
    usecase::{Error, StoreClaims, claim_coupon::ranked_claim, readable_campaign, store_claims::Unstored},
};
use futures_util::future::join_all;
use stampede_db::Database;
use stampede_lua::{Redis, coupon};
use stampede_vocab::{CampaignId, Timestamp};
use std::time::Duration;

/// Campaigns swept concurrently.
const BATCH_SIZE: u32 = 16;
/// Time after its end until which a campaign is swept: more than the clocks differ.
const END_MARGIN: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub struct FinishClaims {
    db: Database,
    redis: Redis,
    store: StoreClaims,
}

impl FinishClaims {
    /// Returns the use case. It finishes the claims that are pending in `redis`.
    pub fn new(db: Database, redis: Redis, store: StoreClaims) -> Self {
        Self { db, redis, store }
    }

    /// Finishes every claim of the campaign that was ranked at least `age` ago. Returns how many there were.
    pub async fn finish(&self, campaign: &Campaign, age: Duration) -> Result<usize, Error> {
        let (mut found, mut cursor) = (0, Some(0));
        while let Some(from) = cursor {
            let page = coupon::pending(&self.redis, campaign.id, age, from).await?;
            found += page.claims.len();
            let unstored =
                page.claims.into_iter().map(|claim| Unstored::in_current_trace(ranked_claim(campaign, claim)));
            self.store.store(unstored.collect()).await?;
            cursor = page.next;
        }
        if found > 0 {
            tracing::info!(campaign.id = %campaign.id, claim.count = found, "unfinished claims are stored");
        }
        Ok(found)
    }

    /// Finishes the claims of all open campaigns, and marks those as settled that are over and have none left.
    pub async fn sweep(&self, age: Duration) -> Result<(), Error> {
        let (now, mut after) = (Timestamp::now(), None);
        loop {
            let page = self
                .db
                .run("unsettled_campaigns", |mut conn| async move {
                    store::campaigns::unsettled(&mut conn, now, after, BATCH_SIZE).await
                })
                .await?;
            let last = page.last().filter(|_| page.len() == BATCH_SIZE as usize).map(|stored| stored.id);
            let campaigns: Vec<Campaign> = page.into_iter().filter_map(readable_campaign).collect();
            let done = join_all(campaigns.iter().map(|campaign| self.finish_campaign(campaign, age))).await;
            let done: Vec<CampaignId> = done.into_iter().flatten().collect();
            let now = Timestamp::now();
            self.db
                .run("acknowledge_campaigns", |mut conn| async move {
                    store::campaigns::settle(&mut conn, &done, now).await
                })
                .await?;
            if last.is_none() {
                return Ok(());
            }
            after = last;
        }
    }

    /// Finishes the claims of one campaign. Returns its id if it is settled.
    async fn finish_campaign(&self, campaign: &Campaign, age: Duration) -> Option<CampaignId> {
        let now = Timestamp::now();
        if now < campaign.terms.open_time {
            return None;
        }
        let is_over = campaign.is_over(now.minus(END_MARGIN));
        // So long after the end no claim is still being stored by its own call, so the age does not matter.
        match self.finish(campaign, if is_over { Duration::ZERO } else { age }).await {
            // Settled by a pass that finds none, not by the one that stores the last claim: its acknowledgements may be
            // lost.
            Ok(0) if is_over => Some(campaign.id),
            Ok(_) => None,
            Err(error) => {
                tracing::warn!(campaign.id = %campaign.id, error.cause = %error, "unfinished claims could not be stored");
                None
            }
        }
    }
}
