//! What a live snapshot costs the writers: commits a second with none, with one taken just before, and with one taken long
//! ago, since when every key was changed. The three take turns, and ratios are those of one round.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bedstone::{Database, Durability, Result, Table, UpdateOptions, WriteBatch};

use bedstone_crashtest::rng::Rng;
use bedstone_crashtest::setup::real_builder;

/// Threads that write.
pub const THREADS: [u64; 3] = [1, 2, 8];
/// Keys of a transaction.
pub const KEYS_EACH: u64 = 10;
/// Bytes of a value.
const VALUE: usize = 100;

/// What to run.
#[derive(Debug, Clone)]
pub struct Figures {
    /// Keys.
    pub keys: u64,
    /// Rounds of which the median counts.
    pub rounds: usize,
    /// Time of each measurement.
    pub time: Duration,
    /// Bytes of the pool.
    pub pool_bytes: usize,
    /// What is drawn.
    pub seed: u64,
}

/// What is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One put, by itself.
    Put,
    /// A transaction that writes [`KEYS_EACH`] keys.
    Transaction,
}

/// Which snapshot is live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// None.
    Nothing,
    /// One taken just before.
    Fresh,
    /// One taken before every key was changed.
    Old,
}

const BESIDES: [Beside; 3] = [Beside::Nothing, Beside::Fresh, Beside::Old];

/// The medians of one kind and number of threads.
#[derive(Debug, Clone)]
pub struct Row {
    /// What is committed.
    pub kind: Kind,
    /// Threads.
    pub threads: u64,
    /// Commits a second with no snapshot, a fresh one, an old one.
    pub rates: [f64; 3],
    /// The same over that with no snapshot, in the same round.
    pub ratios: [f64; 3],
    /// Transactions run again after a conflict, of a thousand, with no snapshot.
    pub again: f64,
}

/// What was seen.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The table.
    pub rows: Vec<Row>,
    /// The I/O mode in effect.
    pub io: String,
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(0.0)
}

fn put_all(db: &Database, table: &Table, keys: u64, fill: u8) -> Result<()> {
    let mut batch = WriteBatch::new();
    for i in 0..keys {
        batch.put(table, i.to_be_bytes(), [fill; VALUE])?;
        if batch.len() == 500 {
            db.write_with(std::mem::take(&mut batch), Durability::Relaxed)?;
        }
    }
    db.write_with(batch, Durability::Relaxed).map(drop)
}

/// Commits, and runs after a conflict, in so much time; and the time it really took.
fn measure(
    plan: &Figures,
    db: &Database,
    table: &Table,
    kind: Kind,
    threads: u64,
    salt: u64,
) -> Result<[f64; 2]> {
    let (commits, again) = (AtomicU64::new(0), AtomicU64::new(0));
    let began = Instant::now();
    let work = &|thread: u64| -> Result<()> {
        let mut rng = Rng::of(&[plan.seed, salt, thread]);
        let mut done = 0_u64;
        // One at least: the others may have taken all the time.
        while done == 0 || began.elapsed() < plan.time {
            match kind {
                Kind::Put => {
                    let key = rng.below(plan.keys).to_be_bytes();
                    table.put_with(key, [done as u8; VALUE], Durability::Relaxed)?;
                }
                Kind::Transaction => {
                    let keys: Vec<_> = (0..KEYS_EACH).map(|_| rng.below(plan.keys).to_be_bytes()).collect();
                    let mut runs = 0;
                    db.update_with(UpdateOptions::new().durability(Durability::Relaxed), |tx| {
                        runs += 1;
                        keys.iter().try_for_each(|key| tx.put(table, key, [done as u8; VALUE]))
                    })?;
                    again.fetch_add(runs - 1, Ordering::Relaxed);
                }
            }
            done += 1;
        }
        commits.fetch_add(done, Ordering::Relaxed);
        Ok(())
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        running.into_iter().try_for_each(|thread| thread.join().expect("a writer thread"))
    })?;
    let commits = commits.into_inner() as f64;
    Ok([commits / began.elapsed().as_secs_f64(), again.into_inner() as f64 * 1000.0 / commits.max(1.0)])
}

/// Measures in `dir`.
///
/// # Errors
/// Whatever the database answers.
pub fn run(plan: &Figures, dir: &Path, say: &mut dyn FnMut(&str)) -> Result<Outcome> {
    let db = real_builder().pool_bytes(plan.pool_bytes).create(dir)?;
    let table = db.table("data")?;
    put_all(&db, &table, plan.keys, b'.')?;
    say(&format!("{} keys loaded", plan.keys));
    let cells: Vec<(Kind, u64)> =
        [Kind::Put, Kind::Transaction].iter().flat_map(|kind| THREADS.map(|n| (*kind, n))).collect();
    // By cell, then by what is live: a rate of each round, and the conflicts.
    let mut seen = vec![[const { Vec::<[f64; 2]>::new() }; 3]; cells.len()];
    for round in 0..plan.rounds {
        for (which, beside) in BESIDES.iter().enumerate() {
            db.checkpoint()?;
            let old = match beside {
                Beside::Old => {
                    let old = db.begin_read()?;
                    put_all(&db, &table, plan.keys, round as u8)?;
                    db.checkpoint()?;
                    Some(old)
                }
                _ => None,
            };
            for ((kind, threads), seen) in cells.iter().zip(&mut seen) {
                let fresh = match beside {
                    Beside::Fresh => Some(db.begin_read()?),
                    _ => None,
                };
                let salt = (round * 3 + which) as u64;
                seen[which].push(measure(plan, &db, &table, *kind, *threads, salt)?);
                drop(fresh);
                // Nothing of this measurement's garbage is left to the next one.
                db.checkpoint()?;
            }
            drop(old);
        }
        say(&format!("round {} of {} done", round + 1, plan.rounds));
    }
    let rows = cells.iter().zip(&seen).map(|((kind, threads), seen)| {
        let rates = [0, 1, 2].map(|which: usize| median(seen[which].iter().map(|cell| cell[0]).collect()));
        let ratio = |which: usize| seen[which].iter().zip(&seen[0]).map(|(cell, base)| cell[0] / base[0]);
        let ratios = [0, 1, 2].map(|which: usize| median(ratio(which).collect()));
        let again = median(seen[0].iter().map(|cell| cell[1]).collect());
        Row { kind: *kind, threads: *threads, rates, ratios, again }
    });
    let rows = rows.collect();
    let io = db.stats().io;
    db.close()?;
    Ok(Outcome { rows, io })
}
