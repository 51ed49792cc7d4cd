//! A Kafka that stands still for a whole mesh, and consumers that begin at the first record again.

use super::plays_long_cases;
use crate::{
    history::kept,
    sale::{LONG, Sale, fresh},
};
use futures_util::future::join_all;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
};
use stampede_proto::order::v1::{CancelOrderRequest, Order, OrderState, RefundOrderRequest};
use stampede_testkit::{KafkaLink, MeshBuilder, Service, World, as_buyer, as_operator, buyer, eventually, heavy};
use stampede_vocab::UserId;
use std::time::Duration;
use tokio::task::spawn_blocking;

/// Longest wait for an answer of Kafka.
const MAX_WAIT: Duration = Duration::from_secs(20);
/// Orders that are paid while Kafka takes nothing.
const ORDERS: usize = 3;
/// The long form of a sale that is read again: rounds of three orders, five hundred in all, and how often it is read.
const LONG_ROUNDS: usize = 165;
const LONG_TIMES: usize = 2;

/// Orders that are paid, as far as order itself can tell.
async fn paid(sale: &Sale) -> Vec<(UserId, Order)> {
    let mut paid = Vec::new();
    for _ in 0..ORDERS {
        let user = buyer();
        let order = sale.placed(user, &[(0, 1)], "").await;
        sale.pay(user, &order, "pm_card_ok").await.unwrap();
        paid.push((user, order));
    }
    paid
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_07_what_is_told_while_kafka_stands_still_takes_effect_once_it_goes_on() {
    let _permit = heavy().await;
    let link = KafkaLink::open().await.unwrap();
    let linked = MeshBuilder::default().set_all("STAMPEDE_KAFKA_BROKERS", link.brokers());
    let sale = Sale::open_on(linked, LONG).await;
    link.freeze();
    let paid = paid(&sale).await;
    eventually("case 7: order says that it waits for Kafka", || async {
        let log = sale.mesh.log(Service::Order).unwrap();
        log.contains("Kafka does not acknowledge in time").then_some(())
    })
    .await;
    for (user, order) in &paid {
        assert_eq!(sale.get(*user, order).await.state(), OrderState::Paying, "case 7: nobody can have heard of it");
    }
    link.thaw();
    for (user, order) in &paid {
        sale.until(*user, order, OrderState::Fulfilled).await;
    }
    sale.audit();
    sale.mesh.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kafka_is_read_from_the_first_record_again() {
    let _permit = heavy().await;
    let mut sale = Sale::open(LONG).await;
    case_09_consumers_that_begin_at_the_first_record_again_change_nothing(&mut sale).await;
}

/// Readers keep no list of what they have read: no purge of one could make a difference.
async fn case_09_consumers_that_begin_at_the_first_record_again_change_nothing(sale: &mut Sale) {
    let (rounds, times) = if plays_long_cases() { (LONG_ROUNDS, LONG_TIMES) } else { (1, 1) };
    sell_in_all_ways(sale, rounds).await;
    sale.audit();
    let before = kept(&sale.world).await;
    for time in 1..=times {
        for service in Service::ALL {
            sale.mesh.terminate(service).await.unwrap();
        }
        // Kafka refuses offsets until the members of the group are gone.
        until_each(&sale.world, readers(), "case 9: a group begins anew", rewind).await;
        for service in Service::ALL {
            sale.mesh.restart(service).await.unwrap();
        }
        until_each(&sale.world, readers(), "case 9: a group is at the end again", is_at_the_end).await;
        sale.audit();
        let after = kept(&sale.world).await;
        assert_eq!(after, before, "case 9: time {time}: what the first record and all later ones have changed again");
    }
}

/// An order with a coupon, and in each round one of each other end.
async fn sell_in_all_ways(sale: &Sale, rounds: usize) {
    let user = buyer();
    let coupon = sale.claim(user).await;
    sale.bought(user, &[(0, 1)], &coupon.coupon_id).await;
    for _ in 0..rounds {
        sell_and_take_back(sale).await;
    }
}

/// An order that expires, one that is cancelled and one that is refunded.
async fn sell_and_take_back(sale: &Sale) {
    let user = buyer();
    let expired = sale.placed(user, &[(0, 1)], "").await;
    sale.time_is_over(&expired).await;

    let cancelled = sale.placed(user, &[(0, 1)], "").await;
    let request = CancelOrderRequest { order_id: cancelled.order_id.clone(), request_id: fresh() };
    sale.mesh.order().cancel_order(as_buyer(user, request)).await.unwrap();

    let refunded = sale.bought(user, &[(0, 1)], "").await;
    let request = RefundOrderRequest { order_id: refunded.order_id.clone(), request_id: fresh() };
    sale.mesh.order().refund_order(as_operator(request)).await.unwrap();
    sale.until(user, &refunded, OrderState::Refunded).await;
    sale.until(user, &expired, OrderState::Expired).await;
}

/// The services that read the topics of others.
pub fn readers() -> impl Iterator<Item = Service> {
    Service::ALL.into_iter().filter(|service| service.reads().next().is_some())
}

/// Retries until the condition holds for each of these readers. Each is asked about by a client of its own, which first
/// has to find the coordinator of its group, so they are asked about side by side.
pub async fn until_each(
    world: &World,
    readers: impl IntoIterator<Item = Service>,
    what: &str,
    is_so: impl Fn(&World, Service) -> bool + Copy + Send + 'static,
) {
    let each = readers.into_iter().map(|reader| until(world, what, move |world| is_so(world, reader)));
    join_all(each).await;
}

/// Retries until the condition holds. It blocks.
async fn until(world: &World, what: &str, is_so: impl Fn(&World) -> bool + Copy + Send + 'static) {
    eventually(what, || {
        let world = world.clone();
        async move { spawn_blocking(move || is_so(&world)).await.unwrap().then_some(()) }
    })
    .await;
}

/// A client in the place of a service: it may read and set the offsets of its group.
pub fn in_place_of(reader: Service, world: &World) -> BaseConsumer {
    let group = format!("{}.{reader}", world.topic_prefix());
    ClientConfig::new().set("bootstrap.servers", world.brokers()).set("group.id", group).create().unwrap()
}

/// All partitions that a service reads, each at the first record.
fn first_records(client: &BaseConsumer, reader: Service, world: &World) -> TopicPartitionList {
    let mut all = TopicPartitionList::new();
    for topic in reader.reads().map(|writer| writer.topic(world.topic_prefix())) {
        let metadata = client.fetch_metadata(Some(&topic), MAX_WAIT).unwrap();
        for partition in metadata.topics()[0].partitions() {
            all.add_partition_offset(&topic, partition.id(), Offset::Offset(0)).unwrap();
        }
    }
    all
}

/// Resets the group of a service to the first records. Returns whether Kafka accepts that.
fn rewind(world: &World, reader: Service) -> bool {
    let client = in_place_of(reader, world);
    client.commit(&first_records(&client, reader, world), CommitMode::Sync).is_ok()
}

/// Whether the group of a service has no lag. It has no offset for a partition without records. A group whose
/// coordinator is looked for does not say.
pub fn is_at_the_end(world: &World, reader: Service) -> bool {
    let client = in_place_of(reader, world);
    let Ok(committed) = client.committed_offsets(first_records(&client, reader, world), MAX_WAIT) else { return false };
    committed.elements().iter().all(|element| {
        let (_, end) = client.fetch_watermarks(element.topic(), element.partition(), MAX_WAIT).unwrap();
        // A partition that never had a record has no committed offset.
        end == 0 || element.offset() == Offset::Offset(end)
    })
}
