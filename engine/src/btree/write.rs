//! Changing one key.

use super::descend::{Obstacle, Retry, Step, Target};
use super::node::{CellValue, Change, Fit, Leaf, LeafMut, OverflowRef};
use super::overflow::{PreparedOverflow, page_ids};
use super::split::Split;
use super::{OPERATION_PAGES, Result, Tree};
use bedstone_bufpool::{
    Access, Announcement, LeafLatch, NewPage, PageId, PageMut, Pool, Reserve, Ticket, raise_max_lsn,
};
use std::cell::RefCell;

/// What the caller's stamp answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stamp {
    /// The change has its place in the log.
    Lsn(u64),
    /// The log has no room now: nothing is changed, everything is released.
    Busy,
}

/// A change of one key.
pub(crate) enum Write<'a, 'p> {
    /// Sets the value, whether the key exists or not.
    Put(NewValue<'a, 'p>),
    /// Removes the key.
    Delete,
}

/// A value to be stored.
pub(crate) enum NewValue<'a, 'p> {
    /// Stored in the leaf; key and value together are within the limits of [`super::limits`].
    Inline(&'a [u8]),
    /// Stored in pages built beforehand.
    Overflow(PreparedOverflow<'p>),
}

impl NewValue<'_, '_> {
    pub(super) fn cell(&self) -> CellValue<'_> {
        match self {
            Self::Inline(bytes) => CellValue::Inline(bytes),
            Self::Overflow(prepared) => CellValue::Overflow(prepared.reference()),
        }
    }
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is in the tree.
    Applied {
        /// The LSN that the stamp gave.
        lsn: u64,
        /// The key existed before.
        existed: bool,
    },
    /// The stamp said busy; nothing was changed, and the call can be repeated with the same arguments.
    Busy,
    /// A delete of a key that is not there: nothing was changed or stamped.
    NotFound,
}

/// The value about to be replaced lies in overflow pages: which ones. Their ids are read with nothing
/// latched.
pub(super) struct OldOverflow<'p> {
    reference: OverflowRef,
    pages: Vec<PageId>,
    /// Keeps the ids from being used again, so that an equal reference means the same value.
    _ticket: Ticket<'p>,
}

/// A change on its way, with everything that is published together with it.
pub(super) struct Pending<'x, 'a, 'p> {
    pub(super) key: &'x [u8],
    pub(super) write: &'x mut Write<'a, 'p>,
    pub(super) stamp: &'x mut dyn FnMut() -> Stamp,
    pub(super) attach: &'x mut Vec<NewPage<'p>>,
    pub(super) old: Option<OldOverflow<'p>>,
}

/// What a look at the latched leaf says about a pending change.
pub(super) enum Prospect {
    /// It can be made in the leaf: at this index, replacing or not.
    Fits(std::result::Result<usize, usize>),
    /// The leaf must be split.
    Full(std::result::Result<usize, usize>),
    /// The overflow pages of this value must be known first.
    Replaces(OverflowRef),
    /// A delete of what is not there.
    NotFound,
    /// The leaf is not responsible for the key at all.
    Misplaced,
}

impl<'p> Pending<'_, '_, 'p> {
    /// What the change needs in `leaf`, which was reached for its key and is latched.
    pub(super) fn prospect(&mut self, leaf: Leaf<'_>) -> Prospect {
        let found = leaf.search(self.key);
        // As in a get: the fences are looked at only when the key is not there.
        if found.is_err() && !leaf.covers(self.key) {
            return Prospect::Misplaced;
        }
        match found.map(|at| leaf.value(at)) {
            Ok(CellValue::Overflow(value)) => {
                if self.old.as_ref().is_none_or(|old| old.reference != value) {
                    return Prospect::Replaces(value);
                }
            }
            _ => self.old = None,
        }
        match (&*self.write, found) {
            (Write::Delete, Err(_)) => Prospect::NotFound,
            (Write::Delete, Ok(_)) => Prospect::Fits(found),
            (Write::Put(value), _) => match fit(leaf, self.key, found, &value.cell()) {
                Fit::No => Prospect::Full(found),
                Fit::InPlace | Fit::AfterCompaction => Prospect::Fits(found),
            },
        }
    }

    /// Finds out which pages the value about to be replaced has. The latch of its leaf is still held by the
    /// caller when it takes the ticket, so the pages are not freed before that; it is released before this
    /// reads them.
    pub(super) fn learn_old(
        &mut self,
        pool: &'p Pool,
        table: u32,
        reference: OverflowRef,
        ticket: Ticket<'p>,
    ) -> Result<()> {
        let pages = page_ids(pool, table, reference)?;
        self.old = Some(OldOverflow { reference, pages, _ticket: ticket });
        Ok(())
    }

    /// Publishes the pages that the change brings with it, before the leaf refers to them.
    pub(super) fn publish(&mut self, operation: &Announcement<'_>) {
        for page in self.attach.drain(..) {
            page.publish(operation);
        }
        if let Write::Put(NewValue::Overflow(prepared)) = self.write {
            prepared.publish(operation);
        }
    }

    /// Frees the pages of the replaced value, once the leaf no longer refers to them.
    pub(super) fn free_old(&mut self, pool: &Pool, operation: &Announcement<'_>) {
        for page in self.old.take().into_iter().flat_map(|old| old.pages) {
            pool.free_page(page, operation);
        }
    }
}

/// Whether a value finds room, `found` being where its key is or belongs.
pub(super) fn fit(
    leaf: Leaf<'_>,
    key: &[u8],
    found: std::result::Result<usize, usize>,
    value: &CellValue<'_>,
) -> Fit {
    match found {
        Ok(at) => leaf.fits_update(at, value),
        Err(_) => leaf.fits(key.len(), value),
    }
}

/// Where a change of a key belongs, for [`LeafMut::apply`] and [`super::node::SplitPlan`].
pub(super) fn change<'k>(
    key: &'k [u8],
    found: std::result::Result<usize, usize>,
    value: CellValue<'k>,
) -> Change<'k> {
    match found {
        Ok(at) => Change::Update { at, value },
        Err(at) => Change::Insert { at, key, value },
    }
}

thread_local! {
    /// Working space for the compaction of leaves: one page.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Gives `f` working space for compactions.
pub(super) fn with_scratch<R>(f: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    SCRATCH.with(|scratch| f(&mut scratch.borrow_mut()))
}

/// Whether a node whose keys (without the fences, which no merge removes both of) take so many bytes is worth
/// merging with a neighbour.
pub(super) fn is_sparse(bytes: usize, capacity: usize) -> bool {
    bytes * 10 < capacity * 3
}

/// Whether a leaf is worth merging with a neighbour.
pub(super) fn leaf_is_sparse(leaf: Leaf<'_>) -> bool {
    let fences = leaf.lower().len() + leaf.upper().map_or(0, <[u8]>::len);
    leaf.count() == 0 || is_sparse(leaf.live_bytes() - fences, leaf.capacity())
}

/// Sets frames aside for the next page operation. Nothing may be held.
pub(super) fn provide(reserve: &mut Reserve<'_>, pages: usize) -> Result<()> {
    if reserve.len() < pages { reserve.refill(pages) } else { Ok(()) }
}

/// What came of the attempt to latch the leaf of a key.
pub(super) enum Reached<'p> {
    Leaf(LeafLatch<'p>),
    Obstacle(Obstacle),
}

impl Tree {
    /// Makes one change. `stamp` is called at most once per call, under the leaf's latch and announced to the
    /// checkpoint, when nothing can fail any more; it must not wait. `attach` are new pages to be published
    /// together with the change; like the pages of a prepared value they are taken only when the change is
    /// applied. The reserve is refilled as needed, while nothing is held.
    ///
    /// # Errors
    /// Those of reading pages and of [`Reserve::refill`]; nothing is changed or stamped then.
    /// [`bedstone_bufpool::PoolError::Free`] when the tree was dropped.
    pub(crate) fn write<'p>(
        &self,
        pool: &'p Pool,
        reserve: &mut Reserve<'p>,
        key: &[u8],
        write: &mut Write<'_, 'p>,
        stamp: &mut dyn FnMut() -> Stamp,
        attach: &mut Vec<NewPage<'p>>,
    ) -> Result<Outcome> {
        let mut pending = Pending { key, write, stamp, attach, old: None };
        let mut retry = Retry::default();
        loop {
            provide(reserve, OPERATION_PAGES)?;
            let latch = match self.latch_for(pool, key, &retry)? {
                Reached::Leaf(latch) => latch,
                Reached::Obstacle(obstacle) => {
                    retry.after(pool, obstacle, Access::Point)?;
                    continue;
                }
            };
            let leaf = Leaf::new(latch.page());
            match pending.prospect(leaf) {
                Prospect::Misplaced => return Err(self.not_covered(latch.page_id(), key)),
                Prospect::NotFound => return Ok(Outcome::NotFound),
                Prospect::Replaces(reference) => {
                    let ticket = pool.ticket();
                    drop(latch);
                    pending.learn_old(pool, self.table, reference, ticket)?;
                }
                Prospect::Full(_) => {
                    drop(latch);
                    match self.split_leaf(pool, reserve, &mut pending)? {
                        Split::Applied { lsn, existed } => return Ok(Outcome::Applied { lsn, existed }),
                        Split::Busy => return Ok(Outcome::Busy),
                        Split::Again => retry.again(pool)?,
                    }
                }
                Prospect::Fits(found) => {
                    let deletes = matches!(pending.write, Write::Delete);
                    let was_sparse = deletes && leaf_is_sparse(leaf);
                    let operation = pool.announce();
                    let Stamp::Lsn(lsn) = (pending.stamp)() else { return Ok(Outcome::Busy) };
                    pending.publish(&operation);
                    let mut page = latch.modify(&operation, reserve);
                    apply_in_place(&mut page, key, found, pending.write);
                    raise_max_lsn(&mut page, lsn);
                    let leaf = Leaf::new(&page);
                    let (sparse, count) = (deletes && leaf_is_sparse(leaf), leaf.count());
                    page.finish();
                    pending.free_old(pool, &operation);
                    drop(operation);
                    // Looked into when the leaf becomes sparse, and then now and again: its neighbours may be
                    // full now and sparse later.
                    if sparse && (!was_sparse || count % 16 == 0) {
                        self.merge_around(pool, reserve, key);
                    }
                    return Ok(Outcome::Applied { lsn, existed: found.is_ok() });
                }
            }
        }
    }

    /// Latches the leaf responsible for `key`.
    pub(super) fn latch_for<'p>(&self, pool: &'p Pool, key: &[u8], retry: &Retry) -> Result<Reached<'p>> {
        let guard = pool.guard();
        match self.descend(&guard, Target::Key(key), 0)? {
            Step::At(place) => {
                if let Some(latch) = guard.latch(place.page, place.word)
                    && place.parent_unchanged(&guard)
                {
                    self.leaf(latch.page_id(), latch.page())?;
                    return Ok(Reached::Leaf(latch));
                }
                Ok(Reached::Obstacle(Obstacle::Busy))
            }
            step => Ok(Reached::Obstacle(retry.obstacle(&guard, &step)?)),
        }
    }
}

/// Makes a change that fits.
pub(super) fn apply_in_place(
    page: &mut PageMut<'_>,
    key: &[u8],
    found: std::result::Result<usize, usize>,
    write: &Write<'_, '_>,
) {
    let mut leaf = LeafMut::new(page);
    match (write, found) {
        (Write::Put(value), _) => {
            with_scratch(|scratch| leaf.apply(&change(key, found, value.cell()), scratch))
        }
        (Write::Delete, Ok(at)) => leaf.remove(at),
        (Write::Delete, Err(_)) => {}
    }
}
