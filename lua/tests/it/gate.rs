//! Refresh tokens on a real Redis: rotation, reuse, repeats, expiry, and the end of a login.

use stampede_lua::{
    Redis, RedisConfig,
    gate::{self, Epoch, FirstToken, Next, Rotation, UserId},
};
use std::time::Duration;

const LIFE: Duration = Duration::from_secs(60);
const REPEAT: Duration = Duration::from_secs(60);

async fn redis() -> Redis {
    let url = std::env::var("STAMPEDE_TEST_REDIS_URL").expect("STAMPEDE_TEST_REDIS_URL names the Redis of the tests");
    Redis::connect(RedisConfig { url, key_prefix: format!("test-gate:{}:", UserId::random()) }).await.unwrap()
}

/// The first token of a family that nobody else uses, named after its user.
async fn first(redis: &Redis, life: Duration) -> FirstToken {
    let user = UserId::random();
    let epoch = gate::epoch(redis, "fresh").await.unwrap();
    FirstToken {
        family: user.to_string(),
        user,
        role: "buyer".to_owned(),
        epoch: epoch.name,
        expires_at: epoch.now.plus(life),
    }
}

async fn open(redis: &Redis, first: &FirstToken, next: &str, life: Duration) -> Rotation {
    let epoch = gate::epoch(redis, "fresh").await.unwrap();
    let hashes = [next.to_owned()];
    gate::open(redis, first, &epoch, Next { hashes: &hashes, life, repeat: REPEAT }).await.unwrap()
}

/// A family whose valid token is `hash-1`.
async fn family(redis: &Redis, life: Duration) -> (String, UserId) {
    let first = first(redis, life).await;
    assert!(matches!(open(redis, &first, "hash-1", life).await, Rotation::Rotated { .. }));
    (first.family, first.user)
}

async fn rotate(redis: &Redis, family: &str, presented: &str, next: &str) -> Rotation {
    rotate_to(redis, family, presented, &[next], LIFE, REPEAT).await
}

async fn rotate_to(
    redis: &Redis,
    family: &str,
    presented: &str,
    next: &[&str],
    life: Duration,
    repeat: Duration,
) -> Rotation {
    let hashes: Vec<_> = next.iter().map(|hash| (*hash).to_owned()).collect();
    gate::rotate(redis, family, presented, Next { hashes: &hashes, life, repeat }).await.unwrap()
}

/// Returns the index of the valid token among the hashes given.
fn which(rotation: &Rotation) -> Option<usize> {
    match rotation {
        Rotation::Rotated { next, .. } => Some(*next),
        _ => None,
    }
}

#[tokio::test]
async fn a_first_token_opens_its_family_once_and_its_copy_shuts_it() {
    let redis = redis().await;
    let first = first(&redis, LIFE).await;
    assert_eq!(rotate(&redis, &first.family, "hash-0", "hash-1").await, Rotation::Unknown, "nothing is kept of it");
    match open(&redis, &first, "hash-1", LIFE).await {
        Rotation::Rotated { user, role, .. } => assert_eq!((user, role), (first.user, first.role.clone())),
        other => panic!("refused: {other:?}"),
    }
    assert_eq!(open(&redis, &first, "hash-x", LIFE).await, Rotation::Reused);
    assert_eq!(rotate(&redis, &first.family, "hash-1", "hash-2").await, Rotation::Reused, "the valid one goes with it");
}

#[tokio::test]
async fn a_first_token_is_remembered_as_used_until_its_time_is_up() {
    let redis = redis().await;
    let kept = first(&redis, LIFE).await;
    // Later tokens live shorter than the first one: the family is kept for the first one's sake.
    let short = Duration::from_millis(20);
    assert!(matches!(open(&redis, &kept, "hash-1", short).await, Rotation::Rotated { .. }));
    let rotated = rotate_to(&redis, &kept.family, "hash-1", &["hash-2"], short, REPEAT).await;
    assert!(matches!(rotated, Rotation::Rotated { .. }));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(open(&redis, &kept, "hash-x", LIFE).await, Rotation::Reused);

    let brief = first(&redis, Duration::from_millis(500)).await;
    assert!(matches!(open(&redis, &brief, "hash-1", short).await, Rotation::Rotated { .. }));
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(open(&redis, &brief, "hash-x", LIFE).await, Rotation::Unknown, "its time is up");
}

#[tokio::test]
async fn a_first_token_of_an_epoch_that_is_gone_is_unknown() {
    let redis = redis().await;
    let first = first(&redis, LIFE).await;
    let epoch = gate::epoch(&redis, "fresh").await.unwrap();
    assert_eq!(epoch.name, first.epoch, "an epoch lasts");
    let emptied = Epoch { name: "another".to_owned(), ..epoch };
    let hashes = ["hash-1".to_owned()];
    let next = Next { hashes: &hashes, life: LIFE, repeat: REPEAT };
    assert_eq!(gate::open(&redis, &first, &emptied, next).await.unwrap(), Rotation::Unknown);
}

#[tokio::test]
async fn a_valid_token_is_exchanged_again_and_again() {
    let redis = redis().await;
    let (family, user) = family(&redis, LIFE).await;
    for (presented, next) in [("hash-1", "hash-2"), ("hash-2", "hash-3"), ("hash-3", "hash-4")] {
        match rotate(&redis, &family, presented, next).await {
            Rotation::Rotated { user: owner, role, at, .. } => {
                assert_eq!((owner, role.as_str()), (user, "buyer"));
                let now = gate::epoch(&redis, "fresh").await.unwrap().now;
                assert!(now.since(at) < Duration::from_secs(5) && at <= now, "{at:?} is not the time of Redis");
            }
            other => panic!("{presented} was refused: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_used_token_is_refused_and_shuts_its_family() {
    let redis = redis().await;
    let (family, _) = family(&redis, LIFE).await;
    assert!(matches!(rotate(&redis, &family, "hash-1", "hash-2").await, Rotation::Rotated { .. }));
    assert_eq!(rotate(&redis, &family, "hash-1", "hash-x").await, Rotation::Reused);
    assert_eq!(rotate(&redis, &family, "hash-2", "hash-3").await, Rotation::Reused, "the valid one goes with it");
    assert_eq!(rotate(&redis, &family, "", "hash-3").await, Rotation::Reused, "nothing opens it again");
}

#[tokio::test]
async fn a_repeat_of_a_call_that_opened_a_family_gets_the_same_answer() {
    let redis = redis().await;
    let first = first(&redis, LIFE).await;
    let opened = open(&redis, &first, "hash-1", LIFE).await;
    assert!(matches!(opened, Rotation::Rotated { .. }));
    assert_eq!(open(&redis, &first, "hash-1", LIFE).await, opened);
    assert!(matches!(rotate(&redis, &first.family, "hash-1", "hash-2").await, Rotation::Rotated { .. }), "still open");
    assert_eq!(open(&redis, &first, "hash-x", LIFE).await, Rotation::Reused, "another call has a copy");
    assert_eq!(open(&redis, &first, "hash-x", LIFE).await, Rotation::Reused, "and its repeat gets the same");
}

#[tokio::test]
async fn a_repeat_is_answered_after_the_time_of_the_first_token() {
    let redis = redis().await;
    let first = first(&redis, Duration::from_millis(300)).await;
    let opened = open(&redis, &first, "hash-1", LIFE).await;
    assert!(matches!(opened, Rotation::Rotated { .. }));
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(open(&redis, &first, "hash-1", LIFE).await, opened);
    assert_eq!(open(&redis, &first, "hash-x", LIFE).await, Rotation::Unknown);
}

#[tokio::test]
async fn a_repeat_of_a_call_that_rotated_gets_the_same_answer() {
    let redis = redis().await;
    let (family, _) = family(&redis, LIFE).await;
    let rotated = rotate(&redis, &family, "hash-1", "hash-2").await;
    assert!(matches!(rotated, Rotation::Rotated { .. }));
    assert_eq!(rotate(&redis, &family, "hash-1", "hash-2").await, rotated);
    assert!(matches!(rotate(&redis, &family, "hash-2", "hash-3").await, Rotation::Rotated { .. }), "still open");
    assert_eq!(rotate(&redis, &family, "hash-2", "hash-x").await, Rotation::Reused, "another call has a copy");
    assert_eq!(rotate(&redis, &family, "hash-2", "hash-x").await, Rotation::Reused, "and its repeat gets the same");
}

#[tokio::test]
async fn a_repeat_does_not_open_a_family_that_was_shut_in_between() {
    let redis = redis().await;
    let (family, _) = family(&redis, LIFE).await;
    assert!(matches!(rotate(&redis, &family, "hash-1", "hash-2").await, Rotation::Rotated { .. }));
    assert_eq!(rotate(&redis, &family, "hash-1", "hash-x").await, Rotation::Reused);
    assert_eq!(rotate(&redis, &family, "hash-1", "hash-2").await, Rotation::Reused);
}

#[tokio::test]
async fn of_many_at_once_only_one_is_exchanged() {
    let redis = redis().await;
    let (family, _) = family(&redis, LIFE).await;
    let mut tries = tokio::task::JoinSet::new();
    for n in 0..16 {
        let (redis, family) = (redis.clone(), family.clone());
        tries.spawn(async move { rotate(&redis, &family, "hash-1", &format!("next-{n}")).await });
    }
    let outcomes = tries.join_all().await;
    let rotated = outcomes.iter().filter(|outcome| matches!(outcome, Rotation::Rotated { .. })).count();
    let reused = outcomes.iter().filter(|outcome| **outcome == Rotation::Reused).count();
    assert_eq!((rotated, reused), (1, 15));
}

#[tokio::test]
async fn a_family_ends_with_its_time() {
    let redis = redis().await;
    let (family, _) = family(&redis, Duration::from_millis(300)).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(rotate(&redis, &family, "hash-1", "hash-2").await, Rotation::Unknown);
}

#[tokio::test]
async fn a_rotation_prolongs_the_family() {
    let redis = redis().await;
    let (family, _) = family(&redis, Duration::from_millis(300)).await;
    assert!(matches!(rotate(&redis, &family, "hash-1", "hash-2").await, Rotation::Rotated { .. }));
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(matches!(rotate(&redis, &family, "hash-2", "hash-3").await, Rotation::Rotated { .. }));
}

#[tokio::test]
async fn what_was_never_issued_is_unknown() {
    let redis = redis().await;
    assert_eq!(rotate(&redis, &UserId::random().to_string(), "hash-1", "hash-2").await, Rotation::Unknown);
}

#[tokio::test]
async fn a_lost_answer_can_be_had_again_for_a_while_and_then_its_token_shuts_the_family() {
    let redis = redis().await;
    let (family, _) = family(&redis, LIFE).await;
    let short = Duration::from_millis(300);
    let rotated = rotate_to(&redis, &family, "hash-1", &["hash-2"], LIFE, short).await;
    assert_eq!(rotate_to(&redis, &family, "hash-1", &["hash-2"], LIFE, short).await, rotated);
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(rotate_to(&redis, &family, "hash-1", &["hash-2"], LIFE, short).await, Rotation::Reused);
    assert_eq!(rotate(&redis, &family, "hash-2", "hash-3").await, Rotation::Reused, "the valid one goes with it");
}

#[tokio::test]
async fn a_repeat_is_known_by_whichever_key_its_answer_was_made_with() {
    let redis = redis().await;
    let (family, _) = family(&redis, LIFE).await;
    assert_eq!(which(&rotate_to(&redis, &family, "hash-1", &["old-2", "new-2"], LIFE, REPEAT).await), Some(0));
    // Another replica, which signs with the new key already, gets the repeat.
    assert_eq!(which(&rotate_to(&redis, &family, "hash-1", &["new-2", "old-2"], LIFE, REPEAT).await), Some(1));
    assert_eq!(which(&rotate_to(&redis, &family, "old-2", &["new-3", "old-3"], LIFE, REPEAT).await), Some(0));
    assert_eq!(which(&rotate(&redis, &family, "new-3", "new-4").await), Some(0));
}

#[tokio::test]
async fn a_login_that_its_owner_ended_takes_no_token_any_more() {
    let redis = redis().await;
    let (family, _) = family(&redis, LIFE).await;
    assert!(!gate::end(&redis, &family, Some("hash-x"), LIFE).await.unwrap(), "that is not the valid token");
    assert!(gate::end(&redis, &family, Some("hash-1"), LIFE).await.unwrap());
    assert_eq!(rotate(&redis, &family, "hash-1", "hash-2").await, Rotation::Ended);
    assert!(!gate::end(&redis, &UserId::random().to_string(), Some("hash-1"), LIFE).await.unwrap(), "there is none");
}

#[tokio::test]
async fn a_login_can_be_ended_before_its_first_token_is_used() {
    let redis = redis().await;
    let first = first(&redis, LIFE).await;
    assert!(gate::end(&redis, &first.family, None, LIFE).await.unwrap());
    assert_eq!(open(&redis, &first, "hash-1", LIFE).await, Rotation::Ended);
}
