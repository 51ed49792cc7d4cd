//! `cargo xtask bench event-open`: the lateness of many events that are due at the same instant, among many that are
//! planned, while the listener for expired timers is cut for half of the time; beside it the naive way, on the same
//! servers. And the cost of all planned events in an idle mesh.

mod buyers;
mod curve;
mod cutter;
mod figures;
mod naive;
mod page;
mod redis;
mod rows;

use crate::{
    bench::{
        RUN,
        opening::{
            buyers::Shop,
            curve::Curve,
            cutter::Cutter,
            figures::{Figures, Opening, Way},
            redis::Connection,
            rows::table,
        },
        stage,
    },
    chaos::sql::Session,
    cli::{EventOpenArgs, Profile},
    down,
    fleet::Fleet,
    mesh::{Mesh, Own},
    ui::{Step, say},
    workspace::{Workspace, make_directory, remove_directory},
};
use stampede_vocab::{Service, Timestamp};
use std::{fs, path::PathBuf, thread, time::Duration};

/// The logical database of the timers.
const TIMERS: u32 = 1;
/// Time between the writing of the events and their instant: their stock is staged by then.
const LEAD: Duration = Duration::from_secs(20);
/// Longest time in which the product's events may open.
const WITHIN: Duration = Duration::from_secs(30);
/// Longest time in which the product records from when on each could be seen open.
const RECORDED_WITHIN: Duration = Duration::from_secs(5);
/// Time for processes and servers to become idle. After a hundred thousand events and a million keys the database goes
/// on to flush pages, and Redis rewrites its log.
const REST: Duration = Duration::from_secs(20);
/// Keys that one script writes.
const KEYS_AT_A_TIME: u32 = 10_000;
/// Keys that expire in an hour or two, as sessions and baskets of a shop do.
const WRITE_KEYS: &str = "for i = tonumber(ARGV[1]), tonumber(ARGV[2]) do \
                          redis.call('SET', 'session:' .. i, '1', 'PX', 3600000 + i * 7 % 3600000) end return 1";

/// Addresses of the servers.
#[derive(Debug, Clone)]
struct Place {
    /// Redis, HOST:PORT.
    redis: String,
    /// The folder and the name of the database's socket file.
    folder: PathBuf,
    socket: String,
}

impl Place {
    fn session(&self) -> anyhow::Result<Session> {
        Session::open(&self.folder, &self.socket)
    }
}

/// Measures. Returns whether no event opened early, twice or never.
pub fn run(workspace: &Workspace, args: &EventOpenArgs) -> anyhow::Result<bool> {
    let run = workspace.run(RUN);
    down::mend_before("bench", &run)?;
    let own = Own {
        run: &run,
        database: args.database,
        profile: args.profile.or(Profile::Release),
        replicas: format!("event={}", args.replicas).parse().map_err(anyhow::Error::msg)?,
        pay_window_ms: None,
    };
    let figures = own.with(workspace, |mesh, fleet| Bench::new(mesh, args)?.measure(fleet))?;
    keep(workspace, &figures)?;
    Ok(figures.is_sound())
}

fn keep(workspace: &Workspace, figures: &Figures) -> anyhow::Result<()> {
    let results = workspace.run("bench/event-open");
    remove_directory(&results)?;
    make_directory(&results)?;
    figures.print();
    fs::write(results.join("summary.json"), serde_json::to_string_pretty(figures)?)?;
    fs::write(results.join("index.html"), page::html(figures))?;
    say(&format!("\n  kept         {}", results.join("index.html").display()));
    Ok(())
}

struct Bench<'a> {
    args: &'a EventOpenArgs,
    place: Place,
    shop: Shop,
}

impl<'a> Bench<'a> {
    fn new(mesh: &Mesh<'_>, args: &'a EventOpenArgs) -> anyhow::Result<Self> {
        let (folder, socket) = mesh.servers.socket();
        let redis = mesh.servers.admin_redis_url().trim_start_matches("redis://").to_owned();
        let gateway = mesh.layout.gateway_url().trim_start_matches("http://").to_owned();
        Ok(Self { args, place: Place { redis, folder, socket }, shop: Shop { gateway, token: mesh.token("buyer")? } })
    }

    fn measure(&self, fleet: &mut Fleet) -> anyhow::Result<Figures> {
        let idle_empty_ms = self.idle(fleet, "nothing planned")?;
        self.plan_ahead()?;
        let idle_ahead_ms = self.idle(fleet, "all planned")?;
        let cutter = Cutter::start(&self.place.redis);
        let mut openings = Vec::new();
        for way in Way::ALL {
            for round in 0..self.args.rounds {
                openings.push(self.open(way, round % 2 == 0)?);
                fleet.check()?;
            }
        }
        drop(cutter);
        let EventOpenArgs { ahead, keys, replicas, recovery_s, .. } = *self.args;
        Ok(Figures { ahead, keys, replicas, recovery_s, idle_empty_ms, idle_ahead_ms, openings })
    }

    /// Returns the processor time of all processes and servers a second, in milliseconds, without load.
    fn idle(&self, fleet: &mut Fleet, name: &str) -> anyhow::Result<f64> {
        let step = Step::begin("idle", name);
        fleet.stay(REST)?;
        let before = stage::spent(fleet);
        fleet.stay(Duration::from_secs(self.args.idle_s.into()))?;
        let spent: Duration = stage::spent(fleet).since(&before).values().sum();
        let ms = spent.as_secs_f64() * 1e3 / f64::from(self.args.idle_s);
        step.done(&format!("{name}: {ms:.1} ms a second"));
        Ok(ms)
    }

    fn plan_ahead(&self) -> anyhow::Result<()> {
        let step = Step::begin("plan", "writing events and keys");
        rows::plan_ahead(&mut self.place.session()?, self.args.ahead)?;
        let mut redis = Connection::open(&self.place.redis, TIMERS)?;
        for from in (1..=self.args.keys).step_by(KEYS_AT_A_TIME as usize) {
            let to = self.args.keys.min(from + KEYS_AT_A_TIME - 1);
            redis.command(&["EVAL", WRITE_KEYS, "0", &from.to_string(), &to.to_string()])?;
        }
        step.done(&format!("{} events, {} keys", self.args.ahead, self.args.keys));
        Ok(())
    }

    fn open(&self, way: Way, is_cut: bool) -> anyhow::Result<Opening> {
        let due_at = cutter::instant(Timestamp::now().plus(LEAD), is_cut);
        let step = Step::begin(way.as_str(), "waiting for the instant");
        let opening = match way {
            Way::Product => self.open_by_product(is_cut, due_at)?,
            Way::Naive => self.open_naively(is_cut, due_at)?,
        };
        let p99 = page::number(opening.curve.late_ms(99));
        step.done(&format!("listener {}, p99 {p99} ms", opening.listener()));
        Ok(opening)
    }

    fn open_by_product(&self, is_cut: bool, due_at: Timestamp) -> anyhow::Result<Opening> {
        let mut session = self.place.session()?;
        let planned = rows::plan_instant(&mut session, self.args.due, due_at)?;
        let sample = &planned[..planned.len().min(self.args.orders as usize)];
        let (opens, events) = (due_at.micros(), table(Service::Event, "events"));
        let left = format!("SELECT COUNT(*) FROM {events} WHERE due_at_us = {opens}");
        let (polled, first_orders_ms) = thread::scope(|scope| {
            let buyers = scope.spawn(|| buyers::first_orders(&self.shop, sample, due_at));
            let curve = Curve::watch(&mut session, &left, self.args.due, due_at, WITHIN);
            let orders = buyers.join().map_err(|_| anyhow::anyhow!("the buyers have panicked"));
            anyhow::Ok((curve?, orders??))
        })?;
        let early = format!("SELECT COUNT(*) FROM {events} WHERE opens_at_us = {opens} AND opened_at_us < {opens}");
        let early = polled.early().max(session.number(&early)?);
        let double = format!(
            "SELECT COUNT(*) - COUNT(DISTINCT aggregateid) FROM {} WHERE type = 'stampede.message.v1.EventOpened'",
            table(Service::Event, "outbox")
        );
        let double = session.number(&double)?;
        let curve = recorded(&mut session, polled, due_at)?;
        Ok(Opening { way: Way::Product, is_cut, curve, first_orders_ms, early, double })
    }

    fn open_naively(&self, is_cut: bool, due_at: Timestamp) -> anyhow::Result<Opening> {
        let recovery = Duration::from_secs(self.args.recovery_s.into());
        let curve = naive::open(&self.place, self.args.due, due_at, recovery)?;
        let early = curve.early();
        Ok(Opening { way: Way::Naive, is_cut, curve, first_orders_ms: Vec::new(), early, double: 0 })
    }
}

/// Returns the curve by when the product recorded that each event could be seen open, after the commit: polls are
/// coarse while the database is busy. Returns the polled one if some of it was not recorded.
fn recorded(session: &mut Session, polled: Curve, due_at: Timestamp) -> anyhow::Result<Curve> {
    let (opens, events) = (due_at.micros(), table(Service::Event, "events"));
    let sql = format!("SELECT opened_seen_us FROM {events} WHERE opens_at_us = {opens} AND opened_seen_us IS NOT NULL");
    let end = Timestamp::now().plus(RECORDED_WITHIN);
    loop {
        let seen = session.rows(&sql)?;
        if u64::try_from(seen.len()).ok() == Some(polled.total) {
            let seen: Result<Vec<_>, _> = seen.iter().map(|us| us.parse().map(Timestamp::from_micros)).collect();
            return Ok(Curve::of(seen?, due_at));
        }
        if Timestamp::now() > end {
            return Ok(polled);
        }
        thread::sleep(Duration::from_millis(100));
    }
}
