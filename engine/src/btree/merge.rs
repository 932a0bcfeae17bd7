//! Giving room back: merging sparse neighbours, shrinking the root. The orders of publication and why they
//! are right stand in the module documentation of `btree`.
//!
//! All of it is a courtesy: locks and latches are tried, and whatever is in the way, an error of a
//! neighbour's page included, only means that the pages stay as they are.

use super::chaos::{point, separators_max};
use super::descend::{Step, Target, bring};
use super::node::{
    Inner, InnerChange, InnerPlan, build_inner_merged, build_merged, inner_merge_fits, merge_fits,
    merged_bytes,
};
use super::write::{is_sparse, leaf_is_sparse, provide};
use super::{OPERATION_PAGES, Result, Tree};
use bedstone_bufpool::{
    Access, Guard, InnerLock, LeafLatch, PageId, PageState, Pool, Reserve, max_lsn, raise_max_lsn,
};

/// How often a merge is tried when somebody is in the way.
const TRIES: u32 = 3;

/// What an attempt to merge came to.
enum Attempt {
    /// Merged; the parent that lost a child is worth merging too.
    DoneParentSparse,
    Done,
    /// Nothing to merge with here, because the node is its parent's only child: that one should merge.
    OnlyChild,
    /// The two do not fit into one page, or are no longer sparse.
    NotWorthIt,
    /// Somebody was in the way.
    Busy,
    /// A page must be brought in first.
    Absent(PageId),
}

/// A merged page is to have some room left, or it would soon be split again; unless one of the two is of no
/// use at all.
fn leaves_room(live: usize, capacity: usize, one_is_empty: bool) -> bool {
    one_is_empty || live * 5 <= capacity * 4
}

/// Which neighbour of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Right,
    Left,
}

/// Two locked neighbours and their parent.
struct Neighbours<'p, T> {
    parent: InnerLock<'p>,
    left: T,
    right: T,
    /// Index of the left one among the parent's children.
    slot: usize,
}

impl Tree {
    /// Merges the leaf responsible for `key` with a neighbour if that is possible and worth it, and then the
    /// nodes above as far as that makes them sparse. Nothing may be held.
    pub(super) fn merge_around<'p>(&self, pool: &'p Pool, reserve: &mut Reserve<'p>, key: &[u8]) {
        let mut level = 0;
        // An error here concerns nobody: the change that led here has been made, and the pages stay as they
        // are.
        while let Ok(true) = self.merge_level(pool, reserve, key, level) {
            let Some(next) = level.checked_add(1) else { break };
            level = next;
        }
    }

    /// Tries to merge the node at `level` with its right neighbour, then with its left one; `true` if the
    /// level above should be looked at next.
    fn merge_level<'p>(
        &self,
        pool: &'p Pool,
        reserve: &mut Reserve<'p>,
        key: &[u8],
        level: u8,
    ) -> Result<bool> {
        let mut more = false;
        for side in [Side::Right, Side::Left] {
            for _ in 0..TRIES {
                provide(reserve, OPERATION_PAGES)?;
                let attempt = if level == 0 {
                    self.merge_leaf(pool, reserve, key, side)?
                } else {
                    self.merge_inner(pool, reserve, key, level, side)?
                };
                match attempt {
                    Attempt::OnlyChild => return Ok(true),
                    Attempt::DoneParentSparse => more = true,
                    Attempt::Done | Attempt::NotWorthIt => {}
                    Attempt::Busy => continue,
                    Attempt::Absent(page) => {
                        bring(pool, page, Access::Scan)?;
                        continue;
                    }
                }
                break;
            }
        }
        Ok(more)
    }

    fn merge_leaf<'p>(
        &self,
        pool: &'p Pool,
        reserve: &mut Reserve<'p>,
        key: &[u8],
        side: Side,
    ) -> Result<Attempt> {
        let locked = {
            let guard = pool.guard();
            let latch = |page: PageId| {
                let word = guard.word(page);
                match word.state() {
                    PageState::Absent => Err(Attempt::Absent(page)),
                    _ => guard.latch(page, word).ok_or(Attempt::Busy),
                }
            };
            self.lock_neighbours(&guard, key, 0, side, latch)?
        };
        let Neighbours { parent, left, right, slot } = match locked {
            Ok(locked) => locked,
            Err(attempt) => return Ok(attempt),
        };
        self.merge_two_leaves(pool, reserve, parent, left, right, slot)
    }

    fn merge_two_leaves<'p>(
        &self,
        pool: &'p Pool,
        reserve: &mut Reserve<'p>,
        parent: InnerLock<'p>,
        left: LeafLatch<'p>,
        right: LeafLatch<'p>,
        slot: usize,
    ) -> Result<Attempt> {
        let left_leaf = self.leaf(left.page_id(), left.page())?;
        let right_leaf = self.leaf(right.page_id(), right.page())?;
        if left_leaf.upper() != Some(right_leaf.lower()) {
            return Ok(Attempt::NotWorthIt);
        }
        let one_is_empty = left_leaf.count() == 0 || right_leaf.count() == 0;
        if !(leaf_is_sparse(left_leaf) || leaf_is_sparse(right_leaf))
            || !merge_fits(left_leaf, right_leaf)
            || !leaves_room(merged_bytes(left_leaf, right_leaf), left_leaf.capacity(), one_is_empty)
        {
            return Ok(Attempt::NotWorthIt);
        }
        let mut merged = left.new_version(reserve);
        build_merged(left_leaf, right_leaf, &mut merged);
        raise_max_lsn(&mut merged, max_lsn(right.page()));
        let old = Inner::new(parent.page());
        let mut above = parent.new_version(reserve, old.level());
        InnerPlan::new(old, InnerChange::Merge { child: slot }).build(&mut above);
        let parent_sparse = self.inner_is_sparse(Inner::new(&above));

        let operation = pool.announce();
        let latch = left.replace(merged, &operation);
        point();
        parent.replace(above, &operation);
        point();
        right.free(&operation);
        point();
        drop(latch);
        Ok(if parent_sparse { Attempt::DoneParentSparse } else { Attempt::Done })
    }

    /// Locks the parent of the node at `level` that is responsible for `key`, then that node and its
    /// neighbour on one `side`, left one first, each with `lock`.
    fn lock_neighbours<'p, T>(
        &self,
        guard: &Guard<'p>,
        key: &[u8],
        level: u8,
        side: Side,
        lock: impl Fn(PageId) -> std::result::Result<T, Attempt>,
    ) -> Result<std::result::Result<Neighbours<'p, T>, Attempt>> {
        let place = match self.descend(guard, Target::Key(key), level)? {
            Step::At(place) => place,
            Step::Absent(page) => return Ok(Err(Attempt::Absent(page))),
            Step::Free(_) | Step::Again => return Ok(Err(Attempt::Busy)),
        };
        let node = place.parent_node();
        if node.count() == 0 {
            return Ok(Err(Attempt::OnlyChild));
        }
        let slot = match side {
            Side::Right if place.slot == node.count() => return Ok(Err(Attempt::NotWorthIt)),
            Side::Right => place.slot,
            Side::Left if place.slot == 0 => return Ok(Err(Attempt::NotWorthIt)),
            Side::Left => place.slot - 1,
        };
        // Both must be in memory before anything is locked, so that nothing is held while one is brought in.
        for page in node.child_ids(slot..slot + 2) {
            if guard.word(page).state() == PageState::Absent {
                return Ok(Err(Attempt::Absent(page)));
            }
        }
        let Some(parent) = guard.lock_inner(place.parent, place.parent_word) else {
            return Ok(Err(Attempt::Busy));
        };
        let left = match lock(node.child(slot)) {
            Ok(left) => left,
            Err(attempt) => return Ok(Err(attempt)),
        };
        let right = match lock(node.child(slot + 1)) {
            Ok(right) => right,
            Err(attempt) => return Ok(Err(attempt)),
        };
        Ok(Ok(Neighbours { parent, left, right, slot }))
    }

    fn merge_inner<'p>(
        &self,
        pool: &'p Pool,
        reserve: &mut Reserve<'p>,
        key: &[u8],
        level: u8,
        side: Side,
    ) -> Result<Attempt> {
        let locked = {
            let guard = pool.guard();
            let word = guard.word(self.root);
            let Some(page) = guard.inner(word) else { return Ok(Attempt::Absent(self.root)) };
            if Inner::new(page).level() <= level {
                // This level is the root: all that can be done is to make it lower.
                drop(guard);
                return self.shrink_root(pool, reserve);
            }
            let lock = |page: PageId| {
                let word = guard.word(page);
                match word.state() {
                    PageState::Absent => Err(Attempt::Absent(page)),
                    _ => guard.lock_inner(page, word).ok_or(Attempt::Busy),
                }
            };
            self.lock_neighbours(&guard, key, level, side, lock)?
        };
        let Neighbours { parent, left, right, slot } = match locked {
            Ok(locked) => locked,
            Err(attempt) => return Ok(attempt),
        };
        let (left_node, right_node) = (Inner::new(left.page()), Inner::new(right.page()));
        if left_node.upper() != Some(right_node.lower()) || !inner_merge_fits(left_node, right_node) {
            return Ok(Attempt::NotWorthIt);
        }
        let mut merged = left.new_version(reserve, level);
        build_inner_merged(left_node, right_node, &mut merged);
        let one_is_sparse = self.inner_is_sparse(left_node) || self.inner_is_sparse(right_node);
        let one_is_empty = left_node.count() == 0 || right_node.count() == 0;
        let together = Inner::new(&merged);
        if !one_is_sparse
            || together.count() > separators_max(self.table)
            || !leaves_room(together.live_bytes(), together.capacity(), one_is_empty)
        {
            return Ok(Attempt::NotWorthIt);
        }
        let old = Inner::new(parent.page());
        let mut above = parent.new_version(reserve, old.level());
        InnerPlan::new(old, InnerChange::Merge { child: slot }).build(&mut above);
        let parent_sparse = self.inner_is_sparse(Inner::new(&above));

        let operation = pool.announce();
        right.free(&operation);
        point();
        left.replace(merged, &operation);
        point();
        parent.replace(above, &operation);
        Ok(if parent_sparse { Attempt::DoneParentSparse } else { Attempt::Done })
    }

    /// Lets the root take over the content of its only child, if it has just one and that is an inner node.
    /// Repeated as long as it works.
    fn shrink_root<'p>(&self, pool: &'p Pool, reserve: &mut Reserve<'p>) -> Result<Attempt> {
        loop {
            provide(reserve, OPERATION_PAGES)?;
            let (root, child) = {
                let guard = pool.guard();
                let word = guard.word(self.root);
                let Some(page) = guard.inner(word) else { return Ok(Attempt::Absent(self.root)) };
                let node = Inner::new(page);
                if node.count() > 0 || node.level() < 2 {
                    return Ok(Attempt::NotWorthIt);
                }
                let child = node.child(0);
                if guard.word(child).state() == PageState::Absent {
                    return Ok(Attempt::Absent(child));
                }
                let Some(root) = guard.lock_inner(self.root, word) else { return Ok(Attempt::Busy) };
                let Some(child) = guard.lock_inner(child, guard.word(child)) else {
                    return Ok(Attempt::Busy);
                };
                (root, child)
            };
            let content = Inner::new(child.page());
            let mut lower = root.new_version(reserve, content.level());
            InnerPlan::new(content, InnerChange::None).build(&mut lower);
            let operation = pool.announce();
            child.free(&operation);
            point();
            root.replace(lower, &operation);
        }
    }

    /// An inner node is worth merging when its separators take little of its page, or it has but one child.
    fn inner_is_sparse(&self, node: Inner<'_>) -> bool {
        let fences = node.lower().len() + node.upper().map_or(0, <[u8]>::len);
        node.count() == 0
            || separators_max(self.table) == usize::MAX
                && is_sparse(node.live_bytes() - fences, node.capacity())
    }
}
