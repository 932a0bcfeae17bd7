//! What the log counts.

use crate::lsn::Lsn;

/// Number of classes in [`WalStats::commits_per_sync`].
pub const GROUP_CLASSES: usize = 12;

/// Counters since the log was opened, and where it stands now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct WalStats {
    /// Records appended.
    pub records: u64,
    /// Bytes of log appended, with headers and padding.
    pub appended_bytes: u64,
    /// Writes handed to the kernel.
    pub writes: u64,
    /// Bytes handed to the kernel, with the zeros up to the end of the last page of each write.
    pub written_bytes: u64,
    /// Rounds of `fdatasync` that succeeded.
    pub syncs: u64,
    /// Waits that ended because a sync covered them.
    pub synced_commits: u64,
    /// How many waits each sync ended: class 0 counts syncs that ended none, class n those that ended at least
    /// 2^(n-1) and fewer than 2^n; the last class is open.
    pub commits_per_sync: [u64; GROUP_CLASSES],
    /// Appends that found the buffer full.
    pub buffer_full: u64,
    /// Segments written anew with zeros.
    pub segments_created: u64,
    /// Segments used again.
    pub segments_recycled: u64,
    /// Segments removed.
    pub segments_removed: u64,
    /// Segments in use now, the prepared ones included.
    pub segments: u64,
    /// Bytes of log that are prepared and promised to nobody.
    pub free_bytes: u64,
    /// End of what was appended.
    pub tail: Lsn,
    /// End of what was handed to the kernel.
    pub written: Lsn,
    /// End of what is on the medium for certain.
    pub durable: Lsn,
    /// Bytes of the segments of this opening that the operating system caches; `None` where it cannot be asked.
    pub cached_bytes: Option<u64>,
    /// The log has failed.
    pub failed: bool,
}

/// The class of [`WalStats::commits_per_sync`] that a sync which ended `waits` waits belongs to.
pub(crate) fn group_class(waits: u64) -> usize {
    ((u64::BITS - waits.leading_zeros()) as usize).min(GROUP_CLASSES - 1)
}
