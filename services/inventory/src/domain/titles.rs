//! Titles of items and their gifts. Nothing depends on them: orders show them.

use stampede_vocab::{InvalidField, limits::MAX_NAME_CHARS};

/// The titles of an item, as its event has published them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Titles {
    /// Title of the item; empty if it is not known.
    pub item: String,
    /// Title of its gift; empty if there is none, or it is not known.
    pub gift: String,
}

impl Titles {
    /// Returns the titles. Fails if one is too long; the error names the field.
    pub fn new(item: String, gift: String) -> Result<Self, InvalidField> {
        for (field, title) in [("title", &item), ("gift_title", &gift)] {
            if title.chars().count() > MAX_NAME_CHARS {
                return Err(InvalidField::new(field, format!("must be at most {MAX_NAME_CHARS} characters")));
            }
        }
        Ok(Self { item, gift })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_as_long_as_an_event_may_have_it() {
        let long = |chars| "ä".repeat(chars);
        assert!(Titles::new(long(MAX_NAME_CHARS), long(MAX_NAME_CHARS)).is_ok());
        let field = |item, gift| Titles::new(long(item), long(gift)).unwrap_err().field;
        assert_eq!(field(MAX_NAME_CHARS + 1, 0), "title");
        assert_eq!(field(0, MAX_NAME_CHARS + 1), "gift_title");
    }
}
