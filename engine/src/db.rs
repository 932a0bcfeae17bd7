//! The database handle.

use std::path::Path;
use std::sync::Arc;

use bedstone_io::IoReport;

use crate::batch::WriteBatch;
use crate::check::CheckReport;
use crate::error::Result;
use crate::options::{Builder, Durability, Limits};
use crate::stats::{CheckpointInfo, RecoveryReport, Stats};
use crate::table::Table;

/// Which of the three ways to start was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    Open,
    Create,
    OpenOrCreate,
}

/// A commit that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommitInfo {
    /// Its position in the log, which is also its place in the order of commits. 0 for a commit that wrote nothing.
    pub lsn: u64,
}

/// A table as the catalog has it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableInfo {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: u32,
    /// Page id of its root.
    pub root_page: u32,
}

/// An open database. Clones are handles to the same one; it is closed by [`Database::close`], or as well as may be
/// when the last handle is dropped. Nothing that was acknowledged depends on closing.
#[derive(Clone)]
pub struct Database {
    inner: Arc<()>,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").finish_non_exhaustive()
    }
}

impl Database {
    /// Options other than the default ones.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Opens the database in directory `path` with the default options.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().open(path)
    }

    /// Creates a database in directory `path` with the default options.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().create(path)
    }

    /// Opens the database in directory `path`, or creates it, with the default options.
    pub fn open_or_create(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().open_or_create(path)
    }

    pub(crate) fn start(options: Builder, path: &Path, start: Start) -> Result<Self> {
        let _ = (options, path, start);
        unimplemented!()
    }

    /// The table of this name, made if it is not there.
    pub fn table(&self, name: &str) -> Result<Table> {
        let _ = (&self.inner, name);
        unimplemented!()
    }

    /// The table of this name if there is one.
    pub fn open_table(&self, name: &str) -> Result<Option<Table>> {
        let _ = name;
        unimplemented!()
    }

    /// Makes a table; an error if there is one of this name.
    pub fn create_table(&self, name: &str) -> Result<Table> {
        let _ = name;
        unimplemented!()
    }

    /// Drops a table; tells whether there was one. Its pages are given back in the background.
    pub fn drop_table(&self, name: &str) -> Result<bool> {
        let _ = name;
        unimplemented!()
    }

    /// Gives a table another name; handles to it stay good.
    pub fn rename_table(&self, from: &str, to: &str) -> Result<()> {
        let _ = (from, to);
        unimplemented!()
    }

    /// All tables, by name.
    pub fn tables(&self) -> Result<Vec<TableInfo>> {
        unimplemented!()
    }

    /// Commits a batch, durable as the database's default says.
    pub fn write(&self, batch: WriteBatch) -> Result<()> {
        self.write_with(batch, Durability::Sync).map(|_| ())
    }

    /// Commits a batch with the durability given.
    pub fn write_with(&self, batch: WriteBatch, durability: Durability) -> Result<CommitInfo> {
        let _ = (batch, durability);
        unimplemented!()
    }

    /// Makes every commit so far durable.
    pub fn sync(&self) -> Result<()> {
        unimplemented!()
    }

    /// Makes a checkpoint now: recovery will begin at its moment.
    pub fn checkpoint(&self) -> Result<CheckpointInfo> {
        unimplemented!()
    }

    /// Does the background work that is due; for [`crate::Background::Manual`].
    pub fn step(&self) -> Result<()> {
        unimplemented!()
    }

    /// Figures since the database was opened.
    pub fn stats(&self) -> Stats {
        unimplemented!()
    }

    /// Checks everything: order and fences of every page, chains of long values, leaked and doubly used pages and
    /// space. Writers are held off meanwhile.
    pub fn check(&self) -> Result<CheckReport> {
        unimplemented!()
    }

    /// What recovery did when this database was opened.
    pub fn recovery(&self) -> &RecoveryReport {
        unimplemented!()
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        unimplemented!()
    }

    /// Bytes of a page.
    pub fn page_size(&self) -> usize {
        unimplemented!()
    }

    /// Every limit.
    pub fn limits(&self) -> Limits {
        unimplemented!()
    }

    /// How I/O is done, and why so.
    pub fn io_report(&self) -> IoReport {
        unimplemented!()
    }

    /// Stops the background work, makes a checkpoint and closes the files; reports what went wrong. The other
    /// handles and tables still there only give errors afterwards.
    pub fn close(self) -> Result<()> {
        unimplemented!()
    }
}
