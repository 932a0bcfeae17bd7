//! Driving checkpoints: when, in which order of steps, and what follows when one fails.
//!
//! # The order of steps
//!
//! 1. C, the replay LSN: every commit below it is wholly in the trees ([`crate::txn::slots`]). It is taken
//!    *before* the epoch is closed. All page operations of those commits are over, so they announced the
//!    epoch that is about to be closed or an earlier one, and the image holds them. Taken after the closing,
//!    C could pass a commit whose operations belong to the next epoch, and replay would skip what no page
//!    has.
//! 2. The pool closes the epoch and waits for the operations announced in it: for microseconds, never for a
//!    commit.
//! 3. L, the log's tail. The stamp of a commit is appended inside the operation that it stamps, so whatever
//!    the image holds has its record below L.
//! 4. The pages are written to free blocks. Commits go on meanwhile.
//! 5. The log is made durable at least up to L: the image must not hold what the log could still lose.
//! 6. The page map, then one superblock with C and L, then the other copy.
//! 7. Only now is anything given back: blocks and page ids by the pool, log segments below C here, and
//!    tombstones of tables whose drop C has passed.
//!
//! Commits in [C, L) may be in the image in part. Replay from C repeats them in log order, and what they do
//! to a key does not depend on what was there before.
//!
//! # When it fails
//!
//! An error up to step 5 that is not the log's gives this checkpoint up: the old one and the whole log since
//! still hold, the pages stay dirty, and it is tried again after as much log again. An error of the log, of a
//! data sync, or from the superblock write on makes the database read-only, because what is on the medium is
//! not known any more.
//!
//! # When
//!
//! After so many bytes of log, after so much time if anything was written, when asked, and at close. One at a
//! time. A committer that finds the log four times as long as it should be waits for the running checkpoint,
//! with nothing held.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bedstone_bufpool::CheckpointParams;
use bedstone_io::defect::{self, Defect};
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::error::{Error, Result};
use crate::options::Background;
use crate::shared::Shared;
use crate::stats::CheckpointInfo;
use crate::stepping::{CheckpointStep, Paused};

/// How many times the usual distance between checkpoints the log may grow to before committers wait.
const PATIENCE: u64 = 4;

thread_local! {
    /// This thread builds a long value, so a checkpoint would wait for it and it must not wait for a
    /// checkpoint.
    static BUILDING: Cell<bool> = const { Cell::new(false) };
}

/// Marks the thread as building a long value while it lives.
pub(crate) struct Building(());

impl Building {
    pub(crate) fn begin() -> Self {
        BUILDING.set(true);
        Self(())
    }

    pub(crate) fn is_on() -> bool {
        BUILDING.get()
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        BUILDING.set(false);
    }
}

/// What the checkpoints of a database share.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    /// One at a time.
    running: Mutex<()>,
    /// Where replay would begin: C of the last durable checkpoint.
    replay_lsn: AtomicU64,
    /// The log's tail when the last attempt began: the next is due so many bytes after it.
    attempted_at: AtomicU64,
    /// Something was changed that the log does not tell of, so that there is reason for a checkpoint without
    /// it.
    unlogged: AtomicBool,
    /// The last checkpoint of this run was made.
    ended: AtomicBool,
    wishes: Mutex<Wishes>,
    wake: Condvar,
    over: Condvar,
}

#[derive(Debug, Default)]
struct Wishes {
    wanted: bool,
    upkeep: bool,
    stop: bool,
    /// Attempts ended, whichever way.
    attempts: u64,
    failures: u64,
    last: CheckpointInfo,
    last_failure: Option<String>,
    /// When the last attempt ended.
    last_time: Duration,
}

/// What [`Checkpoints`] tells about the past.
#[derive(Debug, Clone, Default)]
pub(crate) struct CheckpointHistory {
    pub(crate) last: CheckpointInfo,
    pub(crate) failures: u64,
    pub(crate) last_failure: Option<String>,
}

impl Checkpoints {
    pub(crate) fn new(replay_lsn: u64, now: Duration) -> Self {
        let this = Self::default();
        this.replay_lsn.store(replay_lsn, Ordering::Relaxed);
        this.attempted_at.store(replay_lsn, Ordering::Relaxed);
        this.wishes.lock().last_time = now;
        this
    }

    pub(crate) fn replay_lsn(&self) -> u64 {
        self.replay_lsn.load(Ordering::Acquire)
    }

    pub(crate) fn history(&self) -> CheckpointHistory {
        let wishes = self.wishes.lock();
        CheckpointHistory {
            last: wishes.last.clone(),
            failures: wishes.failures,
            last_failure: wishes.last_failure.clone(),
        }
    }

    /// Waits for the checkpoint that is running and allows no other.
    pub(crate) fn end(&self) {
        let _one = self.running.lock();
        self.ended.store(true, Ordering::Release);
    }

    /// No checkpoint runs while what this gives is held.
    pub(crate) fn hold(&self) -> MutexGuard<'_, ()> {
        self.running.lock()
    }

    /// Something was changed that the log does not tell of.
    pub(crate) fn note_unlogged(&self) {
        self.unlogged.store(true, Ordering::Release);
    }

    /// Asks the background thread for a checkpoint.
    pub(crate) fn want(&self) {
        let mut wishes = self.wishes.lock();
        if !wishes.wanted {
            wishes.wanted = true;
            self.wake.notify_one();
        }
    }

    /// Asks the background thread for the work that is left of dropped tables.
    pub(crate) fn want_upkeep(&self) {
        self.wishes.lock().upkeep = true;
        self.wake.notify_one();
    }

    /// Tells the background thread to end.
    pub(crate) fn stop(&self) {
        self.wishes.lock().stop = true;
        self.wake.notify_one();
    }

    pub(crate) fn stopping(&self) -> bool {
        self.wishes.lock().stop
    }
}

impl Shared {
    /// This thread is inside something for which a checkpoint would wait, or that is a checkpoint.
    fn is_inside(&self) -> bool {
        Building::is_on() || Paused::is_on(self)
    }

    /// Refuses a call that waits for checkpoints where this thread would wait for itself.
    pub(crate) fn refuse_inside(&self, what: &'static str) -> Result<()> {
        if Building::is_on() {
            Err(Error::InsideReader { what })
        } else if Paused::is_on(self) {
            Err(Error::InsideCheckpoint { what })
        } else {
            Ok(())
        }
    }

    /// Makes a checkpoint. With `only_if_needed`, none is made when nothing has changed since the last.
    pub(crate) fn run_checkpoint(&self, only_if_needed: bool) -> Result<CheckpointInfo> {
        self.run_checkpoint_pausing(only_if_needed, &mut |_| {})
    }

    /// The same, with pauses between its steps.
    pub(crate) fn run_checkpoint_pausing(
        &self,
        only_if_needed: bool,
        pause: &mut dyn FnMut(CheckpointStep),
    ) -> Result<CheckpointInfo> {
        self.refuse_inside("checkpoint")?;
        let outcome = {
            let _one = self.checkpoints.running.lock();
            self.checkpoint_steps(only_if_needed, pause)
        };
        let mut wishes = self.checkpoints.wishes.lock();
        wishes.attempts += 1;
        wishes.last_time = self.disk.now();
        match &outcome {
            Ok(info) if info.number > 0 => wishes.last = info.clone(),
            Ok(_) => {}
            Err(e) => {
                wishes.failures += 1;
                wishes.last_failure = Some(e.to_string());
                tracing::warn!(error = %e, "checkpoint given up");
            }
        }
        drop(wishes);
        self.checkpoints.over.notify_all();
        outcome
    }

    fn checkpoint_steps(
        &self,
        only_if_needed: bool,
        pause: &mut dyn FnMut(CheckpointStep),
    ) -> Result<CheckpointInfo> {
        self.alive()?;
        let state = &self.checkpoints;
        if state.ended.load(Ordering::Acquire) {
            return Err(Error::Closed { path: self.path.clone() });
        }
        let tail = self.wal.tail().0;
        let unlogged = state.unlogged.swap(false, Ordering::AcqRel);
        state.attempted_at.store(tail, Ordering::Relaxed);
        if only_if_needed && !unlogged && tail == state.replay_lsn() {
            return Ok(CheckpointInfo::default());
        }
        let outcome = self.write_checkpoint(pause);
        if outcome.is_err() && unlogged {
            state.note_unlogged();
        }
        outcome
    }

    fn write_checkpoint(&self, pause: &mut dyn FnMut(CheckpointStep)) -> Result<CheckpointInfo> {
        let replay_lsn = self.slots.applied_below(|| self.wal.tail().0);
        let mut checkpoint = {
            let _no_builder = self.gate.close();
            self.pool.begin_checkpoint().map_err(|e| self.pool_error(e))?
        };
        let log_end = self.wal.tail().0;
        // Step 7 comes after step 6.
        if defect::is(Defect::RecycleEarly) {
            self.wal.recycle_below(bedstone_wal::Lsn(replay_lsn)).map_err(|e| self.wal_error(e))?;
        }
        pause(CheckpointStep::EpochClosed);
        checkpoint.write_pages_pausing(&mut |at| pause(at.into())).map_err(|e| self.pool_error(e))?;
        pause(CheckpointStep::PagesWritten);
        self.wal.sync().map_err(|e| self.wal_error(e))?;
        pause(CheckpointStep::LogSynced);
        checkpoint
            .finish_pausing(CheckpointParams { replay_lsn, log_end }, &mut |at| pause(at.into()))
            .map_err(|e| self.pool_error(e))?;
        self.checkpoints.replay_lsn.store(replay_lsn, Ordering::Release);
        let info = CheckpointInfo { number: self.pool.superblock().checkpoint, replay_lsn, log_end };
        tracing::debug!(number = info.number, replay_lsn, log_end, "checkpoint is durable");
        pause(CheckpointStep::SpaceFreed);
        // The checkpoint stands whatever becomes of the old segments; a log that failed says so itself.
        if let Err(e) = self.wal.recycle_below(bedstone_wal::Lsn(replay_lsn)) {
            let e = self.wal_error(e);
            tracing::warn!(error = %e, "old log segments could not be recycled");
            self.alive()?;
        }
        Ok(info)
    }

    /// Checkpoints are possible: nothing has failed.
    fn alive(&self) -> Result<()> {
        match self.state.cause() {
            Some(cause) => Err(Error::ReadOnlyFailed(cause.clone())),
            None => Ok(()),
        }
    }

    /// A checkpoint is due by the length of the log.
    fn checkpoint_due(&self) -> bool {
        let since = self.checkpoints.attempted_at.load(Ordering::Relaxed);
        self.wal.tail().0.saturating_sub(since) >= self.checkpoint_log_bytes
    }

    /// To be called before a write begins, with nothing held: waits while the log is much too long.
    pub(crate) fn pace(&self) {
        if self.background == Background::Manual || self.is_inside() {
            return;
        }
        let long = |c: &Checkpoints| {
            self.wal.tail().0.saturating_sub(c.replay_lsn())
                >= self.checkpoint_log_bytes.saturating_mul(PATIENCE)
        };
        if !long(&self.checkpoints) {
            return;
        }
        let mut wishes = self.checkpoints.wishes.lock();
        let before = wishes.attempts;
        wishes.wanted = true;
        self.checkpoints.wake.notify_one();
        // One attempt is waited for, not its success: a checkpoint that fails must not stop the commits.
        while wishes.attempts == before && !wishes.stop && self.state.is_open() && long(&self.checkpoints) {
            self.checkpoints.over.wait_for(&mut wishes, Duration::from_millis(100));
        }
    }

    /// To be called after a commit, with nothing held: begins the checkpoint that is due.
    pub(crate) fn after_commit(&self) {
        if !self.checkpoint_due() || self.is_inside() {
            return;
        }
        match self.background {
            Background::Threads => self.checkpoints.want(),
            // The commit is made; what becomes of the checkpoint is in the statistics.
            Background::Manual => drop(self.run_checkpoint(true)),
        }
    }

    /// The life of the background thread.
    pub(crate) fn background_loop(&self, interval: Option<Duration>) {
        loop {
            let mut wishes = self.checkpoints.wishes.lock();
            let timed = loop {
                if wishes.stop {
                    return;
                }
                if wishes.wanted || wishes.upkeep {
                    break false;
                }
                let now = self.disk.now();
                let due = interval.map(|interval| wishes.last_time + interval);
                if due.is_some_and(|due| due <= now) {
                    break true;
                }
                // Snapshots past their deadline are given up by the upkeep.
                let deadline = self.versions.next_deadline();
                if deadline.is_some_and(|deadline| deadline <= now) {
                    wishes.upkeep = true;
                    continue;
                }
                match due.into_iter().chain(deadline).min() {
                    None => self.checkpoints.wake.wait(&mut wishes),
                    Some(next) => drop(self.checkpoints.wake.wait_for(&mut wishes, next - now)),
                }
            };
            let (wanted, upkeep) = (wishes.wanted, wishes.upkeep);
            (wishes.wanted, wishes.upkeep) = (false, false);
            drop(wishes);
            if upkeep {
                self.upkeep();
            }
            if wanted || timed {
                let _ = self.run_checkpoint(true);
                self.upkeep();
            }
        }
    }
}
