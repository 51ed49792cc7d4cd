//! The table `coupons`: rows are inserted in batches when they are issued, and locked and updated in batches
//! afterwards.

use crate::{
    domain::{Coupon, CouponState, RankedClaim},
    store::inconsistent,
};
use sqlx::{FromRow, MySqlConnection, Row, mysql::MySqlRow};
use stampede_db::{Answers, DbError, Place, Statement, Statements};
use stampede_vocab::{CampaignId, CouponId, Fingerprint, OrderId, RequestId, Timestamp, UserId};
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;

const SELECT: &str = "SELECT id, campaign_id, user_id, rank_no, state, order_id, held_fingerprint, request_id, created_us, updated_us \
     FROM coupons ";

/// Most rows of one statement with a CASE: its cost grows with the square of the rows. All statements go out together,
/// so that more of them cost no round trips.
const MAX_CASES: usize = 32;

/// A row as it was read. An unreadable row fails only its own coupon.
#[derive(Debug, Clone)]
pub struct Stored {
    pub id: CouponId,
    pub rank: i32,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// The coupon, or why its row cannot be read.
    pub coupon: Result<Coupon, DbError>,
}

/// Coupons that exist, by id; an error for a row that cannot be read.
pub type ById = HashMap<CouponId, Result<Coupon, DbError>>;

/// Adds the statement that inserts the coupons of these claims. It fails with a unique violation, and inserts none, if
/// a user has a coupon or a rank is taken.
pub fn push_insert(statements: &mut Statements, claims: &[&RankedClaim]) {
    if claims.is_empty() {
        return;
    }
    let mut query = Statement::new(
        "INSERT INTO coupons (id, campaign_id, user_id, rank_no, campaign_quota, state, request_id, version, \
         created_us, updated_us) ",
    );
    query.push_values(claims, |mut row, ranked| {
        row.push_bind(ranked.claim.coupon_id().uuid())
            .push_bind(ranked.claim.campaign_id.uuid())
            .push_bind(ranked.claim.user_id.uuid())
            .push_bind(ranked.rank)
            .push_bind(ranked.quota)
            .push("'ISSUED'")
            .push_bind(ranked.claim.request_id.as_str())
            .push("1")
            .push_bind(ranked.claimed_at.micros())
            .push_bind(ranked.claimed_at.micros());
    });
    statements.push_expecting(query, "issuing coupons", claims.len());
}

/// Returns the coupons of these ids that exist.
pub async fn find_many(conn: &mut MySqlConnection, ids: &[CouponId]) -> Result<ById, DbError> {
    if ids.is_empty() {
        return Ok(ById::new());
    }
    Ok(by_id(select_by_id(ids).fetch_all(conn).await?))
}

/// Returns the coupons of these ids that exist, locked until the end of the transaction.
pub async fn lock_many(conn: &mut MySqlConnection, ids: &[CouponId]) -> Result<ById, DbError> {
    let mut statements = Statements::new();
    let place = push_lock(&mut statements, ids);
    locked(&statements.run(conn).await?, place)
}

/// Adds the statement that locks the coupons of these ids. Locks in id order, so that overlapping batches wait for each
/// other and do not deadlock.
pub fn push_lock(statements: &mut Statements, ids: &[CouponId]) -> Option<Place> {
    if ids.is_empty() {
        return None;
    }
    let mut query = select_by_id(ids);
    query.push(" ORDER BY id FOR UPDATE");
    Some(statements.push(query))
}

/// Returns the coupons that such a statement has locked.
pub fn locked(answers: &Answers, place: Option<Place>) -> Result<ById, DbError> {
    Ok(by_id(answers.rows(place)?))
}

/// [`lock_many`] that skips coupons which another transaction has locked.
pub async fn lock_free(conn: &mut MySqlConnection, ids: &[CouponId]) -> Result<ById, DbError> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let mut query = Statement::new("SELECT id FROM coupons FORCE INDEX (uq_coupons_id) WHERE id IN ");
    query.push_list(ids.iter().map(CouponId::uuid));
    query.push(" ORDER BY id FOR UPDATE SKIP LOCKED");
    let free: Vec<(Uuid,)> = query.fetch_all(&mut *conn).await?;
    let free: Vec<CouponId> = free.into_iter().map(|(id,)| CouponId::from_uuid(id)).collect();
    // Read them under a lock of their own: the statement above may have locked nothing.
    lock_many(conn, &free).await
}

/// The coupon of each rank.
pub type RankOwners = HashMap<(CampaignId, i32), CouponId>;

/// Returns the coupons that have the ranks of these claims; a free rank is left out.
pub async fn owners_of_ranks(conn: &mut MySqlConnection, claims: &[&RankedClaim]) -> Result<RankOwners, DbError> {
    let mut ranks = BTreeMap::<CampaignId, Vec<i32>>::new();
    for ranked in claims {
        ranks.entry(ranked.claim.campaign_id).or_default().push(ranked.rank);
    }
    if ranks.is_empty() {
        return Ok(RankOwners::new());
    }
    // One range a campaign: MariaDB finds no index for (campaign_id, rank_no) IN ((?, ?), ...).
    let mut query = Statement::new("SELECT campaign_id, rank_no, id FROM coupons WHERE FALSE");
    for (campaign_id, ranks) in ranks {
        query.push(" OR (campaign_id = ").push_bind(campaign_id.uuid()).push(" AND rank_no IN (");
        let mut list = query.separated(", ");
        for rank in ranks {
            list.push_bind(rank);
        }
        query.push("))");
    }
    let rows: Vec<(Uuid, i32, Uuid)> = query.fetch_all(conn).await?;
    let owner = |(campaign, rank, id)| ((CampaignId::from_uuid(campaign), rank), CouponId::from_uuid(id));
    Ok(rows.into_iter().map(owner).collect())
}

/// Writes the states of coupons that the caller has locked, as of `now`.
pub async fn write_states(conn: &mut MySqlConnection, coupons: &[Coupon], now: Timestamp) -> Result<(), DbError> {
    let mut by_state = BTreeMap::<&'static str, Vec<&Coupon>>::new();
    for coupon in coupons {
        by_state.entry(state_name(coupon.state)).or_default().push(coupon);
    }
    let mut writes = Statements::new();
    for (state, coupons) in by_state {
        for chunk in coupons.chunks(MAX_CASES) {
            push_state(&mut writes, state, chunk, now);
        }
    }
    writes.run(conn).await.map(drop)
}

fn push_state(statements: &mut Statements, state: &str, coupons: &[&Coupon], now: Timestamp) {
    let mut query = Statement::new("UPDATE coupons FORCE INDEX (uq_coupons_id) SET version = version + 1, state = ");
    query.push_bind(state).push(", updated_us = ").push_bind(now.micros()).push(", order_id = CASE id");
    for coupon in coupons {
        let order_id = coupon.state.order_id().map(|order_id| order_id.uuid());
        query.push(" WHEN ").push_bind(coupon.id.uuid()).push(" THEN ").push_bind(order_id);
    }
    query.push(" ELSE order_id END, held_fingerprint = ");
    push_held_requests(&mut query, coupons);
    query.push(" WHERE id IN ");
    query.push_list(coupons.iter().map(|coupon| coupon.id.uuid()));
    statements.push_expecting(query, "the states of locked coupons", coupons.len());
}

/// Pushes the fingerprints of the requests that these coupons are held for. All coupons are in one state, so either all
/// are held or none is.
fn push_held_requests(query: &mut Statement, coupons: &[&Coupon]) {
    let held = coupons.iter().filter_map(|coupon| Some((coupon.id, coupon.state.held_request()?)));
    let held: Vec<(CouponId, Fingerprint)> = held.collect();
    if held.is_empty() {
        query.push("NULL");
        return;
    }
    query.push("CASE id");
    for (id, request) in held {
        query.push(" WHEN ").push_bind(id.uuid()).push(" THEN ").push_bind(request.as_bytes().to_vec());
    }
    query.push(" ELSE held_fingerprint END");
}

/// Returns a page of a user's coupons, newest first, after `after`; only those of one campaign if that is given.
pub async fn newest_of_user(
    conn: &mut MySqlConnection,
    user_id: UserId,
    campaign_id: Option<CampaignId>,
    after: Option<(Timestamp, Uuid)>,
    limit: u32,
) -> Result<Vec<Stored>, DbError> {
    let mut query = Statement::new(SELECT);
    query.push("WHERE user_id = ").push_bind(user_id.uuid());
    if let Some(campaign_id) = campaign_id {
        query.push(" AND campaign_id = ").push_bind(campaign_id.uuid());
    }
    if let Some((created_at, id)) = after {
        query.push(" AND created_us <= ").push_bind(created_at.micros());
        query.push(" AND (created_us < ").push_bind(created_at.micros());
        query.push(" OR id < ").push_bind(id).push(")");
    }
    query.push(" ORDER BY created_us DESC, id DESC LIMIT ").push_bind(limit);
    query.fetch_all(conn).await
}

/// Returns a page of a campaign's coupons, ordered by rank, after `after_rank`.
pub async fn ranked_of_campaign(
    conn: &mut MySqlConnection,
    campaign_id: CampaignId,
    after_rank: i32,
    limit: u32,
) -> Result<Vec<Stored>, DbError> {
    let mut query = Statement::new(SELECT);
    query.push("WHERE campaign_id = ").push_bind(campaign_id.uuid());
    query.push(" AND rank_no > ").push_bind(after_rank);
    query.push(" ORDER BY rank_no LIMIT ").push_bind(limit);
    query.fetch_all(conn).await
}

/// Returns a page of a campaign's users and ranks, ordered by rank, after `after_rank`, to be staged.
pub async fn ranks_of_campaign(
    conn: &mut MySqlConnection,
    campaign_id: CampaignId,
    after_rank: i32,
    limit: u32,
) -> Result<Vec<(UserId, i32)>, DbError> {
    let rows: Vec<(Uuid, i32)> = sqlx::query_as(
        "SELECT user_id, rank_no FROM coupons WHERE campaign_id = ? AND rank_no > ? ORDER BY rank_no LIMIT ?",
    )
    .bind(campaign_id.uuid())
    .bind(after_rank)
    .bind(limit)
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|(user, rank)| (UserId::from_uuid(user), rank)).collect())
}

/// Returns the greatest rank issued in each of these campaigns; leaves out those without a coupon.
pub async fn greatest_ranks(
    conn: &mut MySqlConnection,
    campaigns: &[CampaignId],
) -> Result<HashMap<CampaignId, i32>, DbError> {
    if campaigns.is_empty() {
        return Ok(HashMap::new());
    }
    // One lookup a campaign in the unique key on (campaign_id, rank_no).
    let mut query = Statement::new("SELECT campaign_id, MAX(rank_no) FROM coupons WHERE campaign_id IN ");
    query.push_list(campaigns.iter().map(CampaignId::uuid));
    query.push(" GROUP BY campaign_id");
    let rows: Vec<(Uuid, i32)> = query.fetch_all(conn).await?;
    Ok(rows.into_iter().map(|(campaign, rank)| (CampaignId::from_uuid(campaign), rank)).collect())
}

/// Returns a page of coupons whose hold was last requested at `requested_before` or earlier, oldest first, after
/// `after`.
pub async fn held_since(
    conn: &mut MySqlConnection,
    requested_before: Timestamp,
    after: Option<(Timestamp, CouponId)>,
    limit: u32,
) -> Result<Vec<Stored>, DbError> {
    let mut query = Statement::new(SELECT);
    query.push("WHERE state = 'HELD' AND updated_us <= ").push_bind(requested_before.micros());
    if let Some((updated_at, id)) = after {
        query.push(" AND updated_us >= ").push_bind(updated_at.micros());
        query.push(" AND (updated_us > ").push_bind(updated_at.micros());
        query.push(" OR id > ").push_bind(id.uuid()).push(")");
    }
    query.push(" ORDER BY updated_us, id LIMIT ").push_bind(limit);
    query.fetch_all(conn).await
}

fn select_by_id(ids: &[CouponId]) -> Statement {
    let mut query = Statement::new(SELECT);
    query.push("FORCE INDEX (uq_coupons_id) WHERE id IN ");
    query.push_list(ids.iter().map(CouponId::uuid));
    query
}

fn by_id(coupons: Vec<Stored>) -> ById {
    coupons.into_iter().map(|stored| (stored.id, stored.coupon)).collect()
}

impl FromRow<'_, MySqlRow> for Stored {
    fn from_row(row: &MySqlRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: CouponId::from_uuid(row.try_get("id")?),
            rank: row.try_get("rank_no")?,
            created_at: Timestamp::from_micros(row.try_get("created_us")?),
            updated_at: Timestamp::from_micros(row.try_get("updated_us")?),
            coupon: DbError::of_one_row(coupon(row))?,
        })
    }
}

fn coupon(row: &MySqlRow) -> Result<Coupon, DbError> {
    let request_id: String = row.try_get("request_id")?;
    Ok(Coupon {
        id: CouponId::from_uuid(row.try_get("id")?),
        campaign_id: CampaignId::from_uuid(row.try_get("campaign_id")?),
        user_id: UserId::from_uuid(row.try_get("user_id")?),
        rank: row.try_get("rank_no")?,
        state: state(row)?,
        request_id: RequestId::parse(&request_id).map_err(|error| inconsistent("coupons.request_id", error))?,
        created_at: Timestamp::from_micros(row.try_get("created_us")?),
        updated_at: Timestamp::from_micros(row.try_get("updated_us")?),
    })
}

fn state(row: &MySqlRow) -> Result<CouponState, DbError> {
    let name: String = row.try_get("state")?;
    let order_id = row.try_get::<Option<Uuid>, _>("order_id")?.map(OrderId::from_uuid);
    let request = row.try_get::<Option<Vec<u8>>, _>("held_fingerprint")?.map(|bytes| Fingerprint::parse(&bytes));
    let request = request.transpose().map_err(|error| inconsistent("coupons.held_fingerprint", error))?;
    match (name.as_str(), order_id, request) {
        ("ISSUED", None, None) => Ok(CouponState::Issued),
        ("HELD", Some(order_id), Some(request)) => Ok(CouponState::Held { order_id, request }),
        ("USED", Some(order_id), None) => Ok(CouponState::Used { order_id }),
        (name, ..) if !["ISSUED", "HELD", "USED"].contains(&name) => Err(DbError::newer(format!("a coupon is {name}"))),
        (name, order_id, _) => Err(inconsistent("coupons.state", format!("{name} with order {order_id:?}"))),
    }
}

const fn state_name(state: CouponState) -> &'static str {
    match state {
        CouponState::Issued => "ISSUED",
        CouponState::Held { .. } => "HELD",
        CouponState::Used { .. } => "USED",
    }
}
