//! The one error type of the public face. Every message says what happened, where, and what to do about it.

use std::path::PathBuf;
use std::sync::Arc;

use bedstone_bufpool::{PageId, PoolError};
use bedstone_io::IoError;
use bedstone_wal::WalError;

/// Result of every fallible call.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no database under this path, and creating one was not asked for.
    #[error("there is no database at {}; create one with Database::create or open_or_create", path.display())]
    NotFound {
        /// The directory that was opened.
        path: PathBuf,
    },
    /// There is a database under this path already.
    #[error("there is a database at {} already; open it with Database::open or open_or_create", path.display())]
    AlreadyExists {
        /// The directory in which one was to be created.
        path: PathBuf,
    },
    /// The file is not one of Bedstone's.
    #[error("{} is not a Bedstone database ({detail}); check the path", path.display())]
    NotADatabase {
        /// The file looked at.
        path: PathBuf,
        /// What was found instead.
        detail: String,
    },
    /// Another process, or another handle of this one, has the database open.
    #[error("{} is open elsewhere ({holder}); close it there first, one process at a time may hold a database", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// What the lock says about its holder.
        holder: String,
    },
    /// The files were written by a version of the format that this library does not know.
    #[error("{} has format version {found}, this library reads {supported}; open it with the library that wrote it", path.display())]
    UnsupportedVersion {
        /// The file.
        path: PathBuf,
        /// Version found in it.
        found: u32,
        /// Version this library reads and writes.
        supported: u32,
    },
    /// Bytes of a data page, the page map or a superblock are not what was written.
    #[error("{}: {what} at offset {offset} is damaged: {detail}; other pages stay readable, restore this file from a backup", file.display())]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Byte offset in it.
        offset: u64,
        /// The page, if it is one.
        page: Option<u32>,
        /// What lies there.
        what: &'static str,
        /// Expected and found.
        detail: String,
    },
    /// The redo log is damaged within what had been made durable: not a torn tail.
    #[error("{}: the log is damaged at offset {offset} (lsn {lsn}): {detail}; committed writes from there on cannot be replayed, restore from a backup", file.display())]
    LogDamaged {
        /// The segment file.
        file: PathBuf,
        /// Byte offset in it.
        offset: u64,
        /// The same place as position in the log.
        lsn: u64,
        /// Expected and found.
        detail: String,
    },
    /// A log segment that recovery needs is not there.
    #[error("{}: the log segment that holds lsn {lsn} is missing; put it back or restore from a backup", file.display())]
    MissingSegment {
        /// The file looked for, or the log's directory.
        file: PathBuf,
        /// The position in the log that is missing.
        lsn: u64,
    },
    /// The key is longer than a page of this size can hold.
    #[error("the key has {len} bytes, the limit is {max} with this page size (Database::limits)")]
    KeyTooLong {
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The value is longer than any value may be.
    #[error("the value has {len} bytes, the limit is {max} (Database::limits)")]
    ValueTooLarge {
        /// Its length.
        len: u64,
        /// The limit.
        max: u64,
    },
    /// The batch holds more than one commit may.
    #[error("the batch has {bytes} bytes, the limit is {max} (Database::limits); write it in parts")]
    BatchTooLarge {
        /// Its bytes in the log.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// The pool asked for is too small to work with.
    #[error("pool_bytes of {given} is too small, at least {min} bytes are needed with this page size")]
    PoolTooSmall {
        /// Bytes asked for.
        given: usize,
        /// Bytes needed.
        min: usize,
    },
    /// Every frame of the pool is held by somebody's values or iterators.
    #[error(
        "the pool is exhausted: {pinned} of {frames} frames are pinned; drop values and iterators you hold, or raise pool_bytes"
    )]
    PoolExhausted {
        /// Frames there are.
        frames: usize,
        /// Frames pinned.
        pinned: usize,
    },
    /// Another transaction has changed what this one has written (or, if it is serializable, read) since it began. It
    /// was rolled back; run it again ([`crate::Database::update`] does).
    #[error("another transaction changed {} of table {table:?} first; this one was rolled back, run it again", shown(key.as_deref()))]
    Conflict {
        /// The table.
        table: String,
        /// The key, if it is a single one.
        key: Option<Vec<u8>>,
    },
    /// The value under a key is not a counter, or would not be one any more.
    #[error(
        "a counter of table {table:?} cannot be changed: {detail}; counters are i64, 8 bytes, little-endian"
    )]
    NotACounter {
        /// The table.
        table: String,
        /// What is wrong.
        detail: &'static str,
    },
    /// The snapshot's deadline has passed, and what it saw was given up.
    #[error(
        "the snapshot is past its deadline and holds nothing any more; begin another one, with a longer deadline if need be"
    )]
    SnapshotTooOld,
    /// An earlier call of this transaction failed half-way.
    #[error("the transaction failed before ({0}) and can only be rolled back")]
    Poisoned(#[source] Arc<Error>),
    /// There is no such savepoint (any more) in this transaction.
    #[error("the savepoint is gone: it was released, or rolled back over, or is of another transaction")]
    NoSavepoint,
    /// The disk (or the quota) is full. Nothing has happened; the same call succeeds once there is space.
    #[error("no space for {}: {detail}; nothing was changed, free some space and repeat the call", file.display())]
    NoSpace {
        /// The file or directory that could not grow.
        file: PathBuf,
        /// What was wanted.
        detail: String,
    },
    /// The engine met an error after which it cannot promise anything: it only reads from now on.
    #[error(
        "the database turned read-only after an earlier failure ({0}); close it and open it again to recover"
    )]
    ReadOnlyFailed(Arc<Error>),
    /// The database was closed; handles that were left over are of no use.
    #[error("the database at {} was closed; open it again", path.display())]
    Closed {
        /// Its directory.
        path: PathBuf,
    },
    /// A call that waits for checkpoints was made from inside the reader of a value that is being written.
    #[error(
        "{what} was called from inside the reader given to put_reader, for which it would have to wait; call it before or after"
    )]
    InsideReader {
        /// The call.
        what: &'static str,
    },
    /// A call that waits for checkpoints was made between the steps of one, by what was given to
    /// [`crate::Database::checkpoint_stepwise`].
    #[error(
        "{what} was called between the steps of a checkpoint, which it would have to wait for; call it before or after"
    )]
    InsideCheckpoint {
        /// The call.
        what: &'static str,
    },
    /// The commit was handed to the log, but the log failed: whether it is durable is known only after
    /// reopening.
    #[error("the commit is not known to be durable ({0}); close the database and open it again to see")]
    NotKnownDurable(Arc<Error>),
    /// No table of this name.
    #[error("there is no table {name:?}; Database::table makes it on first use")]
    TableNotFound {
        /// The name.
        name: String,
    },
    /// A table of this name exists.
    #[error("there is a table {name:?} already")]
    TableExists {
        /// The name.
        name: String,
    },
    /// The table behind this handle was dropped.
    #[error("table {name:?} was dropped; this handle is of no use any more")]
    TableDropped {
        /// Its last name.
        name: String,
    },
    /// A table name is 1 to 255 bytes of UTF-8 without control characters.
    #[error("{name:?} is no table name: {detail}")]
    InvalidTableName {
        /// The name.
        name: String,
        /// Which rule it breaks.
        detail: &'static str,
    },
    /// A table of one database was used with a batch or a call of another.
    #[error("table {name:?} belongs to another database than the one written to")]
    ForeignTable {
        /// Its name.
        name: String,
    },
    /// A typed table was opened with other types than those it has.
    #[error(
        "table {table:?} has the types {stored}, not {asked}; open it with those, or see Database::forget_table_types"
    )]
    TypeMismatch {
        /// Its name.
        table: String,
        /// The types of its keys and values, as stored.
        stored: String,
        /// Those it was opened with.
        asked: String,
    },
    /// A value of a typed table cannot be stored; nothing was written.
    #[error("table {table:?}: {what}; nothing was written")]
    Encode {
        /// The table.
        table: String,
        /// Which value, and why.
        what: String,
    },
    /// Bytes of a typed table are no key or value of its types.
    #[error("table {table:?}: {what}; it was written past the typed table, or a type has changed")]
    Decode {
        /// The table.
        table: String,
        /// Which key or value, and what is wrong with it.
        what: String,
    },
    /// An option has a value it cannot have.
    #[error("option {option}: {detail}")]
    BadOption {
        /// The option, as the builder calls it.
        option: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// The reader given to `put_reader` failed or ended early; nothing was written.
    #[error("the reader of the value failed after {read} of {len} bytes: {source}; nothing was written")]
    Reader {
        /// Bytes taken from it.
        read: u64,
        /// Bytes promised.
        len: u64,
        /// Its error.
        source: std::io::Error,
    },
    /// The iterator failed earlier; it does not go on past the gap.
    #[error("this iterator failed earlier ({0}); start a new one")]
    IteratorFailed(Arc<Error>),
    /// An operation of the system failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A state that only a mistake in this library can bring about.
    #[error("internal error: {0}; please report it")]
    Internal(String),
}

/// A key as a message shows it.
pub(crate) fn shown(key: Option<&[u8]>) -> String {
    match key {
        None => "keys".to_owned(),
        Some(key) if key.len() <= 64 => format!("key \"{}\"", key.escape_ascii()),
        Some(key) => format!("key \"{}\"... ({} bytes)", key[..64].escape_ascii(), key.len()),
    }
}

impl Error {
    /// Running the same transaction again may succeed: it met a conflict, and nothing is wrong.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::Conflict { .. })
    }

    /// Bytes on disk are not what was written.
    pub fn is_corruption(&self) -> bool {
        match self {
            Error::Corrupt { .. } | Error::LogDamaged { .. } | Error::MissingSegment { .. } => true,
            // A file that ends before what was written into it.
            Error::Io(e) => e.is_unexpected_eof(),
            Error::ReadOnlyFailed(e)
            | Error::IteratorFailed(e)
            | Error::NotKnownDurable(e)
            | Error::Poisoned(e) => e.is_corruption(),
            _ => false,
        }
    }

    /// The disk or a quota is full.
    pub fn is_no_space(&self) -> bool {
        match self {
            Error::NoSpace { .. } => true,
            Error::Io(e) => e.is_no_space(),
            Error::ReadOnlyFailed(e)
            | Error::IteratorFailed(e)
            | Error::NotKnownDurable(e)
            | Error::Poisoned(e) => e.is_no_space(),
            _ => false,
        }
    }

    /// Somebody else has the database open.
    pub fn is_locked(&self) -> bool {
        match self {
            Error::Locked { .. } => true,
            Error::Io(e) => e.is_locked(),
            _ => false,
        }
    }

    /// The database only reads until it is opened again.
    pub fn is_read_only(&self) -> bool {
        matches!(self, Error::ReadOnlyFailed(_) | Error::NotKnownDurable(_))
    }

    /// The page a corruption was found in.
    pub fn page(&self) -> Option<u32> {
        match self {
            Error::Corrupt { page, .. } => *page,
            Error::ReadOnlyFailed(e)
            | Error::IteratorFailed(e)
            | Error::NotKnownDurable(e)
            | Error::Poisoned(e) => e.page(),
            _ => None,
        }
    }
}

// Errors of the parts are often shared (a failure that is for good is told to everybody), so they are looked
// at, not taken apart.

impl From<PoolError> for Error {
    fn from(e: PoolError) -> Self {
        Error::of_pool(&e)
    }
}

impl From<WalError> for Error {
    fn from(e: WalError) -> Self {
        Error::of_log(&e)
    }
}

fn copy_io_error(e: &IoError) -> IoError {
    let source = match e.source.raw_os_error() {
        Some(code) => std::io::Error::from_raw_os_error(code),
        None => std::io::Error::new(e.source.kind(), e.source.to_string()),
    };
    IoError { op: e.op, path: e.path.clone(), offset: e.offset, len: e.len, source }
}

impl Error {
    /// What an error of the pool means to the user.
    pub(crate) fn of_pool(e: &PoolError) -> Self {
        match e {
            PoolError::Io(e) if e.is_no_space() => {
                Error::NoSpace { file: e.path.clone(), detail: e.to_string() }
            }
            PoolError::Io(e) => Error::Io(copy_io_error(e)),
            PoolError::Corrupt { file, offset, page, what, detail } => Error::Corrupt {
                file: file.clone(),
                offset: *offset,
                page: page.map(|PageId(n)| n),
                what,
                detail: detail.clone(),
            },
            PoolError::Exhausted { frames, pinned } => {
                Error::PoolExhausted { frames: *frames, pinned: *pinned }
            }
            PoolError::NoSpace { file, wanted } => {
                Error::NoSpace { file: file.clone(), detail: format!("{wanted} bytes wanted") }
            }
            PoolError::NotADatabase { file, found } => {
                let detail = format!("it begins with {:?}", found.escape_ascii().to_string());
                Error::NotADatabase { path: file.clone(), detail }
            }
            PoolError::UnsupportedVersion { file, found, supported } => Error::UnsupportedVersion {
                path: file.clone(),
                found: (*found).into(),
                supported: (*supported).into(),
            },
            PoolError::TooSmall { given, min, .. } => {
                Error::PoolTooSmall { given: *given as usize, min: *min as usize }
            }
            PoolError::Failed(e) => Error::ReadOnlyFailed(Arc::new(Error::of_pool(e))),
            PoolError::WriteOut(e) => Error::of_pool(e),
            PoolError::Memory { bytes, error } => Error::BadOption {
                option: "pool_bytes",
                detail: format!("cannot map {bytes} bytes: {error}"),
            },
            PoolError::Config(detail) => Error::BadOption { option: "pool", detail: detail.clone() },
            PoolError::Free(page) => Error::Corrupt {
                file: PathBuf::from("data"),
                offset: 0,
                page: Some(page.0),
                what: "page map",
                detail: format!("{page} is asked for or referred to, but there is none of this number"),
            },
            other => Error::Internal(other.to_string()),
        }
    }

    /// What an error of the log means to the user.
    fn of_log(e: &WalError) -> Self {
        match e {
            WalError::Io(e) if e.is_no_space() => {
                Error::NoSpace { file: e.path.clone(), detail: e.to_string() }
            }
            WalError::Io(e) => Error::Io(copy_io_error(e)),
            WalError::NoSpace { dir, .. } => Error::NoSpace { file: dir.clone(), detail: e.to_string() },
            WalError::Damaged { file, offset, lsn, reason } => {
                Error::LogDamaged { file: file.clone(), offset: *offset, lsn: lsn.0, detail: reason.clone() }
            }
            WalError::MissingSegment { lsn, file } => {
                Error::MissingSegment { file: file.clone(), lsn: lsn.0 }
            }
            WalError::BadSegmentHeader { file, reason } => Error::Corrupt {
                file: file.clone(),
                offset: 0,
                page: None,
                what: "header of a log segment",
                detail: reason.clone(),
            },
            WalError::WrongDatabase { file, .. } => {
                Error::NotADatabase { path: file.clone(), detail: e.to_string() }
            }
            WalError::Failed(e) => Error::ReadOnlyFailed(Arc::new(Error::of_log(e))),
            WalError::Config { what } => Error::BadOption { option: "log", detail: what.clone() },
            other => Error::Internal(other.to_string()),
        }
    }
}
