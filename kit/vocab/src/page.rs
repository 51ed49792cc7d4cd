//! Pages of a list: how many, and where the next one starts.

use crate::{InvalidField, base32};
use std::fmt;
use uuid::Uuid;

/// Rows of one page, 1 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageSize(u32);

impl PageSize {
    /// Takes 1 to 100, and 0 as 50; the error names the field `page_size`.
    pub fn parse(size: i32) -> Result<Self, InvalidField> {
        match size {
            0 => Ok(Self(50)),
            1..=100 => Ok(Self(size.unsigned_abs())),
            _ => Err(InvalidField::new("page_size", "must be 1 to 100, or 0 for 50")),
        }
    }

    /// The rows.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// The start of the next page of a list: after the row with this sort value and id.
///
/// Its text names the list that it is of, so a token is never taken for one of another list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageToken {
    list: String,
    /// Sort value of the last row seen, such as its creation in microseconds.
    pub after: i64,
    /// Id of the last row seen, which settles ties.
    pub id: Uuid,
}

impl PageToken {
    /// The token of the page after this row. `list` names the list and its filter and has no `.`.
    pub fn new(list: impl Into<String>, after: i64, id: Uuid) -> Self {
        Self { list: list.into(), after, id }
    }

    /// Reads a token of `list`; the empty text is the first page. The error names the field `page_token`.
    pub fn parse(list: &str, token: &str) -> Result<Option<Self>, InvalidField> {
        if token.is_empty() {
            return Ok(None);
        }
        Self::read(list, token).map(Some).ok_or_else(|| {
            InvalidField::new(
                "page_token",
                "must be the next_page_token of the same list and filter, or empty for its first page",
            )
        })
    }

    fn read(list: &str, token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let (name, after, id) = (parts.next()?, parts.next()?, parts.next()?);
        if name != list || parts.next().is_some() {
            return None;
        }
        Some(Self::new(list, after.parse().ok()?, Uuid::from_u128(base32::decode(id)?)))
    }
}

impl fmt::Display for PageToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = base32::encode(self.id.as_u128());
        let id = std::str::from_utf8(&id).expect("base32 is ASCII");
        write!(f, "{}.{}.{id}", self.list, self.after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{
        prelude::{any, prop_assert_eq, proptest},
        sample::Index,
    };

    #[test]
    fn sizes_are_bounded() {
        assert_eq!(PageSize::parse(0).unwrap().get(), 50);
        assert_eq!(PageSize::parse(100).unwrap().get(), 100);
        assert!(PageSize::parse(101).is_err());
        assert!(PageSize::parse(-1).is_err());
    }

    #[test]
    fn a_token_reads_back_in_its_own_list_only() {
        let token = PageToken::new("orders", -7, Uuid::from_u128(9));
        assert_eq!(PageToken::parse("orders", &token.to_string()), Ok(Some(token.clone())));
        assert_eq!(PageToken::parse("orders", ""), Ok(None));
        assert_eq!(PageToken::parse("coupons", &token.to_string()).unwrap_err().field, "page_token");
        assert!(PageToken::parse("orders", "orders.x.y").is_err());
    }

    proptest! {
        #[test]
        fn every_token_reads_back(list in "[a-z_/=]{1,20}", after: i64, id: u128) {
            let token = PageToken::new(list.clone(), after, Uuid::from_u128(id));
            prop_assert_eq!(PageToken::parse(&list, &token.to_string()), Ok(Some(token)));
        }

        #[test]
        fn a_damaged_token_is_another_token_or_refused_by_its_field(
            after: i64,
            id: u128,
            place in any::<Index>(),
            with in "[.a-z0-9-]{0,2}",
        ) {
            let mut text = PageToken::new("orders", after, Uuid::from_u128(id)).to_string();
            let place = place.index(text.len());
            text.replace_range(place..=place, &with);
            match PageToken::parse("orders", &text) {
                Ok(token) => {
                    let token = token.expect("it is not empty");
                    prop_assert_eq!(PageToken::parse("orders", &token.to_string()), Ok(Some(token)));
                }
                Err(error) => prop_assert_eq!(error.field, "page_token"),
            }
        }
    }
}
