//! Errors of the page store: what is wrong, in which file, where, and what to do about it.

use std::path::PathBuf;
use std::sync::Arc;

use bedstone_io::IoError;

use crate::header::PageId;

/// Why an operation of the page store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The medium answered with an error.
    #[error(transparent)]
    Io(#[from] IoError),
    /// Bytes of a page, the page map or a superblock are not what was written. Other pages stay readable.
    #[error("{}: {what} at offset {offset} is damaged: {detail}; restore this file from a backup, or run `bedstone check` to see what else is hit", file.display())]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Byte offset in it.
        offset: u64,
        /// The page, if the damage is in one.
        page: Option<PageId>,
        /// Which structure.
        what: &'static str,
        /// What was expected and what was found.
        detail: String,
    },
    /// The file is not a Bedstone data file.
    #[error("{}: not a Bedstone data file: it begins with {found:02x?}; check the path", file.display())]
    NotADatabase {
        /// The file.
        file: PathBuf,
        /// Its first bytes.
        found: [u8; 8],
    },
    /// The file was written by another version of the format.
    #[error("{}: format version {found}, this build reads version {supported}; open it with the release that wrote it", file.display())]
    UnsupportedVersion {
        /// The file.
        file: PathBuf,
        /// Version in the file.
        found: u16,
        /// Version of this build.
        supported: u16,
    },
    /// Every frame is pinned or needed.
    #[error(
        "buffer pool exhausted: none of its {frames} frames can be freed ({pinned} are pinned); drop values and iterators that are still held, or open with a larger pool"
    )]
    Exhausted {
        /// Frames of the pool.
        frames: usize,
        /// Frames pinned at that moment.
        pinned: usize,
    },
    /// The pool is smaller than the store can work with.
    #[error(
        "a pool of {given} bytes is too small: {min} bytes are the least with pages of {page_size} bytes"
    )]
    TooSmall {
        /// Bytes given.
        given: u64,
        /// Least number of bytes.
        min: u64,
        /// Page size in bytes.
        page_size: u32,
    },
    /// The data file cannot grow. Nothing has happened; reads go on.
    #[error("{}: no space left: {wanted} more bytes were needed; free space on this file system (writes resume by themselves)", file.display())]
    NoSpace {
        /// The data file.
        file: PathBuf,
        /// Bytes asked for.
        wanted: u64,
    },
    /// Pages could not be written out; they stay in memory and in the log.
    #[error("pages could not be written out: {0}")]
    WriteOut(Arc<PoolError>),
    /// The page id refers to no page (a reader came through an outdated parent, or a structure is damaged).
    #[error("{0} is free")]
    Free(PageId),
    /// The store failed earlier and takes no more writes.
    #[error("the page store failed earlier ({0}); close the database and open it again to recover")]
    Failed(Arc<PoolError>),
    /// Memory for the pool could not be had.
    #[error("cannot map {bytes} bytes of memory for the buffer pool: {error}; open with a smaller pool")]
    Memory {
        /// Bytes asked for.
        bytes: u64,
        /// What the system answered.
        error: std::io::Error,
    },
    /// A structure that grows with the database does not fit into memory.
    #[error("no memory for {what} ({bytes} bytes); give the process more memory")]
    OutOfMemory {
        /// Which structure.
        what: &'static str,
        /// Bytes it needs.
        bytes: u64,
    },
    /// An option is out of its range.
    #[error("{0}")]
    Config(String),
}

/// Result of the page store.
pub type Result<T> = std::result::Result<T, PoolError>;
