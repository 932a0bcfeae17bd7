//! Data several times larger than the pool: that all of it comes back, that the process stays within its memory, and that
//! nothing is cached twice.

use std::path::Path;
use std::time::{Duration, Instant};

use bedstone::{Database, Durability, WriteBatch};

use bedstone_crashtest::rng::Rng;

/// What to run.
#[derive(Debug, Clone)]
pub struct Larger {
    /// Bytes of keys and values.
    pub data_bytes: u64,
    /// Bytes of the pool.
    pub pool_bytes: usize,
    /// Random gets, and random overwrites.
    pub ops: u64,
    /// Threads that do them.
    pub threads: u64,
    /// What the keys follow from.
    pub seed: u64,
}

/// What was seen.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Entries.
    pub entries: u64,
    /// Time of the load, and of the checkpoint at its end.
    pub load: Duration,
    /// Time of the random gets.
    pub gets: Duration,
    /// Time of the full scan.
    pub scan: Duration,
    /// Time of the random overwrites.
    pub overwrites: Duration,
    /// Most memory that the process had resident, in bytes (`VmHWM`).
    pub resident_peak: u64,
    /// 4 KiB pages of the data file in the page cache at the end.
    pub data_cached_pages: u64,
    /// Bytes of the log in the page cache at the end.
    pub log_cached_bytes: u64,
    /// Bytes of the data file.
    pub file_bytes: u64,
    /// The I/O mode in effect.
    pub io: String,
}

/// Bytes of a key and of a value.
pub(crate) const KEY: usize = 24;
pub(crate) const VALUE: usize = 150;

/// The key of entry `i`: its number, then random bytes, the same for the same seed. Loading goes through the keys in
/// order, as a bulk load does; gets and overwrites come at random.
pub(crate) fn key(seed: u64, i: u64) -> [u8; KEY] {
    let mut rng = Rng::new(seed ^ i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut key = [0; KEY];
    key[..8].copy_from_slice(&i.to_be_bytes());
    for part in key[8..].chunks_mut(8) {
        part.copy_from_slice(&rng.next().to_le_bytes());
    }
    key
}

/// The value of entry `i` in its `version`: it names its entry, so that a mixed-up one shows.
pub(crate) fn value(i: u64, version: u64) -> [u8; VALUE] {
    let mut value = [b'.'; VALUE];
    value[..8].copy_from_slice(&i.to_le_bytes());
    value[8..16].copy_from_slice(&version.to_le_bytes());
    value[VALUE - 8..].copy_from_slice(&i.to_le_bytes());
    value
}

fn entry_of(value: &[u8]) -> u64 {
    assert_eq!(value.len(), VALUE);
    let first: [u8; 8] = value[..8].try_into().expect("eight bytes");
    assert_eq!(first, value[VALUE - 8..], "a mixed-up value");
    u64::from_le_bytes(first)
}

/// Most memory this process had resident, in bytes.
///
/// # Panics
/// If the kernel does not say.
pub fn resident_peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc/self/status");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("VmHWM");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number of KiB");
    kib * 1024
}

/// Loads, reads, scans and overwrites in `dir`, and checks every answer.
///
/// # Errors
/// Whatever the database answers.
///
/// # Panics
/// If an answer is wrong.
pub fn run(plan: &Larger, dir: &Path, say: &mut dyn FnMut(&str)) -> Result<Outcome, bedstone::Error> {
    let entries = plan.data_bytes / (KEY + VALUE) as u64;
    let db = Database::builder().pool_bytes(plan.pool_bytes).create(dir)?;
    let table = db.table("data")?;
    let started = Instant::now();
    let mut batch = WriteBatch::new();
    for i in 0..entries {
        batch.put(&table, key(plan.seed, i), value(i, 0))?;
        if batch.len() == 2_000 {
            db.write_with(std::mem::take(&mut batch), Durability::Relaxed)?;
        }
        if i > 0 && i.is_multiple_of(2_000_000) {
            say(&format!("{i} of {entries} loaded, {:.0}/s", i as f64 / started.elapsed().as_secs_f64()));
        }
    }
    db.write_with(batch, Durability::Sync)?;
    db.checkpoint()?;
    let load = started.elapsed();
    say(&format!("loaded {entries} entries in {load:.1?}"));

    let each = plan.ops / plan.threads;
    let started = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..plan.threads {
            let table = &table;
            scope.spawn(move || {
                let mut rng = Rng::new(plan.seed + 1 + thread);
                for _ in 0..each {
                    let i = rng.below(entries);
                    let found = table.get(key(plan.seed, i)).expect("a get");
                    assert_eq!(entry_of(&found.expect("every key was loaded")), i, "seed {}", plan.seed);
                }
            });
        }
    });
    let gets = started.elapsed();
    say(&format!("{} random gets in {gets:.1?}", each * plan.threads));

    let started = Instant::now();
    let (mut count, mut sum) = (0, 0_u64);
    let mut range = table.iter()?;
    while let Some((_, value)) = range.next_ref()? {
        count += 1;
        sum = sum.wrapping_add(entry_of(value));
    }
    drop(range);
    assert_eq!((count, sum), (entries, (0..entries).fold(0, u64::wrapping_add)), "seed {}", plan.seed);
    let scan = started.elapsed();
    say(&format!("scanned {count} entries in {scan:.1?}"));

    let started = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..plan.threads {
            let table = &table;
            scope.spawn(move || {
                let mut rng = Rng::new(plan.seed + 100 + thread);
                for round in 0..each {
                    let i = rng.below(entries);
                    table
                        .put_with(key(plan.seed, i), value(i, round + 1), Durability::Relaxed)
                        .expect("an overwrite");
                }
            });
        }
    });
    db.sync()?;
    let overwrites = started.elapsed();
    say(&format!("{} random overwrites in {overwrites:.1?}", each * plan.threads));

    let stats = db.stats();
    let outcome = Outcome {
        entries,
        load,
        gets,
        scan,
        overwrites,
        resident_peak: resident_peak(),
        data_cached_pages: stats.pool.os_cached_pages.expect("the kernel tells what it caches"),
        log_cached_bytes: stats.wal.cached_bytes.unwrap_or(0),
        file_bytes: stats.pool.file_bytes,
        io: stats.io,
    };
    db.close()?;
    Ok(outcome)
}
