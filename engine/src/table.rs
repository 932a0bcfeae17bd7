//! A table: the handle through which keys are read and written.

use std::fmt;
use std::io::Read;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use bedstone_bufpool::PoolError;

use crate::btree::{Found, OverflowReader};
use crate::catalog::TableState;
use crate::db::{CommitInfo, Database};
use crate::error::{Error, Result};
use crate::options::Durability;
use crate::range::{Entry, Range, prefix_end};
use crate::shared::Shared;
use crate::stats::TableStats;
use crate::txn::commit::Source;
use crate::value::{Value, ValueReader};

/// A table of a database: an ordered map from byte strings to byte strings. A handle is cheap to clone and
/// may be used from many threads at once; it keeps the database open.
#[derive(Clone)]
pub struct Table {
    db: Database,
    state: Arc<TableState>,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("id", &self.state.id)
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

impl Table {
    pub(crate) fn new(db: Database, state: Arc<TableState>) -> Self {
        Self { db, state }
    }

    pub(crate) fn shared(&self) -> &Shared {
        self.db.shared()
    }

    pub(crate) fn state(&self) -> &TableState {
        &self.state
    }

    /// Its name at this moment.
    pub fn name(&self) -> String {
        self.state.name.read().clone()
    }

    /// Its number, which no other table of this database ever had or will have.
    pub fn id(&self) -> u32 {
        self.state.id
    }

    /// The database it belongs to.
    pub fn database(&self) -> &Database {
        &self.db
    }

    /// The table can be read.
    #[inline]
    pub(crate) fn readable(&self) -> Result<()> {
        self.shared().readable()?;
        self.state.usable()
    }

    /// What an error of reading pages means to the user. A table that is dropped under a reader loses its
    /// pages one by one, so whatever the reader meets then means just that.
    #[cold]
    pub(crate) fn reading_error(&self, e: &PoolError) -> Error {
        if let Err(gone) = self.readable() {
            return gone;
        }
        match Error::of_pool(e) {
            // The trees do not know where their pages lie.
            Error::Corrupt { offset: 0, page, what, detail, .. } => {
                let file = crate::create::data_path(&self.shared().path);
                Error::Corrupt { file, offset: 0, page, what, detail }
            }
            other => other,
        }
    }

    pub(crate) fn value<'t>(&'t self, found: Found<'t>) -> Result<Value<'t>> {
        match found {
            Found::Inline { pin, range } => Ok(Value::in_page(pin, range)),
            Found::Overflow { value, ticket } => {
                OverflowReader::new(self.state.tree, &self.shared().pool, value, ticket)
                    .and_then(|mut reader| reader.read_all())
                    .map(Value::owned)
                    .map_err(|e| self.reading_error(&e))
            }
        }
    }

    fn find(&self, key: &[u8]) -> Result<Option<Found<'_>>> {
        self.readable()?;
        // No key can be so long, and the tree is not asked for one that is.
        if key.len() > self.shared().limits.max_key_bytes {
            return Ok(None);
        }
        self.state.tree.get(&self.shared().pool, key).map_err(|e| self.reading_error(&e))
    }

    /// The value of `key`.
    #[inline]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value<'_>>> {
        self.find(key.as_ref())?.map(|found| self.value(found)).transpose()
    }

    /// Whether there is a value for `key`.
    pub fn contains(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.find(key.as_ref())?.is_some())
    }

    /// The values of many keys, in the order of `keys`. All pages missing from memory are read at once, so
    /// this is several times faster than as many calls of [`Table::get`].
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value<'_>>>> {
        self.readable()?;
        let max = self.shared().limits.max_key_bytes;
        if let Some(long) = keys.iter().position(|k| k.as_ref().len() > max) {
            // Rare enough: what lies before and behind the key that cannot exist.
            let mut values = self.multi_get(&keys[..long])?;
            values.push(None);
            values.extend(self.multi_get(&keys[long + 1..])?);
            return Ok(values);
        }
        let mut values: Vec<Option<Value<'_>>> = Vec::new();
        values.resize_with(keys.len(), || None);
        // Values in pages of their own are read afterwards: reading must not happen between the groups' pins.
        let mut long = Vec::new();
        self.state
            .tree
            .multi_get(&self.shared().pool, keys, |i, found| match found {
                None => {}
                Some(Found::Inline { pin, range }) => values[i] = Some(Value::in_page(pin, range)),
                Some(found) => long.push((i, found)),
            })
            .map_err(|e| self.reading_error(&e))?;
        for (i, found) in long {
            values[i] = Some(self.value(found)?);
        }
        Ok(values)
    }

    /// Sets the value of `key`: a commit of its own, durable as the database's default says.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.put_with(key, value, self.shared().durability).map(drop)
    }

    /// [`Table::put`] with the durability given.
    pub fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        durability: Durability,
    ) -> Result<CommitInfo> {
        let value = Source::Bytes(value.as_ref());
        let commit = self.shared().write_key(&self.state, key.as_ref(), Some(value), durability)?;
        commit.ok_or_else(|| Error::Internal("a put was not applied".into()))
    }

    /// Sets the value of `key` to the `len` bytes that `reader` gives; memory is bounded whatever `len`. A
    /// reader that fails or ends early leaves the table as it was. Checkpoints wait for the reader: it should
    /// not stall.
    pub fn put_reader(&self, key: impl AsRef<[u8]>, len: u64, mut reader: impl Read) -> Result<()> {
        let value = Source::Reader(len, &mut reader);
        self.shared().write_key(&self.state, key.as_ref(), Some(value), self.shared().durability).map(drop)
    }

    /// Removes `key`; tells whether it was there. A commit of its own unless it was not there.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.delete_with(key, self.shared().durability)
    }

    /// [`Table::delete`] with the durability given.
    pub fn delete_with(&self, key: impl AsRef<[u8]>, durability: Durability) -> Result<bool> {
        Ok(self.shared().write_key(&self.state, key.as_ref(), None, durability)?.is_some())
    }

    /// The entries whose keys lie in `range`, for example `range(&b"a"[..]..&b"b"[..])`.
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<Range<'_>> {
        let bytes = |bound: Bound<&K>| bound.map(|k| k.as_ref().to_vec());
        let (lower, upper) = (bytes(range.start_bound()), bytes(range.end_bound()));
        self.scan(lower.as_ref().map(|k| k.as_slice()), upper.as_ref().map(|k| k.as_slice()))
    }

    fn scan(&self, lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> Result<Range<'_>> {
        self.readable()?;
        Ok(Range::new(self, self.state.tree.scan(&self.shared().pool, lower, upper)))
    }

    /// The entries whose keys begin with `prefix`.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Result<Range<'_>> {
        let prefix = prefix.as_ref();
        let end = prefix_end(prefix);
        self.scan(Bound::Included(prefix), end.as_deref().map_or(Bound::Unbounded, Bound::Excluded))
    }

    /// All entries.
    pub fn iter(&self) -> Result<Range<'_>> {
        self.scan(Bound::Unbounded, Bound::Unbounded)
    }

    /// The entry with the smallest key.
    pub fn first(&self) -> Result<Option<Entry<'_>>> {
        self.iter()?.next().transpose()
    }

    /// The entry with the greatest key.
    pub fn last(&self) -> Result<Option<Entry<'_>>> {
        self.iter()?.next_back().transpose()
    }

    /// A reader over the value of `key`, for values too long to hold in memory. The value stays readable as
    /// it was when the reader was made.
    pub fn value_reader(&self, key: impl AsRef<[u8]>) -> Result<Option<ValueReader<'_>>> {
        Ok(match self.find(key.as_ref())? {
            None => None,
            Some(Found::Overflow { value, ticket }) => Some(ValueReader::pages(
                OverflowReader::new(self.state.tree, &self.shared().pool, value, ticket)
                    .map_err(|e| self.reading_error(&e))?,
            )),
            Some(found) => Some(ValueReader::bytes(self.value(found)?)),
        })
    }

    /// Pages, height and fill, found by walking the whole tree.
    pub fn stats(&self) -> Result<TableStats> {
        self.readable()?;
        let stats = self.state.tree.stats(&self.shared().pool).map_err(|e| self.reading_error(&e))?;
        Ok(stats.into())
    }
}
