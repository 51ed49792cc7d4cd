//! Watches single orders until they end. One poll reads all that are watched.

use super::{Error, FindOrder, readable};
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
    /// Watches orders of this schema at this poll interval.
    pub fn new(db: Database, find: FindOrder, period: Duration) -> Self {
        let hub = Hub::new(period, move |ids| read(db.clone(), ids));
        Self { find, hub }
    }

    /// Returns the order as it is now and after each change, until its state is terminal. `owner` is `None` for one who
    /// may see everybody's.
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
    let read = db.run("watched_orders", |mut conn| async move { store::orders::load(&mut conn, &ids).await });
    let found = read.await?.into_iter();
    Ok(found.filter_map(|(id, order)| Some((id, readable(id, order)?))).collect())
}
