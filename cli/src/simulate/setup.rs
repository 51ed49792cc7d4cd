//! Creates the data that the crowd needs: a token for each buyer, the event, the campaign, the staged stock. All of it
//! goes through the gateway, by an operator.

use super::{
    client::{Call, Client, Failure},
    plan::Plan,
    timeline::Timeline,
    wire::{
        Campaign, CreateCampaign, CreateEvent, Event, EventItem, NewGift, NewItem, Nothing, Stocks, TokenPair, rfc3339,
    },
};
use anyhow::{Context, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use http::HeaderValue;
use stampede_sale::{Item, Sale};
use stampede_vocab::{CampaignId, EventId, ItemId, UserId};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Token requests under way at a time.
const CONCURRENT_TOKENS: usize = 64;
const STAGING_POLL_INTERVAL: Duration = Duration::from_millis(50);

pub struct Created {
    pub event: EventId,
    /// Its items, in the order of the sale file.
    pub items: Vec<ItemId>,
    /// The campaign, if the sale has one.
    pub campaign: Option<CampaignId>,
}

/// Returns an authorization header for a token.
pub fn bearer(token: &str) -> anyhow::Result<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).context("a token that no header can carry")?;
    value.set_sensitive(true);
    Ok(value)
}

/// Gets every buyer of the plan a token.
pub async fn tokens(client: &Client, plan: &Plan) -> anyhow::Result<Vec<HeaderValue>> {
    let call = Call::post("/v1/auth/tokens", &Nothing {});
    let one = |_| async {
        let pair: TokenPair = client.call(&call).await.map_err(|failure| refused("a buyer gets no token", &failure))?;
        bearer(&pair.access_token)
    };
    stream::iter(0..plan.buyers.len()).map(one).buffered(CONCURRENT_TOKENS).try_collect().await
}

/// Creates the event and its campaign, and waits until both are staged.
pub async fn create(
    client: &Client,
    operator: &HeaderValue,
    sale: &Sale,
    timeline: &Timeline,
) -> anyhow::Result<Created> {
    // A run is a sale of its own, so its requests have names that no other run has.
    let request_id = UserId::random().to_string();
    let call = Call::post("/v1/events", &new_event(&request_id, sale, timeline)).bearing(operator);
    let created: Event = client.call(&call).await.map_err(|failure| refused("the event is not taken", &failure))?;
    let event = created.event_id;
    let campaign = create_campaign(client, operator, sale, timeline, event, &request_id).await?;
    staged(client, event, timeline).await?;
    let items = created.items.iter().map(|EventItem { item_id }| *item_id).collect();
    Ok(Created { event, items, campaign })
}

fn new_event<'a>(request_id: &'a str, sale: &'a Sale, timeline: &Timeline) -> CreateEvent<'a> {
    CreateEvent {
        request_id,
        name: sale.name.as_str(),
        open_time: rfc3339(timeline.open_time),
        close_time: rfc3339(timeline.close_time),
        items: sale.items.get_ref().iter().map(new_item).collect(),
    }
}

fn new_item(item: &Item) -> NewItem<'_> {
    let gift =
        item.gift.as_ref().map(|gift| NewGift { title: gift.title.as_str(), total_units: gift.units.get_ref().get() });
    NewItem {
        title: item.title.as_str(),
        unit_price: item.price.get_ref().money(),
        total_units: item.units.get(),
        limit_per_buyer: item.limit_per_buyer.get_ref().get(),
        gift,
    }
}

async fn create_campaign(
    client: &Client,
    operator: &HeaderValue,
    sale: &Sale,
    timeline: &Timeline,
    event_id: EventId,
    request_id: &str,
) -> anyhow::Result<Option<CampaignId>> {
    let Some(campaign) = &sale.campaign else { return Ok(None) };
    let request = CreateCampaign {
        request_id,
        name: campaign.name.as_str(),
        quota: campaign.quota.get(),
        discount: campaign.discount.get_ref().money(),
        event_id,
        open_time: rfc3339(timeline.claims_open_at),
        close_time: rfc3339(timeline.close_time),
    };
    let call = Call::post("/v1/campaigns", &request).bearing(operator);
    let created: Campaign =
        client.call(&call).await.map_err(|failure| refused("the campaign is not taken", &failure))?;
    Ok(Some(created.campaign_id))
}

/// Waits until the stock is staged. The message travels from service to service, and has to arrive before the opening.
async fn staged(client: &Client, event: EventId, timeline: &Timeline) -> anyhow::Result<()> {
    let call = Call::get(format!("/v1/events/{event}/stock"));
    let opening = timeline.instant(timeline.open_time);
    loop {
        match client.call_once::<Stocks>(&call).await {
            Ok(_) => return Ok(()),
            Err(failure) if Instant::now() >= opening => {
                bail!(refused("the stock was not staged before the opening", &failure))
            }
            Err(_) => sleep(STAGING_POLL_INTERVAL).await,
        }
    }
}

fn refused(what: &str, failure: &Failure) -> anyhow::Error {
    anyhow::anyhow!("{what}: {} ({})", failure.reason(), failure.detail())
}
