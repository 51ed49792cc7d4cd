//! Transactions that fail at each point: before their write, before their commit, and after it.

use crate::sale::{Sale, hold_request, new_campaign, order};
use anyhow::Result;
use stampede_proto::coupon::v1::{Coupon, CouponState};
use stampede_testkit::{MeshBuilder, Proxy, Service, World, buyer, eventually};
use stampede_vocab::CouponId;

/// The service behind a proxy of its database.
async fn open(settings: MeshBuilder, services: &[Service]) -> Result<(Sale, Proxy)> {
    let world = World::new()?;
    let link = Proxy::to_url(&world.service_database_url(Service::Coupon)).await?;
    let settings = settings.set(Service::Coupon, "STAMPEDE_DATABASE_URL", link.url());
    Ok((Sale::open_on(world, settings, services.iter().copied()).await?, link))
}

/// What a transaction writes that gives the coupon back: so does one that stores its claim.
fn given_back(coupon: &Coupon) -> Result<[String; 2]> {
    let id: CouponId = coupon.coupon_id.parse()?;
    Ok(["'ISSUED'".to_owned(), format!("{:X}", id.uuid().simple())])
}

/// A coupon whose claim is stored.
async fn stored(sale: &Sale) -> Result<Coupon> {
    let coupon = sale.claim(&sale.campaign(1).await?, buyer(), "a").await?;
    let is_stored = || async { (sale.stored_ranks().await.ok()?.len() == 1).then_some(()) };
    eventually("the claim is stored", is_stored).await;
    Ok(coupon)
}

#[tokio::test]
async fn a_campaign_is_created_once_and_a_coupon_released_once_whatever_fails() -> Result<()> {
    let (sale, link) = open(MeshBuilder::default(), &[Service::Coupon]).await?;
    let created = link.break_off_everywhere(&["INSERT INTO campaigns "]);
    let wanted = new_campaign("repeated");
    let create = || async { sale.create(wanted.clone()).await.ok() };
    let campaign = eventually("the campaign is created", create).await;
    sale.mesh.until_broken(Service::Coupon, "create_campaign", &created).await;
    assert_eq!(sale.create(wanted.clone()).await?.campaign_id, campaign.campaign_id);

    let coupon = stored(&sale).await?;
    sale.hold(hold_request(&coupon, order(1))).await?;
    let released = link.break_off_everywhere(&given_back(&coupon)?);
    eventually("the coupon is released", || async { sale.release(&coupon, order(1)).await.ok() }).await;
    sale.mesh.until_broken(Service::Coupon, "release_coupons", &released).await;
    assert_eq!(sale.now(&coupon).await?, coupon);
    sale.hold(hold_request(&coupon, order(2))).await?;
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_sweep_that_fails_at_any_point_gives_a_coupon_back_once() -> Result<()> {
    let settings = MeshBuilder::default().set_all("STAMPEDE_ORDER_WRITE_LIMIT_MS", 200);
    let settings = settings.set(Service::Coupon, "STAMPEDE_COUPON_UNWRITTEN_HOLD_AGE_MS", 300);
    let (sale, link) = open(settings, &[Service::Coupon, Service::Order]).await?;
    let coupon = stored(&sale).await?;
    let broken = link.break_off_everywhere(&given_back(&coupon)?);
    sale.hold(hold_request(&coupon, order(1))).await?;
    sale.mesh.until_broken(Service::Coupon, "release_unwritten", &broken).await;
    assert_eq!(sale.reaches(&coupon, CouponState::Issued).await, coupon);
    sale.hold(hold_request(&coupon, order(2))).await?;
    sale.mesh.stop().await
}
