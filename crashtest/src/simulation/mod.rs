//! The whole engine in one thread, on a simulated disk whose operations fail and whose power goes.
//!
//! One seed decides everything: options, shape of the data, operations, when each piece of background work is done and
//! what happens between the steps of a checkpoint, which operations of the disk fail, the moments of the cuts, and what
//! survives them. Every answer is compared with the model's; after every end of the store, whatever its kind, what is
//! found must be a prefix of the commits that contains every promised one, and the check must find nothing.

mod medium;
mod moments;
pub mod ops;
pub mod shape;
mod transact;

use std::collections::{BTreeSet, VecDeque};
use std::io::Read;
use std::ops::Bound;
use std::sync::Arc;

use bedstone::{Database, Durability, Error, Table, WriteBatch};
use bedstone_io::sim::{CutMode, OpKind, SimDisk};

use crate::model::{Bytes, Change, Map, show};
use crate::oracle::{Ending, Oracle};
use crate::rng::Rng;
use crate::setup::{Config, DIR, check_clean};
use crate::simulation::moments::{Entries, Moment};
use crate::simulation::ops::{Generator, Leave, Op, TABLES, Walk, Write};
use crate::simulation::shape::Shape;
use crate::view;

/// What a run did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Report {
    /// Operations.
    pub operations: u64,
    /// Commits acknowledged.
    pub commits: u64,
    /// Transactions committed, those of them that were larger than their memory, and those refused by a conflict.
    pub transactions: [u64; 3],
    /// Reads through snapshots that others had written since.
    pub old_reads: u64,
    /// Power cuts.
    pub cuts: u64,
    /// Power cuts while the store was being opened.
    pub cuts_in_recovery: u64,
    /// Operations of the disk that failed on purpose.
    pub faults: u64,
    /// Steps of checkpoints between which something else was done.
    pub pauses: u64,
    /// Times it was opened successfully.
    pub openings: u64,
    /// Commits lost that might be lost.
    pub lost: u64,
    /// Hash of every byte written: two runs of one seed must agree on it.
    pub fingerprint: u64,
}

impl Report {
    /// Adds another run's figures.
    pub fn add(&mut self, other: &Report) {
        self.operations += other.operations;
        self.commits += other.commits;
        for (sum, other) in self.transactions.iter_mut().zip(other.transactions) {
            *sum += other;
        }
        self.old_reads += other.old_reads;
        self.cuts += other.cuts;
        self.cuts_in_recovery += other.cuts_in_recovery;
        self.faults += other.faults;
        self.pauses += other.pauses;
        self.openings += other.openings;
        self.lost += other.lost;
        self.fingerprint ^= other.fingerprint;
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} operations, {} commits acknowledged, among them {} transactions ({} larger than their memory), {} \
             conflicts, {} reads of the past, {} operations between the steps of checkpoints, {} power cuts and {} \
             more while opening, {} failed operations of the disk, {} recoveries verified, {} unpromised commits lost",
            self.operations,
            self.commits,
            self.transactions[0],
            self.transactions[1],
            self.transactions[2],
            self.old_reads,
            self.pauses,
            self.cuts,
            self.cuts_in_recovery,
            self.faults,
            self.openings,
            self.lost
        )
    }
}

/// Why a run went no further.
enum Stop {
    /// The power went, or an operation of the disk failed on purpose.
    Medium,
    /// The store is wrong.
    Broken(String),
}

type Step<T = ()> = Result<T, Stop>;

struct Run {
    rng: Rng,
    disk: Arc<SimDisk>,
    config: Config,
    db: Option<Database>,
    /// Snapshots that are kept, the oldest first.
    moments: Vec<Moment>,
    oracle: Oracle,
    report: Report,
    did: VecDeque<String>,
    trace: bool,
    /// Values or iterators are held, or a checkpoint is under way, so that the pool may be exhausted.
    holding: bool,
    /// Failed operations of the disk whose consequences are over.
    faults_over: u64,
}

/// Runs one seed with so many operations. With `trace` every operation is printed before it is done.
///
/// # Errors
/// Says what went wrong, with the last operations.
pub fn run(seed: u64, operations: usize, trace: bool) -> Result<Report, String> {
    run_at(seed, operations, None, trace)
}

/// The same with one durability for every commit of a put, delete, batch or transaction.
///
/// # Errors
/// As [`run`].
pub fn run_at(
    seed: u64,
    operations: usize,
    durability: Option<Durability>,
    trace: bool,
) -> Result<Report, String> {
    if trace {
        eprintln!("seed {seed}");
    }
    run_with(Rng::of(&[seed, 1]), operations, durability, trace)
}

/// Runs what this generator decides with so many operations; else as [`run`].
///
/// # Errors
/// Says what went wrong, with the last operations.
pub fn run_with(
    mut rng: Rng,
    operations: usize,
    durability: Option<Durability>,
    trace: bool,
) -> Result<Report, String> {
    let config = Config::draw(&mut rng);
    if trace {
        eprintln!("{config:?}");
    }
    let disk = SimDisk::new(rng.next());
    if rng.chance(1, 4) {
        disk.set_sector(4096);
    }
    let mut run = Run {
        rng,
        disk,
        config,
        db: None,
        moments: Vec::new(),
        oracle: Oracle::default(),
        report: Report::default(),
        did: VecDeque::new(),
        trace,
        holding: false,
        faults_over: 0,
    };
    match run.all(operations, durability) {
        Ok(()) => {
            run.report.fingerprint = run.disk.stats().bytes_written ^ run.disk.ops() << 40;
            Ok(run.report)
        }
        Err(Stop::Broken(what)) => {
            let did = run.did.iter().map(|op| format!("    {op}\n")).collect::<String>();
            Err(format!(
                "{what}\n  options: {:?}\n  operation {}, the last ones:\n{did}",
                run.config, run.report.operations
            ))
        }
        Err(Stop::Medium) => Err("the medium failed and nobody noticed".into()),
    }
}

fn broken<T>(what: impl Into<String>) -> Step<T> {
    Err(Stop::Broken(what.into()))
}

impl Run {
    fn all(&mut self, operations: usize, durability: Option<Durability>) -> Step {
        self.open(Ending::PowerCut)?;
        let shape = match &self.db {
            Some(db) => Shape::draw(&mut self.rng, db.limits(), self.config.page_size),
            None => return broken("not open"),
        };
        let mut generator = Generator::new(&mut self.rng, shape, durability);
        for _ in 0..operations {
            if self.rng.chance(1, 25) {
                let far = if self.rng.chance(1, 2) { 12 } else { 150 };
                self.disk.set_cut_after(1 + self.rng.below(far), cut_mode(&mut self.rng));
            }
            if self.rng.chance(1, 40) {
                self.arm();
            }
            let op = generator.next(&mut self.rng);
            self.report.operations += 1;
            if matches!(op, Op::Checkpoint | Op::CheckpointBeside(_)) && self.rng.chance(1, 3) {
                self.cut_at_sync_of_data();
            }
            self.note(|| op.brief());
            match self.perform(&op) {
                Ok(()) => {}
                Err(Stop::Medium) => self.after_trouble()?,
                broken @ Err(_) => return broken,
            }
            if !self.disk.is_powered() || (self.has_faults() && self.rng.chance(1, 4)) {
                self.after_trouble()?;
            } else if self.rng.chance(1, 60) {
                let mode = cut_mode(&mut self.rng);
                self.disk.power_cut(mode);
                self.after_trouble()?;
            }
        }
        self.disk.cancel_cut();
        self.disk.clear_faults();
        if self.has_faults() {
            self.after_trouble()?;
            self.disk.cancel_cut();
            self.disk.clear_faults();
        }
        self.perform(&Op::Compare)?;
        self.perform(&Op::Reopen(Leave::Close))?;
        self.perform(&Op::Compare)
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        let text = text();
        if self.trace {
            eprintln!("{:5} {text}", self.report.operations);
        }
        if self.did.len() == 25 {
            self.did.pop_front();
        }
        self.did.push_back(text);
    }

    /// The power is to go at one of the syncs that come with a superblock: few among all operations, and each keeps a
    /// rule of its own.
    fn cut_at_sync_of_data(&mut self) {
        self.disk.set_cut_at("/data", OpKind::Sync, 1 + self.rng.below(4), cut_mode(&mut self.rng));
    }

    /// Opens the store, maybe with the power going or an operation failing meanwhile, and judges what is found.
    fn open(&mut self, mut ending: Ending) -> Step {
        loop {
            match self.rng.below(6) {
                0 => self.cut_at_sync_of_data(),
                1 | 2 => self.disk.set_cut_after(1 + self.rng.below(25), cut_mode(&mut self.rng)),
                _ if self.rng.chance(1, 20) => self.arm(),
                _ => {}
            }
            match self.config.builder(&self.disk).open_or_create(DIR) {
                Ok(db) => {
                    self.db = Some(db);
                    break;
                }
                Err(_) if !self.disk.is_powered() => {
                    self.report.cuts_in_recovery += 1;
                    self.note(|| "(power cut while opening)".into());
                    ending = Ending::PowerCut;
                    self.disk = self.disk.reopen();
                }
                Err(_) if self.has_faults() => {
                    self.note(|| "(a fault while opening)".into());
                    ending = Ending::PowerCut;
                    self.disk = self.disk.reopen();
                    self.faults_are_over();
                }
                Err(error) => return broken(format!("opening after {ending:?} failed: {error} ({error:?})")),
            }
        }
        self.report.openings += 1;
        let db = self.db()?;
        let found = match self.read("reading all after opening", view::dump(&db)) {
            Ok(found) => found,
            Err(Stop::Medium) => {
                drop(db);
                return self.reopen_after_trouble();
            }
            broken @ Err(_) => return broken.map(drop),
        };
        match self.oracle.settle(found, ending) {
            Ok(lost) => self.report.lost += lost as u64,
            Err(what) => return broken(what),
        }
        match self.check() {
            Err(Stop::Medium) => {
                drop(db);
                self.after_trouble()
            }
            other => other,
        }
    }

    fn db(&self) -> Step<Database> {
        match &self.db {
            Some(db) => Ok(db.clone()),
            None => broken("not open"),
        }
    }

    fn check(&mut self) -> Step {
        let db = self.db()?;
        match check_clean(&db) {
            Ok(()) => Ok(()),
            Err(_) if self.has_trouble() => Err(Stop::Medium),
            Err(what) => broken(what),
        }
    }

    /// The result of a call that only reads.
    fn read<T>(&self, what: &str, result: Result<T, Error>) -> Step<T> {
        match result {
            Ok(value) => Ok(value),
            Err(_) if self.has_trouble() => Err(Stop::Medium),
            Err(error) => broken(format!("{what}: {error} ({error:?})")),
        }
    }

    /// The result of a call that commits. `None` if it was refused for a good reason and did nothing.
    fn commit<T>(
        &mut self,
        commit: Vec<Change>,
        durability: Durability,
        result: Result<T, Error>,
    ) -> Step<Option<T>> {
        match result {
            Ok(value) => {
                self.report.commits += 1;
                self.oracle.acknowledged(commit, durability);
                Ok(Some(value))
            }
            Err(error) if self.has_trouble() => {
                // With the power on, an error that leaves the database open promises that nothing has happened.
                if !self.disk.is_powered() || error.is_read_only() {
                    self.oracle.in_flight(commit);
                }
                Err(Stop::Medium)
            }
            Err(Error::PoolExhausted { .. }) if self.holding => Ok(None),
            Err(error) => broken(format!("a commit failed: {error} ({error:?})")),
        }
    }

    /// The table, made if the model has none either.
    fn table(&mut self, index: usize) -> Step<Table> {
        let (db, name) = (self.db()?, TABLES[index]);
        let known = self.oracle.now().tables.contains_key(name);
        let found = self.read("open_table", db.open_table(name))?;
        match (found, known) {
            (Some(table), true) => Ok(table),
            (None, false) => {
                let made = db.table(name);
                match self.commit(vec![Change::Create(name.into())], Durability::Sync, made)? {
                    Some(table) => Ok(table),
                    None => Err(Stop::Broken("no room for a table".into())),
                }
            }
            (found, _) => broken(format!("table {name}: found {}, expected {known}", found.is_some())),
        }
    }

    fn perform(&mut self, op: &Op) -> Step {
        match op {
            Op::Put(table, key, value, durability) => {
                let table = self.table(*table)?;
                let done = table.put_with(key, value, *durability);
                let change = put(&table, key, value);
                self.commit(vec![change], *durability, done).map(drop)
            }
            Op::PutReader(table, key, value) => {
                let table = self.table(*table)?;
                let mut reader = Piecewise { rest: value, piece: 1 + self.rng.index(9000) };
                let done = table.put_reader(key, value.len() as u64, &mut reader);
                let change = put(&table, key, value);
                self.commit(vec![change], Durability::Sync, done).map(drop)
            }
            Op::Delete(table, key, durability) => self.delete(*table, key, *durability),
            Op::Batch(writes, durability) => self.batch(writes, *durability),
            Op::Get(table, key) => self.get(*table, key),
            Op::MultiGet(table, keys) => self.multi_get(*table, keys),
            Op::Range(table, low, high, walk) => {
                let table = self.table(*table)?;
                let map = self.oracle.now().table(&table.name()).clone();
                let expected: Vec<_> = view::between(&map, low, high).collect();
                let bounds = (low.as_ref().map(|key| &key[..]), high.as_ref().map(|key| &key[..]));
                let range = self.read("range", table.range::<&[u8]>(bounds_of(bounds)))?;
                self.walk(range, &expected, *walk)
            }
            Op::Prefix(table, prefix, walk) => {
                let table = self.table(*table)?;
                let map = self.oracle.now().table(&table.name()).clone();
                let expected: Vec<_> = map.iter().filter(|(key, _)| key.starts_with(prefix)).collect();
                let range = self.read("prefix", table.prefix(prefix))?;
                self.walk(range, &expected, *walk)
            }
            Op::Ends(table) => {
                let table = self.table(*table)?;
                let first = self.read("first", table.first())?;
                let last = self.read("last", table.last())?;
                let map = self.oracle.now().table(&table.name());
                for (got, want, which) in
                    [(first, map.first_key_value(), "first"), (last, map.last_key_value(), "last")]
                {
                    let got = got.as_ref().map(|entry| (entry.key(), &entry.value()[..]));
                    if got != want.map(|(key, value)| (&key[..], &value[..])) {
                        return broken(format!(
                            "{which} gave {:?} instead of {:?}",
                            got.map(|e| show(e.0)),
                            want.map(|e| show(e.0))
                        ));
                    }
                }
                Ok(())
            }
            Op::Hold(table, keys, inner) => self.hold(*table, keys, inner),
            Op::WalkDuring(table, backward, inner) => self.walk_during(*table, *backward, inner),
            Op::Create(table) => self.create(*table),
            Op::Drop(table) => {
                let db = self.db()?;
                let name = TABLES[*table];
                let there = self.oracle.now().tables.contains_key(name);
                let done = db.drop_table(name);
                if there {
                    match self.commit(vec![Change::Drop(name.into())], Durability::Sync, done)? {
                        Some(false) => broken(format!("drop_table says that there is no {name}")),
                        _ => Ok(()),
                    }
                } else if self.read("drop_table", done)? {
                    broken(format!("drop_table says that there was a {name}"))
                } else {
                    Ok(())
                }
            }
            Op::Rename(from, to) => self.rename(*from, *to),
            Op::Checkpoint => {
                let db = self.db()?;
                let done = db.checkpoint();
                self.held_up("checkpoint", done)?;
                self.oracle.synced();
                Ok(())
            }
            Op::Sync => {
                let db = self.db()?;
                self.read("sync", db.sync())?;
                self.oracle.synced();
                Ok(())
            }
            Op::CheckpointBeside(beside) => self.checkpoint_beside(beside),
            Op::Work(work) => {
                let db = self.db()?;
                self.held_up("background work", db.work(*work))
            }
            Op::Step => {
                let db = self.db()?;
                self.held_up("step", db.step())
            }
            Op::Compare => {
                let db = self.db()?;
                match view::compare(&db, self.oracle.now(), &mut self.rng) {
                    Ok(()) => self.check(),
                    Err(_) if self.has_trouble() => Err(Stop::Medium),
                    Err(what) => broken(what),
                }?;
                self.compare_moments()
            }
            Op::BeginRead => self.begin_read(),
            Op::ReadOld(which, table, look) => self.read_old(*which, *table, look),
            Op::CloseRead(which) => self.close_read(*which),
            Op::Transact(tx) => self.transact(tx),
            Op::Swap(table, key, value, right) => self.swap(*table, key, value.as_ref(), *right),
            Op::Reopen(leave) => self.reopen(*leave),
            Op::Refused(which) => self.refused(*which),
        }
    }

    /// A call that may find the pool exhausted while values are held.
    fn held_up<T>(&self, what: &str, result: Result<T, Error>) -> Step {
        match result {
            Err(Error::PoolExhausted { .. }) if self.holding => Ok(()),
            other => self.read(what, other).map(drop),
        }
    }

    fn delete(&mut self, table: usize, key: &[u8], durability: Durability) -> Step {
        let table = self.table(table)?;
        let there = self.oracle.now().table(&table.name()).contains_key(key);
        let done = table.delete_with(key, durability);
        if !there {
            return match self.held_read("delete", done)? {
                Some(true) => broken(format!("delete of {} says that it was there", show(key))),
                _ => Ok(()),
            };
        }
        let change = Change::Delete { table: table.name(), key: key.to_vec() };
        match self.commit(vec![change], durability, done)? {
            Some(false) => broken(format!("delete of {} says that it was not there", show(key))),
            _ => Ok(()),
        }
    }

    fn held_read<T>(&self, what: &str, result: Result<T, Error>) -> Step<Option<T>> {
        match result {
            Err(Error::PoolExhausted { .. }) if self.holding => Ok(None),
            other => self.read(what, other).map(Some),
        }
    }

    fn batch(&mut self, writes: &[Write], durability: Durability) -> Step {
        let db = self.db()?;
        let mut batch = WriteBatch::new();
        let mut commit = Vec::new();
        for (table, key, value) in writes {
            let table = self.table(*table)?;
            let (added, change) = match value {
                Some(value) => (batch.put(&table, key, value), put(&table, key, value)),
                None => (batch.delete(&table, key), Change::Delete { table: table.name(), key: key.clone() }),
            };
            self.read("adding to a batch", added)?;
            commit.push(change);
        }
        let done = db.write_with(batch, durability);
        self.commit(commit, durability, done).map(drop)
    }

    fn get(&mut self, table: usize, key: &[u8]) -> Step {
        let table = self.table(table)?;
        let want = self.oracle.now().table(&table.name()).get(key).cloned();
        let Some(got) = self.held_read("get", table.get(key))? else { return Ok(()) };
        if got.as_deref() != want.as_deref() {
            return broken(format!("get of {} gave {:?}", show(key), got.as_deref().map(show)));
        }
        let there = self.held_read("contains", table.contains(key))?;
        if there.is_some_and(|there| there != want.is_some()) {
            return broken(format!("contains of {} is wrong", show(key)));
        }
        let Some(reader) = self.held_read("value_reader", table.value_reader(key))? else { return Ok(()) };
        match (reader, want) {
            (None, None) => Ok(()),
            (Some(mut reader), Some(want)) => {
                if reader.len() != want.len() as u64 {
                    return broken(format!("value_reader of {} has the length {}", show(key), reader.len()));
                }
                let mut got = Vec::new();
                match reader.read_to_end(&mut got) {
                    Ok(_) if got == want[..] => Ok(()),
                    Ok(_) => broken(format!("value_reader of {} gave other bytes", show(key))),
                    Err(_) if self.has_trouble() => Err(Stop::Medium),
                    Err(_) if self.holding => Ok(()),
                    Err(error) => broken(format!("value_reader of {}: {error}", show(key))),
                }
            }
            (got, _) => broken(format!("value_reader of {} gave {}", show(key), got.is_some())),
        }
    }

    fn multi_get(&mut self, table: usize, keys: &[Vec<u8>]) -> Step {
        let table = self.table(table)?;
        let got = self.read("multi_get", table.multi_get(keys))?;
        let map = self.oracle.now().table(&table.name());
        if got.len() != keys.len() {
            return broken(format!("multi_get of {} keys gave {} values", keys.len(), got.len()));
        }
        for (key, got) in keys.iter().zip(&got) {
            if got.as_deref() != map.get(key).map(|value| &value[..]) {
                return broken(format!("multi_get of {} gave {:?}", show(key), got.as_deref().map(show)));
            }
        }
        Ok(())
    }

    /// Reads a range to its end in some way, and compares.
    fn walk<'t>(&self, mut range: impl Entries<'t>, expected: &[(&Vec<u8>, &Bytes)], walk: Walk) -> Step {
        let mut got: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut back = Vec::new();
        let outcome = (|| {
            match walk {
                Walk::Forward => {
                    for entry in range.by_ref() {
                        let (key, value) = entry?.into_parts();
                        got.push((key.to_vec(), value.into_owned()));
                    }
                }
                Walk::Backward => {
                    while let Some(entry) = range.next_back() {
                        let entry = entry?;
                        back.push((entry.key().to_vec(), entry.value().to_vec()));
                    }
                }
                Walk::Both(turns) => {
                    let mut turns = Rng::new(turns);
                    loop {
                        let front = turns.chance(1, 2);
                        let Some(entry) = (if front { range.next() } else { range.next_back() }) else {
                            break;
                        };
                        let entry = entry?;
                        let side = if front { &mut got } else { &mut back };
                        side.push((entry.key().to_vec(), entry.value().to_vec()));
                    }
                }
                Walk::ForwardRef => {
                    while let Some((key, value)) = range.front_ref()? {
                        got.push((key.to_vec(), value.to_vec()));
                    }
                }
                Walk::BackwardRef => {
                    while let Some((key, value)) = range.back_ref()? {
                        back.push((key.to_vec(), value.to_vec()));
                    }
                }
                Walk::Each => range.each(&mut |key, value| got.push((key.to_vec(), value.to_vec())))?,
            }
            Ok(())
        })();
        self.read("a range", outcome)?;
        if range.next().is_some() || range.next_back().is_some() {
            return broken(format!("a range ({walk:?}) goes on after its end"));
        }
        got.extend(back.into_iter().rev());
        if got.len() != expected.len() {
            return broken(format!(
                "a range ({walk:?}) gave {} entries instead of {}",
                got.len(),
                expected.len()
            ));
        }
        for ((key, value), (want_key, want)) in got.iter().zip(expected) {
            if key != *want_key || value[..] != want[..] {
                return broken(format!(
                    "a range ({walk:?}) gave {} instead of {}",
                    show(key),
                    show(want_key)
                ));
            }
        }
        Ok(())
    }

    /// What is read once must stay as it is while it is held, whatever happens to the table.
    fn hold(&mut self, table: usize, keys: &[Vec<u8>], inner: &[Op]) -> Step {
        let table = self.table(table)?;
        let mut held = Vec::new();
        for key in keys {
            if let Some(value) = self.read("get", table.get(key))? {
                let copy = value.to_vec();
                held.push((key, value, copy));
            }
        }
        let was = std::mem::replace(&mut self.holding, true);
        let done = inner.iter().try_for_each(|op| self.perform(op));
        self.holding = was;
        for (key, value, copy) in &held {
            if value[..] != copy[..] {
                return broken(format!("the value of {} changed while it was held", show(key)));
            }
        }
        done
    }

    /// Reads a whole table with other operations after every few entries. Keys must come in order; an entry that no
    /// operation touched must come, with its value; one that was touched may come with any value it had.
    fn walk_during(&mut self, table: usize, backward: bool, inner: &[Op]) -> Step {
        let table = self.table(table)?;
        let name = table.name();
        let before = self.oracle.now().table(&name).clone();
        let mut seen: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut states: Vec<Map> = vec![before.clone()];
        let mut range = self.read("iter", table.iter())?;
        let mut inner = inner.iter();
        let was = std::mem::replace(&mut self.holding, true);
        loop {
            let count = self.rng.below(1 + before.len() as u64 / 4);
            let mut ended = false;
            for _ in 0..=count {
                let entry = if backward { range.next_back() } else { range.next() };
                match entry {
                    None => {
                        ended = true;
                        break;
                    }
                    Some(entry) => {
                        let entry = self.read("an iterator", entry)?;
                        seen.push((entry.key().to_vec(), entry.value().to_vec()));
                    }
                }
            }
            if ended {
                break;
            }
            if let Some(op) = inner.next() {
                if let Err(stop) = self.perform(op) {
                    self.holding = was;
                    return Err(stop);
                }
                states.push(self.oracle.now().table(&name).clone());
            }
        }
        self.holding = was;
        if backward {
            seen.reverse();
        }
        if let Some(pair) = seen.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
            return broken(format!("an iterator gave {} and then {}", show(&pair[0].0), show(&pair[1].0)));
        }
        for (key, value) in &seen {
            if !states.iter().any(|state| state.get(key).is_some_and(|had| had[..] == value[..])) {
                return broken(format!("an iterator gave {} with a value it never had", show(key)));
            }
        }
        let seen: BTreeSet<&Vec<u8>> = seen.iter().map(|(key, _)| key).collect();
        for key in before.keys() {
            let always = states.iter().all(|state| state.contains_key(key));
            if always && !seen.contains(key) {
                return broken(format!("an iterator left out {}, which was there all the time", show(key)));
            }
        }
        Ok(())
    }

    fn create(&mut self, table: usize) -> Step {
        let (db, name) = (self.db()?, TABLES[table]);
        if self.oracle.now().tables.contains_key(name) {
            return match db.create_table(name) {
                Err(Error::TableExists { name: which }) if which == name => Ok(()),
                _ if self.has_trouble() => Err(Stop::Medium),
                other => broken(format!("create_table of {name}, which exists, gave {other:?}")),
            };
        }
        let made = db.create_table(name);
        self.commit(vec![Change::Create(name.into())], Durability::Sync, made).map(drop)
    }

    fn rename(&mut self, from: usize, to: usize) -> Step {
        let db = self.db()?;
        let (from, to) = (TABLES[from], TABLES[to]);
        let has = |name: &str| self.oracle.now().tables.contains_key(name);
        let (has_from, has_to) = (has(from), has(to));
        let done = db.rename_table(from, to);
        if has_from && !has_to {
            return self
                .commit(vec![Change::Rename { from: from.into(), to: to.into() }], Durability::Sync, done)
                .map(drop);
        }
        match done {
            Err(Error::TableNotFound { .. }) if !has_from => Ok(()),
            Err(Error::TableExists { .. }) if has_from && from != to => Ok(()),
            Ok(()) | Err(Error::TableExists { .. }) if has_from && from == to => Ok(()),
            _ if self.has_trouble() => Err(Stop::Medium),
            other => broken(format!("rename of {from} ({has_from}) to {to} ({has_to}) gave {other:?}")),
        }
    }

    fn reopen(&mut self, leave: Leave) -> Step {
        // A snapshot keeps the database open.
        self.moments.clear();
        let Some(db) = self.db.take() else { return broken("not open") };
        let ending = match leave {
            Leave::Close => match db.close() {
                Ok(()) => Ending::Closed,
                Err(_) if self.has_trouble() => return Err(Stop::Medium),
                Err(error) => return broken(format!("close failed: {error} ({error:?})")),
            },
            Leave::Drop => {
                drop(db);
                Ending::Killed
            }
            Leave::Kill => {
                self.disk = self.disk.reopen();
                drop(db);
                Ending::Killed
            }
        };
        if self.has_trouble() {
            return Err(Stop::Medium);
        }
        self.open(ending)
    }

    /// Calls that must be refused, by the right error, and change nothing.
    fn refused(&mut self, which: u64) -> Step {
        let table = self.table(0)?;
        let db = self.db()?;
        let limits = db.limits();
        let too_long = vec![b'x'; limits.max_key_bytes + 1];
        let answer = match which % 5 {
            0 => table.put(&too_long, b"v"),
            1 => {
                let mut batch = WriteBatch::new();
                match batch.put(&table, &too_long, b"v") {
                    Ok(()) => db.write(batch),
                    Err(error) => Err(error),
                }
            }
            2 => table.put_reader(b"k", limits.max_value_bytes + 1, std::io::empty()),
            3 => table.put_reader(b"k", 10_000 + which % 90_000, &[7u8; 9_000][..]),
            _ => db.rename_table("no such table", "another").map(drop),
        };
        match (which % 5, answer) {
            (0 | 1, Err(Error::KeyTooLong { .. }))
            | (2, Err(Error::ValueTooLarge { .. }))
            | (3, Err(Error::Reader { .. }))
            | (4, Err(Error::TableNotFound { .. })) => Ok(()),
            _ if self.has_trouble() => Err(Stop::Medium),
            (which, other) => broken(format!("what should be refused ({which}) gave {other:?}")),
        }
    }
}

fn cut_mode(rng: &mut Rng) -> CutMode {
    *rng.pick(&[CutMode::Random, CutMode::Random, CutMode::Random, CutMode::Drop, CutMode::Keep])
}

fn put(table: &Table, key: &[u8], value: &Bytes) -> Change {
    Change::Put { table: table.name(), key: key.to_vec(), value: value.clone() }
}

fn bounds_of<'k>(bounds: (Bound<&'k [u8]>, Bound<&'k [u8]>)) -> (Bound<&'k [u8]>, Bound<&'k [u8]>) {
    bounds
}

/// A reader that gives its bytes in pieces.
struct Piecewise<'b> {
    rest: &'b [u8],
    piece: usize,
}

impl Read for Piecewise<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let len = self.rest.len().min(buf.len()).min(self.piece);
        let (now, rest) = self.rest.split_at(len);
        buf[..len].copy_from_slice(now);
        self.rest = rest;
        Ok(len)
    }
}
