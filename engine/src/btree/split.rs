//! Making room: splitting leaves and inner nodes, growing the root. The orders of publication and why they
//! are right stand in the module documentation of `btree`.
//!
//! A leaf is split together with the change that did not fit, as one page operation. Its parent must have
//! room for one more separator; if it has not, everything is released, the parent is split first (and before
//! it, if need be, its own parent), each as a page operation of its own, and the leaf is tried again. So no
//! operation ever needs more than three frames.

use super::chaos::{point, separators_max};
use super::descend::{Obstacle, Retry, Step, Target};
use super::node::{Inner, InnerChange, InnerPlan, InnerSplit, Leaf, SplitPlan, build_root_with_two};
use super::write::{Pending, Prospect, Stamp, Write, change, provide};
use super::{OPERATION_PAGES, Result, Tree, inconsistent};
use bedstone_bufpool::{
    Access, Guard, InnerLock, LeafLatch, NewPage, PageKind, Pool, Reserve, raise_max_lsn,
};

/// What became of a split with a pending change.
pub(super) enum Split {
    /// The leaf was split and the change made.
    Applied { lsn: u64, existed: bool },
    /// The stamp said busy; nothing was changed.
    Busy,
    /// Look at the leaf again: it may have room now, or something was in the way.
    Again,
}

/// A leaf latched below its locked parent.
struct Pair<'p> {
    lock: InnerLock<'p>,
    latch: LeafLatch<'p>,
    slot: usize,
}

impl Tree {
    /// Splits the leaf responsible for the pending change's key and makes the change in the same operation.
    pub(super) fn split_leaf<'p>(
        &self,
        pool: &'p Pool,
        reserve: &mut Reserve<'p>,
        pending: &mut Pending<'_, '_, 'p>,
    ) -> Result<Split> {
        provide(reserve, OPERATION_PAGES)?;
        let pair = {
            let guard = pool.guard();
            match self.lock_pair(&guard, pending.key)? {
                Ok(pair) => pair,
                Err(Obstacle::Busy) => return Ok(Split::Again),
                Err(Obstacle::Absent(page)) => {
                    drop(guard);
                    super::descend::bring(pool, page, Access::Point)?;
                    return Ok(Split::Again);
                }
            }
        };
        let Pair { lock, latch, slot } = pair;
        let leaf = Leaf::new(latch.page());
        // The leaf was released since it was found full, so everything is looked at again.
        let found = match pending.prospect(leaf) {
            Prospect::Full(found) => found,
            Prospect::Misplaced => return Err(self.not_covered(latch.page_id(), pending.key)),
            _ => return Ok(Split::Again),
        };
        let parent = Inner::new(lock.page());
        let mut right = pool.new_page(reserve, PageKind::Leaf, 0, self.table);
        let mut left = latch.new_version(reserve);
        let mut above = lock.new_version(reserve, parent.level());
        let key_goes_left = {
            let Write::Put(value) = &*pending.write else { return Ok(Split::Again) };
            let plan = SplitPlan::of(leaf, change(pending.key, found, value.cell()));
            let grown = InnerPlan::new(
                parent,
                InnerChange::Split { child: slot, separator: plan.separator(), right: right.page_id() },
            );
            if !grown.fits() || parent.count() >= separators_max(self.table) {
                let wanted = plan.separator().len();
                drop((left, right, above, latch, lock));
                self.split_inner(pool, reserve, pending.key, 1, wanted)?;
                return Ok(Split::Again);
            }
            plan.build_left(&mut left);
            plan.build_right(&mut right);
            grown.build(&mut above);
            pending.key < plan.separator()
        };
        inherit(&mut right, latch.page());
        let operation = pool.announce();
        let Stamp::Lsn(lsn) = (pending.stamp)() else { return Ok(Split::Busy) };
        pending.publish(&operation);
        raise_max_lsn(if key_goes_left { &mut left } else { &mut right }, lsn);
        right.publish(&operation);
        point();
        lock.replace(above, &operation);
        point();
        let latch = latch.replace(left, &operation);
        point();
        pending.free_old(pool, &operation);
        drop(latch);
        Ok(Split::Applied { lsn, existed: found.is_ok() })
    }

    /// Locks the parent of the leaf responsible for `key` and latches the leaf.
    fn lock_pair<'p>(
        &self,
        guard: &Guard<'p>,
        key: &[u8],
    ) -> Result<std::result::Result<Pair<'p>, Obstacle>> {
        let place = match self.descend(guard, Target::Key(key), 0)? {
            Step::At(place) => place,
            Step::Absent(page) => return Ok(Err(Obstacle::Absent(page))),
            Step::Free(_) | Step::Again => return Ok(Err(Obstacle::Busy)),
        };
        let Some(lock) = guard.lock_inner(place.parent, place.parent_word) else {
            return Ok(Err(Obstacle::Busy));
        };
        // Under the lock the leaf stays this child of this parent; only its frame may have changed since the
        // descent.
        let word = guard.word(place.page);
        let Some(latch) = guard.latch(place.page, word) else {
            let absent = word.state() == bedstone_bufpool::PageState::Absent;
            return Ok(Err(if absent { Obstacle::Absent(place.page) } else { Obstacle::Busy }));
        };
        self.leaf(latch.page_id(), latch.page())?;
        Ok(Ok(Pair { lock, latch, slot: place.slot }))
    }

    /// Splits the inner node at `level` on the way to `key`, or grows the root if that is the node; unless it
    /// has room for a further separator of `wanted` bytes by now.
    pub(super) fn split_inner<'p>(
        &self,
        pool: &'p Pool,
        reserve: &mut Reserve<'p>,
        key: &[u8],
        level: u8,
        wanted: usize,
    ) -> Result<()> {
        let mut retry = Retry::default();
        loop {
            provide(reserve, OPERATION_PAGES)?;
            let locked = {
                let guard = pool.guard();
                self.lock_nodes(&guard, key, level, &retry)?
            };
            let obstacle = match locked {
                Locked::Root(root) if self.has_room(&root, wanted) => return Ok(()),
                Locked::Root(root) => return self.grow_root(pool, reserve, root),
                Locked::Pair { node, .. } if self.has_room(&node, wanted) => return Ok(()),
                Locked::Pair { above, node, slot } => {
                    match self.try_split_inner(pool, reserve, above, node, slot)? {
                        None => return Ok(()),
                        Some(wanted) => self.split_inner(pool, reserve, key, level + 1, wanted)?,
                    }
                    continue;
                }
                Locked::Obstacle(obstacle) => obstacle,
            };
            retry.after(pool, obstacle, Access::Point)?;
        }
    }

    /// Locks the node at `level` on the way to `key` and its parent; only the node if it is the root.
    fn lock_nodes<'p>(&self, guard: &Guard<'p>, key: &[u8], level: u8, retry: &Retry) -> Result<Locked<'p>> {
        const BUSY: Locked<'static> = Locked::Obstacle(Obstacle::Busy);
        let word = guard.word(self.root);
        if let Some(page) = guard.inner(word)
            && Inner::new(page).level() == level
        {
            return Ok(guard.lock_inner(self.root, word).map_or(BUSY, Locked::Root));
        }
        let place = match self.descend(guard, Target::Key(key), level)? {
            Step::At(place) => place,
            step => return Ok(Locked::Obstacle(retry.obstacle(guard, &step)?)),
        };
        let Some(above) = guard.lock_inner(place.parent, place.parent_word) else { return Ok(BUSY) };
        let Some(node) = guard.lock_inner(place.page, place.word) else { return Ok(BUSY) };
        Ok(Locked::Pair { above, node, slot: place.slot })
    }

    /// Whether a node takes another separator of `wanted` bytes. It then always does so when it has at most
    /// one: that is what the limit of keys is for.
    fn has_room(&self, node: &InnerLock<'_>, wanted: usize) -> bool {
        let node = Inner::new(node.page());
        let added = SEPARATOR_BYTES + wanted.saturating_sub(node.prefix_len());
        node.count() < 2
            || node.count() < separators_max(self.table) && node.live_bytes() + added <= node.capacity()
    }

    /// Splits a locked inner node. If its parent has no room, nothing is changed, and the length of the
    /// separator that it should have taken is returned.
    fn try_split_inner<'p>(
        &self,
        pool: &'p Pool,
        reserve: &mut Reserve<'p>,
        above: InnerLock<'p>,
        node: InnerLock<'p>,
        slot: usize,
    ) -> Result<Option<usize>> {
        let old = Inner::new(node.page());
        let parent = Inner::new(above.page());
        let mut right = pool.new_page(reserve, PageKind::Inner, old.level(), self.table);
        let mut left = node.new_version(reserve, old.level());
        let mut grown = above.new_version(reserve, parent.level());
        {
            let split = InnerSplit::of(InnerPlan::new(old, InnerChange::None));
            let plan = InnerPlan::new(
                parent,
                InnerChange::Split { child: slot, separator: split.separator(), right: right.page_id() },
            );
            if !plan.fits() || parent.count() >= separators_max(self.table) {
                return Ok(Some(split.separator().len()));
            }
            split.build_left(&mut left);
            split.build_right(&mut right);
            plan.build(&mut grown);
        }
        let operation = pool.announce();
        right.publish(&operation);
        point();
        node.replace(left, &operation);
        point();
        above.replace(grown, &operation);
        Ok(None)
    }

    /// Makes the root one level higher: its content goes to two new nodes below it.
    fn grow_root<'p>(&self, pool: &'p Pool, reserve: &mut Reserve<'p>, root: InnerLock<'p>) -> Result<()> {
        let old = Inner::new(root.page());
        let Some(level) = old.level().checked_add(1) else {
            return Err(inconsistent(self.root, "root", "the tree has 255 levels".into()));
        };
        let mut left = pool.new_page(reserve, PageKind::Inner, old.level(), self.table);
        let mut right = pool.new_page(reserve, PageKind::Inner, old.level(), self.table);
        let mut grown = root.new_version(reserve, level);
        {
            let split = InnerSplit::of(InnerPlan::new(old, InnerChange::None));
            split.build_left(&mut left);
            split.build_right(&mut right);
            build_root_with_two(&mut grown, left.page_id(), split.separator(), right.page_id());
        }
        let operation = pool.announce();
        left.publish(&operation);
        right.publish(&operation);
        point();
        root.replace(grown, &operation);
        Ok(())
    }
}

/// What a separator takes in an inner node beside its bytes: head, place, and a page id.
const SEPARATOR_BYTES: usize = 12;

/// What [`Tree::lock_nodes`] got.
enum Locked<'p> {
    Root(InnerLock<'p>),
    Pair { above: InnerLock<'p>, node: InnerLock<'p>, slot: usize },
    Obstacle(Obstacle),
}

/// The new page takes over what the envelope of the page it was split from says of its keys: the highest LSN,
/// and the newest undo record.
pub(super) fn inherit(new: &mut NewPage<'_>, old: &[u8]) {
    new[MAX_LSN_AND_HISTORY].copy_from_slice(&old[MAX_LSN_AND_HISTORY]);
}

/// Where these two fields lie in the envelope.
const MAX_LSN_AND_HISTORY: std::ops::Range<usize> = 16..32;
