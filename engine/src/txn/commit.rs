//! How a commit is made.
//!
//! # One key
//!
//! 1. The state is looked at, log space and frames are set aside. A full disk or a pool full of pinned pages
//!    is found here, before anything has happened.
//! 2. An apply slot is claimed and the key's stripe locked.
//! 3. The tree latches the leaf, makes sure that the change fits, announces itself to the checkpoint epochs
//!    and asks for its *stamp*: the log record is appended there and then, under the latch, filling the slot
//!    under the log's mutex. After it nothing can fail: the change is made in the leaf. If the log's buffer
//!    is full the append is refused, the tree lets go of everything, room is made with nothing latched, and
//!    step 3 begins again.
//! 4. Stripe and slot are released; the wait for durability follows with nothing held.
//!
//! *A checkpoint's image and the record*: the record is appended inside the announced operation. An operation
//! of epoch e has its record below the tail that the checkpoint reads after epoch e was closed, so the image
//! never holds what the log could still lose once the log is durable up to that tail.
//!
//! # Many keys
//!
//! 1. The writes are sorted by table and key; of several writes to one key only the last is left.
//! 2. Space for log and pages is set aside, long values are built, the stripes of all keys are locked in
//!    order, and the leaves are brought into memory, as many as the pool can hold. Everything that can fail
//!    should fail here.
//! 3. The record is appended (or the fragments and then the commit record, see [`super::fragments`]). Its LSN
//!    is the commit's.
//! 4. The writes are applied leaf by leaf. An error now cannot be undone, since the record is in the log: the
//!    database turns read-only, the slot stays filled so that no checkpoint passes the commit, and opening
//!    again replays it whole.
//! 5. As 4 above.
//!
//! Readers may see some writes of a batch before others while it is applied; a crash shows all of them or
//! none.
//!
//! # Long values
//!
//! A value that does not fit into a leaf is built in pages of its own before step 3, under a pass of the
//! build gate: checkpoints begin only while nobody holds one, so no checkpoint has pages of a value whose
//! leaf it has not. If its record is too large, the fragments are appended while the value is built, and the
//! stamp of step 3 appends the commit record. A commit given up on the way frees the pages and never writes a
//! commit record.

use std::io::Read;

use bedstone_bufpool::Reserve;
use bedstone_wal::{Appended, Durability, Lsn, SpaceCredit};

use crate::btree::{
    BuildPass, NewValue, OPERATION_PAGES, Outcome, PreparedOverflow, SourceError, Stamp, Tree, Write,
};
use crate::catalog::TableState;
use crate::checkpoint::Building;
use crate::db::CommitInfo;
use crate::error::{Error, Result};
use crate::shared::Shared;
use crate::stats::Counters;
use crate::table::Table;
use crate::txn::fragments::Fragments;
use crate::txn::history::Kept;
use crate::txn::record::{COMMIT, WRITES, WRITES_HEADER, WriteHeader};
use crate::txn::slots::ApplySlot;

/// A record ready to be appended by a stamp.
pub(crate) struct Ready<'r> {
    pub(crate) kind: u8,
    pub(crate) parts: &'r [&'r [u8]],
    /// It commits fragments, whose first LSN is in the slot already.
    pub(crate) ends_fragments: bool,
}

impl Shared {
    /// Applies one change with its record as the stamp. `Ok(None)`: a delete of what is not there.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn apply_stamped<'p>(
        &'p self,
        tree: &Tree,
        reserve: &mut Reserve<'p>,
        key: &[u8],
        write: &mut Write<'_, 'p>,
        attach: &mut Vec<bedstone_bufpool::NewPage<'p>>,
        slot: &ApplySlot<'_>,
        credit: &mut SpaceCredit<'_>,
        record: &Ready<'_>,
    ) -> Result<Option<Appended>> {
        loop {
            let mut appended = None;
            let mut refused = None;
            let outcome = tree.write(
                &self.pool,
                reserve,
                key,
                write,
                &mut || {
                    let mut on_lsn = |lsn: Lsn| {
                        if !record.ends_fragments {
                            slot.register_first(lsn.0);
                        }
                        slot.register_commit(lsn.0);
                    };
                    match self.wal.try_append(credit, record.kind, record.parts, &mut on_lsn) {
                        Ok(Some(place)) => {
                            appended = Some(place);
                            Stamp::Lsn(place.lsn.0)
                        }
                        Ok(None) => Stamp::Busy,
                        Err(e) => {
                            refused = Some(e);
                            Stamp::Busy
                        }
                    }
                },
                attach,
            );
            match outcome {
                Ok(Outcome::Applied { .. }) => return Ok(appended),
                Ok(Outcome::NotFound) => return Ok(None),
                Ok(Outcome::Busy) => match refused {
                    Some(e) => return Err(self.wal_error(e)),
                    None => self.wal.make_room().map_err(|e| self.wal_error(e))?,
                },
                Err(e) if appended.is_some() => {
                    slot.abandon();
                    return Err(self.fail(e.into()));
                }
                Err(e) => return Err(self.pool_error(e)),
            }
        }
    }

    /// Waits until a commit is as durable as asked for.
    pub(crate) fn wait_durable(&self, appended: Appended, durability: Durability) -> Result<CommitInfo> {
        if let Err(e) = self.wal.wait(appended.end, durability) {
            return Err(match self.wal_error(e) {
                Error::ReadOnlyFailed(cause) => Error::NotKnownDurable(cause),
                other => other,
            });
        }
        self.after_commit();
        Ok(CommitInfo { lsn: appended.lsn.0 })
    }
}

/// A value on its way into a table.
pub(crate) enum Source<'s> {
    /// In memory.
    Bytes(&'s [u8]),
    /// So many bytes from a reader.
    Reader(u64, &'s mut dyn Read),
}

impl Source<'_> {
    fn len(&self) -> u64 {
        match self {
            Source::Bytes(bytes) => bytes.len() as u64,
            Source::Reader(len, _) => *len,
        }
    }
}

/// Hands bytes on from the source of a value, and to the log as fragments if the value is too long for one
/// record.
struct Tee<'t, 'a> {
    shared: &'t Shared,
    source: &'t mut dyn Read,
    fragments: Option<&'t mut Fragments<'a>>,
    /// What failed on our side; the reader's own errors go through the pool's builder.
    failure: Option<Error>,
}

impl Read for Tee<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let read = self.source.read(buf)?.min(buf.len());
        let logged = self.shared.writable().and_then(|()| match &mut self.fragments {
            Some(fragments) => fragments.push(&buf[..read]),
            None => Ok(()),
        });
        logged.map(|()| read).map_err(|e| {
            self.failure = Some(e);
            std::io::Error::other("the database")
        })
    }
}

impl Shared {
    /// Sets one key, or removes it (`None`), as a commit of its own. `Ok(None)`: it was to be removed and is
    /// not there.
    pub(crate) fn write_key(
        &self,
        table: &TableState,
        key: &[u8],
        value: Option<Source<'_>>,
        durability: Durability,
    ) -> Result<Option<CommitInfo>> {
        self.writable()?;
        self.check_key(key)?;
        self.pace();
        let put = value.is_some();
        let value_len = value.as_ref().map_or(0, Source::len);
        self.check_value(value_len)?;
        let in_leaf = key.len() as u64 + value_len <= self.limits.max_inline_bytes as u64;
        let appended = match value {
            Some(Source::Reader(len, reader)) if len <= self.wal.max_payload() as u64 / 2 => {
                // Short enough to hold: the reader is not waited for with anything in hand.
                let mut bytes = Vec::with_capacity(len as usize);
                let read = reader.take(len).read_to_end(&mut bytes);
                let got = bytes.len() as u64;
                match read {
                    Ok(_) if got == len => {}
                    Ok(_) => return Err(reader_failed(got, len, std::io::ErrorKind::UnexpectedEof.into())),
                    Err(e) => return Err(reader_failed(got, len, e)),
                }
                self.write_bytes(table, key, &bytes, in_leaf)?
            }
            Some(Source::Bytes(bytes)) => self.write_bytes(table, key, bytes, in_leaf)?,
            // What a reader has given cannot be had from it again.
            Some(reader) => self.write_long(table, key, reader)?,
            None => self.with_relief(|| self.write_in_leaf(table, key, None, &mut always))?,
        };
        let Some(appended) = appended else { return Ok(None) };
        Counters::add(if put { &self.counters.puts } else { &self.counters.deletes }, 1);
        self.wait_durable(appended, durability).map(Some)
    }

    fn write_bytes(
        &self,
        table: &TableState,
        key: &[u8],
        value: &[u8],
        in_leaf: bool,
    ) -> Result<Option<Appended>> {
        self.with_relief(|| match in_leaf {
            true => self.write_in_leaf(table, key, Some(value), &mut always),
            false => self.write_long(table, key, Source::Bytes(value)),
        })
    }

    /// Sets one key, or removes it, if it has the value `expected` at that moment; tells whether it had.
    pub(crate) fn write_if(
        &self,
        table: &Table,
        key: &[u8],
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<bool> {
        self.writable()?;
        self.check_key(key)?;
        let len = new.map_or(0, <[u8]>::len) as u64;
        self.check_value(len)?;
        let holds = || -> Result<bool> { Ok(table.get(key)?.as_deref() == expected) };
        if key.len() as u64 + len > self.limits.max_inline_bytes as u64 {
            // Built in pages of its own, as part of a transaction.
            return table.database().update(|tx| {
                let holds = tx.get(table, key)?.as_deref() == expected;
                if holds {
                    tx.put(table, key, new.unwrap_or_default())?;
                }
                Ok(holds)
            });
        }
        self.pace();
        let mut held = true;
        let appended = self.with_relief(|| {
            self.write_in_leaf(table.state(), key, new, &mut || {
                held = holds()?;
                Ok(held)
            })
        })?;
        let Some(appended) = appended else { return Ok(held) };
        Counters::add(if new.is_some() { &self.counters.puts } else { &self.counters.deletes }, 1);
        self.wait_durable(appended, self.durability)?;
        Ok(true)
    }

    /// Does what finds out that the disk is full before anything has happened. A checkpoint may give space
    /// back, so one is made then and the attempt repeated once. Nothing may be held.
    pub(crate) fn with_relief<T>(&self, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        match attempt() {
            Err(e) if e.is_no_space() && self.writable().is_ok() && self.run_checkpoint(true).is_ok() => {
                attempt()
            }
            other => other,
        }
    }

    /// Room in the log for `records` records with `payload` bytes together. An urgent claim, of what frees
    /// space in the end, may draw on room that is kept back from others.
    pub(crate) fn log_room(&self, payload: u64, records: u64, urgent: bool) -> Result<SpaceCredit<'_>> {
        let credit = match urgent {
            true => self.wal.reserve_urgent(payload, records),
            false => self.wal.reserve(payload, records),
        };
        credit.map_err(|e| self.wal_error(e))
    }

    /// Frames, page ids and room in the data file for `pages` pages, [`OPERATION_PAGES`] for one operation of a tree;
    /// `urgent` as in [`Shared::log_room`].
    pub(crate) fn page_room(&self, pages: usize, urgent: bool) -> Result<Reserve<'_>> {
        let reserve = match urgent {
            true => self.pool.reserve_urgent(pages),
            false => self.pool.reserve(pages),
        };
        reserve.map_err(|e| self.pool_error(e))
    }

    /// A change whose cell lies in the leaf, if the key's stripe once held `only_if` says so.
    fn write_in_leaf(
        &self,
        table: &TableState,
        key: &[u8],
        value: Option<&[u8]>,
        only_if: &mut dyn FnMut() -> Result<bool>,
    ) -> Result<Option<Appended>> {
        let unix_ms = self.disk.unix_ms().to_le_bytes();
        let header = match value {
            Some(value) => WriteHeader::put(table.id, key.len(), value.len() as u64),
            None => WriteHeader::delete(table.id, key.len()),
        };
        let parts: [&[u8]; 4] = [&unix_ms, header.as_slice(), key, value.unwrap_or_default()];
        let payload: usize = parts.iter().map(|p| p.len()).sum();
        // A delete frees space in the end, so it may draw on room that is kept back.
        let urgent = value.is_none();
        let mut reserve = self.page_room(OPERATION_PAGES, urgent)?;
        let mut write = value.map_or(Write::Delete, |v| Write::Put(NewValue::Inline(v)));
        if payload <= self.wal.max_payload() {
            let mut credit = self.log_room(payload as u64, 1, urgent)?;
            let slot = self.slots.claim();
            let record = Ready { kind: WRITES, parts: &parts, ends_fragments: false };
            self.write_locked(table, &mut reserve, key, &mut write, &slot, &mut credit, &record, only_if)
        } else {
            let slot = self.slots.claim();
            let mut fragments = Fragments::begin(self, &slot, (payload - WRITES_HEADER) as u64, urgent)?;
            for part in &parts[1..] {
                fragments.push(part)?;
            }
            let (commit, mut credit) = fragments.finish()?;
            let record = Ready { kind: COMMIT, parts: &[&commit], ends_fragments: true };
            self.write_locked(table, &mut reserve, key, &mut write, &slot, &mut credit, &record, only_if)
        }
    }

    /// Enters the build gate if a value to be built asks for it. A reader that is being built from may not
    /// come here: the gate may be closing and wait for it.
    pub(crate) fn enter_gate(&self, needed: bool) -> Result<Option<BuildPass<'_>>> {
        match needed {
            false => Ok(None),
            true if Building::is_on() => Err(Error::InsideReader { what: "a write of a long value" }),
            true => Ok(Some(self.gate.enter())),
        }
    }

    /// A put whose value lies in pages of its own.
    fn write_long(&self, table: &TableState, key: &[u8], value: Source<'_>) -> Result<Option<Appended>> {
        let len = value.len();
        let unix_ms = self.disk.unix_ms().to_le_bytes();
        let header = WriteHeader::put(table.id, key.len(), len);
        let front = (header.as_slice().len() + key.len()) as u64;
        let in_one_record = WRITES_HEADER as u64 + front + len <= self.wal.max_payload() as u64;
        // The gate before everything that another builder may want.
        let pass = self.enter_gate(self.gate.needs_pass(self.pool.page_size(), len))?;
        // The user's reader is called with slot and pass in hand.
        let _building = (pass.is_some() || matches!(value, Source::Reader(..))).then(Building::begin);
        let mut reserve = self.page_room(OPERATION_PAGES, false)?;
        table.usable()?;
        let build = |tee: &mut Tee<'_, '_>| match PreparedOverflow::build(
            &self.pool,
            table.id,
            len,
            tee,
            pass.as_ref(),
        ) {
            Ok(prepared) => Ok(prepared),
            Err(SourceError::Pool(e)) => Err(self.pool_error(e)),
            Err(SourceError::Source { read, source }) => {
                Err(tee.failure.take().unwrap_or_else(|| reader_failed(read, len, source)))
            }
        };
        if let (Source::Bytes(bytes), true) = (&value, in_one_record) {
            let mut source = *bytes;
            let mut tee = Tee { shared: self, source: &mut source, fragments: None, failure: None };
            let prepared = build(&mut tee)?;
            let payload = WRITES_HEADER as u64 + front + len;
            let mut credit = self.log_room(payload, 1, false)?;
            let slot = self.slots.claim();
            let parts: [&[u8]; 4] = [&unix_ms, header.as_slice(), key, bytes];
            let record = Ready { kind: WRITES, parts: &parts, ends_fragments: false };
            let mut write = Write::Put(NewValue::Overflow(prepared));
            let (reserve, credit) = (&mut reserve, &mut credit);
            return self.write_locked(table, reserve, key, &mut write, &slot, credit, &record, &mut always);
        }
        let slot = self.slots.claim();
        let mut fragments = Fragments::begin(self, &slot, front + len, false)?;
        fragments.push(header.as_slice())?;
        fragments.push(key)?;
        let mut bytes: &[u8];
        let source: &mut dyn Read = match value {
            Source::Bytes(b) => {
                bytes = b;
                &mut bytes
            }
            Source::Reader(_, reader) => reader,
        };
        let mut tee = Tee { shared: self, source, fragments: Some(&mut fragments), failure: None };
        let prepared = build(&mut tee)?;
        let (commit, mut credit) = fragments.finish()?;
        let record = Ready { kind: COMMIT, parts: &[&commit], ends_fragments: true };
        let mut write = Write::Put(NewValue::Overflow(prepared));
        let (reserve, credit) = (&mut reserve, &mut credit);
        self.write_locked(table, reserve, key, &mut write, &slot, credit, &record, &mut always)
    }

    /// Steps 2 and 3 of a commit of one key: under its stripe, once it is certain that writing is still
    /// allowed.
    #[allow(clippy::too_many_arguments)]
    fn write_locked<'p>(
        &'p self,
        table: &TableState,
        reserve: &mut Reserve<'p>,
        key: &[u8],
        write: &mut Write<'_, 'p>,
        slot: &ApplySlot<'_>,
        credit: &mut SpaceCredit<'_>,
        record: &Ready<'_>,
        only_if: &mut dyn FnMut() -> Result<bool>,
    ) -> Result<Option<Appended>> {
        let urgent = matches!(write, Write::Delete);
        loop {
            let not_ready = {
                let _stripe = self.stripes.lock(table.id, key);
                self.writable()?;
                table.usable()?;
                if !only_if()? {
                    return Ok(None);
                }
                // Ends before the stripe is let go of.
                let commit = self.versions.begin_commit(true, None, || self.wal.tail().0);
                let kept = match commit.keeps {
                    true => self.keep_old(table, &commit, &[key], slot, urgent),
                    false => Ok(Kept::Yes),
                };
                match kept {
                    Err(e) => {
                        commit.give_up();
                        return Err(e);
                    }
                    Ok(Kept::NotReady { next }) => {
                        commit.give_up();
                        next
                    }
                    Ok(Kept::Yes) => {
                        let (tree, attach) = (&table.tree, &mut Vec::new());
                        let outcome =
                            self.apply_stamped(tree, reserve, key, write, attach, slot, credit, record);
                        if slot.is_abandoned() {
                            commit.abandon();
                        } else if !matches!(outcome, Ok(Some(_))) {
                            commit.give_up();
                        }
                        return outcome;
                    }
                }
            };
            self.prepare_history(table, not_ready, urgent)?;
        }
    }

    pub(crate) fn check_key(&self, key: &[u8]) -> Result<()> {
        let max = self.limits.max_key_bytes;
        if key.len() > max { Err(Error::KeyTooLong { len: key.len(), max }) } else { Ok(()) }
    }

    pub(crate) fn check_value(&self, len: u64) -> Result<()> {
        let max = self.limits.max_value_bytes;
        if len > max { Err(Error::ValueTooLarge { len, max }) } else { Ok(()) }
    }
}

/// The condition of a write that has none.
fn always() -> Result<bool> {
    Ok(true)
}

fn reader_failed(read: u64, len: u64, source: std::io::Error) -> Error {
    Error::Reader { read, len, source }
}
