//! A database that is frozen for longer than the poll interval of a consumer.

use super::{item, kafka, long_case, on_sale};
use crate::sale::{LONG, Sale, eur, fresh};
use rdkafka::consumer::{BaseConsumer, Consumer};
use sqlx::MySqlPool;
use stampede_proto::order::v1::{CancelOrderRequest, Order, OrderState};
use stampede_testkit::{FreezeAt, MeshBuilder, Process, Proxy, Service, World, Writes, as_buyer, buyer, eventually};
use stampede_vocab::UserId;
use std::{collections::BTreeMap, time::Duration};

/// The services that have two replicas, and with them two members of their group.
const REPLICATED: [Service; 3] = [Service::Inventory, Service::Order, Service::Payment];
const REPLICAS: usize = 2;
/// The services that are processing messages of order when the database freezes.
const READERS_OF_ORDER: [Service; 2] = [Service::Inventory, Service::Payment];
/// Orders that are paid, and as many that are cancelled, while no consumer can apply that: some for every partition.
const ORDERS: usize = 12;
/// Poll interval after which Kafka gives a consumer's partitions to others: a minute by default. The consumer checks
/// its assignment after each try at its database, of five seconds, so that the test sees it without partitions.
const IN_HAND: Duration = Duration::from_secs(7);
/// Longest wait for an answer of Kafka.
const MAX_WAIT: Duration = Duration::from_secs(20);

/// Every schema behind a proxy of its own.
struct Databases(BTreeMap<Service, Proxy>);

impl Databases {
    async fn of(world: &World) -> Self {
        let mut proxies = BTreeMap::new();
        for service in Service::ALL {
            proxies.insert(service, Proxy::to_url(&world.service_database_url(service)).await.unwrap());
        }
        Self(proxies)
    }

    /// Freezes the database of a service at its next statement. Each process keeps its connections alive, so that this
    /// is soon.
    async fn freeze(&self, service: Service) {
        let proxy = &self.0[&service];
        proxy.freeze(Writes::With(Vec::new()), FreezeAt::Before(1));
        proxy.frozen().await;
    }

    fn go_on(&self) {
        for proxy in self.0.values() {
            proxy.thaw();
        }
    }
}

async fn open(world: World, databases: &Databases) -> Sale {
    let mut builder = MeshBuilder::default().set_all("STAMPEDE_KAFKA_MAX_POLL_INTERVAL_MS", IN_HAND.as_millis());
    builder = builder.set(Service::Order, "STAMPEDE_PAY_WINDOW_MS", LONG.as_millis());
    for (service, proxy) in &databases.0 {
        builder = builder.set(*service, "STAMPEDE_DATABASE_URL", proxy.url());
    }
    for service in REPLICATED {
        builder = builder.replicas(service, REPLICAS);
    }
    let mesh = builder.start(&world, Process::all()).await.unwrap();
    let event = on_sale(&mesh, item(eur(1_999), 1_000, 3)).await;
    Sale { world, mesh, event }
}

async fn placed(sale: &Sale) -> Vec<(UserId, Order)> {
    let mut placed = Vec::new();
    for _ in 0..ORDERS {
        let user = buyer();
        placed.push((user, sale.placed(user, &[(0, 1)], "").await));
    }
    placed
}

async fn cancel(sale: &Sale, user: UserId, order: &Order) {
    let request = CancelOrderRequest { order_id: order.order_id.clone(), request_id: fresh() };
    sale.mesh.order().cancel_order(as_buyer(user, request)).await.unwrap();
}

/// Waits until order has published everything.
async fn until_published(world: &World) {
    let url = format!("{}?ssl-mode=disabled", world.service_database_url(Service::Order));
    let orders = MySqlPool::connect(&url).await.unwrap();
    eventually("case 8: Kafka has the messages of order", || async {
        let sql = "SELECT COUNT(*) FROM outbox JOIN outbox_leases USING (partition_no) WHERE id > floor_id";
        let unsent: i64 = sqlx::query_scalar(sql).fetch_one(&orders).await.unwrap();
        (unsent == 0).then_some(())
    })
    .await;
}

/// The consumer group of a service.
struct Group {
    client: BaseConsumer,
    name: String,
    reader: Service,
}

impl Group {
    fn of(reader: Service, world: &World) -> Self {
        let client = kafka::in_place_of(reader, world);
        Self { client, name: format!("{}.{reader}", world.topic_prefix()), reader }
    }

    /// Returns the number of its members. It blocks.
    fn members(&self) -> Option<usize> {
        let list = self.client.fetch_group_list(Some(&self.name), MAX_WAIT).ok()?;
        list.groups().first().map(|group| group.members().len())
    }

    fn replicas(&self) -> usize {
        if REPLICATED.contains(&self.reader) { REPLICAS } else { 1 }
    }

    fn is_full(&self) -> bool {
        self.members() == Some(self.replicas())
    }
}

/// Waits until each of these groups has been seen without one of its members.
async fn until_put_out(world: &World) {
    let mut full: Vec<Group> = READERS_OF_ORDER.map(|reader| Group::of(reader, world)).into();
    eventually("case 8: consumers that wait for their database are put out of their groups", || {
        // A group that Kafka does not describe now is polled again.
        full.retain(|group| group.members().is_none_or(|count| count >= group.replicas()));
        let is_so = full.is_empty();
        async move { is_so.then_some(()) }
    })
    .await;
}

/// Waits, for half a minute, until every group has its members again and has no lag.
async fn until_back(world: &World) {
    let groups: Vec<Group> = kafka::readers().map(|reader| Group::of(reader, world)).collect();
    eventually("case 8: every group is full again, and at its end", || {
        let is_so = groups.iter().all(|group| group.is_full() && kafka::is_at_the_end(world, group.reader));
        async move { is_so.then_some(()) }
    })
    .await;
}

async fn dead_letters(world: &World) -> i64 {
    let mut count = 0;
    for reader in kafka::readers() {
        let db = world.database(reader).await.unwrap();
        let mut conn = db.acquire().await.unwrap();
        let letters = sqlx::query_scalar("SELECT COUNT(*) FROM dead_letters");
        let letters: i64 = letters.fetch_one(&mut *conn).await.unwrap();
        count += letters;
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_08_consumers_that_waited_too_long_for_their_database_come_back_by_themselves() {
    let Some(_permit) = long_case(8).await else { return };
    let world = World::prepared().await.unwrap();
    let databases = Databases::of(&world).await;
    let sale = open(world, &databases).await;
    let (paid, cancelled) = (placed(&sale).await, placed(&sale).await);

    databases.freeze(Service::Inventory).await;
    databases.freeze(Service::Payment).await;
    for (user, order) in &paid {
        sale.pay(*user, order, "pm_card_ok").await.unwrap();
    }
    for (user, order) in &cancelled {
        cancel(&sale, *user, order).await;
    }
    until_published(&sale.world).await;
    for service in [Service::Event, Service::Coupon, Service::Order] {
        databases.freeze(service).await;
    }
    until_put_out(&sale.world).await;

    databases.go_on();
    until_back(&sale.world).await;
    for (user, order) in &paid {
        sale.until(*user, order, OrderState::Fulfilled).await;
    }
    assert_eq!(dead_letters(&sale.world).await, 0, "case 8: to wait sets nothing aside");
    let audit = sale.run_audit(&["--quiet-deadline-s", "60"]);
    assert!(audit.holds, "case 8: {audit:#?}");
    sale.mesh.stop().await.unwrap();
}
