//! Claims: first come, first served, one a user, never beyond the quota, and a repeat yields the same.

use crate::sale::{Sale, claim_patiently, new_campaign, reason};
use anyhow::{Context, Result};
use futures_util::future::join_all;
use stampede_proto::{
    convert::timestamp,
    coupon::v1::{Campaign, CouponState, CreateCampaignRequest, GetCampaignRequest},
};
use stampede_status::{Problem, Reason};
use stampede_testkit::buyer;
use stampede_vocab::{CampaignId, Timestamp};
use std::time::Duration;
use uuid::Uuid;

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn a_crowd_at_two_replicas_gets_exactly_the_quota() -> Result<()> {
    let sale = Sale::open().await?;
    let other = sale.replica().await?;
    let campaign = sale.campaign(100).await?;
    let there = other.coupon();
    let users: Vec<_> = (0..150).map(|_| buyer()).collect();
    // Everybody claims at both replicas at once with the same request.
    let claims = users.iter().flat_map(|user| [(&sale.client, user), (&there, user)]);
    let outcomes = join_all(claims.map(|(client, user)| claim_patiently(client, &campaign, *user))).await;

    let mut winners = Vec::new();
    for pair in outcomes.chunks(2) {
        match pair {
            [Ok(here), Ok(there)] => {
                assert_eq!(here, there, "a repeat yields the same coupon");
                winners.push(here.rank);
            }
            [Err(here), Err(there)] => assert_eq!((reason(here), reason(there)), (Reason::SoldOut, Reason::SoldOut)),
            mixed => panic!("one user, two outcomes: {mixed:?}"),
        }
    }
    winners.sort_unstable();
    assert_eq!(winners, (1..=100).collect::<Vec<_>>());
    assert_eq!(sale.stored_ranks().await?, winners);
    assert!(sale.each_is_published_once().await?);
    let request = GetCampaignRequest { campaign_id: campaign.campaign_id };
    let campaign = other.coupon().get_campaign(request).await?.into_inner().campaign;
    assert_eq!(campaign.map(|campaign| campaign.issued), Some(100));
    other.stop().await?;
    sale.mesh.stop().await
}

#[tokio::test]
async fn the_same_request_yields_the_same_coupon_and_another_none() -> Result<()> {
    let sale = Sale::open().await?;
    let campaign = sale.campaign(1).await?;
    let user = buyer();
    let first = sale.claim(&campaign, user, "a").await?;
    assert_eq!(
        (first.rank, first.state(), first.discount.clone()),
        (1, CouponState::Issued, campaign.discount.clone())
    );
    assert_eq!(sale.claim(&campaign, user, "a").await?, first, "although it is sold out");

    let again = sale.claim(&campaign, user, "b").await.expect_err("a second request");
    assert_eq!(reason(&again), Reason::AlreadyClaimed);
    assert_eq!(Problem::from_status(&again).metadata().get("coupon_id"), Some(&first.coupon_id));
    assert_eq!(reason(&sale.claim(&campaign, buyer(), "a").await.expect_err("one too many")), Reason::SoldOut);
    sale.mesh.stop().await
}

#[tokio::test]
async fn claims_are_taken_within_the_window_only() -> Result<()> {
    let sale = Sale::open().await?;
    let now = Timestamp::now();
    let early = CreateCampaignRequest { open_time: Some(timestamp(now.plus(HOUR / 2))), ..new_campaign("early") };
    let early = sale.create(early).await?;
    assert_eq!(reason(&sale.claim(&early, buyer(), "a").await.expect_err("early")), Reason::CampaignNotOpen);

    let user = buyer();
    let (closing, coupon) = sale.closing(user).await?;
    stampede_testkit::eventually("claims close", || async {
        let refused = sale.claim_patiently(&closing, buyer()).await.err()?;
        assert_eq!(reason(&refused), Reason::CampaignClosed);
        Some(())
    })
    .await;
    let now = timestamp(Timestamp::now());
    let close_time = closing.close_time.context("a time")?;
    assert!((now.seconds, now.nanos) >= (close_time.seconds, close_time.nanos), "closed early");
    assert_eq!(sale.claim(&closing, user, "a").await?, coupon, "a repeat is answered after the window");
    sale.mesh.stop().await
}

#[tokio::test]
async fn an_unknown_campaign_is_not_found() -> Result<()> {
    let sale = Sale::open().await?;
    let campaign_id = CampaignId::from_uuid(Uuid::from_u128(42)).to_string();
    let unknown = Campaign { campaign_id, ..Campaign::default() };
    let refused = sale.claim(&unknown, buyer(), "a").await.expect_err("no such campaign");
    assert_eq!(reason(&refused), Reason::CampaignNotFound);
    sale.mesh.stop().await
}
