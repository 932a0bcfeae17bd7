//! Checking a whole database: every page, every chain, every unit of space.
//!
//! Three things are compared. *The trees*: every one is walked, from the catalog's to those of dropped tables
//! that are not yet given back; order, fences, levels and the chains of long values must agree, and no page
//! may be met twice. *The pages in use*: each must have been met, or it is lost to everybody. *The medium*:
//! every image that the last checkpoint refers to is read past the pool and its checksum, number and the page
//! map's own 16 bits of it compared, and every unit of the file must belong to exactly one thing.
//!
//! Writers, checkpoints and builders of long values are held off meanwhile; readers are not.

use std::collections::HashMap;

use bedstone_bufpool::PageId;
use bedstone_bufpool::page_file::PageFile;

use crate::btree::Tree;
use crate::catalog::{CATALOG, Record};
use crate::create;
use crate::error::{Error, Result};
use crate::recovery::{CatalogEntry, read_catalog};
use crate::shared::Shared;
use crate::stats::TableStats;

/// Something found wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The table, if it is one's.
    pub table: Option<String>,
    /// The page, if it is one.
    pub page: Option<u32>,
    /// What is wrong.
    pub what: String,
}

/// What the check found in one table.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TableCheck {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: u32,
    /// Its shape.
    pub stats: TableStats,
}

/// What the check found.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct CheckReport {
    /// Everything wrong; empty when all is well.
    pub problems: Vec<Problem>,
    /// Every table that could be walked.
    pub tables: Vec<TableCheck>,
    /// Pages in use.
    pub pages: u64,
    /// Bytes of the data file.
    pub file_bytes: u64,
    /// Bytes of it that nothing uses.
    pub free_bytes: u64,
}

impl CheckReport {
    /// Nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }
}

impl Shared {
    /// Checks everything; an error only where checking itself is impossible.
    pub(crate) fn check(&self) -> Result<CheckReport> {
        self.readable()?;
        self.refuse_inside("check")?;
        let _no_checkpoint = self.checkpoints.hold();
        let _no_builder = self.gate.close();
        let _no_upkeep = self.catalog.upkeep.lock();
        let changes = self.catalog.change();
        let _no_writer = self.stripes.lock_all();
        // Temporary trees are written to without stripes. Who holds one of these locks waits for nothing that is
        // held here.
        let _no_temporary: Vec<_> = changes
            .tombstones
            .iter()
            .filter_map(|t| t.temporary.as_ref())
            .map(|mark| mark.keep_out())
            .collect();
        let mut check =
            Check { shared: self, report: CheckReport::default(), seen: HashMap::new(), complete: true };
        let tombstones: Vec<(Tree, &'static str)> = (changes.tombstones.iter().filter(|t| !t.emptied))
            .map(|t| {
                (t.tree(), if t.temporary.is_some() { "(a temporary tree)" } else { "(a dropped table)" })
            })
            .collect();
        check.trees(&tombstones)?;
        check.pages_in_use();
        check.medium()?;
        Ok(check.report)
    }
}

struct Check<'a> {
    shared: &'a Shared,
    report: CheckReport,
    /// Every page met, and the table in whose tree.
    seen: HashMap<PageId, u32>,
    /// Every tree was walked to its end.
    complete: bool,
}

impl Check<'_> {
    fn problem(&mut self, table: Option<&str>, page: Option<PageId>, what: String) {
        self.report.problems.push(Problem { table: table.map(str::to_owned), page: page.map(|p| p.0), what });
    }

    /// Walks the catalog and every tree it names.
    fn trees(&mut self, tombstones: &[(Tree, &str)]) -> Result<()> {
        self.tree(CATALOG, "(catalog)");
        let entries = match read_catalog(&self.shared.pool) {
            Ok(entries) => entries,
            Err(e) if e.is_corruption() => {
                self.complete = false;
                self.problem(None, Some(PageId::CATALOG_ROOT), e.to_string());
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        let known: HashMap<u32, String> =
            self.shared.catalog.all().iter().map(|t| (t.id, t.name.read().clone())).collect();
        let mut live = 0;
        for (id, entry) in entries {
            let CatalogEntry::Table(Record::Live { root, name }) = entry else { continue };
            live += 1;
            if known.get(&id) != Some(&name) {
                let what = format!("the catalog's table {id} {name:?} is in memory as {:?}", known.get(&id));
                self.problem(Some(&name), None, what);
            }
            if let Some(stats) = self.tree(Tree { root, table: id }, &name) {
                self.report.tables.push(TableCheck { name, id, stats });
            }
        }
        if live != known.len() {
            let what = format!("{} tables are in memory, {live} in the catalog", known.len());
            self.problem(None, None, what);
        }
        for (tree, name) in tombstones {
            if self.shared.owns_root(tree)? {
                self.tree(*tree, name);
            }
        }
        self.report.tables.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(())
    }

    /// Walks one tree and measures it.
    fn tree(&mut self, tree: Tree, name: &str) -> Option<TableStats> {
        let pool = &self.shared.pool;
        let (seen, mut doubly) = (&mut self.seen, Vec::new());
        let walked = tree.walk(pool, &mut |visit| {
            if let Some(other) = seen.insert(visit.page, tree.table) {
                doubly.push((visit.page, other));
            }
            Ok(())
        });
        for (page, other) in doubly {
            let what = format!("met twice: in table {other} and in table {}", tree.table);
            self.problem(Some(name), Some(page), what);
        }
        match walked.and_then(|()| tree.stats(pool)) {
            Ok(stats) => Some(stats.into()),
            Err(e) => {
                self.complete = false;
                let e = Error::from(e);
                self.problem(Some(name), e.page().map(PageId), e.to_string());
                None
            }
        }
    }

    /// Every page in use belongs to a tree.
    fn pages_in_use(&mut self) {
        let live = self.shared.pool.live_pages();
        self.report.pages = live.len() as u64;
        if !self.complete {
            self.problem(
                None,
                None,
                "pages that belong to nobody cannot be told, since a tree could not be walked".into(),
            );
            return;
        }
        let lost: Vec<PageId> = live.into_iter().filter(|page| !self.seen.contains_key(page)).collect();
        for page in lost {
            self.problem(None, Some(page), "in use, but part of no tree (leaked)".into());
        }
    }

    /// The images of the last checkpoint, and the space of the file.
    fn medium(&mut self) -> Result<()> {
        let space = self.shared.pool.check_space();
        self.report.file_bytes = space.file_units * bedstone_bufpool::UNIT as u64;
        self.report.free_bytes = space.free_units * bedstone_bufpool::UNIT as u64;
        for what in space.problems {
            self.problem(None, None, what);
        }
        let file = PageFile::open_read_only(&*self.shared.disk, &create::data_path(&self.shared.path))?;
        for (offset, fault) in file.superblock_faults() {
            self.problem(None, None, format!("superblock at offset {offset}: {fault}"));
        }
        let problems: Vec<String> = file.map_problems().iter().map(ToString::to_string).collect();
        for what in problems {
            self.problem(None, None, what);
        }
        let pages: Vec<PageId> = file.entries().map(|(page, _)| page).collect();
        for page in pages {
            if let Err(e) = file.read_page(page) {
                self.problem(None, Some(page), e.to_string());
            }
        }
        Ok(())
    }
}
