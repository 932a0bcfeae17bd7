//! Trees for private use: the writes of a transaction that do not fit into memory, the history of old values.
//!
//! A temporary tree is a B+-tree of the pool like a table's, but no log record tells of it and no name leads to
//! it. After a crash it is worthless, so from its birth on the catalog has it as the *tombstone* of a dropped
//! table: the next opening gives its pages back as it does with those. While it is used, a mark in memory that
//! its tombstone shares keeps [`Shared::upkeep`] away from it; once the mark is cleared, upkeep frees the pages
//! and removes the tombstone in this run already.
//!
//! # Birth and crashes
//!
//! Tombstone, root and first leaf are published under one announcement, so a checkpoint has all three or none,
//! and whatever the tree grows by later is an operation of its own on a tree that the image knows. There is no
//! instant in which pages could be in an image and belong to nobody.
//!
//! # Numbers without records
//!
//! The number of the tree comes from the same row as those of tables, but nothing in the log says that it was
//! given. *Within a run* no number is given twice. *After a crash* there are two cases. If the image has the
//! tombstone, or had it and recorded a higher next number before it removed it, the next run begins above it. If
//! the image never had it, the number may be given again, to a table with a log record or to another temporary
//! tree, and that is sound, because nothing durable has ever carried it: no log record names a temporary tree,
//! and an image without the tombstone has none of its pages. So when replay makes a table of that number, every
//! record with the number is about this table; and when upkeep compares the number in a root's envelope with a
//! tombstone's, a page with the number can only be the root that this tombstone means. For the same reason the
//! tombstone of a temporary tree of this run may go as soon as its pages are back: replay never asks for it.
//!
//! # Who is kept out
//!
//! Writing into a temporary tree takes no stripe, so the two who must know that nobody writes have their own
//! ways. *The check* locks each tree's mark, after all stripes. *Closing* waits for the apply slots: whoever
//! writes owns one and looks at the database's state after having claimed it. Before the lock of a mark a writer
//! has claimed its slot, entered the build gate and locked its stripes, if it needs any of them; with it held it
//! waits for pages and frames only.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{RwLock, RwLockWriteGuard};

use crate::btree::{OPERATION_PAGES, Op, Tree};
use crate::catalog::{self, Record, TABLE_MAX, Tombstone};
use crate::error::{Error, Result};
use crate::options::Background;
use crate::shared::Shared;
use crate::txn::ddl::TREE_PAGES;
use crate::txn::slots::ApplySlot;

/// What a temporary tree and its tombstone share.
#[derive(Debug)]
pub(crate) struct TempMark {
    in_use: AtomicBool,
    /// Held for reading by whoever writes into the tree.
    writers: RwLock<()>,
}

impl TempMark {
    /// The tree's owner has not let go of it.
    pub(crate) fn is_in_use(&self) -> bool {
        self.in_use.load(Ordering::Acquire)
    }

    /// Keeps writers out of the tree.
    pub(crate) fn keep_out(&self) -> RwLockWriteGuard<'_, ()> {
        self.writers.write()
    }
}

/// A temporary tree. It holds on to nothing of the database, so it may lie in structures that the database
/// itself has. [`Shared::drop_temp`] gives it back at once; merely dropped, it is given back with the next
/// upkeep; forgotten, at the next opening.
#[derive(Debug)]
pub(crate) struct TempTree {
    tree: Tree,
    mark: Arc<TempMark>,
}

impl TempTree {
    /// The tree, for reading. Whoever writes through it must own an apply slot *and* hold a stripe, as a commit
    /// does; [`TempTree::apply_owning`] is for everybody else.
    pub(crate) fn tree(&self) -> Tree {
        self.tree
    }

    /// Makes changes whose keys strictly ascend; their LSNs should be 0. An error leaves the first ones made and
    /// the others not. The caller owns the apply slot and may hold stripes, but not the catalog's mutex.
    ///
    /// # Errors
    /// The database is closed or read-only, a page could not be read, or the disk is full.
    pub(crate) fn apply_owning<'p>(
        &self,
        shared: &'p Shared,
        ops: &mut [Op<'_, 'p>],
        _slot: &ApplySlot<'_>,
        urgent: bool,
    ) -> Result<()> {
        shared.writable()?;
        let mut reserve = shared.page_room(OPERATION_PAGES, urgent)?;
        let _writing = self.mark.writers.read();
        self.tree.apply_sorted(&shared.pool, &mut reserve, ops).map_err(|e| shared.pool_error(e))
    }
}

impl Drop for TempTree {
    fn drop(&mut self) {
        self.mark.in_use.store(false, Ordering::Release);
    }
}

impl Shared {
    /// Makes an empty temporary tree; `urgent` as in [`Shared::log_room`]. The catalog's mutex is taken, so no stripe may
    /// be held; an apply slot may, since the holder of the mutex has one of his own.
    ///
    /// # Errors
    /// The database is closed or read-only, a page could not be read, the disk is full, or every table number
    /// has been used.
    pub(crate) fn create_temp(&self, urgent: bool) -> Result<TempTree> {
        if self.background == Background::Manual {
            // Nobody else gives back what was dropped since the last step.
            self.upkeep();
        }
        let mut changes = self.catalog.change();
        let id = changes.next_id;
        if id > TABLE_MAX {
            return Err(Error::BadOption {
                option: "table",
                detail: "every table number has been used".into(),
            });
        }
        let mut reserve = self.page_room(TREE_PAGES, urgent)?;
        // After the mutex, as in every change of the catalog.
        let _slot = self.slots.claim_for_catalog();
        self.writable()?;
        let (tree, pages) = Tree::create(&self.pool, &mut reserve, id);
        let record = Record::Tombstone { root: tree.root, name: catalog::TEMPORARY.to_owned() };
        self.change_catalog_unlogged(id, Some(&record.encode()), pages.into())?;
        let mark = Arc::new(TempMark { in_use: AtomicBool::new(true), writers: RwLock::new(()) });
        changes.next_id = id + 1;
        changes.tombstones.push(Tombstone::temporary(id, tree.root, mark.clone()));
        Ok(TempTree { tree, mark })
    }

    /// Gives a temporary tree back. Nobody may read it any more. Anything may be held: the pages are freed in
    /// the background, or with the next step where there is no background.
    pub(crate) fn drop_temp(&self, tree: TempTree) {
        drop(tree);
        self.want_upkeep();
    }
}
