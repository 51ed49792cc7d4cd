//! A replica that stands still in the middle of a transaction keeps its locks for seconds, not for ever. And what the
//! database refuses is nobody's fault who asks.

use crate::sale::{Sale, hold_request, order};
use anyhow::Result;
use stampede_proto::coupon::v1::{Coupon, HoldCouponsRequest};
use stampede_status::{Problem, Reason};
use stampede_testkit::{FreezeAt, MeshBuilder, Proxy, Service, Writes, as_order_service, buyer, eventually};
use stampede_vocab::CouponId;
use std::time::Duration;
use tokio::time::Instant;

/// The server waits 8 s for the replica. Whoever waits for the lock gives up now and then, and tries again, on a
/// machine that may stand still meanwhile.
const LONGEST: Duration = Duration::from_secs(25);

async fn is_locked(sale: &Sale, coupon: &Coupon) -> Result<bool> {
    let id: CouponId = coupon.coupon_id.parse()?;
    let read = sqlx::query("SELECT 1 FROM coupons WHERE id = ? FOR UPDATE NOWAIT").bind(id.uuid());
    Ok(read.execute(&mut *sale.coupons.acquire().await?).await.is_err())
}

#[tokio::test]
async fn what_a_replica_that_stands_still_has_locked_is_free_within_seconds() -> Result<()> {
    let sale = Sale::open().await?;
    let link = Proxy::to_url(&sale.world.service_database_url(Service::Coupon)).await?;
    let settings = MeshBuilder::default().set(Service::Coupon, "STAMPEDE_DATABASE_URL", link.url());
    let frozen = settings.start(&sale.world, [Service::Coupon]).await?;
    let coupon = sale.claim(&sale.campaign(1).await?, buyer(), "a").await?;
    let hold = |n| as_order_service(HoldCouponsRequest { holds: vec![hold_request(&coupon, order(n))] });

    // It has locked the coupon, and stands still before it gets the answer.
    link.freeze(Writes::With(b"ORDER BY id FOR UPDATE".to_vec()), FreezeAt::After(1));
    let (mut client, request) = (frozen.coupon(), hold(1));
    let asked = tokio::spawn(async move { client.hold_coupons(request).await });
    link.frozen().await;
    frozen.freeze(Service::Coupon, 0)?;
    // The server answers BEGIN, which comes with the read, before it has locked anything.
    let locked = || async { is_locked(&sale, &coupon).await.ok()?.then_some(()) };
    eventually("the replica has locked the coupon", locked).await;
    let started = Instant::now();
    let held = eventually("the coupon is free", || async { sale.hold(hold_request(&coupon, order(2))).await.ok() });
    assert_eq!(held.await.order_id, order(2).to_string());
    assert!(started.elapsed() < LONGEST, "{:?}", started.elapsed());

    // It goes on, and finds its transaction gone.
    link.thaw();
    frozen.thaw(Service::Coupon, 0)?;
    assert!(asked.await?.is_err());
    eventually("it answers again", || async { frozen.coupon().hold_coupons(hold(2)).await.ok() }).await;
    frozen.stop().await?;
    sale.mesh.stop().await
}

#[tokio::test]
async fn what_the_database_refuses_is_unavailable_and_heals_by_itself() -> Result<()> {
    let sale = Sale::open().await?;
    let coupon = sale.claim(&sale.campaign(1).await?, buyer(), "a").await?;
    let sql = async |sql: &'static str| -> Result<()> {
        sqlx::raw_sql(sql).execute(&mut *sale.coupons.acquire().await?).await?;
        Ok(())
    };
    sql("RENAME TABLE coupons TO coupons_away").await?;
    let refused = sale.hold(hold_request(&coupon, order(1))).await.expect_err("there is no such table");
    let problem = Problem::from_status(&refused);
    assert_eq!(problem.reason(), Reason::Unavailable);
    assert!(problem.retry_delay().is_some());
    sql("RENAME TABLE coupons_away TO coupons").await?;
    eventually("the coupon is held", || async { sale.hold(hold_request(&coupon, order(1))).await.ok() }).await;
    sale.mesh.stop().await
}
