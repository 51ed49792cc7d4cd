//! The cache of campaigns, which are immutable.

use crate::{
    domain::{Campaign, Coupon},
    store,
    usecase::{Error, batches, call},
};
use sqlx::MySqlConnection;
use stampede_batch::Batcher;
use stampede_db::{Conn, Database, DbError};
use stampede_vocab::CampaignId;
use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

/// Capacity of the cache. When it is full it is cleared.
const MAX_CACHED: usize = 4_096;

/// Campaigns that exist, by id; an error for a row that cannot be read.
pub type CampaignsById = HashMap<CampaignId, Result<Arc<Campaign>, DbError>>;

/// Returns the campaign of the coupon. Fails if it is not among these, or cannot be read.
pub fn campaign_of(campaigns: &CampaignsById, coupon: &Coupon) -> Result<Arc<Campaign>, DbError> {
    let missing = || Err(DbError::inconsistent(format!("coupon {} is of no campaign", coupon.id)));
    campaigns.get(&coupon.campaign_id).cloned().unwrap_or_else(missing)
}

/// Finds campaigns, in the cache first. Cheap to clone.
#[derive(Clone)]
pub struct Campaigns {
    cache: Cache,
    reader: Batcher<CampaignId, Result<Option<Arc<Campaign>>, DbError>>,
}

#[derive(Clone, Default)]
struct Cache(Arc<RwLock<HashMap<CampaignId, Arc<Campaign>>>>);

impl Campaigns {
    /// Returns the use case with an empty cache.
    pub fn new(db: Database) -> Self {
        let cache = Cache::default();
        let shared = cache.clone();
        let reader = Batcher::new(batches("read_campaigns"), move |ids| read(db.clone(), shared.clone(), ids));
        Self { cache, reader }
    }

    /// Returns the campaign of this id; `None` if there is none.
    pub async fn get(&self, id: CampaignId) -> Result<Option<Arc<Campaign>>, Error> {
        match self.cache.get(id) {
            Some(campaign) => Ok(Some(campaign)),
            None => call(&self.reader, id).await,
        }
    }

    /// Returns the campaigns of these ids. Reads those that are not cached on `conn`.
    pub async fn get_on(
        &self,
        conn: &mut MySqlConnection,
        ids: impl IntoIterator<Item = CampaignId>,
    ) -> Result<CampaignsById, DbError> {
        self.cache.fill(conn, ids).await
    }
}

impl Cache {
    fn get(&self, id: CampaignId) -> Option<Arc<Campaign>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Adds those that could be read.
    fn put(&self, campaigns: &CampaignsById) {
        let mut cached = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if cached.len() + campaigns.len() > MAX_CACHED {
            cached.clear();
        }
        cached.extend(campaigns.values().flatten().map(|campaign| (campaign.id, campaign.clone())));
    }

    async fn fill(
        &self,
        conn: &mut MySqlConnection,
        ids: impl IntoIterator<Item = CampaignId>,
    ) -> Result<CampaignsById, DbError> {
        let mut missing: Vec<CampaignId> = ids.into_iter().collect();
        missing.sort_unstable();
        missing.dedup();
        let mut found = CampaignsById::new();
        missing.retain(|&id| match self.get(id) {
            Some(campaign) => found.insert(id, Ok(campaign)).is_some(),
            None => true,
        });
        if !missing.is_empty() {
            let read = store::campaigns::find_many(conn, &missing).await?;
            let read = read.into_iter().map(|stored| (stored.id, stored.campaign.map(Arc::new))).collect();
            self.put(&read);
            found.extend(read);
        }
        Ok(found)
    }
}

async fn read(db: Database, cache: Cache, ids: Vec<CampaignId>) -> Vec<Result<Option<Arc<Campaign>>, DbError>> {
    let wanted = ids.iter().copied();
    let read = |mut conn: Conn| async move { cache.fill(&mut conn, wanted).await };
    match db.run("find_campaigns", read).await {
        Ok(found) => ids.iter().map(|id| found.get(id).cloned().transpose()).collect(),
        Err(error) => vec![Err(error); ids.len()],
    }
}
