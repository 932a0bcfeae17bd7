//! A snapshot held open while updates pass over all keys, many times: what the file, the pool and the old values grow to,
//! what reading through the snapshot costs at the end, and what is given back when it is closed.

use std::path::Path;
use std::time::{Duration, Instant};

use bedstone::{Database, Durability, Result, Snapshot, SnapshotOptions, Table, WriteBatch};

use bedstone_crashtest::rng::Rng;
use bedstone_crashtest::setup::{check_clean, real_builder};

/// Bytes of a value.
const VALUE: usize = 100;

/// What to run.
#[derive(Debug, Clone)]
pub struct Held {
    /// Keys.
    pub keys: u64,
    /// Updates of random keys while the snapshot is open.
    pub updates: u64,
    /// Threads that make them.
    pub threads: u64,
    /// Random gets through the snapshot of which the mean time is taken.
    pub gets: u64,
    /// Bytes of the pool.
    pub pool_bytes: usize,
    /// What is drawn.
    pub seed: u64,
}

/// How it stands at one moment.
#[derive(Debug, Clone)]
pub struct Moment {
    /// Which one.
    pub what: String,
    /// Bytes of the data file.
    pub file_bytes: u64,
    /// Bytes of it that are free.
    pub free_bytes: u64,
    /// Bytes of the pool in use.
    pub pool_bytes: u64,
    /// Bytes of old values, as `Database::snapshots` tells.
    pub held_bytes: u64,
    /// Mean time of a random get through the oldest snapshot, and of one of the newest value.
    pub get: [Duration; 2],
    /// Time of a scan of the whole table through the oldest snapshot.
    pub scan: Duration,
}

/// What was seen.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Before, at the end, and after closing.
    pub moments: Vec<Moment>,
    /// Time of the updates.
    pub updates: Duration,
    /// The I/O mode in effect.
    pub io: String,
}

fn key(i: u64) -> [u8; 8] {
    i.to_be_bytes()
}

fn value(i: u64, version: u64) -> [u8; VALUE] {
    let mut value = [b'.'; VALUE];
    value[..8].copy_from_slice(&i.to_le_bytes());
    value[8..16].copy_from_slice(&version.to_le_bytes());
    value
}

/// Measures, with everything read through the snapshot compared with version 0 if it is `old`.
fn look(
    plan: &Held,
    db: &Database,
    table: &Table,
    snapshot: &Snapshot,
    old: bool,
    what: &str,
) -> Result<Moment> {
    let mut rng = Rng::of(&[plan.seed, 2]);
    let chosen: Vec<u64> = (0..plan.gets.max(1)).map(|_| rng.below(plan.keys)).collect();
    let mean = |get: &dyn Fn(u64) -> Result<()>| -> Result<Duration> {
        let began = Instant::now();
        for i in &chosen {
            get(*i)?;
        }
        Ok(began.elapsed() / chosen.len() as u32)
    };
    let newest = mean(&|i| {
        assert!(table.contains(key(i))?);
        Ok(())
    })?;
    let through = mean(&|i| {
        let found = snapshot.get(table, key(i))?.expect("every key was there");
        assert!(!old || found[..] == value(i, 0), "key {i} is not as it was, seed {}", plan.seed);
        Ok(())
    })?;
    let began = Instant::now();
    let mut range = snapshot.iter(table)?;
    let mut next = 0;
    while let Some((k, v)) = range.next_ref()? {
        assert!(k == key(next) && (!old || v == value(next, 0)), "entry {next}, seed {}", plan.seed);
        next += 1;
    }
    assert_eq!(next, plan.keys, "seed {}", plan.seed);
    let scan = began.elapsed();
    let pool = db.stats().pool;
    let held = db.snapshots().iter().map(|info| info.held_bytes).max();
    Ok(Moment {
        what: what.to_owned(),
        file_bytes: pool.file_bytes,
        free_bytes: pool.free_bytes,
        pool_bytes: (pool.frames - pool.free_frames) * pool.page_size,
        held_bytes: held.unwrap_or(0),
        get: [through, newest],
        scan,
    })
}

/// Runs it in `dir`, and checks every answer.
///
/// # Errors
/// Whatever the database answers.
///
/// # Panics
/// If an answer is wrong.
pub fn run(plan: &Held, dir: &Path, say: &mut dyn FnMut(&str)) -> Result<Outcome> {
    let db = real_builder().pool_bytes(plan.pool_bytes).create(dir)?;
    let table = db.table("data")?;
    let mut batch = WriteBatch::new();
    for i in 0..plan.keys {
        batch.put(&table, key(i), value(i, 0))?;
        if batch.len() == 1000 {
            db.write_with(std::mem::take(&mut batch), Durability::Relaxed)?;
        }
    }
    db.write(batch)?;
    // Twice: the first one names what the loading left, and what it frees can be used after the second one.
    db.checkpoint()?;
    db.checkpoint()?;
    say(&format!("{} keys loaded", plan.keys));

    let snapshot = db.begin_read_with(SnapshotOptions::new().name("held"))?;
    let mut moments = vec![look(plan, &db, &table, &snapshot, true, "snapshot taken")?];
    let began = Instant::now();
    let each = plan.updates / plan.threads;
    let parts = 10;
    for part in 0..parts {
        std::thread::scope(|scope| {
            for thread in 0..plan.threads {
                let table = &table;
                scope.spawn(move || {
                    let mut rng = Rng::of(&[plan.seed, 3, part, thread]);
                    for round in 0..each / parts {
                        let i = rng.below(plan.keys);
                        let version = 1 + part * each + round;
                        table.put_with(key(i), value(i, version), Durability::Relaxed).expect("an update");
                    }
                });
            }
        });
        let (done, pool) = ((part + 1) * (each / parts) * plan.threads, db.stats().pool);
        say(&format!(
            "{done} updates, {:.0}/s; file {} MiB, old values {} MiB",
            done as f64 / began.elapsed().as_secs_f64(),
            pool.file_bytes >> 20,
            db.snapshots().iter().map(|info| info.held_bytes).max().unwrap_or(0) >> 20
        ));
    }
    let updates = began.elapsed();
    moments.push(look(plan, &db, &table, &snapshot, true, "updates done")?);
    snapshot.close();
    // What nobody sees any more is dropped with a checkpoint, and its space is free once another one was made.
    db.checkpoint()?;
    db.checkpoint()?;
    let fresh = db.begin_read()?;
    moments.push(look(plan, &db, &table, &fresh, false, "snapshot closed")?);
    fresh.close();
    assert_eq!(check_clean(&db), Ok(()));
    let io = db.stats().io;
    db.close()?;
    Ok(Outcome { moments, updates, io })
}
