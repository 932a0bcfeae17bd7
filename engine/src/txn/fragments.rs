//! Writing a commit that is too large for one log record.
//!
//! The byte string of its writes goes out as fragments, cut anywhere, and a small commit record ends it; see
//! [`super::record`]. Without the commit record the fragments mean nothing, so a commit that is given up
//! half-way, or cut off by a crash, never happened. The apply slot holds the first fragment's LSN until the
//! writes are in the trees, so that the log a replay would need is still there.

use bedstone_wal::SpaceCredit;

use crate::error::Result;
use crate::shared::Shared;
use crate::txn::record::{self, FRAGMENT, FRAGMENT_HEADER};
use crate::txn::slots::ApplySlot;

/// Bytes of writes in one fragment, at most. Large enough that headers do not matter, small enough that the
/// log's mutex and buffer are never taken up by one commit.
const PIECE_MAX: usize = 256 << 10;

/// Collects the bytes of a commit's writes and appends them as fragments.
pub(crate) struct Fragments<'a> {
    shared: &'a Shared,
    slot: &'a ApplySlot<'a>,
    credit: SpaceCredit<'a>,
    piece: Vec<u8>,
    piece_max: usize,
    transaction: u64,
    count: u32,
    bytes: u64,
}

impl<'a> Fragments<'a> {
    /// Sets log space aside for a commit of `bytes` bytes of writes and its commit record. Nothing is
    /// appended yet. For `urgent` see [`Shared::log_room`].
    pub(crate) fn begin(
        shared: &'a Shared,
        slot: &'a ApplySlot<'a>,
        bytes: u64,
        urgent: bool,
    ) -> Result<Self> {
        let piece_max = PIECE_MAX.min(shared.wal.max_payload() - FRAGMENT_HEADER);
        let pieces = bytes.div_ceil(piece_max as u64);
        let payload = bytes + pieces * FRAGMENT_HEADER as u64 + record::COMMIT_BYTES as u64;
        let credit = shared.log_room(payload, pieces + 1, urgent)?;
        Ok(Self {
            shared,
            slot,
            credit,
            piece: Vec::with_capacity(piece_max.min(bytes as usize)),
            piece_max,
            transaction: 0,
            count: 0,
            bytes: 0,
        })
    }

    /// Adds bytes. Whole pieces are appended at once, which may wait for the log; nothing latched may be
    /// held.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(self.piece_max - self.piece.len()));
            self.piece.extend_from_slice(now);
            bytes = later;
            if self.piece.len() == self.piece_max {
                self.append_piece()?;
            }
        }
        Ok(())
    }

    fn append_piece(&mut self) -> Result<()> {
        let (slot, transaction) = (self.slot, self.transaction);
        let appended = self
            .shared
            .wal
            .append(&mut self.credit, FRAGMENT, &[&transaction.to_le_bytes(), &self.piece], &mut |lsn| {
                if transaction == 0 {
                    slot.register_first(lsn.0);
                }
            })
            .map_err(|e| self.shared.wal_error(e))?;
        if transaction == 0 {
            self.transaction = appended.lsn.0;
        }
        self.count += 1;
        self.bytes += self.piece.len() as u64;
        self.piece.clear();
        Ok(())
    }

    /// Appends what is left and gives the commit record's payload, and the credit to append it with.
    pub(crate) fn finish(mut self) -> Result<([u8; record::COMMIT_BYTES], SpaceCredit<'a>)> {
        if !self.piece.is_empty() {
            self.append_piece()?;
        }
        let unix_ms = self.shared.disk.unix_ms();
        Ok((record::commit(self.transaction, self.count, self.bytes, unix_ms), self.credit))
    }
}
