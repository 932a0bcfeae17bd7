//! What the log's callers and its threads share, and the carrying out of duties.
//!
//! Locks, in the order in which they may be taken together: `supply`, then `state`. `state` is never held across
//! I/O; `supply` is held while segments are made and recycled, which no commit with a credit waits for.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bedstone_io::Disk;
use bedstone_io::defect::{self, Defect};
use bedstone_io::sync::{AtomicBool, AtomicU64, Ordering};
use parking_lot::Mutex;

use crate::background::Bell;
use crate::buffer::{LogBuffer, pad_to_page};
use crate::config::WalConfig;
use crate::error::WalError;
use crate::group::{Ledger, Need, SyncRun, Turn};
use crate::notify::Wakers;
use crate::segment::{SEGMENT_HEADER_BYTES, SegmentInfo};
use crate::space::Segment;
use crate::stats::{GROUP_CLASSES, group_class};
use crate::supply::Supply;
use crate::waiter::Waiter;

/// Counters kept under the state's mutex.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) records: u64,
    pub(crate) appended_bytes: u64,
    pub(crate) writes: u64,
    pub(crate) written_bytes: u64,
    pub(crate) syncs: u64,
    pub(crate) synced_commits: u64,
    pub(crate) commits_per_sync: [u64; GROUP_CLASSES],
    pub(crate) buffer_full: u64,
    pub(crate) segments_created: u64,
    pub(crate) segments_recycled: u64,
    pub(crate) segments_removed: u64,
}

/// What the log's mutex guards.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) buffer: LogBuffer,
    pub(crate) ledger: Ledger<Arc<Waiter>>,
    /// Ascending and without gaps from the one that holds the durable position to the last one prepared.
    pub(crate) segments: VecDeque<Arc<Segment>>,
    /// Complete segments older than those, ascending: kept until recycled.
    pub(crate) old: Vec<SegmentInfo>,
    /// The tail position beyond which another segment ought to be prepared; `u64::MAX` once that was asked for.
    pub(crate) prepare_beyond: u64,
    pub(crate) counters: Counters,
    pub(crate) wakers: Wakers,
}

/// The log, as callers and threads share it.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) cfg: WalConfig,
    /// CRC that every record's CRC continues from.
    pub(crate) seed: u32,
    pub(crate) state: Mutex<State>,
    pub(crate) supply: Mutex<Supply>,
    /// Prepared bytes beyond the tail that are promised to nobody.
    pub(crate) free: AtomicU64,
    /// Copies of what the state says, for readers without the lock. Stored under it, so they only grow.
    pub(crate) tail: AtomicU64,
    pub(crate) written: AtomicU64,
    pub(crate) durable: AtomicU64,
    /// Why the log failed. Set before the ledger is told.
    pub(crate) failure: OnceLock<Arc<WalError>>,
    /// A relaxed commit waits to be synced.
    pub(crate) relaxed: AtomicBool,
    /// It is to be synced at once, and the bell for that was rung or is about to be.
    pub(crate) asked: AtomicBool,
    pub(crate) flush_bell: Bell,
    pub(crate) wake_bell: Bell,
    pub(crate) supply_bell: Bell,
}

/// Fails the log if a thread unwinds while it holds a duty, for others wait for that duty to end; and if a thread of
/// the log's own unwinds.
pub(crate) struct OnUnwind<'a> {
    pub(crate) shared: &'a Shared,
}

impl Drop for OnUnwind<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.fail(WalError::Internal { what: "a thread panicked while it worked for the log" });
        }
    }
}

impl Shared {
    /// The error of every call after the log has failed.
    pub(crate) fn failure(&self) -> WalError {
        match self.failure.get() {
            Some(error) => WalError::Failed(Arc::clone(error)),
            None => WalError::Internal { what: "the log failed for no reason" },
        }
    }

    pub(crate) fn check(&self) -> Result<(), WalError> {
        if self.failure.get().is_some() { Err(self.failure()) } else { Ok(()) }
    }

    /// Marks the log as failed for good and tells everybody who waits. The first error is the one that is kept.
    pub(crate) fn fail(&self, error: WalError) {
        tracing::error!(%error, dir = %self.cfg.dir.display(), "the log has failed");
        let mut told = Vec::new();
        let wake = {
            let mut state = self.state.lock();
            let _ = self.failure.set(Arc::new(error));
            state.ledger.fail();
            state.ledger.dispatch(&mut told);
            state.wakers.all_due();
            state.wakers.any_due()
        };
        tell(told);
        if wake {
            self.call_or_ring();
        }
    }

    /// Returns once the log has reached `upto`, which does not lie beyond the tail, in the sense of `need`: by
    /// carrying out the duties that fall to this thread, and by waiting for those of others.
    pub(crate) fn reach(&self, need: Need, upto: u64) -> Result<(), WalError> {
        let mut turn = self.turn_or_wait(need, upto);
        loop {
            turn = match turn {
                Turn::Done => return Ok(()),
                Turn::Failed => return Err(self.failure()),
                Turn::Write => self.write(need, upto),
                Turn::Sync(run) => self.sync_run(run, need, upto),
                Turn::Wait => self.turn_or_wait(need, upto),
            }
        }
    }

    fn turn_or_wait(&self, need: Need, upto: u64) -> Turn {
        let waiter = {
            let mut state = self.state.lock();
            match state.ledger.turn(need, upto) {
                Turn::Wait => {
                    let waiter = Waiter::new();
                    state.ledger.enqueue(need, upto, Arc::clone(&waiter));
                    waiter
                }
                turn => return turn,
            }
        };
        waiter.wait()
    }

    /// Carries out the duty to write; returns this thread's next turn.
    fn write(&self, need: Need, upto: u64) -> Turn {
        let _guard = OnUnwind { shared: self };
        let (start, mut bytes, segments) = {
            let mut state = self.state.lock();
            let (start, bytes) = state.buffer.take();
            let end = start + bytes.len() as u64;
            (start, bytes, state.segments_between(start, end))
        };
        let end = start + bytes.len() as u64;
        let outcome = match self.failure.get() {
            // Another thread's sync failed since this duty was given away; nothing is written after a failure.
            Some(_) => Ok(0),
            None => write_bytes(&segments, start, &mut bytes),
        };
        let writes = outcome.unwrap_or_else(|error| {
            self.fail(error);
            0
        });
        let mut told = Vec::new();
        let turn = {
            let mut state = self.state.lock();
            if writes > 0 {
                state.counters.writes += writes;
                state.counters.written_bytes += bytes.len() as u64;
            }
            state.buffer.give_back(bytes);
            state.ledger.write_done(end);
            self.written.store(state.ledger.written(), Ordering::Release);
            let turn = state.ledger.turn(need, upto);
            state.ledger.dispatch(&mut told);
            turn
        };
        tell(told);
        turn
    }

    /// Carries out a duty to sync; returns this thread's next turn.
    fn sync_run(&self, run: SyncRun, need: Need, upto: u64) -> Turn {
        let _guard = OnUnwind { shared: self };
        let segments = self.state.lock().segments_between(run.from, run.upto);
        let succeeded = match sync_segments(&segments, run) {
            Ok(()) => true,
            Err(error) => {
                self.fail(error);
                false
            }
        };
        let mut told = Vec::new();
        let (turn, wake) = {
            let mut state = self.state.lock();
            if succeeded {
                state.counters.syncs += 1;
                if let Some(ended) = state.ledger.sync_done(run) {
                    let durable = state.ledger.durable();
                    let ended = ended + state.wakers.reached(durable);
                    state.counters.synced_commits += ended;
                    if let Some(class) = state.counters.commits_per_sync.get_mut(group_class(ended)) {
                        *class += 1;
                    }
                }
            }
            self.durable.store(state.ledger.durable(), Ordering::Release);
            let turn = state.ledger.turn(need, upto);
            state.ledger.dispatch(&mut told);
            (turn, state.wakers.any_due())
        };
        tell(told);
        // A thread that comes from a sync holds no other duty now: the position it wants was written before.
        if wake {
            self.call_or_ring();
        }
        turn
    }
}

impl State {
    /// The segments that hold bytes of log between two positions, in order.
    fn segments_between(&self, from: u64, to: u64) -> Vec<Arc<Segment>> {
        self.segments
            .iter()
            .filter(|segment| segment.start < to && segment.end() > from)
            .map(Arc::clone)
            .collect()
    }
}

/// Writes `bytes`, which begin at the position `start`, and zeros up to the end of the page. Returns the number of
/// writes.
fn write_bytes(segments: &[Arc<Segment>], start: u64, bytes: &mut Vec<u8>) -> Result<u64, WalError> {
    let Some(first) = segments.first() else {
        return if bytes.is_empty() { Ok(0) } else { Err(NO_SEGMENT) };
    };
    let end = start + bytes.len() as u64;
    // Segments are whole pages long, so this is the place in the page of whichever segment the last byte is in.
    pad_to_page(bytes, start - first.start);
    let mut writes = 0;
    let mut rest = bytes.as_slice();
    let mut at = start;
    for segment in segments {
        let Some(file) = segment.files.first() else { return Err(NO_SEGMENT) };
        if !(segment.start..segment.end()).contains(&at) {
            return Err(NO_SEGMENT);
        }
        let n = rest.len().min((segment.end() - at) as usize);
        let (now, later) = rest.split_at(n);
        file.write_at(now, SEGMENT_HEADER_BYTES + (at - segment.start))?;
        writes += 1;
        at += n as u64;
        rest = later;
    }
    // Only bytes that belong to the log count; the last segment's size is a multiple of the page size, so the zeros
    // never need a segment more.
    if at < end { Err(NO_SEGMENT) } else { Ok(writes) }
}

const NO_SEGMENT: WalError =
    WalError::Internal { what: "records were appended beyond the prepared segments" };

fn sync_segments(segments: &[Arc<Segment>], run: SyncRun) -> Result<(), WalError> {
    for segment in segments {
        let Some(file) = segment.files.get(run.slot) else { return Err(NO_SEGMENT) };
        // The rule: nobody is acknowledged before this has succeeded.
        if defect::is(Defect::SkipLogSync) {
            continue;
        }
        let outcome = file.sync_data();
        // The rule: a sync that failed is never repeated, because what it should have covered may count as clean by then.
        if defect::is(Defect::RetryFailedSync) && outcome.is_err() {
            file.sync_data()?;
            continue;
        }
        outcome?;
    }
    Ok(())
}

/// Tells threads their turns, those with a duty first.
pub(crate) fn tell(mut told: Vec<(Arc<Waiter>, Turn)>) {
    told.sort_by_key(|(_, turn)| !matches!(turn, Turn::Write | Turn::Sync(_)));
    for (waiter, turn) in told {
        waiter.tell(turn);
    }
}
