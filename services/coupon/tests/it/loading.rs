//! Redis was restarted, and answers LOADING until it has read its data.

use crate::sale::Sale;
use anyhow::Result;
use stampede_status::{Problem, Reason};
use stampede_testkit::{MeshBuilder, OwnRedis, Service, buyer};

#[tokio::test]
async fn a_claim_is_put_off_while_redis_reads_its_data_and_its_repeat_gets_the_next_rank() -> Result<()> {
    let redis = OwnRedis::start(&[]).await?;
    let settings = MeshBuilder::default().set(Service::Coupon, "STAMPEDE_REDIS_URL", redis.url());
    let sale = Sale::open_with(settings, [Service::Coupon]).await?;
    let campaign = sale.campaign(2).await?;
    let (early, late) = (buyer(), buyer());
    let coupon = sale.claim(&campaign, early, "a").await?;

    let redis = redis.restart_loading().await?;
    // The first call finds connections that the restart has closed.
    for _ in 0..3 {
        let refused = sale.claim(&campaign, late, "a").await.expect_err("Redis has not read its data");
        let problem = Problem::from_status(&refused);
        assert_eq!(problem.reason(), Reason::Unavailable, "{refused:?}");
        assert!(problem.retry_delay().is_some(), "{refused:?}");
    }
    assert!(redis.is_loading().await, "it has read its data too soon");
    assert_eq!(sale.stored_ranks().await?, [1]);

    redis.finish_loading().await?;
    sale.claim_patiently(&campaign, late).await?;
    assert_eq!(sale.stored_ranks().await?, [1, 2]);
    assert_eq!(sale.claim_patiently(&campaign, early).await?, coupon);
    sale.mesh.stop().await
}
