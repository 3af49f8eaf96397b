//! The schema: numbered steps, each in one transaction.
//!
//! **Invariant:** a database that was brought up step by step has the same schema as one made new. `user_version` is
//! the number of steps taken, and is written in the same transaction as the step.

use rusqlite::{Connection, Transaction, TransactionBehavior};

/// "tope" in ASCII: what `file` and this build know the database by.
pub(super) const APPLICATION_ID: i32 = 0x746f_7065;

/// The steps, in order. A published one is never edited: add another.
pub(super) const MIGRATIONS: &[&str] = &[include_str!("../../schema/0001_initial.sql")];

/// How many steps there are, as `user_version` counts them.
pub(super) fn newest(migrations: &[&str]) -> i32 {
    i32::try_from(migrations.len()).expect("there are fewer migrations than two thousand million")
}

/// Takes the steps that are missing. Another process may be doing the same: each step looks again under the write
/// lock.
pub(super) fn migrate(connection: &mut Connection, migrations: &[&str]) -> rusqlite::Result<()> {
    loop {
        let step = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let taken = user_version(&step)?;
        let Some(sql) = usize::try_from(taken).ok().and_then(|taken| migrations.get(taken)) else { return Ok(()) };
        step.execute_batch(sql)?;
        finish(step, taken + 1)?;
    }
}

fn finish(step: Transaction<'_>, taken: i32) -> rusqlite::Result<()> {
    step.pragma_update(None, "application_id", APPLICATION_ID)?;
    step.pragma_update(None, "user_version", taken)?;
    step.commit()
}

/// How many steps a database has behind it.
pub(super) fn user_version(connection: &Connection) -> rusqlite::Result<i32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Whose database it is.
pub(super) fn application_id(connection: &Connection) -> rusqlite::Result<i32> {
    connection.pragma_query_value(None, "application_id", |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(connection: &Connection) -> Vec<(String, String, Option<String>)> {
        let sql = "SELECT type, name, sql FROM sqlite_schema ORDER BY type, name";
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        rows.map(Result::unwrap).collect()
    }

    #[test]
    fn a_database_brought_up_in_steps_equals_a_new_one() {
        let steps = [
            MIGRATIONS[0],
            "CREATE TABLE later (a INTEGER PRIMARY KEY, b TEXT) STRICT; INSERT INTO later VALUES (1, 'x');",
            "CREATE INDEX later_by_b ON later (b); DROP VIEW event_log;",
        ];
        let mut fresh = Connection::open_in_memory().unwrap();
        migrate(&mut fresh, &steps).unwrap();
        let mut stepped = Connection::open_in_memory().unwrap();
        for upto in 1..=steps.len() {
            migrate(&mut stepped, &steps[..upto]).unwrap();
            assert_eq!(user_version(&stepped), Ok(newest(&steps[..upto])));
        }
        assert_eq!(schema(&stepped), schema(&fresh));
        assert_eq!(application_id(&stepped), Ok(APPLICATION_ID));
    }

    #[test]
    fn a_step_that_fails_leaves_nothing_of_itself() {
        let steps = [MIGRATIONS[0], "CREATE TABLE half (a INTEGER) STRICT; CREATE TABLE meta (a INTEGER) STRICT;"];
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, &steps[..1]).unwrap();
        let before = schema(&connection);
        assert!(migrate(&mut connection, &steps).is_err());
        assert_eq!((user_version(&connection), schema(&connection)), (Ok(1), before));
    }

    #[test]
    fn a_newer_database_is_left_alone() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, MIGRATIONS).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        migrate(&mut connection, MIGRATIONS).unwrap();
        assert_eq!(user_version(&connection), Ok(99));
    }

    #[test]
    fn every_table_is_strict_and_the_views_can_be_read() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, MIGRATIONS).unwrap();
        for (kind, name, sql) in schema(&connection) {
            match kind.as_str() {
                "table" => assert!(sql.unwrap().contains("STRICT"), "{name}"),
                "view" => drop(connection.prepare(&["SELECT * FROM ", &name].concat()).unwrap()),
                _ => {}
            }
        }
    }
}
