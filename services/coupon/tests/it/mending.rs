//! Crashes and losses: what was ranked is issued, what was issued is never issued again.

use crate::sale::{Sale, claim_patiently, new_campaign, reason};
use anyhow::Result;
use futures_util::future::join_all;
use redis::AsyncCommands;
use stampede_lua::coupon::{self, Outcome};
use stampede_proto::{
    convert::timestamp,
    coupon::v1::{Campaign, CreateCampaignRequest, GetCouponRequest},
};
use stampede_status::Reason;
use stampede_testkit::{AdminRedis, MeshBuilder, Service, as_buyer, buyer, eventually};
use stampede_vocab::{CampaignId, CouponId, RequestId, Timestamp, UserId};
use std::time::Duration;
use tokio::time::sleep;

/// The campaign's two keys, and a connection to read and write them as a failing server would.
async fn keys(sale: &Sale, campaign: &Campaign) -> Result<(AdminRedis, String, String)> {
    let id: CampaignId = campaign.campaign_id.parse()?;
    Ok((sale.world.admin_redis().await?, sale.redis.keys().coupon_campaign(id), sale.redis.keys().coupon_pending(id)))
}

fn users(count: usize) -> Vec<UserId> {
    (0..count).map(|_| buyer()).collect()
}

#[tokio::test]
async fn a_claim_that_was_ranked_and_not_stored_is_finished_by_the_sweep() -> Result<()> {
    let sale = Sale::open().await?;
    let campaign = sale.campaign(10).await?;
    let (user, id) = (buyer(), campaign.campaign_id.parse()?);
    // The state that a replica leaves behind when it dies between the rank and the row.
    let claims = [(user, RequestId::parse("a")?)];
    let outcomes = coupon::claim(&sale.redis, id, &claims).await?;
    assert!(matches!(&outcomes[..], [Outcome::Ranked(ranked)] if ranked.rank == 1), "{outcomes:?}");

    let request = GetCouponRequest { coupon_id: CouponId::derive(id, user).to_string() };
    let finished = eventually("the sweep stores it", || async {
        sale.client.clone().get_coupon(as_buyer(user, request.clone())).await.ok()?.into_inner().coupon
    })
    .await;
    assert_eq!(finished.rank, 1);
    assert_eq!(sale.claim(&campaign, user, "a").await?, finished);
    assert!(sale.each_is_published_once().await?);
    eventually("it is acknowledged", || async {
        coupon::snapshot(&sale.redis, id).await.ok()?.filter(|progress| progress.pending == 0)
    })
    .await;
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_repeat_finishes_a_claim_before_the_sweep_and_under_the_request_that_was_ranked() -> Result<()> {
    let sale = Sale::open().await?;
    let campaign = sale.campaign(10).await?;
    let (user, id) = (buyer(), campaign.campaign_id.parse()?);
    coupon::claim(&sale.redis, id, &[(user, RequestId::parse("ranked")?)]).await?;
    let other = sale.claim(&campaign, user, "other").await.expect_err("another request was ranked");
    assert_eq!(reason(&other), Reason::AlreadyClaimed);
    assert_eq!(sale.claim(&campaign, user, "ranked").await?.rank, 1);
    assert!(sale.each_is_published_once().await?);
    sale.mesh.stop().await
}

#[tokio::test]
async fn replicas_that_store_the_same_claims_do_not_distrust_redis() -> Result<()> {
    let sale = Sale::open().await?;
    let replica = sale.replica().await?;
    let campaign = sale.campaign(600).await?;
    let (mut redis, key, _) = keys(&sale, &campaign).await?;
    let id = campaign.campaign_id.parse()?;
    let epoch: i64 = redis.hget(&key, "epoch").await?;
    for crowd in users(600).chunks(200) {
        // Ranked and not stored: each of the repeats below finds the rank and no row, and stores the claim.
        let claims: Vec<_> = crowd.iter().map(|user| (*user, RequestId::parse("a").expect("an id"))).collect();
        coupon::claim(&sale.redis, id, &claims).await?;
        let clients = [sale.client.clone(), replica.coupon()];
        let repeats = clients.iter().cycle().take(6).flat_map(|client| crowd.iter().map(move |user| (client, *user)));
        let answers = repeats.map(|(client, user)| claim_patiently(client, &campaign, user));
        for answer in join_all(answers).await {
            answer?;
        }
    }
    assert_eq!(redis.hget::<_, _, i64>(&key, "epoch").await?, epoch, "the campaign was rebuilt for nothing");
    assert_eq!(sale.stored_ranks().await?, (1..=600).collect::<Vec<_>>());
    assert!(sale.each_is_published_once().await?);
    replica.stop().await?;
    sale.mesh.stop().await
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9_in_the_middle_of_a_crowd() -> Result<()> {
    let mut sale = Sale::open().await?;
    let campaign = sale.campaign(150).await?;
    let users = users(300);
    let (before, rest) = users.split_at(100);
    let acknowledged = sale.crowd(&campaign, before).await;
    let broken = {
        let crowd = sale.crowd(&campaign, rest);
        tokio::time::timeout(Duration::from_millis(5), crowd).await
    };
    assert!(broken.is_err(), "the crowd was served before the kill");
    sale.mesh.kill_9(Service::Coupon)?;
    sale.mesh.restart(Service::Coupon).await?;

    let mut ranks = Vec::new();
    for outcome in join_all(users.iter().map(|user| sale.claim_patiently(&campaign, *user))).await {
        match outcome {
            Ok(coupon) => ranks.push(coupon.rank),
            Err(refused) => assert_eq!(reason(&refused), Reason::SoldOut, "{refused}"),
        }
    }
    for (user, first) in before.iter().zip(acknowledged) {
        assert_eq!(sale.claim_patiently(&campaign, *user).await?, first?);
    }
    ranks.sort_unstable();
    assert_eq!(ranks, (1..=150).collect::<Vec<_>>(), "what was ranked before the kill is issued after it");
    assert_eq!(sale.stored_ranks().await?, ranks);
    assert!(sale.each_is_published_once().await?);
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_campaign_that_redis_has_lost_is_rebuilt_and_goes_on() -> Result<()> {
    let sale = Sale::open().await?;
    let campaign = sale.campaign(12).await?;
    let first = users(10);
    let issued = sale.crowd(&campaign, &first).await;
    let (mut redis, key, pending) = keys(&sale, &campaign).await?;
    let () = redis.del(&[key, pending]).await?;

    let next = sale.claim_patiently(&campaign, buyer()).await?;
    assert_eq!(next.rank, 11);
    for (user, coupon) in first.iter().zip(issued) {
        assert_eq!(sale.claim(&campaign, *user, "a").await?, coupon?);
    }
    assert_eq!(sale.claim(&campaign, buyer(), "a").await?.rank, 12);
    assert_eq!(reason(&sale.claim(&campaign, buyer(), "a").await.expect_err("quota")), Reason::SoldOut);
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_claim_that_may_still_be_stored_is_not_answered_as_closed() -> Result<()> {
    // Longer than the test: its sweep leaves the claim alone.
    let settings = MeshBuilder::default().set(Service::Coupon, "STAMPEDE_COUPON_UNFINISHED_CLAIM_AGE_MS", 600_000);
    let sale = Sale::open_with(settings, [Service::Coupon]).await?;
    let close_time = Timestamp::now().plus(Duration::from_secs(3));
    let request = CreateCampaignRequest { close_time: Some(timestamp(close_time)), ..new_campaign("closing") };
    let campaign = sale.create(request).await?;
    let (mut redis, key, _) = keys(&sale, &campaign).await?;
    let (user, id) = (buyer(), campaign.campaign_id.parse()?);
    let outcomes = coupon::claim(&sale.redis, id, &[(user, RequestId::parse("a")?)]).await?;
    assert!(matches!(&outcomes[..], [Outcome::Ranked(_)]), "{outcomes:?}");
    sleep(close_time.since(Timestamp::now()) + Duration::from_millis(200)).await;
    // After a failover nobody trusts the campaign, and it is over: it is not staged again.
    let () = redis.del(&key).await?;

    for claimer in [user, buyer()] {
        let refused = sale.claim(&campaign, claimer, "a").await.expect_err("it is not stored");
        assert_eq!(reason(&refused), Reason::NotReady, "nobody knows yet");
    }
    let replica = sale.replica().await?;
    assert_eq!(sale.claim_patiently(&campaign, user).await?.rank, 1);
    sale.settle().await?;
    let newcomer = sale.claim(&campaign, buyer(), "a").await.expect_err("it is over");
    assert_eq!(reason(&newcomer), Reason::CampaignClosed);
    replica.stop().await?;
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_redis_that_was_rolled_back_issues_nothing_twice() -> Result<()> {
    let sale = Sale::open().await?;
    let campaign = sale.campaign(30).await?;
    let (mut redis, key, _) = keys(&sale, &campaign).await?;
    sale.crowd(&campaign, &users(5)).await;
    let backup: Vec<u8> = redis::cmd("DUMP").arg(&key).query_async(&mut redis).await?;
    let forgotten = users(10);
    let issued = sale.crowd(&campaign, &forgotten).await;
    let restore = redis::cmd("RESTORE").arg(&key).arg(0).arg(backup).arg("REPLACE").to_owned();
    let () = restore.query_async(&mut redis).await?;

    // Newcomers get ranks that are taken, and those forgotten get a second one; neither is issued.
    let newcomers = users(5);
    for outcome in sale.crowd(&campaign, &newcomers).await {
        assert!(outcome.is_ok() || outcome.is_err_and(|refused| reason(&refused) == Reason::NotReady));
    }
    for (user, coupon) in forgotten.iter().zip(issued) {
        assert_eq!(sale.claim_patiently(&campaign, *user).await?, coupon?);
    }
    for user in &newcomers {
        sale.claim_patiently(&campaign, *user).await?;
    }
    assert_eq!(sale.stored_ranks().await?, (1..=20).collect::<Vec<_>>());
    assert!(sale.each_is_published_once().await?);
    sale.mesh.stop().await
}
