//! The five schemas: their migrations, how they are applied, and how a service tells that it may run.

use crate::{Database, DbError};
use sqlx::{MySqlConnection, migrate::Migrator};

/// One service's schema, as it was when this program was built.
#[derive(Debug)]
pub struct Schema {
    /// Name of the service, such as `order`.
    pub service: &'static str,
    migrator: Migrator,
}

/// Events and their items.
pub static EVENT: Schema = Schema { service: "event", migrator: sqlx::migrate!("../../migrations/event") };
/// Campaigns and coupons.
pub static COUPON: Schema = Schema { service: "coupon", migrator: sqlx::migrate!("../../migrations/coupon") };
/// Stock and the ledger.
pub static INVENTORY: Schema = Schema { service: "inventory", migrator: sqlx::migrate!("../../migrations/inventory") };
/// Orders and goods.
pub static ORDER: Schema = Schema { service: "order", migrator: sqlx::migrate!("../../migrations/order") };
/// Payments and their attempts.
pub static PAYMENT: Schema = Schema { service: "payment", migrator: sqlx::migrate!("../../migrations/payment") };

/// Every schema there is.
pub static ALL: [&Schema; 5] = [&EVENT, &COUPON, &INVENTORY, &ORDER, &PAYMENT];

impl Schema {
    /// The version that this program needs: the number of its last migration.
    pub fn version(&self) -> i64 {
        self.migrator.iter().map(|migration| migration.version).max().unwrap_or(0)
    }

    /// Applies what has not been applied so far. Safe to run from several places at once.
    pub async fn migrate(&self, db: &Database) -> Result<(), DbError> {
        let failed = |error| DbError::Schema(format!("the {} schema cannot be migrated: {error}", self.service));
        self.migrator.run(db.pool()).await.map_err(failed)
    }
}

impl Database {
    /// Refuses a schema that is not exactly the version this program was built for.
    pub async fn check_schema(&self, schema: &Schema) -> Result<(), DbError> {
        let mut connection = self.acquire().await?;
        let found = applied_version(&mut connection).await?;
        let needed = schema.version();
        if found == Some(needed) {
            return Ok(());
        }
        let found = found.map_or_else(|| "was never prepared".to_owned(), |version| format!("is at version {version}"));
        Err(DbError::Schema(format!(
            "the {} schema {found}, but this program needs version {needed}: run `stampede prepare` of the same release",
            schema.service
        )))
    }
}

async fn applied_version(connection: &mut MySqlConnection) -> Result<Option<i64>, DbError> {
    let tables: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = '_sqlx_migrations'",
    )
    .fetch_one(&mut *connection)
    .await?;
    if tables == 0 {
        return Ok(None);
    }
    Ok(sqlx::query_scalar("SELECT MAX(version) FROM _sqlx_migrations WHERE success").fetch_one(connection).await?)
}
