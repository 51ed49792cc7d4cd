//! MySQL (or MariaDB) as every service uses it: a pool, schema versions, and named, retried transactions.
//!
//! A unit of work runs on a task of its own ([`Database::transact`]): a caller that goes away does not cancel it, and
//! no connection returns to the pool in the middle of a transaction. What needs no transaction runs on a connection
//! that is checked out for it ([`Database::run`]). After success the pool reuses the connection without validation;
//! after cancelled work it drains the connection and rolls back first. Work in `run` and `transact` has a time-out,
//! after which it is cancelled; [`Database::acquire`] bounds only the wait for the connection. The server ends a
//! connection that is silent for some seconds, with its transaction and its locks: its process may be frozen.
//!
//! A batch that fails for a reason in its data is written again in halves, until the call at fault is alone
//! ([`Bisection`]). One that takes too long is written again in smaller parts ([`BatchLimit`]).
//!
//! ```no_run
//! use stampede_db::{Database, DbConfig, DbError, Statement};
//!
//! async fn forget(url: &str, ids: Vec<u64>) -> Result<u64, DbError> {
//!     let db = Database::connect(url, DbConfig::default()).await?;
//!     db.transact("forget", move |conn| {
//!         let mut delete = Statement::new("DELETE FROM notes WHERE id IN ");
//!         delete.push_list(&ids);
//!         Box::pin(async move { delete.execute(conn).await })
//!     })
//!     .await
//! }
//! ```

#![warn(missing_docs)]

mod batch_limit;
mod bisection;
mod clock;
mod conn;
mod database;
mod error;
mod kept_alive;
mod pool;
mod read_only;
mod schema;
mod statement;
mod statements;
mod transact;

pub use batch_limit::BatchLimit;
pub use bisection::Bisection;
pub use conn::Conn;
pub use database::{Database, DbConfig};
pub use error::{DbError, ensure_rows};
pub use schema::Schema;
pub use statement::{Literal, Separated, Statement};
pub use statements::{Answers, Place, Statements};
pub use transact::{Work, WorkError};
