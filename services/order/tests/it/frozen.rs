//! A replica of a service that order calls stands still: its callers notice it and go to the other one.

use crate::sale::{Sale, UNITS, campaign, eur};
use anyhow::{Context, Result};
use futures_util::future::{join_all, try_join_all};
use stampede_proto::{
    coupon::v1::{ClaimCouponRequest, CreateCampaignRequest},
    order::v1::PlaceOrderRequest,
};
use stampede_testkit::{MeshBuilder, Service, as_buyer, as_operator, buyer, eventually};
use stampede_vocab::{EventId, ItemId, UserId};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Those who order one after the other, each once in [`PAUSE`].
const LINES: usize = 4;
/// Orders of each: as many as there are units of one item, so that each line has an item of its own.
const ORDERS: usize = UNITS as usize;
const PAUSE: Duration = Duration::from_millis(300);
/// The probes need 0.7 s to find a replica that stands still; without them the call would take 5 s. In between is time
/// for a machine that stands still itself.
const LONGEST: Duration = Duration::from_secs(4);

/// Somebody who wants to order, and their coupon.
type Somebody = (UserId, String);

#[tokio::test]
async fn a_replica_that_stands_still_fails_nobody_and_costs_little_time() -> Result<()> {
    let replicas = MeshBuilder::default().replicas(Service::Inventory, 2).replicas(Service::Coupon, 2);
    let sale = Sale::open_with(replicas).await?;
    for (number, frozen) in [(11, Service::Inventory), (12, Service::Coupon)] {
        let event = sale.another_event(number, &[(); LINES].map(|()| eur(5_000))).await?;
        let crowd = with_coupons(&sale, frozen.name()).await?;
        // Between orders: one that stands still in a transaction keeps the rows of all.
        sale.mesh.freeze(frozen, 1)?;
        let lines = crowd.chunks(ORDERS).enumerate().map(|(index, line)| slowest_of(&sale, event, index, line));
        let slowest = try_join_all(lines).await;
        sale.mesh.thaw(frozen, 1)?;
        let slowest = slowest.with_context(|| format!("with {} standing still", frozen.name()))?;
        let slowest = slowest.into_iter().max().context("there are lines")?;
        assert!(slowest < LONGEST, "with {} standing still an order took {slowest:?}", frozen.name());
    }
    Ok(())
}

/// Places an order for each of these, with their coupons, and returns how long the slowest took. Fails with the first.
async fn slowest_of(sale: &Sale, event: EventId, item: usize, line: &[Somebody]) -> Result<Duration> {
    let mut slowest = Duration::ZERO;
    for (somebody, coupon_id) in line {
        let wish = sale.wish("frozen", &[(ItemId::derive(event, item), 1)]);
        let wish = PlaceOrderRequest { event_id: event.to_string(), coupon_id: coupon_id.clone(), ..wish };
        let started = Instant::now();
        sale.place(*somebody, wish).await?;
        slowest = slowest.max(started.elapsed());
        sleep(PAUSE).await;
    }
    Ok(slowest)
}

/// A crowd with a coupon each, of one campaign.
async fn with_coupons(sale: &Sale, request_id: &str) -> Result<Vec<Somebody>> {
    let quota = i32::try_from(LINES * ORDERS)?;
    let request = CreateCampaignRequest { quota, ..campaign(request_id) };
    let created = sale.mesh.coupon().create_campaign(as_operator(request)).await?.into_inner();
    let campaign_id = created.campaign.context("a campaign")?.campaign_id;
    let claim = |somebody: UserId| {
        let request = ClaimCouponRequest { campaign_id: campaign_id.clone(), request_id: "claim".to_owned() };
        async move {
            let coupon = eventually("the campaign takes claims", || async {
                let claimed = sale.mesh.coupon().claim_coupon(as_buyer(somebody, request.clone())).await;
                claimed.ok()?.into_inner().coupon
            });
            (somebody, coupon.await.coupon_id)
        }
    };
    Ok(join_all((0..LINES * ORDERS).map(|_| claim(buyer()))).await)
}
