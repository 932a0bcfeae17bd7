//! A small scenario that uses every part of the store: what fault tests fail. It goes on after errors as a program would
//! that knows no better, and keeps account of every answer.

mod steps;
mod transact;

use std::sync::Arc;

use bedstone::{Database, Durability, Error};
use bedstone_io::sim::{CutMode, SimDisk};

use crate::model::{Change, Model};
use crate::oracle::{Ending, Oracle};
use crate::rng::Rng;
use crate::setup::{Config, DIR, check_clean};
use crate::view;

/// A part of the scenario: what is done from one opening of the store to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Creates the store, makes tables and data of every kind, and closes it.
    Fill,
    /// Changes and deletes them, drops and renames tables, and closes the store.
    Change,
    /// Transactions of every kind beside a snapshot; then the process ends.
    Transact,
    /// Opens what that has left, changes it, and the power goes.
    AfterKill,
    /// Opens what that has left, deletes most of it, and closes the store.
    AfterPowerCut,
}

impl Part {
    /// All parts, in their order.
    pub const ALL: [Part; 5] =
        [Part::Fill, Part::Change, Part::Transact, Part::AfterKill, Part::AfterPowerCut];

    /// How it ends.
    pub fn ending(self) -> Ending {
        match self {
            Part::Fill | Part::Change | Part::AfterPowerCut => Ending::Closed,
            Part::Transact => Ending::Killed,
            Part::AfterKill => Ending::PowerCut,
        }
    }
}

/// Runs the scenario and knows what it was promised.
#[derive(Debug, Clone)]
pub struct Scenario {
    config: Config,
    /// Draws lengths of values.
    rng: Rng,
    /// The hardest end of the store since what was left of it was seen.
    ended: Ending,
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

/// The one of two endings after which less is owed.
fn harder(a: Ending, b: Ending) -> Ending {
    match (a, b) {
        (Ending::PowerCut, _) | (_, Ending::PowerCut) => Ending::PowerCut,
        (Ending::Killed, _) | (_, Ending::Killed) => Ending::Killed,
        (Ending::Closed, Ending::Closed) => Ending::Closed,
    }
}

impl Scenario {
    /// A scenario before its beginning. The seed decides the lengths of values.
    pub fn new(config: Config, seed: u64) -> Self {
        Self {
            config,
            rng: Rng::of(&[seed, 3]),
            ended: Ending::Closed,
            oracle: Oracle::default(),
            errors: Vec::new(),
            wrong: Vec::new(),
            unknown: false,
            medium_failed: false,
        }
    }

    /// Opens or creates the store and runs one part of the scenario to its own ending. Gives the medium's next life.
    pub fn part(&mut self, disk: &Arc<SimDisk>, part: Part) -> Arc<SimDisk> {
        self.part_until(disk, part, part.ending())
    }

    /// The same with another ending than the part's own.
    pub fn part_until(&mut self, disk: &Arc<SimDisk>, part: Part, ending: Ending) -> Arc<SimDisk> {
        let db = self.open(disk);
        if let Some(db) = &db {
            match part {
                Part::Fill => self.fill(db),
                Part::Change => self.change(db),
                Part::Transact => self.transact(db),
                Part::AfterKill => self.after_kill(db),
                Part::AfterPowerCut => self.after_power_cut(db),
            }
        }
        self.ended = harder(self.ended, ending);
        let db = match (ending, db) {
            (Ending::Closed, Some(db)) => {
                match db.close() {
                    Ok(()) => self.oracle.synced(),
                    Err(error) => self.failed("close", &error),
                }
                None
            }
            (Ending::PowerCut, db) => {
                disk.power_cut(CutMode::Random);
                db
            }
            (_, db) => db,
        };
        // Nothing that the old handle does when it is dropped may reach the next life.
        let next = disk.reopen();
        drop(db);
        next
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
                        self.ended = Ending::Closed;
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

    /// The ending that tells what is still owed after this one.
    fn ending(&self, ending: Ending) -> Ending {
        if self.medium_failed { Ending::PowerCut } else { harder(self.ended, ending) }
    }

    fn failed(&mut self, what: &str, error: &Error) {
        self.medium_failed |= error.is_read_only();
        if !is_typed(error) {
            self.wrong.push(format!("{what}: {error}"));
        }
        self.errors.push(format!("{what}: {error}"));
    }

    /// Takes the answer to a commit into account that would usually have this durability.
    fn commit<T>(
        &mut self,
        what: &str,
        commit: Vec<Change>,
        usual: Durability,
        answer: Result<T, Error>,
    ) -> Option<T> {
        self.answered(what, commit, self.config.level(usual), answer)
    }

    /// The same of a commit that has this durability whatever is said.
    fn answered<T>(
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
        (self.ended, self.medium_failed) = (Ending::Closed, false);
        view::compare(&db, &found, &mut Rng::new(1))?;
        check_clean(&db)?;
        let table = db.table("afterwards").map_err(|error| error.to_string())?;
        table.put(b"alive", b"yes").map_err(|error| format!("a put afterwards failed: {error}"))?;
        db.drop_table("afterwards").map_err(|error| format!("drop afterwards failed: {error}"))?;
        db.close().map_err(|error| format!("closing afterwards failed: {error}"))?;
        Ok(found)
    }
}
