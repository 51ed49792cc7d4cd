//! The parked keys of a batch of dead letters, locked and with the states of their letters, in one round trip.

use crate::letter::{Kind, Letter};
use sqlx::MySqlConnection;
use stampede_db::{DbError, Statement, Statements};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The letters of a parked key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain {
    has_waiting: bool,
    has_replay: bool,
    /// Whether its first letter is a row. Earlier releases wrote it to Kafka only.
    has_first: bool,
}

impl Chain {
    /// Returns this chain, or a new one, with another letter at its end.
    pub fn with(chain: Option<Self>, is_replayed: bool) -> Self {
        let before = chain.unwrap_or(Self { has_waiting: false, has_replay: false, has_first: true });
        Self {
            has_waiting: before.has_waiting || !is_replayed,
            has_replay: before.has_replay || is_replayed,
            has_first: before.has_first,
        }
    }

    /// Whether all of its open letters are to be replayed.
    pub fn is_being_replayed(self) -> bool {
        self.has_replay && !self.has_waiting
    }

    /// Whether none of its letters is open.
    pub fn is_settled(self) -> bool {
        self.has_first && !self.has_waiting && !self.has_replay
    }
}

/// The parked keys among those of some letters.
#[derive(Debug, Default)]
pub struct Chains(HashMap<(String, String), Chain>);

impl Chains {
    /// Reads and locks them: they stay parked until the end of the transaction.
    pub async fn lock(conn: &mut MySqlConnection, letters: &[Letter]) -> Result<Self, DbError> {
        let mut keys: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for letter in letters.iter().filter(|letter| letter.kind != Kind::Unreadable) {
            keys.entry(&letter.topic).or_default().insert(&letter.key);
        }
        if keys.is_empty() {
            return Ok(Self::default());
        }
        let mut statements = Statements::new();
        let mut lock = Statement::new("SELECT p.topic, p.message_key FROM inbox_parked p WHERE ");
        push_keys(&mut lock, &keys);
        lock.push(" FOR UPDATE");
        statements.push(lock);
        // A statement of its own, for a snapshot after the lock: the lock may have waited for a replay.
        let mut states = Statement::new(
            "SELECT p.topic, p.message_key, \
             EXISTS (SELECT 1 FROM dead_letters d WHERE d.state = 'WAITING' AND d.topic = p.topic \
                     AND d.message_key = p.message_key AND d.kind <> 'UNREADABLE'), \
             EXISTS (SELECT 1 FROM dead_letters d WHERE d.state = 'REPLAY' AND d.topic = p.topic \
                     AND d.message_key = p.message_key AND d.kind <> 'UNREADABLE'), \
             EXISTS (SELECT 1 FROM dead_letters d WHERE d.topic = p.topic AND d.message_key = p.message_key \
                     AND d.record_offset = p.from_offset) \
             FROM inbox_parked p WHERE ",
        );
        push_keys(&mut states, &keys);
        let states = statements.push(states);
        let rows: Vec<(String, String, i64, i64, i64)> = statements.run(conn).await?.rows(Some(states))?;
        let chain = |(topic, key, waiting, replay, first): (String, String, i64, i64, i64)| {
            ((topic, key), Chain { has_waiting: waiting != 0, has_replay: replay != 0, has_first: first != 0 })
        };
        Ok(Self(rows.into_iter().map(chain).collect()))
    }

    /// Returns the chain of the letter's key; `None` if the key is not parked.
    pub fn of(&self, letter: &Letter) -> Option<Chain> {
        self.0.get(&name(letter)).copied()
    }

    /// Sets the chain of the letter's key; `None` if it is not parked any more.
    pub fn set(&mut self, letter: &Letter, chain: Option<Chain>) {
        match chain {
            Some(chain) => self.0.insert(name(letter), chain),
            None => self.0.remove(&name(letter)),
        };
    }
}

fn name(letter: &Letter) -> (String, String) {
    (letter.topic.clone(), letter.key.clone())
}

fn push_keys(select: &mut Statement, keys: &BTreeMap<&str, BTreeSet<&str>>) {
    let mut any = select.separated(" OR ");
    for (topic, keys) in keys {
        any.push("(p.topic = ").push_bind_unseparated(topic).push_unseparated(" AND p.message_key IN ");
        any.push_list_unseparated(keys).push_unseparated(")");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_replayed_if_nothing_waits_and_settled_if_nothing_is_open() {
        let chain = |has_waiting, has_replay, has_first| Chain { has_waiting, has_replay, has_first };
        for (chain, is_being_replayed, is_settled) in [
            (chain(false, false, true), false, true),
            (chain(false, false, false), false, false),
            (chain(true, false, true), false, false),
            (chain(false, true, true), true, false),
            (chain(true, true, true), false, false),
        ] {
            assert_eq!((chain.is_being_replayed(), chain.is_settled()), (is_being_replayed, is_settled), "{chain:?}");
        }
        let first = Chain::with(None, false);
        assert_eq!(first, chain(true, false, true));
        assert_eq!(Chain::with(Some(chain(false, true, false)), true), chain(false, true, false));
    }
}
