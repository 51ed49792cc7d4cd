//! Checks by SQL alone: each query selects the breaches of a promise. The rows that each query reads are counted too,
//! which shows how much was compared.
//!
//! A check reads a large table in pages ([`table`]), unless it compares rows of many orders with each other by an
//! index.
//!
//! A query on states lists the allowed ones, so that an unknown state is always found.

mod coupons;
mod events;
mod figures;
mod ledger;
mod money;
mod orders;
mod table;

use super::{
    named::Named,
    sources::Sources,
    verdict::{Audit, Number},
};
use crate::output::Output;
use std::time::{Duration, Instant};
use table::{Page, Pages, Table};

pub use events::punctuality;

/// Time between two lines of progress.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// A rule, with a query for its breaches.
struct Check {
    promise: Number,
    what: &'static str,
    /// The table that it is run for page by page; `None` if one statement covers all.
    over: Option<Table>,
    /// Selects (kind, id, detail) of each breach. `{page}` stands for the condition that the id of the table is on the
    /// page, `{lines}` for the lines of its orders, `{lines_of_payments}` for those of its payments' orders, `{void}`
    /// for [`VOID`], `{given_up}` for [`GIVEN_UP`], and `{payment_root}` and `{payment_id}` for the derivation of a
    /// payment's id.
    sql: &'static str,
}

/// Condition: the ledger row `l` is void. Its units were released because its order was never written, so the order may
/// be placed anew, with other items.
const VOID: &str = "(l.state = 'RELEASED' AND l.granted_at_us IS NULL AND l.request_fingerprint IS NOT NULL)";

/// Condition: an operator has declined the attempt that the refund `r` is of. The provider may have captured it all the
/// same; then the money is refunded.
const GIVEN_UP: &str = "EXISTS (SELECT 1 FROM {payment}.anomalies n WHERE n.payment_id = r.payment_id \
     AND n.attempt = r.attempt AND n.subject = 'CHARGE' AND n.state = 'SETTLED' AND n.verdict = 'DECLINED')";

/// The prefix that is hashed before the id of an order for the id of its payment, as in `PaymentId::derive`: the
/// namespace of derived ids, the kind, and the length of the id. Payments have no index by order.
const PAYMENT_ROOT: &str = "x'5A3D4F109C1E4B7A8F4E2D617C0B93E57061790000000000000010'";
/// The id that is derived from the SHA-1 hash `h` (UUID version 5).
const PAYMENT_ID: &str = "UNHEX(CONCAT(LEFT(h, 12), '5', SUBSTRING(h, 14, 3), \
     SUBSTRING('89ab89ab89ab89ab', CONV(SUBSTRING(h, 17, 1), 16, 10) + 1, 1), SUBSTRING(h, 18, 15)))";

/// The rows of the view `all_order_lines` for the orders of a page. The view itself would materialize the lines of all
/// orders.
const LINES: &str = "(SELECT order_id, item_id, units, unit_price_minor, gift_units FROM {order}.order_lines \
     WHERE order_id {page} UNION ALL SELECT w.id, UNHEX(j.item), j.units, j.price, j.gifts FROM {order}.orders w, {packed} \
     WHERE w.id {page})";
/// The same for the orders of the payments of a page.
const LINES_OF_PAYMENTS: &str = "(SELECT r.order_id, r.item_id, r.units, r.unit_price_minor, r.gift_units \
     FROM {payment}.payments q STRAIGHT_JOIN {order}.order_lines r ON r.order_id = q.order_id \
     WHERE q.id {page} UNION ALL SELECT w.id, UNHEX(j.item), j.units, j.price, j.gifts \
     FROM {payment}.payments q STRAIGHT_JOIN {order}.orders w ON w.id = q.order_id, {packed} WHERE q.id {page})";
/// The lines of an order that is one row.
const PACKED: &str = "JSON_TABLE(CASE WHEN JSON_VALID(w.line_list) THEN w.line_list END, '$[*]' COLUMNS (\
     item CHAR(32) PATH '$.item', units INT PATH '$.units', price BIGINT PATH '$.price', gifts INT PATH '$.gifts')) AS j";

impl Check {
    /// Returns the statement that covers a page, or all.
    fn statement(&self, page: Option<Page>) -> String {
        let sql = self.sql.replace("{void}", VOID).replace("{given_up}", GIVEN_UP).replace("{lines}", LINES);
        let sql = sql.replace("{lines_of_payments}", LINES_OF_PAYMENTS).replace("{packed}", PACKED);
        let sql = sql.replace("{payment_root}", PAYMENT_ROOT).replace("{payment_id}", PAYMENT_ID);
        page.map_or_else(|| sql.clone(), |page| sql.replace("{page}", &page.condition()))
    }
}

/// A check and its breaches so far.
type Checked = (&'static Check, Named);

/// Runs all queries and records the breaches. A page has `page_rows` rows.
pub async fn run(sources: &Sources, page_rows: u32, output: Output, audit: &mut Audit) -> anyhow::Result<()> {
    figures::note(sources, audit).await?;
    let all = [ledger::CHECKS, coupons::CHECKS, money::CHECKS, orders::CHECKS, events::CHECKS];
    let mut all: Vec<Checked> = all.into_iter().flatten().map(|check| (check, Named::default())).collect();
    run_over(sources, &mut all, (None, None)).await?;
    let mut progress = Progress { output, last_report: Instant::now() };
    for table in Table::ALL {
        let mut pages = Pages::of(sources, table, page_rows);
        // All checks of a page before the next one, while the buffer pool has its rows.
        while let Some(page) = pages.next().await? {
            run_over(sources, &mut all, (Some(table), Some(page))).await?;
            progress.show(table, page);
        }
    }
    for (check, found) in all {
        audit.breach(check.promise, check.what, found);
    }
    Ok(())
}

/// Runs the checks of a page of this table, or those without pages.
async fn run_over(
    sources: &Sources,
    all: &mut [Checked],
    (table, page): (Option<Table>, Option<Page>),
) -> anyhow::Result<()> {
    for (check, found) in all.iter_mut().filter(|(check, _)| check.over == table) {
        sources.find(&check.statement(page), found).await?;
    }
    Ok(())
}

/// Reports the progress of the pages at an interval.
struct Progress {
    output: Output,
    last_report: Instant,
}

impl Progress {
    fn show(&mut self, table: Table, page: Page) {
        if self.output.json || self.last_report.elapsed() < REPORT_INTERVAL {
            return;
        }
        self.last_report = Instant::now();
        eprintln!("comparing {}: {} %", format!("{table:?}").to_lowercase(), page.percent());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that a check over a table has a page: without, its statement would read all rows for each page; with a
    /// page and no table, it would be refused.
    #[test]
    fn a_check_over_a_table_has_a_page_and_no_other_has() {
        let all = [ledger::CHECKS, coupons::CHECKS, money::CHECKS, orders::CHECKS, events::CHECKS];
        for check in all.into_iter().flatten() {
            let has_page = check.statement(None).contains("{page}");
            assert_eq!(check.over.is_some(), has_page, "{}: {}", check.what, check.sql);
            assert!(!check.sql.contains("all_order_lines"), "{} lays out the lines of all orders", check.what);
        }
    }
}
