//! Staging an event by hand: for tools and repair, since the event's messages do it by themselves.

use crate::{
    domain::Shelf,
    store,
    usecase::{Inventory, InventoryError},
};
use std::sync::Arc;

impl Inventory {
    /// Puts the items of an event on the shelf, in the database and in Redis. An older version than the one at hand
    /// changes nothing.
    pub async fn shelve(&self, shelf: Shelf) -> Result<(), InventoryError> {
        let event_id = shelf.event_id;
        let shelves: Arc<[Shelf]> = [shelf].into();
        self.db
            .transact("shelve", move |conn| {
                let shelves = shelves.clone();
                Box::pin(async move { store::stock::shelve(conn, &shelves).await })
            })
            .await?;
        self.reconcile(event_id).await?;
        Ok(())
    }
}
