//! How tests open databases: on the simulated disk by a seed, and on real ones as the environment says.

use std::path::Path;
use std::sync::Arc;

use bedstone::{Background, Builder, Database, Durability, Error, IoChoice, Policy};
use bedstone_io::IoMode;
use bedstone_io::sim::SimDisk;

use crate::rng::Rng;

/// Where databases lie on simulated disks.
pub const DIR: &str = "/var/db";

/// All page sizes.
pub const PAGE_SIZES: [usize; 5] = [4096, 8192, 16384, 32768, 65536];

/// The smallest pool that a database with this page size opens with.
///
/// # Panics
/// If a pool of one byte is not refused in the way it should be.
pub fn smallest_pool(page_size: usize) -> usize {
    let disk = SimDisk::new(1);
    let refused = Database::builder()
        .disk(disk)
        .background(Background::Manual)
        .page_size(page_size)
        .pool_bytes(1)
        .create(DIR);
    match refused {
        Err(Error::PoolTooSmall { given: 1, min }) => min,
        other => panic!("a pool of one byte should be too small, and the answer was {other:?}"),
    }
}

/// How a database of a model run is opened.
#[derive(Debug, Clone)]
pub struct Config {
    /// Bytes of a page.
    pub page_size: usize,
    /// Bytes of the pool.
    pub pool_bytes: usize,
    /// Bytes of a log segment.
    pub segment_bytes: u64,
    /// Bytes of the log buffer.
    pub buffer_bytes: usize,
    /// Log bytes from checkpoint to checkpoint.
    pub checkpoint_bytes: u64,
    /// Bytes of memory for what a transaction has written.
    pub transaction_memory: usize,
    /// Replacement.
    pub policy: Policy,
    /// Syncs at once.
    pub syncs: usize,
    /// Durability of every commit, instead of that which each would have.
    pub durability: Option<Durability>,
}

impl Config {
    /// Draws one.
    pub fn draw(rng: &mut Rng) -> Self {
        let page_size = *rng.pick(&[4096, 4096, 4096, 8192, 8192, 16384, 32768, 65536]);
        let least = smallest_pool(page_size);
        Self {
            page_size,
            pool_bytes: *rng.pick(&[least, least, least + least / 2, least * 2, least * 6]),
            segment_bytes: *rng.pick(&[64 << 10, 64 << 10, 128 << 10, 1 << 20]),
            buffer_bytes: *rng.pick(&[16 << 10, 32 << 10, 64 << 10, 512 << 10]),
            checkpoint_bytes: *rng.pick(&[16 << 10, 64 << 10, 256 << 10, 64 << 20]),
            transaction_memory: *rng.pick(&[1 << 10, 8 << 10, 64 << 10, 64 << 20]),
            policy: *rng.pick(&[Policy::S3Fifo, Policy::Midpoint]),
            syncs: 1 + rng.index(2),
            durability: None,
        }
    }

    /// A small and simple one.
    pub fn small() -> Self {
        Self {
            page_size: 4096,
            pool_bytes: smallest_pool(4096) * 2,
            segment_bytes: 64 << 10,
            buffer_bytes: 32 << 10,
            checkpoint_bytes: 64 << 20,
            transaction_memory: 64 << 20,
            policy: Policy::S3Fifo,
            syncs: 1,
            durability: None,
        }
    }

    /// The durability of a commit that would usually have this one.
    pub fn level(&self, usual: Durability) -> Durability {
        self.durability.unwrap_or(usual)
    }

    /// The options, over a simulated disk, driven by one thread.
    pub fn builder(&self, disk: &Arc<SimDisk>) -> Builder {
        Database::builder()
            .disk(disk.clone())
            .background(Background::Manual)
            .page_size(self.page_size)
            .pool_bytes(self.pool_bytes)
            .huge_pages(false)
            .log_segment_bytes(self.segment_bytes)
            .log_buffer_bytes(self.buffer_bytes)
            .checkpoint_log_bytes(self.checkpoint_bytes)
            .transaction_memory(self.transaction_memory)
            .policy(self.policy)
            .syncs_in_flight(self.syncs)
            .durability(self.level(Durability::Sync))
    }
}

/// The way of I/O that `BEDSTONE_IO` asks for (`auto`, `uring` or `pread`), for databases on real disks.
///
/// # Panics
/// If it names another one.
pub fn io_choice() -> IoChoice {
    match std::env::var("BEDSTONE_IO").as_deref() {
        Err(_) | Ok("" | "auto") => IoChoice::Auto,
        Ok("uring") => IoChoice::Uring,
        Ok("pread") => IoChoice::Pread,
        Ok(other) => panic!("BEDSTONE_IO is {other:?}; it can be auto, uring or pread"),
    }
}

/// Options for a database on a real disk, with I/O as the environment says. The page cache is allowed where the file
/// system of the temporary files refuses direct I/O.
pub fn real_builder() -> Builder {
    Database::builder().allow_buffered(true)
}

/// Sees that the way of I/O is the one asked for, and gives it in words. Published figures of io_uring have been those
/// of a silent fallback before.
///
/// # Panics
/// If it is another one.
pub fn assert_mode(db: &Database) -> String {
    let report = db.io_report();
    match io_choice() {
        IoChoice::Uring => assert_eq!(report.mode, IoMode::Uring, "{}", report.reason),
        IoChoice::Pread => assert_eq!(report.mode, IoMode::Pread, "{}", report.reason),
        IoChoice::Auto => {}
    }
    format!("{:?}, direct: {}, {} ({})", report.mode, report.direct, report.file_system, report.reason)
}

/// A directory for one test, below `BEDSTONE_TEST_DIR` if that is set, else below the system's temporary directory.
///
/// # Panics
/// If it cannot be made.
pub fn temp_dir() -> tempfile::TempDir {
    let made = match std::env::var_os("BEDSTONE_TEST_DIR") {
        Some(base) => tempfile::TempDir::with_prefix_in("bedstone-", Path::new(&base)),
        None => tempfile::TempDir::with_prefix("bedstone-"),
    };
    made.expect("a temporary directory")
}

/// Everything is in order, says the check.
///
/// # Errors
/// Names the first problems, or the check's own error.
pub fn check_clean(db: &Database) -> Result<(), String> {
    let report = db.check().map_err(|error| format!("check failed: {error}"))?;
    if report.is_clean() {
        return Ok(());
    }
    let count = report.problems.len();
    let first = report.problems.into_iter().take(5).collect::<Vec<_>>();
    Err(format!("check found {count} problems, first {first:?}"))
}
