//! What the tests are made of: the service, a provider, and a publisher of requests like the order service.

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use prost::Message;
use serde_json::Value;
use stampede_db::{Conn, Database};
use stampede_outbox::{Outbox, OutboxMessage, Relay, RelayConfig};
use stampede_proto::{
    message::v1 as messages,
    payment::v1::{AttemptState, GetPaymentRequest, Payment, PaymentState},
    r#type::v1::Money,
};
use stampede_testkit::{Mesh, MeshBuilder, Process, Service, World, as_operator, buyer, eventually};
use stampede_vocab::{OrderId, PaymentId, RequestId, UserId};
use std::sync::Arc;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What every order of the tests costs, unless it says otherwise.
pub const PRICE: i64 = 1_999;

/// How long the provider may take, in milliseconds. After that a charge is of unknown outcome, and is looked up.
pub const PROVIDER_TIMEOUT: &str = "STAMPEDE_PAYMENT_PROVIDER_TIMEOUT_MS";

/// One order and who pays for it.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    pub buyer: UserId,
    pub id: OrderId,
}

impl Order {
    /// An order of somebody new.
    pub fn new() -> Self {
        Self::of(buyer(), "first")
    }

    /// This buyer's order under this request id.
    pub fn of(buyer: UserId, request: &str) -> Self {
        let request = RequestId::parse(request).expect("a valid request id");
        Self { buyer, id: OrderId::derive(buyer, &request) }
    }

    pub fn payment_id(&self) -> String {
        PaymentId::derive(self.id).to_string()
    }

    /// Requests a charge of `amount` in cents.
    pub fn charge(&self, attempt: i32, amount: i64, card: &str) -> (&'static str, Vec<u8>) {
        self.charge_of(attempt, eur(amount), card)
    }

    /// Requests a charge of `amount`.
    pub fn charge_of(&self, attempt: i32, amount: Money, card: &str) -> (&'static str, Vec<u8>) {
        let message = messages::PaymentRequested {
            order_id: self.id.to_string(),
            user_id: self.buyer.to_string(),
            attempt,
            amount: Some(amount),
            payment_method: card.to_owned(),
        };
        ("stampede.message.v1.PaymentRequested", message.encode_to_vec())
    }

    /// Requests a refund in cents.
    pub fn refund(&self, amount: i64) -> (&'static str, Vec<u8>) {
        self.refund_of(eur(amount))
    }

    /// Requests a refund.
    pub fn refund_of(&self, amount: Money) -> (&'static str, Vec<u8>) {
        let message = messages::RefundRequested { order_id: self.id.to_string(), amount: Some(amount) };
        ("stampede.message.v1.RefundRequested", message.encode_to_vec())
    }

    /// The message that it was not paid in time.
    pub fn expired(&self) -> (&'static str, Vec<u8>) {
        let message = messages::OrderExpired { order_id: self.id.to_string(), coupon_id: String::new() };
        ("stampede.message.v1.OrderExpired", message.encode_to_vec())
    }
}

/// An amount in euros.
pub fn eur(minor_units: i64) -> Money {
    Money { minor_units, currency: "EUR".to_owned() }
}

/// The payment service and a provider in a world of their own.
pub struct Sale {
    pub mesh: Mesh,
    orders: Database,
    payments: Database,
    outbox: Outbox,
    _relay: DropGuard,
}

impl Sale {
    /// Opens with the defaults, and a provider that is waited for while the machine stands still.
    pub async fn open() -> Result<Self> {
        Self::open_with(MeshBuilder::default().set(Service::Payment, PROVIDER_TIMEOUT, 10_000)).await
    }

    /// Opens with these settings besides.
    pub async fn open_with(settings: MeshBuilder) -> Result<Self> {
        Self::open_on(World::new()?, settings).await
    }

    /// Opens in this world.
    pub async fn open_on(world: World, settings: MeshBuilder) -> Result<Self> {
        let orders = world.schema(Service::Order).await?;
        let payments = world.schema(Service::Payment).await?;
        world.create_topics().await?;
        let (outbox, relay) =
            Relay::new(RelayConfig::new(world.brokers(), world.topic_prefix(), Service::Order), orders.clone())?;
        let stop = CancellationToken::new();
        tokio::spawn(relay.run(stop.clone()));
        let mesh = settings.start(&world, [Process::Sandbox, Service::Payment.into()]).await?;
        Ok(Self { mesh, orders, payments, outbox, _relay: stop.drop_guard() })
    }

    /// Publishes a message about an order, as the order service does.
    pub async fn publish(&self, order: &Order, message: (&'static str, Vec<u8>)) -> Result<()> {
        self.publish_all([(*order, message)]).await
    }

    /// Publishes messages together, in their order. Each is a new one, also if it has been published before.
    pub async fn publish_all(
        &self,
        messages: impl IntoIterator<Item = (Order, (&'static str, Vec<u8>))>,
    ) -> Result<()> {
        let row = |(order, (message_type, payload)): (Order, (&'static str, Vec<u8>))| OutboxMessage {
            aggregate_type: "order",
            aggregate_id: order.id.to_string(),
            aggregate_version: 1,
            message_type: message_type.to_owned(),
            payload,
            traceparent: None,
        };
        let rows: Arc<[OutboxMessage]> = messages.into_iter().map(row).collect();
        let append = self.orders.transact("publish", move |conn| {
            let rows = rows.clone();
            Box::pin(async move { stampede_outbox::append(conn, &rows).await })
        });
        append.await?;
        self.outbox.wake();
        Ok(())
    }

    /// Requests a charge of the usual price.
    pub async fn pay(&self, order: &Order, attempt: i32, card: &str) -> Result<()> {
        self.publish(order, order.charge(attempt, PRICE, card)).await
    }

    /// The payment as it is; `None` if there is none.
    pub async fn payment(&self, order: &Order) -> Option<Payment> {
        let request = GetPaymentRequest { payment_id: order.payment_id() };
        self.mesh.payment().get_payment(as_operator(request)).await.ok()?.into_inner().payment
    }

    /// Waits until the payment is in this state.
    pub async fn reaches(&self, order: &Order, state: PaymentState) -> Payment {
        eventually(&format!("{order:?} is {state:?}"), || async {
            self.payment(order).await.filter(|payment| payment.state() == state)
        })
        .await
    }

    /// Waits until this attempt of the payment is in this state.
    pub async fn attempt_reaches(&self, order: &Order, attempt: i32, state: AttemptState) -> Payment {
        eventually(&format!("attempt {attempt} of {order:?} is {state:?}"), || async {
            let payment = self.payment(order).await?;
            let there = payment.attempts.iter().any(|found| found.attempt == attempt && found.state() == state);
            there.then_some(payment)
        })
        .await
    }

    /// A connection to the service's schema, for a test that stands in its way.
    pub async fn conn(&self) -> Result<Conn> {
        Ok(self.payments.acquire().await?)
    }

    /// The messages that the service has written about the payment, in its order: the name and the version of each
    /// message.
    pub async fn published(&self, order: &Order) -> Result<Vec<(String, i64)>> {
        let mut conn = self.payments.acquire().await?;
        let query =
            "SELECT SUBSTRING_INDEX(type, '.', -1), aggregate_version FROM outbox WHERE aggregateid = ? ORDER BY id";
        Ok(sqlx::query_as(query).bind(order.payment_id()).fetch_all(&mut *conn).await?)
    }

    /// The names of these messages, once there are so many.
    pub async fn published_names(&self, order: &Order, count: usize) -> Vec<String> {
        eventually(&format!("{count} messages about {order:?}"), || async {
            let published = self.published(order).await.ok().filter(|published| published.len() >= count)?;
            Some(published.into_iter().map(|(name, _)| name).collect())
        })
        .await
    }

    /// What one number in the service's schema is.
    pub async fn number(&self, query: &'static str) -> Result<i64> {
        let mut conn = self.payments.acquire().await?;
        Ok(sqlx::query_scalar(query).fetch_one(&mut *conn).await?)
    }

    /// The provider's charges for an order.
    pub async fn charges(&self, order: &Order) -> Result<Vec<Value>> {
        self.records("charges", order).await
    }

    /// The provider's refunds for an order.
    pub async fn refunds(&self, order: &Order) -> Result<Vec<Value>> {
        self.records("refunds", order).await
    }

    /// The provider's charges for all orders, a thousand at most.
    pub async fn all_charges(&self) -> Result<Vec<Value>> {
        self.all_records("charges").await
    }

    async fn records(&self, list: &str, order: &Order) -> Result<Vec<Value>> {
        let prefix = format!("{}:", order.payment_id());
        let ours = |row: &Value| row["key"].as_str().is_some_and(|key| key.starts_with(&prefix));
        Ok(self.all_records(list).await?.into_iter().filter(ours).collect())
    }

    async fn all_records(&self, list: &str) -> Result<Vec<Value>> {
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let url = format!("{}/v1/{list}?limit=1000", self.mesh.url(Process::Sandbox));
        let body = client.get(url.parse()?).await?.into_body().collect().await?.to_bytes();
        let page: Value = serde_json::from_slice(&body)?;
        Ok(page[list].as_array().context("a list")?.clone())
    }
}
