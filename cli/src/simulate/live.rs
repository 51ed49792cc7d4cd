//! Draws the progress of the sale on stderr: bars on a terminal, a line a second elsewhere. Only reads.

use super::{
    bars::Bars,
    client::{Call, Client},
    picture::Picture,
    stage::Stage,
    wire::{Stock, Stocks},
};
use stampede_sale::Sale;
use stampede_vocab::ItemId;
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{MissedTickBehavior, interval, sleep};

const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Polls for each set of latencies; a plain line is written as often.
const POLLS_PER_LINE: u32 = 5;

/// Shows the sale, until dropped.
pub async fn show(stage: &Stage, sale: &Sale, operator: &Client, on_terminal: bool) {
    let stocks = Mutex::new(Vec::new());
    tokio::join!(watch_stock(stage, operator, &stocks), draw(stage, sale, &stocks, on_terminal));
}

/// Polls the stock. A failed or late answer delays only the next poll.
async fn watch_stock(stage: &Stage, operator: &Client, stocks: &Mutex<Vec<Stock>>) {
    let call = Call::get(format!("/v1/events/{}/stock", stage.event));
    loop {
        if let Ok(answer) = operator.call_once::<Stocks>(&call).await {
            *stocks.lock().unwrap_or_else(PoisonError::into_inner) = in_order(&stage.items, answer.stocks);
        }
        sleep(POLL_INTERVAL).await;
    }
}

async fn draw(stage: &Stage, sale: &Sale, stocks: &Mutex<Vec<Stock>>, on_terminal: bool) {
    let bars = on_terminal.then(|| Bars::new(sale, stage.plan.buyers.len()));
    let mut latencies = BTreeMap::new();
    let mut ticks = interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for poll in 0_u32.. {
        ticks.tick().await;
        let second_over = poll.is_multiple_of(POLLS_PER_LINE);
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

/// Returns the stock of each item, in the order of the sale file.
pub fn in_order(items: &[ItemId], mut stocks: Vec<Stock>) -> Vec<Stock> {
    stocks.sort_by_key(|stock| items.iter().position(|item| *item == stock.item_id));
    stocks
}

fn phase(stage: &Stage) -> String {
    let timeline = &stage.timeline;
    let now = timeline.now();
    if now < timeline.open_time {
        format!("opens in {:.1} s", timeline.open_time.since(now).as_secs_f64())
    } else if now < timeline.close_time {
        format!("open for {:.1} s", now.since(timeline.open_time).as_secs_f64())
    } else {
        format!("closed for {:.1} s", now.since(timeline.close_time).as_secs_f64())
    }
}
