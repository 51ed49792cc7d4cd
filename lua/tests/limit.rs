//! What callers may do, on a real Redis: acts in their time, open orders, and the list of revoked logins.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use stampede_lua::{
    Redis, RedisConfig,
    gate::{self, Admission, Bucket, OpenOrders, Timestamp, UserId},
};
use stampede_vocab::OrderId;
use std::time::Duration;
use uuid::Uuid;

const MINUTE: Duration = Duration::from_secs(60);

async fn redis() -> Redis {
    let url = std::env::var("STAMPEDE_TEST_REDIS_URL").expect("STAMPEDE_TEST_REDIS_URL names the Redis of the tests");
    Redis::connect(RedisConfig { url, key_prefix: format!("test-limit:{}:", UserId::random()) }).await.unwrap()
}

fn bucket(subject: &str, burst: u64, interval: Duration) -> Bucket<'_> {
    Bucket { subject, act: "claim", burst, interval }
}

fn order(number: u128) -> OrderId {
    OrderId::from_uuid(Uuid::from_u128(number))
}

async fn admit(redis: &Redis, bucket: Bucket<'_>) -> Admission {
    gate::admit(redis, bucket, None).await.unwrap()
}

#[tokio::test]
async fn so_many_acts_are_admitted_at_once_and_the_next_after_its_time() {
    let redis = redis().await;
    let three = bucket("usr_1", 3, MINUTE);
    for _ in 0..3 {
        assert_eq!(admit(&redis, three).await, Admission::Admitted);
    }
    for _ in 0..3 {
        match admit(&redis, three).await {
            Admission::Throttled(wait) => assert!(wait > MINUTE / 2 && wait <= MINUTE, "{wait:?}"),
            other => panic!("a refusal costs nothing, and admits nothing: {other:?}"),
        }
    }
    assert_eq!(admit(&redis, bucket("usr_2", 3, MINUTE)).await, Admission::Admitted, "each has a bucket of its own");
    let pay = Bucket { act: "pay", ..three };
    assert_eq!(admit(&redis, pay).await, Admission::Admitted, "for each act");
}

#[tokio::test]
async fn a_bucket_makes_room_with_time() {
    let redis = redis().await;
    let quick = bucket("usr_1", 1, Duration::from_millis(200));
    assert_eq!(admit(&redis, quick).await, Admission::Admitted);
    let Admission::Throttled(wait) = admit(&redis, quick).await else { panic!("it has room for one") };
    tokio::time::sleep(wait + Duration::from_millis(20)).await;
    assert_eq!(admit(&redis, quick).await, Admission::Admitted);
}

#[tokio::test]
async fn of_many_at_once_no_more_are_admitted() {
    let redis = redis().await;
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let redis = redis.clone();
        tries.spawn(async move { admit(&redis, bucket("usr_1", 5, MINUTE)).await });
    }
    let outcomes = tries.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Admission::Admitted).count(), 5);
}

#[tokio::test]
async fn nothing_is_kept_of_a_bucket_that_is_empty_again() {
    let server = stampede_testkit::OwnRedis::start(&[]).await.unwrap();
    let redis = Redis::connect(RedisConfig { url: server.url(), key_prefix: String::new() }).await.unwrap();
    assert_eq!(admit(&redis, bucket("usr_1", 5, Duration::from_millis(50))).await, Admission::Admitted);
    stampede_testkit::eventually("the key is gone", || async { (server.keys().await.unwrap() == 0).then_some(()) })
        .await;
}

async fn place(redis: &Redis, number: u128) -> Admission {
    let open = OpenOrders { most: 2, order: order(number) };
    let admission = gate::admit(redis, bucket("usr_1", 100, MINUTE), Some(open)).await.unwrap();
    if admission == Admission::Admitted {
        gate::placed(redis, "usr_1", order(number), MINUTE).await.unwrap();
    }
    admission
}

#[tokio::test]
async fn open_orders_are_bounded_until_one_is_settled_and_a_repeat_is_no_new_one() {
    let redis = redis().await;
    assert_eq!(place(&redis, 1).await, Admission::Admitted);
    assert_eq!(place(&redis, 2).await, Admission::Admitted);
    match place(&redis, 3).await {
        Admission::Open(wait) => assert!(wait > MINUTE / 2 && wait <= MINUTE, "{wait:?}"),
        other => panic!("two are open: {other:?}"),
    }
    assert_eq!(place(&redis, 1).await, Admission::Admitted, "it is one of the two");
    gate::settled(&redis, "usr_1", order(1)).await.unwrap();
    assert_eq!(place(&redis, 3).await, Admission::Admitted);
    assert!(matches!(place(&redis, 4).await, Admission::Open(_)));
}

#[tokio::test]
async fn an_order_counts_as_open_for_its_time_alone() {
    let redis = redis().await;
    let short = Duration::from_millis(200);
    gate::placed(&redis, "usr_1", order(1), short).await.unwrap();
    let asked = OpenOrders { most: 1, order: order(2) };
    let admission = gate::admit(&redis, bucket("usr_1", 9, MINUTE), Some(asked)).await.unwrap();
    assert!(matches!(admission, Admission::Open(wait) if wait <= short), "{admission:?}");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(gate::admit(&redis, bucket("usr_1", 9, MINUTE), Some(asked)).await.unwrap(), Admission::Admitted);
}

#[tokio::test]
async fn a_revoked_login_is_read_by_all_and_once() {
    let redis = redis().await;
    let now = gate::epoch(&redis, "fresh").await.unwrap().now;
    let read = async |since| gate::revoked_since(&redis, since).await.unwrap();
    assert!(read(Timestamp::from_micros(0)).await.0.is_empty());
    for _ in 0..3 {
        assert!(gate::revoke(&redis, "login-1", now.plus(MINUTE)).await.unwrap());
    }
    let (revoked, since) = read(Timestamp::from_micros(0)).await;
    let logins: Vec<_> = revoked.iter().map(|one| one.login.as_str()).collect();
    assert_eq!(logins, ["login-1"]);
    assert!(revoked[0].until >= now.plus(MINUTE) && revoked[0].until <= now.plus(2 * MINUTE), "{revoked:?}");
    assert!(gate::revoke(&redis, "login-2", now.plus(MINUTE)).await.unwrap());
    let (later, _) = read(since).await;
    assert_eq!(later.last().map(|one| one.login.as_str()), Some("login-2"));
}

#[tokio::test]
async fn a_revocation_is_forgotten_when_its_tokens_have_expired() {
    let redis = redis().await;
    let long_ago = Timestamp::from_micros(1_000_000);
    assert!(gate::revoke(&redis, "old", long_ago).await.unwrap());
    let later = gate::epoch(&redis, "fresh").await.unwrap().now.plus(MINUTE);
    assert!(gate::revoke(&redis, "new", later).await.unwrap());
    let (revoked, _) = gate::revoked_since(&redis, Timestamp::from_micros(0)).await.unwrap();
    assert_eq!(revoked.iter().map(|one| one.login.as_str()).collect::<Vec<_>>(), ["new"]);
}
