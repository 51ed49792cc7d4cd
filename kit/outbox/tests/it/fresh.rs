//! A topic that is made while messages for it are there: its partitions get their leaders one after the other.

use crate::bench::Bench;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
};

const PARTITIONS: i32 = 100;
const MESSAGES: usize = 1_000;

async fn create(bench: &Bench) {
    let mut settings = ClientConfig::new();
    let admin: AdminClient<_> = settings.set("bootstrap.servers", bench.world.brokers()).create().unwrap();
    let topic = bench.topic();
    let new = NewTopic::new(&topic, PARTITIONS, TopicReplication::Fixed(1));
    admin.create_topics([&new], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_in_partitions_that_have_no_leader_yet() {
    let bench = Bench::without_topics().await;
    let relay = bench.start_relay();
    let write = async {
        for aggregate in 0..MESSAGES {
            bench.write(aggregate, 1).await;
            relay.outbox.wake();
        }
    };
    tokio::join!(write, create(&bench));
    bench.settled().await;
    assert_eq!(bench.received(MESSAGES).await.len(), MESSAGES);
    relay.stop().await;
}
