//! Applying many changes at once, in key order.
//!
//! Two ways, chosen by how densely the keys lie:
//! * **Dense** (several changes to a leaf): latch the leaf of the next key, and under one latch and one
//!   announcement make every change that the leaf is responsible for. Ascending loads cost no descent per key
//!   this way.
//! * **Sparse** (about one change to a leaf): the time goes into waiting for memory, so the descents of a
//!   group of keys are made first, fetching the lines (and, from the disk, the pages) of all their leaves;
//!   then the leaves are latched one by one by the words found, each with the usual recheck of its parent.
//!
//! A change that needs more than its leaf (a split, the freeing of overflow pages) goes the way of a single
//! write.

use super::descend::{Obstacle, Place, Retry, Step, Target};
use super::node::{CellValue, Fit, Leaf, LeafMut};
use super::write::{
    NewValue, Outcome, Reached, Stamp, Write, change, fit, leaf_is_sparse, provide, with_scratch,
};
use super::{OPERATION_PAGES, Result, Tree, inconsistent};
use bedstone_bufpool::{Access, Guard, LeafLatch, PageId, Pool, Reserve, prefetch, raise_max_lsn};

/// One change of a sorted batch.
pub(crate) struct Op<'a, 'p> {
    /// The key.
    pub(crate) key: &'a [u8],
    /// What happens to it.
    pub(crate) write: Write<'a, 'p>,
    /// LSN of the commit.
    pub(crate) lsn: u64,
}

/// Keys whose leaves are fetched together.
const GROUP: usize = 16;
/// Changes made under one announcement at most: some tens of microseconds.
const CHANGES_AT_ONCE: usize = 256;
/// A leaf that took this many changes in one go makes the batch count as dense.
const DENSE: usize = 4;

/// How far a leaf got.
struct Progress {
    /// Changes made (or found to need none).
    done: usize,
    /// The next change must go its own way.
    slow: bool,
    /// A delete left the leaf sparse.
    sparse: bool,
}

impl Tree {
    /// Makes the changes in `ops`, whose keys strictly ascend. They have their LSNs already, so nothing is
    /// stamped; an error in the middle leaves the first ones made and the others not.
    ///
    /// The reserve is refilled as needed while nothing is held; overflow values in `ops` are taken as they
    /// are written.
    ///
    /// # Errors
    /// Those of reading pages and of [`Reserve::refill`].
    pub(crate) fn apply_sorted<'p>(
        &self,
        pool: &'p Pool,
        reserve: &mut Reserve<'p>,
        ops: &mut [Op<'_, 'p>],
    ) -> Result<()> {
        debug_assert!(ops.is_sorted_by(|a, b| a.key < b.key), "a batch ascends strictly");
        let mut retry = Retry::default();
        let mut dense = true;
        let mut at = 0;
        while at < ops.len() {
            let rest = &mut ops[at..];
            let progress = if dense || rest.len() == 1 {
                provide(reserve, OPERATION_PAGES)?;
                let latch = match self.latch_for(pool, rest[0].key, &retry)? {
                    Reached::Leaf(latch) => latch,
                    Reached::Obstacle(obstacle) => {
                        retry.after(pool, obstacle, Access::Point)?;
                        continue;
                    }
                };
                let key = rest[0].key;
                if !Leaf::new(latch.page()).covers(key) {
                    return Err(self.not_covered(latch.page_id(), key));
                }
                let progress = apply_to_leaf(pool, reserve, latch, rest);
                dense = progress.done >= DENSE || progress.slow;
                progress
            } else {
                provide(reserve, GROUP + OPERATION_PAGES)?;
                let group = rest.len().min(GROUP);
                match self.apply_group(pool, reserve, &mut rest[..group], &retry)? {
                    Ok((progress, leaves)) => {
                        dense = progress.done >= leaves * DENSE;
                        progress
                    }
                    Err(absent) => {
                        // The pages may be pushed out again before they are used when the pool is small; one
                        // key at a time always gets on.
                        dense = true;
                        if absent.is_empty() {
                            retry.again(pool)?
                        } else {
                            pool.fault_many(&absent, Access::Point)?
                        }
                        continue;
                    }
                }
            };
            retry = Retry::default();
            at += progress.done;
            if progress.slow {
                let op = &mut ops[at];
                let lsn = op.lsn;
                let mut stamp = || Stamp::Lsn(lsn);
                match self.write(pool, reserve, op.key, &mut op.write, &mut stamp, &mut Vec::new())? {
                    Outcome::Applied { .. } | Outcome::NotFound => at += 1,
                    Outcome::Busy => {
                        return Err(inconsistent(self.root, "batch", "a given LSN was refused".into()));
                    }
                }
            }
            if progress.sparse && at > 0 {
                self.merge_around(pool, reserve, ops[at - 1].key);
            }
        }
        Ok(())
    }

    /// Applies a group of changes to the leaves that were all fetched beforehand. `Err`: these pages must be
    /// brought in first, or (if there are none) somebody was in the way of the first key.
    fn apply_group<'p>(
        &self,
        pool: &'p Pool,
        reserve: &mut Reserve<'p>,
        ops: &mut [Op<'_, 'p>],
        retry: &Retry,
    ) -> Result<std::result::Result<(Progress, usize), Vec<PageId>>> {
        let guard = pool.guard();
        let mut places: [Option<Place<'_>>; GROUP] = [None; GROUP];
        let mut absent = Vec::new();
        for (op, place) in ops.iter().zip(&mut places) {
            match self.descend(&guard, Target::Key(op.key), 0)? {
                Step::At(found) => *place = Some(found),
                step => match retry.obstacle(&guard, &step)? {
                    Obstacle::Absent(page) => absent.push(page),
                    Obstacle::Busy => {}
                },
            }
        }
        if !absent.is_empty() {
            return Ok(Err(absent));
        }
        for (op, place) in ops.iter().zip(&places) {
            if let Some(place) = place
                && let Some(pin) = guard.pin(place.page, place.word, Access::Point)
                && place.parent_unchanged(&guard)
            {
                let leaf = self.leaf(place.page, &pin)?;
                if let Some(at) = leaf.candidate(op.key) {
                    prefetch(leaf.cell_bytes(at));
                }
            }
        }
        let mut total = Progress { done: 0, slow: false, sparse: false };
        let mut leaves = 0;
        while total.done < ops.len() && !total.slow && !total.sparse {
            let rest = &mut ops[total.done..];
            let Some(latch) = places[total.done].and_then(|place| latch_place(&guard, place)) else { break };
            self.leaf(latch.page_id(), latch.page())?;
            if !Leaf::new(latch.page()).covers(rest[0].key) {
                return Err(self.not_covered(latch.page_id(), rest[0].key));
            }
            let progress = apply_to_leaf(pool, reserve, latch, rest);
            total.done += progress.done;
            total.slow = progress.slow;
            total.sparse = progress.sparse;
            leaves += 1;
        }
        Ok(if leaves == 0 { Err(absent) } else { Ok((total, leaves)) })
    }
}

/// Latches the leaf of a place found earlier under the same guard.
fn latch_place<'p>(guard: &Guard<'p>, place: Place<'_>) -> Option<LeafLatch<'p>> {
    // Its frame may be another one by now: a change made before in this group can have moved it.
    let word = guard.word(place.page);
    let latch = guard.latch(place.page, word)?;
    place.parent_unchanged(guard).then_some(latch)
}

/// Makes as many of `ops` as lie in the latched leaf and fit; the first one lies in it.
fn apply_to_leaf<'p>(
    pool: &'p Pool,
    reserve: &mut Reserve<'p>,
    latch: LeafLatch<'p>,
    ops: &mut [Op<'_, 'p>],
) -> Progress {
    let leaf = Leaf::new(latch.page());
    let inside = count_inside(leaf, ops);
    let ops = &mut ops[..inside];
    // Deletes of what is not there need no change of the page.
    let mut done = 0;
    while done < ops.len()
        && let Write::Delete = ops[done].write
        && leaf.search(ops[done].key).is_err()
    {
        done += 1;
    }
    if done == ops.len() {
        return Progress { done, slow: false, sparse: false };
    }
    if !matches!(next_step(leaf, &ops[done]), NextStep::Change(_)) {
        return Progress { done, slow: true, sparse: false };
    }
    let sparse_before = leaf_is_sparse(leaf);
    let operation = pool.announce();
    let mut page = latch.modify(&operation, reserve);
    let mut lsn = 0;
    let mut slow = false;
    let mut deleted = false;
    with_scratch(|scratch| {
        for op in &mut ops[done..] {
            let mut leaf = LeafMut::new(&mut page);
            match next_step(leaf.view(), op) {
                NextStep::Nothing => {}
                NextStep::Slow => {
                    slow = true;
                    break;
                }
                NextStep::Change(found) => {
                    match (&op.write, found) {
                        (Write::Put(value), _) => leaf.apply(&change(op.key, found, value.cell()), scratch),
                        (Write::Delete, Ok(at)) => {
                            leaf.remove(at);
                            deleted = true;
                        }
                        (Write::Delete, Err(_)) => {}
                    }
                    if let Write::Put(NewValue::Overflow(prepared)) = &mut op.write {
                        prepared.publish(&operation);
                    }
                    lsn = lsn.max(op.lsn);
                }
            }
            done += 1;
        }
    });
    raise_max_lsn(&mut page, lsn);
    let leaf = Leaf::new(&page);
    let sparse = deleted && leaf_is_sparse(leaf) && (!sparse_before || leaf.count() == 0);
    page.finish();
    Progress { done, slow, sparse }
}

/// How many of `ops` (at least the first) the leaf is responsible for, within what one announcement may do.
fn count_inside(leaf: Leaf<'_>, ops: &[Op<'_, '_>]) -> usize {
    let ops = &ops[..ops.len().min(CHANGES_AT_ONCE)];
    let Some(upper) = leaf.upper() else { return ops.len() };
    // Nearly always only a few lie inside, or all do.
    let mut end = 1;
    while end < ops.len() && ops[end].key < upper {
        end = (end * 2).min(ops.len());
        if ops[end - 1].key >= upper {
            return ops[..end].partition_point(|op| op.key < upper);
        }
    }
    end
}

enum NextStep {
    /// It can be made here: at this place.
    Change(std::result::Result<usize, usize>),
    /// There is nothing to do: a delete of what is not there.
    Nothing,
    /// It needs more than this leaf.
    Slow,
}

#[inline]
fn next_step(leaf: Leaf<'_>, op: &Op<'_, '_>) -> NextStep {
    let found = leaf.search(op.key);
    if let Ok(at) = found
        && leaf.has_overflow()
        && let CellValue::Overflow(_) = leaf.value(at)
    {
        return NextStep::Slow;
    }
    match (&op.write, found) {
        (Write::Delete, Err(_)) => NextStep::Nothing,
        (Write::Delete, Ok(_)) => NextStep::Change(found),
        (Write::Put(value), _) => match fit(leaf, op.key, found, &value.cell()) {
            Fit::No => NextStep::Slow,
            Fit::InPlace | Fit::AfterCompaction => NextStep::Change(found),
        },
    }
}
