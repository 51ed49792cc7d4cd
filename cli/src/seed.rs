//! `stampede seed`: creates the data of a load test: an event with stock, open, a campaign, and orders to read.

use crate::{
    output::{Output, print_json, print_text},
    simulate::{
        client::{Call, Client},
        setup::{self, Created, bearer},
        stats::Stats,
        timeline::Timeline,
        wire::{NewLine, Order, PlaceOrder},
    },
    token::{buyer_token, operator_token},
};
use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::Uri;
use serde::Serialize;
use stampede_sale::{OpensIn, Sale};
use stampede_vocab::{CampaignId, EventId, ItemId, OrderId, UserId};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::time::sleep_until;

/// Requests under way at a time.
const CONCURRENCY: usize = 16;

/// Open an event with stock and coupons for a load test.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example, next to a running `cargo xtask up`:
  . .stampede/up/secrets.env
  stampede seed ghz-bench/sale.toml --orders 1")]
pub struct Args {
    /// The sale file: its event, items and campaign are made, its crowd does not come
    #[arg(value_name = "SALE.toml")]
    sale: PathBuf,

    /// The gateway
    #[arg(long, env = "STAMPEDE_GATEWAY_URL", value_name = "URL", default_value = "http://127.0.0.1:8080")]
    gateway_url: Uri,

    /// The secret that the gateway checks tokens with
    #[arg(long, env = "STAMPEDE_AUTH_SECRET", value_name = "SECRET", hide_env_values = true)]
    auth_secret: String,

    /// Orders of one unit of the first item to place, each by a new buyer
    #[arg(long, value_name = "COUNT", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    orders: u32,

    /// Time until the event opens, in milliseconds, whatever the file says
    #[arg(long, value_name = "MS", value_parser = stampede_sale::parse_opens_in)]
    opens_in_ms: Option<OpensIn>,

    /// Return as soon as the stock is there, and not only when the event is open; excludes --orders
    #[arg(long, conflicts_with = "orders")]
    before_opening: bool,
}

/// Ids of what `stampede seed` has made.
#[derive(Debug, Serialize)]
struct Seeded {
    event_id: EventId,
    open_time: String,
    item_ids: Vec<ItemId>,
    campaign_id: Option<CampaignId>,
    orders: Vec<SeededOrder>,
}

/// An order, and the buyer who may read it.
#[derive(Debug, Serialize)]
struct SeededOrder {
    order_id: OrderId,
    user_id: UserId,
}

/// Makes the event and the campaign of the file, waits until they are open, and prints their ids: as JSON, or as
/// assignments that a shell understands.
pub async fn run(args: Args, output: Output) -> anyhow::Result<()> {
    let sale = Sale::load(&args.sale)?;
    let sale = match args.opens_in_ms {
        Some(opens_in) => sale.opening_in(opens_in).context("--opens-in-ms")?,
        None => sale,
    };
    let client = Client::new(&args.gateway_url, CONCURRENCY, Arc::new(Stats::default()))?;
    let operator = bearer(&operator_token(&args.auth_secret)?)?;
    let claims_before = sale.campaign.as_ref().map_or(Duration::ZERO, |c| c.opens_before_ms.get_ref().millis());
    let (opens_in, lasts) = (sale.opens_in_ms.get_ref().millis(), sale.lasts_ms.get_ref().millis());
    let timeline = Timeline::from_now(opens_in, lasts, claims_before);
    let created = setup::create(&client, &operator, &sale, &timeline).await?;
    if !args.before_opening {
        sleep_until(timeline.instant(timeline.open_time)).await;
    }
    let orders = place_orders(&client, &args, &created).await?;
    let Created { event, items, campaign } = created;
    let open_time = crate::simulate::wire::rfc3339(timeline.open_time);
    let seeded = Seeded { event_id: event, open_time, item_ids: items, campaign_id: campaign, orders };
    if output.json { print_json(&seeded) } else { print_text(seeded.assignments()) }
}

async fn place_orders(client: &Client, args: &Args, created: &Created) -> anyhow::Result<Vec<SeededOrder>> {
    let item_id = *created.items.first().context("the sale has no items")?;
    let place = |_| async move {
        let user_id = UserId::random();
        let lines = vec![NewLine { item_id, units: 1 }];
        let request = PlaceOrder { request_id: "seed", event_id: created.event, lines, coupon_id: None };
        let call = Call::post("/v1/orders", &request).bearing(&bearer(&buyer_token(user_id, &args.auth_secret)?)?);
        let placed = client.call::<Order>(&call).await;
        let order = placed
            .map_err(|failure| anyhow::anyhow!("an order is not taken: {} ({})", failure.reason(), failure.detail()))?;
        Ok(SeededOrder { order_id: order.order_id, user_id })
    };
    stream::iter(0..args.orders).map(place).buffered(CONCURRENCY).try_collect().await
}

impl Seeded {
    /// Returns the variables that the plans of `ghz-bench` read, as a shell assigns them.
    fn assignments(&self) -> String {
        // Thirteen digits that distinguish the buyers of one run from those of another.
        let run = rand::random_range(0..10_u64.pow(13));
        let mut lines = vec![format!("export STAMPEDE_RUN={run:013}")];
        lines.push(format!("export STAMPEDE_EVENT_ID={}", self.event_id));
        lines.extend(self.item_ids.first().map(|id| format!("export STAMPEDE_ITEM_ID={id}")));
        lines.extend(self.item_ids.get(1).map(|id| format!("export STAMPEDE_SCARCE_ITEM_ID={id}")));
        lines.extend(self.campaign_id.map(|id| format!("export STAMPEDE_CAMPAIGN_ID={id}")));
        lines.extend(self.orders.first().map(|order| format!("export STAMPEDE_ORDER_ID={}", order.order_id)));
        lines.extend(self.orders.first().map(|order| format!("export STAMPEDE_USER_ID={}", order.user_id)));
        lines.join("\n")
    }
}
