//! The memory of Redis: what is over is forgotten, and what is new waits for room.

use crate::sale::{Sale, new_campaign, reason};
use anyhow::{Context, Result};
use stampede_proto::coupon::v1::{Campaign, CreateCampaignRequest};
use stampede_status::Reason;
use stampede_testkit::{MeshBuilder, OwnRedis, Service, as_operator, buyer, eventually};
use std::time::Duration;
use tokio::time::sleep;

const DAY_MS: i64 = 24 * 3_600 * 1_000;

/// When Redis forgets the campaign, in milliseconds since the epoch: -1 never, -2 if it does not have it.
async fn forgotten_at(sale: &Sale, campaign: &Campaign) -> Result<i64> {
    let key = sale.redis.keys().coupon_campaign(campaign.campaign_id.parse()?);
    Ok(redis::cmd("PEXPIRETIME").arg(key).query_async(&mut sale.world.admin_redis().await?).await?)
}

#[tokio::test]
async fn a_campaign_is_kept_for_a_day_after_its_end() -> Result<()> {
    let sale = Sale::open().await?;
    let campaign = sale.campaign(10).await?;
    let close_time = campaign.close_time.context("a time")?;
    let closes_ms = close_time.seconds * 1_000 + i64::from(close_time.nanos) / 1_000_000;
    assert_eq!(forgotten_at(&sale, &campaign).await?, closes_ms + DAY_MS);
    sale.claim(&campaign, buyer(), "a").await?;
    assert_eq!(forgotten_at(&sale, &campaign).await?, closes_ms + DAY_MS, "a claim leaves it as it is");
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_campaign_that_redis_has_forgotten_is_answered_as_closed_and_stays_forgotten() -> Result<()> {
    let sale = Sale::open().await?;
    let user = buyer();
    let (campaign, coupon) = sale.closing(user).await?;
    eventually("it is over", || async {
        let refused = sale.claim(&campaign, buyer(), "a").await.err()?;
        (reason(&refused) == Reason::CampaignClosed).then_some(())
    })
    .await;
    let key = sale.redis.keys().coupon_campaign(campaign.campaign_id.parse()?);
    let deleted: i64 = redis::cmd("DEL").arg(key).query_async(&mut sale.world.admin_redis().await?).await?;
    assert_eq!(deleted, 1);
    sale.settle().await?;

    assert_eq!(sale.claim(&campaign, user, "a").await?, coupon);
    let newcomer = sale.claim(&campaign, buyer(), "a").await.expect_err("it is over");
    assert_eq!(reason(&newcomer), Reason::CampaignClosed);
    // Longer than the time between two polls for campaigns that are missing.
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(forgotten_at(&sale, &campaign).await?, -2);
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_redis_with_little_memory_left_takes_no_new_campaign_and_goes_on_issuing() -> Result<()> {
    let redis = OwnRedis::start(&[("maxmemory", "50mb")]).await?;
    let settings = MeshBuilder::default().set(Service::Coupon, "STAMPEDE_REDIS_URL", redis.url());
    let sale = Sale::open_with(settings, [Service::Coupon]).await?;
    let request = CreateCampaignRequest { quota: 10, ..new_campaign("spring") };
    let campaign = sale.create(request.clone()).await?;
    redis.fill(45).await?;

    let another = sale.client.clone().create_campaign(as_operator(new_campaign("summer"))).await;
    assert_eq!(reason(&another.expect_err("there is no room")), Reason::Overloaded);
    assert_eq!(sale.create(request).await?.campaign_id, campaign.campaign_id, "a repeat asks for nothing new");
    sale.claim(&campaign, buyer(), "a").await?;
    redis.empty().await?;
    sale.create(new_campaign("summer")).await?;
    sale.mesh.stop().await
}
