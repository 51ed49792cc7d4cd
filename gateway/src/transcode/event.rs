//! One server-sent event, in the form in which it is sent.
//!
//! Written here and not by axum: the event of a crowd is written once, and its bytes are shared by all streams.

use bytes::Bytes;
use std::{fmt::Write, time::Duration};

/// The fields of an event before its data.
pub struct Event {
    fields: String,
}

impl Event {
    /// Begins a message: it has no type.
    pub fn message() -> Self {
        Self { fields: String::new() }
    }

    /// Begins an event of a type.
    pub fn named(name: &'static str) -> Self {
        Self { fields: format!("event: {name}\n") }
    }

    /// Names it. `id` has neither line breaks nor zero characters.
    #[must_use]
    pub fn id(self, id: &str) -> Self {
        self.field("id", id)
    }

    /// Sets the delay after which a reader reconnects, to the millisecond.
    #[must_use]
    pub fn retry(self, delay: Duration) -> Self {
        self.field("retry", delay.as_millis())
    }

    fn field(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        writeln!(self.fields, "{name}: {value}").expect("a string takes all that is written");
        self
    }

    /// Ends it with its data, whose lines become lines of the event.
    pub fn into_bytes(self, data: &str) -> Bytes {
        let mut text = self.fields;
        text.reserve(data.len() + 16);
        for line in data.split(['\r', '\n']) {
            text.push_str("data: ");
            text.push_str(line);
            text.push('\n');
        }
        text.push('\n');
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_written_as_browsers_read_it() {
        let message = Event::message().id("0a").into_bytes(r#"{"a":1}"#);
        assert_eq!(message, "id: 0a\ndata: {\"a\":1}\n\n");
        let drain = Event::named("drain").retry(Duration::from_millis(1_500)).into_bytes("{}");
        assert_eq!(drain, "event: drain\nretry: 1500\ndata: {}\n\n");
    }

    #[test]
    fn no_line_break_of_the_data_ends_an_event() {
        assert_eq!(Event::message().into_bytes("a\n\nevent: end\rb"), "data: a\ndata: \ndata: event: end\ndata: b\n\n");
    }
}
