//! Faults on order: the n-th operation of some kind fails, lies, or does half its work.

use std::path::Path;

use crate::error::Op;

/// Which operations a fault counts and may strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpKind {
    /// Every operation.
    Any,
    /// Every operation that [`super::SimDisk::ops`] counts: all but opening, reading and examining.
    Mutation,
    /// Opening a file that exists.
    Open,
    /// Creating a file.
    Create,
    /// Reading; each read of a batch counts.
    Read,
    /// Writing; each write of a batch counts.
    Write,
    /// Syncs of files.
    Sync,
    /// Syncs of directories.
    SyncDir,
    /// Growing a file, by either kind of handle.
    Allocate,
    /// Shortening a file.
    Truncate,
    /// Renaming.
    Rename,
    /// Removing a file.
    Remove,
    /// Listing a directory, asking whether a name exists, asking for a length.
    Stat,
    /// Taking the lock file.
    Lock,
    /// Creating a directory.
    CreateDir,
}

/// Whether an operation changes the medium.
pub(super) fn mutates(op: Op) -> bool {
    !matches!(op, Op::Open | Op::Read | Op::Stat)
}

impl OpKind {
    fn covers(self, op: Op) -> bool {
        match self {
            OpKind::Any => true,
            OpKind::Mutation => mutates(op),
            OpKind::Open => op == Op::Open,
            OpKind::Create => op == Op::Create,
            OpKind::Read => op == Op::Read,
            OpKind::Write => op == Op::Write,
            OpKind::Sync => op == Op::Sync,
            OpKind::SyncDir => op == Op::SyncDir,
            OpKind::Allocate => op == Op::Allocate,
            OpKind::Truncate => op == Op::Truncate,
            OpKind::Rename => op == Op::Rename,
            OpKind::Remove => op == Op::Remove,
            OpKind::Stat => op == Op::Stat,
            OpKind::Lock => op == Op::Lock,
            OpKind::CreateDir => op == Op::CreateDir,
        }
    }
}

/// What happens to the operation that a fault strikes. A fault that has no meaning for an operation (a short
/// write at a rename) is EIO there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails with EIO and has no effect; a sync loses what it should have made durable.
    Eio,
    /// It fails with ENOSPC; else as [`Fault::Eio`].
    Enospc,
    /// It fails with this error number; else as [`Fault::Eio`].
    Errno(i32),
    /// A read fills a beginning of the buffer and fails with EIO.
    ShortRead,
    /// A write (or the growing of a log file) does a beginning of its work and fails with ENOSPC.
    ShortWrite,
    /// A write reaches some of its sectors and fails with EIO.
    TornWrite,
    /// A write is acknowledged and goes nowhere.
    LostWrite,
    /// A write is acknowledged and lands beside its place: its own length further on, or before where the file ends.
    MisdirectedWrite,
    /// A read gives one wrong bit; the medium has the right one.
    FlippedRead,
    /// A sync of a file fails with EIO; of what it should have covered some is durable and the rest is lost.
    PartialSync,
    /// A sync is acknowledged and does nothing; what it should have covered stays unsynced.
    LyingSync,
}

impl Fault {
    /// The error number of a fault that is only that.
    pub(super) fn errno(self) -> Option<i32> {
        match self {
            Fault::Eio => Some(libc::EIO),
            Fault::Enospc => Some(libc::ENOSPC),
            Fault::Errno(code) => Some(code),
            _ => None,
        }
    }

    /// Whether the operation itself knows what to do with it.
    pub(super) fn applies_to(self, op: Op) -> bool {
        match self {
            Fault::Eio | Fault::Enospc | Fault::Errno(_) => matches!(op, Op::Sync | Op::SyncDir),
            Fault::ShortRead | Fault::FlippedRead => op == Op::Read,
            Fault::ShortWrite => matches!(op, Op::Write | Op::Allocate),
            Fault::TornWrite | Fault::LostWrite | Fault::MisdirectedWrite => op == Op::Write,
            Fault::PartialSync => op == Op::Sync,
            Fault::LyingSync => matches!(op, Op::Sync | Op::SyncDir),
        }
    }
}

/// How often a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// At the n-th operation only.
    Once,
    /// At the n-th operation and every later one, until the faults are cleared.
    Forever,
}

/// One fault on order, with its count so far.
#[derive(Debug, Clone)]
pub(super) struct Armed {
    pub(super) kind: OpKind,
    pub(super) suffix: Option<String>,
    pub(super) nth: u64,
    pub(super) fault: Fault,
    pub(super) repeat: Repeat,
    pub(super) seen: u64,
}

impl Armed {
    /// Counts an operation; whether the fault strikes it.
    pub(super) fn strikes(&mut self, op: Op, path: &Path) -> bool {
        let named = self.suffix.as_deref().is_none_or(|suffix| path.to_string_lossy().ends_with(suffix));
        if !named || !self.kind.covers(op) {
            return false;
        }
        self.seen += 1;
        self.seen == self.nth || (self.repeat == Repeat::Forever && self.seen > self.nth)
    }
}
