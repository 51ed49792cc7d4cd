//! Records a decision on dead letters, with its author and reason. A letter is decided on once, and again only after a
//! replay that has failed or was not carried out yet.

use super::{
    decisions,
    id::LetterId,
    plan::{Chain, Key},
    schemas::Schemas,
};
use anyhow::Context;
use serde::Serialize;
use sqlx::MySqlConnection;
use stampede_db::{DbError, Statement, ensure_rows};
use stampede_vocab::{Service, Timestamp, refuse_text_with_card_number};
use std::sync::Arc;

/// Longest author, the size of its column, and longest reason.
const MAX_CHARS: (usize, usize) = (128, 2_000);

/// How a decision is made.
#[derive(Debug, Clone, clap::Args)]
pub struct Act {
    /// Do it; without this the command only says what it would do
    #[arg(long, requires = "why")]
    pub yes: bool,

    /// Why, for the record; needed with --yes
    #[arg(long, value_name = "TEXT", value_parser = parse_why)]
    why: Option<String>,

    /// Who decides, for the record; needed with --yes
    #[arg(long, env = "USER", value_name = "NAME")]
    by: Option<String>,

    /// Return once the decision is written down, and do not wait until the service has carried it out
    #[arg(long)]
    pub no_wait: bool,

    /// Longest wait for that, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub deadline_s: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Replays all open letters of the key.
    Replay,
    /// Skips these letters for good, with their repeats.
    Discard,
}

impl Verdict {
    /// Returns its name in `letter_decisions`.
    pub fn act(self) -> &'static str {
        match self {
            Self::Replay => "REPLAY",
            Self::Discard => "DISCARD",
        }
    }
}

/// Author and reason of a decision.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    pub by: String,
    pub why: String,
}

/// A key, and its letters that were decided on; none if another operator was faster.
#[derive(Debug, Clone)]
pub struct Decided {
    pub key: Key,
    pub letters: Vec<LetterId>,
}

fn parse_why(text: &str) -> Result<String, String> {
    let text = text.trim();
    let chars = text.chars().count();
    if (1..=MAX_CHARS.1).contains(&chars) {
        Ok(text.to_owned())
    } else {
        Err(format!("say why in 1 to {} characters, this has {chars}", MAX_CHARS.1))
    }
}

impl Act {
    /// Returns the author and the reason with `--yes`, and fails without one of them; `None` for a dry run.
    pub fn decision(&self) -> anyhow::Result<Option<Arc<Record>>> {
        self.yes.then(|| self.record().map(Arc::new)).transpose()
    }

    fn record(&self) -> anyhow::Result<Record> {
        let why = self.why.clone().context("--why is needed with --yes: say why, for the record")?;
        let by = self.by.as_deref().map(str::trim).filter(|by| (1..=MAX_CHARS.0).contains(&by.chars().count()));
        let by = by.with_context(|| {
            format!("--by is needed with --yes: say who decides, in 1 to {} characters, for the record", MAX_CHARS.0)
        })?;
        // Both are stored for good.
        refuse_text_with_card_number("--by", by)?;
        refuse_text_with_card_number("--why", &why)?;
        Ok(Record { by: by.to_owned(), why })
    }
}

/// Decides on the letters of one key in one transaction. Returns those without an earlier decision.
pub async fn decide(
    schemas: &Schemas,
    chain: &Chain,
    verdict: Verdict,
    record: &Arc<Record>,
) -> anyhow::Result<Decided> {
    let key = chain.key.clone();
    let decision = Arc::new(Decision {
        topic: key.topic.clone(),
        key: key.key.clone(),
        only: (verdict == Verdict::Discard).then(|| chain.letters.iter().map(|letter| letter.id.row).collect()),
        verdict,
        takes_back: verdict == Verdict::Discard && chain.letters.iter().any(|letter| letter.state == "REPLAY"),
        record: record.clone(),
        at_us: Timestamp::now().micros(),
    });
    let decided = schemas.of(key.consumer).await?.transact("decide_on_letters", move |conn| {
        let decision = decision.clone();
        Box::pin(async move { decision.write(conn).await })
    });
    let rows: Vec<i64> = decided
        .await
        .with_context(|| format!("no decision was written for {} of {}", name_of(&key.key), key.consumer))?;
    let letters = rows.into_iter().map(|row| LetterId { consumer: key.consumer, row }).collect();
    Ok(Decided { key, letters })
}

/// Returns the key for people.
pub fn name_of(key: &str) -> &str {
    if key.is_empty() { "what has no key" } else { key }
}

/// The parameters of the transaction.
struct Decision {
    topic: String,
    key: String,
    /// Rows to decide on; `None` for all of the key.
    only: Option<Vec<i64>>,
    verdict: Verdict,
    /// Whether letters that wait for their replay are included.
    takes_back: bool,
    record: Arc<Record>,
    at_us: i64,
}

impl Decision {
    /// Writes the decision. Locks the park of the key first, as the consumer and its replay do: letters that are
    /// written or replayed meanwhile are committed before the decision, or see it.
    async fn write(&self, conn: &mut MySqlConnection) -> Result<Vec<i64>, DbError> {
        sqlx::query("SELECT from_offset FROM inbox_parked WHERE topic = ? AND message_key = ? FOR UPDATE")
            .bind(&self.topic)
            .bind(&self.key)
            .fetch_optional(&mut *conn)
            .await?;
        let ids: Vec<(i64,)> = self.undecided().fetch_all(&mut *conn).await?;
        let ids: Vec<i64> = ids.into_iter().map(|(id,)| id).collect();
        if !ids.is_empty() {
            decisions::record_earlier(&ids).execute(&mut *conn).await?;
            let changed = self.update(&ids).execute(&mut *conn).await?;
            ensure_rows("a decision on dead letters", changed, ids.len())?;
            let recorded = decisions::record(&ids, self.verdict).execute(conn).await?;
            ensure_rows("the record of a decision on dead letters", recorded, ids.len())?;
        }
        Ok(ids)
    }

    /// Locks the letters without a decision. Includes repeats of the messages, which would have the same effect.
    fn undecided(&self) -> Statement {
        let mut select = Statement::new("SELECT id FROM dead_letters WHERE topic = ");
        select.push_bind(&self.topic).push(" AND message_key = ").push_bind(&self.key);
        select.push(" AND state IN ").push(self.states());
        match &self.only {
            Some(only) => {
                select.push(" AND (id IN ").push_list(only);
                select.push(" OR (kind <> 'UNREADABLE' AND (source, message_id) IN (SELECT source, message_id FROM ");
                select.push("dead_letters WHERE kind <> 'UNREADABLE' AND id IN ").push_list(only).push(")))");
            }
            None => {
                select.push(" AND kind <> 'UNREADABLE'");
            }
        }
        select.push(" ORDER BY id FOR UPDATE");
        select
    }

    /// Returns the states that the decision applies to.
    fn states(&self) -> &'static str {
        if self.takes_back { "('WAITING', 'REPLAY')" } else { "('WAITING')" }
    }

    fn update(&self, ids: &[i64]) -> Statement {
        let state = match self.verdict {
            Verdict::Replay => "REPLAY",
            Verdict::Discard => "DISCARDED",
        };
        let mut update = Statement::new("UPDATE dead_letters SET state = ");
        update.push_bind(state).push(", decided_by = ").push_bind(&self.record.by);
        update.push(", decided_why = ").push_bind(&self.record.why);
        update.push(", decided_us = ").push_bind(self.at_us).push(" WHERE state IN ").push(self.states());
        update.push(" AND id IN ").push_list(ids);
        update
    }
}

/// Groups the letters that were decided on by consumer.
pub fn by_consumer(decided: &[Decided]) -> Vec<(Service, Vec<&Decided>)> {
    let mut consumers: Vec<(Service, Vec<&Decided>)> = Vec::new();
    for one in decided.iter().filter(|one| !one.letters.is_empty()) {
        match consumers.iter_mut().find(|(consumer, _)| *consumer == one.key.consumer) {
            Some((_, keys)) => keys.push(one),
            None => consumers.push((one.key.consumer, vec![one])),
        }
    }
    consumers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn act(by: Option<&str>, why: Option<&str>) -> Act {
        let (by, why) = (by.map(str::to_owned), why.map(str::to_owned));
        Act { yes: true, why, by, no_wait: false, deadline_s: 1 }
    }

    fn decision(only: Option<Vec<i64>>, verdict: Verdict, takes_back: bool) -> Decision {
        Decision {
            topic: "t".to_owned(),
            key: "k".to_owned(),
            only,
            verdict,
            takes_back,
            record: Arc::new(Record { by: "ann".to_owned(), why: "it's mended".to_owned() }),
            at_us: 1,
        }
    }

    #[test]
    fn who_and_why_have_to_be_said() {
        let record = act(Some(" ann "), Some("mended")).record().unwrap();
        assert_eq!((record.by.as_str(), record.why.as_str()), ("ann", "mended"));
        for (by, why, flag) in [(Some("ann"), None, "--why"), (None, Some("x"), "--by"), (Some(" "), Some("x"), "--by")]
        {
            let refused = act(by, why).record().unwrap_err().to_string();
            assert!(refused.contains(flag), "{flag}: {refused}");
        }
        assert!(act(Some(&"x".repeat(129)), Some("x")).record().is_err(), "longer than its column");
        let refused =
            act(Some("ann"), Some("given back to 4242 4242 4242 4242 12/27")).record().unwrap_err().to_string();
        assert!(refused.contains("--why") && !refused.contains("4242"), "{refused}");
        assert_eq!(parse_why(" mended "), Ok("mended".to_owned()));
        assert!(parse_why("  ").is_err() && parse_why(&"x".repeat(2_001)).is_err());
    }

    #[test]
    fn only_what_nobody_has_decided_on_is_changed() {
        let replay = decision(None, Verdict::Replay, false);
        assert_eq!(
            replay.undecided().sql(),
            "SELECT id FROM dead_letters WHERE topic = 't' AND message_key = 'k' AND state IN ('WAITING') \
             AND kind <> 'UNREADABLE' ORDER BY id FOR UPDATE"
        );
        let discard = decision(Some(vec![3, 4]), Verdict::Discard, false);
        assert_eq!(
            discard.undecided().sql(),
            "SELECT id FROM dead_letters WHERE topic = 't' AND message_key = 'k' AND state IN ('WAITING') \
             AND (id IN (3, 4) OR (kind <> 'UNREADABLE' AND (source, message_id) IN (SELECT source, message_id FROM \
             dead_letters WHERE kind <> 'UNREADABLE' AND id IN (3, 4)))) ORDER BY id FOR UPDATE"
        );
        assert_eq!(
            discard.update(&[4]).sql(),
            "UPDATE dead_letters SET state = 'DISCARDED', decided_by = 'ann', \
             decided_why = _utf8mb4 x'69742773206D656E646564', decided_us = 1 WHERE state IN ('WAITING') AND id IN (4)"
        );
        let back = decision(Some(vec![3]), Verdict::Discard, true);
        for statement in [back.undecided(), back.update(&[3])] {
            let sql = statement.sql();
            assert!(sql.contains(" state IN ('WAITING', 'REPLAY') AND "), "{sql}");
        }
    }
}
