//! A set of writes that are committed together or not at all.

use crate::error::Result;
use crate::table::Table;

/// Writes to any tables of one database, in order; the last write of a key wins. [`crate::Database::write`] commits
/// them all at once.
#[derive(Debug, Default)]
pub struct WriteBatch {}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a put. Fails on a key or value beyond the limits, or on a table of another database than the
    /// batch's first; the batch is then as before.
    pub fn put(&mut self, table: &Table, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        let _ = (table, key, value);
        unimplemented!()
    }

    /// Adds a delete; deleting what is not there is no error. Fails as [`WriteBatch::put`] does.
    pub fn delete(&mut self, table: &Table, key: impl AsRef<[u8]>) -> Result<()> {
        let _ = (table, key);
        unimplemented!()
    }

    /// Number of writes.
    pub fn len(&self) -> usize {
        0
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the writes as the log will hold them.
    pub fn bytes(&self) -> u64 {
        0
    }

    /// Takes all writes out; the memory is kept for the next ones.
    pub fn clear(&mut self) {}
}
