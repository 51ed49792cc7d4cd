//! Counts the statements of transactions that pass a proxy of a database.

/// The commands of the protocol that carry statements.
const QUERY: u8 = 0x03;
const EXECUTE: u8 = 0x17;
/// Length and sequence number of a packet, before its command.
const HEADER: usize = 4;
/// First words of a statement that writes.
const WRITING: [&[u8]; 3] = [b"INSERT", b"UPDATE", b"DELETE"];

/// The transaction on one connection, if there is one.
#[derive(Debug, Default)]
pub struct Spoken {
    is_open: bool,
    has_written: bool,
    statements: usize,
}

impl Spoken {
    /// Parses the next write of the client. If it commits a transaction with writes in text statements, returns the
    /// number of its statements, including BEGIN and COMMIT.
    ///
    /// A write above 64 KiB arrives in several reads, and may be counted wrongly.
    pub fn hear(&mut self, write: &[u8]) -> Option<usize> {
        match *write.get(HEADER)? {
            QUERY => statements(&write[HEADER + 1..]).into_iter().find_map(|statement| self.take(statement)),
            EXECUTE => {
                self.statements += 1;
                None
            }
            _ => None,
        }
    }

    fn take(&mut self, statement: &[u8]) -> Option<usize> {
        if statement.starts_with(b"BEGIN") {
            *self = Self { is_open: true, ..Self::default() };
        }
        self.statements += 1;
        self.has_written |= WRITING.iter().any(|verb| statement.starts_with(verb));
        if statement.starts_with(b"ROLLBACK") {
            *self = Self::default();
        }
        if !statement.starts_with(b"COMMIT") {
            return None;
        }
        let ended = std::mem::take(self);
        (ended.is_open && ended.has_written).then_some(ended.statements)
    }
}

/// Splits a text into statements. A semicolon between quotes ends none.
fn statements(text: &[u8]) -> Vec<&[u8]> {
    let (mut quote, mut is_escaped) = (None, false);
    let parts = text.split(|byte| {
        let ends = quote.is_none() && *byte == b';';
        match quote {
            _ if is_escaped => is_escaped = false,
            Some(_) if *byte == b'\\' => is_escaped = true,
            Some(open) if *byte == open => quote = None,
            Some(_) => {}
            None if matches!(byte, b'\'' | b'"' | b'`') => quote = Some(*byte),
            None => {}
        }
        ends
    });
    parts.map(<[u8]>::trim_ascii).filter(|statement| !statement.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Vec<u8> {
        [&[0, 0, 0, 0, QUERY][..], text.as_bytes()].concat()
    }

    #[test]
    fn the_statements_of_a_transaction_that_writes_are_counted_at_its_commit() {
        let mut spoken = Spoken::default();
        assert_eq!(spoken.hear(&query("BEGIN;SELECT 1")), None);
        assert_eq!(spoken.hear(&query(r"INSERT INTO t VALUES ('a;b\';c', 'it''s;'); UPDATE t SET a = 1;")), None);
        assert_eq!(spoken.hear(&[1, 0, 0, 0, EXECUTE]), None);
        assert_eq!(spoken.hear(&query("COMMIT")), Some(6));
    }

    #[test]
    fn reads_rollbacks_and_statements_without_a_transaction_do_not_count() {
        let mut spoken = Spoken::default();
        for texts in
            [["BEGIN;SELECT 1", "COMMIT"], ["BEGIN;INSERT INTO t VALUES (1)", "ROLLBACK"], ["DELETE FROM t", ""]]
        {
            for text in texts {
                assert_eq!(spoken.hear(&query(text)), None, "{text}");
            }
        }
        assert_eq!(spoken.hear(b"x"), None);
        assert_eq!(spoken.hear(&query("BEGIN;DELETE FROM t")), None);
        assert_eq!(spoken.hear(&query("COMMIT")), Some(3), "nothing of before is in it");
    }
}
