//! Streams that end after a last value.

use futures_util::{Stream, StreamExt, stream};

/// Ends a stream after the first value that `is_last` marks as the last.
pub fn until_last<T, S>(values: S, is_last: impl Fn(&T) -> bool + Copy) -> impl Stream<Item = T>
where
    S: Stream<Item = T> + Unpin,
{
    stream::unfold(Some(values), move |values| async move {
        let mut values = values?;
        let value = values.next().await?;
        let rest = (!is_last(&value)).then_some(values);
        Some((value, rest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_value_ends_the_stream() {
        let values: Vec<i32> = until_last(stream::iter([1, 2, 3, 4]), |value| *value == 3).collect().await;
        assert_eq!(values, [1, 2, 3]);
    }
}
