//! Statements that go to the server together.
//!
//! A round trip costs more than what a small statement does: both sides wake up for each. Statements of which none
//! needs the answer of another go out as one text, and the server runs them in their order.

use crate::{DbError, Statement, ensure_rows};
use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, Either, FromRow, MySqlConnection, mysql::MySqlRow, raw_sql};

/// Most bytes of one text, unless a single statement has more. A server refuses what is longer than its
/// `max_allowed_packet`, which is 16 MiB in MariaDB, however often it is tried.
const TEXT_BYTES: usize = 4 << 20;

/// Statements under construction, sent in one round trip, unless they are more than a server takes at once.
#[derive(Debug, Default)]
pub struct Statements {
    /// One for each round trip.
    texts: Vec<String>,
    expected: Vec<Option<Expected>>,
}

/// How many rows a statement has to change.
#[derive(Debug)]
struct Expected {
    what: &'static str,
    rows: usize,
}

/// Where the answer to a statement is among the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(usize);

/// The answers of the server, one for each statement.
#[derive(Debug, Default)]
pub struct Answers(Vec<Answer>);

#[derive(Debug, Default)]
struct Answer {
    rows: Vec<MySqlRow>,
    changed: u64,
}

impl Statements {
    /// No statement.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a statement. Returns where its answer will be.
    pub fn push(&mut self, statement: Statement) -> Place {
        self.add(statement, None)
    }

    /// Adds a statement that has to change so many rows, or else all fail.
    pub fn push_expecting(&mut self, statement: Statement, what: &'static str, rows: usize) -> Place {
        self.add(statement, Some(Expected { what, rows }))
    }

    fn add(&mut self, statement: Statement, expected: Option<Expected>) -> Place {
        let sql = statement.sql();
        match self.texts.last_mut() {
            Some(text) if text.len() + sql.len() < TEXT_BYTES => {
                text.push(';');
                text.push_str(sql);
            }
            _ => self.texts.push(sql.to_owned()),
        }
        self.expected.push(expected);
        Place(self.expected.len() - 1)
    }

    /// Sends all, unless there is none, and reads the answers. Fails with the error of the first that fails, after
    /// which the server runs no other; what the ones before it have changed goes with the transaction.
    pub async fn run(self, conn: &mut MySqlConnection) -> Result<Answers, DbError> {
        let mut answers = Vec::with_capacity(self.expected.len());
        for text in self.texts {
            answers.extend(send(text, conn).await?);
        }
        checked(answers, &self.expected)
    }

    /// Begins a transaction and sends all in it, the BEGIN and the first text in one round trip. After an error the
    /// transaction may be open or not.
    pub(crate) async fn begin(&self, conn: &mut MySqlConnection) -> Result<Answers, DbError> {
        let mut texts = self.texts.iter();
        let first = match texts.next() {
            Some(text) => ["BEGIN;", text].concat(),
            None => "BEGIN".to_owned(),
        };
        let mut answers: Vec<Answer> = send(first, conn).await?.into_iter().skip(1).collect();
        for text in texts {
            answers.extend(send(text.clone(), conn).await?);
        }
        checked(answers, &self.expected)
    }
}

/// Sends statements and reads the answer to each.
async fn send(sql: String, conn: &mut MySqlConnection) -> Result<Vec<Answer>, DbError> {
    let mut answers = Vec::new();
    let mut answer = Answer::default();
    let mut parts = raw_sql(AssertSqlSafe(sql)).fetch_many(conn);
    while let Some(part) = parts.try_next().await? {
        match part {
            Either::Right(row) => answer.rows.push(row),
            Either::Left(done) => {
                answer.changed = done.rows_affected();
                answers.push(std::mem::take(&mut answer));
            }
        }
    }
    Ok(answers)
}

/// Fails unless there is an answer for each statement, and each has changed as many rows as it has to.
fn checked(answers: Vec<Answer>, expected: &[Option<Expected>]) -> Result<Answers, DbError> {
    if answers.len() != expected.len() {
        let (got, sent) = (answers.len(), expected.len());
        // Of the server or what is between: nothing that was written has caused it.
        return Err(sqlx::Error::Protocol(format!("{sent} statements got {got} answers")).into());
    }
    for (answer, expected) in answers.iter().zip(expected) {
        if let Some(Expected { what, rows }) = expected {
            ensure_rows(what, answer.changed, *rows)?;
        }
    }
    Ok(Answers(answers))
}

impl Answers {
    /// Reads the rows that a statement yielded; none for one that was not sent.
    pub fn rows<T>(&self, place: Option<Place>) -> Result<Vec<T>, DbError>
    where
        T: for<'r> FromRow<'r, MySqlRow>,
    {
        let Some(Place(place)) = place else { return Ok(Vec::new()) };
        Ok(self.0[place].rows.iter().map(T::from_row).collect::<Result<_, _>>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_bytes(bytes: usize) -> Statement {
        let mut select = Statement::new("SELECT ");
        select.push_bind("a".repeat(bytes));
        select
    }

    #[test]
    fn statements_go_out_together_up_to_what_a_server_takes() {
        let mut statements = Statements::new();
        statements.push(of_bytes(2));
        statements.push(of_bytes(3));
        assert_eq!(statements.texts, ["SELECT 'aa';SELECT 'aaa'"]);
        for _ in 0..4 {
            statements.push(of_bytes(TEXT_BYTES / 2 - 100));
        }
        // It is sent all the same, alone.
        statements.push(of_bytes(TEXT_BYTES));
        let place = statements.push(of_bytes(2));
        let lengths: Vec<usize> = statements.texts.iter().map(String::len).collect();
        assert_eq!(lengths.len(), 4, "{lengths:?}");
        assert!(lengths[..2].iter().all(|length| (TEXT_BYTES / 2..TEXT_BYTES).contains(length)), "{lengths:?}");
        assert_eq!((statements.texts[3].as_str(), place), ("SELECT 'aa'", Place(7)));
    }
}
