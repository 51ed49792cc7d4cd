//! Starts of processes: quickly, after their servers, and not at all on servers that would break a promise.

use stampede_testkit::{Alone, Mesh, MeshBuilder, OwnCluster, OwnRedis, Process, Service, World, eventually};
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// The kinds of process that store something in Redis.
fn on_redis() -> impl Iterator<Item = Process> {
    Process::all().filter(|process| process.redis().is_some())
}

/// Longest start while the servers run.
const QUICK: Duration = Duration::from_secs(1);
/// The quickest of so many starts counts: the machine may be busy with other tests.
const STARTS: usize = 5;

/// Starts a process that should not become ready.
fn launched(world: &World, service: impl Into<Process>, settings: &[(&str, &str)]) -> Alone {
    let service = service.into();
    let set = |builder: MeshBuilder, (name, value): &(&str, &str)| builder.set(service, name, value);
    settings.iter().fold(MeshBuilder::default(), set).launch(world, service).unwrap()
}

/// Checks that the process ends with exit code 1, and that its last line has the reason and the way to mend it.
async fn is_refused(world: &World, service: impl Into<Process>, settings: &[(&str, &str)], said: &[&str]) {
    let service = service.into();
    ends_refused(launched(world, service, settings), service, said).await;
}

/// The same of one that was started.
async fn ends_refused(process: Alone, service: impl Into<Process>, said: &[&str]) {
    let service = service.into();
    let (code, log) = process.ended().await;
    assert_eq!(code, Some(1), "{log}");
    let last = log.lines().last().unwrap_or_default();
    assert!(last.starts_with(&format!("stampede-{}: cannot start: ", service.name())), "{log}");
    for words in said {
        assert!(last.contains(words), "{words:?} is not said: {log}");
    }
}

#[tokio::test]
async fn a_redis_that_evicts_is_refused_with_the_way_to_mend_it() {
    let world = World::prepared().await.unwrap();
    let settings = [("maxmemory-policy", "allkeys-lru"), ("maxmemory", "50mb"), ("notify-keyspace-events", "Ex")];
    let redis = OwnRedis::start(&settings).await.unwrap();
    for service in on_redis() {
        let said = ["allkeys-lru", "redis-cli CONFIG SET maxmemory-policy noeviction"];
        is_refused(&world, service, &[("STAMPEDE_REDIS_URL", &redis.url())], &said).await;
    }
}

#[tokio::test]
async fn a_redis_that_publishes_no_expired_keys_is_refused_by_the_event_service_alone() {
    let world = World::prepared().await.unwrap();
    let redis = OwnRedis::start(&[]).await.unwrap();
    let mend = "redis-cli CONFIG SET notify-keyspace-events Ex";
    let cases = [(redis.admin_url(), "notify-keyspace-events is \"\""), (redis.url(), "no notification came")];
    for (url, why) in cases {
        is_refused(&world, Service::Event, &[("STAMPEDE_REDIS_URL", &url)], &[why, mend]).await;
    }
    let coupon = MeshBuilder::default().set(Service::Coupon, "STAMPEDE_REDIS_URL", redis.url());
    coupon.start(&world, [Service::Coupon]).await.unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn a_cluster_is_refused_by_the_event_service_alone() {
    let world = World::prepared().await.unwrap();
    let cluster = OwnCluster::start().await.unwrap();
    let url = cluster.url();
    let said = ["this Redis is a cluster", "a Redis of its own"];
    is_refused(&world, Service::Event, &[("STAMPEDE_REDIS_URL", &url)], &said).await;
    let coupon = MeshBuilder::default().set(Service::Coupon, "STAMPEDE_REDIS_URL", &url);
    coupon.start(&world, [Service::Coupon]).await.unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn the_rights_of_their_user_suffice_and_its_password_is_in_no_log() {
    let world = World::prepared().await.unwrap();
    let redis = OwnRedis::start(&[("notify-keyspace-events", "Ex")]).await.unwrap();
    for process in on_redis() {
        let wrong = redis.url().replace(redis.password(), &format!("{}x", redis.password()));
        let settings = MeshBuilder::default().set(process, "STAMPEDE_REDIS_URL", wrong);
        let settings = settings.set(process, "STAMPEDE_WAIT_FOR_SERVERS_MS", 500);
        let (code, log) = settings.launch(&world, process).unwrap().ended().await;
        assert!(code == Some(1) && !log.contains(redis.password()), "{log}");
        // The gateway is not ready before the services are.
        if process == Process::Gateway {
            continue;
        }
        let settings = MeshBuilder::default().set(process, "STAMPEDE_REDIS_URL", redis.url());
        let running = settings.set(process, "STAMPEDE_LOG_FILTER", "debug").launch(&world, process).unwrap();
        eventually("it is ready", || async { running.is_ready().await.then_some(()) }).await;
        if process == Process::from(Service::Event) {
            let listens = || async { running.log().contains("listening for the timers").then_some(()) };
            eventually("it listens for timers", listens).await;
        }
        assert!(!running.log().contains(redis.password()), "{}", running.log());
    }
}

#[tokio::test]
async fn a_schema_that_is_behind_is_refused_with_the_way_to_mend_it() {
    let world = World::prepared().await.unwrap();
    for service in Service::ALL {
        let db = world.database(service).await.unwrap();
        let mut conn = db.acquire().await.unwrap();
        let last = "DELETE FROM _sqlx_migrations ORDER BY version DESC LIMIT 1";
        sqlx::query(last).execute(&mut *conn).await.unwrap();
        let schema = format!("the {} schema is at version ", service.name());
        is_refused(&world, service, &[], &[&schema, "run `stampede prepare` of the same release"]).await;
    }
}

#[tokio::test]
async fn without_kafka_a_service_waits_and_says_for_what() {
    let world = World::prepared().await.unwrap();
    // Nobody listens there.
    let brokers = "127.0.0.1:1";
    let alone = |service| {
        let builder = MeshBuilder::default().set(service, "STAMPEDE_KAFKA_BROKERS", brokers);
        builder.launch(&world, service).unwrap()
    };
    let waiting = Service::ALL.map(alone);
    for process in &waiting {
        eventually("the log says what is waited for", || {
            let log = process.log();
            let said = ["waiting for a server", "server.name=\"Kafka\"", brokers];
            let said = log.lines().any(|line| said.iter().all(|part| line.contains(part)));
            std::future::ready(said.then_some(()))
        })
        .await;
        assert!(!process.is_ready().await, "ready without Kafka: {}", process.log());
    }
}

#[tokio::test]
async fn an_event_service_waits_for_a_redis_that_reads_its_data() {
    let world = World::prepared().await.unwrap();
    let redis = OwnRedis::start(&[("notify-keyspace-events", "Ex")]).await.unwrap().restart_loading().await.unwrap();
    let process = launched(&world, Service::Event, &[("STAMPEDE_REDIS_URL", &redis.url())]);
    let said = eventually("the log says that Redis is loading, or that it cannot start", || {
        let log = process.log();
        let said = ["is loading the dataset", "cannot start"];
        let line = log.lines().find(|line| said.iter().any(|part| line.contains(part)));
        std::future::ready(line.map(str::to_owned))
    })
    .await;
    assert!(said.contains("waiting for a server") && said.contains("server.name=\"Redis\""), "{}", process.log());
    assert!(redis.is_loading().await && !process.is_ready().await, "{}", process.log());
    redis.finish_loading().await.unwrap();
    eventually("it is ready", || async { process.is_ready().await.then_some(()) }).await;
}

#[tokio::test]
async fn a_process_whose_wait_is_over_ends_and_names_the_missing_server() {
    let world = World::prepared().await.unwrap();
    // The servers that are there have as long to answer.
    let soon = ("STAMPEDE_WAIT_FOR_SERVERS_MS", "3000");
    let settings = [("STAMPEDE_KAFKA_BROKERS", "127.0.0.1:1"), soon];
    let waiting = Service::ALL.map(|service| (service, launched(&world, service, &settings)));
    let settings = [("STAMPEDE_REDIS_URL", "redis://127.0.0.1:1"), soon];
    let gateway = launched(&world, Process::Gateway, &settings);
    for (service, process) in waiting {
        ends_refused(process, service, &["Kafka was not there within 3 s"]).await;
    }
    ends_refused(gateway, Process::Gateway, &["Redis was not there within 3 s"]).await;
}

#[tokio::test]
async fn a_start_that_fails_shows_the_end_of_the_log_and_names_the_folder_of_all_logs() {
    let world = World::prepared().await.unwrap();
    let settings = MeshBuilder::default().set(Service::Order, "STAMPEDE_PAY_WINDOW_MS", "soon");
    let error = settings.start(&world, [Service::Coupon, Service::Order]).await.unwrap_err();
    let said = format!("{error:?}");
    assert!(said.starts_with("order-0 did not become ready") && said.contains("invalid value 'soon'"), "{said}");
    let first_line = error.to_string();
    let (_, folder) = first_line.rsplit_once(' ').unwrap();
    for log in ["coupon-0.log", "order-0.log"] {
        assert!(Path::new(folder).join(log).is_file(), "{log} is not there: {said}");
    }
    fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn every_process_starts_quickly_when_its_servers_are_there() {
    let world = World::prepared().await.unwrap();
    let mut mesh = Mesh::start(&world).await.unwrap();
    for service in Service::ALL {
        let mut took = Vec::new();
        while took.len() < STARTS && took.last().is_none_or(|time| *time >= QUICK) {
            mesh.kill_9(service).unwrap();
            let started = Instant::now();
            mesh.restart(service).await.unwrap();
            took.push(started.elapsed());
        }
        println!("from start to ready: {} {took:?}", service.name());
        assert!(took.last().is_some_and(|time| *time < QUICK), "{}: {took:?}", service.name());
    }
    mesh.stop().await.unwrap();
}
