//! What the log is told when it is created or opened.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::WalError;
use crate::record::MAX_PAYLOAD;

/// How far a commit has to have come when the wait for it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Durability {
    /// On the medium: survives a power cut.
    #[default]
    Sync,
    /// Handed to the kernel: survives the end of the process, not that of the machine.
    Buffered,
    /// Nowhere yet; written and synced in the background within [`WalConfig::relaxed_delay`].
    Relaxed,
}

/// Who does the work that no caller waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Background {
    /// Three threads of the log: one prepares segments, one syncs relaxed commits, one calls wakers.
    #[default]
    Threads,
    /// No threads. Everything happens inside the calls and in [`crate::Wal::step`], so that one thread drives the
    /// log deterministically.
    Manual,
}

/// How a log is laid out and driven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalConfig {
    /// The directory of the segments. It belongs to the log alone.
    pub dir: PathBuf,
    /// The database's identity. It is part of every checksum, so that another database's records never count.
    pub database_id: [u8; 16],
    /// The number of this opening of the database. It only grows, and the caller makes it durable before the first
    /// append, so that records of an earlier opening behind the tail are known for what they are.
    pub opening: u32,
    /// Bytes of log in a new segment file: a multiple of 4096, at least 64 KiB. Segments of another size that exist
    /// already are read and used up.
    pub segment_bytes: u64,
    /// Memory for records that are not yet written, in bytes (two halves: one is filled while the other is written).
    /// A record's payload may be an eighth of it at most.
    pub buffer_bytes: usize,
    /// How long a relaxed commit may stay in memory.
    pub relaxed_delay: Duration,
    /// How many `fdatasync` calls may be in flight at once: 1 or 2. The second is used only while few threads commit,
    /// where overlapping beats grouping.
    pub syncs_in_flight: usize,
    /// Who does the work that no caller waits for.
    pub background: Background,
}

impl WalConfig {
    /// Smallest segment, in bytes of log.
    pub const MIN_SEGMENT_BYTES: u64 = 64 * 1024;
    /// Largest segment, in bytes of log.
    pub const MAX_SEGMENT_BYTES: u64 = 1 << 40;
    /// Smallest log buffer, in bytes.
    pub const MIN_BUFFER_BYTES: usize = 16 * 1024;
    /// Largest log buffer, in bytes.
    pub const MAX_BUFFER_BYTES: usize = MAX_PAYLOAD * 8;

    /// The defaults for a database in `dir`.
    pub fn new(dir: impl Into<PathBuf>, database_id: [u8; 16], opening: u32) -> Self {
        Self {
            dir: dir.into(),
            database_id,
            opening,
            segment_bytes: 64 << 20,
            buffer_bytes: 16 << 20,
            relaxed_delay: Duration::from_millis(100),
            syncs_in_flight: 2,
            background: Background::Threads,
        }
    }

    /// The largest payload one record may have, in bytes.
    pub fn max_payload(&self) -> usize {
        self.buffer_bytes / 8
    }

    /// [`WalError::Config`] names the first value that is out of bounds.
    pub(crate) fn check(&self) -> Result<(), WalError> {
        let bad = |what: String| Err(WalError::Config { what });
        if !(Self::MIN_SEGMENT_BYTES..=Self::MAX_SEGMENT_BYTES).contains(&self.segment_bytes)
            || !self.segment_bytes.is_multiple_of(4096)
        {
            return bad(format!(
                "segment_bytes is {}; it must be a multiple of 4096 from {} to {}",
                self.segment_bytes,
                Self::MIN_SEGMENT_BYTES,
                Self::MAX_SEGMENT_BYTES
            ));
        }
        if !(Self::MIN_BUFFER_BYTES..=Self::MAX_BUFFER_BYTES).contains(&self.buffer_bytes) {
            return bad(format!(
                "buffer_bytes is {}; it must be from {} to {}",
                self.buffer_bytes,
                Self::MIN_BUFFER_BYTES,
                Self::MAX_BUFFER_BYTES
            ));
        }
        if !(1..=2).contains(&self.syncs_in_flight) {
            return bad(format!("syncs_in_flight is {}; it must be 1 or 2", self.syncs_in_flight));
        }
        Ok(())
    }
}
