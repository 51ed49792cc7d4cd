//! Statements over many rows, written out as text with every value in place.
//!
//! A prepared statement of many rows is a new one for each number of rows: two round trips instead of one, parsed
//! twice, and thousands of placeholders kept on both sides. Text is parsed once and forgotten. SQL can only be text of
//! the program, by its type. A value can't break out of its place: it is a number, or the hexadecimal digits of its
//! bytes, or made of characters without a meaning.
//!
//! A statement whose shape never changes is better prepared, by `sqlx::query`.

use crate::DbError;
use sqlx::{AssertSqlSafe, FromRow, MySqlConnection, mysql::MySqlRow, raw_sql};
use std::fmt::Write;
use uuid::Uuid;

/// A statement under construction.
#[derive(Debug, Clone)]
pub struct Statement {
    sql: String,
}

/// A value that can be written into a statement.
pub trait Literal {
    /// Appends the value as MySQL and MariaDB read it.
    fn write(&self, sql: &mut String);
}

/// Appends parts to a statement with a separator between them.
#[derive(Debug)]
pub struct Separated<'s> {
    statement: &'s mut Statement,
    separator: &'static str,
    first: bool,
}

impl Statement {
    /// A statement that begins with `sql`.
    pub fn new(sql: &'static str) -> Self {
        Self { sql: sql.to_owned() }
    }

    /// A statement that begins with these parts.
    pub fn concat<const N: usize>(parts: [&'static str; N]) -> Self {
        Self { sql: parts.concat() }
    }

    /// Appends SQL, which is always part of the program: values go through [`Statement::push_bind`].
    pub fn push(&mut self, sql: &'static str) -> &mut Self {
        self.sql.push_str(sql);
        self
    }

    /// Appends a value.
    pub fn push_bind(&mut self, value: impl Literal) -> &mut Self {
        value.write(&mut self.sql);
        self
    }

    /// Appends parts with `separator` between them.
    pub fn separated(&mut self, separator: &'static str) -> Separated<'_> {
        Separated { statement: self, separator, first: true }
    }

    /// Appends `VALUES (...), (...)` with a row for each item, of which there must be at least one.
    pub fn push_values<I: IntoIterator>(&mut self, items: I, mut row: impl FnMut(Separated<'_>, I::Item)) -> &mut Self {
        let mut before = "VALUES (";
        for item in items {
            self.push(before);
            row(self.separated(", "), item);
            self.push(")");
            before = ", (";
        }
        self
    }

    /// Appends `(..., ...)`, a list of these values, of which there must be at least one.
    pub fn push_list<T: Literal>(&mut self, values: impl IntoIterator<Item = T>) -> &mut Self {
        self.push("(");
        let mut list = self.separated(", ");
        for value in values {
            list.push_bind(value);
        }
        self.push(")")
    }

    /// Its text so far.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// Runs it, which leaves it empty, and returns how many rows it changed.
    pub async fn execute(&mut self, conn: &mut MySqlConnection) -> Result<u64, DbError> {
        let sql = AssertSqlSafe(std::mem::take(&mut self.sql));
        Ok(raw_sql(sql).execute(conn).await?.rows_affected())
    }

    /// Runs it, which leaves it empty, and reads the rows that it yields.
    pub async fn fetch_all<T>(&mut self, conn: &mut MySqlConnection) -> Result<Vec<T>, DbError>
    where
        T: for<'r> FromRow<'r, MySqlRow>,
    {
        Ok(self.fetch_rows(conn).await?.iter().map(T::from_row).collect::<Result<_, _>>()?)
    }

    /// [`Statement::fetch_all`] for rows that are read by hand.
    pub async fn fetch_rows(&mut self, conn: &mut MySqlConnection) -> Result<Vec<MySqlRow>, DbError> {
        let sql = AssertSqlSafe(std::mem::take(&mut self.sql));
        Ok(raw_sql(sql).fetch_all(conn).await?)
    }
}

impl Separated<'_> {
    /// Appends SQL as the next part.
    pub fn push(&mut self, sql: &'static str) -> &mut Self {
        self.separate();
        self.push_unseparated(sql)
    }

    /// Appends a value as the next part.
    pub fn push_bind(&mut self, value: impl Literal) -> &mut Self {
        self.separate();
        self.push_bind_unseparated(value)
    }

    /// Appends SQL to the current part.
    pub fn push_unseparated(&mut self, sql: &'static str) -> &mut Self {
        self.statement.push(sql);
        self
    }

    /// Appends a value to the current part.
    pub fn push_bind_unseparated(&mut self, value: impl Literal) -> &mut Self {
        self.statement.push_bind(value);
        self
    }

    /// Appends a list of values to the current part.
    pub fn push_list_unseparated<T: Literal>(&mut self, values: impl IntoIterator<Item = T>) -> &mut Self {
        self.statement.push_list(values);
        self
    }

    fn separate(&mut self) {
        if !std::mem::replace(&mut self.first, false) {
            self.statement.push(self.separator);
        }
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Literal for $number {
            fn write(&self, sql: &mut String) {
                write!(sql, "{self}").expect("a string takes all that is written to it");
            }
        }
    )*};
}

numbers!(u8, u16, u32, u64, usize, i16, i32, i64);

impl Literal for [u8] {
    fn write(&self, sql: &mut String) {
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        sql.reserve(self.len() * 2 + 3);
        sql.push_str("x'");
        for byte in self {
            sql.push(DIGITS[usize::from(byte >> 4)].into());
            sql.push(DIGITS[usize::from(byte & 15)].into());
        }
        sql.push('\'');
    }
}

impl Literal for str {
    fn write(&self, sql: &mut String) {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-:./".contains(&byte);
        if self.bytes().all(plain) {
            sql.push('\'');
            sql.push_str(self);
            sql.push('\'');
        } else {
            sql.push_str("_utf8mb4 ");
            self.as_bytes().write(sql);
        }
    }
}

impl Literal for Uuid {
    fn write(&self, sql: &mut String) {
        self.as_bytes().as_slice().write(sql);
    }
}

impl<const N: usize> Literal for [u8; N] {
    fn write(&self, sql: &mut String) {
        self.as_slice().write(sql);
    }
}

impl Literal for Vec<u8> {
    fn write(&self, sql: &mut String) {
        self.as_slice().write(sql);
    }
}

impl Literal for String {
    fn write(&self, sql: &mut String) {
        self.as_str().write(sql);
    }
}

impl<T: Literal> Literal for Option<T> {
    fn write(&self, sql: &mut String) {
        match self {
            Some(value) => value.write(sql),
            None => sql.push_str("NULL"),
        }
    }
}

impl<T: Literal + ?Sized> Literal for &T {
    fn write(&self, sql: &mut String) {
        (**self).write(sql);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: impl Literal) -> String {
        Statement::new("").push_bind(value).sql.clone()
    }

    #[test]
    fn a_value_is_a_number_or_digits_or_harmless() {
        assert_eq!(written(-7_i64), "-7");
        assert_eq!(written("ISSUED"), "'ISSUED'");
        assert_eq!(written(""), "''");
        assert_eq!(written("'; DROP"), "_utf8mb4 x'273B2044524F50'");
        assert_eq!(written("\\"), "_utf8mb4 x'5C'");
        assert_eq!(written(vec![0_u8, 255]), "x'00FF'");
        assert_eq!(written(None::<&str>), "NULL");
        assert_eq!(written(Some(Uuid::from_u128(1))), "x'00000000000000000000000000000001'");
    }

    #[test]
    fn parts_are_separated() {
        let mut insert = Statement::new("INSERT INTO t (a, b) ");
        insert.push_values([(1, "x"), (2, "y")], |mut row, (number, text)| {
            row.push_bind(number).push_bind(text);
        });
        assert_eq!(insert.sql, "INSERT INTO t (a, b) VALUES (1, 'x'), (2, 'y')");
        let mut select = Statement::new("SELECT 1 WHERE a IN ");
        select.push_list([1, 2]);
        assert_eq!(select.sql, "SELECT 1 WHERE a IN (1, 2)");
    }
}
