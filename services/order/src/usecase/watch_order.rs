//! Watches single orders until they end. One poll reads the versions of all watched orders, and then those that have
//! changed.

use super::{Error, FindOrder, readable};
use crate::{domain::Order, store};
use futures_util::{Stream, StreamExt, stream};
use stampede_db::{Database, DbError};
use stampede_service::until_last;
use stampede_vocab::{OrderId, UserId};
use stampede_watch::Hub;
use std::{collections::HashMap, time::Duration};

/// Most orders of one query. There are many when a crowd begins to watch.
const MAX_PER_QUERY: usize = 1_024;

/// Watches orders. Cheap to clone.
#[derive(Clone)]
pub struct WatchOrder {
    find: FindOrder,
    hub: Hub<OrderId, Order>,
}

impl WatchOrder {
    /// Watches orders of this schema at this poll interval.
    pub fn new(db: Database, find: FindOrder, period: Duration) -> Self {
        let reading = db.clone();
        let versions = move |ids| versions(db.clone(), ids);
        let hub =
            Hub::by_version(period, |order: &Order| order.version, versions, move |ids| read(reading.clone(), ids));
        Self { find, hub }
    }

    /// Returns the order now and after each change, until its state is terminal. `owner` is `None` for a caller who may
    /// see every order.
    pub async fn run(
        &self,
        id: OrderId,
        owner: Option<UserId>,
    ) -> Result<impl Stream<Item = Order> + Send + use<>, Error> {
        let now = self.find.get(id, owner).await?;
        let version = now.version;
        let later = self.hub.watch(id).filter(move |order| std::future::ready(order.version > version));
        Ok(until_last(Box::pin(stream::iter([now]).chain(later)), |order| order.state.is_terminal()))
    }
}

async fn versions(db: Database, ids: Vec<OrderId>) -> anyhow::Result<HashMap<OrderId, i64>> {
    let read = db.run("watched_versions", |mut conn| async move { store::orders::versions(&mut conn, &ids).await });
    Ok(read.await?)
}

async fn read(db: Database, ids: Vec<OrderId>) -> anyhow::Result<HashMap<OrderId, Order>> {
    let read = db.run("watched_orders", |mut conn| async move {
        let mut found = HashMap::with_capacity(ids.len());
        for ids in ids.chunks(MAX_PER_QUERY) {
            found.extend(store::orders::load(&mut conn, ids).await?);
        }
        Ok::<_, DbError>(found)
    });
    let found = read.await?.into_iter();
    Ok(found.filter_map(|(id, order)| Some((id, readable(id, order)?))).collect())
}
