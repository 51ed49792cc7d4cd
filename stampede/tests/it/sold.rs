//! A sale that is over, to be broken by hand: one order that was fulfilled, and no process left that would repair it.

use crate::{
    breaks::Id,
    sale::{Audit, LONG, Sale, audit_command, findings},
};
use sqlx::{AssertSqlSafe, MySqlPool};
use stampede_lua::{Redis, RedisConfig};
use stampede_proto::{coupon::v1::Coupon, order::v1::Order};
use stampede_testkit::{MeshBuilder, Process, Service, buyer};
use stampede_vocab::{CampaignId, CouponId, EventId, ItemId, OrderId, PaymentId, Timestamp, UserId};
use std::collections::BTreeMap;
use tokio::task::spawn_blocking;

/// Flags for no wait: no process is left that would move anything.
pub const AT_ONCE: &[&str] = &["--quiet-deadline-s", "0"];

/// A sale with one order that was fulfilled with coupon and gift. The services are stopped, or they would repair it.
pub struct Sold {
    pub sale: Sale,
    pub order: Order,
    pub coupon: Coupon,
    /// Each schema, for statements by hand.
    schemas: BTreeMap<Service, MySqlPool>,
}

/// Pools on all schemas, which connect once they are used.
pub fn schemas_of(sale: &Sale) -> BTreeMap<Service, MySqlPool> {
    let pool = |service| {
        let url = format!("{}?ssl-mode=disabled", sale.world.service_database_url(service));
        (service, MySqlPool::connect_lazy(&url).unwrap())
    };
    Service::ALL.into_iter().map(pool).collect()
}

/// An id as SQL has it.
pub fn in_sql(id: &[u8]) -> String {
    let hex: String = id.iter().map(|byte| format!("{byte:02X}")).collect();
    format!("UNHEX('{hex}')")
}

impl Sold {
    pub async fn new() -> Self {
        // What is pending at the provider stays so.
        let settings = MeshBuilder::default().set(Process::Sandbox, "STAMPEDE_SANDBOX_LATE_MS", LONG.as_millis());
        let mut sale = Sale::open_on(settings, LONG).await;
        let user = buyer();
        let coupon = sale.claim(user).await;
        let order = sale.bought(user, &[(0, 2)], &coupon.coupon_id).await;
        sale.audit();
        for service in Service::ALL {
            sale.mesh.kill_9(service).unwrap();
        }
        let schemas = schemas_of(&sale);
        let sold = Self { sale, order, coupon, schemas };
        // As the sweep would, once the order is old enough.
        sold.run(&[(Service::Inventory, "DELETE FROM reservations")]).await;
        sold
    }

    pub fn event(&self) -> EventId {
        self.sale.event.event_id.parse().unwrap()
    }

    pub fn item(&self) -> ItemId {
        self.sale.event.items[0].item_id.parse().unwrap()
    }

    pub fn user(&self) -> UserId {
        self.order.user_id.parse().unwrap()
    }

    pub fn order(&self) -> OrderId {
        self.order.order_id.parse().unwrap()
    }

    fn coupon(&self) -> CouponId {
        self.coupon.coupon_id.parse().unwrap()
    }

    pub fn campaign(&self) -> CampaignId {
        self.coupon.campaign_id.parse().unwrap()
    }

    pub fn payment(&self) -> PaymentId {
        PaymentId::derive(self.order())
    }

    fn text(&self, id: Id) -> String {
        match id {
            Id::User => self.user().to_string(),
            Id::Order => self.order().to_string(),
            Id::Item => self.item().to_string(),
            Id::Event => self.event().to_string(),
            Id::Coupon => self.coupon().to_string(),
            Id::Campaign => self.campaign().to_string(),
            Id::Payment => self.payment().to_string(),
            Id::MadeUpOrder(byte) => OrderId::try_from_bytes(&[byte; 16]).unwrap().to_string(),
            Id::MadeUpItem(byte) => ItemId::try_from_bytes(&[byte; 16]).unwrap().to_string(),
            Id::MadeUpCoupon(byte) => CouponId::try_from_bytes(&[byte; 16]).unwrap().to_string(),
            Id::MadeUpPayment(byte) => PaymentId::try_from_bytes(&[byte; 16]).unwrap().to_string(),
            Id::Text(text) => text.to_owned(),
        }
    }

    pub async fn run(&self, statements: &[(Service, &str)]) {
        let now_us = Timestamp::now().micros().to_string();
        let values = [
            ("{order}", in_sql(self.order().as_bytes())),
            ("{item}", in_sql(self.item().as_bytes())),
            ("{event}", in_sql(self.event().as_bytes())),
            ("{user}", in_sql(self.user().as_bytes())),
            ("{coupon}", in_sql(self.coupon().as_bytes())),
            ("{campaign}", in_sql(self.campaign().as_bytes())),
            ("{payment}", in_sql(self.payment().as_bytes())),
            ("{a}", in_sql(&[0xAA; 16])),
            ("{b}", in_sql(&[0xBB; 16])),
            ("{c}", in_sql(&[0xCC; 16])),
            ("{d}", in_sql(&[0xDD; 16])),
            ("{now}", now_us),
            ("{topics}", self.sale.world.topic_prefix().to_owned()),
        ];
        for (service, statement) in statements {
            let sql = values.iter().fold((*statement).to_owned(), |sql, (name, value)| sql.replace(name, value));
            let done = sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&self.schemas[service]).await;
            done.unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
    }

    /// Returns the findings of the operator's own command, and holds up nothing that is waited for beside it.
    pub async fn audited(&self, more: &[&str]) -> Audit {
        let mut command = audit_command(&self.sale.world, &self.sale.mesh, more);
        findings(&spawn_blocking(move || command.output()).await.unwrap().unwrap())
    }

    /// Checks that the audit reports this breach of this promise, and names this id.
    pub fn assert_named(&self, more: &[&str], named: &[(usize, &str, Id)]) {
        self.assert_names(&self.sale.run_audit(more), named);
    }

    /// The same of an audit that was run before.
    pub fn assert_names(&self, audit: &Audit, named: &[(usize, &str, Id)]) {
        for (promise, what, id) in named {
            let (broken, id) = (&audit.promises[promise - 1], self.text(*id));
            assert_eq!((broken.number, broken.holds), (*promise, false), "{what}: {audit:#?}");
            let breach = broken.breaches.iter().find(|breach| breach.what == *what);
            let breach = breach.unwrap_or_else(|| panic!("{what} is not found: {audit:#?}"));
            assert!(breach.named.iter().any(|name| name.starts_with(&id)), "{what}: {id} is not named: {audit:#?}");
        }
    }

    pub fn assert_holds(&self) {
        let audit = self.sale.run_audit(AT_ONCE);
        assert!(audit.holds, "{audit:#?}");
    }

    pub async fn redis(&self) -> Redis {
        let world = &self.sale.world;
        let config = RedisConfig { url: world.redis_url().to_owned(), key_prefix: world.redis_key_prefix() };
        Redis::connect(config).await.unwrap()
    }
}
