//! The audit of messages: each takes effect at each of its readers, every record of a topic is ours, and records that
//! were purged by retention are not missed.

use crate::{
    breaks::Id,
    message_breaks::{LETTER, WITHOUT_EFFECT, WithoutEffect},
    sale::{LONG, Sale, eur, fresh, in_us},
    sold::{AT_ONCE, Sold, in_sql, schemas_of},
    webhook::pay_late,
};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use sqlx::{AssertSqlSafe, MySqlPool};
use stampede_proto::{
    coupon::v1::Coupon,
    event::v1::{CancelEventRequest, CreateEventRequest, NewItem},
    inventory::v1::GetStockRequest,
    order::v1::{CancelOrderRequest, Order, OrderState, RefundOrderRequest},
};
use stampede_testkit::{Service, as_buyer, as_operator, buyer, eventually};
use stampede_vocab::{CouponId, EventId, OrderId, PaymentId};
use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

/// A sale in which there was every message that a service takes. The services are stopped.
struct AllMessages {
    sale: Sale,
    schemas: BTreeMap<Service, MySqlPool>,
    /// Names in SQL, with the ids for SQL and as text.
    ids: Vec<(String, String, String)>,
}

impl AllMessages {
    /// The money of two orders comes after their deadlines: one gets its units again, the other finds them sold.
    async fn new() -> Self {
        let mut sale = Sale::open(LONG).await;
        let [late, rejected, other] = [buyer(), buyer(), buyer()];
        let kettle = sale.placed(late, &[(0, 1)], "").await;
        let rarity = sale.placed(rejected, &[(1, 1)], "").await;
        pay_late(&sale, late, &kettle).await;
        pay_late(&sale, rejected, &rarity).await;
        let mut orders = vec![(kettle.clone(), "late", None), (rarity.clone(), "rejected", None)];

        sale.time_is_over(&kettle).await;
        sale.time_is_over(&rarity).await;
        sale.until(late, &kettle, OrderState::Expired).await;
        sale.until(rejected, &rarity, OrderState::Expired).await;
        sale.until_left(1, 1, 0).await;
        sale.bought(other, &[(1, 1)], "").await;
        orders.extend(in_all_ways(&sale).await);
        sale.until(late, &kettle, OrderState::Fulfilled).await;
        sale.until(rejected, &rarity, OrderState::Refunded).await;

        let event: EventId = sale.event.event_id.parse().unwrap();
        let cancelled_event = cancelled_event(&sale).await;
        sale.audit();
        for service in Service::ALL {
            sale.mesh.kill_9(service).unwrap();
        }
        let mut ids = vec![
            ("{event}".to_owned(), in_sql(event.as_bytes()), event.to_string()),
            ("{cancelled_event}".to_owned(), in_sql(cancelled_event.as_bytes()), cancelled_event.to_string()),
        ];
        for (order, name, coupon) in orders {
            ids.extend(names(&order, name, coupon));
        }
        Self { schemas: schemas_of(&sale), sale, ids }
    }

    async fn run(&self, service: Service, sql: &str) {
        let sql = self.ids.iter().fold(sql.to_owned(), |sql, (name, id, _)| sql.replace(name, id));
        let done = sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&self.schemas[&service]).await;
        let changed = done.unwrap_or_else(|error| panic!("{sql}: {error}")).rows_affected();
        assert!(changed > 0, "{sql} changes nothing");
    }

    fn text(&self, name: &str) -> &str {
        &self.ids.iter().find(|(known, _, _)| known == name).unwrap().2
    }
}

/// The ids of an order, of its payment and of its coupon.
fn names(order: &Order, name: &str, coupon: Option<Coupon>) -> Vec<(String, String, String)> {
    let order: OrderId = order.order_id.parse().unwrap();
    let payment = PaymentId::derive(order);
    let mut names = vec![
        (format!("{{{name}}}"), in_sql(order.as_bytes()), order.to_string()),
        (format!("{{{name}_payment}}"), in_sql(payment.as_bytes()), payment.to_string()),
    ];
    if let Some(coupon) = coupon {
        let coupon: CouponId = coupon.coupon_id.parse().unwrap();
        names.push((format!("{{{name}_coupon}}"), in_sql(coupon.as_bytes()), coupon.to_string()));
    }
    names
}

/// One order with a coupon for each end, and one whose payment is declined first.
async fn in_all_ways(sale: &Sale) -> Vec<(Order, &'static str, Option<Coupon>)> {
    let mut orders = Vec::new();
    for name in ["declined", "refunded", "cancelled", "expired"] {
        let user = buyer();
        let coupon = sale.claim(user).await;
        let order = sale.placed(user, &[(0, 1)], &coupon.coupon_id).await;
        let order_id = order.order_id.clone();
        match name {
            "declined" => {
                sale.pay(user, &order, "pm_card_declined").await.unwrap();
                sale.until(user, &order, OrderState::AwaitingPayment).await;
                sale.pay(user, &order, "pm_card_ok").await.unwrap();
                sale.until(user, &order, OrderState::Fulfilled).await;
            }
            "refunded" => {
                sale.pay(user, &order, "pm_card_ok").await.unwrap();
                sale.until(user, &order, OrderState::Fulfilled).await;
                let request = RefundOrderRequest { order_id, request_id: fresh() };
                sale.mesh.order().refund_order(as_operator(request)).await.unwrap();
                sale.until(user, &order, OrderState::Refunded).await;
            }
            "cancelled" => {
                let request = CancelOrderRequest { order_id, request_id: fresh() };
                sale.mesh.order().cancel_order(as_buyer(user, request)).await.unwrap();
            }
            _ => {
                sale.time_is_over(&order).await;
                sale.until(user, &order, OrderState::Expired).await;
            }
        }
        orders.push((order, name, Some(coupon)));
    }
    orders
}

/// An event that was staged and then cancelled.
async fn cancelled_event(sale: &Sale) -> EventId {
    let item =
        NewItem { title: "a lamp".to_owned(), unit_price: eur(500), total_units: 1, limit_per_buyer: 1, gift: None };
    let request = CreateEventRequest {
        request_id: fresh(),
        name: "a sale that is called off".to_owned(),
        open_time: in_us(Duration::from_secs(300)),
        close_time: in_us(Duration::from_secs(600)),
        items: vec![item],
    };
    let event = sale.mesh.event().create_event(as_operator(request)).await.unwrap().into_inner().event.unwrap();
    eventually("the event is staged", || async {
        let request = GetStockRequest { event_id: event.event_id.clone() };
        let stocks = sale.mesh.inventory().get_stock(as_operator(request)).await.ok()?.into_inner().stocks;
        (!stocks.is_empty()).then_some(())
    })
    .await;
    let request = CancelEventRequest { event_id: event.event_id.clone(), paid_orders: 0 };
    sale.mesh.event().cancel_event(as_operator(request)).await.unwrap();
    event.event_id.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_without_its_effect_is_named() {
    let sold = AllMessages::new().await;
    for round in WITHOUT_EFFECT {
        for WithoutEffect { message: (reader, _), by, .. } in *round {
            sold.run(*reader, by).await;
        }
        let audit = sold.sale.run_audit(AT_ONCE);
        for WithoutEffect { message: (reader, name), key, .. } in *round {
            let ending = format!(" did not take effect in {reader}");
            let key = sold.text(key);
            let is_named = |named: &String| named.starts_with(key) && named.ends_with(&format!(", {name})"));
            let mut breaches = audit.promises[6].breaches.iter().filter(|breach| breach.what.ends_with(&ending));
            assert!(breaches.any(|breach| breach.named.iter().any(is_named)), "{reader}, {name} of {key}: {audit:#?}");
        }
        for WithoutEffect { message: (reader, _), mended_by, .. } in *round {
            sold.run(*reader, mended_by).await;
        }
    }
    let audit = sold.sale.run_audit(AT_ONCE);
    assert!(audit.promises[6].holds, "{audit:#?}");
}

#[test]
fn every_message_that_a_service_takes_is_seen_without_its_effect() {
    let seen: HashSet<_> = WITHOUT_EFFECT.iter().copied().flatten().map(|one| one.message).collect();
    for reader in Service::ALL {
        for name in reader.reads().flat_map(|writer| reader.takes(writer)) {
            assert!(seen.contains(&(reader, *name)), "{name} in {reader}");
        }
    }
}

async fn send(sold: &Sold, topic: &str, (id, sequence): (u64, i64), payload: &str) {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", sold.sale.world.brokers())
        .set("partitioner", "murmur2_random")
        .create()
        .unwrap();
    let (id, sequence) = (id.to_string(), sequence.to_string());
    let headers = [("ce_id", &id), ("ce_sequence", &sequence)]
        .into_iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
    let topic = format!("{}.{topic}", sold.sale.world.topic_prefix());
    let record = FutureRecord::to(&topic).key("ord_by_hand").payload(payload).headers(headers);
    producer.send(record, Duration::from_secs(20)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_records_of_a_topic_are_named() {
    let sold = Sold::new().await;
    let by_hand = Id::Text("ord_by_hand");

    send(&sold, "order", (1_000_001, 2), "one").await;
    let unknown = (7, "a message on order is in no outbox", by_hand);
    sold.assert_named(AT_ONCE, &[unknown]);
    let audit = sold.sale.run_audit(AT_ONCE);
    let unread = ["coupon", "inventory", "payment"].map(|reader| format!("1 messages of order to be read by {reader}"));
    assert_eq!(audit.still_moving, unread, "nobody has read it");
    assert_eq!(audit.promises[6].breaches.len(), 1, "{audit:#?}");

    // A repeat of it is no breach.
    send(&sold, "order", (1_000_001, 2), "one").await;
    assert_eq!(sold.sale.run_audit(AT_ONCE).promises[6].breaches.len(), 1);
    send(&sold, "order", (1_000_002, 2), "another").await;
    sold.assert_named(AT_ONCE, &[(7, "messages of one aggregate are out of order on order", by_hand)]);
    send(&sold, "order", (1_000_001, 3), "a third").await;
    sold.assert_named(AT_ONCE, &[(7, "two messages of order have one id", by_hand)]);

    send(&sold, "order.payment.dlq", (1_000_003, 1), "").await;
    sold.assert_named(AT_ONCE, &[(7, "a message of order could not be applied by payment", by_hand)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_moves_while_it_is_replayed_and_is_left_out_once_discarded() {
    let sold = Sold::new().await;
    sold.run(&[(Service::Payment, LETTER), (Service::Payment, "UPDATE dead_letters SET state = 'REPLAY'")]).await;
    let audit = sold.sale.run_audit(AT_ONCE);
    assert_eq!(audit.still_moving, ["1 dead letters of payment to be replayed"]);
    assert!(!audit.promises[6].holds, "{audit:#?}");
    sold.run(&[(Service::Payment, "UPDATE dead_letters SET state = 'DISCARDED'")]).await;
    let audit = sold.sale.run_audit(AT_ONCE);
    assert!(audit.holds, "{audit:#?}");
    assert!(audit.left_out.iter().any(|what| what.contains("an operator has discarded")), "{audit:#?}");
    sold.run(&[(Service::Payment, "UPDATE dead_letters SET state = 'REPLAYED'")]).await;
    let audit = sold.sale.run_audit(AT_ONCE);
    assert!(audit.holds && !audit.left_out.iter().any(|what| what.contains("discarded")), "{audit:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_often_an_order_was_paid_is_left_out_once_a_request_was_discarded() {
    let sold = Sold::new().await;
    let declined = "INSERT INTO attempts (payment_id, attempt, state, payment_method, checks, decline_code, created_us, \
                    updated_us) VALUES ({payment}, 2, 'DECLINED', 'x', 0, 'order_ended', 0, 0)";
    sold.run(&[(Service::Payment, declined)]).await;
    let untried = "an order was paid for another number of times than it asked";
    sold.assert_named(AT_ONCE, &[(4, untried, Id::Order)]);
    let of_order = format!("UPDATE dead_letters SET state = 'DISCARDED', message_key = '{}'", sold.order());
    sold.run(&[(Service::Payment, LETTER), (Service::Payment, &of_order)]).await;
    sold.assert_named(AT_ONCE, &[(4, untried, Id::Order)]);
    let of_request = "UPDATE dead_letters SET message_type = 'stampede.message.v1.PaymentRequested'";
    sold.run(&[(Service::Payment, of_request)]).await;
    let audit = sold.sale.run_audit(AT_ONCE);
    assert!(audit.holds, "{audit:#?}");
    assert!(audit.left_out.iter().any(|what| what.contains("how often 1 orders were paid")), "{audit:#?}");
}

/// Deletes all records of all topics, as Kafka does after its retention.
async fn empty_topics(sold: &Sold) {
    let world = &sold.sale.world;
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", world.brokers()).create().unwrap();
    let mut ends = TopicPartitionList::new();
    for topic in Service::ALL.map(|service| service.topic(world.topic_prefix())) {
        let metadata = admin.inner().fetch_metadata(Some(&topic), Duration::from_secs(20)).unwrap();
        for partition in metadata.topics()[0].partitions() {
            ends.add_partition_offset(&topic, partition.id(), Offset::End).unwrap();
        }
    }
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
    for emptied in admin.delete_records(&ends, &options).await.unwrap().elements() {
        emptied.error().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_purged_by_retention_are_not_reported_as_lost() {
    let sold = Sold::new().await;
    // The state of two days later: everything is that much older, and sent rows are purged.
    let two_days = 2 * 86_400_000_000_i64;
    let [events, opened, coupons, orders] = [
        format!(
            "UPDATE events SET opens_at_us = opens_at_us - {two_days}, opened_at_us = opened_at_us - {two_days}, opened_seen_us = opened_seen_us - {two_days}, created_us = created_us - {two_days}, updated_us = updated_us - {two_days}"
        ),
        format!("UPDATE stock SET opens_at_us = opens_at_us - {two_days}"),
        format!("UPDATE coupons SET updated_us = updated_us - {two_days}"),
        format!("UPDATE orders SET created_us = created_us - {two_days}, updated_us = updated_us - {two_days}"),
    ];
    sold.run(&[(Service::Event, &events), (Service::Inventory, &opened), (Service::Coupon, &coupons)]).await;
    sold.run(&[(Service::Order, &orders)]).await;
    for service in Service::ALL {
        sold.run(&[(service, "DELETE FROM outbox")]).await;
    }
    empty_topics(&sold).await;
    let audit = sold.sale.run_audit(AT_ONCE);
    assert!(audit.holds, "{audit:#?}");
    assert!(audit.left_out.iter().any(|what| what.contains("outboxes keep what was sent for a day")), "{audit:#?}");
}
