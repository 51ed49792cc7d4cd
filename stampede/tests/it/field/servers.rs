//! Servers that close connections or refuse writes for a while.

use super::{item, on_sale, standing, visitor::Visitor};
use crate::{
    lost_redis::on_redis,
    sale::{LONG, Sale, eur, fresh},
};
use http::StatusCode;
use serde_json::json;
use sqlx::{AssertSqlSafe, MySqlPool};
use stampede_proto::{coupon::v1::ClaimCouponRequest, order::v1::Order};
use stampede_testkit::{OwnRedis, Process, Service, World, as_buyer, buyer, eventually, heavy};
use std::time::Duration;
use tonic::{Code, Status};

/// Number of times that connections are closed.
const ROUNDS: usize = 3;
/// Longer than a call to Redis waits.
const PAUSE: Duration = Duration::from_secs(3);
/// Settings that make Redis refuse every write, and accept them again.
const REFUSALS: [(&str, &str, &str); 3] = [
    ("too few replicas", "CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"),
    ("no memory", "CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
    ("no disk", NO_DISK.0, NO_DISK.1),
];
/// The same of a Redis that stores snapshots of its data. It refuses nothing until a snapshot has failed.
const NO_DISK: (&str, &str) = ("CONFIG SET save \"3600 1\"", "CONFIG SET save \"\"");
/// Allows a test to set the directory of Redis' snapshots.
const MOVABLE: [(&str, &str); 1] = [("enable-protected-configs", "yes")];

/// Checks that a refusal is one to retry, never an internal error.
fn assert_passing(what: &str, refused: &Status) {
    assert!(![Code::Internal, Code::Unknown].contains(&refused.code()), "{what}: {refused:?}");
}

/// Retries one order under one `request_id` until it is accepted.
async fn placed_at_last(sale: &Sale, what: &str) -> Order {
    let (user, request_id) = (buyer(), fresh());
    eventually(&format!("{what}: an order is taken"), || async {
        let answer = sale.place_as(user, &request_id, &[(0, 1)], "").await;
        answer.inspect_err(|refused| assert_passing(what, refused)).ok()
    })
    .await
}

/// Places three orders at once, each accepted or refused for now. Returns how many are refused.
async fn try_to_place(sale: &Sale, what: &str) -> usize {
    let place = || sale.place(buyer(), &[(0, 1)], "");
    let (one, two, three) = tokio::join!(place(), place(), place());
    let refused = [one, two, three].into_iter().filter_map(Result::err);
    refused.inspect(|refused| assert_passing(what, refused)).count()
}

/// Places orders until some are refused for now.
async fn until_put_off(sale: &Sale, what: &str) {
    eventually(&format!("{what}: orders are put off"), || async { (try_to_place(sale, what).await > 0).then_some(()) })
        .await;
}

/// Kills every session of the processes of this world with the database. Returns how many there were.
async fn end_sessions(world: &World) -> usize {
    let server = MySqlPool::connect(&format!("{}?ssl-mode=disabled", world.database_url())).await.unwrap();
    let sessions = "SELECT CAST(id AS SIGNED) FROM information_schema.processlist WHERE db LIKE ?";
    let of_world = format!("{}%", world.schema_prefix());
    let sessions: Vec<i64> = sqlx::query_scalar(sessions).bind(of_world).fetch_all(&server).await.unwrap();
    for session in &sessions {
        // A session may have ended already, which is fine.
        drop(sqlx::raw_sql(AssertSqlSafe(format!("KILL {session}"))).execute(&server).await);
    }
    server.close().await;
    sessions.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_03_sessions_that_the_database_ends_break_nothing_and_lose_no_order() {
    let what = "the database has ended every session";
    let sale = Sale::open(LONG).await;
    for _ in 0..ROUNDS {
        assert!(end_sessions(&sale.world).await > 0, "there was no session to end");
        tokio::join!(placed_at_last(&sale, what), placed_at_last(&sale, what), placed_at_last(&sale, what));
    }
    // Of ten units and two gifts.
    sale.until_left(0, 1, 0).await;
    sale.audit();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_ends_connections_and_takes_no_writes_for_a_while() {
    let _permit = heavy().await;
    let (world, redis) = tokio::join!(World::prepared(), OwnRedis::start(&MOVABLE));
    let (world, redis) = (world.unwrap(), redis.unwrap());
    let mesh = on_redis(&redis.url())
        .set(Service::Order, "STAMPEDE_PAY_WINDOW_MS", LONG.as_millis())
        .start(&world, Process::all())
        .await
        .unwrap();
    let event = on_sale(&mesh, item(eur(1_999), 1_000, 3)).await;
    let sale = Sale { world, mesh, event };

    case_04_connections_that_redis_ends_fail_no_first_call(&sale, &redis).await;
    case_06_a_redis_that_takes_no_writes_puts_callers_off_and_is_used_again_by_itself(&sale, &redis).await;
    standing::case_06_a_redis_that_refuses_or_stands_still_under_a_crowd_costs_it_a_wait(&sale, &redis, NO_DISK).await;
    let audit = sale.run_audit(&["--redis-url", &redis.url(), "--quiet-deadline-s", "60"]);
    assert!(audit.holds, "{audit:#?}");
}

async fn case_04_connections_that_redis_ends_fail_no_first_call(sale: &Sale, redis: &OwnRedis) {
    let campaign_id = sale.claim(buyer()).await.campaign_id;
    let gateway = Visitor::of(sale.mesh.url(Process::Gateway));
    for _ in 0..ROUNDS {
        redis.disconnect_all().await.unwrap();
        let claim = async {
            let request = ClaimCouponRequest { campaign_id: campaign_id.clone(), request_id: fresh() };
            sale.mesh.coupon().claim_coupon(as_buyer(buyer(), request)).await
        };
        let login = gateway.post("/v1/auth/tokens", "", "application/json", "{}");
        let (placed, claimed, pair) = tokio::join!(sale.place(buyer(), &[(0, 1)], ""), claim, login);
        placed.unwrap_or_else(|refused| panic!("case 4: the first order: {refused:?}"));
        claimed.unwrap_or_else(|refused| panic!("case 4: the first claim: {refused:?}"));
        assert_eq!(pair.status, StatusCode::CREATED, "case 4: the first login: {pair:?}");

        redis.disconnect_all().await.unwrap();
        let spent = json!({"refresh_token": pair.json["refresh_token"]});
        let next = gateway.post("/v1/auth/tokens:refresh", "", "application/json", spent.to_string()).await;
        assert_eq!(next.status, StatusCode::OK, "case 4: the first refresh: {next:?}");
    }
}

async fn case_06_a_redis_that_takes_no_writes_puts_callers_off_and_is_used_again_by_itself(
    sale: &Sale,
    redis: &OwnRedis,
) {
    // No file can be created there. The snapshot is started, and its answer is not OK.
    redis.obey("CONFIG SET dir /proc").await.unwrap();
    redis.obey("BGSAVE").await.expect_err("it says that it has started");
    for (what, refuse, take) in REFUSALS {
        redis.obey(refuse).await.unwrap();
        until_put_off(sale, what).await;
        redis.obey(take).await.unwrap();
        placed_at_last(sale, what).await;
    }

    let what = "a script without end";
    // The time after which other clients get BUSY.
    redis.obey("CONFIG SET lua-time-limit 50").await.unwrap();
    redis.run_without_end().await.unwrap();
    until_put_off(sale, what).await;
    redis.obey("SCRIPT KILL").await.unwrap();
    placed_at_last(sale, what).await;

    for _ in 0..ROUNDS {
        redis.obey("SCRIPT FLUSH").await.unwrap();
        let placed = sale.place(buyer(), &[(0, 1)], "").await;
        placed.unwrap_or_else(|refused| panic!("case 6: the first order after the scripts are forgotten: {refused:?}"));
    }

    let what = "a server that stands still";
    redis.pause(PAUSE).await.unwrap();
    try_to_place(sale, what).await;
    placed_at_last(sale, what).await;
}
