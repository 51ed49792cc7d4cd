//! The plan of a decision: keys, and their letters without a decision.

use super::{
    filter::{Target, Wanted},
    id::{LetterId, by_name},
    letter::{COLUMNS, Row, Summary},
    schemas::Schemas,
    show,
};
use anyhow::ensure;
use serde::Serialize;
use stampede_db::Statement;
use stampede_vocab::{Service, Timestamp};

/// Most letters that are read for a plan.
const LETTERS: usize = 1_000;

/// A key of a topic, as one service reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Key {
    #[serde(serialize_with = "by_name")]
    pub consumer: Service,
    pub topic: String,
    /// Empty for a record that is no message.
    pub key: String,
}

/// A key with its letters that a decision is about.
#[derive(Debug, Clone)]
pub struct Chain {
    pub key: Key,
    /// In the order in which they will be applied.
    pub letters: Vec<Summary>,
}

/// The keys of a decision.
#[derive(Debug, Default)]
pub struct Plan {
    pub chains: Vec<Chain>,
    /// There are more keys or letters than these.
    pub has_more: bool,
}

impl Key {
    /// Returns the key of this letter.
    pub fn of(letter: &Summary) -> Self {
        Self { consumer: letter.consumer, topic: letter.topic.clone(), key: letter.key.clone() }
    }
}

impl Plan {
    /// Groups these letters by their keys.
    fn of(letters: Vec<Summary>, has_more: bool) -> Self {
        let mut chains: Vec<Chain> = Vec::new();
        for letter in letters {
            let key = Key::of(&letter);
            match chains.iter_mut().find(|chain| chain.key == key) {
                Some(chain) => chain.letters.push(letter),
                None => chains.push(Chain { key, letters: vec![letter] }),
            }
        }
        Self { chains, has_more }
    }
}

/// Reads the selected letters, at most so many: those without a decision, and a letter named by id also if its replay
/// is pending.
pub async fn letters(schemas: &Schemas, target: &Target, most: usize) -> anyhow::Result<Plan> {
    let now = Timestamp::now();
    let wanted = match target {
        Target::One(id) => {
            let letter = show::summary(schemas, *id, now).await?;
            let is_open = matches!(letter.state.as_str(), "WAITING" | "REPLAY");
            return Ok(Plan::of(if is_open { vec![letter] } else { Vec::new() }, false));
        }
        Target::All(wanted) => wanted,
    };
    let mut letters = Vec::new();
    for consumer in wanted.consumers() {
        let mut query = waiting();
        wanted.push(&mut query);
        query.push(" ORDER BY id LIMIT ").push_bind(most + 1 - letters.len());
        letters.extend(read(schemas, consumer, query, now).await?);
        if letters.len() > most {
            break;
        }
    }
    let has_more = letters.len() > most;
    letters.truncate(most);
    Ok(Plan::of(letters, has_more))
}

/// Reads the keys of the selected letters, at most so many, each with all its letters. Fails if the letter named by id
/// is no message.
pub async fn whole_keys(schemas: &Schemas, target: &Target, most: usize) -> anyhow::Result<Plan> {
    let (now, mut has_more, mut all) = (Timestamp::now(), false, Vec::new());
    let mut room = most;
    for (consumer, mut keys) in keys(schemas, target, most).await? {
        has_more |= keys.len() > room;
        keys.truncate(room);
        room -= keys.len();
        if keys.is_empty() {
            continue;
        }
        let mut query = waiting();
        query.push(" AND kind <> 'UNREADABLE' AND (topic, message_key) IN (");
        let mut list = query.separated(", ");
        for (topic, key) in &keys {
            list.push("(").push_bind_unseparated(topic).push_unseparated(", ");
            list.push_bind_unseparated(key).push_unseparated(")");
        }
        query.push(") ORDER BY id LIMIT ").push_bind(LETTERS + 1);
        let mut letters = read(schemas, consumer, query, now).await?;
        has_more |= letters.len() > LETTERS;
        letters.truncate(LETTERS);
        all.extend(letters);
    }
    Ok(Plan::of(all, has_more))
}

/// Topic and key.
type Name = (String, String);

/// Returns the keys of the selected letters, by consumer; of each consumer one more than `most` if there are.
async fn keys(schemas: &Schemas, target: &Target, most: usize) -> anyhow::Result<Vec<(Service, Vec<Name>)>> {
    match target {
        Target::One(id) => Ok(vec![(id.consumer, vec![key_of(schemas, *id).await?])]),
        Target::All(wanted) => {
            let mut keys = Vec::new();
            for consumer in wanted.consumers() {
                keys.push((consumer, keys_of(schemas, wanted, consumer, most).await?));
            }
            Ok(keys)
        }
    }
}

async fn key_of(schemas: &Schemas, id: LetterId) -> anyhow::Result<Name> {
    let letter = show::summary(schemas, id, Timestamp::now()).await?;
    ensure!(
        letter.is_message(),
        "{id} is no message, so it cannot be replayed: mend its sender, and `stampede messages discard {id}`"
    );
    Ok((letter.topic, letter.key))
}

async fn keys_of(schemas: &Schemas, wanted: &Wanted, consumer: Service, most: usize) -> anyhow::Result<Vec<Name>> {
    let mut query =
        Statement::new("SELECT topic, message_key FROM dead_letters WHERE state = 'WAITING' AND kind <> 'UNREADABLE'");
    wanted.push(&mut query);
    query.push(" GROUP BY topic, message_key ORDER BY MIN(id) LIMIT ").push_bind(most + 1);
    schemas.read(consumer, "dead letters", query).await
}

/// Returns a query for the letters of a consumer without a decision.
fn waiting() -> Statement {
    Statement::concat(["SELECT ", COLUMNS, " FROM dead_letters WHERE state = 'WAITING'"])
}

async fn read(schemas: &Schemas, consumer: Service, query: Statement, now: Timestamp) -> anyhow::Result<Vec<Summary>> {
    let rows: Vec<Row> = schemas.read(consumer, "dead letters", query).await?;
    Ok(rows.into_iter().map(|row| Summary::of(consumer, row, now)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::letter::tests::letter;

    #[test]
    fn letters_stay_in_their_order_within_their_key() {
        let letters = [(1, "ord_1"), (2, "ord_2"), (5, "ord_1"), (9, "ord_1")];
        let letters = letters.map(|(row, key)| letter(row, "PaymentRequested", key)).to_vec();
        let plan = Plan::of(letters, false);
        let chains: Vec<(&str, Vec<i64>)> = plan
            .chains
            .iter()
            .map(|chain| (chain.key.key.as_str(), chain.letters.iter().map(|letter| letter.id.row).collect()))
            .collect();
        assert_eq!(chains, [("ord_1", vec![1, 5, 9]), ("ord_2", vec![2])]);
    }
}
