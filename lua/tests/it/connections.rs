//! The connections to Redis on a server of the test's own that is slow or closes them.

use stampede_lua::{Redis, RedisConfig, coupon};
use stampede_testkit::OwnRedis;
use stampede_vocab::{CampaignId, clock};
use std::time::{Duration, Instant};
use uuid::Uuid;

async fn connect(server: &OwnRedis) -> Redis {
    Redis::connect(RedisConfig { url: server.url(), key_prefix: "t:".into() }).await.unwrap()
}

#[tokio::test]
async fn a_server_that_is_busy_for_a_second_is_waited_for() {
    let server = OwnRedis::start(&[]).await.unwrap();
    let redis = connect(&server).await;
    server.pause(Duration::from_secs(1)).await.unwrap();
    assert_eq!(coupon::snapshot(&redis, CampaignId::from_uuid(Uuid::nil())).await.unwrap(), None);
}

/// After what time a server that does not answer is given up.
async fn given_up_after() -> Duration {
    let server = OwnRedis::start(&[]).await.unwrap();
    let redis = connect(&server).await;
    server.pause(Duration::from_secs(60)).await.unwrap();
    let began = Instant::now();
    let error = coupon::snapshot(&redis, CampaignId::from_uuid(Uuid::nil())).await.unwrap_err();
    assert!(error.is_unreachable(), "{error}");
    began.elapsed()
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_after_two_seconds() {
    let (soonest, latest) = (Duration::from_millis(1_900), Duration::from_millis(3_500));
    // The quickest of three counts: the machine may be busy with other tests.
    let mut took: Vec<Duration> = Vec::new();
    while took.len() < 3 && took.last().is_none_or(|time| *time >= latest) {
        took.push(given_up_after().await);
    }
    assert!(took.last().is_some_and(|time| (soonest..latest).contains(time)), "{took:?}");
}

#[tokio::test]
async fn connections_that_the_server_closed_while_they_were_idle_are_replaced_unseen() {
    let server = OwnRedis::start(&[]).await.unwrap();
    let redis = connect(&server).await;
    let ask_often = || async {
        let asks = (0..16).map(|_| coupon::snapshot(&redis, CampaignId::from_uuid(Uuid::nil())));
        futures_util::future::join_all(asks).await.into_iter().filter(Result::is_err).count()
    };
    assert_eq!(ask_often().await, 0);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    server.disconnect_all().await.unwrap();
    assert_eq!(ask_often().await, 0);
}

#[tokio::test]
async fn connections_that_break_in_use_fail_no_call() {
    let server = OwnRedis::start(&[]).await.unwrap();
    let redis = connect(&server).await;
    for _ in 0..5 {
        let asks = (0..16).map(|_| coupon::snapshot(&redis, CampaignId::from_uuid(Uuid::nil())));
        let failed = futures_util::future::join_all(asks).await.into_iter().filter(Result::is_err).count();
        assert_eq!(failed, 0, "they were used a moment ago, so they were not asked whether they live");
        server.disconnect_all().await.unwrap();
    }
}

#[tokio::test]
async fn the_clock_of_the_server_is_read() {
    let server = OwnRedis::start(&[]).await.unwrap();
    let redis = connect(&server).await;
    // It is the clock of this machine.
    let before = clock::machine();
    let there = redis.time().await.unwrap();
    assert!(before <= there && there <= clock::machine(), "{there:?}, asked at {before:?}");
}
