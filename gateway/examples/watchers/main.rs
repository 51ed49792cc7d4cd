//! A crowd that watches one event through a gateway, for `cargo xtask bench watchers`: each watcher has a stream of its
//! own, and records the latency of each change.
//!
//! For each step it writes one line of JSON, and then it waits for a line before the next: so its caller can measure
//! the processes in between. It ends with its input.

mod crowd;
mod line;
mod operator;

use anyhow::{Context, ensure};
use clap::Parser;
use crowd::{Crowd, MAX_WAIT};
use line::Lines;
use operator::Operator;
use serde_json::{Value, json};
use stampede_vocab::Timestamp;
use std::{
    io::{Write, stdin, stdout},
    sync::Arc,
    time::Duration,
};
use tokio::{net::lookup_host, sync::Semaphore, task::spawn_blocking};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Streams that are being opened at a time: fewer than a listener keeps connections waiting.
const OPENING: usize = 512;
/// Time until the event opens: only the changes requested here change it.
const DAY_S: i64 = 86_400;

/// The crowd.
#[derive(Debug, Parser)]
struct Args {
    /// The gateway, HOST:PORT
    gateway: String,
    /// Number of watchers
    #[arg(long, value_name = "COUNT")]
    watchers: usize,
    /// Number of changes of the event
    #[arg(long, value_name = "COUNT")]
    changes: usize,
    /// Give each watcher an HTTP/1 connection, in place of an HTTP/2 connection for each hundred
    #[arg(long)]
    http1: bool,
    /// The access token of an operator, who makes the event and changes it
    #[arg(long, env = "STAMPEDE_OPERATOR_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    operator_token: String,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    // One thread: the processes that are measured need the others.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(watch(args))
}

async fn watch(args: Args) -> anyhow::Result<()> {
    let mut found = lookup_host(&args.gateway).await.with_context(|| format!("cannot find {}", args.gateway))?;
    let gateway = found.next().with_context(|| format!("{} has no address", args.gateway))?;
    let lines = Lines { gateway, http1: args.http1 };
    allow_files(lines.files(args.watchers))?;
    let operator = Operator { gateway, token: args.operator_token };
    let opens = Timestamp::now().micros() / 1_000_000 + DAY_S;
    let times: Vec<String> = (opens..).take(args.changes + 1).map(time).collect();
    let event = operator.create(&times[0]).await?;
    let crowd = Arc::new(Crowd::of(&times));

    crowd.request(0);
    open(&crowd, &lines, &event, args.watchers).await?;
    let first = crowd.wait_for(0, args.watchers).await?;
    say(&json!({ "opened_ms": millis(*first.last().unwrap_or(&Duration::ZERO)) }))?;
    for (change, time) in times.iter().enumerate().skip(1) {
        if !go_on().await? {
            break;
        }
        crowd.request(change);
        operator.reschedule(&event, time).await?;
        say(&figures(&crowd.wait_for(change, args.watchers).await?))?;
    }
    while go_on().await? {}
    operator.cancel(&event).await
}

/// Opens a stream for each watcher.
async fn open(crowd: &Arc<Crowd>, lines: &Lines, event: &str, watchers: usize) -> anyhow::Result<()> {
    let path: Arc<str> = format!("/v1/events:watch?event_ids={event}").into();
    let opening = Arc::new(Semaphore::new(OPENING));
    let mut begun = 0;
    while begun < watchers {
        for line in lines.connect(begun).await?.into_iter().take(watchers - begun) {
            let permit = Arc::clone(&opening).acquire_owned();
            let permit = tokio::time::timeout(MAX_WAIT, permit).await.context(crowd.trouble("no stream opens"))??;
            tokio::spawn(Arc::clone(crowd).watch(line, Arc::clone(&path), permit));
            begun += 1;
        }
    }
    Ok(())
}

/// Raises the limit of open files to what is needed.
fn allow_files(needed: u64) -> anyhow::Result<()> {
    let allowed = rlimit::increase_nofile_limit(needed).context("the limit of open files cannot be raised")?;
    ensure!(
        allowed >= needed,
        "so many watchers need {needed} open files in the gateway and as many here, and {allowed} are allowed: raise \
         the hard limit (`ulimit -Hn`), or let them share connections"
    );
    Ok(())
}

/// Waits for a line. Returns whether one came before the end.
async fn go_on() -> anyhow::Result<bool> {
    Ok(spawn_blocking(|| stdin().read_line(&mut String::new())).await?? > 0)
}

fn say(line: &Value) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}

/// Returns the figures of a change; `latencies` is sorted.
fn figures(latencies: &[Duration]) -> Value {
    let at = |percent: usize| latencies.get((latencies.len() * percent).div_ceil(100).saturating_sub(1)).copied();
    let [p50, p99, max] = [50, 99, 100].map(|percent| millis(at(percent).unwrap_or_default()));
    json!({ "p50_ms": p50, "p99_ms": p99, "max_ms": max })
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Returns a second since 1970 as JSON has it.
fn time(seconds: i64) -> String {
    prost_types::Timestamp { seconds, nanos: 0 }.to_string()
}
