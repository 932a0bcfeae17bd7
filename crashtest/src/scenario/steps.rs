//! The steps of the scenario: each asks the store for something and takes the answer into account.

use bedstone::{Database, Durability, Table, WriteBatch};

use super::Scenario;
use crate::model::Change;
use crate::simulation::shape::value_of;
use crate::view;

impl Scenario {
    pub(super) fn put(
        &mut self,
        db: &Database,
        table: &str,
        key: &str,
        tag: u64,
        len: usize,
        durability: Durability,
    ) {
        let Some(handle) = self.table(db, table) else { return };
        let value = value_of(tag, len + self.rng.index(len / 8 + 1));
        let answer = handle.put_with(key, &value, self.config.level(durability));
        let change = Change::Put { table: table.into(), key: key.into(), value };
        self.commit("put", vec![change], durability, answer);
        self.reads_hold(db);
    }

    pub(super) fn table(&mut self, db: &Database, name: &str) -> Option<Table> {
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
        let change = Change::Delete { table: table.into(), key: key.into() };
        self.commit("delete", vec![change], Durability::Sync, answer);
    }

    pub(super) fn checkpoint(&mut self, db: &Database) {
        match db.checkpoint() {
            Ok(_) => self.oracle.synced(),
            Err(error) => self.failed("checkpoint", &error),
        }
    }

    pub(super) fn sync(&mut self, db: &Database) {
        match db.sync() {
            Ok(()) => self.oracle.synced(),
            Err(error) => self.failed("sync", &error),
        }
    }

    /// The work that is due in the background, such as giving back the pages of dropped tables.
    pub(super) fn upkeep(&mut self, db: &Database) {
        if let Err(error) = db.step() {
            self.failed("step", &error);
        }
    }

    pub(super) fn drop_table(&mut self, db: &Database, name: &str) {
        if self.oracle.now().tables.contains_key(name) {
            let answer = db.drop_table(name);
            self.commit("drop_table", vec![Change::Drop(name.into())], Durability::Sync, answer);
        }
    }

    pub(super) fn rename_table(&mut self, db: &Database, from: &str, to: &str) {
        let tables = &self.oracle.now().tables;
        if tables.contains_key(from) && !tables.contains_key(to) {
            let answer = db.rename_table(from, to);
            let change = Change::Rename { from: from.into(), to: to.into() };
            self.commit("rename_table", vec![change], Durability::Sync, answer);
        }
    }

    /// As long as no commit is in doubt, reads show what was acknowledged, or an error.
    pub(super) fn reads_hold(&mut self, db: &Database) {
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

    pub(super) fn batch(&mut self, db: &Database, tag: u64, count: u64) {
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
        let answer = db.write_with(batch, self.config.level(Durability::Sync));
        self.commit("batch", commit, Durability::Sync, answer);
    }

    pub(super) fn fill(&mut self, db: &Database) {
        for i in 0..12u64 {
            let len = [10, 200, 900, 0][i as usize % 4];
            self.put(db, "one", &format!("key {i:03}"), i, len, Durability::Sync);
        }
        self.put(db, "one", "relaxed", 50, 100, Durability::Relaxed);
        self.put(db, "one", "buffered", 51, 100, Durability::Buffered);
        self.checkpoint(db);
        self.batch(db, 100, 60);
        self.put(db, "two", "long", 60, 30_000, Durability::Sync);
        self.upkeep(db);
        self.put(db, "two", "after", 61, 10, Durability::Sync);
    }

    pub(super) fn change(&mut self, db: &Database) {
        for i in (0..12u64).step_by(3) {
            self.delete(db, "one", &format!("key {i:03}"));
        }
        self.put(db, "two", "long", 70, 14_000, Durability::Sync);
        self.batch(db, 200, 40);
        self.put(db, "three", "short-lived", 71, 5000, Durability::Sync);
        self.checkpoint(db);
        self.drop_table(db, "three");
        self.rename_table(db, "two", "zwei");
        self.put(db, "one", "key 001", 72, 300, Durability::Relaxed);
        self.sync(db);
        self.upkeep(db);
        self.checkpoint(db);
        self.put(db, "one", "last", 73, 20, Durability::Sync);
    }

    pub(super) fn after_kill(&mut self, db: &Database) {
        self.put(db, "four", "short-lived", 300, 9000, Durability::Sync);
        self.batch(db, 310, 30);
        self.drop_table(db, "four");
        self.upkeep(db);
        self.checkpoint(db);
        self.upkeep(db);
        self.put(db, "two", "long", 340, 12_000, Durability::Sync);
        self.delete_range(db, "one", "batch 010", "batch 025");
        self.put(db, "zwei", "relaxed", 341, 100, Durability::Relaxed);
        self.put(db, "two", "buffered", 342, 1000, Durability::Buffered);
    }

    pub(super) fn after_power_cut(&mut self, db: &Database) {
        self.ticket(db, "one", "ticket", 400);
        for table in ["one", "two", "zwei"] {
            self.delete_range(db, table, "b", "l");
        }
        self.upkeep(db);
        self.checkpoint(db);
        self.put(db, "one", "last", 401, 500, Durability::Sync);
    }
}
