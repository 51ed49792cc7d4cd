//! Pages of the tables with rows for each order: one query covers some thousands of rows, so that none takes long or
//! needs much memory, however many orders there are.

use crate::audit::sources::Sources;
use anyhow::Context;
use sqlx::Row;

/// A table that is read in pages, by an id that leads one of its indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    Orders,
    Goods,
    Ledger,
    Payments,
    Attempts,
    Refunds,
    Coupons,
}

impl Table {
    pub const ALL: [Self; 7] =
        [Self::Orders, Self::Goods, Self::Ledger, Self::Payments, Self::Attempts, Self::Refunds, Self::Coupons];

    /// Returns its name, and the column of the id.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Orders => ("{order}.orders", "id"),
            Self::Goods => ("{order}.goods", "order_id"),
            Self::Ledger => ("{inventory}.ledger", "order_id"),
            Self::Payments => ("{payment}.payments", "id"),
            Self::Attempts => ("{payment}.attempts", "payment_id"),
            Self::Refunds => ("{payment}.refunds", "payment_id"),
            Self::Coupons => ("{coupon}.coupons", "id"),
        }
    }
}

/// An inclusive range of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    from: u128,
    to: u128,
}

impl Page {
    /// Starts at `from` and ends before `next`, or never without it. It has one id at least, so that the pages come to
    /// an end.
    fn new(from: u128, next: Option<u128>) -> Self {
        let to = next.map_or(u128::MAX, |next| next.saturating_sub(1).max(from));
        Self { from, to }
    }

    /// Returns the condition that a column meets on this page.
    pub fn condition(self) -> String {
        format!("BETWEEN UNHEX('{:032X}') AND UNHEX('{:032X}')", self.from, self.to)
    }

    /// Returns how much of the table has been read after this page, in percent: ids are spread evenly.
    pub fn percent(self) -> u128 {
        ((self.to >> 64) * 100) >> 64
    }
}

/// The pages of a table. Together they cover all possible ids, without gaps.
pub struct Pages<'s> {
    sources: &'s Sources,
    table: Table,
    rows: u32,
    next: Option<u128>,
}

impl<'s> Pages<'s> {
    /// Starts at the first id. A page has so many rows, and all rows of its last id.
    pub fn of(sources: &'s Sources, table: Table, rows: u32) -> Self {
        Self { sources, table, rows, next: Some(0) }
    }

    /// Returns the next page; `None` at the end.
    pub async fn next(&mut self) -> anyhow::Result<Option<Page>> {
        let Some(from) = self.next else { return Ok(None) };
        let (table, id) = self.table.names();
        let (rows, first) = (self.rows, from.to_be_bytes().to_vec());
        let behind = format!("SELECT {id} FROM {table} WHERE {id} >= ? ORDER BY {id} LIMIT 1 OFFSET {rows}");
        let behind = self.sources.rows_with(&behind, first).await?;
        let next = behind.first().map(|row| number(row.try_get(0)?)).transpose()?;
        let page = Page::new(from, next);
        self.next = page.to.checked_add(1);
        Ok(Some(page))
    }
}

fn number(id: &[u8]) -> anyhow::Result<u128> {
    let id = <[u8; 16]>::try_from(id).context("an id is not 16 bytes long")?;
    Ok(u128::from_be_bytes(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_leave_nothing_out_and_come_to_an_end() {
        assert_eq!(Page::new(0, None), Page { from: 0, to: u128::MAX });
        assert_eq!(Page::new(0, Some(17)), Page { from: 0, to: 16 });
        assert_eq!(Page::new(17, Some(17)), Page { from: 17, to: 17 }, "more rows with one id than a page has");
        assert_eq!(Page::new(0, Some(0)), Page { from: 0, to: 0 });
        assert_eq!(Page::new(u128::MAX, None).to.checked_add(1), None);
    }

    #[test]
    fn a_page_is_a_range_of_ids() {
        let page = Page::new(1, Some(0xAB));
        let (from, to) = ("00000000000000000000000000000001", "000000000000000000000000000000AA");
        assert_eq!(page.condition(), format!("BETWEEN UNHEX('{from}') AND UNHEX('{to}')"));
        assert_eq!((page.percent(), Page::new(0, Some(1 << 127)).percent(), Page::new(0, None).percent()), (0, 49, 99));
    }
}
