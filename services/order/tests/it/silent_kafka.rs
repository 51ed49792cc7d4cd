//! A Kafka that falls silent keeps no process from leaving.

use crate::sale::Sale;
use anyhow::{Context, Result};
use stampede_testkit::{KafkaLink, MeshBuilder, Service, buyer};
use std::time::Duration;
use tokio::time::timeout;

/// `--drain-timeout-ms` by default. Its consumer and its relay wait for Kafka for three seconds each.
const DRAIN: Duration = Duration::from_secs(10);

#[tokio::test]
async fn order_leaves_within_its_drain_though_kafka_takes_no_message_and_no_goodbye() -> Result<()> {
    let link = KafkaLink::open().await?;
    let linked = MeshBuilder::default().set(Service::Order, "STAMPEDE_KAFKA_BROKERS", link.brokers());
    let mut sale = Sale::open_with(linked).await?;
    let order = sale.payable_lamp(buyer()).await?;
    link.freeze();
    // Its message is what the relay has not sent when it stops.
    sale.cancel(&order, "c").await?;
    // Fails too if it ends with another status than 0.
    timeout(DRAIN, sale.mesh.terminate(Service::Order)).await.context("it is still there after its drain")??;
    link.thaw();
    sale.mesh.stop().await
}
