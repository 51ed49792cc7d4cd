//! Which schemas a program runs on, by what is written down in a real database.

use stampede_db::Schema;
use stampede_testkit::{Service, World};

#[tokio::test]
async fn a_schema_that_is_behind_is_refused_by_name() {
    let world = World::new().unwrap();
    let db = world.migrated_schema(Service::Event).await.unwrap();
    db.check_schema(Schema::of(Service::Event)).await.unwrap();
    let mut conn = db.acquire().await.unwrap();
    sqlx::query("DELETE FROM _sqlx_migrations ORDER BY version DESC LIMIT 1").execute(&mut *conn).await.unwrap();
    drop(conn);
    let refused = db.check_schema(Schema::of(Service::Event)).await.unwrap_err().to_string();
    assert!(refused.contains("the event schema is at version") && refused.contains("stampede prepare"), "{refused}");
}

#[tokio::test]
async fn a_newer_schema_is_refused_only_if_something_was_taken_away() {
    let db = World::new().unwrap().migrated_schema(Service::Event).await.unwrap();
    let newer = |ahead: i64, description: &'static str| {
        let db = &db;
        async move {
            let mut conn = db.acquire().await.unwrap();
            let insert = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                          VALUES (?, ?, TRUE, '', 0)";
            let version = Schema::of(Service::Event).version() + ahead;
            sqlx::query(insert).bind(version).bind(description).execute(&mut *conn).await.unwrap();
        }
    };
    newer(1, "add events note").await;
    newer(2, "contracting parties").await;
    db.check_schema(Schema::of(Service::Event)).await.unwrap();
    newer(3, "contract events name").await;
    let refused = db.check_schema(Schema::of(Service::Event)).await.unwrap_err().to_string();
    assert!(refused.contains("took away") && refused.contains("run a newer release"), "{refused}");
}
