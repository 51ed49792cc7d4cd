//! The campaigns in use, kept in memory: a campaign never changes once it is created.

use crate::{
    domain::{Campaign, Failure},
    store,
    usecase::{ask, batches},
};
use sqlx::MySqlConnection;
use stampede_batch::Batcher;
use stampede_db::{Database, DbError};
use stampede_vocab::CampaignId;
use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

/// Campaigns kept; when there are more it starts over.
const MAX_KNOWN: usize = 4_096;

/// Campaigns by id, each with its id.
pub type CampaignsById = HashMap<CampaignId, Arc<Campaign>>;

/// Finds campaigns, in memory first. Cheap to clone.
#[derive(Clone)]
pub struct Campaigns {
    shelf: Shelf,
    reader: Batcher<CampaignId, Result<Option<Arc<Campaign>>, Failure>>,
}

#[derive(Clone, Default)]
struct Shelf(Arc<RwLock<CampaignsById>>);

impl Campaigns {
    /// Knows none yet.
    pub fn new(db: Database) -> Self {
        let shelf = Shelf::default();
        let reading = shelf.clone();
        let reader = Batcher::new(batches("read_campaigns"), move |ids| read(db.clone(), reading.clone(), ids));
        Self { shelf, reader }
    }

    /// The campaign of this id; `None` if there is none.
    pub async fn get(&self, id: CampaignId) -> Result<Option<Arc<Campaign>>, Failure> {
        match self.shelf.get(id) {
            Some(campaign) => Ok(Some(campaign)),
            None => ask(&self.reader, id).await,
        }
    }

    /// The campaigns of these ids, read on the connection given if they are not known.
    pub async fn get_on(
        &self,
        connection: &mut MySqlConnection,
        ids: impl IntoIterator<Item = CampaignId>,
    ) -> Result<CampaignsById, DbError> {
        self.shelf.fill(connection, ids).await
    }
}

impl Shelf {
    fn get(&self, id: CampaignId) -> Option<Arc<Campaign>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    fn put(&self, campaigns: &CampaignsById) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() + campaigns.len() > MAX_KNOWN {
            known.clear();
        }
        known.extend(campaigns.iter().map(|(id, campaign)| (*id, campaign.clone())));
    }

    async fn fill(
        &self,
        connection: &mut MySqlConnection,
        ids: impl IntoIterator<Item = CampaignId>,
    ) -> Result<CampaignsById, DbError> {
        let mut wanted: Vec<CampaignId> = ids.into_iter().collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut found = CampaignsById::new();
        wanted.retain(|&id| match self.get(id) {
            Some(campaign) => found.insert(id, campaign).is_some(),
            None => true,
        });
        if !wanted.is_empty() {
            let read = store::campaigns::find_many(connection, &wanted).await?;
            let read = read.into_iter().map(|campaign| (campaign.id, Arc::new(campaign))).collect();
            self.put(&read);
            found.extend(read);
        }
        Ok(found)
    }
}

async fn read(db: Database, shelf: Shelf, ids: Vec<CampaignId>) -> Vec<Result<Option<Arc<Campaign>>, Failure>> {
    let found = async { shelf.fill(&mut *db.acquire().await?, ids.iter().copied()).await };
    let found = db.in_time("find_campaigns", found).await;
    match found.map_err(Failure::from) {
        Ok(found) => ids.iter().map(|id| Ok(found.get(id).cloned())).collect(),
        Err(failure) => ids.iter().map(|_| Err(failure.clone())).collect(),
    }
}
