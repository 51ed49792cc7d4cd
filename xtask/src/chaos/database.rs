//! Faults of the database, by statements that both MySQL and MariaDB accept.

use crate::{
    chaos::{plan::DatabaseFault, sql::Session},
    mesh::SCHEMA_PREFIX,
};
use anyhow::{Context, ensure};
use stampede_vocab::Service;

/// Tries of a statement that waits for another session's lock: 5 s each time.
const TRIES: usize = 3;
const SET_LOCK_TIMEOUTS: &str = "SET SESSION lock_wait_timeout = 5, innodb_lock_wait_timeout = 5";

/// An injected fault, with the session that made it.
pub struct InjectedFault {
    session: Session,
    remedy: Remedy,
}

/// The removal of it.
enum Remedy {
    Statement(String),
    /// The same connections are killed again.
    Kill(String),
}

impl InjectedFault {
    /// Injects a fault.
    pub fn begin(mut session: Session, fault: DatabaseFault) -> anyhow::Result<Self> {
        session.run(SET_LOCK_TIMEOUTS)?;
        let remedy = match fault {
            DatabaseFault::TableAway(service, choice) => rename(&mut session, service, choice)?,
            DatabaseFault::TableFull(service, choice) => fill(&mut session, service, choice)?,
            DatabaseFault::RowsLocked(service, choice) => lock(&mut session, service, choice)?,
            DatabaseFault::ConnectionsKilled(service) => {
                let whose = format!("DB = '{}'", schema_of(service));
                kill(&mut session, &whose)?;
                Remedy::Kill(whose)
            }
            DatabaseFault::ConnectionsExhausted => exhaust(&mut session)?,
        };
        Ok(Self { session, remedy })
    }

    /// Removes it.
    pub fn end(mut self) -> anyhow::Result<()> {
        match self.remedy {
            Remedy::Statement(sql) => run_with_retries(&mut self.session, &[&sql]),
            Remedy::Kill(whose) => kill(&mut self.session, &whose),
        }
    }
}

fn rename(session: &mut Session, service: Service, choice: u64) -> anyhow::Result<Remedy> {
    let table = table_of(session, service, choice)?;
    let away = format!("`{}`.`chaos_away`", schema_of(service));
    run_with_retries(session, &[&format!("RENAME TABLE {table} TO {away}")])?;
    Ok(Remedy::Statement(format!("RENAME TABLE {away} TO {table}")))
}

/// A trigger raises the error of a full disk.
fn fill(session: &mut Session, service: Service, choice: u64) -> anyhow::Result<Remedy> {
    let table = table_of(session, service, choice)?;
    let trigger = format!("`{}`.`chaos_full`", schema_of(service));
    let refuse = "SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1114, MESSAGE_TEXT = 'The table is full'";
    run_with_retries(session, &[&format!("CREATE TRIGGER {trigger} BEFORE INSERT ON {table} FOR EACH ROW {refuse}")])?;
    Ok(Remedy::Statement(format!("DROP TRIGGER {trigger}")))
}

fn lock(session: &mut Session, service: Service, choice: u64) -> anyhow::Result<Remedy> {
    let table = table_of(session, service, choice)?;
    run_with_retries(session, &["BEGIN", &format!("SELECT 1 FROM {table} FOR UPDATE")])?;
    Ok(Remedy::Statement("ROLLBACK".to_owned()))
}

/// This session stays; MariaDB's minimum is ten.
fn exhaust(session: &mut Session) -> anyhow::Result<Remedy> {
    let most = session.number("SELECT @@GLOBAL.max_connections")?;
    session.run("SET GLOBAL max_connections = 1")?;
    kill(session, &format!("DB LIKE '{}%'", SCHEMA_PREFIX.replace('_', "\\_")))?;
    Ok(Remedy::Statement(format!("SET GLOBAL max_connections = {most}")))
}

/// Kills the connections that are in the list of processes under this condition.
fn kill(session: &mut Session, whose: &str) -> anyhow::Result<()> {
    let ids = session.rows(&format!("SELECT ID FROM information_schema.PROCESSLIST WHERE {whose}"))?;
    for id in ids {
        // A connection that has ended meanwhile is fine.
        drop(session.run(&format!("KILL {id}")));
    }
    Ok(())
}

/// Runs statements, all of them again if another session's lock times one out.
fn run_with_retries(session: &mut Session, statements: &[&str]) -> anyhow::Result<()> {
    let mut run = || statements.iter().try_for_each(|sql| session.run(sql));
    let mut outcome = run();
    for _ in 1..TRIES {
        if outcome.is_ok() {
            break;
        }
        outcome = run();
    }
    outcome
}

/// One of the tables of a service, chosen by a number: the same one each time, as long as there are the same tables.
fn table_of(session: &mut Session, service: Service, choice: u64) -> anyhow::Result<String> {
    let schema = schema_of(service);
    let tables = session.rows(&format!(
        "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = '{schema}' \
         AND TABLE_TYPE = 'BASE TABLE' AND TABLE_NAME NOT LIKE '\\_%' ORDER BY TABLE_NAME"
    ))?;
    ensure!(!tables.is_empty(), "{schema} has no tables");
    let chosen = usize::try_from(choice).context("a choice is small")? % tables.len();
    Ok(format!("`{schema}`.`{}`", tables[chosen]))
}

fn schema_of(service: Service) -> String {
    format!("{SCHEMA_PREFIX}{service}")
}
