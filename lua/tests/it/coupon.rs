//! The coupon scripts on a real Redis: quota, one a user, dense ranks, window, acknowledging, staging and rebuilding.
//!
//! Every test has a key prefix of its own, so they may run at once.

use stampede_lua::{
    Redis, RedisConfig,
    coupon::{self, Loaded, MAX_CLAIMS, Outcome, Plan, Ranked, Staging},
};
use stampede_testkit::{AdminRedis, OwnRedis};
use stampede_vocab::{CampaignId, RequestId, Timestamp, UserId};
use std::time::Duration;
use uuid::Uuid;

const HOUR_US: i64 = 3_600_000_000;
const ALWAYS: Plan = Plan {
    quota: 3,
    open_time: Timestamp::from_micros(0),
    close_time: Timestamp::from_micros(i64::MAX / 4096),
    expires_at: Timestamp::from_micros(i64::MAX / 4096),
};

struct Campaign {
    redis: Redis,
    id: CampaignId,
}

impl Campaign {
    /// A campaign nobody has staged.
    async fn missing() -> Self {
        let url = std::env::var("STAMPEDE_TEST_REDIS_URL").expect("STAMPEDE_TEST_REDIS_URL names a Redis to test on");
        let unique = UserId::random();
        let redis = Redis::connect(RedisConfig { url, key_prefix: format!("t:{unique}:") }).await.unwrap();
        Self { redis, id: CampaignId::from_uuid(unique.uuid()) }
    }

    async fn staged(plan: Plan) -> Self {
        let campaign = Self::missing().await;
        campaign.open(plan, None).await;
        campaign
    }

    /// Stages it without coupons. Returns the epoch.
    async fn open(&self, plan: Plan, invalid_epoch: Option<i64>) -> i64 {
        let epoch = self.start(plan, invalid_epoch).await;
        assert_eq!(self.load(epoch, &[], true).await, Loaded::Ready);
        epoch
    }

    async fn start(&self, plan: Plan, invalid_epoch: Option<i64>) -> i64 {
        match coupon::stage(&self.redis, self.id, plan, invalid_epoch).await.unwrap() {
            Staging::Loading { epoch } => epoch,
            Staging::Ready => panic!("was staged already"),
        }
    }

    async fn load(&self, epoch: i64, page: &[(UserId, i32)], is_last: bool) -> Loaded {
        coupon::load(&self.redis, self.id, epoch, page, is_last).await.unwrap()
    }

    async fn claim(&self, claims: &[(u128, &str)]) -> Vec<Outcome> {
        let claims: Vec<_> = claims.iter().map(|(n, request)| (user(*n), RequestId::parse(request).unwrap())).collect();
        coupon::claim(&self.redis, self.id, &claims).await.unwrap()
    }

    async fn rank(&self, n: u128, request: &str) -> Ranked {
        match self.claim(&[(n, request)]).await.remove(0) {
            Outcome::Ranked(ranked) => ranked,
            other => panic!("not ranked: {other:?}"),
        }
    }

    async fn pending(&self, age: Duration) -> Vec<Ranked> {
        let (mut claims, mut cursor) = (Vec::new(), Some(0));
        while let Some(from) = cursor {
            let page = coupon::pending(&self.redis, self.id, age, from).await.unwrap();
            claims.extend(page.claims);
            cursor = page.next;
        }
        claims
    }

    async fn acknowledge(&self, n: u128, rank: i32) -> i64 {
        coupon::acknowledge(&self.redis, self.id, &[(user(n), rank)]).await.unwrap()
    }

    async fn issued(&self) -> i32 {
        coupon::snapshot(&self.redis, self.id).await.unwrap().unwrap().issued
    }
}

fn user(n: u128) -> UserId {
    UserId::from_uuid(Uuid::from_u128(n))
}

fn ranks(outcomes: &[Outcome]) -> Vec<i32> {
    let rank = |outcome: &Outcome| match outcome {
        Outcome::Ranked(ranked) => Some(ranked.rank),
        _ => None,
    };
    outcomes.iter().filter_map(rank).collect()
}

#[tokio::test]
async fn a_missing_campaign_is_not_ready_and_never_sold_out() {
    let campaign = Campaign::missing().await;
    assert_eq!(campaign.claim(&[(1, "a"), (2, "b")]).await, [Outcome::NotReady, Outcome::NotReady]);
    assert_eq!(coupon::snapshot(&campaign.redis, campaign.id).await.unwrap(), None);
}

#[tokio::test]
async fn ranks_are_dense_and_end_at_the_quota() {
    let campaign = Campaign::staged(ALWAYS).await;
    let first = campaign.claim(&[(1, "a"), (2, "a")]).await;
    assert_eq!(ranks(&first), [1, 2]);
    let second = campaign.claim(&[(3, "a"), (4, "a"), (5, "a")]).await;
    assert_eq!(ranks(&second), [3]);
    assert_eq!(second[1..], [Outcome::SoldOut, Outcome::SoldOut]);
    assert_eq!(campaign.issued().await, 3);
}

#[tokio::test]
async fn a_user_has_one_rank_however_often_they_ask() {
    let campaign = Campaign::staged(ALWAYS).await;
    let outcomes = campaign.claim(&[(1, "a"), (1, "b"), (2, "a")]).await;
    let Outcome::Ranked(first) = &outcomes[0] else { panic!("{outcomes:?}") };
    assert_eq!(outcomes[1], Outcome::Pending(first.clone()), "the later claim sees the one that was ranked");
    assert_eq!(ranks(&outcomes), [1, 2]);
    assert_eq!(campaign.claim(&[(1, "c")]).await, [Outcome::Pending(first.clone())]);
    assert_eq!(campaign.issued().await, 2);
}

#[tokio::test]
async fn concurrent_batches_give_each_rank_once() {
    let quota = 1_000;
    let campaign = Campaign::staged(Plan { quota, ..ALWAYS }).await;
    let batch = |from: u128| {
        let claims: Vec<_> = (from..from + 256).map(|n| (user(n), RequestId::parse("a").unwrap())).collect();
        let (redis, id) = (campaign.redis.clone(), campaign.id);
        tokio::spawn(async move { coupon::claim(&redis, id, &claims).await.unwrap() })
    };
    // Users overlap between neighbours, so that the same user is in two batches at once.
    let batches: Vec<_> = (0..10).map(|i| batch(i * 128)).collect();
    let mut all = Vec::new();
    for batch in batches {
        all.extend(ranks(&batch.await.unwrap()));
    }
    all.sort_unstable();
    assert_eq!(all, (1..=quota).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_largest_batch_and_page_fit() {
    let campaign = Campaign::staged(Plan { quota: 10_000, ..ALWAYS }).await;
    let request = "x".repeat(64);
    let claims: Vec<_> = (0..MAX_CLAIMS as u128).map(|n| (n, request.as_str())).collect();
    assert_eq!(ranks(&campaign.claim(&claims).await).len(), MAX_CLAIMS);
    let acknowledged: Vec<_> = (0..MAX_CLAIMS as u128).zip(1..).map(|(n, rank)| (user(n), rank)).collect();
    assert_eq!(coupon::acknowledge(&campaign.redis, campaign.id, &acknowledged).await.unwrap(), MAX_CLAIMS as i64);

    let rebuilt = Campaign::missing().await;
    let epoch = rebuilt.start(Plan { quota: 10_000, ..ALWAYS }, None).await;
    let page: Vec<_> = (0..coupon::MAX_PAGE as u128).zip(1..).map(|(n, rank)| (user(n), rank)).collect();
    assert_eq!(rebuilt.load(epoch, &page, true).await, Loaded::Ready);
    assert_eq!(rebuilt.issued().await, 1_000);
}

#[tokio::test]
async fn the_window_is_that_of_the_server_and_a_repeat_is_answered_outside_it() {
    let campaign = Campaign::staged(ALWAYS).await;
    let now = campaign.rank(1, "a").await.claimed_at;
    let (past, future) = (Timestamp::from_micros(now.micros() - 1), Timestamp::from_micros(now.micros() + HOUR_US));

    let early = Campaign::staged(Plan { open_time: future, ..ALWAYS }).await;
    assert_eq!(early.claim(&[(1, "a")]).await, [Outcome::NotOpen]);
    let late = Campaign::staged(Plan { close_time: past, ..ALWAYS }).await;
    assert_eq!(late.claim(&[(1, "a")]).await, [Outcome::Closed]);

    let over = Campaign::missing().await;
    let epoch = over.start(Plan { close_time: past, ..ALWAYS }, None).await;
    over.load(epoch, &[(user(1), 1)], true).await;
    let outcomes = over.claim(&[(1, "a"), (2, "a")]).await;
    assert!(matches!(&outcomes[0], Outcome::Stored(ranked) if ranked.rank == 1), "{outcomes:?}");
    assert_eq!(outcomes[1], Outcome::Closed);
}

#[tokio::test]
async fn a_claim_is_pending_until_it_is_settled() {
    let campaign = Campaign::staged(ALWAYS).await;
    let ranked = campaign.rank(1, "with|pipes|in|it").await;
    assert_eq!(campaign.pending(Duration::ZERO).await, std::slice::from_ref(&ranked));
    assert_eq!(campaign.pending(Duration::from_secs(60)).await, [], "too young");

    assert_eq!(campaign.acknowledge(1, ranked.rank + 1).await, 0, "a newer claim of the user would have another rank");
    assert_eq!(campaign.acknowledge(1, ranked.rank).await, 1);
    assert_eq!(campaign.acknowledge(1, ranked.rank).await, 0);
    assert_eq!(campaign.pending(Duration::ZERO).await, []);
    assert!(matches!(&campaign.claim(&[(1, "b")]).await[0], Outcome::Stored(seen) if seen.rank == ranked.rank));
}

#[tokio::test]
async fn pending_pages_leave_nobody_out() {
    let campaign = Campaign::staged(Plan { quota: 5_000, ..ALWAYS }).await;
    for from in (0..2_000).step_by(200) {
        let claims: Vec<_> = (from..from + 200).map(|n| (n, "a")).collect();
        campaign.claim(&claims).await;
    }
    let mut found: Vec<_> = campaign.pending(Duration::ZERO).await.into_iter().map(|claim| claim.rank).collect();
    found.sort_unstable();
    found.dedup();
    assert_eq!(found, (1..=2_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn staging_again_changes_nothing() {
    let campaign = Campaign::staged(ALWAYS).await;
    campaign.rank(1, "a").await;
    let larger = Plan { quota: 99, ..ALWAYS };
    assert_eq!(coupon::stage(&campaign.redis, campaign.id, larger, None).await.unwrap(), Staging::Ready);
    let progress = coupon::snapshot(&campaign.redis, campaign.id).await.unwrap().unwrap();
    assert_eq!((progress.quota, progress.issued, progress.pending, progress.ready), (3, 1, 1, true));
}

#[tokio::test]
async fn a_campaign_opens_with_its_last_page_and_ranks_go_on_from_there() {
    let campaign = Campaign::missing().await;
    let plan = Plan { quota: 5, ..ALWAYS };
    let epoch = campaign.start(plan, None).await;
    assert_eq!(campaign.load(epoch, &[(user(1), 1), (user(2), 3)], false).await, Loaded::Page);
    assert_eq!(campaign.claim(&[(9, "a")]).await, [Outcome::NotReady]);
    assert_eq!(campaign.start(plan, None).await, epoch, "a second stager goes on under the same epoch");
    assert_eq!(campaign.load(epoch, &[(user(4), 4)], true).await, Loaded::Ready);

    let outcomes = campaign.claim(&[(2, "x"), (9, "a"), (10, "a")]).await;
    assert!(matches!(&outcomes[0], Outcome::Stored(seen) if seen.rank == 3), "{outcomes:?}");
    assert_eq!((ranks(&outcomes), &outcomes[2]), (vec![5], &Outcome::SoldOut));
}

#[tokio::test]
async fn a_late_page_never_lowers_the_next_rank() {
    let campaign = Campaign::missing().await;
    let epoch = campaign.open(ALWAYS, None).await;
    campaign.claim(&[(1, "a"), (2, "a")]).await;
    assert_eq!(campaign.load(epoch, &[(user(1), 1)], true).await, Loaded::Ready);
    assert_eq!(campaign.rank(3, "a").await.rank, 3);
}

#[tokio::test]
async fn a_rebuild_forgets_what_was_not_stored_under_a_new_epoch() {
    let campaign = Campaign::missing().await;
    let wrong = campaign.open(ALWAYS, None).await;
    campaign.claim(&[(1, "a"), (2, "a")]).await;

    let epoch = campaign.start(ALWAYS, Some(wrong)).await;
    assert!(epoch > wrong);
    assert_eq!(campaign.claim(&[(1, "a")]).await, [Outcome::NotReady]);
    assert_eq!(campaign.pending(Duration::ZERO).await.len(), 2, "what was ranked may still be stored");
    assert_eq!(campaign.load(wrong, &[], true).await, Loaded::Superseded);
    assert_eq!(campaign.load(epoch, &[(user(2), 1)], true).await, Loaded::Ready);
    assert_eq!(campaign.rank(1, "b").await.rank, 2);

    let again = coupon::stage(&campaign.redis, campaign.id, ALWAYS, Some(wrong)).await.unwrap();
    assert_eq!(again, Staging::Ready, "whoever noticed late does not rebuild a second time");
}

#[tokio::test]
async fn a_page_for_a_campaign_that_is_gone_is_refused() {
    let campaign = Campaign::missing().await;
    assert_eq!(campaign.load(7, &[(user(1), 1)], true).await, Loaded::Superseded);
    assert_eq!(campaign.claim(&[(1, "a")]).await, [Outcome::NotReady]);
}

/// When Redis forgets these keys, in milliseconds since the epoch: -1 never, -2 if it has no such key.
pub async fn forgotten_at(keys: &[String]) -> Vec<i64> {
    let url = std::env::var("STAMPEDE_TEST_ADMIN_REDIS_URL").expect("STAMPEDE_TEST_ADMIN_REDIS_URL is set too");
    let mut conn = AdminRedis::connect(&url).await.unwrap();
    let mut times = Vec::new();
    for key in keys {
        times.push(redis::cmd("PEXPIRETIME").arg(key).query_async(&mut conn).await.unwrap());
    }
    times
}

#[tokio::test]
async fn a_campaign_is_kept_until_its_time_and_what_is_pending_longer() {
    let campaign = Campaign::missing().await;
    let keys = [campaign.redis.keys().coupon_campaign(campaign.id), campaign.redis.keys().coupon_pending(campaign.id)];
    let epoch = campaign.start(ALWAYS, None).await;
    let until = ALWAYS.expires_at.micros() / 1_000;
    assert_eq!(forgotten_at(&keys).await, [until, -2], "also one that is never loaded");
    campaign.load(epoch, &[(user(7), 1)], true).await;
    campaign.rank(1, "a").await;
    assert_eq!(forgotten_at(&keys).await, [until, -1], "a claim that is not stored is never forgotten");

    let later = Plan { expires_at: Timestamp::from_micros(ALWAYS.expires_at.micros() + HOUR_US), ..ALWAYS };
    coupon::stage(&campaign.redis, campaign.id, later, None).await.unwrap();
    assert_eq!(forgotten_at(&keys).await, [until, -1], "a look that finds it staged changes nothing");
}

#[tokio::test]
async fn a_campaign_whose_time_is_up_is_not_staged_again() {
    let campaign = Campaign::staged(ALWAYS).await;
    let ranked = campaign.rank(1, "a").await;
    let wrong = ranked.epoch;
    let over = Plan { expires_at: ranked.claimed_at, ..ALWAYS };
    let Staging::Loading { epoch } = coupon::stage(&campaign.redis, campaign.id, over, Some(wrong)).await.unwrap()
    else {
        panic!("it is not staged")
    };
    assert_eq!(campaign.load(epoch, &[], true).await, Loaded::Superseded);
    assert_eq!(coupon::snapshot(&campaign.redis, campaign.id).await.unwrap(), None);
    assert_eq!(campaign.claim(&[(2, "b")]).await, [Outcome::NotReady]);
    assert_eq!(campaign.pending(Duration::ZERO).await, [ranked], "what was ranked can still be stored");
}

#[tokio::test]
async fn what_was_staged_before_the_server_began_to_run_is_staged_again() {
    let server = OwnRedis::durable().await.unwrap();
    let config = RedisConfig { url: server.url(), key_prefix: "t:".to_owned() };
    let redis = Redis::connect(config).await.unwrap();
    let campaign = Campaign { redis, id: CampaignId::from_uuid(Uuid::from_u128(1)) };
    let before = campaign.open(ALWAYS, None).await;
    campaign.rank(1, "a").await;

    let _server = server.restart().await.unwrap();
    assert_eq!(campaign.claim(&[(1, "a"), (2, "b")]).await, [Outcome::NotReady, Outcome::NotReady]);
    assert!(!coupon::snapshot(&campaign.redis, campaign.id).await.unwrap().unwrap().ready);
    assert_eq!(campaign.load(before, &[], true).await, Loaded::Superseded, "it may be what an earlier copy lacks");

    let epoch = campaign.start(ALWAYS, None).await;
    assert!(epoch > before);
    assert_eq!(campaign.load(epoch, &[(user(1), 1)], true).await, Loaded::Ready);
    assert_eq!(campaign.rank(2, "b").await.rank, 2);
}
