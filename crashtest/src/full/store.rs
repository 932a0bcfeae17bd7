//! A store on a disk that fills up, with an account of what it acknowledged.

use bedstone::{CommitInfo, Database, Durability, Error, Result as StoreResult, Snapshot, Table, WriteBatch};

use super::workload::{Op, Workload, Write};
use crate::cases::Tally;
use crate::model::{Change, Map, Model};
use crate::oracle::{Ending, Oracle};
use crate::setup::check_clean;
use crate::view;

/// The store, what it owes, and a snapshot with what that must see.
pub(super) struct Store {
    pub(super) db: Option<Database>,
    oracle: Oracle,
    /// Durability of every commit, instead of that which each would have.
    durability: Option<Durability>,
    seen: Option<(Snapshot, Vec<(Table, Map)>)>,
    /// Why the last refused commit was.
    why: String,
}

fn put(write: &Write) -> Change {
    Change::Put { table: write.0.clone(), key: write.1.clone(), value: write.2.clone() }
}

fn say(what: &str) -> impl Fn(Error) -> String {
    move |error| format!("{what}: {error} ({error:?})")
}

impl Store {
    pub(super) fn new(db: Database, durability: Option<Durability>) -> Self {
        Self { db: Some(db), durability, oracle: Oracle::default(), seen: None, why: String::new() }
    }

    fn db(&self) -> Result<Database, String> {
        self.db.clone().ok_or_else(|| "there is no store".into())
    }

    /// Does a step; whether there was room for it. Where there was none nothing may have happened.
    pub(super) fn perform(&mut self, op: &Op) -> Result<bool, String> {
        match op {
            Op::Put(write, durability) => {
                let Some(table) = self.table(&write.0)? else { return Ok(false) };
                let done = table.put_with(&write.1, &write.2, self.durability.unwrap_or(*durability));
                self.commit("put", vec![put(write)], *durability, done)
            }
            Op::Reader(write) => {
                let Some(table) = self.table(&write.0)? else { return Ok(false) };
                let done = table.put_reader(&write.1, write.2.len() as u64, &write.2[..]);
                self.commit("put_reader", vec![put(write)], Durability::Sync, done)
            }
            Op::Batch(writes) => {
                let mut batch = WriteBatch::new();
                for write in writes {
                    let Some(table) = self.table(&write.0)? else { return Ok(false) };
                    batch.put(&table, &write.1, &write.2).map_err(say("adding to a batch"))?;
                }
                let done = self.db()?.write_with(batch, self.durability.unwrap_or_default());
                self.commit("batch", writes.iter().map(put).collect(), Durability::Sync, done)
            }
            Op::Transaction(writes) => {
                let mut tables = Vec::new();
                for write in writes {
                    let Some(table) = self.table(&write.0)? else { return Ok(false) };
                    tables.push(table);
                }
                let done = transaction(&self.db()?, &tables, writes);
                self.commit("transaction", writes.iter().map(put).collect(), Durability::Sync, done)
            }
            Op::DeleteRange(name, from, to) => {
                let Some(table) = self.table(name)? else { return Ok(false) };
                let keys = self.oracle.now().table(name).range(from.clone()..to.clone());
                let gone = keys.map(|(key, _)| Change::Delete { table: name.clone(), key: key.clone() });
                let gone = gone.collect();
                let done = table.delete_range(from.clone()..to.clone());
                self.commit("delete_range", gone, Durability::Sync, done)
            }
            Op::Checkpoint => match self.db()?.checkpoint() {
                Ok(_) => {
                    self.oracle.synced();
                    Ok(true)
                }
                Err(error) => refused("checkpoint", &error).map(|()| false),
            },
            Op::Step => match self.db()?.step() {
                Ok(()) => Ok(true),
                Err(error) => refused("step", &error).map(|()| false),
            },
        }
    }

    /// The table of this name, made if need be; `None` if there is no room for it.
    fn table(&mut self, name: &str) -> Result<Option<Table>, String> {
        if self.oracle.now().tables.contains_key(name) {
            let table = self.db()?.open_table(name).map_err(say("open_table"))?;
            return table.map(Some).ok_or_else(|| format!("table {name} is gone"));
        }
        let made = self.db()?.create_table(name);
        let table = made.as_ref().ok().cloned();
        self.commit("create_table", vec![Change::Create(name.into())], Durability::Sync, made)?;
        Ok(table)
    }

    fn commit<T>(
        &mut self,
        what: &str,
        changes: Vec<Change>,
        durability: Durability,
        answer: StoreResult<T>,
    ) -> Result<bool, String> {
        match answer {
            Ok(_) => {
                self.acknowledged(changes, durability);
                Ok(true)
            }
            Err(error) => {
                refused(what, &error)?;
                self.why = format!("{what}: {error}");
                self.unchanged().map_err(|what_else| format!("after a refused {what}: {what_else}"))?;
                Ok(false)
            }
        }
    }

    fn acknowledged(&mut self, changes: Vec<Change>, usual: Durability) {
        self.oracle.acknowledged(changes, self.durability.unwrap_or(usual));
    }

    /// Reads show what was acknowledged, and the snapshot its moment.
    fn unchanged(&self) -> Result<(), String> {
        let found = view::dump(&self.db()?).map_err(say("reading"))?;
        if let Some(difference) = self.oracle.now().difference(&found) {
            return Err(difference);
        }
        let Some((snapshot, tables)) = &self.seen else { return Ok(()) };
        for (table, map) in tables {
            let mut found = Map::new();
            let mut scan = snapshot.iter(table).map_err(say("a snapshot"))?;
            while let Some((key, value)) = scan.next_ref().map_err(say("reading a snapshot"))? {
                found.insert(key.to_vec(), value.into());
            }
            if found != *map {
                return Err(format!("a snapshot sees changes of table {:?}", table.name()));
            }
        }
        Ok(())
    }

    /// Takes the snapshot.
    pub(super) fn look(&mut self) -> Result<(), String> {
        let names: Vec<String> = self.oracle.now().tables.keys().cloned().collect();
        let mut tables = Vec::new();
        for name in names {
            if let Some(table) = self.table(&name)? {
                tables.push((table, self.oracle.now().table(&name).clone()));
            }
        }
        self.seen = Some((self.db()?.begin_read().map_err(say("begin_read"))?, tables));
        Ok(())
    }

    /// Full: the same again and others are refused, or there is still room for them; then some deletes.
    pub(super) fn bears_it(&mut self, op: &Op, workload: &Workload, tally: &mut Tally) -> Result<(), String> {
        tally.add("refused commits", 1);
        let others = workload.ops().iter().rev().take(6);
        for op in std::iter::once(op).chain(others) {
            if !self.perform(op)? {
                tally.add("refused commits", 1);
            }
            self.deletes_nothing()?;
        }
        self.unchanged()?;
        self.deletes_some(tally)
    }

    /// Deletes what is not there: that needs no room, and must leave none to the puts that follow.
    fn deletes_nothing(&mut self) -> Result<(), String> {
        let names: Vec<String> = self.oracle.now().tables.keys().cloned().collect();
        for name in names {
            let Some(table) = self.table(&name)? else { continue };
            if table.delete(b"absent").map_err(say("a delete of nothing"))? {
                return Err("a key was deleted that was never put".into());
            }
        }
        Ok(())
    }

    /// Deletes every fourth key: of them each must go, if need be after a checkpoint.
    pub(super) fn deletes_some(&mut self, tally: &mut Tally) -> Result<(), String> {
        let entries = |map: &Map| map.keys().step_by(4).cloned().collect::<Vec<_>>();
        let tables: Vec<_> =
            self.oracle.now().tables.iter().map(|(name, map)| (name.clone(), entries(map))).collect();
        for (name, keys) in tables {
            let Some(table) = self.table(&name)? else { continue };
            for key in keys {
                let change = vec![Change::Delete { table: name.clone(), key: key.clone() }];
                let delete = || table.delete(&key);
                self.frees("delete", change, tally, delete)?;
            }
        }
        self.unchanged()
    }

    /// What leads to free space works on a full disk, if need be after a checkpoint.
    fn frees(
        &mut self,
        what: &str,
        changes: Vec<Change>,
        tally: &mut Tally,
        mut attempt: impl FnMut() -> StoreResult<bool>,
    ) -> Result<(), String> {
        let mut answer = attempt();
        if answer.as_ref().is_err_and(Error::is_no_space) {
            self.db()?.checkpoint().map_err(say("a checkpoint on a full disk"))?;
            self.oracle.synced();
            answer = attempt();
        }
        match answer {
            Ok(true) => {
                self.acknowledged(changes, Durability::Sync);
                tally.add("deletes while full", 1);
                Ok(())
            }
            Ok(false) => Err(format!("{what} says that nothing was there")),
            Err(error) => Err(format!("{what} on a full disk: {error} ({error:?})")),
        }
    }

    /// Drops a table, deletes the rest as ranges, and lets the store give back what that has freed.
    pub(super) fn deletes_all(&mut self, tally: &mut Tally) -> Result<(), String> {
        // A snapshot holds old values for as long as it lives.
        self.seen = None;
        let names: Vec<String> = self.oracle.now().tables.keys().cloned().collect();
        for (i, name) in names.into_iter().enumerate() {
            if i == 0 {
                let db = self.db()?;
                self.frees("drop_table", vec![Change::Drop(name.clone())], tally, || db.drop_table(&name))?;
                continue;
            }
            let Some(table) = self.table(&name)? else { continue };
            let keys: Vec<Vec<u8>> = self.oracle.now().table(&name).keys().cloned().collect();
            let changes: Vec<Change> =
                keys.into_iter().map(|key| Change::Delete { table: name.clone(), key }).collect();
            if changes.is_empty() {
                continue;
            }
            let count = changes.len();
            match table.delete_range::<&[u8]>(..) {
                Ok(gone) if gone == count as u64 => {
                    self.acknowledged(changes, Durability::Sync);
                    tally.add("deletes while full", 1);
                }
                Ok(gone) => return Err(format!("delete_range removed {gone} keys instead of {count}")),
                // All at once may be more than what is kept back for deletes; one after the other never is.
                Err(error) => {
                    refused("delete_range", &error)?;
                    self.unchanged()?;
                    for change in changes {
                        let Change::Delete { key, .. } = &change else { continue };
                        let (key, table) = (key.clone(), &table);
                        self.frees("delete", vec![change], tally, || table.delete(&key))?;
                    }
                }
            }
        }
        for _ in 0..2 {
            self.db()?.step().map_err(say("step"))?;
            self.db()?.checkpoint().map_err(say("checkpoint"))?;
            self.oracle.synced();
        }
        self.unchanged()
    }

    /// With room again, what was refused works, and more.
    pub(super) fn resumes(&mut self, refused: &Op) -> Result<(), String> {
        if !self.perform(refused)? {
            return Err(format!("there is room again and writes do not resume: {}", self.why));
        }
        self.resumes_small()
    }

    /// With a little room again small writes work.
    pub(super) fn resumes_small(&mut self) -> Result<(), String> {
        for i in 0..10u8 {
            let write = ("resumed".to_owned(), vec![i], vec![i; 50].into());
            if !self.perform(&Op::Put(write, Durability::Sync))? {
                let pool = self.db()?.stats().pool;
                return Err(format!(
                    "there is room again and small put {i} is refused: {} (data file of {} bytes, {} of them free, {} held, \
                     {} pages in use)",
                    self.why, pool.file_bytes, pool.free_bytes, pool.held_bytes, pool.live_pages
                ));
            }
        }
        self.unchanged()
    }

    /// Takes the store opened after an end of the process or of the power.
    pub(super) fn reopened(&mut self, db: Database, ending: Ending) -> Result<(), String> {
        self.seen = None;
        let found: Model = view::dump(&db).map_err(say("reading after opening"))?;
        self.oracle.settle(found, ending)?;
        check_clean(&db)?;
        self.db = Some(db);
        Ok(())
    }

    /// Writes a little, checks everything, and closes.
    pub(super) fn end_well(mut self) -> Result<(), String> {
        self.seen = None;
        self.unchanged()?;
        let db = self.db.take().ok_or("there is no store")?;
        check_clean(&db)?;
        match db.close() {
            Ok(()) => Ok(()),
            Err(error) => refused("close", &error),
        }
    }
}

/// All in one transaction.
fn transaction(db: &Database, tables: &[Table], writes: &[Write]) -> StoreResult<CommitInfo> {
    let mut tx = db.begin_write()?;
    for (table, write) in tables.iter().zip(writes) {
        tx.put(table, &write.1, &write.2)?;
    }
    tx.commit()
}

/// An answer for want of room must be that and nothing else: typed, and not for good.
fn refused(what: &str, error: &Error) -> Result<(), String> {
    if error.is_no_space() && !error.is_read_only() {
        Ok(())
    } else {
        Err(format!("{what}: {error} ({error:?})"))
    }
}
