//! What the tests are made of: the coupon service, a campaign, the crowd, and a publisher of messages of orders as the
//! order service does.

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use prost::Message as _;
use stampede_db::Database;
use stampede_lua::{Redis, RedisConfig};
use stampede_outbox::{Outbox, OutboxMessage, Relay, RelayConfig};
use stampede_proto::{
    convert::timestamp,
    coupon::v1::{
        Campaign, ClaimCouponRequest, Coupon, CouponHold, CouponState, CreateCampaignRequest, GetCouponRequest,
        HoldCouponRefusalReason, HoldCouponResult, HoldCouponsRequest, ReleaseCouponRequest,
        coupon_service_client::CouponServiceClient, hold_coupon_result::Outcome,
    },
    message::v1::CouponsIssued,
    r#type::v1::Money,
};
use stampede_status::{Problem, Reason};
use stampede_testkit::{Mesh, MeshBuilder, Service, World, as_buyer, as_operator, as_order_service, eventually};
use stampede_vocab::{CouponId, EventId, OrderId, Timestamp, UserId};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Code, Request, Status, transport::Channel};
use uuid::Uuid;

const HOUR: Duration = Duration::from_secs(3_600);

/// The coupon service in a world of its own.
pub struct Sale {
    pub world: World,
    pub mesh: Mesh,
    pub client: CouponServiceClient<Channel>,
    pub coupons: Database,
    pub redis: Redis,
}

impl Sale {
    /// Opens with the defaults.
    pub async fn open() -> Result<Self> {
        Self::open_with(MeshBuilder::default(), [Service::Coupon]).await
    }

    /// Opens with these settings and processes.
    pub async fn open_with(settings: MeshBuilder, services: impl IntoIterator<Item = Service>) -> Result<Self> {
        Self::open_on(World::new()?, settings, services).await
    }

    /// Opens in this world.
    pub async fn open_on(
        world: World,
        settings: MeshBuilder,
        services: impl IntoIterator<Item = Service>,
    ) -> Result<Self> {
        let coupons = world.schema(Service::Coupon).await?;
        world.schema(Service::Order).await?;
        world.create_topics().await?;
        let mesh = settings.start(&world, services).await?;
        let redis_config = RedisConfig { url: world.redis_url().to_owned(), key_prefix: world.redis_key_prefix() };
        let redis = Redis::connect(redis_config).await?;
        let client = mesh.coupon();
        Ok(Self { world, mesh, client, coupons, redis })
    }

    /// A second replica in the same world.
    pub async fn replica(&self) -> Result<Mesh> {
        MeshBuilder::default().start(&self.world, [Service::Coupon]).await
    }

    /// An open campaign with this quota.
    pub async fn campaign(&self, quota: i32) -> Result<Campaign> {
        self.create(CreateCampaignRequest { quota, ..new_campaign("spring") }).await
    }

    pub async fn create(&self, request: CreateCampaignRequest) -> Result<Campaign> {
        let created = self.client.clone().create_campaign(as_operator(request)).await?;
        created.into_inner().campaign.context("a campaign")
    }

    pub async fn claim(&self, campaign: &Campaign, user: UserId, request: &str) -> Result<Coupon, Status> {
        claim(&self.client, campaign, user, request).await
    }

    /// Claims until the answer is final, as a client does that retries when told to.
    pub async fn claim_patiently(&self, campaign: &Campaign, user: UserId) -> Result<Coupon, Status> {
        claim_patiently(&self.client, campaign, user).await
    }

    /// A campaign that closes in some seconds, and what the user has claimed of it. Where the machine stood still until
    /// it was closed, another one that closes later.
    pub async fn closing(&self, user: UserId) -> Result<(Campaign, Coupon)> {
        for seconds in [2, 10] {
            if let Ok(closing) = self.closing_in(seconds, user).await {
                return Ok(closing);
            }
        }
        self.closing_in(20, user).await
    }

    async fn closing_in(&self, seconds: u64, user: UserId) -> Result<(Campaign, Coupon)> {
        let close_time = Some(timestamp(Timestamp::now().plus(Duration::from_secs(seconds))));
        let request = new_campaign(&format!("closing-in-{seconds}"));
        let campaign = self.create(CreateCampaignRequest { quota: 100_000, close_time, ..request }).await?;
        let coupon = self.claim(&campaign, user, "a").await?;
        Ok((campaign, coupon))
    }

    /// Everybody claims at once with the request "a".
    pub async fn crowd(&self, campaign: &Campaign, users: &[UserId]) -> Vec<Result<Coupon, Status>> {
        join_all(users.iter().map(|user| self.claim(campaign, *user, "a"))).await
    }

    /// Holds one coupon; a refusal is the status that its reason has.
    pub async fn hold(&self, hold: CouponHold) -> Result<Coupon, Status> {
        self.hold_all(vec![hold]).await?.pop().expect("a result")
    }

    /// Holds coupons in one call, each with its own answer.
    pub async fn hold_all(&self, holds: Vec<CouponHold>) -> Result<Vec<Result<Coupon, Status>>, Status> {
        let answered = self.client.clone().hold_coupons(as_order_service(HoldCouponsRequest { holds })).await?;
        Ok(answered.into_inner().results.into_iter().map(held).collect())
    }

    pub async fn release(&self, coupon: &Coupon, order: OrderId) -> Result<(), Status> {
        self.client.clone().release_coupon(as_order_service(release_request(coupon, order))).await.map(|_| ())
    }

    /// Changes the row of a coupon, `?` in the statement, as no service does.
    pub async fn tamper(&self, coupon: &Coupon, sql: &'static str) -> Result<()> {
        let id: CouponId = coupon.coupon_id.parse()?;
        sqlx::query(sql).bind(id.uuid()).execute(&mut *self.coupons.acquire().await?).await?;
        Ok(())
    }

    /// Settles every campaign, as the sweep does a minute after the close.
    pub async fn settle(&self) -> Result<()> {
        sqlx::raw_sql("UPDATE campaigns SET settled_us = 1").execute(&mut *self.coupons.acquire().await?).await?;
        Ok(())
    }

    /// The coupon as it is now.
    pub async fn now(&self, coupon: &Coupon) -> Result<Coupon> {
        let request = GetCouponRequest { coupon_id: coupon.coupon_id.clone() };
        self.client.clone().get_coupon(as_operator(request)).await?.into_inner().coupon.context("a coupon")
    }

    /// Waits until the coupon is in this state.
    pub async fn reaches(&self, coupon: &Coupon, state: CouponState) -> Coupon {
        eventually(&format!("{} is {state:?}", coupon.coupon_id), || async {
            self.now(coupon).await.ok().filter(|coupon| coupon.state() == state)
        })
        .await
    }

    /// Ranks in MySQL, in order.
    pub async fn stored_ranks(&self) -> Result<Vec<i32>> {
        let mut conn = self.coupons.acquire().await?;
        Ok(sqlx::query_scalar("SELECT rank_no FROM coupons ORDER BY rank_no").fetch_all(&mut *conn).await?)
    }

    /// Whether every stored coupon was published exactly once, nothing else was published, and the messages of each
    /// campaign are numbered without a gap.
    pub async fn each_is_published_once(&self) -> Result<bool> {
        let mut conn = self.coupons.acquire().await?;
        let stored: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM coupons").fetch_all(&mut *conn).await?;
        let messages: Vec<(String, i64, Vec<u8>)> =
            sqlx::query_as("SELECT aggregateid, aggregate_version, payload FROM outbox ORDER BY id")
                .fetch_all(&mut *conn)
                .await?;
        let mut versions = HashMap::<String, Vec<i64>>::new();
        let mut published = Vec::new();
        for (campaign, version, payload) in messages {
            versions.entry(campaign.clone()).or_default().push(version);
            let coupons = CouponsIssued::decode(payload.as_slice())?.coupons;
            ensure!(coupons.iter().all(|coupon| coupon.campaign_id == campaign), "published under another campaign");
            published.extend(coupons.into_iter().map(|coupon| coupon.coupon_id));
        }
        let numbered = versions.values().all(|versions| versions.iter().zip(1..).all(|(version, n)| *version == n));
        let mut stored: Vec<String> = stored.into_iter().map(|id| CouponId::from_uuid(id).to_string()).collect();
        stored.sort_unstable();
        published.sort_unstable();
        Ok(numbered && stored == published)
    }
}

/// Publishes messages of orders as the order service does.
pub struct Orders {
    db: Database,
    outbox: Outbox,
    _relay: DropGuard,
}

impl Orders {
    pub async fn open(world: &World) -> Result<Self> {
        let db = world.database(Service::Order).await?;
        let (outbox, relay) =
            Relay::new(RelayConfig::new(world.brokers(), world.topic_prefix(), Service::Order), db.clone())?;
        let stop = CancellationToken::new();
        tokio::spawn(relay.run(stop.clone()));
        Ok(Self { db, outbox, _relay: stop.drop_guard() })
    }

    /// Publishes these messages of one order, in this order.
    pub async fn publish(&self, order: OrderId, messages: Vec<(&'static str, Vec<u8>)>) -> Result<()> {
        let message = |(version, (message_type, payload)): (i64, (&str, Vec<u8>))| OutboxMessage {
            aggregate_type: "order",
            aggregate_id: order.to_string(),
            aggregate_version: version,
            message_type: message_type.to_owned(),
            payload,
            traceparent: None,
        };
        let rows: Arc<[OutboxMessage]> = (1..).zip(messages).map(message).collect();
        let append = self.db.transact("publish", move |conn| {
            let rows = rows.clone();
            Box::pin(async move { stampede_outbox::append(conn, &rows).await })
        });
        append.await?;
        self.outbox.wake();
        Ok(())
    }
}

/// A request for a campaign that is open for an hour.
pub fn new_campaign(request_id: &str) -> CreateCampaignRequest {
    let now = Timestamp::now();
    CreateCampaignRequest {
        request_id: request_id.to_owned(),
        name: "First come, first served".to_owned(),
        quota: 10,
        discount: Some(Money { minor_units: 500, currency: "EUR".to_owned() }),
        event_id: String::new(),
        open_time: Some(timestamp(now.minus(HOUR))),
        close_time: Some(timestamp(now.plus(HOUR))),
    }
}

/// An order's wish to use the coupon in this event.
pub fn hold_request(coupon: &Coupon, order: OrderId) -> CouponHold {
    CouponHold {
        coupon_id: coupon.coupon_id.clone(),
        order_id: order.to_string(),
        user_id: coupon.user_id.clone(),
        event_id: EventId::from_uuid(Uuid::from_u128(1)).to_string(),
        currency: "EUR".to_owned(),
        request_fingerprint: vec![1; 32],
    }
}

fn held(result: HoldCouponResult) -> Result<Coupon, Status> {
    match result.outcome.expect("an outcome") {
        Outcome::Coupon(coupon) => Ok(coupon),
        Outcome::Refusal(refusal) => Err(refused(refusal.reason())),
    }
}

/// The refusal as a status: its reason is called the same in both.
fn refused(reason: HoldCouponRefusalReason) -> Status {
    let name = reason.as_str_name().trim_start_matches("HOLD_COUPON_REFUSAL_REASON_");
    Problem::new(Reason::parse(name).expect("a reason of this name"), "refused").into()
}

/// The order's request, refused: it gives back what [`hold_request`] held.
pub fn release_request(coupon: &Coupon, order: OrderId) -> ReleaseCouponRequest {
    ReleaseCouponRequest {
        coupon_id: coupon.coupon_id.clone(),
        order_id: order.to_string(),
        request_fingerprint: vec![1; 32],
    }
}

pub async fn claim(
    client: &CouponServiceClient<Channel>,
    campaign: &Campaign,
    user: UserId,
    request: &str,
) -> Result<Coupon, Status> {
    let claimed = client.clone().claim_coupon(claim_request(campaign, user, request)).await?;
    Ok(claimed.into_inner().coupon.expect("a coupon"))
}

/// Claims with the request "a" until the answer is final, as a client does that retries when told to.
pub async fn claim_patiently(
    client: &CouponServiceClient<Channel>,
    campaign: &Campaign,
    user: UserId,
) -> Result<Coupon, Status> {
    eventually("the claim is answered for good", || async {
        match claim(client, campaign, user, "a").await {
            Err(status) if status.code() == Code::Unavailable => None,
            outcome => Some(outcome),
        }
    })
    .await
}

pub fn claim_request(campaign: &Campaign, user: UserId, request: &str) -> Request<ClaimCouponRequest> {
    let message = ClaimCouponRequest { campaign_id: campaign.campaign_id.clone(), request_id: request.to_owned() };
    as_buyer(user, message)
}

/// Some order.
pub fn order(n: u128) -> OrderId {
    OrderId::from_uuid(Uuid::from_u128(n))
}

pub fn reason(status: &Status) -> Reason {
    Problem::from_status(status).reason()
}

/// The reason and the field of a refusal.
pub fn refusal(status: &Status) -> (Reason, Option<String>) {
    let problem = Problem::from_status(status);
    (problem.reason(), problem.field_path().map(str::to_owned))
}
