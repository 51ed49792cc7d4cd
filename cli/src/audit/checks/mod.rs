//! The checks that SQL alone can make: each query yields the breaches of a promise. The rows that each query reads are
//! counted too, so that the reader sees how much was compared.
//!
//! A query on states lists the allowed ones, so that an unknown state is always found.

mod coupons;
mod events;
mod figures;
mod ledger;
mod money;
mod orders;

use super::{
    sources::{Found, Sources},
    verdict::{Audit, Number},
};

pub use events::punctuality;

/// Something that must not be found.
struct Check {
    promise: Number,
    what: &'static str,
    /// Yields (kind, id, detail) of each breach. `{void}` stands for [`VOID`].
    sql: &'static str,
}

/// Whether the ledger row `l` is void: its units went back because its order was never written, so the order may be
/// placed anew, for something else.
const VOID: &str = "(l.state = 'RELEASED' AND l.granted_at_us IS NULL AND l.request_fingerprint IS NOT NULL)";

/// Runs every query and notes what it found.
pub async fn run(sources: &Sources, audit: &mut Audit) -> anyhow::Result<()> {
    figures::note(sources, audit).await?;
    let checks = [ledger::CHECKS, coupons::CHECKS, money::CHECKS, orders::CHECKS, events::CHECKS];
    for check in checks.into_iter().flatten() {
        let found = sources.find(&check.sql.replace("{void}", VOID)).await?;
        audit.breach(check.promise, check.what, found.iter().map(Found::name).collect());
    }
    Ok(())
}
