//! Waits until the services have carried decisions out, and reports the result of each key.

use super::{
    decide::{Act, Decided, by_consumer},
    id::LetterId,
    plan::Key,
    schemas::Schemas,
};
use crate::output::Output;
use rand::random_range;
use serde::Serialize;
use sqlx::FromRow;
use stampede_db::Statement;
use stampede_vocab::Service;
use std::{collections::HashMap, time::Duration};
use tokio::time::{Instant, sleep};

/// Time between two polls, less a random part of up to half.
const POLL_INTERVAL: Duration = Duration::from_millis(400);
/// Time between two lines of progress.
const REPORT_INTERVAL: Duration = Duration::from_secs(2);

/// The result of a decision on a key.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Outcome {
    /// Letters that took effect.
    pub replayed: usize,
    /// Letters that were skipped.
    pub discarded: usize,
    /// Letters that the service has not handled yet.
    pub pending: usize,
    /// Letters that need another decision: one that failed again, and those after it.
    pub waiting: usize,
    /// The letters that failed, and the errors.
    pub failed: Vec<Failed>,
    /// Whether later messages of the key still become dead letters.
    pub parked: bool,
    /// Open letters of the key, including later ones.
    pub open: usize,
}

/// A letter that could not be applied again.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Failed {
    pub id: LetterId,
    pub error: String,
}

#[derive(Debug, FromRow)]
struct LetterRow {
    id: i64,
    state: String,
    last_error: Option<String>,
}

#[derive(Debug, FromRow)]
struct ParkRow {
    topic: String,
    message_key: String,
    open_letters: i64,
}

impl Outcome {
    /// Returns whether nothing more will happen by itself: the letters are done with or wait, and the key is not parked
    /// any more unless a letter of it still waits.
    fn is_final(&self) -> bool {
        self.pending == 0 && (!self.parked || self.open > 0)
    }

    /// Returns whether the decision was carried out.
    pub fn is_good(&self) -> bool {
        self.is_final() && self.waiting == 0
    }

    fn take(&mut self, id: LetterId, row: &LetterRow) {
        match row.state.as_str() {
            "REPLAYED" => self.replayed += 1,
            "DISCARDED" => self.discarded += 1,
            "REPLAY" => self.pending += 1,
            _ => {
                self.waiting += 1;
                self.failed.extend(row.last_error.clone().map(|error| Failed { id, error }));
            }
        }
    }
}

/// Waits until each key has come to an end, or the deadline. Returns the result of each, in the order of `decided`.
pub async fn wait(schemas: &Schemas, decided: &[Decided], act: &Act, output: Output) -> anyhow::Result<Vec<Outcome>> {
    let until = Instant::now() + Duration::from_secs(act.deadline_s);
    let mut last_report = Instant::now();
    loop {
        let outcomes = outcomes(schemas, decided).await?;
        if outcomes.iter().all(Outcome::is_final) || act.no_wait || Instant::now() >= until {
            return Ok(outcomes);
        }
        if last_report.elapsed() > REPORT_INTERVAL && !output.json {
            last_report = Instant::now();
            eprintln!("{}", progress(&outcomes));
        }
        sleep(POLL_INTERVAL.mul_f64(random_range(0.5..1.0))).await;
    }
}

fn progress(outcomes: &[Outcome]) -> String {
    let pending: usize = outcomes.iter().map(|outcome| outcome.pending).sum();
    let done: usize = outcomes.iter().map(|outcome| outcome.replayed + outcome.discarded).sum();
    let parked = outcomes.iter().filter(|outcome| outcome.parked).count();
    format!("{done} letters are done with, {pending} are to be replayed, {parked} keys are still parked")
}

async fn outcomes(schemas: &Schemas, decided: &[Decided]) -> anyhow::Result<Vec<Outcome>> {
    let (mut letters, mut parks) = (HashMap::new(), HashMap::new());
    for (consumer, keys) in by_consumer(decided) {
        letters.extend(states(schemas, consumer, &keys).await?);
        parks.extend(parks_of(schemas, consumer, &keys).await?);
    }
    Ok(decided.iter().map(|decided| outcome(decided, &letters, &parks)).collect())
}

fn outcome(decided: &Decided, letters: &HashMap<LetterId, LetterRow>, parks: &Parks) -> Outcome {
    let mut outcome = Outcome::default();
    for id in &decided.letters {
        if let Some(row) = letters.get(id) {
            outcome.take(*id, row);
        }
    }
    if let Some(open) = parks.get(&name(&decided.key)) {
        (outcome.parked, outcome.open) = (true, *open);
    }
    outcome
}

/// The number of open letters of each parked key.
type Parks = HashMap<(Service, String, String), usize>;

fn name(key: &Key) -> (Service, String, String) {
    (key.consumer, key.topic.clone(), key.key.clone())
}

async fn states(schemas: &Schemas, consumer: Service, keys: &[&Decided]) -> anyhow::Result<Vec<(LetterId, LetterRow)>> {
    let ids: Vec<i64> = keys.iter().flat_map(|decided| &decided.letters).map(|id| id.row).collect();
    let mut query = Statement::new("SELECT id, state, last_error FROM dead_letters WHERE id IN ");
    query.push_list(ids);
    let rows: Vec<LetterRow> = schemas.read(consumer, "dead letters", query).await?;
    Ok(rows.into_iter().map(|row| (LetterId { consumer, row: row.id }, row)).collect())
}

async fn parks_of(schemas: &Schemas, consumer: Service, keys: &[&Decided]) -> anyhow::Result<Parks> {
    let mut query = Statement::new(
        "SELECT p.topic, p.message_key, (SELECT COUNT(*) FROM dead_letters d WHERE d.topic = p.topic \
         AND d.message_key = p.message_key AND d.kind <> 'UNREADABLE' AND d.state IN ('WAITING', 'REPLAY')) \
         AS open_letters FROM inbox_parked p WHERE (p.topic, p.message_key) IN (",
    );
    let mut list = query.separated(", ");
    for Decided { key, .. } in keys {
        list.push("(").push_bind_unseparated(&key.topic).push_unseparated(", ");
        list.push_bind_unseparated(&key.key).push_unseparated(")");
    }
    query.push(")");
    let rows: Vec<ParkRow> = schemas.read(consumer, "parked keys", query).await?;
    let open = |row: ParkRow| {
        let open = usize::try_from(row.open_letters).unwrap_or(0);
        ((consumer, row.topic, row.message_key), open)
    };
    Ok(rows.into_iter().map(open).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: LetterId = LetterId { consumer: Service::Order, row: 1 };

    fn taken(state: &str, last_error: Option<&str>) -> Outcome {
        let row = LetterRow { id: 1, state: state.to_owned(), last_error: last_error.map(str::to_owned) };
        let mut outcome = Outcome::default();
        outcome.take(ID, &row);
        outcome
    }

    #[test]
    fn a_replay_ends_well_or_with_why_it_failed() {
        assert!(taken("REPLAYED", None).is_good() && taken("DISCARDED", None).is_good());
        let pending = taken("REPLAY", Some("the last time"));
        assert!(!pending.is_final() && !pending.is_good() && pending.failed.is_empty());
        let failed = taken("WAITING", Some("no such item"));
        assert!(failed.is_final() && !failed.is_good());
        assert_eq!(failed.failed, [Failed { id: ID, error: "no such item".to_owned() }]);
    }

    #[test]
    fn a_key_is_waited_for_until_it_is_let_go_or_more_of_it_waits() {
        let parked = Outcome { discarded: 1, parked: true, ..Outcome::default() };
        assert!(!parked.is_final());
        assert!(Outcome { open: 1, ..parked }.is_good());
    }
}
