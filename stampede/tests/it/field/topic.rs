//! A topic that takes nothing for a while, or is deleted and created anew, while its writers and readers run; and a
//! Kafka that stands still under a load.

use super::{item, kafka, long_case, on_sale, plays_long_cases};
use crate::sale::{LONG, Sale, eur};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
};
use stampede_proto::order::v1::{Order, OrderState};
use stampede_testkit::{KafkaLink, MeshBuilder, Process, Service, World, buyer, eventually, heavy};
use stampede_vocab::UserId;
use std::time::Duration;
use tokio::time::{interval, sleep, timeout};
use tonic::{Code, Status};

/// Longest wait for an answer of Kafka.
const MAX_WAIT: Duration = Duration::from_secs(20);
/// Partitions of the topic as it was, and fewer.
const PARTITIONS: i32 = 4;
const FEWER: i32 = 3;
/// Orders before the topic is deleted: enough that the offsets of every partition of the old topic are beyond those of
/// the new one when it is first read.
const BEFORE: usize = 80;
/// Orders after that.
const AFTER: usize = 20;
/// Orders that are paid while the topic takes nothing; in the long form as many as at the pace of the field in half a
/// minute. In the field Kafka then stands still for forty seconds.
const WHILE_REFUSED: usize = 3;
const LONG_WHILE_REFUSED: usize = 900;
const WHILE_STILL: usize = 1_200;
/// The pace of the field, thirty orders a second.
const PACE: Duration = Duration::from_millis(33);
/// The setting of a topic that bounds its records: its default, and one that refuses all.
const LARGEST: &str = "max.message.bytes";
const LARGEST_BY_DEFAULT: &str = "1048588";
const NOTHING_IS_SMALLER: &str = "1";
/// What order logs then.
const REFUSED: &str = "message was not acknowledged, it is sent again";
/// Units of the item on sale: enough for all these orders.
const UNITS: i32 = 2_000;
/// Longest time for these.
const FULFILLED_WITHIN: Duration = Duration::from_secs(60);
/// Longest time until a reader logs that its topic is missing: its client waits half a minute for topics that are new
/// to it, and polls for them.
const LOGGED_WITHIN: Duration = Duration::from_secs(60);
/// Poll interval of conditions that may take longer than those of other tests.
const PAUSE: Duration = Duration::from_millis(100);

/// The topic of orders, for an operator's commands.
struct Topic {
    admin: AdminClient<DefaultClientContext>,
    name: String,
}

impl Topic {
    fn of(world: &World) -> Self {
        let admin = ClientConfig::new().set("bootstrap.servers", world.brokers()).create().unwrap();
        Self { admin, name: Service::Order.topic(world.topic_prefix()) }
    }

    async fn delete(&self) {
        for deleted in self.admin.delete_topics(&[self.name.as_str()], &options()).await.unwrap() {
            deleted.unwrap();
        }
        eventually("case 7: the topic is gone", || {
            let leaders = self.leaders();
            async move { (leaders == Some(0)).then_some(()) }
        })
        .await;
    }

    async fn create(&self, partitions: i32) {
        // A broker may not be done with the old one yet.
        eventually("case 7: the topic is made anew", || async {
            let topic = NewTopic::new(&self.name, partitions, TopicReplication::Fixed(1));
            let created = self.admin.create_topics(&[topic], &options()).await.unwrap();
            created.into_iter().all(|topic| topic.is_ok()).then_some(())
        })
        .await;
        eventually("case 7: every partition has a leader", || {
            let leaders = self.leaders();
            async move { (leaders == usize::try_from(partitions).ok()).then_some(()) }
        })
        .await;
    }

    /// Sets how large a record may be. In the field there were too few replicas, but a broker that is alone takes the
    /// records of its topics whatever `min.insync.replicas` says.
    async fn set_largest(&self, bytes: &str) {
        let config = AlterConfig::new(ResourceSpecifier::Topic(&self.name)).set(LARGEST, bytes);
        let in_time = AdminOptions::new().request_timeout(Some(MAX_WAIT));
        for altered in self.admin.alter_configs(&[config], &in_time).await.unwrap() {
            altered.unwrap();
        }
    }

    /// Returns how many partitions have a leader, if Kafka answers. It blocks.
    fn leaders(&self) -> Option<usize> {
        let metadata = self.admin.inner().fetch_metadata(Some(&self.name), MAX_WAIT).ok()?;
        let partitions = metadata.topics().first()?.partitions();
        Some(partitions.iter().filter(|partition| partition.leader() >= 0).count())
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(MAX_WAIT))
}

/// A sale in which every order can be paid for as long as the test runs.
async fn sale() -> Sale {
    sale_on(MeshBuilder::default()).await
}

/// The same on a mesh with more settings.
async fn sale_on(builder: MeshBuilder) -> Sale {
    let world = World::prepared().await.unwrap();
    let mesh = builder
        .set(Service::Order, "STAMPEDE_PAY_WINDOW_MS", LONG.as_millis())
        .start(&world, Process::all())
        .await
        .unwrap();
    let event = on_sale(&mesh, item(eur(1_999), UNITS, 3)).await;
    Sale { world, mesh, event }
}

/// Pays so many orders, up to the answer of order.
async fn paid(sale: &Sale, count: usize) -> Vec<(UserId, Order)> {
    let mut paid = Vec::new();
    for _ in 0..count {
        let user = buyer();
        let order = sale.placed(user, &[(0, 1)], "").await;
        sale.pay(user, &order, "pm_card_ok").await.unwrap();
        paid.push((user, order));
    }
    paid
}

/// Pays so many orders at the pace of the field, unless they are refused for now.
async fn paid_at_a_pace(sale: &Sale, count: usize) -> Vec<(UserId, Order)> {
    let (mut pace, mut paid) = (interval(PACE), Vec::new());
    for _ in 0..count {
        pace.tick().await;
        let user = buyer();
        let Some(order) = unless_put_off(sale.place(user, &[(0, 1)], "").await) else { continue };
        sale.until(user, &order, OrderState::AwaitingPayment).await;
        if unless_put_off(sale.pay(user, &order, "pm_card_ok").await).is_some() {
            paid.push((user, order));
        }
    }
    println!("case 7: {} of {count} orders are paid meanwhile", paid.len());
    assert!(!paid.is_empty(), "case 7: no order is taken");
    paid
}

fn unless_put_off(answer: Result<Order, Status>) -> Option<Order> {
    answer.inspect_err(|refused| assert_eq!(refused.code(), Code::Unavailable, "case 7: {refused:?}")).ok()
}

async fn all_fulfilled(sale: &Sale, paid: &[(UserId, Order)]) {
    let all = async {
        for (user, order) in paid {
            while sale.get(*user, order).await.state() != OrderState::Fulfilled {
                sleep(PAUSE).await;
            }
        }
    };
    let all = timeout(FULFILLED_WITHIN, all).await;
    assert!(all.is_ok(), "case 7: not all orders are fulfilled after {FULFILLED_WITHIN:?}");
}

fn assert_audited(sale: &Sale) {
    // More than the default: a thousand orders may still be on their way.
    let audit = sale.run_audit(&["--quiet-deadline-s", "180"]);
    assert!(audit.holds, "case 7: {audit:#?}");
}

/// Waits until every message has taken effect, and every offset is committed.
async fn quiet(sale: &Sale) {
    kafka::until_each(&sale.world, kafka::readers(), "case 7: a group is at the end", kafka::is_at_the_end).await;
}

/// Waits until a service logs that it cannot write or read its topic.
async fn logged(sale: &Sale, service: Service, words: &[&str]) {
    let logged = async {
        loop {
            let log = sale.mesh.log(service).unwrap();
            if words.iter().any(|words| log.contains(words)) {
                break;
            }
            sleep(PAUSE).await;
        }
    };
    assert!(timeout(LOGGED_WITHIN, logged).await.is_ok(), "case 7: {service} logs nothing about a missing topic");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_07_a_topic_that_is_made_anew_while_all_is_quiet_is_written_and_read() {
    let Some(_permit) = long_case(7).await else { return };
    let sale = sale().await;
    let before = paid(&sale, BEFORE).await;
    all_fulfilled(&sale, &before).await;
    quiet(&sale).await;
    let topic = Topic::of(&sale.world);
    topic.delete().await;
    topic.create(PARTITIONS).await;
    let after = paid(&sale, AFTER).await;
    all_fulfilled(&sale, &after).await;
    sale.mesh.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_07_a_topic_that_is_away_is_missed_aloud_and_what_was_told_meanwhile_takes_effect() {
    let Some(_permit) = long_case(7).await else { return };
    let sale = sale().await;
    let before = paid(&sale, BEFORE).await;
    all_fulfilled(&sale, &before).await;
    quiet(&sale).await;
    let topic = Topic::of(&sale.world);
    topic.delete().await;
    let after = paid(&sale, AFTER).await;
    let unsent = ["message cannot be sent", "message was not acknowledged", "does not acknowledge in time"];
    logged(&sale, Service::Order, &unsent).await;
    logged(&sale, Service::Payment, &["cannot read from Kafka"]).await;
    topic.create(FEWER).await;
    all_fulfilled(&sale, &after).await;
    sale.mesh.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_07_what_is_told_while_a_topic_refuses_it_takes_effect_once_it_is_taken() {
    let _permit = heavy().await;
    let sale = sale().await;
    let topic = Topic::of(&sale.world);
    topic.set_largest(NOTHING_IS_SMALLER).await;
    // The broker goes by it a moment later.
    eventually("case 7: a record is refused", || async {
        sale.place(buyer(), &[(0, 1)], "").await.ok()?;
        sale.mesh.log(Service::Order).unwrap().contains(REFUSED).then_some(())
    })
    .await;
    let paid = if plays_long_cases() {
        paid_at_a_pace(&sale, LONG_WHILE_REFUSED).await
    } else {
        paid(&sale, WHILE_REFUSED).await
    };
    for (user, order) in &paid {
        assert_eq!(sale.get(*user, order).await.state(), OrderState::Paying, "case 7: nobody can have heard of it");
    }
    topic.set_largest(LARGEST_BY_DEFAULT).await;
    all_fulfilled(&sale, &paid).await;
    assert_audited(&sale);
    sale.mesh.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_07_a_load_while_kafka_stands_still_takes_effect_once_it_goes_on() {
    let Some(_permit) = long_case(7).await else { return };
    let link = KafkaLink::open().await.unwrap();
    let sale = sale_on(MeshBuilder::default().set_all("STAMPEDE_KAFKA_BROKERS", link.brokers())).await;
    link.freeze();
    let paid = paid_at_a_pace(&sale, WHILE_STILL).await;
    link.thaw();
    all_fulfilled(&sale, &paid).await;
    assert_audited(&sale);
    sale.mesh.stop().await.unwrap();
}
