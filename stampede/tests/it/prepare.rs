//! `stampede prepare`, run again in the middle of a roll-out.

use crate::command::stampede;
use sqlx::{AssertSqlSafe, MySqlPool};
use stampede_testkit::{Service, World};

fn prepare(world: &World) {
    let output = stampede(&["prepare", "--database-url", world.database_url(), "--kafka-brokers", world.brokers()])
        .args(["--schema-prefix", &world.schema_prefix(), "--kafka-topic-prefix", world.topic_prefix()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

async fn run(db: &MySqlPool, sql: String) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(db).await.unwrap();
}

/// The lowest and the highest floor.
async fn floors(db: &MySqlPool) -> (u64, u64) {
    sqlx::query_as("SELECT MIN(floor_id), MAX(floor_id) FROM outbox_leases").fetch_one(db).await.unwrap()
}

/// A message with an id of its own, or one of an earlier release.
async fn write(db: &MySqlPool, id: u64, message_id: &str) {
    let sql = format!(
        "INSERT INTO outbox (id, partition_no, aggregatetype, aggregateid, aggregate_version, type, payload, created_us, \
         message_id) VALUES ({id}, 0, 'order', 'ord_x', {id}, 'x', '', 0, {message_id})"
    );
    run(db, sql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floors_are_raised_again_until_a_relay_keeps_them() {
    let world = World::new().unwrap();
    // As an earlier release has left them.
    world.create_topics().await.unwrap();
    prepare(&world);
    let db = MySqlPool::connect(&world.service_database_url(Service::Order)).await.unwrap();
    for id in 1..=3 {
        write(&db, id, "NULL").await;
    }
    run(&db, "INSERT INTO outbox_unsent (id, partition_no) VALUES (3, 0)".to_owned()).await;
    prepare(&world);
    assert_eq!(floors(&db).await, (2, 2), "the third was not sent");
    run(&db, "DELETE FROM outbox_unsent".to_owned()).await;
    prepare(&world);
    assert_eq!(floors(&db).await, (3, 3));

    write(&db, 4, "NULL").await;
    for (table, taken, left) in [
        (
            "outbox_leases",
            "UPDATE outbox_leases SET owner = '2-x' WHERE partition_no = 7",
            "UPDATE outbox_leases SET owner = 'x'",
        ),
        ("outbox_relays", "INSERT INTO outbox_relays VALUES ('2-x', 0)", "DELETE FROM outbox_relays"),
        ("outbox", "UPDATE outbox SET message_id = 'x' WHERE id = 4", "UPDATE outbox SET message_id = NULL"),
    ] {
        run(&db, taken.to_owned()).await;
        prepare(&world);
        assert_eq!(floors(&db).await, (3, 3), "{table}");
        run(&db, left.to_owned()).await;
    }
    prepare(&world);
    assert_eq!(floors(&db).await, (4, 4));
}
