//! Keeping prepared space ahead of the tail: one segment in advance, more when a credit asks for it, and the
//! recycling of segments that no checkpoint needs any more.
//!
//! The accounting: `free` = end of the prepared segments - tail - credits given out. A credit is debited by
//! compare-and-swap; an append moves the tail and shrinks its credit by the same number of bytes, so `free` does not
//! change; a new segment adds its bytes; dropping a credit gives back what is left of it. Since `free` is never
//! negative, every append that has a credit finds its bytes prepared.
//!
//! Two things are kept back from `free`:
//! - *The end of the last segment*, a record header long, from everybody. So a log that goes on to the end of a
//!   segment proves that there was a next one, durable: should it be missing, that is damage and not the log's end.
//! - *A reserve*, from all but [`Claim::Urgent`]: what leads to free space in the end, as deleting does, still finds
//!   room in the log when a full disk has stopped everything else. An opening sees to two segments if it can: then the
//!   log can always go on, for a checkpoint with the tail in one frees the other.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bedstone_io::sync::Ordering;

use crate::config::Background;
use crate::error::WalError;
use crate::lsn::Lsn;
use crate::record::RECORD_HEADER_BYTES;
use crate::segment::{SEGMENT_HEADER_BYTES, SegmentInfo};
use crate::shared::Shared;
use crate::space::{Fill, NotMade, Segment, Spare, make_segment};

/// What the mutex of segment making guards.
#[derive(Debug, Default)]
pub(crate) struct Supply {
    /// Segment files of the right length that are out of use.
    pub(crate) spares: Vec<Spare>,
    /// Making a segment in advance has failed; only a caller who needs one tries again.
    pub(crate) in_advance_failed: bool,
    /// When the newest segment was made or the log opened, on the disk's clock.
    pub(crate) last_made: Option<Duration>,
}

/// A log that fills a segment in less time than this is being loaded: new segments are only allocated, not zeroed.
const BUSY: Duration = Duration::from_secs(3);

/// The reserve is this share of a segment.
const RESERVE_SHARE: u64 = 8;

/// Who asks for space in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    Ordinary,
    /// What leads to free space in the end.
    Urgent,
}

impl Shared {
    /// What `claim` may not take of the free space.
    pub(crate) fn kept_back(&self, claim: Claim) -> u64 {
        match claim {
            Claim::Ordinary => self.cfg.segment_bytes / RESERVE_SHARE,
            Claim::Urgent => RECORD_HEADER_BYTES as u64,
        }
    }

    /// Takes `bytes` out of the free space, if they are there for `claim`.
    pub(crate) fn debit(&self, bytes: u64, claim: Claim) -> bool {
        let kept_back = self.kept_back(claim);
        let take = |free: u64| free.checked_sub(bytes).filter(|&left| left >= kept_back);
        self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok()
    }

    /// Gives `bytes` back to the free space.
    pub(crate) fn credit(&self, bytes: u64) {
        self.free.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Takes `bytes` out of the free space, making segments until they are there. Segments made in vain are given
    /// back, so that a request that is too large for the medium does not take the room of smaller ones.
    pub(crate) fn debit_or_prepare(&self, bytes: u64, claim: Claim) -> Result<(), WalError> {
        self.check()?;
        if self.debit(bytes, claim) {
            return Ok(());
        }
        let mut supply = self.supply.lock();
        let mut made = 0;
        loop {
            self.check()?;
            if self.debit(bytes, claim) {
                return Ok(());
            }
            match self.prepare_one(&mut supply, Fill::Allocated) {
                Ok(()) => made += 1,
                Err(error) => {
                    self.give_back(made);
                    return Err(self.not_made(error, bytes, claim));
                }
            }
        }
    }

    fn not_made(&self, error: NotMade, needed: u64, claim: Claim) -> WalError {
        match error {
            NotMade::NoSpace(source) => WalError::NoSpace {
                dir: self.cfg.dir.clone(),
                needed,
                free: self.free.load(Ordering::Acquire).saturating_sub(self.kept_back(claim)),
                segment_bytes: self.cfg.segment_bytes,
                source,
            },
            NotMade::Refused(error) => error,
            NotMade::SyncFailed(error) => {
                self.fail(error.into());
                self.failure()
            }
        }
    }

    /// At opening: makes sure of the second segment, and of the room that the tail needs.
    pub(crate) fn prepare_for_opening(&self) -> Result<(), WalError> {
        let mut supply = self.supply.lock();
        if self.state.lock().segments.len() > 1 {
            return Ok(());
        }
        match self.prepare_one(&mut supply, Fill::Allocated) {
            // The store can be read and emptied without it.
            Err(NotMade::NoSpace(error)) if self.debit(0, Claim::Urgent) => {
                supply.in_advance_failed = true;
                tracing::warn!(%error, "no space for a second log segment");
                Ok(())
            }
            Err(error) => Err(self.not_made(error, 0, Claim::Urgent)),
            Ok(()) => Ok(()),
        }
    }

    /// Makes the next segment and adds it to the free space.
    fn prepare_one(&self, supply: &mut Supply, fill: Fill) -> Result<(), NotMade> {
        let last_end = self.state.lock().segments.back().map(|segment| segment.end());
        let Some(start) = last_end else {
            return Err(NotMade::Refused(WalError::Internal { what: "the log has no segment" }));
        };
        let spare = supply.spares.pop();
        let reused = spare.is_some();
        let segment = make_segment(&*self.disk, &self.cfg, start, spare, fill)?;
        supply.last_made = Some(self.disk.now());
        supply.in_advance_failed = false;
        let mut state = self.state.lock();
        if reused {
            state.counters.segments_recycled += 1;
        } else {
            state.counters.segments_created += 1;
        }
        state.prepare_beyond = segment.start;
        state.segments.push_back(Arc::new(segment));
        drop(state);
        self.credit(self.cfg.segment_bytes);
        Ok(())
    }

    /// Removes up to `count` segments from the end of the prepared space, as long as nobody was promised them.
    fn give_back(&self, count: u64) {
        for _ in 0..count {
            if !self.debit(self.cfg.segment_bytes, Claim::Ordinary) {
                return;
            }
            let mut state = self.state.lock();
            // The debit proves that the tail and all credits end before the last segment: its bytes are free.
            let Some(segment) = state.segments.pop_back() else { return };
            state.prepare_beyond = state.segments.back().map_or(0, |last| last.start);
            state.counters.segments_removed += 1;
            drop(state);
            // From the last one backwards, each made durable: a later segment without the one before it would look
            // like damage.
            let removed = self.disk.remove(&segment.path).and_then(|()| self.disk.sync_dir(&self.cfg.dir));
            if let Err(error) = removed {
                self.fail(error.into());
                return;
            }
        }
    }

    /// Prepares a segment in advance if the tail has come into the last one. A full disk is no failure here: whoever
    /// needs the space will be told.
    pub(crate) fn prepare_ahead(&self) {
        let mut supply = self.supply.lock();
        let wanted = {
            let state = self.state.lock();
            state.segments.back().is_some_and(|last| state.buffer.tail() >= last.start)
        };
        if !wanted || supply.in_advance_failed || self.check().is_err() {
            return;
        }
        let busy = supply.last_made.is_some_and(|made| self.disk.now().saturating_sub(made) < BUSY);
        match self.prepare_one(&mut supply, if busy { Fill::Allocated } else { Fill::Zeros }) {
            Ok(()) => {}
            Err(NotMade::SyncFailed(error)) => self.fail(error.into()),
            Err(NotMade::NoSpace(error)) => {
                supply.in_advance_failed = true;
                tracing::warn!(%error, "no space for a log segment in advance");
            }
            Err(NotMade::Refused(error)) => {
                supply.in_advance_failed = true;
                tracing::warn!(%error, "a log segment could not be made in advance");
            }
        }
    }

    /// Puts out of use the segments that end at or before `lsn`; some are kept as spares, the others removed.
    pub(crate) fn recycle(&self, lsn: u64) -> Result<(), WalError> {
        self.check()?;
        let mut supply = self.supply.lock();
        let mut freed: Vec<(PathBuf, u64)> = Vec::new();
        {
            let mut state = self.state.lock();
            state.old.retain(|segment| {
                let keep = segment.end().0 > lsn;
                if !keep {
                    freed.push((segment.path.clone(), segment.file_len));
                }
                keep
            });
            let limit = lsn.min(state.ledger.durable());
            while state.segments.len() > 1
                && let Some(first) = state.segments.front()
                && first.end() <= limit
            {
                freed.push((first.path.clone(), SEGMENT_HEADER_BYTES + first.bytes));
                state.segments.pop_front();
            }
        }
        if freed.is_empty() {
            return Ok(());
        }
        // As many spares as segments were used up since the last time, and one because the same load fills one more
        // now and then: so a steady load makes no new segments, and what a burst took is given back one checkpoint
        // later.
        let keep = freed.len() + 1;
        let mut surplus = Vec::new();
        for (path, file_len) in freed {
            if file_len == SEGMENT_HEADER_BYTES + self.cfg.segment_bytes {
                supply.spares.push(Spare { path, old: true });
            } else {
                surplus.push(path);
            }
        }
        while supply.spares.len() > keep {
            surplus.extend(supply.spares.pop().map(|spare| spare.path));
        }
        supply.in_advance_failed = false;
        let mut outcome = Ok(());
        let mut removed = 0;
        for path in surplus {
            match self.disk.remove(&path) {
                Ok(()) => removed += 1,
                Err(error) => outcome = Err(error.into()),
            }
        }
        self.state.lock().counters.segments_removed += removed;
        drop(supply);
        self.ask_for_segment();
        outcome
    }

    /// Lets the background look whether a segment ought to be prepared.
    pub(crate) fn ask_for_segment(&self) {
        if self.cfg.background == Background::Threads {
            self.supply_bell.ring(Duration::ZERO);
        }
    }

    /// All segments in use, ascending.
    pub(crate) fn all_segments(&self) -> Vec<SegmentInfo> {
        let state = self.state.lock();
        let live = state.segments.iter().map(|segment: &Arc<Segment>| SegmentInfo {
            path: segment.path.clone(),
            start: Lsn(segment.start),
            bytes: segment.bytes,
            opening: self.cfg.opening,
            file_len: SEGMENT_HEADER_BYTES + segment.bytes,
        });
        state.old.iter().cloned().chain(live).collect()
    }
}
