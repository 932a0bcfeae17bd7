//! What all handles of an open database share, and the three states it can be in.
//!
//! *Open*: everything works. *Failed*: something happened after which a promise could be broken (a sync of
//! the log failed, a commit is in the log but could not be applied, a checkpoint failed from its superblock
//! on): reads go on, no write begins, no checkpoint is made, and opening again recovers. *Closed*: nothing
//! works.
//!
//! A writer looks at the state once it has its apply slot and before it appends anything. Closing changes the
//! state and then waits until no slot is owned: after that nobody is between log and trees, and nobody comes
//! there any more.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bedstone_bufpool::{Pool, PoolError};
use bedstone_io::{Disk, LockFile};
use bedstone_wal::{Wal, WalError};
use parking_lot::Mutex;

use crate::btree::BuildGate;
use crate::catalog::Catalog;
use crate::checkpoint::Checkpoints;
use crate::error::{Error, Result};
use crate::options::{Background, Durability, Limits};
use crate::stats::{Counters, RecoveryReport};
use crate::txn::slots::Slots;
use crate::txn::stripes::Stripes;
use crate::txn::versions::Versions;

const OPEN: u8 = 0;
const FAILED: u8 = 1;
const CLOSED: u8 = 2;

/// The parts of an open database.
pub(crate) struct Shared {
    pub(crate) path: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) pool: Pool,
    pub(crate) wal: Wal,
    pub(crate) stripes: Stripes,
    pub(crate) slots: Slots,
    pub(crate) versions: Versions,
    pub(crate) gate: BuildGate,
    pub(crate) catalog: Catalog,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) counters: Counters,
    pub(crate) limits: Limits,
    /// Frames of the pool.
    pub(crate) pool_frames: usize,
    pub(crate) durability: Durability,
    /// Bytes of memory for the writes of one transaction.
    pub(crate) transaction_memory: usize,
    pub(crate) background: Background,
    pub(crate) checkpoint_log_bytes: u64,
    pub(crate) recovery: RecoveryReport,
    pub(crate) state: State,
    /// Held until the database is closed; declared last, so that it is let go of last.
    pub(crate) lock: Mutex<Option<Box<dyn LockFile>>>,
}

/// Which of its states a database is in, and why.
#[derive(Default)]
pub(crate) struct State {
    now: AtomicU8,
    cause: OnceLock<Arc<Error>>,
    /// Writes refused because of the state.
    refused: AtomicU64,
}

impl State {
    pub(crate) fn is_open(&self) -> bool {
        self.now.load(Ordering::SeqCst) == OPEN
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.now.load(Ordering::Acquire) == CLOSED
    }

    /// The error that made the database read-only.
    pub(crate) fn cause(&self) -> Option<&Arc<Error>> {
        self.cause.get()
    }

    /// Closes; `false` if it was closed already.
    pub(crate) fn close(&self) -> bool {
        self.now.swap(CLOSED, Ordering::SeqCst) != CLOSED
    }
}

impl Shared {
    /// Reading is possible.
    #[inline]
    pub(crate) fn readable(&self) -> Result<()> {
        if self.state.is_closed() { Err(self.closed()) } else { Ok(()) }
    }

    /// Writing is possible.
    #[inline]
    pub(crate) fn writable(&self) -> Result<()> {
        if self.state.is_open() { Ok(()) } else { Err(self.refusal()) }
    }

    #[cold]
    fn closed(&self) -> Error {
        Error::Closed { path: self.path.clone() }
    }

    #[cold]
    fn refusal(&self) -> Error {
        self.state.refused.fetch_add(1, Ordering::Relaxed);
        match self.state.cause() {
            Some(cause) if !self.state.is_closed() => Error::ReadOnlyFailed(cause.clone()),
            _ => self.closed(),
        }
    }

    /// Turns the database read-only because of `why`, for good. Gives the error back as the caller of the
    /// failed operation should see it.
    #[cold]
    pub(crate) fn fail(&self, why: Error) -> Error {
        let why = match why {
            Error::ReadOnlyFailed(cause) => cause,
            other => Arc::new(other),
        };
        // The cause first: whoever sees the state sees the cause as well.
        if self.state.cause.set(why.clone()).is_ok() {
            tracing::error!(path = %self.path.display(), error = %why, "the database turned read-only");
        }
        let _ = self.state.now.compare_exchange(OPEN, FAILED, Ordering::AcqRel, Ordering::Acquire);
        self.pool.fail(PoolError::Config(format!("the database failed: {why}")));
        Error::ReadOnlyFailed(self.state.cause().unwrap_or(&why).clone())
    }

    /// Asks for the upkeep: in the background, or with the next step.
    pub(crate) fn want_upkeep(&self) {
        if self.background == Background::Threads {
            self.checkpoints.want_upkeep();
        }
    }

    /// An error of the log: one that is for good takes the whole database with it.
    pub(crate) fn wal_error(&self, e: WalError) -> Error {
        if self.wal.failed().is_some() || e.is_failed() { self.fail(e.into()) } else { e.into() }
    }

    /// An error of the pool: if the pool has failed for good, so has the database.
    pub(crate) fn pool_error(&self, e: PoolError) -> Error {
        if self.pool.failed().is_some() { self.fail(e.into()) } else { e.into() }
    }
}
