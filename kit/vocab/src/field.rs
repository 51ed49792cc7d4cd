//! Parses the fields of a request. Each error names the field as the caller wrote it.

use crate::{InvalidField, ParseIdError};
use std::{ops::RangeInclusive, str::FromStr};

/// Returns the id in `field`.
pub fn id<T: FromStr<Err = ParseIdError>>(field: &str, text: &str) -> Result<T, InvalidField> {
    text.parse().map_err(|error: ParseIdError| InvalidField::new(field, error.to_string()))
}

/// Returns the id in `field`, or `None` if the field is empty.
pub fn optional_id<T: FromStr<Err = ParseIdError>>(field: &str, text: &str) -> Result<Option<T>, InvalidField> {
    if text.is_empty() { Ok(None) } else { id(field, text).map(Some) }
}

/// Reads each value of the repeated `field`; the error names its index.
pub fn each<T, U>(
    field: &str,
    values: impl IntoIterator<Item = T>,
    read: impl Fn(T) -> Result<U, InvalidField>,
) -> Result<Vec<U>, InvalidField> {
    let read = |(index, value)| read(value).map_err(|error| error.within(&format!("{field}[{index}]")));
    values.into_iter().enumerate().map(read).collect()
}

/// Returns the ids in the repeated `field`.
pub fn ids<T: FromStr<Err = ParseIdError>>(field: &str, texts: &[String]) -> Result<Vec<T>, InvalidField> {
    texts.iter().enumerate().map(|(index, text)| id(&format!("{field}[{index}]"), text)).collect()
}

/// Fails unless the repeated `field` has an allowed number of values.
pub fn ensure_count(field: &str, count: usize, allowed: RangeInclusive<usize>) -> Result<(), InvalidField> {
    if allowed.contains(&count) {
        return Ok(());
    }
    let (least, most) = allowed.into_inner();
    Err(InvalidField::new(field, format!("must be {least} to {most}, but are {count}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OrderId;

    const ORDER: &str = "ord_0000000000000000000000001a";

    fn fault<T: std::fmt::Debug>(read: Result<T, InvalidField>) -> String {
        read.unwrap_err().field
    }

    #[test]
    fn an_error_names_the_field_as_the_caller_wrote_it() {
        assert_eq!(fault(id::<OrderId>("order_id", "")), "order_id");
        assert_eq!(fault(optional_id::<OrderId>("order_id", "ord_")), "order_id");
        assert_eq!(fault(ids::<OrderId>("order_ids", &[ORDER.into(), "x".into()])), "order_ids[1]");
        assert_eq!(fault(each("lines", ["x"], |text| id::<OrderId>("order_id", text))), "lines[0].order_id");
        assert_eq!(fault(ensure_count("lines", 0, 1..=20)), "lines");
    }

    #[test]
    fn what_is_allowed_is_returned() {
        assert_eq!(optional_id::<OrderId>("order_id", ""), Ok(None));
        assert_eq!(id::<OrderId>("order_id", ORDER).map(|id| id.to_string()).as_deref(), Ok(ORDER));
        assert_eq!(ensure_count("lines", 20, 1..=20), Ok(()));
    }
}
