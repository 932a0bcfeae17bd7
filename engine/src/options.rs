//! What a database is opened and created with, and the limits that follow.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bedstone_bufpool::PolicyKind;
pub use bedstone_io::IoChoice;
use bedstone_io::{Disk, RealDisk, SetupError};
pub use bedstone_wal::Durability;

use crate::db::Database;
use crate::error::{Error, Result};

/// Which pages the pool gives up first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// S3-FIFO: a small and a main queue and a list of ghosts. Resists scans.
    #[default]
    S3Fifo,
    /// InnoDB's midpoint LRU.
    Midpoint,
}

impl Policy {
    pub(crate) fn kind(self) -> PolicyKind {
        match self {
            Policy::S3Fifo => PolicyKind::S3Fifo,
            Policy::Midpoint => PolicyKind::Midpoint,
        }
    }
}

/// Who does the work that need not be done at once (checkpoints, preallocation of the log, cleaning of
/// pages).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Background {
    /// Threads of the database's own.
    #[default]
    Threads,
    /// The caller, through [`Database::step`] and inside commits: everything is deterministic.
    Manual,
}

impl Background {
    pub(crate) fn pool(self) -> bedstone_bufpool::Background {
        match self {
            Background::Threads => bedstone_bufpool::Background::Threads,
            Background::Manual => bedstone_bufpool::Background::Manual,
        }
    }

    pub(crate) fn wal(self) -> bedstone_wal::Background {
        match self {
            Background::Threads => bedstone_wal::Background::Threads,
            Background::Manual => bedstone_wal::Background::Manual,
        }
    }
}

/// How far recovery has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryProgress {
    /// Where replay began.
    pub from_lsn: u64,
    /// Up to where the log has been replayed.
    pub at_lsn: u64,
    /// The position up to which the log is known to reach at least; it may go on after it.
    pub known_end_lsn: u64,
    /// Commits replayed.
    pub commits: u64,
    /// The last call: replay is over.
    pub done: bool,
}

/// Every limit there is. Going over one gives an error that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of a key; follows from the page size.
    pub max_key_bytes: usize,
    /// Bytes of a value.
    pub max_value_bytes: u64,
    /// Bytes of key and value together that are stored inside a leaf; longer values go to pages of their own.
    pub max_inline_bytes: usize,
    /// Bytes of all keys and values of one batch.
    pub max_batch_bytes: u64,
    /// Bytes of a table's name.
    pub max_table_name_bytes: usize,
    /// Tables that may ever be made in one database (ids are never used twice).
    pub max_tables: u32,
}

/// The machine's file systems; without a choice the environment's.
pub(crate) fn real_disk(choice: Option<IoChoice>, allow_buffered: bool) -> Result<Arc<dyn Disk>> {
    let bad = |e: SetupError| Error::BadOption { option: "io", detail: e.to_string() };
    let choice = choice.map_or_else(IoChoice::from_env, Ok).map_err(bad)?;
    Ok(RealDisk::new(choice, allow_buffered).map_err(bad)?)
}

/// Options of a database; [`Builder::open`], [`Builder::create`] or [`Builder::open_or_create`] ends it.
#[derive(Clone)]
pub struct Builder {
    pub(crate) pool_bytes: usize,
    pub(crate) page_size: Option<usize>,
    pub(crate) durability: Durability,
    pub(crate) io: Option<IoChoice>,
    pub(crate) allow_buffered: bool,
    pub(crate) huge_pages: bool,
    pub(crate) policy: Policy,
    pub(crate) log_segment_bytes: u64,
    pub(crate) log_buffer_bytes: usize,
    pub(crate) transaction_memory: usize,
    pub(crate) checkpoint_log_bytes: u64,
    pub(crate) checkpoint_interval: Option<Duration>,
    pub(crate) relaxed_delay: Duration,
    pub(crate) syncs_in_flight: usize,
    pub(crate) background: Background,
    pub(crate) disk: Option<Arc<dyn Disk>>,
    pub(crate) on_recovery_progress: Option<Arc<dyn Fn(RecoveryProgress) + Send + Sync>>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            pool_bytes: 256 << 20,
            page_size: None,
            durability: Durability::Sync,
            io: None,
            allow_buffered: false,
            huge_pages: true,
            policy: Policy::S3Fifo,
            log_segment_bytes: 64 << 20,
            log_buffer_bytes: 16 << 20,
            transaction_memory: 64 << 20,
            checkpoint_log_bytes: 256 << 20,
            checkpoint_interval: None,
            relaxed_delay: Duration::from_millis(100),
            syncs_in_flight: 2,
            background: Background::Threads,
            disk: None,
            on_recovery_progress: None,
        }
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("pool_bytes", &self.pool_bytes)
            .field("page_size", &self.page_size)
            .field("durability", &self.durability)
            .field("io", &self.io)
            .field("background", &self.background)
            .finish_non_exhaustive()
    }
}

impl Builder {
    /// The default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of the buffer pool, a hard limit. Default 256 MiB.
    #[must_use]
    pub fn pool_bytes(mut self, bytes: usize) -> Self {
        self.pool_bytes = bytes;
        self
    }

    /// Bytes of a page of a database that is created: 4096, 8192, 16384 (default), 32768 or 65536. A database
    /// that exists keeps its page size; opening it with another one is an error.
    #[must_use]
    pub fn page_size(mut self, bytes: usize) -> Self {
        self.page_size = Some(bytes);
        self
    }

    /// What commits wait for that do not say it themselves. Default [`Durability::Sync`].
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Memory for what one write transaction has written, in bytes; what is beyond it goes to pages of the pool until
    /// the commit. Default 64 MiB.
    #[must_use]
    pub fn transaction_memory(mut self, bytes: usize) -> Self {
        self.transaction_memory = bytes;
        self
    }

    /// Which way direct I/O goes to the kernel. Default: what the environment variable `BEDSTONE_IO` names (`auto`,
    /// `uring` or `pread`), [`IoChoice::Auto`] if it is not set.
    #[must_use]
    pub fn io(mut self, io: IoChoice) -> Self {
        self.io = Some(io);
        self
    }

    /// Goes on through the page cache where the file system refuses direct I/O, instead of failing. Default
    /// no.
    #[must_use]
    pub fn allow_buffered(mut self, allow: bool) -> Self {
        self.allow_buffered = allow;
        self
    }

    /// Asks the kernel for huge pages for the pool. Default yes; refused silently where there are none.
    #[must_use]
    pub fn huge_pages(mut self, wanted: bool) -> Self {
        self.huge_pages = wanted;
        self
    }

    /// Which pages the pool gives up first.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Bytes of a log segment: a multiple of 4096, at least 64 KiB. Default 64 MiB.
    #[must_use]
    pub fn log_segment_bytes(mut self, bytes: u64) -> Self {
        self.log_segment_bytes = bytes;
        self
    }

    /// Bytes of the log buffer. Default 16 MiB.
    #[must_use]
    pub fn log_buffer_bytes(mut self, bytes: usize) -> Self {
        self.log_buffer_bytes = bytes;
        self
    }

    /// A checkpoint begins once this much log was written since the last. Default 256 MiB.
    #[must_use]
    pub fn checkpoint_log_bytes(mut self, bytes: u64) -> Self {
        self.checkpoint_log_bytes = bytes;
        self
    }

    /// A checkpoint begins this long after the last if anything was written. Default never.
    #[must_use]
    pub fn checkpoint_interval(mut self, interval: Option<Duration>) -> Self {
        self.checkpoint_interval = interval;
        self
    }

    /// How long a [`Durability::Relaxed`] commit may stay off the medium. Default 100 ms.
    #[must_use]
    pub fn relaxed_delay(mut self, delay: Duration) -> Self {
        self.relaxed_delay = delay;
        self
    }

    /// How many syncs of the log may run at once: 1 or 2. Default 2; the second only runs while few threads
    /// commit.
    #[must_use]
    pub fn syncs_in_flight(mut self, syncs: usize) -> Self {
        self.syncs_in_flight = syncs;
        self
    }

    /// Who does the background work.
    #[must_use]
    pub fn background(mut self, background: Background) -> Self {
        self.background = background;
        self
    }

    /// The medium, instead of the machine's file systems: a simulated disk in tests.
    #[must_use]
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.disk = Some(disk);
        self
    }

    /// Called now and then while the log is replayed, and once at the end of it.
    #[must_use]
    pub fn on_recovery_progress(mut self, f: impl Fn(RecoveryProgress) + Send + Sync + 'static) -> Self {
        self.on_recovery_progress = Some(Arc::new(f));
        self
    }

    /// Opens the database in directory `path`, which must exist.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Database> {
        Database::start(self, path.as_ref(), crate::db::Start::Open)
    }

    /// Creates a database in directory `path`, in which there must be none.
    pub fn create(self, path: impl AsRef<Path>) -> Result<Database> {
        Database::start(self, path.as_ref(), crate::db::Start::Create)
    }

    /// Opens the database in directory `path`, or creates it.
    pub fn open_or_create(self, path: impl AsRef<Path>) -> Result<Database> {
        Database::start(self, path.as_ref(), crate::db::Start::OpenOrCreate)
    }
}
