//! Campaigns of next year cost nothing, and are there all the same.

use crate::sale::{Sale, new_campaign, reason};
use anyhow::Result;
use sqlx::AssertSqlSafe;
use stampede_proto::{convert::timestamp, coupon::v1::CreateCampaignRequest};
use stampede_status::Reason;
use stampede_testkit::{MeshBuilder, OwnRedis, Service, buyer, eventually};
use stampede_vocab::Timestamp;
use std::time::Duration;
use tokio::time::sleep;

const YEAR: Duration = Duration::from_secs(365 * 86_400);
/// Longer than three rounds of every sweep.
const SOME_ROUNDS: Duration = Duration::from_millis(3_500);

async fn on_redis(redis: &OwnRedis) -> Result<Sale> {
    let settings = MeshBuilder::default().set(Service::Coupon, "STAMPEDE_REDIS_URL", redis.url());
    Sale::open_with(settings, [Service::Coupon]).await
}

/// Writes a thousand campaigns that open in a year.
async fn plan_next_year(sale: &Sale) -> Result<()> {
    let open_time = Timestamp::now().plus(YEAR).micros();
    let digit = "(SELECT 0 AS n UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 \
                 UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)";
    let sql = format!(
        "INSERT INTO campaigns (id, creator_id, request_id, name, quota, discount_minor, currency, opens_at_us, \
         closes_at_us, created_us) SELECT UNHEX(MD5(n)), UNHEX(MD5('nobody')), CONCAT('c', n), 'Next year', 10, 100, \
         'EUR', {open_time}, {open_time} + 1000000, 1 \
         FROM (SELECT a.n + 10 * b.n + 100 * c.n AS n FROM {digit} a, {digit} b, {digit} c) numbers"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *sale.coupons.acquire().await?).await?;
    Ok(())
}

#[tokio::test]
async fn campaigns_of_next_year_cost_no_script() -> Result<()> {
    let redis = OwnRedis::start(&[]).await?;
    let sale = on_redis(&redis).await?;
    plan_next_year(&sale).await?;
    let before = redis.calls("evalsha").await?;
    sleep(SOME_ROUNDS).await;
    let scripts = redis.calls("evalsha").await? - before;
    assert!(scripts < 100, "{scripts} scripts in a few rounds over no campaign that is near");
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_campaign_of_next_year_that_was_lost_comes_back_when_somebody_claims() -> Result<()> {
    let redis = OwnRedis::start(&[]).await?;
    let sale = on_redis(&redis).await?;
    let open_time = Timestamp::now().plus(YEAR);
    let campaign = sale
        .create(CreateCampaignRequest {
            open_time: Some(timestamp(open_time)),
            close_time: Some(timestamp(open_time.plus(YEAR))),
            ..new_campaign("next-year")
        })
        .await?;
    redis.empty().await?;
    eventually("it is known to open later", || async {
        let refused = sale.claim(&campaign, buyer(), "a").await.err()?;
        (reason(&refused) == Reason::CampaignNotOpen).then_some(())
    })
    .await;
    sale.mesh.stop().await
}
