//! Follows single orders to their end. However many are watched, one poll reads them all.

use super::{Error, FindOrder};
use crate::{domain::Order, store};
use futures_util::{Stream, StreamExt, stream};
use stampede_db::Database;
use stampede_service::until_last;
use stampede_vocab::{OrderId, UserId};
use stampede_watch::Hub;
use std::{collections::HashMap, time::Duration};

/// Watches orders. Cheap to clone.
#[derive(Clone)]
pub struct WatchOrder {
    find: FindOrder,
    hub: Hub<OrderId, Order>,
}

impl WatchOrder {
    /// Watches orders of this schema, looking once a period.
    pub fn new(db: Database, find: FindOrder, period: Duration) -> Self {
        let hub = Hub::new(period, move |ids| read(db.clone(), ids));
        Self { find, hub }
    }

    /// The order as it is now and after each change, until it has reached an end. `owner` is `None` for one who may see
    /// everybody's.
    pub async fn run(
        &self,
        id: OrderId,
        owner: Option<UserId>,
    ) -> Result<impl Stream<Item = Order> + Send + use<>, Error> {
        let now = self.find.visible(id, owner).await?;
        let version = now.version;
        let later = self.hub.watch(id).filter(move |order| std::future::ready(order.version > version));
        Ok(until_last(Box::pin(stream::iter([now]).chain(later)), |order| order.state.is_end()))
    }
}

async fn read(db: Database, ids: Vec<OrderId>) -> anyhow::Result<HashMap<OrderId, Order>> {
    Ok(db.run("watched_orders", |mut conn| async move { store::orders::load(&mut conn, &ids).await }).await?)
}
