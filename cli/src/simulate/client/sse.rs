//! Parses server-sent events as the gateway writes them: one line of JSON an event, of type `problem` for the last one
//! of a failed stream. Other types are the gateway's own, such as the time.

use bytes::BytesMut;

/// Buffers an incomplete event.
#[derive(Default)]
pub struct Events {
    buffer: BytesMut,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Event {
    /// Whether it is the failure that ended the stream.
    pub is_error: bool,
    /// Its JSON.
    pub data: Vec<u8>,
}

impl Events {
    /// Appends bytes that have arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next whole event. Skips comments, and events of the gateway itself.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            let end = self.buffer.windows(2).position(|two| two == b"\n\n")?;
            let block = self.buffer.split_to(end + 2);
            let event = Event::read(&block);
            if event.is_some() {
                return event;
            }
        }
    }
}

impl Event {
    fn read(block: &[u8]) -> Option<Self> {
        let mut event = Self { is_error: false, data: Vec::new() };
        for line in block.split(|byte| *byte == b'\n') {
            match line {
                b"event: problem" => event.is_error = true,
                _ if line.starts_with(b"event: ") => return None,
                _ => event.data.extend_from_slice(line.strip_prefix(b"data: ").unwrap_or_default()),
            }
        }
        (!event.data.is_empty()).then_some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_however_they_are_cut() {
        let text = b":\n\nretry: 5\nevent: time\ndata: {}\n\n\
            id: x\ndata: {\"a\":1}\n\nevent: problem\ndata: {\"b\":2}\n\ndata: {";
        for cut in 0..text.len() {
            let mut events = Events::default();
            let mut read = Vec::new();
            for part in [&text[..cut], &text[cut..]] {
                events.push(part);
                read.extend(std::iter::from_fn(|| events.next_event()));
            }
            let read: Vec<_> = read.iter().map(|event| (event.is_error, event.data.as_slice())).collect();
            assert_eq!(read, [(false, b"{\"a\":1}".as_slice()), (true, b"{\"b\":2}")], "cut at {cut}");
        }
    }
}
