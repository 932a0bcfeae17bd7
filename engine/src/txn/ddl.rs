//! Making, renaming and dropping tables, and giving back what dropped tables leave. The rules are in
//! [`crate::catalog`].
//!
//! Each of them is a commit of its own: it has an apply slot, a stamp that appends its record inside the
//! change of the catalog's leaf, and waits for durability at the end. They exclude each other by the
//! catalog's mutex, which is taken before any stripe; nobody takes it with a stripe held.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bedstone_bufpool::{NewPage, PageHeader};
use bedstone_wal::Appended;

use crate::btree::{NewValue, OPERATION_PAGES, Outcome, Stamp, Tree, Write};
use crate::catalog::{self, CATALOG, Record, TABLE_MAX, TableState, Tombstone};
use crate::error::{Error, Result};
use crate::options::Background;
use crate::shared::Shared;
use crate::txn::commit::Ready;
use crate::txn::record::{CREATE_TABLE, DROP_TABLE, RENAME_TABLE, table_record};

/// Pages a new tree takes beside those of the catalog's own change.
pub(crate) const TREE_PAGES: usize = 2;

impl Shared {
    /// The table of this name, made if there is none.
    pub(crate) fn find_or_create(&self, name: &str) -> Result<Arc<TableState>> {
        loop {
            self.readable()?;
            if let Some(table) = self.catalog.find(name) {
                return Ok(table);
            }
            match self.create_table(name) {
                // Somebody else made it; and if somebody has dropped it again by now, it is made once more.
                Err(Error::TableExists { .. }) => {}
                other => return other,
            }
        }
    }

    /// Makes a table.
    pub(crate) fn create_table(&self, name: &str) -> Result<Arc<TableState>> {
        catalog::check_name(name)?;
        self.writable()?;
        let mut changes = self.catalog.change();
        if self.catalog.find(name).is_some() {
            return Err(Error::TableExists { name: name.to_owned() });
        }
        let id = changes.next_id;
        if id > TABLE_MAX {
            return Err(Error::BadOption {
                option: "table",
                detail: "every table number has been used".into(),
            });
        }
        let (table, appended) = {
            let mut reserve = self.page_room(OPERATION_PAGES + TREE_PAGES, false)?;
            let (tree, pages) = Tree::create(&self.pool, &mut reserve, id);
            let record = Record::Live { root: tree.root, name: name.to_owned() };
            let appended = self.change_catalog(id, &record, CREATE_TABLE, Some(name), pages.into())?;
            (TableState::new(id, tree.root, name), appended)
        };
        changes.next_id = id + 1;
        self.catalog.insert(&table);
        drop(changes);
        self.wait_durable(appended, self.durability)?;
        Ok(table)
    }

    /// Gives a table another name.
    pub(crate) fn rename_table(&self, from: &str, to: &str) -> Result<()> {
        catalog::check_name(to)?;
        self.writable()?;
        let changes = self.catalog.change();
        let Some(table) = self.catalog.find(from) else {
            return Err(Error::TableNotFound { name: from.to_owned() });
        };
        if from == to {
            return Ok(());
        }
        if self.catalog.find(to).is_some() {
            return Err(Error::TableExists { name: to.to_owned() });
        }
        let record = Record::Live { root: table.tree.root, name: to.to_owned() };
        let appended = self.change_catalog(table.id, &record, RENAME_TABLE, Some(to), Vec::new())?;
        self.catalog.rename(&table, to);
        drop(changes);
        self.wait_durable(appended, self.durability).map(drop)
    }

    /// Drops a table; `false` if there was none.
    pub(crate) fn drop_table(&self, name: &str) -> Result<bool> {
        self.with_relief(|| self.try_drop_table(name))
    }

    fn try_drop_table(&self, name: &str) -> Result<bool> {
        self.writable()?;
        let mut changes = self.catalog.change();
        let Some(table) = self.catalog.find(name) else { return Ok(false) };
        let record = Record::Tombstone { root: table.tree.root, name: name.to_owned() };
        let appended = {
            let _no_writer = self.stripes.lock_all();
            let appended = self.change_catalog(table.id, &record, DROP_TABLE, None, Vec::new())?;
            table.mark_dropped();
            appended
        };
        table.history.take(self);
        self.catalog.remove(name);
        let lsn = appended.lsn.0;
        changes.tombstones.push(Tombstone::dropped(table.id, table.tree.root, lsn));
        drop(changes);
        self.wait_durable(appended, self.durability)?;
        match self.background {
            Background::Threads => self.checkpoints.want_upkeep(),
            Background::Manual => self.upkeep(),
        }
        Ok(true)
    }

    /// Puts a record into the catalog, together with its log record and the pages it makes reachable. The
    /// caller holds the catalog's mutex.
    fn change_catalog<'p>(
        &'p self,
        id: u32,
        record: &Record,
        kind: u8,
        name: Option<&str>,
        mut attach: Vec<NewPage<'p>>,
    ) -> Result<Appended> {
        let front = table_record(self.disk.unix_ms(), id);
        let name = name.unwrap_or("").as_bytes();
        let payload = (front.len() + name.len()) as u64;
        let mut credit = self.log_room(payload, 1, kind == DROP_TABLE)?;
        let mut reserve = self.page_room(OPERATION_PAGES, true)?;
        let slot = self.slots.claim_for_catalog();
        self.writable()?;
        let record = record.encode();
        let mut write = Write::Put(NewValue::Inline(&record));
        let parts: [&[u8]; 2] = [&front, name];
        let ready = Ready { kind, parts: &parts, ends_fragments: false };
        let key = catalog::key(id);
        self.apply_stamped(&CATALOG, &mut reserve, &key, &mut write, &mut attach, &slot, &mut credit, &ready)?
            .ok_or_else(|| Error::Internal("a put into the catalog was not applied".into()))
    }

    /// Changes the catalog without a log record: what a crash may undo. `attach` are pages that the record makes
    /// reachable. The caller holds the catalog's mutex.
    pub(crate) fn change_catalog_unlogged<'p>(
        &'p self,
        key: u32,
        value: Option<&[u8]>,
        mut attach: Vec<NewPage<'p>>,
    ) -> Result<()> {
        let mut reserve = self.page_room(OPERATION_PAGES, true)?;
        let mut write = value.map_or(Write::Delete, |v| Write::Put(NewValue::Inline(v)));
        let outcome = CATALOG
            .write(
                &self.pool,
                &mut reserve,
                &catalog::key(key),
                &mut write,
                &mut || Stamp::Lsn(0),
                &mut attach,
            )
            .map_err(|e| self.pool_error(e))?;
        self.checkpoints.note_unlogged();
        match outcome {
            Outcome::Busy => Err(Error::Internal("an unlogged change cannot find the log busy".into())),
            Outcome::Applied { .. } | Outcome::NotFound => Ok(()),
        }
    }

    /// Gives back the pages of dropped tables, and removes the tombstones that nothing needs any more. What
    /// fails is tried again later; dropped tables harm nobody meanwhile.
    pub(crate) fn upkeep(&self) {
        let _one = self.catalog.upkeep.lock();
        self.versions.expire(self.disk.now());
        if self.writable().is_err() {
            return;
        }
        self.purge_history();
        if let Err(e) = self.empty_tombstones().and_then(|()| self.remove_tombstones()) {
            tracing::warn!(error = %e, "space of dropped tables could not be given back yet");
        }
    }

    /// Drops the old values that nobody needs any more.
    fn purge_history(&self) {
        let tables = self.catalog.all();
        tables.iter().for_each(|table| table.history.purge(self));
        let held = tables.iter().map(|table| table.history.bytes()).sum();
        self.versions.held_bytes.store(held, Ordering::Relaxed);
    }

    /// Frees the trees of dropped tables. The catalog's mutex is not held meanwhile: that may take long.
    fn empty_tombstones(&self) -> Result<()> {
        let full: Vec<Tombstone> = (self.catalog.change().tombstones.iter())
            .filter(|t| !t.emptied && t.is_abandoned())
            .cloned()
            .collect();
        for tombstone in full {
            let tree = tombstone.tree();
            if self.owns_root(&tree)? {
                self.checkpoints.note_unlogged();
                let mut reserve = self.page_room(OPERATION_PAGES, true)?;
                tree.free_all(&self.pool, &mut reserve, &mut || !self.checkpoints.stopping())
                    .map_err(|e| self.pool_error(e))?;
                if self.owns_root(&tree)? {
                    continue;
                }
            }
            for t in self.catalog.change().tombstones.iter_mut().filter(|t| t.id == tombstone.id) {
                t.emptied = true;
            }
        }
        Ok(())
    }

    /// The page that a tombstone names as root is still the table's.
    pub(crate) fn owns_root(&self, tree: &Tree) -> Result<bool> {
        loop {
            if !self.pool.is_live(tree.root) {
                return Ok(false);
            }
            match self.pool.fault(tree.root, bedstone_bufpool::Access::Point) {
                Err(bedstone_bufpool::PoolError::Free(_)) => return Ok(false),
                other => other.map_err(|e| self.pool_error(e))?,
            }
            let guard = self.pool.guard();
            let word = guard.word(tree.root);
            match word.state() {
                bedstone_bufpool::PageState::Inner => {
                    if let Some(page) = guard.inner(word) {
                        return Ok(PageHeader::read(page).table == tree.table);
                    }
                }
                // A root is always an inner node.
                bedstone_bufpool::PageState::Pinnable | bedstone_bufpool::PageState::Free => {
                    return Ok(false);
                }
                bedstone_bufpool::PageState::Absent => {}
            }
        }
    }

    fn remove_tombstones(&self) -> Result<()> {
        let mut changes = self.catalog.change();
        let durable = self.checkpoints.replay_lsn();
        let gone = |t: &Tombstone| t.emptied && t.is_past(durable);
        if !changes.tombstones.iter().any(gone) {
            return Ok(());
        }
        if changes.recorded_next_id != changes.next_id {
            let next_id = changes.next_id.to_le_bytes();
            self.change_catalog_unlogged(catalog::CATALOG_TABLE, Some(&next_id), Vec::new())?;
            changes.recorded_next_id = changes.next_id;
        }
        while let Some(i) = changes.tombstones.iter().position(gone) {
            self.change_catalog_unlogged(changes.tombstones[i].id, None, Vec::new())?;
            changes.tombstones.swap_remove(i);
        }
        Ok(())
    }
}
