//! A table: the handle through which keys are read and written.

use std::io::Read;
use std::ops::RangeBounds;

use crate::db::{CommitInfo, Database};
use crate::error::Result;
use crate::options::Durability;
use crate::range::{Entry, Range};
use crate::stats::TableStats;
use crate::value::{Value, ValueReader};

/// A table of a database: an ordered map from byte strings to byte strings. A handle is cheap to clone and may be
/// used from many threads at once; it keeps the database open.
#[derive(Clone, Debug)]
pub struct Table {
    db: Database,
}

impl Table {
    /// Its name at this moment.
    pub fn name(&self) -> String {
        unimplemented!()
    }

    /// Its number, which no other table of this database ever had or will have.
    pub fn id(&self) -> u32 {
        unimplemented!()
    }

    /// The database it belongs to.
    pub fn database(&self) -> &Database {
        &self.db
    }

    /// The value of `key`.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value<'_>>> {
        let _ = key;
        unimplemented!()
    }

    /// Whether there is a value for `key`.
    pub fn contains(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let _ = key;
        unimplemented!()
    }

    /// The values of many keys, in the order of `keys`. All pages missing from memory are read at once, so this is
    /// several times faster than as many calls of [`Table::get`].
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value<'_>>>> {
        let _ = keys;
        unimplemented!()
    }

    /// Sets the value of `key`: a commit of its own, durable as the database's default says.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.put_with(key, value, Durability::Sync).map(|_| ())
    }

    /// [`Table::put`] with the durability given.
    pub fn put_with(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, durability: Durability) -> Result<CommitInfo> {
        let _ = (key, value, durability);
        unimplemented!()
    }

    /// Sets the value of `key` to the `len` bytes that `reader` gives; memory is bounded whatever `len`. A reader
    /// that fails or ends early leaves the table as it was. Checkpoints wait for the reader: it should not stall.
    pub fn put_reader(&self, key: impl AsRef<[u8]>, len: u64, reader: impl Read) -> Result<()> {
        let _ = (key, len, reader);
        unimplemented!()
    }

    /// Removes `key`; tells whether it was there. A commit of its own unless it was not there.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.delete_with(key, Durability::Sync)
    }

    /// [`Table::delete`] with the durability given.
    pub fn delete_with(&self, key: impl AsRef<[u8]>, durability: Durability) -> Result<bool> {
        let _ = (key, durability);
        unimplemented!()
    }

    /// The entries whose keys lie in `range`, for example `range(&b"a"[..]..&b"b"[..])`.
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<Range<'_>> {
        let _ = range;
        unimplemented!()
    }

    /// The entries whose keys begin with `prefix`.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Result<Range<'_>> {
        let _ = prefix;
        unimplemented!()
    }

    /// All entries.
    pub fn iter(&self) -> Result<Range<'_>> {
        unimplemented!()
    }

    /// The entry with the smallest key.
    pub fn first(&self) -> Result<Option<Entry<'_>>> {
        unimplemented!()
    }

    /// The entry with the greatest key.
    pub fn last(&self) -> Result<Option<Entry<'_>>> {
        unimplemented!()
    }

    /// A reader over the value of `key`, for values too long to hold in memory. The value stays readable as it was
    /// when the reader was made.
    pub fn value_reader(&self, key: impl AsRef<[u8]>) -> Result<Option<ValueReader<'_>>> {
        let _ = key;
        unimplemented!()
    }

    /// Pages, height and fill, found by walking the whole tree.
    pub fn stats(&self) -> Result<TableStats> {
        unimplemented!()
    }
}
