//! The error of every operation on the medium: what was tried, on which file, where, and what came back.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The operation that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Op {
    /// Opening a file.
    Open,
    /// Creating a file that must not exist yet.
    Create,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// `fdatasync` or `fsync` of a file.
    Sync,
    /// `fsync` of a directory.
    SyncDir,
    /// Growing a file with its blocks allocated.
    Allocate,
    /// Shortening a file.
    Truncate,
    /// Renaming a file.
    Rename,
    /// Removing a file.
    Remove,
    /// Listing a directory or asking for a file's size.
    Stat,
    /// Taking the lock file.
    Lock,
    /// Creating a directory.
    CreateDir,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Op::Open => "open",
            Op::Create => "create",
            Op::Read => "read",
            Op::Write => "write",
            Op::Sync => "sync",
            Op::SyncDir => "sync directory",
            Op::Allocate => "allocate space for",
            Op::Truncate => "truncate",
            Op::Rename => "rename",
            Op::Remove => "remove",
            Op::Stat => "examine",
            Op::Lock => "lock",
            Op::CreateDir => "create directory",
        })
    }
}

/// A failed operation on the medium.
#[derive(Debug)]
pub struct IoError {
    /// What was tried.
    pub op: Op,
    /// On which file.
    pub path: PathBuf,
    /// Where in the file, in bytes, if it matters.
    pub offset: Option<u64>,
    /// How many bytes were asked for, if it matters.
    pub len: Option<u64>,
    /// What the system answered.
    pub source: io::Error,
}

impl IoError {
    /// An error of `op` on `path`.
    pub fn new(op: Op, path: &Path, source: io::Error) -> Self {
        Self { op, path: path.to_path_buf(), offset: None, len: None, source }
    }

    /// The same with the place in the file.
    #[must_use]
    pub fn at(mut self, offset: u64, len: u64) -> Self {
        self.offset = Some(offset);
        self.len = Some(len);
        self
    }

    /// The medium is full (ENOSPC, EDQUOT, EFBIG).
    pub fn is_no_space(&self) -> bool {
        matches!(self.source.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG))
    }

    /// The file ends before the bytes asked for.
    pub fn is_unexpected_eof(&self) -> bool {
        self.source.kind() == io::ErrorKind::UnexpectedEof
    }

    /// There is no such file.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// The name is taken already.
    pub fn is_already_exists(&self) -> bool {
        self.source.kind() == io::ErrorKind::AlreadyExists
    }

    /// Direct I/O does not work on this file system, and buffered I/O was not allowed.
    pub fn is_direct_refused(&self) -> bool {
        matches!(self.op, Op::Open | Op::Create) && self.source.kind() == io::ErrorKind::Unsupported
    }

    /// Another process (or another handle of this one) holds the lock.
    pub fn is_locked(&self) -> bool {
        self.op == Op::Lock && self.source.kind() == io::ErrorKind::WouldBlock
    }
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}", self.op, self.path.display())?;
        if let (Some(offset), Some(len)) = (self.offset, self.len) {
            write!(f, " (offset {offset}, {len} bytes)")?;
        }
        write!(f, ": {}", self.source)
    }
}

impl std::error::Error for IoError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
