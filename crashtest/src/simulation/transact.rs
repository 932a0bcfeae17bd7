//! Transactions, with commits of others in between: what they read, whether they may commit, and what is there then.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bedstone::{CommitInfo, Durability, Error, Savepoint, Table, Transaction};

use super::{Run, Step, Stop, broken};
use crate::model::{Bytes, Change, Map, Model};
use crate::simulation::ops::{End, Look, Op, Step as Do, TABLES, Tx};
use crate::view;

/// What a transaction has written: by table and key.
type Writes = BTreeMap<(usize, Vec<u8>), Option<Bytes>>;

/// The change that sets a key or removes it.
pub(super) fn change(table: &str, key: &[u8], value: Option<&Bytes>) -> Change {
    let (table, key) = (table.to_owned(), key.to_vec());
    match value {
        Some(value) => Change::Put { table, key, value: value.clone() },
        None => Change::Delete { table, key },
    }
}

/// A transaction as it ought to be.
#[derive(Default)]
struct Expected {
    /// What it began with.
    before: Model,
    /// What it sees, by table.
    sees: Vec<Map>,
    writes: Writes,
    /// For each savepoint that there is, what it leads back to.
    savepoints: Vec<(Savepoint, Vec<Map>, Writes)>,
    /// Keys and ranges that were read.
    keys: BTreeSet<(usize, Vec<u8>)>,
    ranges: Vec<(usize, [Bound<Vec<u8>>; 2])>,
    /// Keys that others have written meanwhile, by name of the table.
    touched: BTreeSet<(String, Vec<u8>)>,
}

/// Whether a commit must go through.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Commits,
    Conflicts,
    /// Others have written something that it has read or written, and it is as it was.
    Either,
}

impl Expected {
    fn write(&mut self, table: usize, key: Vec<u8>, value: Option<Bytes>) {
        match &value {
            Some(value) => self.sees[table].insert(key.clone(), value.clone()),
            None => self.sees[table].remove(&key),
        };
        self.writes.insert((table, key), value);
    }

    fn read_key(&mut self, table: usize, key: &[u8]) {
        if !self.writes.contains_key(&(table, key.to_vec())) {
            self.keys.insert((table, key.to_vec()));
        }
    }

    fn looked(&mut self, table: usize, look: &Look) {
        match look {
            Look::Gets(keys) | Look::MultiGet(keys) => keys.iter().for_each(|key| self.read_key(table, key)),
            Look::Range(low, high, _) => self.ranges.push((table, [low.clone(), high.clone()])),
            Look::Prefix(prefix, _) => {
                self.ranges.push((table, [Bound::Included(prefix.clone()), view::end_of_prefix(prefix)]));
            }
            Look::Ends => self.ranges.push((table, [Bound::Unbounded, Bound::Unbounded])),
        }
    }

    /// Whether it may commit, if the database holds `now`.
    fn verdict(&self, now: &Model, serializable: bool) -> Verdict {
        let concerns = |table: usize, key: &Vec<u8>| {
            let place = (table, key.clone());
            self.writes.contains_key(&place)
                || serializable
                    && (self.keys.contains(&place)
                        || self.ranges.iter().any(|(of, [low, high])| {
                            let one = Map::from([(key.clone(), Bytes::from(&b""[..]))]);
                            *of == table && view::between(&one, low, high).next().is_some()
                        }))
        };
        let mut verdict = Verdict::Commits;
        for (name, key) in &self.touched {
            let Some(table) = TABLES.iter().position(|table| table == name) else { continue };
            if !concerns(table, key) {
                continue;
            }
            if self.before.table(name).get(key) != now.table(name).get(key) {
                return Verdict::Conflicts;
            }
            verdict = Verdict::Either;
        }
        verdict
    }
}

impl Run {
    pub(super) fn transact(&mut self, plan: &Tx) -> Step {
        let db = self.db()?;
        let tables = self.all_tables()?;
        let mut tx = self.read("begin_write", db.begin_write())?;
        if plan.serializable {
            tx = tx.serializable();
        }
        let before = self.oracle.now().clone();
        let sees = TABLES.iter().map(|name| before.table(name).clone()).collect();
        let mut expected = Expected { before, sees, ..Expected::default() };
        for step in &plan.steps {
            self.one_step(&mut tx, &tables, &mut expected, step)?;
        }
        self.finish(tx, &expected, plan)
    }

    fn one_step(
        &mut self,
        tx: &mut Transaction,
        tables: &[Table],
        expected: &mut Expected,
        step: &Do,
    ) -> Step {
        match step {
            Do::Write((table, key, Some(value))) => {
                let done = tx.put(&tables[*table], key, value);
                self.read("put in a transaction", done)?;
                expected.write(*table, key.clone(), Some(value.clone()));
            }
            Do::Write((table, key, None)) => {
                let done = tx.delete(&tables[*table], key);
                let there = expected.sees[*table].contains_key(key);
                if self.read("delete in a transaction", done)? != there {
                    return broken(format!("delete in a transaction says {}", !there));
                }
                expected.read_key(*table, key);
                if there {
                    expected.write(*table, key.clone(), None);
                }
            }
            Do::DeleteRange(table, low, high) => {
                let gone: Vec<_> =
                    view::between(&expected.sees[*table], low, high).map(|(key, _)| key.clone()).collect();
                let done = tx.delete_range::<Vec<u8>>(&tables[*table], (low.clone(), high.clone()));
                let count = self.read("delete_range", done)?;
                if count != gone.len() as u64 {
                    return broken(format!("delete_range removed {count} keys instead of {}", gone.len()));
                }
                expected.ranges.push((*table, [low.clone(), high.clone()]));
                gone.into_iter().for_each(|key| expected.write(*table, key, None));
            }
            Do::Look(table, look) => {
                self.look(&*tx, &tables[*table], &expected.sees[*table], look)?;
                expected.looked(*table, look);
            }
            Do::Savepoint => {
                expected.savepoints.push((tx.savepoint(), expected.sees.clone(), expected.writes.clone()));
            }
            Do::RollBack(which) if !expected.savepoints.is_empty() => {
                let at = *which as usize % expected.savepoints.len();
                let (savepoint, sees, writes) = expected.savepoints[at].clone();
                self.read("rollback_to", tx.rollback_to(&savepoint))?;
                (expected.sees, expected.writes) = (sees, writes);
                // It can be rolled back to again; those after it are gone.
                if let Some((gone, ..)) = expected.savepoints.drain(at + 1..).next() {
                    self.no_savepoint(tx, &gone)?;
                }
            }
            Do::Release(which) if !expected.savepoints.is_empty() => {
                let at = *which as usize % expected.savepoints.len();
                let savepoint = expected.savepoints[at].0;
                self.read("release", tx.release(savepoint))?;
                expected.savepoints.truncate(at);
                self.no_savepoint(tx, &savepoint)?;
            }
            Do::RollBack(_) | Do::Release(_) => {}
            Do::Other(op) => {
                let written: Vec<(usize, &Vec<u8>)> = match op {
                    Op::Put(table, key, ..) | Op::Delete(table, key, ..) => vec![(*table, key)],
                    Op::Batch(writes, _) => writes.iter().map(|(table, key, _)| (*table, key)).collect(),
                    _ => Vec::new(),
                };
                let name = |table: usize| TABLES[table].to_owned();
                expected.touched.extend(written.into_iter().map(|(table, key)| (name(table), key.clone())));
                self.perform(op)?;
            }
        }
        Ok(())
    }

    fn no_savepoint(&self, tx: &mut Transaction, savepoint: &Savepoint) -> Step {
        match tx.rollback_to(savepoint) {
            Err(Error::NoSavepoint) => Ok(()),
            other => broken(format!("rolling back to a savepoint that is gone gave {other:?}")),
        }
    }

    fn finish(&mut self, tx: Transaction, expected: &Expected, plan: &Tx) -> Step {
        let verdict = expected.verdict(self.oracle.now(), plan.serializable);
        let (durability, done) = match plan.end {
            End::RollBack => {
                tx.rollback();
                return Ok(());
            }
            End::Drop => {
                drop(tx);
                return Ok(());
            }
            End::Commit(durability) => (durability, tx.commit_with(durability)),
            End::Ticket => (Durability::Relaxed, self.by_ticket(tx)?),
        };
        let changes = expected.writes.iter();
        let changes: Vec<_> =
            changes.map(|((table, key), value)| change(TABLES[*table], key, value.as_ref())).collect();
        match done {
            Err(e @ Error::Conflict { .. }) => {
                self.report.transactions[2] += 1;
                if verdict == Verdict::Commits || !e.is_retryable() || changes.is_empty() {
                    return broken(format!("a transaction that nobody disturbed met a conflict: {e}"));
                }
                Ok(())
            }
            Ok(_) if verdict == Verdict::Conflicts && !changes.is_empty() => {
                broken("a transaction committed although another one had changed what it wrote or read")
            }
            Ok(_) if changes.is_empty() => Ok(()),
            done => {
                let bytes: usize = expected
                    .writes
                    .iter()
                    .map(|((_, key), value)| key.len() + value.as_ref().map_or(0, |value| value.len()))
                    .sum();
                let synced = plan.end == End::Ticket && done.is_ok();
                self.commit(changes, durability, done)?;
                if synced {
                    self.oracle.synced();
                }
                self.report.transactions[0] += 1;
                self.report.transactions[1] += u64::from(bytes > self.config.transaction_memory);
                Ok(())
            }
        }
    }

    /// Commits, and waits by the ticket: what the commit answered. An error of waiting ends the run's step.
    fn by_ticket(&self, tx: Transaction) -> Step<Result<CommitInfo, Error>> {
        let ticket = match tx.commit_ticket() {
            Ok(ticket) => ticket,
            Err(e) => return Ok(Err(e)),
        };
        let lsn = ticket.lsn();
        match ticket.wait() {
            Ok(commit) if commit.lsn == lsn => Ok(Ok(commit)),
            Err(e) if self.has_trouble() => Ok(Err(e)),
            other => Err(Stop::Broken(format!("waiting for the ticket of {lsn} gave {other:?}"))),
        }
    }
}
