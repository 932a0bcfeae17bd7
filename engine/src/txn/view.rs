//! Reading a table as a snapshot sees it.

use std::ops::Bound;
use std::sync::Arc;

use crate::btree::{Found, OverflowReader, OverflowRef};
use crate::db::Database;
use crate::error::{Error, Result};
use crate::shared::Shared;
use crate::table::Table;
use crate::txn::history::{Answer, Old};
use crate::txn::merge::{Merge, Own};
use crate::txn::versions::{Broken, Label, Live, View};
use crate::value::Value;

/// A snapshot's hold on the database: what it sees, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Hold {
    db: Database,
    pub(crate) live: Arc<Live>,
    pub(crate) view: Arc<View>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let shared = self.db.shared();
        let oldest = shared.versions.end_snapshot(&self.live);
        if oldest && shared.versions.holds_much() {
            shared.want_upkeep();
        }
    }
}

impl Hold {
    /// Takes a snapshot.
    pub(crate) fn new(db: &Database, label: Label) -> Result<Self> {
        let shared = db.shared();
        shared.readable()?;
        let ticket = || Arc::new(shared.pool.owned_ticket());
        let (live, view) =
            shared.versions.begin_snapshot(label, ticket, || shared.wal.tail().0).map_err(|Broken| {
                match shared.state.cause() {
                    Some(cause) => Error::ReadOnlyFailed(cause.clone()),
                    None => Error::Internal("a commit was left half-applied".into()),
                }
            })?;
        if live.label.deadline.is_some() {
            shared.checkpoints.want_upkeep();
        }
        Ok(Self { db: db.clone(), live, view })
    }

    pub(crate) fn db(&self) -> &Database {
        &self.db
    }

    pub(crate) fn shared(&self) -> &Shared {
        self.db.shared()
    }

    /// The table is one of this database and can be read, and the snapshot was not given up.
    pub(crate) fn check(&self, table: &Table) -> Result<()> {
        if !table.database().is_same(&self.db) {
            return Err(Error::ForeignTable { name: table.name() });
        }
        table.readable()?;
        self.not_expired()
    }

    /// Has to be asked after reading as well: what was read once the snapshot had been given up may be wrong.
    pub(crate) fn not_expired(&self) -> Result<()> {
        let deadline = self.live.label.deadline;
        if self.live.is_expired() || deadline.is_some_and(|deadline| self.shared().disk.now() >= deadline) {
            return Err(Error::SnapshotTooOld);
        }
        Ok(())
    }

    /// The value of `key`.
    pub(crate) fn get<'t>(&self, table: &'t Table, key: &[u8]) -> Result<Option<Value<'t>>> {
        self.check(table)?;
        let shared = table.shared();
        if key.len() > shared.limits.max_key_bytes {
            return Ok(None);
        }
        let read = table.state().tree.get_stamped(&shared.pool, key);
        let (found, lsn) = read.map_err(|e| table.reading_error(&e))?;
        let value = match lsn < self.view.low_lsn {
            true => found.map(|found| table.value(found)).transpose(),
            false => {
                let value = self.resolve(table, key, found);
                // A table that was dropped meanwhile has taken its history with it.
                self.check(table)?;
                value
            }
        };
        self.not_expired()?;
        value
    }

    /// The values of many keys.
    pub(crate) fn multi_get<'t, K: AsRef<[u8]>>(
        &self,
        table: &'t Table,
        keys: &[K],
    ) -> Result<Vec<Option<Value<'t>>>> {
        self.check(table)?;
        let mut values = table.multi_get(keys)?;
        // Whatever the snapshot does not see was in the history before it was in a leaf.
        let resolved = match table.state().history.is_empty() {
            true => Ok(()),
            false => keys.iter().zip(&mut values).try_for_each(|(key, value)| {
                if let Answer::Was(old) = self.shared().history_of(table.state(), &self.view, key.as_ref())? {
                    *value = self.old_value(table, old)?;
                }
                Ok(())
            }),
        };
        // A table dropped, or a snapshot given up, meanwhile: that is what any answer means then.
        self.check(table)?;
        resolved.map(|()| values)
    }

    /// What of a leaf that may hold newer things the snapshot sees.
    fn resolve<'t>(
        &self,
        table: &'t Table,
        key: &[u8],
        found: Option<Found<'t>>,
    ) -> Result<Option<Value<'t>>> {
        match self.shared().history_of(table.state(), &self.view, key)? {
            Answer::AsInLeaf => found.map(|found| table.value(found)).transpose(),
            Answer::Was(old) => self.old_value(table, old),
        }
    }

    pub(crate) fn old_value<'t>(&self, table: &'t Table, old: Old) -> Result<Option<Value<'t>>> {
        Ok(match old {
            Old::Absent => None,
            Old::Inline(bytes) => Some(Value::owned(bytes)),
            Old::Long(value) => Some(Value::owned(self.long(table, value)?)),
        })
    }

    /// A value in pages of its own that was replaced since; the snapshot's tickets keep them.
    pub(crate) fn long(&self, table: &Table, value: OverflowRef) -> Result<Vec<u8>> {
        let Some(stamp) = self.live.stamps.lock().first().cloned() else { return Err(Error::SnapshotTooOld) };
        let shared = table.shared();
        let read =
            OverflowReader::new(table.state().tree, &shared.pool, value, shared.pool.ticket_like(&stamp))
                .and_then(|mut reader| reader.read_all());
        self.not_expired()?;
        read.map_err(|e| table.reading_error(&e))
    }

    /// The entries of a range, under a transaction's `own` ones.
    pub(crate) fn merge<'t>(
        &self,
        table: &'t Table,
        own: Option<Box<dyn Own + 't>>,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
    ) -> Result<Merge<'t>> {
        self.check(table)?;
        Ok(Merge::new(table.shared(), table.state(), self.view.clone(), own, lower, upper))
    }
}
