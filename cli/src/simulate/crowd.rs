//! Sends the requests of the crowd on schedule, whether or not answers come (open load).

use super::{buyer::Buyer, stage::Stage, stats::Anomaly};
use std::sync::Arc;
use tokio::{
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until},
};

/// The first request of a visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Errand {
    Claim,
    Buy,
}

/// Plays the whole crowd. Returns when all buyers are done.
pub async fn play(stage: &Arc<Stage>) {
    let mut buyers = JoinSet::new();
    for (due, number, errand) in schedule(stage) {
        sleep_until(due).await;
        let buyer = Buyer { stage: Arc::clone(stage), number };
        match errand {
            Errand::Claim => buyers.spawn(buyer.claim(due)),
            Errand::Buy => buyers.spawn(buyer.buy()),
        };
        while let Some(gone) = buyers.try_join_next() {
            note(stage, gone);
        }
    }
    while let Some(gone) = buyers.join_next().await {
        note(stage, gone);
    }
}

/// Returns all errands, in the order of time.
fn schedule(stage: &Stage) -> Vec<(Instant, usize, Errand)> {
    let timeline = &stage.timeline;
    let opening = timeline.instant(timeline.open_time);
    let claims_open = timeline.instant(timeline.claims_open_at);
    let mut schedule = Vec::with_capacity(2 * stage.plan.buyers.len());
    for (number, plan) in stage.plan.buyers.iter().enumerate() {
        let comes = plan.early_by.map_or(opening + plan.orders_after, |early_by| opening - early_by);
        schedule.push((comes, number, Errand::Buy));
        schedule.extend(plan.claims_after.map(|after| (claims_open + after, number, Errand::Claim)));
    }
    schedule.sort_unstable();
    schedule
}

fn note(stage: &Stage, gone: Result<(), JoinError>) {
    if let Err(error) = gone {
        stage.stats.record_anomaly(Anomaly::of_sale("BUYER_BROKEN", error.to_string()));
    }
}
