//! The table `letter_decisions`: every decision on a dead letter, with its author and reason. The row of the letter has
//! the last one alone.

use super::{decide::Verdict, id::LetterId, schemas::Schemas, text::time};
use serde::Serialize;
use sqlx::FromRow;
use stampede_db::Statement;

#[derive(Debug, FromRow)]
struct Row {
    act: String,
    decided_by: String,
    decided_why: String,
    decided_us: i64,
}

/// A decision that was made.
#[derive(Debug, Serialize)]
pub struct PastDecision {
    /// REPLAY or DISCARD.
    pub act: String,
    pub by: String,
    pub why: String,
    pub time: String,
}

impl From<Row> for PastDecision {
    fn from(row: Row) -> Self {
        Self { act: row.act, by: row.decided_by, why: row.decided_why, time: time(row.decided_us) }
    }
}

/// Returns the decisions on a letter, the oldest first.
pub async fn read(schemas: &Schemas, id: LetterId) -> anyhow::Result<Vec<PastDecision>> {
    let mut query = Statement::new("SELECT act, decided_by, decided_why, decided_us FROM letter_decisions ");
    query.push("WHERE letter_id = ").push_bind(id.row).push(" ORDER BY id");
    let rows: Vec<Row> = schemas.read(id.consumer, "decisions on dead letters", query).await?;
    Ok(rows.into_iter().map(PastDecision::from).collect())
}

/// Returns the statement that records the decision which the rows of these letters have now.
pub fn record(letters: &[i64], verdict: Verdict) -> Statement {
    copy(letters, verdict.act())
}

/// Returns the statement that records the decision which the rows of these letters had so far, where the release before
/// has written it to the row alone. Only after a replay may a letter be decided on again.
pub fn record_earlier(letters: &[i64]) -> Statement {
    let mut insert = copy(letters, Verdict::Replay.act());
    insert.push(" AND l.decided_us IS NOT NULL AND NOT EXISTS (SELECT 1 FROM letter_decisions d ");
    insert.push("WHERE d.letter_id = l.id AND d.decided_us = l.decided_us)");
    insert
}

/// Copies what the rows have, so that no statement repeats the reason for each letter.
fn copy(letters: &[i64], act: &str) -> Statement {
    let mut insert = Statement::new("INSERT INTO letter_decisions ");
    insert.push("(letter_id, act, decided_by, decided_why, decided_us) SELECT l.id, ").push_bind(act);
    insert.push(", l.decided_by, l.decided_why, l.decided_us FROM dead_letters l WHERE l.id IN ").push_list(letters);
    insert
}

#[cfg(test)]
mod tests {
    use super::*;

    const COPY: &str =
        "INSERT INTO letter_decisions (letter_id, act, decided_by, decided_why, decided_us) SELECT l.id, ";
    const FROM: &str = ", l.decided_by, l.decided_why, l.decided_us FROM dead_letters l WHERE l.id IN (3, 4)";

    #[test]
    fn each_letter_gets_a_row_for_each_decision() {
        for (verdict, act) in [(Verdict::Replay, "'REPLAY'"), (Verdict::Discard, "'DISCARD'")] {
            assert_eq!(record(&[3, 4], verdict).sql(), format!("{COPY}{act}{FROM}"));
        }
    }

    #[test]
    fn what_the_release_before_has_decided_is_recorded_once() {
        assert_eq!(
            record_earlier(&[3, 4]).sql(),
            format!(
                "{COPY}'REPLAY'{FROM} AND l.decided_us IS NOT NULL AND NOT EXISTS (SELECT 1 FROM letter_decisions d \
                 WHERE d.letter_id = l.id AND d.decided_us = l.decided_us)"
            )
        );
    }
}
