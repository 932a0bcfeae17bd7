//! Committing what a transaction has written.
//!
//! Writes that are in memory are committed as a batch is ([`super::batch`]). Those that were moved out of memory are
//! walked through several times instead, a piece at a time:
//!
//! 1. to measure them: log space and room in the data file are set aside, so that a full disk is found now;
//! 2. to write them to the log as fragments ([`super::fragments`]); without a commit record these mean nothing;
//! 3. under all stripes, to validate them and to put the old values aside;
//! 4. after the commit record was appended, to apply them. From there on nothing may fail, as with a batch.

use std::ops::Bound;

use bedstone_bufpool::Reserve;
use bedstone_wal::{Appended, Lsn};

use super::batch::CHUNK;
use crate::batch::WriteBatch;
use crate::btree::{BuildPass, NewValue, OPERATION_PAGES, Op, PreparedOverflow, SourceError, Write};
use crate::checkpoint::Building;
use crate::error::{Error, Result};
use crate::shared::Shared;
use crate::stats::Counters;
use crate::table::Table;
use crate::txn::fragments::Fragments;
use crate::txn::history::Kept;
use crate::txn::record::{COMMIT, WriteHeader};
use crate::txn::slots::ApplySlot;
use crate::txn::stripes::{StripeSet, StripesHeld};
use crate::txn::validation::Validation;
use crate::txn::versions::{ELIDES_MAX, InFlight};
use crate::txn::write_set::{Side, WriteSet};

/// Bytes of keys and values that are applied at once.
const CHUNK_BYTES: usize = 1 << 20;

/// A piece of a write set, copied: keys with values or deletes, in order.
type Piece = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// What the first walk finds out.
#[derive(Default)]
struct Measure {
    writes: u64,
    /// Bytes in the log, without the headers of records.
    log_bytes: u64,
    /// Bytes in leaves and pages of their own: of tables whose last key is below the first one written, and of others.
    behind_bytes: u64,
    spread_bytes: u64,
    /// Values that need pages of their own.
    long: u64,
    only_deletes: bool,
}

impl Shared {
    /// Commits the writes of a transaction, but for the waiting.
    pub(crate) fn commit_writes(
        &self,
        writes: &WriteSet,
        tables: &[Table],
        check: &Validation<'_>,
    ) -> Result<Appended> {
        self.writable()?;
        self.pace();
        let appended = match writes.in_memory() {
            Some(in_memory) => {
                let mut batch = WriteBatch::new();
                let mut table: Option<&Table> = None;
                for (id, key, value) in in_memory {
                    if table.is_none_or(|table| table.id() != id) {
                        table = tables.iter().find(|table| table.id() == id);
                    }
                    let table = table.ok_or_else(|| Error::Internal("a write to an unknown table".into()))?;
                    match value {
                        Some(value) => batch.put(table, key, value)?,
                        None => batch.delete(table, key)?,
                    }
                }
                batch.sort();
                self.with_relief(|| self.commit_batch(&batch, Some(check)))?
            }
            None => self.with_relief(|| self.commit_spilled(writes, tables, check))?,
        };
        Counters::add(&self.counters.batches, 1);
        Counters::add(&self.counters.batch_writes, writes.len() as u64);
        Ok(appended)
    }

    fn commit_spilled(
        &self,
        writes: &WriteSet,
        tables: &[Table],
        check: &Validation<'_>,
    ) -> Result<Appended> {
        let measure = self.measure(writes, tables)?;
        // The gate before everything that another builder may want.
        let pass = self.enter_gate(measure.long > 0)?;
        let _building = pass.as_ref().map(|_| Building::begin());
        let mut reserve = self.page_room(OPERATION_PAGES, measure.only_deletes)?;
        // Every write may change another leaf; of the pages there are, some are those of the write set itself, which
        // are not fuller than full. The pages that are added are a third full at least; three quarters, where keys come
        // one behind the other after all there were.
        let page_size = self.pool.page_size() as u64;
        let tables_pages = self.pool.stats().live_pages.saturating_sub(measure.log_bytes / page_size);
        let changed = measure.writes.min(tables_pages);
        let added = measure.spread_bytes / (page_size / 3) + measure.behind_bytes / (page_size * 3 / 4);
        let added = added + measure.long * 2 + tables.len() as u64;
        reserve.hold_space(changed + added + OPERATION_PAGES as u64).map_err(|e| self.pool_error(e))?;

        let slot = self.slots.claim();
        let mut fragments = Fragments::begin(self, &slot, measure.log_bytes, measure.only_deletes)?;
        for table in tables {
            let mut scan = writes.scan(self, table.id(), Bound::Unbounded, Bound::Unbounded);
            while scan.advance(Side::Front)? {
                let (key, value) = scan.current(Side::Front);
                fragments.push(header(table, key, value).as_slice())?;
                fragments.push(key)?;
                fragments.push(value.unwrap_or_default())?;
            }
        }
        let (commit, mut credit) = fragments.finish()?;
        let (_held, flight) = self.begin_spilled(writes, tables, check, &slot, measure.only_deletes)?;
        let appended = self
            .wal
            .append(&mut credit, COMMIT, &[&commit], &mut |lsn: Lsn| slot.register_commit(lsn.0))
            .map_err(|e| self.wal_error(e))?;
        reserve.make_urgent();
        let applied = self.apply_spilled(writes, tables, &mut reserve, appended, pass.as_ref());
        if let Err(e) = applied {
            slot.abandon();
            flight.abandon();
            return Err(self.fail(e));
        }
        Ok(appended)
    }

    fn measure(&self, writes: &WriteSet, tables: &[Table]) -> Result<Measure> {
        let mut measure = Measure { only_deletes: true, ..Measure::default() };
        for table in tables {
            table.state().usable()?;
            let last = self.last_key(table.state())?;
            let mut behind = None;
            let mut scan = writes.scan(self, table.id(), Bound::Unbounded, Bound::Unbounded);
            while scan.advance(Side::Front)? {
                let (key, value) = scan.current(Side::Front);
                let behind = *behind.get_or_insert_with(|| last.as_deref().is_none_or(|last| last < key));
                let bytes = key.len() + value.map_or(0, <[u8]>::len);
                measure.writes += 1;
                measure.log_bytes += (header(table, key, value).as_slice().len() + bytes) as u64;
                if value.is_some() {
                    measure.only_deletes = false;
                    let pages = if behind { &mut measure.behind_bytes } else { &mut measure.spread_bytes };
                    *pages += bytes as u64 + 16;
                    measure.long += u64::from(bytes > self.limits.max_inline_bytes);
                }
            }
        }
        Ok(measure)
    }

    /// Locks everybody out, validates, begins the commit and puts the old values aside.
    fn begin_spilled<'s>(
        &'s self,
        writes: &WriteSet,
        tables: &[Table],
        check: &Validation<'_>,
        slot: &ApplySlot<'_>,
        urgent: bool,
    ) -> Result<(StripesHeld<'s>, InFlight<'s>)> {
        let mut all = StripeSet::default();
        all.add_all();
        loop {
            let held = self.stripes.lock_sets(&all, &StripeSet::default());
            self.writable()?;
            for table in tables {
                table.state().usable()?;
                self.pieces(writes, table, |piece| {
                    check.writes(self, table, piece.iter().map(|(key, _)| &key[..]))
                })?;
            }
            check.reads(self)?;
            let flight = self.versions.begin_commit(false, None, || self.wal.tail().0);
            match self.keep_spilled(writes, tables, &flight, slot, urgent) {
                Ok(None) => return Ok((held, flight)),
                Err(e) => {
                    flight.give_up();
                    return Err(e);
                }
                Ok(Some((table, next))) => {
                    flight.give_up();
                    drop(held);
                    self.prepare_history(table.state(), next, urgent)?;
                }
            }
        }
    }

    fn keep_spilled<'t>(
        &self,
        writes: &WriteSet,
        tables: &'t [Table],
        flight: &InFlight<'_>,
        slot: &ApplySlot<'_>,
        urgent: bool,
    ) -> Result<Option<(&'t Table, bool)>> {
        for table in tables {
            if let Some(first) = self.first_of_many(writes, table)?
                && self.mark_new(table.state(), flight, &first)?
            {
                continue;
            }
            let mut not_ready = None;
            self.pieces(writes, table, |piece| {
                if not_ready.is_none() {
                    let keys: Vec<&[u8]> = piece.iter().map(|(key, _)| &key[..]).collect();
                    if let Kept::NotReady { next } =
                        self.keep_old(table.state(), flight, &keys, slot, urgent)?
                    {
                        not_ready = Some(next);
                    }
                }
                Ok(())
            })?;
            if let Some(next) = not_ready {
                return Ok(Some((table, next)));
            }
        }
        Ok(None)
    }

    /// The first key of the writes of a table, if they are so many that a mark is better than as many old values: to
    /// other transactions it is a change of every key behind it.
    fn first_of_many(&self, writes: &WriteSet, table: &Table) -> Result<Option<Vec<u8>>> {
        let mut scan = writes.scan(self, table.id(), Bound::Unbounded, Bound::Unbounded);
        let first = scan.next()?.map(|(key, _)| key.to_vec());
        for _ in 0..ELIDES_MAX {
            if scan.next()?.is_none() {
                return Ok(None);
            }
        }
        Ok(first)
    }

    /// Walks through the writes of one table, some at a time.
    fn pieces(
        &self,
        writes: &WriteSet,
        table: &Table,
        mut each: impl FnMut(&Piece) -> Result<()>,
    ) -> Result<()> {
        let mut scan = writes.scan(self, table.id(), Bound::Unbounded, Bound::Unbounded);
        let mut piece = Piece::new();
        let mut bytes = 0;
        while scan.advance(Side::Front)? {
            let (key, value) = scan.current(Side::Front);
            bytes += key.len() + value.map_or(0, <[u8]>::len);
            piece.push((key.to_vec(), value.map(<[u8]>::to_vec)));
            if piece.len() == CHUNK || bytes >= CHUNK_BYTES {
                each(&piece)?;
                piece.clear();
                bytes = 0;
            }
        }
        if !piece.is_empty() {
            each(&piece)?;
        }
        Ok(())
    }

    fn apply_spilled<'p>(
        &'p self,
        writes: &WriteSet,
        tables: &[Table],
        reserve: &mut Reserve<'p>,
        appended: Appended,
        pass: Option<&BuildPass<'p>>,
    ) -> Result<()> {
        for table in tables {
            let tree = table.state().tree;
            self.pieces(writes, table, |piece| {
                let mut ops: Vec<Op<'_, '_>> = Vec::with_capacity(piece.len());
                for (key, value) in piece {
                    let write = match value {
                        None => Write::Delete,
                        Some(value) if key.len() + value.len() <= self.limits.max_inline_bytes => {
                            Write::Put(NewValue::Inline(value))
                        }
                        Some(value) => {
                            let (mut source, len) = (&value[..], value.len() as u64);
                            // From the room set aside: there may be no other.
                            let (pool, id) = (&self.pool, table.id());
                            let built =
                                PreparedOverflow::build_from(pool, id, len, &mut source, pass, reserve);
                            let mut built = built.map_err(|e| match e {
                                SourceError::Pool(e) => Error::from(e),
                                other => Error::Internal(other.to_string()),
                            })?;
                            built.publish_early();
                            Write::Put(NewValue::Overflow(built))
                        }
                    };
                    ops.push(Op { key, write, lsn: appended.lsn.0 });
                }
                Ok(tree.apply_sorted(&self.pool, reserve, &mut ops)?)
            })?;
        }
        Ok(())
    }
}

fn header(table: &Table, key: &[u8], value: Option<&[u8]>) -> WriteHeader {
    match value {
        Some(value) => WriteHeader::put(table.id(), key.len(), value.len() as u64),
        None => WriteHeader::delete(table.id(), key.len()),
    }
}
