//! The transactions of the scenario, and a snapshot beside them.

use bedstone::{Database, Durability, Snapshot, Table, Transaction};

use super::Scenario;
use crate::model::{Bytes, Change, Map, Model};
use crate::simulation::shape::value_of;

/// A transaction, what it has written, and what it must see.
struct Open {
    tx: Transaction,
    changes: Vec<Change>,
    sees: Model,
}

/// What tables held when a snapshot was taken.
struct Seen {
    snapshot: Snapshot,
    tables: Vec<(Table, Map)>,
}

impl Scenario {
    pub(super) fn transact(&mut self, db: &Database) {
        let seen = self.look(db);
        self.put(db, "one", "key 002", 500, 400, Durability::Sync);
        self.with_savepoints(db);
        self.swap(db);
        self.reader(db);
        self.still_sees(seen.as_ref());
        self.larger_than_its_memory(db);
        self.checkpoint(db);
        self.ticket(db, "one", "ticket", 501);
        self.delete_range(db, "zwei", "batch 005", "batch 015");
        self.still_sees(seen.as_ref());
        drop(seen);
        self.upkeep(db);
        self.given_up(db);
        self.put(db, "one", "relaxed", 502, 100, Durability::Relaxed);
        self.put(db, "zwei", "buffered", 503, 1000, Durability::Buffered);
    }

    /// Several tables, a savepoint that is rolled back to and one that is released.
    fn with_savepoints(&mut self, db: &Database) {
        let (Some(one), Some(zwei)) = (self.table(db, "one"), self.table(db, "zwei")) else { return };
        let Some(mut open) = self.begin(db) else { return };
        self.write(&mut open, &one, "one", "tx a", 510, 300);
        self.write(&mut open, &zwei, "zwei", "tx b", 511, 6000);
        let savepoint = open.tx.savepoint();
        let before = (open.changes.clone(), open.sees.clone());
        self.write(&mut open, &one, "one", "tx a", 512, 10);
        self.remove(&mut open, &zwei, "zwei", "tx b");
        self.remove(&mut open, &one, "one", "key 001");
        match open.tx.rollback_to(&savepoint) {
            Ok(()) => (open.changes, open.sees) = before,
            Err(error) => return self.failed("rollback_to", &error),
        }
        let second = open.tx.savepoint();
        self.remove(&mut open, &one, "one", "key 002");
        self.write(&mut open, &one, "one", "tx c", 513, 700);
        if let Err(error) = open.tx.release(second) {
            self.failed("release", &error);
        }
        self.sees(&open, &one, "one");
        self.sees(&open, &zwei, "zwei");
        self.finish(db, open, Durability::Sync);
    }

    /// So much that temporary trees are made for it, with a long value and a deleted range in it.
    fn larger_than_its_memory(&mut self, db: &Database) {
        let (Some(one), Some(large)) = (self.table(db, "one"), self.table(db, "large")) else { return };
        let Some(mut open) = self.begin(db) else { return };
        for i in 0..60 {
            let len = if i == 30 { 9000 } else { 250 };
            self.write(&mut open, &large, "large", &format!("row {:03}", i * 17 % 60), 600 + i, len);
        }
        self.remove_range(&mut open, &one, "one", "batch 030", "batch 050");
        self.remove_range(&mut open, &large, "large", "row 010", "row 020");
        self.sees(&open, &large, "large");
        self.finish(db, open, Durability::Sync);
        self.reads_hold(db);
    }

    /// One that wrote beyond its memory, and is dropped.
    fn given_up(&mut self, db: &Database) {
        let Some(one) = self.table(db, "one") else { return };
        let Some(mut open) = self.begin(db) else { return };
        for i in 0..12 {
            self.write(&mut open, &one, "one", &format!("never {i}"), 700 + i, 500);
        }
        self.remove_range(&mut open, &one, "one", "key", "kez");
        drop(open);
        self.reads_hold(db);
    }

    fn swap(&mut self, db: &Database) {
        let Some(one) = self.table(db, "one") else { return };
        for (key, tag, len) in [("key 005", 520, 150), ("swapped in", 521, 80), ("key 010", 522, 5000)] {
            let old: Option<Bytes> = self.oracle.now().table("one").get(key.as_bytes()).cloned();
            let new = value_of(tag, len);
            let answer = one.compare_and_swap(key, old.as_deref(), Some(&new));
            if matches!(answer, Ok(false)) {
                self.wrong.push(format!("{key:?} was not swapped although it has the value expected"));
                return;
            }
            let change = Change::Put { table: "one".into(), key: key.into(), value: new };
            self.commit("compare_and_swap", vec![change], Durability::Sync, answer);
        }
        if matches!(one.compare_and_swap("key 005", Some(b"no such value"), None), Ok(true)) {
            self.wrong.push("a value was swapped that is not the one expected".into());
        }
    }

    fn reader(&mut self, db: &Database) {
        let Some(zwei) = self.table(db, "zwei") else { return };
        let value = value_of(530, 40_000);
        let answer = zwei.put_reader("read in", value.len() as u64, &value[..]);
        let change = Change::Put { table: "zwei".into(), key: b"read in".to_vec(), value };
        self.commit("put_reader", vec![change], Durability::Sync, answer);
        self.reads_hold(db);
    }

    /// A transaction that is visible at once and durable later.
    pub(super) fn ticket(&mut self, db: &Database, name: &str, key: &str, tag: u64) {
        let Some(table) = self.table(db, name) else { return };
        let Some(mut open) = self.begin(db) else { return };
        self.write(&mut open, &table, name, key, tag, 200);
        if open.changes.is_empty() {
            return;
        }
        let answer = open.tx.commit_ticket();
        let Some(ticket) = self.answered("commit_ticket", open.changes, Durability::Relaxed, answer) else {
            return;
        };
        match ticket.wait() {
            Ok(_) => self.oracle.synced(),
            Err(error) => {
                self.failed("waiting for a ticket", &error);
                // The log failed: it takes nothing any more.
                self.unknown = true;
            }
        }
    }

    pub(super) fn delete_range(&mut self, db: &Database, name: &str, from: &str, to: &str) {
        let Some(table) = self.table(db, name) else { return };
        let gone = between(self.oracle.now(), name, from, to);
        let answer = table.delete_range(from..to);
        if let Ok(count) = answer
            && count != gone.len() as u64
        {
            self.wrong.push(format!("delete_range removed {count} keys instead of {}", gone.len()));
        }
        if gone.is_empty() {
            return;
        }
        self.commit("delete_range", gone, Durability::Sync, answer);
        self.reads_hold(db);
    }

    fn begin(&mut self, db: &Database) -> Option<Open> {
        match db.begin_write() {
            Ok(tx) => Some(Open { tx, changes: Vec::new(), sees: self.oracle.now().clone() }),
            Err(error) => {
                self.failed("begin_write", &error);
                None
            }
        }
    }

    fn write(&mut self, open: &mut Open, table: &Table, name: &str, key: &str, tag: u64, len: usize) {
        let value = value_of(tag, len);
        match open.tx.put(table, key, &value) {
            Ok(()) => open.add([Change::Put { table: name.into(), key: key.into(), value }]),
            Err(error) => self.failed("put in a transaction", &error),
        }
    }

    fn remove(&mut self, open: &mut Open, table: &Table, name: &str, key: &str) {
        let there = open.sees.table(name).contains_key(key.as_bytes());
        match open.tx.delete(table, key) {
            Ok(was_there) if was_there != there => {
                self.wrong.push(format!("a transaction's delete of {key:?} says {was_there}"));
            }
            Ok(false) => {}
            Ok(true) => open.add([Change::Delete { table: name.into(), key: key.into() }]),
            Err(error) => self.failed("delete in a transaction", &error),
        }
    }

    fn remove_range(&mut self, open: &mut Open, table: &Table, name: &str, from: &str, to: &str) {
        let gone = between(&open.sees, name, from, to);
        match open.tx.delete_range(table, from..to) {
            Ok(count) if count != gone.len() as u64 => {
                self.wrong.push(format!("a transaction's delete_range removed {count}, not {}", gone.len()));
            }
            Ok(_) => open.add(gone),
            Err(error) => self.failed("delete_range in a transaction", &error),
        }
    }

    /// A transaction reads its beginning and its own writes, or an error.
    fn sees(&mut self, open: &Open, table: &Table, name: &str) {
        let read = || -> bedstone::Result<Map> {
            let mut found = Map::new();
            let mut scan = open.tx.iter(table)?;
            while let Some((key, value)) = scan.next_ref()? {
                found.insert(key.to_vec(), value.into());
            }
            Ok(found)
        };
        match read() {
            Ok(found) if found != *open.sees.table(name) => {
                self.wrong.push(format!("a transaction does not see its own table {name:?}"));
            }
            Ok(_) => {}
            Err(error) => self.failed("reading in a transaction", &error),
        }
    }

    fn finish(&mut self, db: &Database, open: Open, durability: Durability) {
        if open.changes.is_empty() {
            return;
        }
        let answer = open.tx.commit_with(self.config.level(durability));
        self.commit("commit", open.changes, durability, answer);
        self.reads_hold(db);
    }

    /// Takes a snapshot, if it is known what it must see.
    fn look(&mut self, db: &Database) -> Option<Seen> {
        if self.unknown {
            return None;
        }
        let names: Vec<String> = self.oracle.now().tables.keys().cloned().collect();
        let mut tables = Vec::new();
        for name in names {
            tables.push((self.table(db, &name)?, self.oracle.now().table(&name).clone()));
        }
        match db.begin_read() {
            Ok(snapshot) => Some(Seen { snapshot, tables }),
            Err(error) => {
                self.failed("begin_read", &error);
                None
            }
        }
    }

    /// Whatever has happened since, a snapshot sees its moment, or an error.
    fn still_sees(&mut self, seen: Option<&Seen>) {
        for (table, map) in seen.iter().flat_map(|seen| &seen.tables) {
            let read = || -> bedstone::Result<Map> {
                let mut found = Map::new();
                let Some(seen) = seen else { return Ok(found) };
                let mut scan = seen.snapshot.iter(table)?;
                while let Some((key, value)) = scan.next_ref()? {
                    found.insert(key.to_vec(), value.into());
                }
                Ok(found)
            };
            match read() {
                Ok(found) if found != *map => {
                    self.wrong.push(format!("a snapshot sees changes of table {:?}", table.name()));
                }
                Ok(_) => {}
                Err(error) => self.failed("reading a snapshot", &error),
            }
        }
    }
}

impl Open {
    fn add(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            self.sees.apply(std::slice::from_ref(&change));
            self.changes.push(change);
        }
    }
}

/// The deletes of everything between two keys.
fn between(model: &Model, table: &str, from: &str, to: &str) -> Vec<Change> {
    let range = from.as_bytes().to_vec()..to.as_bytes().to_vec();
    let keys = model.table(table).range(range).map(|(key, _)| key.clone());
    keys.map(|key| Change::Delete { table: table.into(), key }).collect()
}
