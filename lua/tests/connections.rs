//! The connections to Redis on a server of the test's own that is slow or closes them.

#![expect(clippy::unwrap_used, reason = "a test says where it fails by failing there")]

use stampede_lua::{Redis, RedisConfig, coupon};
use stampede_testkit::OwnRedis;
use stampede_vocab::CampaignId;
use std::time::Duration;
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

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_after_two_seconds() {
    let server = OwnRedis::start(&[]).await.unwrap();
    let redis = connect(&server).await;
    server.pause(Duration::from_secs(4)).await.unwrap();
    let error = coupon::snapshot(&redis, CampaignId::from_uuid(Uuid::nil())).await.unwrap_err();
    assert!(error.is_unreachable(), "{error}");
}

#[tokio::test]
async fn connections_that_the_server_closed_are_replaced_unseen() {
    let server = OwnRedis::start(&[]).await.unwrap();
    let redis = connect(&server).await;
    for _ in 0..3 {
        server.disconnect_all().await.unwrap();
        let answers =
            (0..16).map(|_| async { coupon::snapshot(&redis, CampaignId::from_uuid(Uuid::nil())).await.unwrap() });
        futures_util::future::join_all(answers).await;
    }
}
