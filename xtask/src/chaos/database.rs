//! Faults of the database, by statements that both MySQL and MariaDB accept.

use crate::{
    chaos::{plan::DatabaseFault, sql::Session},
    mesh::SCHEMA_PREFIX,
};
use stampede_vocab::Service;

/// Tries of a statement that waits for another session's lock: 5 s each time.
const TRIES: usize = 3;
const SET_LOCK_TIMEOUTS: &str = "SET SESSION lock_wait_timeout = 5, innodb_lock_wait_timeout = 5";

/// An injected fault, with the session that made it.
pub struct InjectedFault {
    session: Session,
    /// Yields how many statements it has met, or none if the server cannot tell.
    count_met: Option<String>,
    remedy: Remedy,
}

enum Remedy {
    Statements(Vec<String>),
    /// The same connections are killed again.
    Kill(String),
}

impl InjectedFault {
    pub fn begin(mut session: Session, fault: DatabaseFault) -> anyhow::Result<Self> {
        session.run(SET_LOCK_TIMEOUTS)?;
        let (count_met, remedy) = match fault {
            DatabaseFault::TableAway(service, table) => (None, rename(&mut session, service, table)?),
            DatabaseFault::TableFull(service, table) => {
                (Some(count_of_refused(service)), fill(&mut session, service, table)?)
            }
            DatabaseFault::RowsLocked(service, table) => {
                (Some(count_of_waiting(service)), lock(&mut session, service, table)?)
            }
            DatabaseFault::ConnectionsKilled(service) => {
                let whose = format!("DB = '{}'", schema_of(service));
                kill(&mut session, &whose)?;
                (None, Remedy::Kill(whose))
            }
            DatabaseFault::ConnectionsExhausted => (None, exhaust(&mut session)?),
        };
        Ok(Self { session, count_met, remedy })
    }

    /// Removes it. Returns whether the sale has met it, as far as the server can tell.
    pub fn end(mut self) -> anyhow::Result<Option<bool>> {
        let met = self.count_met.as_deref().map(|count| self.session.number(count)).transpose();
        match self.remedy {
            Remedy::Statements(sql) => {
                sql.iter().try_for_each(|sql| run_with_retries(&mut self.session, &[sql.as_str()]))?;
            }
            Remedy::Kill(whose) => kill(&mut self.session, &whose)?,
        }
        Ok(met?.map(|count| count > 0))
    }
}

fn rename(session: &mut Session, service: Service, table: &str) -> anyhow::Result<Remedy> {
    let (table, away) = (name_of(service, table), name_of(service, "chaos_away"));
    run_with_retries(session, &[&format!("RENAME TABLE {table} TO {away}")])?;
    Ok(Remedy::Statements(vec![format!("RENAME TABLE {away} TO {table}")]))
}

/// A trigger raises the error of a full disk. Before that it notes the row in a table in memory, which has no
/// transactions: the note stays.
fn fill(session: &mut Session, service: Service, table: &str) -> anyhow::Result<Remedy> {
    let (table, trigger) = (name_of(service, table), name_of(service, "chaos_full"));
    let refused = refused_of(service);
    let refuse = "SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1114, MESSAGE_TEXT = 'The table is full'";
    let body = format!("BEGIN INSERT INTO {refused} VALUES (1); {refuse}; END");
    session.run(&format!("DROP TABLE IF EXISTS {refused}"))?;
    session.run(&format!("CREATE TABLE {refused} (one TINYINT NOT NULL) ENGINE = MEMORY"))?;
    run_with_retries(session, &[&format!("CREATE TRIGGER {trigger} BEFORE INSERT ON {table} FOR EACH ROW {body}")])?;
    Ok(Remedy::Statements(vec![format!("DROP TRIGGER {trigger}"), format!("DROP TABLE {refused}")]))
}

/// The table of what a full table has refused.
fn refused_of(service: Service) -> String {
    name_of(service, "chaos_refused")
}

fn count_of_refused(service: Service) -> String {
    format!("SELECT COUNT(*) FROM {}", refused_of(service))
}

/// Counts the transactions of a service that wait for a lock just now.
fn count_of_waiting(service: Service) -> String {
    format!(
        "SELECT COUNT(*) FROM information_schema.INNODB_TRX AS trx \
         JOIN information_schema.PROCESSLIST AS process ON process.ID = trx.trx_mysql_thread_id \
         WHERE trx.trx_state = 'LOCK WAIT' AND process.DB = '{}'",
        schema_of(service)
    )
}

fn lock(session: &mut Session, service: Service, table: &str) -> anyhow::Result<Remedy> {
    let all = format!("SELECT 1 FROM {} FOR UPDATE", name_of(service, table));
    run_with_retries(session, &["BEGIN", &all])?;
    Ok(Remedy::Statements(vec!["ROLLBACK".to_owned()]))
}

/// This session stays; MariaDB's minimum is ten.
fn exhaust(session: &mut Session) -> anyhow::Result<Remedy> {
    let most = session.number("SELECT @@GLOBAL.max_connections")?;
    session.run("SET GLOBAL max_connections = 1")?;
    kill(session, &format!("DB LIKE '{}%'", SCHEMA_PREFIX.replace('_', "\\_")))?;
    Ok(Remedy::Statements(vec![format!("SET GLOBAL max_connections = {most}")]))
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

/// The name of a table or trigger, behind its schema.
fn name_of(service: Service, name: &str) -> String {
    format!("`{}`.`{name}`", schema_of(service))
}

fn schema_of(service: Service) -> String {
    format!("{SCHEMA_PREFIX}{service}")
}
