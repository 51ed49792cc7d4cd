//! The naive way to open events: a subscriber opens an event when its key expires, and a recovery pass for missed ones
//! runs at an interval. It is the baseline, on the same servers.

use crate::{
    bench::opening::{Place, TIMERS, curve::Curve, redis::Connection},
    chaos::sql::Session,
};
use stampede_vocab::Timestamp;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

const KEY: &str = "naive:";
/// Longest wait after the recovery pass that finds missed events.
const GRACE: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(20);

/// Opens so many events at `due_at`. The recovery pass runs half of its interval later, the mean for a random instant,
/// and then every interval.
pub fn open(place: &Place, count: u32, due_at: Timestamp, recovery: Duration) -> anyhow::Result<Curve> {
    let mut session = place.session()?;
    prepare(place, &mut session, count, due_at)?;
    let stop = Arc::new(AtomicBool::new(false));
    let (listener, passes) = (listen(place, &stop), recover(place, &stop, due_at.plus(recovery / 2), recovery));
    let left = "SELECT COUNT(*) FROM stampede_naive.events WHERE is_open = FALSE";
    let curve = Curve::watch(&mut session, left, count, due_at, recovery + GRACE);
    stop.store(true, Ordering::Relaxed);
    for thread in [listener, passes] {
        thread.join().map_err(|_| anyhow::anyhow!("a thread of the naive way has panicked"))?;
    }
    curve
}

fn prepare(place: &Place, session: &mut Session, count: u32, due_at: Timestamp) -> anyhow::Result<()> {
    session.run("CREATE DATABASE IF NOT EXISTS stampede_naive")?;
    session.run("DROP TABLE IF EXISTS stampede_naive.events")?;
    session.run(
        "CREATE TABLE stampede_naive.events (id INT NOT NULL PRIMARY KEY, opens_at_us BIGINT NOT NULL, \
         is_open BOOLEAN NOT NULL DEFAULT FALSE, KEY by_opening (is_open, opens_at_us))",
    )?;
    let rows: Vec<String> = (0..count).map(|number| format!("({number}, {})", due_at.micros())).collect();
    session.run(&format!("INSERT INTO stampede_naive.events (id, opens_at_us) VALUES {}", rows.join(", ")))?;
    let mut redis = Connection::open(&place.redis, TIMERS)?;
    let millis = (due_at.micros() / 1_000).to_string();
    for number in 0..count {
        redis.command(&["SET", &format!("{KEY}{number}"), "1", "PXAT", &millis])?;
    }
    Ok(())
}

fn listen(place: &Place, stop: &Arc<AtomicBool>) -> JoinHandle<()> {
    let (place, stop) = (place.clone(), stop.clone());
    thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            // A lost connection is made anew, and keys that expired meanwhile are left to the recovery pass.
            let _lost = listen_once(&place, &stop);
            thread::sleep(TICK);
        }
    })
}

fn listen_once(place: &Place, stop: &AtomicBool) -> anyhow::Result<()> {
    let mut redis = Connection::open(&place.redis, TIMERS)?;
    let mut session = place.session()?;
    redis.subscribe(&format!("__keyevent@{TIMERS}__:expired"))?;
    while !stop.load(Ordering::Relaxed) {
        let expired = redis.message()?;
        if let Some(number) = expired.as_deref().and_then(|key| key.strip_prefix(KEY)?.parse::<u32>().ok()) {
            session.run(&format!("UPDATE stampede_naive.events SET is_open = TRUE WHERE id = {number}"))?;
        }
    }
    Ok(())
}

fn recover(place: &Place, stop: &Arc<AtomicBool>, first: Timestamp, every: Duration) -> JoinHandle<()> {
    let (place, stop) = (place.clone(), stop.clone());
    thread::spawn(move || {
        let mut next = first;
        while !stop.load(Ordering::Relaxed) {
            if Timestamp::now() >= next {
                next = next.plus(every);
                // The next pass finds those that this one misses.
                let _failed = pass(&place);
            }
            thread::sleep(TICK);
        }
    })
}

fn pass(place: &Place) -> anyhow::Result<()> {
    let now = Timestamp::now().micros();
    place
        .session()?
        .run(&format!("UPDATE stampede_naive.events SET is_open = TRUE WHERE is_open = FALSE AND opens_at_us <= {now}"))
}
