//! Pages of a list: the request for one, and the answer.

use stampede_vocab::{InvalidField, PageSize, PageToken, Timestamp};
use uuid::Uuid;

/// The page that a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paging {
    list: String,
    size: PageSize,
    after: Option<PageToken>,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Token of the next page; empty on the last.
    pub next_page_token: String,
}

impl Paging {
    /// Parses `page_size` and `page_token` of a request. `list` names the list and its filter: a token is valid for no
    /// other list.
    pub fn parse(list: impl Into<String>, page_size: i32, page_token: &str) -> Result<Self, InvalidField> {
        let (list, size) = (list.into(), PageSize::parse(page_size)?);
        let after = PageToken::parse(&list, page_token)?;
        Ok(Self { list, size, after })
    }

    /// Returns the number of rows to read: one more than the page has, to know whether another page follows.
    pub fn limit(&self) -> u32 {
        self.size.get() + 1
    }

    /// Returns the sort value and id of the row that the page starts after; `None` for the first page.
    pub fn after(&self) -> Option<(i64, Uuid)> {
        self.after.as_ref().map(|token| (token.after, token.id))
    }

    /// Returns [`Paging::after`] for a list that is sorted by time.
    pub fn after_time(&self) -> Option<(Timestamp, Uuid)> {
        self.after().map(|(micros, id)| (Timestamp::from_micros(micros), id))
    }

    /// Returns the page of the rows that were read, at most [`Paging::limit`]. `position` returns the sort value and id
    /// of a row.
    pub fn cut<T>(self, mut rows: Vec<T>, position: impl Fn(&T) -> (i64, Uuid)) -> Page<T> {
        let size = self.size.get() as usize;
        let more = rows.len() > size;
        rows.truncate(size);
        let next = rows.last().filter(|_| more).map(|last| {
            let (after, id) = position(last);
            PageToken::new(self.list, after, id).to_string()
        });
        Page { rows, next_page_token: next.unwrap_or_default() }
    }

    /// Returns the page of rows that a filter selected from a scan. `last` is the last row that was scanned, selected
    /// or not; `None` once the scan has reached the end. The next page continues after it, so this one may be short or
    /// empty.
    pub fn cut_at<T>(self, rows: Vec<T>, last: Option<(i64, Uuid)>, position: impl Fn(&T) -> (i64, Uuid)) -> Page<T> {
        let list = self.list.clone();
        let mut page = self.cut(rows, position);
        if let Some((after, id)) = last.filter(|_| page.next_page_token.is_empty()) {
            page.next_page_token = PageToken::new(list, after, id).to_string();
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(row: &i64) -> (i64, Uuid) {
        (*row, Uuid::from_u128(row.unsigned_abs().into()))
    }

    #[test]
    fn a_page_leads_to_the_next_until_the_last() {
        let first = Paging::parse("orders", 2, "").unwrap();
        assert_eq!((first.limit(), first.after()), (3, None));
        let page = first.cut(vec![9, 8, 7], position);
        assert_eq!(page.rows, [9, 8]);
        let second = Paging::parse("orders", 2, &page.next_page_token).unwrap();
        assert_eq!(second.after(), Some(position(&8)));
        assert_eq!(second.cut(vec![7], position), Page { rows: vec![7], next_page_token: String::new() });
    }

    #[test]
    fn a_page_that_ends_before_its_list_leads_on_even_if_it_is_empty() {
        let of = |token: &str| Paging::parse("orders", 2, token).unwrap();
        let after = |page: &Page<i64>| of(&page.next_page_token).after();
        let last = Some(position(&4));
        assert_eq!(after(&of("").cut_at(vec![], last, position)), last);
        assert_eq!(after(&of("").cut_at(vec![9, 8], last, position)), last);
        assert_eq!(after(&of("").cut_at(vec![9, 8, 7], last, position)), Some(position(&8)));
        assert_eq!(after(&of("").cut_at(vec![9, 8], None, position)), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let token = Paging::parse("orders", 1, "").unwrap().cut(vec![2, 1], position).next_page_token;
        assert_eq!(Paging::parse("coupons", 1, &token).unwrap_err().field, "page_token");
        assert_eq!(Paging::parse("orders", -1, "").unwrap_err().field, "page_size");
    }
}
