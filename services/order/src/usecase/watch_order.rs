//! Follows single orders to their end. However many are watched, one poll reads them all.

use super::{Failure, FindOrder};
use crate::{domain::Order, store};
use futures_util::{Stream, StreamExt, stream};
use stampede_db::Database;
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
    ) -> Result<impl Stream<Item = Order> + Send + use<>, Failure> {
        let now = self.find.visible(id, owner).await?;
        let version = now.version;
        let later = self.hub.watch(id).filter(move |order| std::future::ready(order.version > version));
        Ok(up_to_its_end(stream::iter([now]).chain(later)))
    }
}

/// Ends the stream after the first order that has reached an end.
fn up_to_its_end(orders: impl Stream<Item = Order> + Send) -> impl Stream<Item = Order> + Send {
    stream::unfold(Some(Box::pin(orders)), |orders| async {
        let mut orders = orders?;
        let order = orders.next().await?;
        let rest = (!order.state.is_end()).then_some(orders);
        Some((order, rest))
    })
}

async fn read(db: Database, ids: Vec<OrderId>) -> anyhow::Result<HashMap<OrderId, Order>> {
    let mut connection = db.acquire().await?;
    Ok(store::orders::load(&mut connection, &ids).await?)
}
