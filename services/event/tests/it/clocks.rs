//! The clocks of machines disagree, and events turn at their time all the same: by the clock of Redis.

use crate::sale::{SERVICES, create, in_time, reaches, replica_wrong_by, request, settings, world};
use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use stampede_proto::event::v1::{CancelEventRequest, EventState};
use stampede_testkit::{Mesh, Service, World, as_operator, eventually};
use stampede_vocab::{EventId, Timestamp};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
/// What a process may misjudge on a busy machine, in microseconds: half of the round trip of its best look.
const JUDGED_WITHIN_US: i64 = 50_000;

#[tokio::test]
async fn a_replica_that_is_ahead_opens_and_closes_nothing_early() -> Result<()> {
    assert_turn_on_time(&[2_000]).await
}

#[tokio::test]
async fn a_replica_that_is_behind_opens_and_closes_nothing_late() -> Result<()> {
    assert_turn_on_time(&[-2_000]).await
}

#[tokio::test]
async fn replicas_that_disagree_open_and_close_on_time() -> Result<()> {
    assert_turn_on_time(&[2_000, 0, -2_000]).await
}

/// Runs sales on replicas whose clocks are wrong by so many milliseconds each.
async fn assert_turn_on_time(wrong_by_ms: &[i64]) -> Result<()> {
    let world = world().await?;
    let replicas = try_join_all(wrong_by_ms.iter().map(|ms| replica_wrong_by(&world, *ms))).await?;
    in_time(async |round: u32| -> Result<Result<(), String>> {
        let creations = (0_u32..9).zip(replicas.iter().cycle()).map(|(n, replica)| {
            let (mut client, opens_in) = (replica.event(), 2 * SECOND + n * Duration::from_millis(50));
            async move { create(&mut client, request(&format!("sale-{round}-{n}"), opens_in, SECOND)).await }
        });
        let mut latest_us = 0;
        for event in try_join_all(creations).await? {
            reaches(&replicas[0].event(), &event.event_id, EventState::Closed).await;
            for late_us in seen_late_us(&world, &event.event_id).await? {
                assert!(late_us >= -JUDGED_WITHIN_US, "{} us early", -late_us);
                latest_us = late_us.max(latest_us);
            }
        }
        Ok(if latest_us < 500_000 { Ok(()) } else { Err(format!("{latest_us} us late")) })
    })
    .await?;
    for replica in replicas {
        replica.stop().await?;
    }
    Ok(())
}

/// How late others could see an event open and close, by the clock of the database: another than the one that decided.
async fn seen_late_us(world: &World, event_id: &str) -> Result<[i64; 2]> {
    let (db, id) = (world.database(Service::Event).await?, event_id.parse::<EventId>()?.uuid());
    let seen = eventually("it is noted when that could be seen", || async {
        let mut conn = db.acquire().await.ok()?;
        let sql = "SELECT opened_seen_us - opens_at_us, closed_seen_us - closes_at_us FROM events \
                   WHERE id = ? AND opened_seen_us IS NOT NULL AND closed_seen_us IS NOT NULL";
        sqlx::query_as::<_, (i64, i64)>(sql).bind(id).fetch_optional(&mut *conn).await.ok()?
    });
    let (opened, closed) = seen.await;
    Ok([opened, closed])
}

#[tokio::test]
async fn what_a_clock_is_wrong_by_is_measured_and_holds_nothing_up() -> Result<()> {
    let world = world().await?;
    for wrong_by_ms in [2_000, -2_000] {
        // It has become ready, with such a clock.
        let replica = replica_wrong_by(&world, wrong_by_ms).await?;
        for against in ["redis", "database"] {
            let ahead_s = offset_s(&replica, against).await?;
            let ahead_us = (ahead_s * 1e6) as i64;
            assert!((ahead_us + wrong_by_ms * 1_000).abs() < JUDGED_WITHIN_US, "{against}: {ahead_s} s");
        }
        eventually("there is one warning for each clock", || async {
            let log = replica.log(Service::Event).ok()?;
            (log.matches("the clock of this machine is off").count() == 2).then_some(())
        })
        .await;
        replica.stop().await?;
    }
    Ok(())
}

/// What the process says by how much another clock is ahead of its machine's.
async fn offset_s(replica: &Mesh, against: &str) -> Result<f64> {
    let metrics = replica.metrics(Service::Event).await?;
    let offsets = metrics.values("stampede_clock_offset_seconds", &[&format!("against=\"{against}\"")]);
    offsets.first().copied().context("no such offset")
}

#[tokio::test]
async fn a_cancellation_is_not_of_the_future() -> Result<()> {
    let world = world().await?;
    // Inventory has to confirm it.
    let ahead = settings().set(Service::Event, "STAMPEDE_CLOCK_WRONG_BY_MS", 2_000);
    let replica = ahead.start(&world, SERVICES).await?;
    let created = create(&mut replica.event(), request("sale", 60 * SECOND, SECOND)).await?;
    let request = CancelEventRequest { event_id: created.event_id.clone(), ..CancelEventRequest::default() };
    replica.event().cancel_event(as_operator(request)).await?;
    let answered = Timestamp::now();

    let mut conn = world.database(Service::Event).await?.acquire().await?;
    let sql = "SELECT closed_at_us FROM events WHERE id = ?";
    let id = created.event_id.parse::<EventId>()?.uuid();
    let cancelled_us: i64 = sqlx::query_scalar(sql).bind(id).fetch_one(&mut *conn).await?;
    let ahead_us = cancelled_us - answered.micros();
    assert!(ahead_us <= JUDGED_WITHIN_US, "it sells on for {ahead_us} us");
    replica.stop().await
}
