//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use bedstone_benches::{Result, Store, Workload};
use clap::{Parser, ValueEnum};

/// Promise of commits in workloads that insert.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Promise {
    /// Every commit synced.
    Durable,
    /// No commit waits for a sync.
    Relaxed,
}

impl From<Promise> for bedstone_benches::Durability {
    fn from(promise: Promise) -> Self {
        match promise {
            Promise::Durable => Self::Durable,
            Promise::Relaxed => Self::Relaxed,
        }
    }
}

/// Measures storage engines side by side: every engine does the same work within each round, and every answer is
/// checked.
#[derive(Debug, Clone, Parser)]
#[command(version)]
pub struct Args {
    /// What to measure, separated by commas: get, get-zipf, multi-get, scan, seek-scan, insert-random-batch,
    /// insert-ascending, commit-durable, larger-than-memory, or all
    #[arg(long, value_delimiter = ',', required = true)]
    pub workload: Vec<String>,

    /// Engines, separated by commas. "-per-call" after lmdb, redb, canopydb or sqlite makes it begin a read
    /// transaction for each call instead of holding one; "sled-flush-only" leaves
    /// out the fdatasync that sled itself does not do; "btreemap" is the standard library's map
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "bedstone,lmdb,redb,canopydb,rocksdb,fjall,sled,sqlite"
    )]
    pub engines: Vec<String>,

    /// Engine that the others are compared with; the first one if it does not take part
    #[arg(long, default_value = "bedstone")]
    pub baseline: String,

    /// Entries in the store (larger-than-memory: see --times-pool)
    #[arg(long, default_value_t = 1_000_000)]
    pub entries: u64,

    /// Bytes of each value; keys have 24
    #[arg(long, default_value_t = 150)]
    pub value_len: usize,

    /// Rounds that count
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,

    /// Reading operations a round, all threads together
    #[arg(long, default_value_t = 1_000_000)]
    pub ops: u64,

    /// Numbers of threads, separated by commas [default: 1; commit-durable 1,8,64; larger-than-memory 8]
    #[arg(long, value_delimiter = ',')]
    pub threads: Vec<usize>,

    /// Entries a transaction when inserting; 0 puts all into one
    #[arg(long, default_value_t = 1_000)]
    pub batch: u64,

    /// Promise of commits when inserting; commit-durable is always durable
    #[arg(long, value_enum, default_value_t = Promise::Relaxed)]
    pub durability: Promise,

    /// Seconds of committing in each round of commit-durable
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,

    /// Keys of one multi-get
    #[arg(long, default_value_t = 32)]
    pub keys_per_call: usize,

    /// Entries read after a seek
    #[arg(long, default_value_t = 100)]
    pub scan_len: usize,

    /// Budget of each engine's own cache in MiB, for data that fits into memory
    #[arg(long, default_value_t = 2048)]
    pub cache_mib: usize,

    /// The same for larger-than-memory
    #[arg(long, default_value_t = 256)]
    pub pool_mib: usize,

    /// How many times larger than the pool the data of larger-than-memory is
    #[arg(long, default_value_t = 6)]
    pub times_pool: u64,

    /// Bytes of each raw read beside larger-than-memory: the page size of the engine to compare with
    #[arg(long, default_value_t = 16384)]
    pub block: usize,

    /// Text that Bedstone's effective I/O mode must contain, such as "Uring" or "O_DIRECT"; anything else is an error
    #[arg(long)]
    pub require_io: Option<String>,

    /// Everything random comes from it
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Where the stores are made: a directory on the disk to be measured, not in memory
    #[arg(long, default_value = "target/peers-data")]
    pub dir: PathBuf,

    /// Little of everything: shows that all works, measures nothing
    #[arg(long)]
    pub smoke: bool,
}

impl Args {
    /// The same, made small if a smoke test was asked for.
    pub fn shrunk(mut self) -> Self {
        if self.smoke {
            self.entries = self.entries.min(5_000);
            self.ops = self.ops.min(2_000);
            self.rounds = self.rounds.min(2);
            self.seconds = self.seconds.min(0.05);
            self.cache_mib = self.cache_mib.min(64);
            self.pool_mib = self.pool_mib.min(16);
        }
        self
    }

    /// The workloads asked for.
    pub fn workloads(&self) -> Result<Vec<Workload>> {
        let mut found = Vec::new();
        for name in &self.workload {
            if name == "all" {
                found.extend(Workload::ALL);
                continue;
            }
            let known = Workload::ALL.into_iter().find(|workload| workload.name() == name);
            found.push(known.ok_or_else(|| format!("there is no workload {name:?}"))?);
        }
        Ok(found)
    }

    /// Numbers of threads to measure with.
    pub fn threads(&self, store: Store) -> Vec<usize> {
        let usual: &[usize] = match store {
            Store::Loaded | Store::FreshEachRound => &[1],
            Store::LoadedForCommits => &[1, 8, 64],
            Store::ReopenedEachRound => &[8],
        };
        if self.threads.is_empty() { usual.to_vec() } else { self.threads.clone() }
    }

    /// Budget in bytes of each engine's own cache.
    pub fn cache_bytes(&self, store: Store) -> usize {
        if store == Store::ReopenedEachRound { self.pool_mib << 20 } else { self.cache_mib << 20 }
    }

    /// Time of committing in each round.
    pub fn commit_for(&self) -> Duration {
        Duration::from_secs_f64(self.seconds.clamp(0.001, 3600.0))
    }
}
