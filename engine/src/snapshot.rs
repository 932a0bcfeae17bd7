//! Snapshots: reading one moment for as long as one likes.

use std::fmt;
use std::iter::FusedIterator;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::time::Duration;

use crate::db::Database;
use crate::error::{Error, Result};
use crate::range::{Entry, Key, prefix_end};
use crate::table::Table;
use crate::txn::merge::{Given, Merge, Way};
use crate::txn::versions::Label;
use crate::txn::view::Hold;
use crate::value::Value;

/// What a snapshot is called and how long it may live, for [`Database::begin_read_with`].
#[derive(Debug, Clone, Default)]
pub struct SnapshotOptions {
    name: String,
    deadline: Option<Duration>,
}

impl SnapshotOptions {
    /// No name, no deadline.
    pub fn new() -> Self {
        Self::default()
    }

    /// What [`Database::snapshots`] calls it.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How long it may hold old values. After that reading through it gives [`Error::SnapshotTooOld`].
    #[must_use]
    pub fn deadline(mut self, after: Duration) -> Self {
        self.deadline = Some(after);
        self
    }

    pub(crate) fn label(self, db: &Database, writes: bool) -> Label {
        let begun = db.shared().disk.now();
        Label { name: self.name, writes, begun, deadline: self.deadline.map(|after| begun + after) }
    }
}

/// A live snapshot, as [`Database::snapshots`] shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotInfo {
    /// A number of its own.
    pub id: u64,
    /// What its owner called it.
    pub name: String,
    /// It is that of a write transaction.
    pub writes: bool,
    /// How long it has lived.
    pub age: Duration,
    /// How long it may go on.
    pub left: Option<Duration>,
    /// It sees at least every commit whose position in the log is below this one.
    pub lsn: u64,
    /// Bytes of old values among which there are some that it may need: what could be dropped, at most, if it and all
    /// older ones were closed.
    pub held_bytes: u64,
}

/// One moment of the database: everything read through it is as it was when it was taken, whatever is written
/// meanwhile. It sees every commit that had returned by then. It keeps the database open and costs what is overwritten
/// while it lives: one old value of each key (see [`Database::snapshots`]).
#[derive(Debug)]
pub struct Snapshot {
    hold: Hold,
}

impl Snapshot {
    pub(crate) fn new(db: &Database, options: SnapshotOptions) -> Result<Self> {
        let label = options.label(db, false);
        Ok(Self { hold: Hold::new(db, label)? })
    }

    /// It sees at least every commit whose position in the log ([`crate::CommitInfo::lsn`]) is below this one.
    pub fn lsn(&self) -> u64 {
        self.hold.view.lsn()
    }

    /// The number by which [`Database::snapshots`] tells it from others.
    pub fn id(&self) -> u64 {
        self.hold.live.id
    }

    /// The database it belongs to.
    pub fn database(&self) -> &Database {
        self.hold.db()
    }

    /// The value of `key`. A table made after the snapshot was taken is empty in it.
    ///
    /// # Errors
    /// [`Error::SnapshotTooOld`] past its deadline, [`Error::ForeignTable`], [`Error::TableDropped`] (a dropped table
    /// is gone for snapshots too), and those of reading.
    pub fn get<'t>(&'t self, table: &'t Table, key: impl AsRef<[u8]>) -> Result<Option<Value<'t>>> {
        self.hold.get(table, key.as_ref())
    }

    /// Whether there is a value for `key`. Errors as [`Snapshot::get`].
    pub fn contains(&self, table: &Table, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.hold.get(table, key.as_ref())?.is_some())
    }

    /// The values of many keys, in the order of `keys`. Errors as [`Snapshot::get`].
    pub fn multi_get<'t, K: AsRef<[u8]>>(
        &'t self,
        table: &'t Table,
        keys: &[K],
    ) -> Result<Vec<Option<Value<'t>>>> {
        self.hold.multi_get(table, keys)
    }

    /// The entries whose keys lie in `range`. Errors as [`Snapshot::get`].
    pub fn range<'t, K: AsRef<[u8]>>(
        &'t self,
        table: &'t Table,
        range: impl RangeBounds<K>,
    ) -> Result<SnapshotRange<'t>> {
        let (lower, upper) = (range.start_bound().map(AsRef::as_ref), range.end_bound().map(AsRef::as_ref));
        self.scan(table, lower, upper)
    }

    /// The entries whose keys begin with `prefix`. Errors as [`Snapshot::get`].
    pub fn prefix<'t>(&'t self, table: &'t Table, prefix: impl AsRef<[u8]>) -> Result<SnapshotRange<'t>> {
        let prefix = prefix.as_ref();
        let end = prefix_end(prefix);
        self.scan(table, Bound::Included(prefix), end.as_deref().map_or(Bound::Unbounded, Bound::Excluded))
    }

    /// All entries. Errors as [`Snapshot::get`].
    pub fn iter<'t>(&'t self, table: &'t Table) -> Result<SnapshotRange<'t>> {
        self.scan(table, Bound::Unbounded, Bound::Unbounded)
    }

    /// The entry with the smallest key. Errors as [`Snapshot::get`].
    pub fn first<'t>(&'t self, table: &'t Table) -> Result<Option<Entry<'t>>> {
        self.iter(table)?.next().transpose()
    }

    /// The entry with the greatest key. Errors as [`Snapshot::get`].
    pub fn last<'t>(&'t self, table: &'t Table) -> Result<Option<Entry<'t>>> {
        self.iter(table)?.next_back().transpose()
    }

    fn scan<'t>(
        &'t self,
        table: &'t Table,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
    ) -> Result<SnapshotRange<'t>> {
        Ok(SnapshotRange::new(&self.hold, table, self.hold.merge(table, None, lower, upper)?))
    }

    /// Ends it, as dropping it does.
    pub fn close(self) {}
}

/// The entries of a range, as a snapshot or a transaction sees them: ascending, or descending from the back. After an
/// error it gives errors for ever.
pub struct SnapshotRange<'t> {
    hold: &'t Hold,
    table: &'t Table,
    merge: Merge<'t>,
    /// The value given last, if it does not lie in a pinned leaf.
    bytes: Vec<u8>,
    failed: Option<Arc<Error>>,
}

impl<'t> SnapshotRange<'t> {
    pub(crate) fn new(hold: &'t Hold, table: &'t Table, merge: Merge<'t>) -> Self {
        Self { hold, table, merge, bytes: Vec::new(), failed: None }
    }

    /// The next entry without pinning anything for it: both slices live until the next call.
    ///
    /// # Errors
    /// As [`Snapshot::get`]; [`Error::IteratorFailed`] after an error.
    pub fn next_ref(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        self.side_ref(Way::Forward)
    }

    /// The same from the back.
    ///
    /// # Errors
    /// As [`SnapshotRange::next_ref`].
    pub fn next_back_ref(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        self.side_ref(Way::Backward)
    }

    fn side_ref(&mut self, way: Way) -> Result<Option<(&[u8], &[u8])>> {
        match self.advance(way)? {
            None => Ok(None),
            Some(true) => {
                let (pin, range) = self.merge.pin(way).ok_or_else(no_pin)?;
                Ok(Some((self.merge.key(way), &pin[range])))
            }
            Some(false) => Ok(Some((self.merge.key(way), &self.bytes))),
        }
    }

    fn side_entry(&mut self, way: Way) -> Result<Option<Entry<'t>>> {
        let value = match self.advance(way)? {
            None => return Ok(None),
            Some(true) => {
                let (pin, range) = self.merge.pin(way).ok_or_else(no_pin)?;
                Value::in_shared_page(pin, range)
            }
            Some(false) => Value::owned(std::mem::take(&mut self.bytes)),
        };
        Ok(Some(Entry::new(Key::new(self.merge.key(way)), value)))
    }

    /// Goes on to the next entry; `true` if its value lies in the pinned leaf, else it is in `bytes`.
    fn advance(&mut self, way: Way) -> Result<Option<bool>> {
        if let Some(e) = &self.failed {
            return Err(Error::IteratorFailed(e.clone()));
        }
        self.try_advance(way).inspect_err(|e| self.failed = Some(Arc::new(same(e))))
    }

    fn try_advance(&mut self, way: Way) -> Result<Option<bool>> {
        self.hold.check(self.table)?;
        let given = self.merge.next(way).and_then(|given| {
            Ok(match given {
                None => None,
                Some(Given::InLeaf) => Some(true),
                Some(Given::Bytes(bytes)) => {
                    self.bytes = bytes;
                    Some(false)
                }
                Some(Given::LongInLeaf(value)) => {
                    let mut reader = self.merge.reader(way, value)?;
                    self.bytes = reader.read_all().map_err(|e| self.table.reading_error(&e))?;
                    Some(false)
                }
                Some(Given::LongOld(value)) => {
                    self.bytes = self.hold.long(self.table, value)?;
                    Some(false)
                }
            })
        });
        // A table dropped, or a snapshot given up, meanwhile: that is what any other error means then.
        self.hold.check(self.table)?;
        given
    }
}

/// The error once more, for the calls after the one that gets it.
fn same(e: &Error) -> Error {
    match e {
        Error::SnapshotTooOld => Error::SnapshotTooOld,
        Error::TableDropped { name } => Error::TableDropped { name: name.clone() },
        Error::Closed { path } => Error::Closed { path: path.clone() },
        Error::Corrupt { file, offset, page, what, detail } => {
            Error::Corrupt { file: file.clone(), offset: *offset, page: *page, what, detail: detail.clone() }
        }
        other => Error::Internal(other.to_string()),
    }
}

fn no_pin() -> Error {
    Error::Internal("an entry of a leaf without the leaf".into())
}

impl fmt::Debug for SnapshotRange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotRange").field("table", self.table).finish_non_exhaustive()
    }
}

impl<'t> Iterator for SnapshotRange<'t> {
    type Item = Result<Entry<'t>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.side_entry(Way::Forward).transpose()
    }
}

impl DoubleEndedIterator for SnapshotRange<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.side_entry(Way::Backward).transpose()
    }
}

impl FusedIterator for SnapshotRange<'_> {}
