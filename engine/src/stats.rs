//! Figures of a running database.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use bedstone_bufpool::PoolStats;
use bedstone_wal::WalStats;

use crate::btree::TreeStats;

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
    /// There was nothing to replay.
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
    /// Bytes of all keys.
    pub key_bytes: u64,
    /// Bytes of all values.
    pub value_bytes: u64,
    /// Bytes in use in the leaves, over their size (0 to 1).
    pub leaf_fill: f64,
}

impl From<TreeStats> for TableStats {
    fn from(s: TreeStats) -> Self {
        Self {
            height: s.levels as u32,
            entries: s.entries,
            leaf_pages: s.leaf_pages,
            inner_pages: s.inner_pages,
            overflow_pages: s.overflow_pages,
            key_bytes: s.key_bytes,
            value_bytes: s.value_bytes,
            leaf_fill: if s.leaf_capacity == 0 { 0.0 } else { s.leaf_bytes as f64 / s.leaf_capacity as f64 },
        }
    }
}

/// What the engine itself counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) puts: AtomicU64,
    pub(crate) deletes: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) batch_writes: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn of(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

/// Figures of the whole database since it was opened.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Puts committed on their own.
    pub puts: u64,
    /// Deletes committed on their own, of keys that were there.
    pub deletes: u64,
    /// Batches committed.
    pub batches: u64,
    /// Writes in those batches.
    pub batch_writes: u64,
    /// Tables there are.
    pub tables: u64,
    /// Every commit below this LSN can be seen in the tables.
    pub visible_lsn: u64,
    /// Replay would begin here now.
    pub replay_lsn: u64,
    /// The last checkpoint of this run.
    pub last_checkpoint: CheckpointInfo,
    /// Checkpoints given up.
    pub checkpoint_failures: u64,
    /// Why the last one of them was.
    pub last_checkpoint_failure: Option<String>,
    /// Why the database only reads, if it does.
    pub read_only_because: Option<String>,
    /// Figures of the buffer pool and the data file.
    pub pool: PoolStats,
    /// Figures of the log.
    pub wal: WalStats,
    /// How I/O is done.
    pub io: String,
}

impl Stats {
    /// Name and value of every figure, as JSON writes them.
    fn figures(&self) -> Vec<(&'static str, Vec<(&'static str, String)>)> {
        let n = |n: u64| n.to_string();
        let optional = |n: Option<u64>| n.map_or("null".into(), |n| n.to_string());
        let text = |s: &Option<String>| s.as_deref().map_or("null".into(), quote);
        let (p, w) = (&self.pool, &self.wal);
        let groups = w.commits_per_sync.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        vec![
            (
                "engine",
                vec![
                    ("puts", n(self.puts)),
                    ("deletes", n(self.deletes)),
                    ("batches", n(self.batches)),
                    ("batch_writes", n(self.batch_writes)),
                    ("tables", n(self.tables)),
                    ("visible_lsn", n(self.visible_lsn)),
                    ("read_only_because", text(&self.read_only_because)),
                    ("io", quote(&self.io)),
                ],
            ),
            (
                "checkpoint",
                vec![
                    ("replay_lsn", n(self.replay_lsn)),
                    ("last_number", n(self.last_checkpoint.number)),
                    ("last_log_end", n(self.last_checkpoint.log_end)),
                    ("failures", n(self.checkpoint_failures)),
                    ("last_failure", text(&self.last_checkpoint_failure)),
                ],
            ),
            (
                "pool",
                vec![
                    ("page_size", n(p.page_size)),
                    ("frames", n(p.frames)),
                    ("free_frames", n(p.free_frames)),
                    ("dirty_frames", n(p.dirty_frames)),
                    ("live_pages", n(p.live_pages)),
                    ("file_bytes", n(p.file_bytes)),
                    ("free_bytes", n(p.free_bytes)),
                    ("held_bytes", n(p.held_bytes)),
                    ("page_reads", n(p.page_reads)),
                    ("read_batches", n(p.read_batches)),
                    ("page_writes", n(p.page_writes)),
                    ("write_batches", n(p.write_batches)),
                    ("evictions", n(p.evictions)),
                    ("copies", n(p.copies)),
                    ("checkpoints", n(p.checkpoints)),
                    ("syncs", n(p.syncs)),
                    ("os_cached_pages", optional(p.os_cached_pages)),
                ],
            ),
            (
                "log",
                vec![
                    ("records", n(w.records)),
                    ("appended_bytes", n(w.appended_bytes)),
                    ("writes", n(w.writes)),
                    ("written_bytes", n(w.written_bytes)),
                    ("syncs", n(w.syncs)),
                    ("synced_commits", n(w.synced_commits)),
                    ("commits_per_sync", format!("[{groups}]")),
                    ("buffer_full", n(w.buffer_full)),
                    ("segments", n(w.segments)),
                    ("segments_created", n(w.segments_created)),
                    ("segments_recycled", n(w.segments_recycled)),
                    ("segments_removed", n(w.segments_removed)),
                    ("free_bytes", n(w.free_bytes)),
                    ("tail", n(w.tail.0)),
                    ("written", n(w.written.0)),
                    ("durable", n(w.durable.0)),
                    ("os_cached_bytes", optional(w.cached_bytes)),
                ],
            ),
        ]
    }

    /// As one JSON object with an object for each part.
    pub fn to_json(&self) -> String {
        let parts = self.figures().into_iter().map(|(part, figures)| {
            let figures: Vec<String> =
                figures.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
            format!("\"{part}\":{{{}}}", figures.join(","))
        });
        format!("{{{}}}", parts.collect::<Vec<_>>().join(","))
    }
}

impl fmt::Display for Stats {
    /// One figure a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (part, figures) in self.figures() {
            for (name, value) in figures {
                writeln!(f, "{part}.{name} = {value}")?;
            }
        }
        Ok(())
    }
}

/// `text` as a JSON string.
fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_strings_are_escaped() {
        assert_eq!(quote("a\"b\\c\nd"), "\"a\\\"b\\\\c\\u000ad\"");
    }

    #[test]
    fn json_is_one_object() {
        let stats = Stats { read_only_because: Some("a \"quoted\" reason".into()), ..Stats::default() };
        let json = stats.to_json();
        assert!(json.starts_with("{\"engine\":{") && json.ends_with("}}"));
        assert!(json.contains("\"read_only_because\":\"a \\\"quoted\\\" reason\""));
        assert_eq!(json.matches('{').count(), json.matches('}').count());
    }
}
