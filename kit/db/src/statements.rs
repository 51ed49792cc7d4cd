//! Statements that go to the server together.
//!
//! A round trip costs more than what a small statement does: both sides wake up for each. Statements of which none
//! needs the answer of another go out as one text, and the server runs them in their order.

use crate::{DbError, Statement, ensure_rows};
use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, Either, FromRow, MySqlConnection, mysql::MySqlRow, raw_sql};

/// Statements under construction, sent in one round trip.
#[derive(Debug, Default)]
pub struct Statements {
    sql: String,
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
        if !self.expected.is_empty() {
            self.sql.push(';');
        }
        self.sql.push_str(statement.sql());
        self.expected.push(expected);
        Place(self.expected.len() - 1)
    }

    /// Sends all, unless there is none, and reads the answers. Fails with the error of the first that fails, after which
    /// the server runs no other; what the ones before it have changed goes with the transaction.
    pub async fn run(self, conn: &mut MySqlConnection) -> Result<Answers, DbError> {
        if self.expected.is_empty() {
            return Ok(Answers::default());
        }
        let answers = send(self.sql, conn).await?;
        checked(answers, &self.expected)
    }

    /// Begins a transaction and sends all in it, in one round trip. After an error the transaction may be open or not.
    pub(crate) async fn begin(&self, conn: &mut MySqlConnection) -> Result<Answers, DbError> {
        let separator = if self.expected.is_empty() { "" } else { ";" };
        let answers = send(["BEGIN", separator, &self.sql].concat(), conn).await?;
        let behind_begin = answers.into_iter().skip(1).collect();
        checked(behind_begin, &self.expected)
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
