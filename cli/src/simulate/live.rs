//! The picture while the sale runs, on stderr: bars on a terminal, a line a second elsewhere. It only looks.

use super::{
    bars::Bars,
    client::{Call, Client},
    expect::state_name,
    latency::Percentiles,
    stage::Stage,
    stats::Glance,
    step::Timed,
    wire::{Stock, Stocks},
};
use stampede_proto::order::v1::OrderState;
use stampede_sale::Sale;
use stampede_vocab::ItemId;
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{MissedTickBehavior, interval, sleep};

/// Time between two looks.
const PERIOD: Duration = Duration::from_millis(200);
/// Latencies are those of the last so many looks; a plain line is written as often.
const LOOKS_PER_LINE: u32 = 5;

/// All that is shown.
pub struct Picture {
    /// Time to the opening, or since.
    pub phase: String,
    /// What has happened so far.
    pub glance: Glance,
    /// What is left of each item.
    pub stocks: Vec<Stock>,
    /// Orders by state.
    pub states: BTreeMap<OrderState, usize>,
    /// How long each thing took lately.
    pub latencies: BTreeMap<Timed, Percentiles>,
}

/// Shows the sale, until dropped.
pub async fn show(stage: &Stage, sale: &Sale, operator: &Client, on_terminal: bool) {
    let stocks = Mutex::new(Vec::new());
    tokio::join!(watch_stock(stage, operator, &stocks), draw(stage, sale, &stocks, on_terminal));
}

/// Reads the stock again and again. An answer that fails or takes its time holds nothing up but the next one.
async fn watch_stock(stage: &Stage, operator: &Client, stocks: &Mutex<Vec<Stock>>) {
    let call = Call::get(format!("/v1/events/{}/stock", stage.event));
    loop {
        if let Ok(answer) = operator.call_once::<Stocks>(&call).await {
            *stocks.lock().unwrap_or_else(PoisonError::into_inner) = in_order(&stage.items, answer.stocks);
        }
        sleep(PERIOD).await;
    }
}

async fn draw(stage: &Stage, sale: &Sale, stocks: &Mutex<Vec<Stock>>, on_terminal: bool) {
    let bars = on_terminal.then(|| Bars::new(sale, stage.plan.buyers.len()));
    let mut latencies = BTreeMap::new();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for look in 0_u32.. {
        ticks.tick().await;
        let second_over = look.is_multiple_of(LOOKS_PER_LINE);
        if second_over {
            latencies = stage.stats.latencies_lately();
        }
        let picture = Picture {
            phase: phase(stage),
            glance: stage.stats.glance(),
            stocks: stocks.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            states: stage.follow.states(),
            latencies: latencies.clone(),
        };
        match &bars {
            Some(bars) => bars.draw(&picture),
            None if second_over => eprintln!("{}", picture.line()),
            None => {}
        }
    }
}

/// The stock of each item, in the order of the sale file.
pub fn in_order(items: &[ItemId], mut stocks: Vec<Stock>) -> Vec<Stock> {
    stocks.sort_by_key(|stock| items.iter().position(|item| *item == stock.item_id));
    stocks
}

impl Picture {
    fn line(&self) -> String {
        let Glance { arrivals, coupons, orders, .. } = self.glance;
        let left: Vec<_> = self.stocks.iter().map(|stock| stock.left_units.to_string()).collect();
        let left = left.join(" ");
        let mut line = format!("{}: {arrivals} arrived, {coupons} coupons, {orders} orders, left {left}", self.phase);
        for part in [self.states_text(), self.latencies_text(), self.anomalies_text()] {
            if !part.is_empty() {
                let _ = write!(line, " | {part}");
            }
        }
        line
    }

    /// Orders by state.
    pub fn states_text(&self) -> String {
        let states = self.states.iter();
        let texts: Vec<_> =
            states.map(|(state, count)| format!("{count} {}", state_name(*state).to_lowercase())).collect();
        texts.join(", ").replace('_', " ")
    }

    /// How long steps take now, of those that are done.
    pub fn latencies_text(&self) -> String {
        let done = self.latencies.iter().filter(|(timed, _)| timed.is_done());
        let text = |(timed, took): (&Timed, &Percentiles)| {
            format!("{} p50 {:.0} p99 {:.0} ms", timed.name().replace('_', " "), took.p50_ms, took.p99_ms)
        };
        done.map(text).collect::<Vec<_>>().join(", ")
    }

    /// What nobody expected.
    pub fn anomalies_text(&self) -> String {
        match self.glance.anomalies {
            0 => String::new(),
            count => format!("{count} unexpected"),
        }
    }
}

fn phase(stage: &Stage) -> String {
    let timeline = &stage.timeline;
    let now = timeline.now();
    if now < timeline.opens_at {
        format!("opens in {:.1} s", timeline.opens_at.since(now).as_secs_f64())
    } else if now < timeline.closes_at {
        format!("open for {:.1} s", now.since(timeline.opens_at).as_secs_f64())
    } else {
        format!("closed for {:.1} s", now.since(timeline.closes_at).as_secs_f64())
    }
}
