//! Commits that are waited for later: they are visible and have their place in the log at once, and a ticket
//! tells when they are on the medium.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bedstone_wal::{Appended, Durability, Lsn, WalError};

use crate::batch::WriteBatch;
use crate::db::{CommitInfo, Database};
use crate::error::{Error, Result};
use crate::shared::Shared;
use crate::table::Table;

/// A commit that was made and is on its way to the medium.
///
/// The commit is visible to everybody already; whether it survives a power cut is what the ticket is for. The
/// log was asked to make it durable when the ticket was made, so that many tickets taken one after the other
/// share one `fdatasync`. [`CommitTicket::wait`] blocks the thread; as a [`Future`] the ticket needs no
/// particular runtime and no thread of its own, and may be polled from anywhere. With
/// [`crate::Background::Manual`] the future waits for [`Database::step`] or another call that syncs the log;
/// `wait` does the work itself.
///
/// Dropping a ticket takes nothing back and leaves the commit on its way. A ticket keeps the database open.
///
/// Both ways of waiting give these errors: [`Error::NotKnownDurable`] if the log failed first, or if the
/// database was closed first and closing it failed before it came to the log; whether the commit is there is
/// known after opening again. Other errors do not come.
#[must_use = "the commit is made, but only waiting tells whether it is durable"]
pub struct CommitTicket {
    db: Database,
    appended: Appended,
}

impl fmt::Debug for CommitTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommitTicket")
            .field("lsn", &self.lsn())
            .field("is_durable", &self.is_durable())
            .finish_non_exhaustive()
    }
}

/// What to wait for if only the position of a commit's record is known. Durable positions are ends of
/// records, so that one that lies behind the beginning of a record covers it to its end: the position after
/// the first byte is as good as the end.
fn within(lsn: u64) -> Appended {
    Appended { lsn: Lsn(lsn), end: Lsn(lsn + 1) }
}

/// What an error of waiting for the log means to somebody whose commit is made.
fn not_known(shared: &Shared, e: WalError) -> Error {
    match e {
        WalError::ShutDown => Error::NotKnownDurable(Arc::new(Error::Closed { path: shared.path.clone() })),
        e => match shared.wal_error(e) {
            Error::ReadOnlyFailed(cause) => Error::NotKnownDurable(cause),
            other => other,
        },
    }
}

/// Waits until `upto` is durable, by syncing the log if nobody else does.
fn wait_for(shared: &Shared, upto: Lsn) -> Result<()> {
    if shared.wal.durable_lsn() >= upto {
        return Ok(());
    }
    // The files are not ours any more, so the log must not be written.
    if shared.state.is_closed() {
        return Err(not_known(shared, WalError::ShutDown));
    }
    shared.wal.wait(upto, Durability::Sync).map_err(|e| not_known(shared, e))
}

impl CommitTicket {
    /// The ticket of a commit whose record is appended. Asks the log for the sync.
    pub(crate) fn new(db: Database, appended: Appended) -> Self {
        db.shared().wal.request_sync();
        Self { db, appended }
    }

    /// The ticket of a commit of which the information is left.
    pub(crate) fn of(db: &Database, commit: CommitInfo) -> Self {
        let appended = match commit.lsn {
            // Wrote nothing, and is as durable as it will ever be.
            0 => Appended { lsn: Lsn(0), end: Lsn(0) },
            lsn => within(lsn),
        };
        Self::new(db.clone(), appended)
    }

    fn info(&self) -> CommitInfo {
        CommitInfo { lsn: self.appended.lsn.0 }
    }

    /// The commit's position in the log, as [`CommitInfo::lsn`]: 0 if it wrote nothing.
    pub fn lsn(&self) -> u64 {
        self.appended.lsn.0
    }

    /// The commit is on the medium. Never blocks.
    pub fn is_durable(&self) -> bool {
        self.db.shared().wal.durable_lsn() >= self.appended.end
    }

    /// Returns once the commit is on the medium; blocks the calling thread until then.
    ///
    /// [`Error::NotKnownDurable`], see [`CommitTicket`].
    pub fn wait(self) -> Result<CommitInfo> {
        wait_for(self.db.shared(), self.appended.end)?;
        Ok(self.info())
    }
}

impl Future for CommitTicket {
    type Output = Result<CommitInfo>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let shared = self.db.shared();
        match shared.wal.notify_durable(self.appended.end, cx.waker()) {
            Ok(true) => Poll::Ready(Ok(self.info())),
            Ok(false) => Poll::Pending,
            Err(e) => Poll::Ready(Err(not_known(shared, e))),
        }
    }
}

impl Database {
    /// Commits a batch and does not wait: it is visible when this returns, and the ticket tells when it is
    /// durable.
    ///
    /// Errors as [`Database::write_with`] with [`Durability::Relaxed`]; the batch was not committed, unless
    /// it is [`Error::NotKnownDurable`].
    pub fn write_ticket(&self, batch: WriteBatch) -> Result<CommitTicket> {
        let commit = self.write_with(batch, Durability::Relaxed)?;
        Ok(CommitTicket::of(self, commit))
    }

    /// Returns once the commit with this [`CommitInfo::lsn`], and with it every earlier one, is on the
    /// medium. The log is synced if nobody else does it. At once for 0, the lsn of a commit that wrote
    /// nothing.
    ///
    /// [`Error::BadOption`] if no commit has come as far as `lsn`, so that waiting could last for ever;
    /// [`Error::NotKnownDurable`] if the log failed, or the database was closed, before that.
    pub fn wait_durable(&self, lsn: u64) -> Result<()> {
        let shared = self.shared();
        let tail = shared.wal.tail().0;
        if lsn == 0 {
            return Ok(());
        }
        if lsn >= tail {
            let detail = format!(
                "{lsn} lies at or behind the end of the log, {tail}: no commit has this lsn; pass the lsn of a \
                 CommitInfo or CommitTicket of this database, or call Database::sync"
            );
            return Err(Error::BadOption { option: "lsn", detail });
        }
        wait_for(shared, within(lsn).end)
    }

    /// Up to where the log is on the medium: every commit with a smaller [`CommitInfo::lsn`] survives a power
    /// cut.
    pub fn durable_lsn(&self) -> u64 {
        self.shared().wal.durable_lsn().0
    }
}

impl Table {
    /// [`Table::put`], but does not wait: the value is visible when this returns, and the ticket tells when
    /// it is durable.
    ///
    /// Errors as [`Table::put_with`] with [`Durability::Relaxed`]; nothing was committed, unless it is
    /// [`Error::NotKnownDurable`].
    pub fn put_ticket(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<CommitTicket> {
        let commit = self.put_with(key, value, Durability::Relaxed)?;
        Ok(CommitTicket::of(self.database(), commit))
    }
}
