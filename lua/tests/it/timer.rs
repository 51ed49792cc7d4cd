//! The timers of events on a real Redis.

use stampede_lua::{
    Redis, RedisConfig, Timer,
    timer::{Armed, Expirations, Timers, arm, disarm},
};
use stampede_testkit::{AdminRedis, OwnRedis};
use stampede_vocab::{EventId, Timestamp, UserId};
use std::time::Duration;

/// Longest wait for a notification. Redis looks for expired keys ten times a second.
const NOTIFICATION_TIMEOUT: Duration = Duration::from_secs(10);

struct Bench {
    redis: Redis,
    raw: AdminRedis,
}

impl Bench {
    async fn new() -> Self {
        let key_prefix = format!("test:{}:", UserId::random());
        let config = RedisConfig { url: setting("STAMPEDE_TEST_EVENT_REDIS_URL"), key_prefix };
        let raw = AdminRedis::connect(&setting("STAMPEDE_TEST_ADMIN_EVENT_REDIS_URL")).await.unwrap();
        Self { redis: Redis::connect(config).await.unwrap(), raw }
    }

    /// The clock by which the scripts decide.
    async fn now(&self) -> Timestamp {
        let time = redis::cmd("TIME").query_async(&mut self.raw.clone()).await;
        let (seconds, micros): (i64, i64) = time.unwrap();
        Timestamp::from_micros(seconds * 1_000_000 + micros)
    }

    async fn in_ms(&self, ms: u64) -> Timestamp {
        self.now().await.plus(Duration::from_millis(ms))
    }

    /// When each timer of the event expires, in milliseconds since the epoch.
    async fn armed(&self, event_id: EventId) -> [Option<i64>; 2] {
        let keys = [self.redis.keys().event_opens(event_id), self.redis.keys().event_closes(event_id)];
        let mut times = [None; 2];
        for (key, time) in keys.iter().zip(&mut times) {
            let at: i64 = redis::cmd("PEXPIRETIME").arg(key).query_async(&mut self.raw.clone()).await.unwrap();
            *time = (at >= 0).then_some(at);
        }
        times
    }
}

/// The Redis of timers is one server, also where the others have a cluster.
fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn event() -> EventId {
    EventId::from_uuid(UserId::random().uuid())
}

fn both(event_id: EventId, version: i64, open_time: Timestamp, close_time: Timestamp) -> Timers {
    Timers { event_id, version, open_time: Some(open_time), close_time: Some(close_time) }
}

fn millis(at: Timestamp) -> Option<i64> {
    Some((at.micros() + 999) / 1_000)
}

#[tokio::test]
async fn a_newer_version_moves_the_timers_and_an_older_one_does_not() {
    let bench = Bench::new().await;
    let (event_id, soon, later) = (event(), bench.in_ms(60_000).await, bench.in_ms(120_000).await);
    let last = later.plus(Duration::from_secs(60));

    assert_eq!(arm(&bench.redis, both(event_id, 1, soon, later)).await.unwrap(), Armed::Yes);
    assert_eq!(bench.armed(event_id).await, [millis(soon), millis(later)]);

    assert_eq!(arm(&bench.redis, both(event_id, 2, later, last)).await.unwrap(), Armed::Yes);
    assert_eq!(arm(&bench.redis, both(event_id, 1, soon, later)).await.unwrap(), Armed::Overtaken);
    assert_eq!(bench.armed(event_id).await, [millis(later), millis(last)]);

    disarm(&bench.redis, event_id).await.unwrap();
}

#[tokio::test]
async fn an_open_event_has_its_closing_timer_only() {
    let bench = Bench::new().await;
    let (event_id, soon, later) = (event(), bench.in_ms(60_000).await, bench.in_ms(120_000).await);
    arm(&bench.redis, both(event_id, 1, soon, later)).await.unwrap();

    let opened = Timers { open_time: None, version: 2, ..both(event_id, 2, soon, later) };
    assert_eq!(arm(&bench.redis, opened).await.unwrap(), Armed::Yes);
    assert_eq!(bench.armed(event_id).await, [None, millis(later)]);

    disarm(&bench.redis, event_id).await.unwrap();
}

#[tokio::test]
async fn disarming_leaves_nothing_and_returns_how_many_there_were() {
    let bench = Bench::new().await;
    let (event_id, soon, later) = (event(), bench.in_ms(60_000).await, bench.in_ms(120_000).await);
    arm(&bench.redis, both(event_id, 1, soon, later)).await.unwrap();

    assert_eq!(disarm(&bench.redis, event_id).await.unwrap(), 2);
    assert_eq!(disarm(&bench.redis, event_id).await.unwrap(), 0);
    assert_eq!(bench.armed(event_id).await, [None, None]);
}

#[tokio::test]
async fn an_expired_timer_is_published_after_its_time_and_no_foreign_one_is() {
    let (bench, stranger) = (Bench::new().await, Bench::new().await);
    let mut expirations = Expirations::subscribe(&bench.redis).await.unwrap();
    expirations.check().await.unwrap();
    let event_id = event();

    // The stranger's timers expire first, under another prefix.
    let (early, open_time, close_time) = (bench.in_ms(50).await, bench.in_ms(300).await, bench.in_ms(600).await);
    arm(&stranger.redis, both(event(), 1, early, early.plus(Duration::from_millis(1)))).await.unwrap();
    arm(&bench.redis, both(event_id, 1, open_time, close_time)).await.unwrap();

    // Redis looks at samples of the keys that expire: it does not promise to publish the earlier one first.
    let mut waited_for = vec![(Timer::Opens, open_time), (Timer::Closes, close_time)];
    while !waited_for.is_empty() {
        let heard =
            tokio::time::timeout(NOTIFICATION_TIMEOUT, expirations.next(1)).await.expect("heard in time").unwrap();
        let (heard_of, timer) = heard[0];
        assert_eq!(heard_of, event_id, "somebody else's timer was heard");
        let place = waited_for.iter().position(|(waited, _)| *waited == timer).expect("each timer is heard once");
        let (_, due_at) = waited_for.remove(place);
        let now = bench.now().await;
        assert!(now >= due_at, "{timer:?} was heard at {now:?}, before {due_at:?}");
    }
}

#[tokio::test]
async fn a_server_that_has_become_a_replica_is_found_out_although_the_connection_stays() {
    let (server, successor) = (OwnRedis::start(&[]).await.unwrap(), OwnRedis::start(&[]).await.unwrap());
    let redis = Redis::connect(RedisConfig { url: server.url(), key_prefix: "t:".into() }).await.unwrap();
    let expirations = Expirations::subscribe(&redis).await.unwrap();
    expirations.check().await.unwrap();
    server.follow(&successor).await.unwrap();
    let error = expirations.check().await.unwrap_err();
    assert!(error.to_string().contains("is a replica now"), "{error}");
}
