//! The workload that tests Bedstone itself: puts, deletes, batches, transactions over several tables with savepoints, long
//! values, tables made and dropped, checkpoints.
//!
//! Each stream is a thread with keys and a table of its own. Each of its commits is decided by seed, stream and number
//! alone, so the number of the last one found tells what the whole state of that stream must be. Every commit leaves its
//! number, and with it the numbers of the other streams' commits that could be read before it: if it survived, so must
//! they have. That is what makes what survives a prefix across all threads, and not only within each.

mod commits;
mod verify;

use std::sync::atomic::{AtomicBool, Ordering};

use bedstone::{Builder, Database, Durability, Result, Table, WriteBatch};
use parking_lot::Mutex;

use self::commits::{COUNTERS, Commit, Kind, SHARED, commit_of, counter_key, own_table};
use self::verify::Expected;
use crate::model::Change;
use crate::plan::Plan;
use crate::rng::Rng;
use crate::setup::real_builder;
use crate::workload::{Acks, Numbers, Workload};

/// The workload that tests Bedstone itself.
#[derive(Debug)]
pub struct Standard {
    seed: u64,
    streams: u64,
    durability: Option<Durability>,
    commits: u64,
    allow_buffered: bool,
    /// What each stream must have written, as far as it was asked for: numbers only grow.
    expected: Mutex<Expected>,
}

impl Standard {
    /// The workload of this plan: one stream for each thread, without end.
    pub fn new(plan: &Plan) -> Self {
        Self {
            seed: plan.seed,
            streams: plan.threads.max(1) as u64,
            durability: plan.durability,
            commits: u64::MAX,
            allow_buffered: true,
            expected: Mutex::default(),
        }
    }

    /// The same, but each stream ends its work after so many commits.
    #[must_use]
    pub fn commits(self, commits: u64) -> Self {
        Self { commits, ..self }
    }

    /// Whether the store may go through the page cache where the file system refuses direct I/O; it may unless this says
    /// otherwise.
    #[must_use]
    pub fn allow_buffered(self, allow_buffered: bool) -> Self {
        Self { allow_buffered, ..self }
    }

    fn durability(&self, drawn: Durability) -> Durability {
        self.durability.unwrap_or(drawn)
    }
}

/// What the streams of one call of [`Workload::work`] share.
struct Work<'a> {
    standard: &'a Standard,
    db: &'a Database,
    shared: Vec<Table>,
    counters: Table,
    acks: &'a Acks<'a>,
    stop: AtomicBool,
}

impl Workload for Standard {
    fn options(&self) -> Builder {
        let mut rng = Rng::of(&[self.seed, 77]);
        real_builder()
            .allow_buffered(self.allow_buffered)
            .page_size(*rng.pick(&[4096, 8192, 16384]))
            .pool_bytes(*rng.pick(&[2 << 20, 4 << 20]))
            .huge_pages(false)
            .transaction_memory(*rng.pick(&[16 << 10, 64 << 20]))
            .log_segment_bytes(*rng.pick(&[256 << 10, 1 << 20]))
            .log_buffer_bytes(*rng.pick(&[64 << 10, 1 << 20]))
            .checkpoint_log_bytes(*rng.pick(&[256 << 10, 1 << 20]))
            .syncs_in_flight(1 + rng.index(2))
    }

    fn work(&self, db: &Database, acks: &Acks<'_>) -> Result<()> {
        let shared = SHARED.iter().map(|name| db.table(name)).collect::<Result<_>>()?;
        let work = Work {
            standard: self,
            db,
            shared,
            counters: db.table(COUNTERS)?,
            acks,
            stop: AtomicBool::new(false),
        };
        if self.streams == 1 {
            // In this thread: so a simulation stays deterministic.
            return work.stream(0);
        }
        std::thread::scope(|scope| {
            let work = &work;
            let threads: Vec<_> =
                (0..self.streams).map(|stream| scope.spawn(move || work.stream(stream))).collect();
            threads.into_iter().try_for_each(|thread| match thread.join() {
                Ok(outcome) => outcome,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })
    }

    fn verify(&self, db: &Database, promised: &Numbers) -> std::result::Result<Numbers, String> {
        self.expected.lock().verify(db, self.seed, self.streams, promised)
    }
}

/// The number that a counter's value gives for a stream.
fn number_at(value: &[u8], stream: u64) -> u64 {
    let at = stream as usize * 8;
    let bytes = value.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u64::from_le_bytes)
}

impl Work<'_> {
    fn stream(&self, stream: u64) -> Result<()> {
        let outcome = self.commit_on(stream);
        if outcome.is_err() {
            self.stop.store(true, Ordering::Relaxed);
        }
        outcome
    }

    fn commit_on(&self, stream: u64) -> Result<()> {
        let first = self.number_of(stream)? + 1;
        for number in first..first.saturating_add(self.standard.commits) {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let commit = commit_of(self.standard.seed, stream, number);
            let durability = self.standard.durability(commit.durability);
            self.commit(stream, number, &commit, durability)?;
            if !self.acks.commit(stream, number, durability) {
                self.stop.store(true, Ordering::Relaxed);
            }
            match number % 64 {
                31 => {
                    self.db.checkpoint()?;
                }
                3 | 43 => self.db.step()?,
                _ => {}
            }
        }
        Ok(())
    }

    fn number_of(&self, stream: u64) -> Result<u64> {
        let value = self.counters.get(counter_key(stream))?;
        Ok(value.map_or(0, |value| number_at(&value, stream)))
    }

    /// What a commit leaves in the counters: its own number, and those of the other streams as they can be read. They are
    /// read from the database, not remembered: what can be read may be relied on.
    fn counter_value(&self, stream: u64, number: u64, filler: &[u8]) -> Result<Vec<u8>> {
        let mut value = Vec::new();
        for other in 0..self.standard.streams {
            let number = if other == stream { number } else { self.number_of(other)? };
            value.extend_from_slice(&number.to_le_bytes());
        }
        value.extend_from_slice(filler);
        Ok(value)
    }

    fn commit(&self, stream: u64, number: u64, commit: &Commit, durability: Durability) -> Result<()> {
        let counter = self.counter_value(stream, number, &commit.filler)?;
        match commit.kind {
            Kind::Batch => {
                let mut batch = WriteBatch::new();
                for change in &commit.changes {
                    self.change(stream, change, |table, key, value| match value {
                        Some(value) => batch.put(table, key, value),
                        None => batch.delete(table, key),
                    })?;
                }
                batch.put(&self.counters, counter_key(stream), counter)?;
                self.db.write_with(batch, durability).map(drop)
            }
            Kind::Transaction => self.transact(stream, commit, &counter, durability),
            // Two commits: a crash between them leaves the table made, or dropped, before its time.
            Kind::Create => {
                self.db.table(&own_table(stream))?;
                self.counters.put_with(counter_key(stream), counter, durability).map(drop)
            }
            Kind::Drop => {
                self.db.drop_table(&own_table(stream))?;
                self.counters.put_with(counter_key(stream), counter, durability).map(drop)
            }
        }
    }

    fn transact(&self, stream: u64, commit: &Commit, counter: &[u8], durability: Durability) -> Result<()> {
        let mut tx = self.db.begin_write()?;
        let half = commit.changes.len() / 2;
        for change in &commit.changes[..half] {
            self.change(stream, change, |table, key, value| match value {
                Some(value) => tx.put(table, key, value),
                None => tx.delete(table, key).map(drop),
            })?;
        }
        let savepoint = tx.savepoint();
        for change in &commit.changes {
            self.change(stream, change, |table, key, _| tx.put(table, key, b"taken back"))?;
        }
        tx.put(&self.counters, counter_key(stream), b"taken back")?;
        tx.rollback_to(&savepoint)?;
        for change in &commit.changes[half..] {
            self.change(stream, change, |table, key, value| match value {
                Some(value) => tx.put(table, key, value),
                None => tx.delete(table, key).map(drop),
            })?;
        }
        tx.put(&self.counters, counter_key(stream), counter)?;
        tx.commit_with(durability).map(drop)
    }

    /// Hands a change of one key to `write`, with its table.
    fn change(
        &self,
        stream: u64,
        change: &Change,
        write: impl FnOnce(&Table, &[u8], Option<&[u8]>) -> Result<()>,
    ) -> Result<()> {
        let (name, key, value) = match change {
            Change::Put { table, key, value } => (table, key, Some(&value[..])),
            Change::Delete { table, key } => (table, key, None),
            _ => return Ok(()),
        };
        match SHARED.iter().position(|shared| shared == name) {
            Some(at) => write(&self.shared[at], key, value),
            None => write(&self.db.table(&own_table(stream))?, key, value),
        }
    }
}
