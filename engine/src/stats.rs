//! Figures of a running database.

use std::fmt;

/// What a checkpoint did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointInfo {
    /// Its number; 0 when there was nothing to write and none was made.
    pub number: u64,
    /// Replay begins here from now on.
    pub replay_lsn: u64,
    /// The log's end when its epoch was closed.
    pub log_end: u64,
}

/// What recovery found and did at open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Where replay began.
    pub from_lsn: u64,
    /// Where the log ended.
    pub end_lsn: u64,
    /// Records read.
    pub records: u64,
    /// Commits replayed.
    pub commits: u64,
    /// Why the log ends where it ends, in words.
    pub end: String,
    /// The opening number of this run.
    pub opening: u32,
    /// The last run ended with a checkpoint at close and left nothing to replay.
    pub clean: bool,
}

/// Shape of one table's tree.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct TableStats {
    /// Levels, leaves included.
    pub height: u32,
    /// Entries.
    pub entries: u64,
    /// Leaves.
    pub leaf_pages: u64,
    /// Inner nodes.
    pub inner_pages: u64,
    /// Pages of values that lie outside the leaves.
    pub overflow_pages: u64,
    /// Bytes in use in the leaves, over their size (0 to 1).
    pub leaf_fill: f64,
}

/// Figures of the whole database since it was opened.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Stats {}

impl Stats {
    /// As one JSON object.
    pub fn to_json(&self) -> String {
        String::new()
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_json())
    }
}
