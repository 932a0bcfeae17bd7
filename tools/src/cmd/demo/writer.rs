//! The process that the demonstration kills: commits without end and reports what was acknowledged.

use std::io::{self, Write};
use std::path::PathBuf;

use bedstone::{Database, Table, WriteBatch};
use clap::Args;

use crate::cli::Global;
use crate::failure::{Answer, Failure};
use crate::store;

/// Name of the hidden command.
pub(crate) const WRITER: &str = "demo-writer";
/// The two tables that every commit writes to.
pub(crate) const TABLES: [&str; 2] = ["ledger", "mirror"];
/// Threads that commit at the same time.
pub(crate) const THREADS: u32 = 4;
/// Entries that one commit puts into each table.
pub(crate) const ENTRIES: u32 = 3;

/// Commit until killed
#[derive(Args)]
pub(crate) struct Writer {
    /// Directory of the database
    db: PathBuf,
}

impl Writer {
    pub(crate) fn run(&self, global: &Global) -> Result<Answer, Failure> {
        let db = store::open(global, &self.db)?;
        let tables = [db.table(TABLES[0])?, db.table(TABLES[1])?];
        std::thread::scope(|scope| {
            let (db, tables) = (&db, &tables);
            let threads: Vec<_> =
                (0..THREADS).map(|thread| scope.spawn(move || commit_for_ever(db, tables, thread))).collect();
            for thread in threads {
                match thread.join() {
                    Ok(ended) => ended?,
                    Err(_) => return Err(Failure::Cannot("a thread that commits has panicked".into())),
                }
            }
            Ok(Answer::Yes)
        })
    }
}

/// Ends only with an error, at the latest when nobody reads the reports any more.
fn commit_for_ever(db: &Database, tables: &[Table; 2], thread: u32) -> Result<(), Failure> {
    for commit in 0.. {
        let mut batch = WriteBatch::new();
        for table in tables {
            for entry in 0..ENTRIES {
                batch.put(table, key(thread, commit, entry), value(thread, commit, entry))?;
            }
        }
        db.write(batch)?;
        // The report follows the acknowledgement, so that what is reported must be there whatever happens next.
        let mut out = io::stdout().lock();
        writeln!(out, "{thread} {commit}")?;
        out.flush()?;
    }
    Ok(())
}

/// Key of an entry of a commit.
pub(crate) fn key(thread: u32, commit: u64, entry: u32) -> String {
    format!("{thread}/{commit:08}/{entry}")
}

/// Its value, longer for some commits than for others.
pub(crate) fn value(thread: u32, commit: u64, entry: u32) -> String {
    let words = 1 + (commit % 7) as usize;
    format!("entry {entry} of commit {commit} of thread {thread}; ").repeat(words)
}
