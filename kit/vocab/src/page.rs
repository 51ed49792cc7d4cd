//! Page sizes and page tokens of lists.

use crate::{InvalidField, base64url};
use std::fmt;
use uuid::Uuid;

/// Rows of one page, 1 to [`PageSize::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageSize(u32);

impl PageSize {
    /// Largest page.
    pub const MAX: u32 = 100;

    /// Takes 0 as 50, and caps larger sizes (AIP-158): clients follow the token, not the size. Fails for a negative
    /// size, and names the field `page_size`.
    pub fn parse(size: i32) -> Result<Self, InvalidField> {
        match u32::try_from(size) {
            Ok(0) => Ok(Self(50)),
            Ok(size) => Ok(Self(size.min(Self::MAX))),
            Err(_) => Err(InvalidField::new("page_size", "must not be negative; 0 is 50")),
        }
    }

    /// Returns the number of rows.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// A page token: the next page starts after the row with this sort value and id.
///
/// Its text is opaque and does not reveal whose list it is of. It has a checksum over the list, so that a token of
/// another list is refused. The checksum is no signature: a list has only rows that its caller may see, wherever it
/// starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageToken {
    list: String,
    /// Sort value of the last row seen, such as its creation in microseconds.
    pub after: i64,
    /// Id of the last row seen, which settles ties.
    pub id: Uuid,
}

/// Version of the encoding, its first byte.
const VERSION: u8 = 1;
/// Bytes of a token: the version, the checksum, the sort value and the id. A multiple of three, as [`base64url`] needs.
const LEN: usize = 1 + 8 + 8 + 16;

impl PageToken {
    /// Makes the token of the page after this row. `list` names the list and its filter.
    pub fn new(list: impl Into<String>, after: i64, id: Uuid) -> Self {
        Self { list: list.into(), after, id }
    }

    /// Parses a token of `list`; the empty text is the first page. The error names the field `page_token`.
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
        // Checked first, so that a long text is not decoded.
        if token.len() != LEN / 3 * 4 {
            return None;
        }
        let bytes = base64url::decode(token)?;
        let (_, rest) = bytes.split_first_chunk::<9>()?;
        let (after, id) = rest.split_first_chunk::<8>()?;
        let read = Self::new(list, i64::from_be_bytes(*after), Uuid::from_slice(id).ok()?);
        (read.bytes() == *bytes).then_some(read)
    }

    fn bytes(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[0] = VERSION;
        bytes[9..17].copy_from_slice(&self.after.to_be_bytes());
        bytes[17..].copy_from_slice(self.id.as_bytes());
        let checked = [&bytes[9..], self.list.as_bytes()].concat();
        bytes[1..9].copy_from_slice(&fnv1a(&checked).to_be_bytes());
        bytes
    }
}

/// Computes the 64-bit FNV-1a checksum.
fn fnv1a(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

impl fmt::Display for PageToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base64url::encode(&self.bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{
        prelude::{any, prop_assert, prop_assert_eq, proptest},
        sample::Index,
    };

    #[test]
    fn sizes_are_bounded() {
        for (asked, rows) in [(0, 50), (1, 1), (100, 100), (101, 100), (i32::MAX, 100)] {
            assert_eq!(PageSize::parse(asked).unwrap().get(), rows, "{asked}");
        }
        assert_eq!(PageSize::parse(-1).unwrap_err().field, "page_size");
    }

    #[test]
    fn a_token_reads_back_in_its_own_list_only() {
        let token = PageToken::new("orders", -7, Uuid::from_u128(9));
        assert_eq!(PageToken::parse("orders", &token.to_string()), Ok(Some(token.clone())));
        assert_eq!(PageToken::parse("orders", ""), Ok(None));
        assert_eq!(PageToken::parse("coupons", &token.to_string()).unwrap_err().field, "page_token");
    }

    #[test]
    fn what_was_never_issued_is_refused() {
        let legible = "orders.1767225600000000.00000000000000000000000009";
        let foreign_form = base64url::encode(&[2; LEN]);
        for token in ["x", legible, &"A".repeat(44), &foreign_form, &"ä".repeat(22)] {
            assert_eq!(PageToken::parse("orders", token).unwrap_err().field, "page_token", "{token}");
        }
    }

    #[test]
    fn whose_list_it_is_cannot_be_read_from_a_token() {
        let user = "01j9qz7w3k5v8x2m4n6p8r0s2t";
        let text = PageToken::new(format!("orders:usr_{user}"), 1, Uuid::from_u128(9)).to_string();
        let bytes = base64url::decode(&text).unwrap();
        let holds = |part: &str| text.contains(part) || bytes.windows(part.len()).any(|at| at == part.as_bytes());
        assert!(!holds("orders") && !holds(user) && !holds("usr"), "{text}");
    }

    proptest! {
        #[test]
        fn every_token_reads_back(list in "[a-z_/=.]{1,20}", after: i64, id: u128) {
            let token = PageToken::new(list.clone(), after, Uuid::from_u128(id));
            prop_assert_eq!(PageToken::parse(&list, &token.to_string()), Ok(Some(token)));
        }

        #[test]
        fn a_damaged_token_is_refused_by_its_field(
            after: i64,
            id: u128,
            place in any::<Index>(),
            with in "[.a-zA-Z0-9_-]{0,2}",
        ) {
            let whole = PageToken::new("orders", after, Uuid::from_u128(id)).to_string();
            let mut text = whole.clone();
            let place = place.index(text.len());
            text.replace_range(place..=place, &with);
            match PageToken::parse("orders", &text) {
                Ok(_) => prop_assert!(text == whole, "{text} is taken"),
                Err(error) => prop_assert_eq!(error.field, "page_token"),
            }
        }
    }
}
