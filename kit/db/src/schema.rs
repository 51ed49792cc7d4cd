//! The schemas: their migrations, how they are applied, and the check that a program fits its schema.

use crate::{Database, DbError};
use sqlx::{MySqlConnection, migrate::Migrator};
use stampede_vocab::Service;
use std::hash::{DefaultHasher, Hash, Hasher};

/// One service's schema, as it was when this program was built.
#[derive(Debug)]
pub struct Schema {
    /// The service.
    pub service: Service,
    migrator: Migrator,
}

/// Gives each service the schema of a folder of migrations. It does not compile if a service has no folder, or a folder
/// no service.
macro_rules! schemas {
    ($($service:ident from $folder:tt;)+) => {
        impl Schema {
            /// The schema of a service.
            pub fn of(service: Service) -> &'static Self {
                match service {
                    $(Service::$service => {
                        static SCHEMA: Schema =
                            Schema { service: Service::$service, migrator: sqlx::migrate!($folder) };
                        &SCHEMA
                    })+
                }
            }
        }
    };
}

// The schemas that the build script has found in `migrations/`.
include!(concat!(env!("OUT_DIR"), "/schemas.rs"));

impl Schema {
    /// The version that this program needs: the number of its last migration.
    pub fn version(&self) -> i64 {
        self.migrator.iter().map(|migration| migration.version).max().unwrap_or(0)
    }

    /// Tells one set of migrations from another. It is the same in every program that has the same ones, if one
    /// compiler has built them.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for migration in self.migrator.iter() {
            (migration.version, &migration.checksum).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Applies what has not been applied so far. Safe to run from several places at once. Fails if the schema has
    /// migrations that this program does not know.
    pub async fn migrate(&self, db: &Database) -> Result<(), DbError> {
        let failed = |why: String| DbError::Schema(format!("the {} schema cannot be migrated: {why}", self.service));
        // The lock is that of the connection, and ends with it.
        let mut conn = db.open_apart().await?;
        let locked: Option<i64> = sqlx::query_scalar(LOCK).fetch_one(&mut conn).await?;
        if locked != Some(1) {
            return Err(failed("somebody else has been at it for too long".to_owned()));
        }
        self.migrator.run_direct(None, &mut conn, false).await.map_err(|error| failed(error.to_string()))
    }
}

/// Waits until nobody else migrates the schema, for a minute at most. The library waits without an end, which MariaDB
/// refuses by a mere warning, and goes on.
const LOCK: &str = "SELECT CAST(GET_LOCK(CONCAT('migrate.', MD5(DATABASE())), 60) AS SIGNED)";

/// Whether somebody migrates the schema.
const IS_LOCKED: &str = "SELECT CAST(IS_USED_LOCK(CONCAT('migrate.', MD5(DATABASE()))) IS NOT NULL AS SIGNED)";

/// First word of the name of a migration after which older programs cannot run.
const CONTRACT: &str = "contract";

/// How far a schema is.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    /// The last migration that was applied; `None` if none ever was.
    version: Option<i64>,
    /// The last one that contracted the schema.
    contracted_by: Option<i64>,
}

impl Database {
    /// Refuses a schema that this program cannot run on: one that is behind the version it was built for, or one that a
    /// newer release has contracted. A newer schema that was merely expanded is fine, so that an old replica may be
    /// started again in the middle of a roll-out.
    pub async fn check_schema(&self, schema: &Schema) -> Result<(), DbError> {
        let found = self.run("check_schema", |mut conn| async move { applied(&mut conn).await }).await?;
        found.fits(schema.service, schema.version()).map_err(DbError::Schema)
    }

    /// Returns whether the schema was never prepared, or is being migrated now: then one that does not fit may soon.
    pub async fn awaits_migrations(&self) -> Result<bool, DbError> {
        self.run("read_migrations", |mut conn| async move { awaits_migrations(&mut conn).await }).await
    }
}

impl Found {
    fn fits(&self, service: Service, needed: i64) -> Result<(), String> {
        let mend = match (self.version, self.contracted_by) {
            (None, _) => format!(
                "the {service} schema was never prepared, but this program needs version {needed}: \
                 run `stampede prepare` of the same release"
            ),
            (Some(version), _) if version < needed => format!(
                "the {service} schema is at version {version}, but this program needs version {needed}: \
                 run `stampede prepare` of the same release"
            ),
            (Some(version), Some(contracted)) if contracted > needed => format!(
                "the {service} schema is at version {version}, and version {contracted} took away what this program \
                 needs, which was built for version {needed}: run a newer release of it"
            ),
            (Some(_), _) => return Ok(()),
        };
        Err(mend)
    }
}

async fn awaits_migrations(conn: &mut MySqlConnection) -> Result<bool, DbError> {
    let is_locked: i64 = sqlx::query_scalar(IS_LOCKED).fetch_one(&mut *conn).await?;
    Ok(is_locked == 1 || applied(conn).await?.version.is_none())
}

async fn applied(conn: &mut MySqlConnection) -> Result<Found, DbError> {
    let tables: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = '_sqlx_migrations'",
    )
    .fetch_one(&mut *conn)
    .await?;
    if tables == 0 {
        return Ok(Found { version: None, contracted_by: None });
    }
    let contracts = format!("{CONTRACT} %");
    let (version, contracted_by): (Option<i64>, Option<i64>) = sqlx::query_as(
        "SELECT MAX(version), MAX(CASE WHEN description LIKE ? THEN version END) FROM _sqlx_migrations WHERE success",
    )
    .bind(contracts)
    .fetch_one(conn)
    .await?;
    Ok(Found { version, contracted_by })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_runs_on_its_schema_and_on_a_newer_one_that_was_only_expanded() {
        let found = |version, contracted_by| Found { version, contracted_by }.fits(Service::Order, 5).is_ok();
        for (version, contracted_by, fits) in [
            (None, None, false),
            (Some(4), None, false),
            (Some(5), None, true),
            (Some(5), Some(5), true),
            (Some(8), Some(3), true),
            (Some(8), Some(6), false),
        ] {
            assert_eq!(found(version, contracted_by), fits, "{version:?}, contracted by {contracted_by:?}");
        }
    }

    /// What takes away what an earlier release may use: it reads a column, and forces a key.
    const TAKING: [&str; 6] = ["DROP COLUMN", "DROP TABLE", "RENAME", "DROP KEY", "DROP INDEX", "DROP FOREIGN KEY"];

    /// Files that drop a key of which no program that may run on the schema takes notice: a foreign key that only
    /// refused what nobody writes, a key that comes again with more columns, and keys that nobody names there.
    const UNNOTICED: [(Service, i64); 9] = [
        (Service::Coupon, 5),
        (Service::Event, 5),
        (Service::Inventory, 8),
        (Service::Inventory, 9),
        (Service::Inventory, 15),
        (Service::Order, 8),
        (Service::Order, 10),
        (Service::Payment, 6),
        (Service::Payment, 9),
    ];

    #[test]
    fn what_takes_something_away_says_so_in_its_name() {
        let mut unnoticed = Vec::new();
        for schema in Service::ALL.map(Schema::of) {
            for migration in schema.migrator.iter() {
                let sql = migration.sql.as_str().to_uppercase();
                let contracts = TAKING.iter().any(|taking| sql.contains(taking));
                let named = migration.description.starts_with(CONTRACT);
                if contracts && !named {
                    unnoticed.push((schema.service, migration.version));
                } else {
                    assert_eq!(contracts, named, "{} {}", schema.service, migration.version);
                }
            }
        }
        unnoticed.sort_by_key(|(service, version)| (service.name(), *version));
        assert_eq!(unnoticed, UNNOTICED);
    }
}
