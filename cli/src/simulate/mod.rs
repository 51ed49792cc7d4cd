//! `stampede simulate`: a whole sale through the gateway, as its buyers and its operator would do it.
//!
//! [`sale`] is the file, [`plan`] the actions of each buyer, drawn from it; [`setup`] makes the event, [`crowd`] sends
//! the buyers on schedule, [`buyer`] and [`payer`] are one buyer's way, [`list`] waits for orders that nobody watches;
//! [`stats`] and [`follow`] keep the outcomes, [`live`] shows them, [`report`] sums up. It knows nothing of the mesh
//! but its HTTP interface.
//!
//! The load is open: requests are due at times that are drawn beforehand, whether or not answers come. It is bounded by
//! the number of requests under way at a time; the delay that this causes is reported.

mod bars;
mod buyer;
pub(crate) mod client;
mod crowd;
mod expect;
mod follow;
mod latency;
mod list;
mod live;
mod payer;
mod picture;
mod plan;
mod report;
pub(crate) mod setup;
mod stage;
pub(crate) mod stats;
mod step;
mod table;
mod terms;
pub(crate) mod timeline;
pub(crate) mod wire;

use crate::{
    output::{Output, print_json, print_text},
    token::operator_token,
};
use anyhow::{Context, ensure};
use client::{Call, Client, MAX_WATCHES};
use expect::Expectations;
use follow::Follow;
use http::{HeaderValue, Uri};
use plan::Plan;
use report::{Aftermath, Report};
use serde::Serialize;
use stage::Stage;
use stampede_sale::{PayWindow, Sale};
use stats::{Anomaly, Stats};
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};
use timeline::Timeline;
use tokio::time::timeout;
use wire::{Order, Stocks};

/// Connections in addition to the crowd's: for the operator who watches the stock and reads the list of orders.
const OPERATOR_CONNECTIONS: usize = 4;
/// Files open in addition to the crowd's connections: the operator's, the terminal, the report, those of the runtime.
const OTHER_FILES: u64 = 64;

/// Run a whole sale against the gateway, as its buyers would.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example, next to a running `cargo xtask up --pay-window-ms 6000`:
  . .stampede/up/secrets.env
  stampede simulate examples/flash-sale.toml --buyers 500 --json report.json")]
pub struct Args {
    /// The sale file
    #[arg(value_name = "SALE.toml")]
    sale: PathBuf,

    /// The gateway
    #[arg(long, env = "STAMPEDE_GATEWAY_URL", value_name = "URL", default_value = "http://127.0.0.1:8080")]
    gateway_url: Uri,

    /// The secret that the gateway checks tokens with: the event is created with an operator's token made from it
    #[arg(long, env = "STAMPEDE_AUTH_SECRET", value_name = "SECRET", hide_env_values = true)]
    auth_secret: String,

    /// Time for which the mesh lets an order wait for its payment, in milliseconds, whatever the file says
    #[arg(long, env = "STAMPEDE_PAY_WINDOW_MS", value_name = "MS", value_parser = stampede_sale::parse_pay_window)]
    pay_window_ms: Option<PayWindow>,

    /// Number of buyers, whatever the file says
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    buyers: Option<u32>,

    /// The seed of the crowd: the same seed gives the same crowd
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Write the report as JSON to this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write the ids of all orders and coupons that were acknowledged to this file, and the newest states that were
    /// shown of the orders, for `stampede audit`
    #[arg(long, value_name = "FILE")]
    acknowledged: Option<PathBuf>,

    /// Requests of the crowd that are under way at a time; others wait, the wait counts, and is reported
    #[arg(long, value_name = "COUNT", default_value_t = 1_024, value_parser = clap::value_parser!(u16).range(1..))]
    max_connections: u16,

    /// Longest time from the start of the crowd to the last order's end, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    deadline_s: u32,
}

/// Runs the sale and reports. Returns false if there was an anomaly.
pub async fn run(args: Args, output: Output) -> anyhow::Result<bool> {
    let sale = Sale::load(&args.sale)?;
    let sale = match args.pay_window_ms {
        Some(window) => sale.with_pay_window(window).context("--pay-window-ms")?,
        None => sale,
    };
    let plan = Plan::draw(&sale, args.buyers.unwrap_or(sale.crowd.buyers.get()), args.seed);
    allow_connections(args.max_connections, plan.buyers.len())?;
    let stats = Arc::new(Stats::default());
    let crowd = Client::new(&args.gateway_url, args.max_connections.into(), Arc::clone(&stats))?;
    let operator = Operator {
        client: Client::new(&args.gateway_url, OPERATOR_CONNECTIONS, Arc::clone(&stats))?,
        token: setup::bearer(&operator_token(&args.auth_secret)?)?,
    };
    let stage = Arc::new(set_up(&sale, plan, crowd, stats, &operator).await?);
    let deadline = Duration::from_secs(args.deadline_s.into());
    let ended = play(&stage, &sale, &operator, deadline, output.progress).await?;
    let report = Report::of(&sale, &stage, args.seed, &read_aftermath(&stage, &operator, ended).await?);
    deliver(&report, &args, output)?;
    Ok(report.as_expected)
}

/// Raises the limit of open files as far as it goes. Refuses a crowd that it does not suffice for: its connections
/// would break where the gateway's do not.
fn allow_connections(count: u16, buyers: usize) -> anyhow::Result<()> {
    let allowed = rlimit::increase_nofile_limit(rlimit::INFINITY).context("the limit of open files cannot be read")?;
    // A buyer watches one order at a time.
    let watches = MAX_WATCHES.min(buyers);
    let needed = u64::from(count) + watches as u64 + OTHER_FILES;
    ensure!(
        needed <= allowed,
        "--max-connections {count} and {watches} watches need {needed} open files, but the hard limit is \
         {allowed}: lower the one or raise the other, with `ulimit -Hn` as root"
    );
    Ok(())
}

/// The operator, who creates the sale and reads its state.
struct Operator {
    client: Client,
    token: HeaderValue,
}

async fn set_up(
    sale: &Sale,
    plan: Plan,
    client: Client,
    stats: Arc<Stats>,
    operator: &Operator,
) -> anyhow::Result<Stage> {
    let tokens = setup::tokens(&client, &plan).await?;
    let claims_before = sale.campaign.as_ref().map_or(Duration::ZERO, |c| c.opens_before_ms.get_ref().millis());
    let (opens_in, lasts) = (sale.opens_in_ms.get_ref().millis(), sale.lasts_ms.get_ref().millis());
    let timeline = Timeline::from_now(opens_in, lasts, claims_before);
    let created = setup::create(&operator.client, &operator.token, sale, &timeline).await?;
    Ok(Stage {
        client,
        stats,
        follow: Follow::default(),
        timeline,
        tokens,
        coupons: plan.buyers.iter().map(|_| OnceLock::new()).collect(),
        event: created.event,
        items: created.items,
        limits: sale.items.get_ref().iter().map(|item| item.limit_per_buyer.get_ref().get()).collect(),
        campaign: created.campaign,
        expectations: Expectations::of(sale, &plan),
        come_back_every: sale.crowd.come_back_every_ms.millis(),
        plan,
    })
}

/// Plays the crowd until every order has reached an end, and returns these; none if time is up before. Fails if the
/// mesh sells on other terms than the sale expects.
async fn play(
    stage: &Arc<Stage>,
    sale: &Sale,
    operator: &Operator,
    deadline: Duration,
    on_terminal: bool,
) -> anyhow::Result<Option<Vec<Order>>> {
    stage.client.begin();
    let sale_runs = async {
        crowd::play(stage).await;
        list::until_all_ended(&operator.client, &operator.token, stage.event, &stage.follow).await
    };
    let all = async {
        tokio::select! {
            ended = sale_runs => Ok(Some(ended)),
            () = live::show(stage, sale, &operator.client, on_terminal) => Ok(None),
            wrong = terms::wrong_pay_window(stage, sale, deadline) => Err(wrong),
        }
    };
    let Ok(played) = timeout(deadline, all).await else {
        let detail = format!("after {} s there were still buyers or open orders", deadline.as_secs());
        stage.stats.record_anomaly(Anomaly::of_sale("DEADLINE", detail));
        return Ok(None);
    };
    played
}

/// Reads the final state of the sale, with its orders if they have not all `ended`.
async fn read_aftermath(stage: &Stage, operator: &Operator, ended: Option<Vec<Order>>) -> anyhow::Result<Aftermath> {
    let Operator { client, token } = operator;
    let lost = |failure: client::Failure| anyhow::anyhow!("{} ({})", failure.reason(), failure.detail());
    let orders = match ended {
        Some(ended) => ended,
        None => list::read(client, token, stage.event).await.map_err(lost).context("orders")?,
    };
    // With the token: what readers without one are told may be of a moment ago.
    let event = Call::get(format!("/v1/events/{}", stage.event)).bearing(token);
    let stock = Call::get(format!("/v1/events/{}/stock", stage.event)).bearing(token);
    let stocks: Stocks = client.call(&stock).await.map_err(lost).context("stock")?;
    Ok(Aftermath {
        event: client.call(&event).await.map_err(lost).context("event")?,
        stocks: live::in_order(&stage.items, stocks.stocks),
        orders,
    })
}

fn deliver(report: &Report, args: &Args, output: Output) -> anyhow::Result<()> {
    if let Some(file) = &args.json {
        write_json(file, report)?;
    }
    if let Some(file) = &args.acknowledged {
        write_json(file, &report.acknowledged)?;
    }
    if output.json {
        return print_json(report);
    }
    print_text(report)
}

fn write_json(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let written = || -> anyhow::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        serde_json::to_writer_pretty(&mut file, value)?;
        Ok(file.flush()?)
    };
    written().with_context(|| format!("{} cannot be written", path.display()))
}
