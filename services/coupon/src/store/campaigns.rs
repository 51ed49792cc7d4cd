//! The table `campaigns`. Rows are immutable but for `settled_us` and `told_version`.

use crate::{
    domain::{Campaign, CampaignTerms},
    store::inconsistent,
};
use sqlx::{FromRow, MySqlConnection, Row, mysql::MySqlRow};
use stampede_db::{Answers, DbError, Place, Statement, Statements};
use stampede_vocab::{CampaignId, Currency, EventId, Money, RequestId, Timestamp, UserId};
use std::collections::{BTreeSet, HashMap, HashSet};
use uuid::Uuid;

const SELECT: &str = "SELECT id, creator_id, request_id, name, quota, discount_minor, currency, event_id, \
                      opens_at_us, closes_at_us, created_us FROM campaigns ";

/// A row as it was read. An unreadable row fails only its own campaign.
#[derive(Debug, Clone)]
pub struct Stored {
    pub id: CampaignId,
    pub created_at: Timestamp,
    /// The campaign, or why its row cannot be read.
    pub campaign: Result<Campaign, DbError>,
}

/// Inserts a new campaign. A repeat violates the primary key.
pub async fn insert(conn: &mut MySqlConnection, campaign: &Campaign) -> Result<(), DbError> {
    let terms = &campaign.terms;
    sqlx::query(
        "INSERT INTO campaigns (id, creator_id, request_id, name, quota, discount_minor, currency, event_id, \
         opens_at_us, closes_at_us, created_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(campaign.id.uuid())
    .bind(campaign.creator_id.uuid())
    .bind(campaign.request_id.as_str())
    .bind(terms.name.as_str())
    .bind(terms.quota)
    .bind(terms.discount.minor_units)
    .bind(terms.discount.currency.as_str())
    .bind(terms.event_id.map(|event_id| event_id.uuid()))
    .bind(terms.open_time.micros())
    .bind(terms.close_time.micros())
    .bind(campaign.created_at.micros())
    .execute(conn)
    .await?;
    Ok(())
}

/// Returns the campaign of this id; `None` if there is none.
pub async fn find(conn: &mut MySqlConnection, id: CampaignId) -> Result<Option<Campaign>, DbError> {
    find_many(conn, &[id]).await?.pop().map(|stored| stored.campaign).transpose()
}

/// Returns the campaigns of these ids that exist, in no order.
pub async fn find_many(conn: &mut MySqlConnection, ids: &[CampaignId]) -> Result<Vec<Stored>, DbError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut query = Statement::new(SELECT);
    query.push("WHERE id IN ");
    query.push_list(ids.iter().map(CampaignId::uuid));
    query.fetch_all(conn).await
}

/// Adds the statements that allocate the version of the next message of each of these campaigns, and keep their rows
/// locked until the end of the transaction.
pub fn push_next_versions(statements: &mut Statements, ids: &BTreeSet<CampaignId>) -> Option<Place> {
    if ids.is_empty() {
        return None;
    }
    let mut update = Statement::new("UPDATE campaigns SET told_version = told_version + 1 WHERE id IN ");
    update.push_list(ids.iter().map(CampaignId::uuid));
    statements.push(update);
    let mut select = Statement::new("SELECT id, told_version FROM campaigns WHERE id IN ");
    select.push_list(ids.iter().map(CampaignId::uuid));
    Some(statements.push(select))
}

/// Returns the versions that such statements have allocated.
pub fn versions(answers: &Answers, place: Option<Place>) -> Result<HashMap<CampaignId, i64>, DbError> {
    let rows: Vec<(Uuid, i64)> = answers.rows(place)?;
    Ok(rows.into_iter().map(|(id, version)| (CampaignId::from_uuid(id), version)).collect())
}

/// Returns a page of all campaigns, newest first, after `after`.
pub async fn newest(
    conn: &mut MySqlConnection,
    after: Option<(Timestamp, Uuid)>,
    limit: u32,
) -> Result<Vec<Stored>, DbError> {
    let mut query = Statement::new(SELECT);
    if let Some((created_at, id)) = after {
        query.push("WHERE created_us <= ").push_bind(created_at.micros());
        query.push(" AND (created_us < ").push_bind(created_at.micros());
        query.push(" OR id < ").push_bind(id).push(")");
    }
    query.push(" ORDER BY created_us DESC, id DESC LIMIT ").push_bind(limit);
    query.fetch_all(conn).await
}

/// Returns a page of the campaigns that open before `soon` and that the sweeps still check, in id order, after `after`.
pub async fn unsettled(
    conn: &mut MySqlConnection,
    soon: Timestamp,
    after: Option<CampaignId>,
    limit: u32,
) -> Result<Vec<Stored>, DbError> {
    let mut query = Statement::new(SELECT);
    // Without it the order by id would make it scan all planned campaigns.
    query.push("FORCE INDEX (ix_campaigns_opening) WHERE settled_us IS NULL AND opens_at_us < ");
    query.push_bind(soon.micros());
    if let Some(id) = after {
        query.push(" AND id > ").push_bind(id.uuid());
    }
    query.push(" ORDER BY id LIMIT ").push_bind(limit);
    query.fetch_all(conn).await
}

/// Marks campaigns as settled: no claim of them is pending any more, and the sweeps skip them.
pub async fn settle(conn: &mut MySqlConnection, ids: &[CampaignId], now: Timestamp) -> Result<(), DbError> {
    if ids.is_empty() {
        return Ok(());
    }
    let mut query = Statement::new("UPDATE campaigns SET settled_us = ");
    query.push_bind(now.micros()).push(" WHERE settled_us IS NULL AND id IN ");
    query.push_list(ids.iter().map(CampaignId::uuid));
    query.execute(conn).await?;
    Ok(())
}

/// Returns those of these campaigns that are settled.
pub async fn settled(conn: &mut MySqlConnection, ids: &[CampaignId]) -> Result<HashSet<CampaignId>, DbError> {
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let mut query = Statement::new("SELECT id FROM campaigns WHERE settled_us IS NOT NULL AND id IN ");
    query.push_list(ids.iter().map(CampaignId::uuid));
    let rows: Vec<(Uuid,)> = query.fetch_all(conn).await?;
    Ok(rows.into_iter().map(|(id,)| CampaignId::from_uuid(id)).collect())
}

impl FromRow<'_, MySqlRow> for Stored {
    fn from_row(row: &MySqlRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: CampaignId::from_uuid(row.try_get("id")?),
            created_at: Timestamp::from_micros(row.try_get("created_us")?),
            campaign: DbError::of_one_row(campaign(row))?,
        })
    }
}

fn campaign(row: &MySqlRow) -> Result<Campaign, DbError> {
    let request_id: String = row.try_get("request_id")?;
    Ok(Campaign {
        id: CampaignId::from_uuid(row.try_get("id")?),
        creator_id: UserId::from_uuid(row.try_get("creator_id")?),
        request_id: RequestId::parse(&request_id).map_err(|error| inconsistent("campaigns.request_id", error))?,
        terms: terms(row)?,
        created_at: Timestamp::from_micros(row.try_get("created_us")?),
    })
}

fn terms(row: &MySqlRow) -> Result<CampaignTerms, DbError> {
    let currency: String = row.try_get("currency")?;
    let currency = Currency::stored(&currency).map_err(|error| inconsistent("campaigns.currency", error))?;
    Ok(CampaignTerms {
        name: row.try_get("name")?,
        quota: row.try_get("quota")?,
        discount: Money::new(row.try_get("discount_minor")?, currency),
        event_id: row.try_get::<Option<Uuid>, _>("event_id")?.map(EventId::from_uuid),
        open_time: Timestamp::from_micros(row.try_get("opens_at_us")?),
        close_time: Timestamp::from_micros(row.try_get("closes_at_us")?),
    })
}
