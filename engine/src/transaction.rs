//! Write transactions.

use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use bedstone_wal::Appended;
use parking_lot::Mutex;

use crate::db::{CommitInfo, Database};
use crate::error::{Error, Result};
use crate::options::Durability;
use crate::range::{Entry, prefix_end};
use crate::snapshot::{SnapshotOptions, SnapshotRange};
use crate::table::Table;
use crate::txn::merge::{Own, OwnEntry, Way};
use crate::txn::ticket::CommitTicket;
use crate::txn::validation::{ReadSet, Validation};
use crate::txn::view::Hold;
use crate::txn::write_set::{SavepointId, Side, WriteScan, WriteSet};
use crate::value::Value;

/// Keys that [`Transaction::delete_range`] holds in memory at once.
const DELETE_CHUNK: usize = 1024;

/// A place in a transaction to which it can be rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Savepoint {
    snapshot: u64,
    id: SavepointId,
}

/// A write transaction: it reads one moment of the database and its own writes, and commits all of them or none. Any
/// number of them may be open at a time; none waits for another one before it commits.
///
/// *Snapshot isolation* is what it gives by default: of two transactions that write the same key and overlap, the first
/// that commits wins, and the other's commit gives [`Error::Conflict`]. Two transactions that write different keys, each
/// depending on what the other one overwrites, may both commit (write skew); [`Transaction::serializable`] prevents
/// that too, by validating what was read as well.
///
/// Dropping it rolls it back. After a call that failed half-way every other call gives [`Error::Poisoned`], and it can
/// only be rolled back; calls of which that can be said say so.
///
/// What it writes is kept in memory up to a budget ([`crate::Builder::transaction_memory`]) and in pages of the pool
/// beyond that, so it may be larger than memory.
pub struct Transaction {
    hold: Hold,
    writes: WriteSet,
    /// The tables written to.
    tables: Vec<Table>,
    /// What was read, if that is to be validated.
    reads: Option<Mutex<ReadSet>>,
    used: std::sync::atomic::AtomicBool,
    poison: Option<Arc<Error>>,
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction")
            .field("id", &self.id())
            .field("writes", &self.writes.len())
            .field("serializable", &self.reads.is_some())
            .finish_non_exhaustive()
    }
}

/// The walk through own writes as a merge wants it.
struct OwnScan<'w>(WriteScan<'w>);

impl Own for OwnScan<'_> {
    fn next(&mut self, way: Way) -> Result<Option<OwnEntry>> {
        let side = match way {
            Way::Forward => Side::Front,
            Way::Backward => Side::Back,
        };
        if !self.0.advance(side)? {
            return Ok(None);
        }
        let (key, value) = self.0.current(side);
        Ok(Some((key.to_vec(), value.map(<[u8]>::to_vec))))
    }
}

impl Transaction {
    pub(crate) fn new(db: &Database, options: SnapshotOptions) -> Result<Self> {
        db.shared().writable()?;
        let label = options.label(db, true);
        Ok(Self {
            hold: Hold::new(db, label)?,
            writes: WriteSet::new(db.shared().transaction_memory),
            tables: Vec::new(),
            reads: None,
            used: false.into(),
            poison: None,
        })
    }

    /// Makes the transaction serializable: it commits only if nothing that it has read was changed since it began, so
    /// that all such transactions together are as if they had run one after the other. To be called before anything
    /// is read or written; later it poisons the transaction with [`Error::BadOption`].
    #[must_use]
    pub fn serializable(mut self) -> Self {
        if *self.used.get_mut() {
            let detail = "serializable() comes before the first read or write of a transaction".into();
            self.poison = Some(Arc::new(Error::BadOption { option: "serializable", detail }));
        }
        self.reads = Some(Mutex::default());
        self
    }

    /// The number by which [`Database::snapshots`] tells it from others.
    pub fn id(&self) -> u64 {
        self.hold.live.id
    }

    /// It sees at least every commit whose position in the log ([`CommitInfo::lsn`]) is below this one.
    pub fn lsn(&self) -> u64 {
        self.hold.view.lsn()
    }

    /// The database it belongs to.
    pub fn database(&self) -> &Database {
        self.hold.db()
    }

    /// It is not poisoned, and the table is one of its database.
    fn check(&self, table: &Table) -> Result<()> {
        self.used.store(true, std::sync::atomic::Ordering::Relaxed);
        match &self.poison {
            Some(cause) => Err(Error::Poisoned(cause.clone())),
            None => self.hold.check(table),
        }
    }

    /// The value of `key`: as written by this transaction, else as of its beginning.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::ForeignTable`], [`Error::TableDropped`], and those of reading. It stays usable.
    pub fn get<'t>(&'t self, table: &'t Table, key: impl AsRef<[u8]>) -> Result<Option<Value<'t>>> {
        self.check(table)?;
        let key = key.as_ref();
        if let Some(written) = self.writes.get(self.hold.shared(), table.id(), key)? {
            return Ok(written.map(|value| Value::owned(value.into_owned())));
        }
        self.note_key(table, key);
        self.hold.get(table, key)
    }

    /// Whether there is a value for `key`. Errors as [`Transaction::get`].
    pub fn contains(&self, table: &Table, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get(table, key)?.is_some())
    }

    /// The values of many keys, in the order of `keys`. Errors as [`Transaction::get`].
    pub fn multi_get<'t, K: AsRef<[u8]>>(
        &'t self,
        table: &'t Table,
        keys: &[K],
    ) -> Result<Vec<Option<Value<'t>>>> {
        self.check(table)?;
        let mut values = self.hold.multi_get(table, keys)?;
        for (key, value) in keys.iter().zip(&mut values) {
            let key = key.as_ref();
            match self.writes.get(self.hold.shared(), table.id(), key)? {
                Some(written) => *value = written.map(|value| Value::owned(value.into_owned())),
                None => self.note_key(table, key),
            }
        }
        Ok(values)
    }

    fn note_key(&self, table: &Table, key: &[u8]) {
        if let Some(reads) = &self.reads {
            reads.lock().key(table, key);
        }
    }

    /// The entries whose keys lie in `range`. Errors as [`Transaction::get`].
    pub fn range<'t, K: AsRef<[u8]>>(
        &'t self,
        table: &'t Table,
        range: impl RangeBounds<K>,
    ) -> Result<SnapshotRange<'t>> {
        let (lower, upper) = (range.start_bound().map(AsRef::as_ref), range.end_bound().map(AsRef::as_ref));
        self.scan(table, lower, upper)
    }

    /// The entries whose keys begin with `prefix`. Errors as [`Transaction::get`].
    pub fn prefix<'t>(&'t self, table: &'t Table, prefix: impl AsRef<[u8]>) -> Result<SnapshotRange<'t>> {
        let prefix = prefix.as_ref();
        let end = prefix_end(prefix);
        self.scan(table, Bound::Included(prefix), end.as_deref().map_or(Bound::Unbounded, Bound::Excluded))
    }

    /// All entries. Errors as [`Transaction::get`].
    pub fn iter<'t>(&'t self, table: &'t Table) -> Result<SnapshotRange<'t>> {
        self.scan(table, Bound::Unbounded, Bound::Unbounded)
    }

    /// The entry with the smallest key. Errors as [`Transaction::get`].
    pub fn first<'t>(&'t self, table: &'t Table) -> Result<Option<Entry<'t>>> {
        self.iter(table)?.next().transpose()
    }

    /// The entry with the greatest key. Errors as [`Transaction::get`].
    pub fn last<'t>(&'t self, table: &'t Table) -> Result<Option<Entry<'t>>> {
        self.iter(table)?.next_back().transpose()
    }

    fn scan<'t>(
        &'t self,
        table: &'t Table,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
    ) -> Result<SnapshotRange<'t>> {
        self.check(table)?;
        if let Some(reads) = &self.reads {
            reads.lock().range(table, lower, upper);
        }
        let own = match self.writes.is_empty() {
            true => None,
            false => {
                let scan = self.writes.scan(self.hold.shared(), table.id(), lower, upper);
                Some(Box::new(OwnScan(scan)) as Box<dyn Own>)
            }
        };
        Ok(SnapshotRange::new(&self.hold, table, self.hold.merge(table, own, lower, upper)?))
    }

    /// Sets the value of `key`.
    ///
    /// # Errors
    /// [`Error::KeyTooLong`], [`Error::ValueTooLarge`], [`Error::Poisoned`], [`Error::ForeignTable`],
    /// [`Error::TableDropped`]; where what was written no longer fits into memory also [`Error::NoSpace`] and those of
    /// reading and writing pages. Nothing was written then, and it stays usable.
    pub fn put(&mut self, table: &Table, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        let value = value.as_ref();
        self.hold.shared().check_value(value.len() as u64)?;
        self.write(table, key.as_ref(), Some(value))
    }

    /// Removes `key`; tells whether it was there. Errors as [`Transaction::get`] and [`Transaction::put`].
    pub fn delete(&mut self, table: &Table, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = key.as_ref();
        let there = self.contains(table, key)?;
        if there {
            self.write(table, key, None)?;
        }
        Ok(there)
    }

    /// Removes all keys in `range`; tells how many were there. Its memory is bounded, however many they are.
    ///
    /// # Errors
    /// As [`Transaction::get`] and [`Transaction::put`]; but the transaction is poisoned then.
    pub fn delete_range<K: AsRef<[u8]>>(&mut self, table: &Table, range: impl RangeBounds<K>) -> Result<u64> {
        let own = |bound: Bound<&K>| bound.map(|key| key.as_ref().to_vec());
        let (mut lower, upper) = (own(range.start_bound()), own(range.end_bound()));
        let mut deleted = 0;
        loop {
            match self.delete_chunk(table, &lower, &upper) {
                Ok((count, None)) => return Ok(deleted + count),
                Ok((count, Some(last))) => {
                    deleted += count;
                    lower = Bound::Excluded(last);
                }
                Err(e) => return Err(self.poisoned_by(e)),
            }
        }
    }

    /// Deletes the first keys of a range; how many, and the last of them if there may be more.
    fn delete_chunk(
        &mut self,
        table: &Table,
        lower: &Bound<Vec<u8>>,
        upper: &Bound<Vec<u8>>,
    ) -> Result<(u64, Option<Vec<u8>>)> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        {
            let (lower, upper) = (lower.as_ref(), upper.as_ref());
            let mut range = self.scan(table, lower.map(|key| &key[..]), upper.map(|key| &key[..]))?;
            while keys.len() < DELETE_CHUNK
                && let Some((key, _)) = range.next_ref()?
            {
                keys.push(key.to_vec());
            }
        }
        for key in &keys {
            self.write(table, key, None)?;
        }
        let count = keys.len();
        Ok((count as u64, if count == DELETE_CHUNK { keys.pop() } else { None }))
    }

    fn write(&mut self, table: &Table, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        self.check(table)?;
        let shared = self.hold.shared();
        shared.check_key(key)?;
        self.writes.put(shared, table.id(), key, value)?;
        if self.tables.iter().all(|known| known.id() != table.id()) {
            self.tables.push(table.clone());
        }
        Ok(())
    }

    /// The transaction is good for nothing but rolling back from now on.
    fn poisoned_by(&mut self, e: Error) -> Error {
        if let Error::Poisoned(_) = e {
            return e;
        }
        let cause = Arc::new(e);
        self.poison = Some(cause.clone());
        Error::Poisoned(cause)
    }

    /// Remembers this place. Savepoints nest.
    pub fn savepoint(&mut self) -> Savepoint {
        Savepoint { snapshot: self.id(), id: self.writes.savepoint() }
    }

    /// Takes back everything written since `savepoint`, and forgets the savepoints set since then. It can be rolled
    /// back to again. What was read since then still counts for a serializable transaction.
    ///
    /// # Errors
    /// [`Error::NoSavepoint`]; nothing is changed then.
    pub fn rollback_to(&mut self, savepoint: &Savepoint) -> Result<()> {
        let id = self.own_savepoint(savepoint)?;
        self.writes.rollback_to(self.hold.shared(), id).map_err(|_| Error::NoSavepoint)
    }

    /// Forgets `savepoint` and those set since then; what was written stays.
    ///
    /// # Errors
    /// [`Error::NoSavepoint`]; nothing is changed then.
    pub fn release(&mut self, savepoint: Savepoint) -> Result<()> {
        let id = self.own_savepoint(&savepoint)?;
        self.writes.release(id).map_err(|_| Error::NoSavepoint)
    }

    fn own_savepoint(&self, savepoint: &Savepoint) -> Result<SavepointId> {
        if savepoint.snapshot == self.id() { Ok(savepoint.id) } else { Err(Error::NoSavepoint) }
    }

    /// Commits, durable as the database's default says.
    ///
    /// # Errors
    /// As [`Transaction::commit_with`].
    pub fn commit(self) -> Result<CommitInfo> {
        let durability = self.hold.shared().durability;
        self.commit_with(durability)
    }

    /// Commits with the durability given. A transaction that wrote nothing always commits.
    ///
    /// # Errors
    /// [`Error::Conflict`]: it was rolled back and may be run again. [`Error::NotKnownDurable`]: it is committed and
    /// visible, and not known to be durable. Every other one: it was rolled back; [`Error::NoSpace`] if the disk is
    /// full, [`Error::Poisoned`], [`Error::TableDropped`].
    pub fn commit_with(self, durability: Durability) -> Result<CommitInfo> {
        let db = self.hold.db().clone();
        match self.commit_visible()? {
            None => Ok(CommitInfo { lsn: 0 }),
            Some(appended) => db.shared().wait_durable(appended, durability),
        }
    }

    /// Commits and does not wait: all of it is visible when this returns, and the ticket tells when it is durable.
    ///
    /// # Errors
    /// As [`Transaction::commit_with`], without [`Error::NotKnownDurable`].
    pub fn commit_ticket(self) -> Result<CommitTicket> {
        let db = self.hold.db().clone();
        Ok(match self.commit_visible()? {
            None => CommitTicket::of(&db, CommitInfo { lsn: 0 }),
            Some(appended) => {
                db.shared().after_commit();
                CommitTicket::new(db, appended)
            }
        })
    }

    fn commit_visible(mut self) -> Result<Option<Appended>> {
        if let Some(cause) = &self.poison {
            return Err(Error::Poisoned(cause.clone()));
        }
        self.writes.release_all();
        let shared = self.hold.shared();
        let nothing = ReadSet::default();
        let reads = self.reads.take().map(Mutex::into_inner);
        let validation = Validation {
            view: &self.hold.view,
            live: &self.hold.live,
            read: reads.as_ref().unwrap_or(&nothing),
        };
        if self.writes.is_empty() {
            return Ok(None);
        }
        // By the clock: nobody may have given it up yet.
        self.hold.not_expired()?;
        shared.commit_writes(&self.writes, &self.tables, &validation).map(Some)
    }

    /// Takes everything back, as dropping it does.
    pub fn rollback(mut self) {
        self.writes.clear(self.hold.shared());
    }
}
