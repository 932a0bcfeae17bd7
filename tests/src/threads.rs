//! Many threads on one database with a pool far too small for its data.
//!
//! Writers own disjoint sets of keys, so each knows what its keys must hold; readers of all keys check that every value
//! is whole, belongs to its key, and never goes back to an earlier version once a later one was seen.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bedstone::{Database, Durability, Error, Table, WriteBatch};

use bedstone_crashtest::model::{Bytes, Map, show};
use bedstone_crashtest::rng::{Rng, mix};
use bedstone_crashtest::setup::{assert_mode, check_clean, real_builder, smallest_pool, temp_dir};
use bedstone_crashtest::view;

const TABLES: u64 = 2;
const KEYS: u64 = 1500;

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Decides what each thread does, though not how they meet.
    pub seed: u64,
    /// How long.
    pub time: Duration,
    /// Writing threads.
    pub writers: u64,
    /// Reading threads.
    pub readers: u64,
    /// Bytes of a page.
    pub page_size: usize,
}

/// What was done.
#[derive(Debug, Default)]
pub struct Report {
    /// Commits.
    pub commits: AtomicU64,
    /// Entries read.
    pub reads: AtomicU64,
    /// Calls refused because the pool was exhausted, with nothing done.
    pub exhausted: AtomicU64,
    /// The way of I/O.
    pub mode: String,
    /// Bytes of the pool and of the data file at the end.
    pub sizes: (usize, u64),
}

fn key_of(writer: u64, number: u64) -> Vec<u8> {
    // Keys of different writers lie side by side in the leaves.
    format!("some shared part/{number:06}/{writer:02}").into_bytes()
}

/// A value that says whose it is: 8 bytes of version, then bytes that follow from key and version.
fn value_of(key: &[u8], version: u64) -> Bytes {
    let hash = key.iter().fold(version, |hash, byte| mix(hash ^ u64::from(*byte)));
    let len = match hash % 64 {
        0 => 3000 + (hash >> 8) % 40_000,
        1..=6 => (hash >> 8) % 2500,
        _ => (hash >> 8) % 160,
    };
    let mut value = version.to_le_bytes().to_vec();
    value.extend(Rng::new(hash).bytes(len as usize));
    value.into()
}

fn version_in(key: &[u8], value: &[u8]) -> Result<u64, String> {
    let version = value.get(..8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
    match version {
        Some(version) if value_of(key, version)[..] == *value => Ok(version),
        _ => Err(format!("the value of {} is not whole or not its own: {}", show(key), show(value))),
    }
}

struct Shared<'a> {
    db: &'a Database,
    tables: &'a [Table],
    plan: &'a Plan,
    stop: &'a AtomicBool,
    report: &'a Report,
}

/// Runs the threads for the time given, and verifies everything at the end, and again after opening anew.
///
/// # Errors
/// Says what was wrong.
pub fn run(plan: &Plan) -> Result<Report, String> {
    let dir = temp_dir();
    run_in(plan, &dir.path().join("store"))
}

fn run_in(plan: &Plan, place: &Path) -> Result<Report, String> {
    let text = |error: Error| format!("{error} ({error:?})");
    // Each thread may hold a few pages at once.
    let pool_bytes =
        smallest_pool(plan.page_size).max((plan.writers + plan.readers) as usize * 24 * plan.page_size);
    let builder = || {
        real_builder()
            .page_size(plan.page_size)
            .pool_bytes(pool_bytes)
            .huge_pages(false)
            .log_segment_bytes(1 << 20)
            .log_buffer_bytes(256 << 10)
            .checkpoint_log_bytes(1 << 20)
            .syncs_in_flight(2)
    };
    let db = builder().create(place).map_err(text)?;
    let mut report = Report { mode: assert_mode(&db), ..Report::default() };
    let tables: Vec<Table> =
        (0..TABLES).map(|at| db.table(&format!("table {at}"))).collect::<Result<_, _>>().map_err(text)?;
    let stop = AtomicBool::new(false);
    let shared = Shared { db: &db, tables: &tables, plan, stop: &stop, report: &report };
    let (held, failures) = std::thread::scope(|scope| {
        let shared = &shared;
        let writers: Vec<_> = (0..plan.writers)
            .map(|writer| scope.spawn(move || stopping(shared, || shared.write(writer))))
            .collect();
        let readers: Vec<_> = (0..plan.readers)
            .map(|reader| scope.spawn(move || stopping(shared, || shared.read(reader))))
            .collect();
        // The wait is the length of the test, and ends early if a thread fails.
        let mut left = plan.time;
        while !left.is_zero() && !stop.load(Ordering::Relaxed) {
            let nap = left.min(Duration::from_millis(20));
            std::thread::sleep(nap);
            left -= nap;
        }
        stop.store(true, Ordering::Relaxed);
        let mut held: Vec<Map> = vec![Map::new(); TABLES as usize];
        let mut failures = Vec::new();
        for writer in writers {
            match writer.join().map_err(|panic| bedstone_crashtest::seeds::panic_text(&*panic)).flatten() {
                Ok(maps) => held.iter_mut().zip(maps).for_each(|(all, map)| all.extend(map)),
                Err(what) => failures.push(what),
            }
        }
        for reader in readers {
            if let Err(what) =
                reader.join().map_err(|panic| bedstone_crashtest::seeds::panic_text(&*panic)).flatten()
            {
                failures.push(what);
            }
        }
        (held, failures)
    });
    if !failures.is_empty() {
        return Err(failures.join("; "));
    }
    compare(&tables, &held).map_err(|what| format!("at the end: {what}"))?;
    check_clean(&db)?;
    drop(tables);
    db.close().map_err(text)?;
    let db = builder().open(place).map_err(text)?;
    let tables: Vec<Table> =
        (0..TABLES).map(|at| db.table(&format!("table {at}"))).collect::<Result<_, _>>().map_err(text)?;
    compare(&tables, &held).map_err(|what| format!("after opening again: {what}"))?;
    check_clean(&db)?;
    report.sizes = (pool_bytes, db.stats().pool.file_bytes);
    Ok(report)
}

/// Stops everybody if this thread fails.
fn stopping<T>(shared: &Shared<'_>, work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    struct StopOnPanic<'a>(&'a AtomicBool);
    impl Drop for StopOnPanic<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                self.0.store(true, Ordering::Relaxed);
            }
        }
    }
    let _guard = StopOnPanic(shared.stop);
    let outcome = work();
    if outcome.is_err() {
        shared.stop.store(true, Ordering::Relaxed);
    }
    outcome
}

fn compare(tables: &[Table], held: &[Map]) -> Result<(), String> {
    for (table, want) in tables.iter().zip(held) {
        let got = view::dump_table(table).map_err(|error| error.to_string())?;
        if &got != want {
            let key = want.iter().find(|(key, value)| got.get(*key) != Some(value)).map(|(key, _)| key);
            let key = key.or_else(|| got.keys().find(|key| !want.contains_key(*key)));
            return Err(format!(
                "{}: {} entries instead of {}; differs at {:?}",
                table.name(),
                got.len(),
                want.len(),
                key.map(|key| show(key))
            ));
        }
    }
    Ok(())
}

impl Shared<'_> {
    fn running(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// `None` if the pool was exhausted, which is no failure when many threads hold pages of a tiny pool.
    fn tolerate<T>(&self, what: &str, result: Result<T, Error>) -> Result<Option<T>, String> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if is_exhausted(&error) => {
                self.report.exhausted.fetch_add(1, Ordering::Relaxed);
                Ok(None)
            }
            Err(error) => Err(format!("{what}: {error} ({error:?})")),
        }
    }

    fn write(&self, writer: u64) -> Result<Vec<Map>, String> {
        let mut rng = Rng::of(&[self.plan.seed, 1, writer]);
        let mut maps = vec![Map::new(); TABLES as usize];
        let mut version = 1;
        while self.running() {
            version += 1;
            let at = rng.index(TABLES as usize);
            let (table, key) = (&self.tables[at], key_of(writer, rng.below(KEYS)));
            let durability = *rng.pick(&[
                Durability::Relaxed,
                Durability::Relaxed,
                Durability::Buffered,
                Durability::Sync,
            ]);
            match rng.below(10) {
                0..=4 => {
                    let value = value_of(&key, version);
                    if self.tolerate("put", table.put_with(&key, &value, durability))?.is_some() {
                        maps[at].insert(key, value);
                    }
                }
                5 | 6 => {
                    if let Some(was) = self.tolerate("delete", table.delete_with(&key, durability))?
                        && was != maps[at].remove(&key).is_some()
                    {
                        return Err(format!("delete of {} says {was}", show(&key)));
                    }
                }
                7 => self.write_batch(writer, version, durability, &mut rng, &mut maps)?,
                _ => {
                    let Some(got) = self.tolerate("get", table.get(&key))? else { continue };
                    if got.as_deref() != maps[at].get(&key).map(|value| &value[..]) {
                        return Err(format!("get of own {} gave {:?}", show(&key), got.as_deref().map(show)));
                    }
                }
            }
            self.report.commits.fetch_add(1, Ordering::Relaxed);
        }
        Ok(maps)
    }

    fn write_batch(
        &self,
        writer: u64,
        version: u64,
        durability: Durability,
        rng: &mut Rng,
        maps: &mut [Map],
    ) -> Result<(), String> {
        let mut batch = WriteBatch::new();
        let mut after = Vec::new();
        let first = rng.below(KEYS);
        for i in 0..1 + rng.below(40) {
            let at = rng.index(TABLES as usize);
            // Neighbours, so that leaves split and merge.
            let key = key_of(writer, (first + i) % KEYS);
            let value = rng.chance(1, 2).then(|| value_of(&key, version));
            let added = match &value {
                Some(value) => batch.put(&self.tables[at], &key, value),
                None => batch.delete(&self.tables[at], &key),
            };
            added.map_err(|error| error.to_string())?;
            after.push((at, key, value));
        }
        if self.tolerate("batch", self.db.write_with(batch, durability))?.is_some() {
            for (at, key, value) in after {
                match value {
                    Some(value) => maps[at].insert(key, value),
                    None => maps[at].remove(&key),
                };
            }
        }
        Ok(())
    }

    fn read(&self, reader: u64) -> Result<(), String> {
        let mut rng = Rng::of(&[self.plan.seed, 2, reader]);
        // Versions seen, by table and key: they never go back.
        let mut seen = vec![std::collections::HashMap::<Vec<u8>, u64>::new(); TABLES as usize];
        while self.running() {
            let at = rng.index(TABLES as usize);
            let table = &self.tables[at];
            let mut note = |key: &[u8], value: &[u8]| -> Result<(), String> {
                self.report.reads.fetch_add(1, Ordering::Relaxed);
                let version = version_in(key, value)?;
                let last = seen[at].entry(key.to_vec()).or_default();
                if version < *last {
                    return Err(format!("{} went back from version {last} to {version}", show(key)));
                }
                *last = version;
                Ok(())
            };
            let mut key = || key_of(rng.below(self.plan.writers), rng.below(KEYS));
            match reader % 4 {
                0 => {
                    let key = key();
                    if let Some(Some(value)) = self.tolerate("get", table.get(&key))? {
                        note(&key, &value)?;
                    }
                }
                1 => {
                    let keys: Vec<_> = (0..32).map(|_| key()).collect();
                    let Some(values) = self.tolerate("multi_get", table.multi_get(&keys))? else { continue };
                    for (key, value) in keys.iter().zip(&values) {
                        if let Some(value) = value {
                            note(key, value)?;
                        }
                    }
                }
                2 => {
                    let (low, high) = (key(), key());
                    let (low, high) = if low <= high { (low, high) } else { (high, low) };
                    let Some(mut range) = self.tolerate("range", table.range(&low[..]..&high[..]))? else {
                        continue;
                    };
                    let mut last: Option<Vec<u8>> = None;
                    while let Some(Some((key, value))) = self.tolerate("next_ref", range.next_ref())? {
                        note(key, value)?;
                        if last.as_deref().is_some_and(|last| last >= key)
                            || key < &low[..]
                            || key >= &high[..]
                        {
                            return Err(format!(
                                "a range gave {} after {:?}",
                                show(key),
                                last.as_deref().map(show)
                            ));
                        }
                        last = Some(key.to_vec());
                    }
                }
                _ => {
                    let Some(range) = self.tolerate("prefix", table.prefix(b"some shared part/0"))? else {
                        continue;
                    };
                    let mut last: Option<Vec<u8>> = None;
                    for entry in range.rev() {
                        let Some(entry) = self.tolerate("an iterator", entry)? else { break };
                        note(entry.key(), entry.value())?;
                        if last.as_deref().is_some_and(|last| last <= entry.key()) {
                            return Err(format!(
                                "a backward range gave {} after {:?}",
                                show(entry.key()),
                                last.as_deref().map(show)
                            ));
                        }
                        last = Some(entry.key().to_vec());
                        if !self.running() {
                            break;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

fn is_exhausted(error: &Error) -> bool {
    match error {
        Error::PoolExhausted { .. } => true,
        Error::IteratorFailed(inner) => is_exhausted(inner),
        _ => false,
    }
}
