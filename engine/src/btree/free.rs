//! Giving back all pages of a tree that nobody uses any more.
//!
//! The tree is taken down from its right end in small steps, each one page operation after which it is a tree
//! again, only smaller: values in overflow pages leave their leaf together with their pages; the last few
//! leaves of the last node leave that node, and nodes left without children leave their parents under the
//! same announcement. So whatever checkpoint an interruption falls into, the next call goes on from there,
//! and no freed page is ever referred to. The root goes last, with the last leaves.

use super::descend::{Obstacle, Retry, Step, Target};
use super::node::{CellValue, Inner, InnerChange, InnerPlan, Leaf, LeafMut, OverflowRef};
use super::overflow::page_ids;
use super::write::provide;
use super::{OPERATION_PAGES, Result, Tree};
use bedstone_bufpool::{Access, Guard, InnerLock, LeafLatch, PageId, PageState, Pool, PoolError, Reserve};

/// Leaves freed in one step.
const LEAVES: usize = 16;
/// Overflow pages after which a step takes no further value.
const OVERFLOW_PAGES: usize = 4096;

/// The right edge of the tree, locked: nodes from the root down to level 1, and the last leaves.
struct Edge<'p> {
    nodes: Vec<InnerLock<'p>>,
    leaves: Vec<LeafLatch<'p>>,
}

/// One step further.
enum Taken<'p> {
    Edge(Edge<'p>),
    Obstacle(Obstacle),
    /// These leaves must be brought in first.
    Absent(Vec<PageId>),
}

impl Tree {
    /// Frees all pages of the tree, the root last. `between` is called between steps, with nothing held; when
    /// it says `false` the work stops, and `Ok(false)` is returned. A later call goes on.
    ///
    /// Nobody may write to the tree any more. Readers that still come get [`PoolError::Free`] of the root at
    /// the latest, and before that may get errors that speak of damage.
    ///
    /// # Errors
    /// Those of reading pages and of [`Reserve::refill`]; what is freed stays freed.
    pub(crate) fn free_all<'p>(
        &self,
        pool: &'p Pool,
        reserve: &mut Reserve<'p>,
        between: &mut dyn FnMut() -> bool,
    ) -> Result<bool> {
        let mut retry = Retry::default();
        let mut stepped = true;
        loop {
            if std::mem::take(&mut stepped) && !between() {
                return Ok(false);
            }
            provide(reserve, OPERATION_PAGES)?;
            let taken = {
                let guard = pool.guard();
                match self.take_edge(&guard, &retry) {
                    Err(PoolError::Free(page)) if page == self.root => return Ok(true),
                    other => other?,
                }
            };
            let edge = match taken {
                Taken::Edge(edge) => edge,
                Taken::Obstacle(obstacle) => {
                    retry.after(pool, obstacle, Access::Scan)?;
                    continue;
                }
                Taken::Absent(pages) => {
                    pool.fault_many(&pages, Access::Scan)?;
                    continue;
                }
            };
            retry = Retry::default();
            stepped = true;
            let Edge { nodes, leaves } = edge;
            let with_overflow = leaves.iter().position(|latch| Leaf::new(latch.page()).has_overflow());
            if let Some(at) = with_overflow {
                drop(nodes);
                let Some(latch) = leaves.into_iter().nth(at) else { continue };
                self.free_values(pool, reserve, latch)?;
                continue;
            }
            if free_edge(pool, reserve, nodes, leaves) {
                return Ok(true);
            }
        }
    }

    /// Locks the nodes on the way to the greatest key and latches the last leaves. A table in use would never
    /// lock that much at once; here nobody else is about, and all of it is tried only.
    fn take_edge<'p>(&self, guard: &Guard<'p>, retry: &Retry) -> Result<Taken<'p>> {
        let busy = Taken::Obstacle(Obstacle::Busy);
        let place = match self.descend(guard, Target::Outermost, 0)? {
            Step::At(place) => place,
            step @ Step::Absent(_) => return Ok(Taken::Obstacle(retry.obstacle(guard, &step)?)),
            step => {
                retry.obstacle(guard, &step)?;
                return Ok(busy);
            }
        };
        let last = place.parent_node();
        let first_leaf = (last.count() + 1).saturating_sub(LEAVES);
        let ids: Vec<PageId> = last.child_ids(first_leaf..last.count() + 1).collect();
        let absent: Vec<PageId> =
            ids.iter().copied().filter(|&page| guard.word(page).state() == PageState::Absent).collect();
        if !absent.is_empty() {
            return Ok(Taken::Absent(absent));
        }
        let mut nodes = Vec::new();
        let mut page = self.root;
        loop {
            let Some(lock) = guard.lock_inner(page, guard.word(page)) else { return Ok(busy) };
            let node = Inner::new(lock.page());
            let (level, next) = (node.level(), node.child(node.count()));
            nodes.push(lock);
            if level <= 1 {
                break;
            }
            page = next;
        }
        let mut leaves = Vec::new();
        for &page in &ids {
            let Some(latch) = guard.latch(page, guard.word(page)) else { return Ok(busy) };
            self.leaf(page, latch.page())?;
            leaves.push(latch);
        }
        // Still the node that the leaves were taken from.
        let unchanged =
            nodes.last().is_some_and(|lock| lock.page_id() == place.parent) && place.parent_unchanged(guard);
        Ok(if unchanged { Taken::Edge(Edge { nodes, leaves }) } else { busy })
    }

    /// Removes values in overflow pages from a leaf, with their pages.
    fn free_values<'p>(&self, pool: &'p Pool, reserve: &mut Reserve<'p>, latch: LeafLatch<'p>) -> Result<()> {
        let page = latch.page_id();
        let values: Vec<_> = {
            let leaf = Leaf::new(latch.page());
            (0..leaf.count())
                .filter_map(|i| match leaf.value(i) {
                    CellValue::Overflow(value) => Some(value),
                    CellValue::Inline(_) => None,
                })
                .collect()
        };
        // The pages are read with nothing latched; nobody else changes the tree.
        drop(latch);
        let mut known: Vec<(OverflowRef, Vec<PageId>)> = Vec::new();
        let mut count = 0;
        for value in values {
            let pages = page_ids(pool, self.table, value)?;
            count += pages.len();
            known.push((value, pages));
            if count > OVERFLOW_PAGES {
                break;
            }
        }
        let latch = {
            let guard = pool.guard();
            guard.latch(page, guard.word(page))
        };
        // Evicted or being written out: the next step finds it again.
        let Some(latch) = latch else { return Ok(()) };
        let operation = pool.announce();
        let mut page = latch.modify(&operation, reserve);
        known.retain(|(value, _)| {
            let leaf = Leaf::new(&page);
            let at = (0..leaf.count()).find(|&i| leaf.value(i) == CellValue::Overflow(*value));
            if let Some(at) = at {
                LeafMut::new(&mut page).remove(at);
            }
            at.is_some()
        });
        page.finish();
        for page in known.into_iter().flat_map(|(_, pages)| pages) {
            pool.free_page(page, &operation);
        }
        Ok(())
    }
}

/// Frees the leaves, and the nodes that have no other children; `true` if that was the whole tree.
fn free_edge<'p>(
    pool: &'p Pool,
    reserve: &mut Reserve<'p>,
    mut nodes: Vec<InnerLock<'p>>,
    leaves: Vec<LeafLatch<'p>>,
) -> bool {
    // From level 1 upwards: nodes that lose all their children go too; the first that keeps some is changed.
    let mut gone = Vec::new();
    let mut kept = None;
    let mut lost = leaves.len();
    while let Some(lock) = nodes.pop() {
        let node = Inner::new(lock.page());
        let children = node.count() + 1;
        if lost < children {
            let mut smaller = lock.new_version(reserve, node.level());
            InnerPlan::new(node, InnerChange::Remove { first: children - lost, count: lost })
                .build(&mut smaller);
            kept = Some((lock, smaller));
            break;
        }
        gone.push(lock);
        lost = 1;
    }
    let all = kept.is_none();
    let operation = pool.announce();
    if let Some((lock, smaller)) = kept {
        lock.replace(smaller, &operation);
    }
    for node in gone.into_iter().rev() {
        node.free(&operation);
    }
    for leaf in leaves {
        leaf.free(&operation);
    }
    all
}
