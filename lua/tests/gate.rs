//! Refresh tokens on a real Redis: rotation, reuse, expiry.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use stampede_lua::{
    Redis, RedisConfig,
    gate::{self, Rotation, UserId},
};
use std::time::Duration;

const LIFE: Duration = Duration::from_secs(60);

async fn redis() -> Redis {
    let url = std::env::var("STAMPEDE_TEST_REDIS_URL").expect("STAMPEDE_TEST_REDIS_URL names the Redis of the tests");
    // Families are named at random by each test, so the prefix only has to tell them from other keys.
    Redis::connect(RedisConfig { url, key_prefix: "test-gate:".into() }).await.unwrap()
}

/// A family that nobody else uses, named after its user.
async fn family(redis: &Redis, life: Duration) -> (String, UserId) {
    let user = UserId::random();
    let family = user.to_string();
    gate::issue(redis, &family, user, "buyer", "hash-1", life).await.unwrap();
    (family, user)
}

async fn rotate(redis: &Redis, family: &str, presented: &str, next: &str) -> Rotation {
    gate::rotate(redis, family, presented, next, LIFE).await.unwrap()
}

#[tokio::test]
async fn a_valid_token_is_exchanged_again_and_again() {
    let redis = redis().await;
    let (family, user) = family(&redis, LIFE).await;
    for (presented, next) in [("hash-1", "hash-2"), ("hash-2", "hash-3"), ("hash-3", "hash-4")] {
        match rotate(&redis, &family, presented, next).await {
            Rotation::Rotated { user: owner, role, at } => {
                assert_eq!((owner, role.as_str()), (user, "buyer"));
                let now = redis.server_time().await.unwrap();
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
    let (family, _) = family(&redis, Duration::from_millis(30)).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
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
