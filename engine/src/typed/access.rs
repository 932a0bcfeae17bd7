//! Where typed tables read and write: the database as it is, a snapshot, a transaction, a batch.

use std::ops::Bound;

use crate::batch::WriteBatch;
use crate::db::Database;
use crate::error::{Error, Result};
use crate::range::Range;
use crate::snapshot::{Snapshot, SnapshotRange};
use crate::table::Table;
use crate::transaction::Transaction;
use crate::value::Value;

/// What typed tables read from: [`Database`] (each entry as it is when it is reached), [`Snapshot`], [`Transaction`].
pub trait Reader: sealed::Read {}

/// What typed tables write to: [`Transaction`], [`WriteBatch`].
pub trait Writer: sealed::Write {}

/// Entries in order, of either kind.
#[derive(Debug)]
pub enum Walk<'t> {
    /// Of the table as it is.
    Now(Box<Range<'t>>),
    /// Of a snapshot or a transaction.
    Then(Box<SnapshotRange<'t>>),
}

/// A range of keys as bytes.
pub(super) type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// Nobody else implements the traits.
pub(super) mod sealed {
    use super::*;

    /// Reading by bytes.
    pub trait Read {
        /// The value of a key.
        fn value<'t>(&'t self, table: &'t Table, key: &[u8]) -> Result<Option<Value<'t>>>;
        /// The values of many.
        fn values<'t>(&'t self, table: &'t Table, keys: &[Vec<u8>]) -> Result<Vec<Option<Value<'t>>>>;
        /// There is one.
        fn holds(&self, table: &Table, key: &[u8]) -> Result<bool>;
        /// The entries of a range.
        fn walk<'t>(&'t self, table: &'t Table, bounds: Bounds) -> Result<Walk<'t>>;
        /// The entries whose keys begin like this.
        fn walk_prefix<'t>(&'t self, table: &'t Table, prefix: &[u8]) -> Result<Walk<'t>>;
    }

    /// Writing by bytes.
    pub trait Write {
        /// What a delete tells.
        type Deleted;
        /// Sets a value.
        fn set(&mut self, table: &Table, key: &[u8], value: &[u8]) -> Result<()>;
        /// Removes a key.
        fn remove(&mut self, table: &Table, key: &[u8]) -> Result<Self::Deleted>;
    }
}

/// The table is one of the database.
fn own(db: &Database, table: &Table) -> Result<()> {
    if db.is_same(table.database()) { Ok(()) } else { Err(Error::ForeignTable { name: table.name() }) }
}

impl Reader for Database {}

impl sealed::Read for Database {
    fn value<'t>(&'t self, table: &'t Table, key: &[u8]) -> Result<Option<Value<'t>>> {
        own(self, table)?;
        table.get(key)
    }

    fn values<'t>(&'t self, table: &'t Table, keys: &[Vec<u8>]) -> Result<Vec<Option<Value<'t>>>> {
        own(self, table)?;
        table.multi_get(keys)
    }

    fn holds(&self, table: &Table, key: &[u8]) -> Result<bool> {
        own(self, table)?;
        table.contains(key)
    }

    fn walk<'t>(&'t self, table: &'t Table, bounds: Bounds) -> Result<Walk<'t>> {
        own(self, table)?;
        table.range::<Vec<u8>>(bounds).map(|range| Walk::Now(Box::new(range)))
    }

    fn walk_prefix<'t>(&'t self, table: &'t Table, prefix: &[u8]) -> Result<Walk<'t>> {
        own(self, table)?;
        table.prefix(prefix).map(|range| Walk::Now(Box::new(range)))
    }
}

macro_rules! reads_a_moment {
    ($($reader:ident)*) => {$(
        impl Reader for $reader {}

        impl sealed::Read for $reader {
            fn value<'t>(&'t self, table: &'t Table, key: &[u8]) -> Result<Option<Value<'t>>> {
                self.get(table, key)
            }

            fn values<'t>(&'t self, table: &'t Table, keys: &[Vec<u8>]) -> Result<Vec<Option<Value<'t>>>> {
                self.multi_get(table, keys)
            }

            fn holds(&self, table: &Table, key: &[u8]) -> Result<bool> {
                self.contains(table, key)
            }

            fn walk<'t>(&'t self, table: &'t Table, bounds: Bounds) -> Result<Walk<'t>> {
                self.range::<Vec<u8>>(table, bounds).map(|range| Walk::Then(Box::new(range)))
            }

            fn walk_prefix<'t>(&'t self, table: &'t Table, prefix: &[u8]) -> Result<Walk<'t>> {
                self.prefix(table, prefix).map(|range| Walk::Then(Box::new(range)))
            }
        }
    )*};
}

reads_a_moment! { Snapshot Transaction }

impl Writer for Transaction {}

impl sealed::Write for Transaction {
    /// Whether the key was there.
    type Deleted = bool;

    fn set(&mut self, table: &Table, key: &[u8], value: &[u8]) -> Result<()> {
        self.put(table, key, value)
    }

    fn remove(&mut self, table: &Table, key: &[u8]) -> Result<bool> {
        self.delete(table, key)
    }
}

impl Writer for WriteBatch {}

impl sealed::Write for WriteBatch {
    type Deleted = ();

    fn set(&mut self, table: &Table, key: &[u8], value: &[u8]) -> Result<()> {
        self.put(table, key, value)
    }

    fn remove(&mut self, table: &Table, key: &[u8]) -> Result<()> {
        self.delete(table, key)
    }
}
