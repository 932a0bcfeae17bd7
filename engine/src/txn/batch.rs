//! Committing a batch; the steps and their reasons are in [`super::commit`].

use bedstone_bufpool::Reserve;
use bedstone_io::defect::{self, Defect};
use bedstone_wal::{Appended, Durability, Lsn};

use crate::batch::{BatchWrite, WriteBatch};
use crate::btree::{BuildPass, NewValue, OPERATION_PAGES, Op, PreparedOverflow, SourceError, Write};
use crate::checkpoint::Building;
use crate::db::CommitInfo;
use crate::error::{Error, Result};
use crate::shared::Shared;
use crate::stats::Counters;
use crate::txn::fragments::Fragments;
use crate::txn::history::Kept;
use crate::txn::record::{COMMIT, WRITES, WRITES_HEADER};
use crate::txn::slots::ApplySlot;
use crate::txn::stripes::{StripeSet, StripesHeld};
use crate::txn::validation::Validation;
use crate::txn::versions::{ELIDES_MAX, InFlight};

/// Writes handed to the tree at once; bounds the memory that applying a batch takes.
pub(crate) const CHUNK: usize = 16 << 10;

/// So many leaves are not worth a look at how many pages there are.
const FEW_LEAVES: u64 = 1000;

impl Shared {
    /// Commits a batch.
    pub(crate) fn write_batch(&self, mut batch: WriteBatch, durability: Durability) -> Result<CommitInfo> {
        self.writable()?;
        if batch.is_empty() {
            return Ok(CommitInfo { lsn: 0 });
        }
        self.pace();
        batch.sort();
        let appended = self.with_relief(|| self.commit_batch(&batch, None))?;
        Counters::add(&self.counters.batches, 1);
        Counters::add(&self.counters.batch_writes, batch.len() as u64);
        self.wait_durable(appended, durability)
    }

    /// Makes the commit of a batch, but for the waiting. A transaction's batch is validated first, under the stripes
    /// of what it has read and written.
    pub(crate) fn commit_batch(
        &self,
        batch: &WriteBatch,
        check: Option<&Validation<'_>>,
    ) -> Result<Appended> {
        let pieces = batch.pieces();
        let payload: u64 = pieces.iter().map(|p| p.len() as u64).sum();
        let long: Vec<usize> =
            (0..batch.len()).filter(|&i| self.is_long(batch, &batch.writes()[i])).collect();
        // The gate before everything that another builder may want.
        let pass = self.enter_gate(!long.is_empty())?;
        let _building = pass.as_ref().map(|_| Building::begin());
        let urgent = batch.only_deletes();
        let mut reserve = self.page_room(OPERATION_PAGES, urgent)?;
        let mut prepared = self.build_long(batch, &long, pass.as_ref())?;
        self.warm(batch, payload, &mut reserve)?;

        let slot = self.slots.claim();
        let fragmented = WRITES_HEADER as u64 + payload > self.wal.max_payload() as u64;

        let mut stripes = StripeSet::default();
        for write in batch.writes() {
            stripes.add(batch.tables()[write.table as usize].id(), write.key(batch.raw()));
        }
        if batch.len() > ELIDES_MAX {
            // Nearly all of them anyway; and who has all is alone.
            stripes.add_all();
        }
        let appended;
        if fragmented {
            let mut fragments = Fragments::begin(self, &slot, payload, urgent)?;
            for piece in &pieces {
                fragments.push(piece)?;
            }
            let (commit, mut credit) = fragments.finish()?;
            let (_held, flight) = self.begin_batch(batch, &stripes, check, &slot, urgent)?;
            appended = self
                .wal
                .append(&mut credit, COMMIT, &[&commit], &mut |lsn: Lsn| slot.register_commit(lsn.0))
                .map_err(|e| self.wal_error(e))?;
            self.apply_batch(batch, &mut reserve, &mut prepared, appended, &slot, flight)?;
        } else {
            // The rule: one record, so that the log has all of the commit or nothing.
            let halves = if defect::is(Defect::HalfBatch) { 2 } else { 1 };
            let bytes = halves * WRITES_HEADER as u64 + payload;
            let mut credit = self.log_room(bytes, halves, urgent)?;
            let (_held, flight) = self.begin_batch(batch, &stripes, check, &slot, urgent)?;
            let unix_ms = self.disk.unix_ms().to_le_bytes();
            let mut pieces = &pieces[..];
            if halves == 2 {
                let (half, rest) = pieces.split_at(pieces.len() / 2);
                pieces = rest;
                let parts = [&[&unix_ms[..]], half].concat();
                self.wal
                    .append(&mut credit, WRITES, &parts, &mut |lsn: Lsn| slot.register_first(lsn.0))
                    .map_err(|e| self.wal_error(e))?;
            }
            let mut parts: Vec<&[u8]> = Vec::with_capacity(pieces.len() + 1);
            parts.push(&unix_ms);
            parts.extend_from_slice(pieces);
            appended = self
                .wal
                .append(&mut credit, WRITES, &parts, &mut |lsn: Lsn| {
                    if halves == 1 {
                        slot.register_first(lsn.0);
                    }
                    slot.register_commit(lsn.0);
                })
                .map_err(|e| self.wal_error(e))?;
            self.apply_batch(batch, &mut reserve, &mut prepared, appended, &slot, flight)?;
        }
        Ok(appended)
    }

    /// Locks the stripes, validates, begins the commit and puts the old values aside where that is needed: all that
    /// comes before the record and may still fail. The stripes must outlive the commit in flight.
    fn begin_batch<'s>(
        &'s self,
        batch: &WriteBatch,
        stripes: &StripeSet,
        check: Option<&Validation<'_>>,
        slot: &ApplySlot<'_>,
        urgent: bool,
    ) -> Result<(StripesHeld<'s>, InFlight<'s>)> {
        loop {
            let none = StripeSet::default();
            let held = self.stripes.lock_sets(stripes, check.map_or(&none, |check| check.read_stripes()));
            self.allowed(batch)?;
            if let Some(check) = check {
                for (table, writes) in by_table(batch.writes()) {
                    let table = &batch.tables()[table as usize];
                    check.writes(self, table, writes.iter().map(|write| write.key(batch.raw())))?;
                }
                check.reads(self)?;
            }
            let own = check.map(Validation::snapshot);
            let flight = self.versions.begin_commit(batch.len() <= ELIDES_MAX, own, || self.wal.tail().0);
            if !flight.keeps {
                return Ok((held, flight));
            }
            match self.keep_batch(batch, &flight, slot, stripes.is_full(), urgent) {
                Ok(None) => return Ok((held, flight)),
                Err(e) => {
                    flight.give_up();
                    return Err(e);
                }
                Ok(Some((table, next))) => {
                    flight.give_up();
                    drop(held);
                    self.prepare_history(batch.tables()[table as usize].state(), next, urgent)?;
                }
            }
        }
    }

    /// Puts the old values of a batch aside. Not ready: for which table, and whether it needs the next generation.
    fn keep_batch(
        &self,
        batch: &WriteBatch,
        flight: &InFlight<'_>,
        slot: &ApplySlot<'_>,
        alone: bool,
        urgent: bool,
    ) -> Result<Option<(u32, bool)>> {
        let raw = batch.raw();
        for (index, writes) in by_table(batch.writes()) {
            let table = batch.tables()[index as usize].state();
            let keys: Vec<&[u8]> = writes.iter().map(|write| write.key(raw)).collect();
            if alone && keys.len() > ELIDES_MAX && self.mark_new(table, flight, keys[0])? {
                continue;
            }
            if let Kept::NotReady { next } = self.keep_old(table, flight, &keys, slot, urgent)? {
                return Ok(Some((index, next)));
            }
        }
        Ok(None)
    }

    /// Under the stripes: writing is still allowed, and no table of the batch was dropped.
    fn allowed(&self, batch: &WriteBatch) -> Result<()> {
        self.writable()?;
        batch.tables().iter().try_for_each(|table| table.state().usable())
    }

    fn is_long(&self, batch: &WriteBatch, write: &BatchWrite) -> bool {
        let raw = batch.raw();
        write
            .value(raw)
            .is_some_and(|value| write.key(raw).len() + value.len() > self.limits.max_inline_bytes)
    }

    /// Builds the values of a batch that lie in pages of their own.
    fn build_long<'p>(
        &'p self,
        batch: &WriteBatch,
        long: &[usize],
        pass: Option<&BuildPass<'p>>,
    ) -> Result<Vec<(usize, PreparedOverflow<'p>)>> {
        let mut prepared = Vec::with_capacity(long.len());
        for &i in long {
            let write = &batch.writes()[i];
            let table = batch.tables()[write.table as usize].id();
            let mut value = write.value(batch.raw()).unwrap_or_default();
            let len = value.len() as u64;
            let mut built = match PreparedOverflow::build(&self.pool, table, len, &mut value, pass) {
                Ok(built) => built,
                Err(SourceError::Pool(e)) => return Err(self.pool_error(e)),
                Err(e) => return Err(Error::Internal(e.to_string())),
            };
            if long.len() > 1 {
                // Many values together would hold too many frames if they stayed unpublished.
                built.publish_early();
            }
            prepared.push((i, built));
        }
        Ok(prepared)
    }

    /// Brings the leaves of a batch into memory, as many as the pool can well hold, and sets room in the file
    /// aside for what applying it may add. What can fail fails here, before the log knows of the batch.
    fn warm(&self, batch: &WriteBatch, payload: u64, reserve: &mut Reserve<'_>) -> Result<()> {
        let raw = batch.raw();
        let frames = self.pool_frames;
        let mut leaves = 0;
        for (table, writes) in by_table(batch.writes()) {
            let table = &batch.tables()[table as usize];
            let keys: Vec<&[u8]> = writes.iter().map(|w| w.key(raw)).collect();
            table.state().usable()?;
            leaves += table
                .state()
                .tree
                .warm(&self.pool, &keys, frames / 4)
                .map_err(|e| table.reading_error(&e))?;
        }
        // A split leaves two leaves at least a third full, but for ascending keys, which leave full ones.
        let added = payload / (self.pool.page_size() as u64 / 3) + 1;
        let mut leaves = leaves as u64;
        if leaves > FEW_LEAVES {
            // Those beyond what was brought in are only known not to be more than the keys.
            leaves = leaves.min(self.pool.stats().live_pages);
        }
        reserve.hold_space(leaves + added + OPERATION_PAGES as u64).map_err(|e| self.pool_error(e))
    }

    /// Makes the writes of a batch whose record is in the log. From here on nothing may fail.
    fn apply_batch<'p>(
        &'p self,
        batch: &WriteBatch,
        reserve: &mut Reserve<'p>,
        prepared: &mut Vec<(usize, PreparedOverflow<'p>)>,
        appended: Appended,
        slot: &ApplySlot<'_>,
        flight: InFlight<'_>,
    ) -> Result<()> {
        let raw = batch.raw();
        let lsn = appended.lsn.0;
        reserve.make_urgent();
        let mut long = prepared.drain(..).peekable();
        let mut at = 0;
        for (table, writes) in by_table(batch.writes()) {
            let tree = batch.tables()[table as usize].state().tree;
            for chunk in writes.chunks(CHUNK) {
                let mut ops: Vec<Op<'_, '_>> = Vec::with_capacity(chunk.len());
                for write in chunk {
                    let value = match long.next_if(|(i, _)| *i == at) {
                        Some((_, built)) => Write::Put(NewValue::Overflow(built)),
                        None => write.value(raw).map_or(Write::Delete, |v| Write::Put(NewValue::Inline(v))),
                    };
                    ops.push(Op { key: write.key(raw), write: value, lsn });
                    at += 1;
                }
                if let Err(e) = tree.apply_sorted(&self.pool, reserve, &mut ops) {
                    slot.abandon();
                    flight.abandon();
                    return Err(self.fail(e.into()));
                }
            }
        }
        Ok(())
    }
}

/// Sorted writes, one table at a time.
fn by_table(writes: &[BatchWrite]) -> impl Iterator<Item = (u32, &[BatchWrite])> {
    writes.chunk_by(|a, b| a.table == b.table).map(|run| (run[0].table, run))
}
