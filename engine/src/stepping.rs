//! Background work by hand, for programs that want to decide what happens when: deterministic simulations above all.
//!
//! With [`crate::Background::Manual`] the database has no threads. Its caller does the work of each of them piece by piece
//! ([`Database::work`]), and may do other things between the steps of a checkpoint
//! ([`Database::checkpoint_stepwise`]), as threads beside a checkpoint do. So one thread, and with it one seed, decides the
//! whole schedule.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use bedstone_bufpool::Pause;

use crate::db::Database;
use crate::error::Result;
use crate::shared::Shared;
use crate::stats::CheckpointInfo;

/// A piece of background work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Work {
    /// Prepares the next segment of the log, so that no commit has to.
    LogSegment,
    /// Makes relaxed commits durable, and commits whose tickets asked for it.
    LogSync,
    /// Writes changed pages out, so that there are free frames.
    PageWriter,
    /// Makes a checkpoint if the log has grown long enough since the last.
    Checkpoint,
    /// Gives back the pages of dropped tables and the old values that no snapshot needs any more, and ends snapshots whose
    /// deadline has passed.
    Purge,
}

impl Work {
    /// Every piece, in the order of [`Database::step`].
    pub const ALL: [Work; 5] =
        [Work::LogSegment, Work::LogSync, Work::PageWriter, Work::Checkpoint, Work::Purge];
}

/// How far a checkpoint has come when [`Database::checkpoint_stepwise`] pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CheckpointStep {
    /// Its moment is fixed: what is committed from here on belongs to the next one.
    EpochClosed,
    /// Some of its pages are written.
    SomePagesWritten,
    /// All of its pages are written, not yet durable.
    PagesWritten,
    /// The log is durable as far as the pages know of it: so is every commit acknowledged before this step.
    LogSynced,
    /// The new parts of the page map are written, not yet durable.
    MapWritten,
    /// Pages and map are durable; the superblocks know nothing of them.
    DataSynced,
    /// The superblocks are durable: this checkpoint counts.
    SuperblocksWritten,
    /// What the checkpoint before held is free again.
    SpaceFreed,
}

impl From<Pause> for CheckpointStep {
    fn from(at: Pause) -> Self {
        match at {
            Pause::SomePagesWritten => Self::SomePagesWritten,
            Pause::MapWritten => Self::MapWritten,
            Pause::DataSynced => Self::DataSynced,
            Pause::SuperblocksWritten => Self::SuperblocksWritten,
        }
    }
}

thread_local! {
    /// The databases, by address, between the steps of whose checkpoints this thread is.
    static PAUSED: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// Marks the thread as being between the steps of a database's checkpoint while it lives.
pub(crate) struct Paused(());

impl Paused {
    fn begin(of: &Shared) -> Self {
        PAUSED.with_borrow_mut(|paused| paused.push(std::ptr::from_ref(of).addr()));
        Self(())
    }

    pub(crate) fn is_on(of: &Shared) -> bool {
        PAUSED.with_borrow(|paused| paused.contains(&std::ptr::from_ref(of).addr()))
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        PAUSED.with_borrow_mut(|paused| paused.pop());
    }
}

impl Database {
    /// Does one piece of background work, if it is due. Allowed always, of use with [`crate::Background::Manual`]. Work that
    /// fails is tried again later, unless the failure turns the database read-only.
    ///
    /// # Errors
    /// [`crate::Error::ReadOnlyFailed`] or [`crate::Error::Closed`], if the database takes no more writes.
    pub fn work(&self, work: Work) -> Result<()> {
        let shared = self.shared();
        shared.writable()?;
        match work {
            Work::LogSegment => shared.wal.prepare_segment(),
            Work::LogSync => shared.wal.flush_relaxed(),
            Work::PageWriter => shared.pool.write_ahead(),
            Work::Checkpoint => shared.after_commit(),
            Work::Purge => shared.upkeep(),
        }
        shared.writable()
    }

    /// Does the background work that is due, every piece of it; for [`crate::Background::Manual`].
    ///
    /// # Errors
    /// As [`Database::work`].
    pub fn step(&self) -> Result<()> {
        Work::ALL.into_iter().try_for_each(|work| self.work(work))
    }

    /// Makes a checkpoint now and calls `between` after each of its steps. The database may be used there as by any other
    /// thread: commits, reads, snapshots, [`Database::work`].
    ///
    /// # Errors
    /// As [`Database::checkpoint`]. Calls in `between` that wait for checkpoints ([`Database::checkpoint`],
    /// [`Database::check`], [`Database::close`]) give [`crate::Error::InsideCheckpoint`]; the last handle must not be
    /// dropped there.
    ///
    /// # Panics
    /// If `between` does, and then after the end of the checkpoint: it is not called any more, and the checkpoint is made.
    pub fn checkpoint_stepwise(&self, mut between: impl FnMut(CheckpointStep)) -> Result<CheckpointInfo> {
        let shared = self.shared();
        shared.writable()?;
        let mut panic = None;
        let outcome = shared.run_checkpoint_pausing(false, &mut |step| {
            // A checkpoint that is left in the middle by unwinding would leave its books unlike the medium.
            if panic.is_none() {
                let _paused = Paused::begin(shared);
                panic = catch_unwind(AssertUnwindSafe(|| between(step))).err();
            }
        });
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
        let info = outcome?;
        shared.upkeep();
        Ok(info)
    }
}
