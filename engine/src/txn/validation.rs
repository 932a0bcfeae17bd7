//! Whether a transaction may commit: what it has read and written must be as its snapshot had it.
//!
//! Both questions are put to the history ([`super::history`]): since the transaction's snapshot is live from its
//! beginning on, every commit that the snapshot does not see has put the old values of its keys aside, before it
//! changed anything. So a key (or a key of a range) was changed if and only if the history has a version of it that
//! the snapshot asks for.
//!
//! * **Snapshot isolation.** No key that the transaction writes was changed: the first committer wins. The stripes of
//!   these keys are held, so nobody changes them between this look and the transaction's own writes.
//! * **Serializable.** Nothing that it read was changed either. The stripes of the keys read are held, shared, and all
//!   stripes if it has read ranges, until its writes are in the trees. So at that instant all its reads would give the
//!   same again, and it might as well have run there as a whole: the transactions are equivalent to one after the
//!   other, in the order of their csns (backward validation; Kung and Robinson, "On Optimistic Methods for Concurrency
//!   Control", 1981). Transactions that only read are not validated: their snapshot is the state after a prefix of
//!   such an order, for the commits that it leaves out although later ones are in are in flight, and what is in
//!   flight at the same time shares no key with each other that one of them writes.

use std::collections::HashSet;
use std::ops::Bound;

use crate::error::{Error, Result};
use crate::shared::Shared;
use crate::table::Table;
use crate::txn::history::{Answer, HistoryScan, Way};
use crate::txn::stripes::StripeSet;
use crate::txn::versions::{Live, View};

/// Keys and ranges read that are remembered one by one; beyond that, whole tables are.
const KEYS_MAX: usize = 1 << 16;
const RANGES_MAX: usize = 4096;

/// What a serializable transaction has read.
#[derive(Debug, Default)]
pub(crate) struct ReadSet {
    /// Bit set of the stripes of `keys`, or all if there are `ranges`.
    stripes: StripeSet,
    keys: HashSet<(u32, Box<[u8]>)>,
    ranges: Vec<ReadRange>,
    tables: Vec<Table>,
    /// Tables of which everything counts as read.
    whole: HashSet<u32>,
}

#[derive(Debug)]
struct ReadRange {
    table: u32,
    lower: Bound<Vec<u8>>,
    upper: Bound<Vec<u8>>,
}

impl ReadSet {
    /// A key was looked up.
    pub(crate) fn key(&mut self, table: &Table, key: &[u8]) {
        if self.whole.contains(&table.id()) {
            return;
        }
        if self.keys.insert((table.id(), key.into())) {
            self.stripes.add(table.id(), key);
            self.know(table);
            if self.keys.len() > KEYS_MAX {
                self.coarsen();
            }
        }
    }

    /// A range was read; all of it counts, however far the reader came.
    pub(crate) fn range(&mut self, table: &Table, lower: Bound<&[u8]>, upper: Bound<&[u8]>) {
        if self.whole.contains(&table.id()) {
            return;
        }
        let (lower, upper) = (lower.map(<[u8]>::to_vec), upper.map(<[u8]>::to_vec));
        self.ranges.push(ReadRange { table: table.id(), lower, upper });
        self.stripes.add_all();
        self.know(table);
        if self.ranges.len() > RANGES_MAX {
            self.coarsen();
        }
    }

    /// From now on whole tables count instead of what was read of them.
    #[cold]
    fn coarsen(&mut self) {
        self.keys.clear();
        self.ranges.clear();
        for table in &self.tables {
            let table = table.id();
            self.ranges.push(ReadRange { table, lower: Bound::Unbounded, upper: Bound::Unbounded });
            self.whole.insert(table);
        }
        self.stripes.add_all();
    }

    fn know(&mut self, table: &Table) {
        if self.tables.iter().all(|known| known.id() != table.id()) {
            self.tables.push(table.clone());
        }
    }
}

/// What a commit has to look at before it begins.
pub(crate) struct Validation<'t> {
    pub(crate) view: &'t View,
    pub(crate) live: &'t Live,
    pub(crate) read: &'t ReadSet,
}

impl Validation<'_> {
    /// The stripes of what was read.
    pub(crate) fn read_stripes(&self) -> &StripeSet {
        &self.read.stripes
    }

    /// The transaction's own snapshot.
    pub(crate) fn snapshot(&self) -> &Live {
        self.live
    }

    /// None of these keys was changed since the snapshot.
    pub(crate) fn writes<'k>(
        &self,
        shared: &Shared,
        table: &Table,
        keys: impl Iterator<Item = &'k [u8]>,
    ) -> Result<()> {
        self.not_expired()?;
        if table.state().history.is_empty() {
            return Ok(());
        }
        let view = shared.versions.for_validation(self.view);
        let mut keys = keys;
        let outcome = keys.try_for_each(|key| unchanged(shared, table, &view, key));
        // Given up meanwhile, it may have missed something.
        self.not_expired()?;
        outcome
    }

    /// Nothing that was read was changed since the snapshot.
    pub(crate) fn reads(&self, shared: &Shared) -> Result<()> {
        self.not_expired()?;
        let outcome = self.look_at_reads(shared);
        self.not_expired()?;
        outcome
    }

    fn look_at_reads(&self, shared: &Shared) -> Result<()> {
        // A table that was dropped has taken its history with it.
        self.read.tables.iter().try_for_each(|table| table.state().usable())?;
        let view = shared.versions.for_validation(self.view);
        for (id, key) in &self.read.keys {
            if let Some(table) = self.read.tables.iter().find(|table| table.id() == *id) {
                unchanged(shared, table, &view, key)?;
            }
        }
        for range in &self.read.ranges {
            let Some(table) = self.read.tables.iter().find(|table| table.id() == range.table) else {
                continue;
            };
            let (lower, upper) = (range.lower.as_ref(), range.upper.as_ref());
            let (lower, upper) = (lower.map(|key| &key[..]), upper.map(|key| &key[..]));
            let scan = HistoryScan::new(shared, table.state(), &view, Way::Forward, lower, upper);
            let Some(mut scan) = scan else { continue };
            if let Some(key) = scan.peek(&view)? {
                return Err(conflict(table, Some(key)));
            }
            if scan.is_marked_below(upper) {
                return Err(conflict(table, None));
            }
        }
        Ok(())
    }

    /// A snapshot that was given up may miss changes.
    fn not_expired(&self) -> Result<()> {
        if self.live.is_expired() { Err(Error::SnapshotTooOld) } else { Ok(()) }
    }
}

fn unchanged(shared: &Shared, table: &Table, view: &View, key: &[u8]) -> Result<()> {
    match shared.history_of(table.state(), view, key)? {
        Answer::AsInLeaf => Ok(()),
        Answer::Was(_) => Err(conflict(table, Some(key))),
    }
}

fn conflict(table: &Table, key: Option<&[u8]>) -> Error {
    Error::Conflict { table: table.name(), key: key.map(<[u8]>::to_vec) }
}
