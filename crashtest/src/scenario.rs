//! A small fixed scenario that uses every part of the store: what creation tests cut, fault tests fail and rot tests
//! damage. It goes on after errors as a program would that knows no better, and keeps account of every answer.

use std::sync::Arc;

use bedstone::{Database, Durability, Error, WriteBatch};
use bedstone_io::sim::SimDisk;

use crate::model::{Change, Model};
use crate::oracle::{Ending, Oracle};
use crate::rng::Rng;
use crate::setup::{Config, DIR, check_clean};
use crate::simulation::shape::value_of;
use crate::view;

/// Runs the scenario and knows what it was promised.
#[derive(Debug)]
pub struct Scenario {
    config: Config,
    /// What was promised so far.
    pub oracle: Oracle,
    /// Errors met, in words.
    pub errors: Vec<String>,
    /// Answers that were plainly wrong, in words.
    pub wrong: Vec<String>,
    /// A commit failed in a way after which only opening again tells whether it was made.
    unknown: bool,
    /// The log failed. What the kernel had of it and had not yet synced may be gone by the medium's fault, so commits
    /// that only survive the end of the process are no longer owed, not even if only the process ends.
    medium_failed: bool,
}

/// The error is one that the database gives on purpose: not a mistake of its own.
pub fn is_typed(error: &Error) -> bool {
    !matches!(error, Error::Internal(_))
}

impl Scenario {
    /// A scenario before its beginning.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            oracle: Oracle::default(),
            errors: Vec::new(),
            wrong: Vec::new(),
            unknown: false,
            medium_failed: false,
        }
    }

    /// Opens or creates the store and runs the whole scenario: `part` 0 makes tables and data of every kind, part 1
    /// changes and deletes them. Each part ends by closing the store.
    pub fn part(&mut self, disk: &Arc<SimDisk>, part: u32) {
        let Some(db) = self.open(disk) else { return };
        if part == 0 {
            self.fill(&db);
        } else {
            self.change(&db);
        }
        match db.close() {
            Ok(()) => self.oracle.synced(),
            Err(error) => self.failed("close", &error),
        }
    }

    fn open(&mut self, disk: &Arc<SimDisk>) -> Option<Database> {
        match self.config.builder(disk).open_or_create(DIR) {
            Ok(db) => {
                self.unknown = false;
                // What a dump shows right after opening is what recovery decided on.
                match view::dump(&db) {
                    Ok(found) => {
                        let ending = self.ending(Ending::Killed);
                        if let Err(what) = self.oracle.settle(found, ending) {
                            self.wrong.push(format!("after opening: {what}"));
                        }
                        self.medium_failed = false;
                    }
                    Err(error) => {
                        self.failed("reading all", &error);
                        return None;
                    }
                }
                Some(db)
            }
            Err(error) => {
                self.failed("open", &error);
                None
            }
        }
    }

    fn ending(&self, ending: Ending) -> Ending {
        if self.medium_failed { Ending::PowerCut } else { ending }
    }

    fn failed(&mut self, what: &str, error: &Error) {
        self.medium_failed |= error.is_read_only();
        if !is_typed(error) {
            self.wrong.push(format!("{what}: {error}"));
        }
        self.errors.push(format!("{what}: {error}"));
    }

    /// Takes the answer to a commit into account.
    fn commit<T>(
        &mut self,
        what: &str,
        commit: Vec<Change>,
        durability: Durability,
        answer: Result<T, Error>,
    ) -> Option<T> {
        match answer {
            Ok(value) => {
                if self.unknown {
                    self.wrong.push(format!("{what} was acknowledged after a commit had failed in the log"));
                }
                self.oracle.acknowledged(commit, durability);
                Some(value)
            }
            Err(error) => {
                // Only the first failure of the log can have left a commit behind; before it, an error promises
                // that nothing has happened, and after it the database only reads.
                if error.is_read_only() && !self.unknown {
                    self.oracle.in_flight(commit);
                    self.unknown = true;
                }
                self.failed(what, &error);
                None
            }
        }
    }

    fn put(&mut self, db: &Database, table: &str, key: &str, tag: u64, len: usize, durability: Durability) {
        let Some(handle) = self.table(db, table) else { return };
        let value = value_of(tag, len);
        let answer = handle.put_with(key, &value, durability);
        let change = Change::Put { table: table.into(), key: key.into(), value };
        self.commit("put", vec![change], durability, answer);
        self.reads_hold(db);
    }

    fn table(&mut self, db: &Database, name: &str) -> Option<bedstone::Table> {
        if self.oracle.now().tables.contains_key(name) {
            match db.open_table(name) {
                Ok(Some(table)) => Some(table),
                Ok(None) => {
                    self.wrong.push(format!("table {name} is gone"));
                    None
                }
                Err(error) => {
                    self.failed("open_table", &error);
                    None
                }
            }
        } else {
            let made = db.create_table(name);
            self.commit("create_table", vec![Change::Create(name.into())], Durability::Sync, made)
        }
    }

    fn delete(&mut self, db: &Database, table: &str, key: &str) {
        let Some(handle) = self.table(db, table) else { return };
        if !self.oracle.now().table(table).contains_key(key.as_bytes()) {
            return;
        }
        let answer = handle.delete(key);
        self.commit(
            "delete",
            vec![Change::Delete { table: table.into(), key: key.into() }],
            Durability::Sync,
            answer,
        );
    }

    fn checkpoint(&mut self, db: &Database) {
        match db.checkpoint() {
            Ok(_) => self.oracle.synced(),
            Err(error) => self.failed("checkpoint", &error),
        }
    }

    /// As long as no commit is in doubt, reads show what was acknowledged, or an error.
    fn reads_hold(&mut self, db: &Database) {
        if self.unknown {
            return;
        }
        match view::dump(db) {
            Ok(found) => {
                if let Some(difference) = self.oracle.now().difference(&found) {
                    self.wrong.push(format!("reading: {difference}"));
                }
            }
            Err(error) => self.failed("reading all", &error),
        }
    }

    fn fill(&mut self, db: &Database) {
        for i in 0..12u64 {
            let len = [10, 200, 900, 0][i as usize % 4];
            self.put(db, "one", &format!("key {i:03}"), i, len, Durability::Sync);
        }
        self.put(db, "one", "relaxed", 50, 100, Durability::Relaxed);
        self.put(db, "one", "buffered", 51, 100, Durability::Buffered);
        self.checkpoint(db);
        self.batch(db, 100, 60);
        self.put(db, "two", "long", 60, 30_000, Durability::Sync);
        if let Err(error) = db.step() {
            self.failed("step", &error);
        }
        self.put(db, "two", "after", 61, 10, Durability::Sync);
    }

    fn batch(&mut self, db: &Database, tag: u64, count: u64) {
        let (Some(one), Some(two)) = (self.table(db, "one"), self.table(db, "two")) else { return };
        let mut batch = WriteBatch::new();
        let mut commit = Vec::new();
        for i in 0..count {
            let (handle, table) = if i % 2 == 0 { (&one, "one") } else { (&two, "two") };
            let key = format!("batch {:03}", i * 7 % count);
            let value = value_of(tag + i, 150);
            if let Err(error) = batch.put(handle, &key, &value) {
                self.failed("adding to a batch", &error);
                return;
            }
            commit.push(Change::Put { table: table.into(), key: key.into(), value });
        }
        let answer = db.write_with(batch, Durability::Sync);
        self.commit("batch", commit, Durability::Sync, answer);
    }

    fn change(&mut self, db: &Database) {
        for i in (0..12u64).step_by(3) {
            self.delete(db, "one", &format!("key {i:03}"));
        }
        self.put(db, "two", "long", 70, 14_000, Durability::Sync);
        self.batch(db, 200, 40);
        self.put(db, "three", "short-lived", 71, 5000, Durability::Sync);
        self.checkpoint(db);
        if self.oracle.now().tables.contains_key("three") {
            let answer = db.drop_table("three");
            self.commit("drop_table", vec![Change::Drop("three".into())], Durability::Sync, answer);
        }
        if self.oracle.now().tables.contains_key("two") && !self.oracle.now().tables.contains_key("zwei") {
            let answer = db.rename_table("two", "zwei");
            let change = Change::Rename { from: "two".into(), to: "zwei".into() };
            self.commit("rename_table", vec![change], Durability::Sync, answer);
        }
        self.put(db, "one", "key 001", 72, 300, Durability::Relaxed);
        match db.sync() {
            Ok(()) => self.oracle.synced(),
            Err(error) => self.failed("sync", &error),
        }
        self.checkpoint(db);
        self.put(db, "one", "last", 73, 20, Durability::Sync);
    }

    /// Opens the store without faults, and judges. The store must take writes again afterwards.
    ///
    /// # Errors
    /// Says what does not hold.
    pub fn verify(&mut self, disk: &Arc<SimDisk>, ending: Ending) -> Result<Model, String> {
        if let Some(wrong) = self.wrong.first() {
            return Err(format!("{wrong} (errors before: {:?})", self.errors));
        }
        let context = |what: String| format!("{what} (errors before: {:?})", self.errors);
        let db = self
            .config
            .builder(disk)
            .open_or_create(DIR)
            .map_err(|error| context(format!("opening afterwards failed: {error} ({error:?})")))?;
        let found =
            view::dump(&db).map_err(|error| context(format!("reading all afterwards failed: {error}")))?;
        let errors = &self.errors;
        let ending = self.ending(ending);
        self.oracle
            .settle(found.clone(), ending)
            .map_err(|what| format!("{what} (errors before: {errors:?})"))?;
        view::compare(&db, &found, &mut Rng::new(1))?;
        check_clean(&db)?;
        let table = db.table("afterwards").map_err(|error| error.to_string())?;
        table.put(b"alive", b"yes").map_err(|error| format!("a put afterwards failed: {error}"))?;
        db.drop_table("afterwards").map_err(|error| format!("drop afterwards failed: {error}"))?;
        db.close().map_err(|error| format!("closing afterwards failed: {error}"))?;
        Ok(found)
    }
}
