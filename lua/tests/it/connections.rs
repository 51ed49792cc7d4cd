//! The connections to Redis on a server of the test's own that is slow, closes them, loads, or is no master any more.

use redis::{ErrorKind, ServerErrorKind, aio::MultiplexedConnection};
use stampede_lua::{Redis, RedisConfig, RedisError, coupon, gate};
use stampede_testkit::{FloatingAddress, OwnRedis, eventually};
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

/// Connects to what is behind this address.
async fn connect_through(address: &FloatingAddress, server: &OwnRedis) -> Redis {
    let url = server.url().replace(&server.address().to_string(), &address.address().to_string());
    Redis::connect(RedisConfig { url, key_prefix: "t:".into() }).await.unwrap()
}

/// Makes more writes at once than there are connections, and returns what has failed.
async fn failures_of_writes(redis: &Redis) -> Vec<RedisError> {
    let writes = (0..16).map(|_| gate::epoch(redis, "fresh"));
    futures_util::future::join_all(writes).await.into_iter().filter_map(Result::err).collect()
}

fn is_of(error: &RedisError, kind: ServerErrorKind) -> bool {
    matches!(error, RedisError::Server(error) if error.kind() == ErrorKind::Server(kind))
}

#[tokio::test]
async fn connections_to_a_master_that_became_a_replica_fail_no_call_once_another_has_its_address() {
    let (server, successor) = (OwnRedis::start(&[]).await.unwrap(), OwnRedis::start(&[]).await.unwrap());
    let address = FloatingAddress::leading_to(server.address()).await.unwrap();
    let redis = connect_through(&address, &server).await;
    let failures = failures_of_writes(&redis).await;
    assert!(failures.is_empty(), "it opens all connections: {failures:?}");
    server.follow(&successor).await.unwrap();
    address.move_to(successor.address());
    let failures = failures_of_writes(&redis).await;
    assert!(failures.is_empty(), "{failures:?}");
}

#[tokio::test]
async fn a_replica_that_no_master_replaces_is_told_at_once_and_used_again_once_it_is_a_master() {
    let (server, other) = (OwnRedis::start(&[]).await.unwrap(), OwnRedis::start(&[]).await.unwrap());
    let redis = connect(&server).await;
    server.follow(&other).await.unwrap();
    let failures = failures_of_writes(&redis).await;
    assert_eq!(failures.len(), 16, "{failures:?}");
    for error in failures {
        assert!(is_of(&error, ServerErrorKind::ReadOnly) && error.is_unreachable(), "{error}");
    }
    server.promote().await.unwrap();
    let failures = failures_of_writes(&redis).await;
    assert!(failures.is_empty(), "{failures:?}");
}

/// Waits until the server refuses every command because its own master is gone.
async fn misses_its_master(conn: &MultiplexedConnection) {
    eventually("the replica misses its master", || async {
        let answer = redis::cmd("PING").exec_async(&mut conn.clone()).await;
        answer.err().filter(|error| error.kind() == ErrorKind::Server(ServerErrorKind::MasterDown))
    })
    .await;
}

/// A server that as a replica without its master refuses everything, and a connection to it from behind.
async fn useless_without_its_master() -> (OwnRedis, MultiplexedConnection) {
    let server = OwnRedis::start(&[("replica-serve-stale-data", "no")]).await.unwrap();
    let client = redis::Client::open(server.admin_url()).unwrap();
    let conn = client.get_multiplexed_async_connection().await.unwrap();
    (server, conn)
}

#[tokio::test]
async fn connections_to_a_replica_whose_master_is_gone_fail_no_call_once_another_has_its_address() {
    let (server, from_behind) = useless_without_its_master().await;
    let (master, successor) = (OwnRedis::start(&[]).await.unwrap(), OwnRedis::start(&[]).await.unwrap());
    let address = FloatingAddress::leading_to(server.address()).await.unwrap();
    let redis = connect_through(&address, &server).await;
    server.follow(&master).await.unwrap();
    // All connections are open and were used a moment ago, so they are not asked whether they live.
    let reads = (0..16).map(|_| coupon::snapshot(&redis, CampaignId::from_uuid(Uuid::nil())));
    let failed = futures_util::future::join_all(reads).await.into_iter().filter(Result::is_err).count();
    assert_eq!(failed, 0, "a replica answers who only reads");
    drop(master);
    misses_its_master(&from_behind).await;
    address.move_to(successor.address());
    let failures = failures_of_writes(&redis).await;
    assert!(failures.is_empty(), "{failures:?}");
}

#[tokio::test]
async fn a_replica_whose_master_is_gone_is_told_at_once_and_used_again_once_it_is_a_master() {
    let (server, from_behind) = useless_without_its_master().await;
    let master = OwnRedis::start(&[]).await.unwrap();
    let redis = connect(&server).await;
    server.follow(&master).await.unwrap();
    drop(master);
    misses_its_master(&from_behind).await;
    let failures = failures_of_writes(&redis).await;
    assert_eq!(failures.len(), 16, "{failures:?}");
    for error in failures {
        assert!(is_of(&error, ServerErrorKind::MasterDown) && error.is_unreachable(), "{error}");
    }
    server.promote().await.unwrap();
    let failures = failures_of_writes(&redis).await;
    assert!(failures.is_empty(), "{failures:?}");
}

#[tokio::test]
async fn a_server_that_is_loading_is_told_at_once_and_used_again_once_it_has_loaded() {
    let server = OwnRedis::start(&[]).await.unwrap();
    let redis = connect(&server).await;
    let failures = failures_of_writes(&redis).await;
    assert!(failures.is_empty(), "it opens all connections: {failures:?}");
    let server = server.restart_loading().await.unwrap();
    let newcomer = connect(&server).await;
    for redis in [&redis, &newcomer] {
        let failures = failures_of_writes(redis).await;
        assert_eq!(failures.len(), 16, "{failures:?}");
        for error in failures {
            assert!(is_of(&error, ServerErrorKind::BusyLoading) && error.is_unreachable(), "{error}");
        }
    }
    assert!(server.is_loading().await, "it has read its data too soon");
    server.finish_loading().await.unwrap();
    for redis in [&redis, &newcomer] {
        let failures = failures_of_writes(redis).await;
        assert!(failures.is_empty(), "{failures:?}");
        assert_eq!(gate::epoch(redis, "other").await.unwrap().name, "fresh", "the one from before the restart");
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
