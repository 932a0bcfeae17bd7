//! Walking a whole tree: checking that its pages agree with each other, and measuring it. The pages are seen
//! one by one while others may go on writing, so the sums are of no single moment.

use super::descend::{Place, Retry, Step, Target};
use super::node::{CellValue, Inner, Leaf};
use super::overflow::page_ids;
use super::{Result, Tree, inconsistent};
use bedstone_bufpool::{Access, PageId, PageKind, PagePin, Pool};

/// What a walk comes by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Visit {
    /// The page.
    pub(crate) page: PageId,
    /// What it holds.
    pub(crate) kind: PageKind,
    /// Keys of a leaf, children of an inner node; 0 for overflow pages.
    pub(crate) entries: usize,
    /// Bytes in use, of a node.
    pub(crate) live_bytes: usize,
    /// Bytes there are for use, of a node.
    pub(crate) capacity: usize,
}

/// Sizes of a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TreeStats {
    /// Levels, leaves included; at least 2.
    pub(crate) levels: u64,
    /// Leaves.
    pub(crate) leaf_pages: u64,
    /// Inner nodes.
    pub(crate) inner_pages: u64,
    /// Pages of long values.
    pub(crate) overflow_pages: u64,
    /// Keys.
    pub(crate) entries: u64,
    /// Bytes in use in leaves.
    pub(crate) leaf_bytes: u64,
    /// Bytes in use in leaves if all were full.
    pub(crate) leaf_capacity: u64,
    /// Bytes of keys and of values, overflow values included.
    pub(crate) key_bytes: u64,
    /// Bytes of all values.
    pub(crate) value_bytes: u64,
}

impl Tree {
    /// Levels of the tree, leaves included.
    ///
    /// # Errors
    /// Those of bringing the root in.
    pub(crate) fn height(&self, pool: &Pool) -> Result<u8> {
        let mut retry = Retry::default();
        loop {
            let obstacle = {
                let guard = pool.guard();
                match self.root_level(&guard)? {
                    Ok(level) => return Ok(level.saturating_add(1)),
                    Err(step) => retry.obstacle(&guard, &step)?,
                }
            };
            retry.after(pool, obstacle, Access::Point)?;
        }
    }

    /// Calls `visit` with every page of the tree: inner nodes from the root's level down, leaves from left to
    /// right, each leaf's overflow pages after it. Checks on the way that levels and fences agree with what
    /// the parents say.
    ///
    /// # Errors
    /// [`bedstone_bufpool::PoolError::Corrupt`] for the first contradiction, those of reading pages, and what
    /// `visit` returns.
    pub(crate) fn walk(&self, pool: &Pool, visit: &mut dyn FnMut(Visit) -> Result<()>) -> Result<()> {
        self.walk_leaves_with(pool, visit, &mut |_| {})
    }

    /// Sizes of the tree.
    ///
    /// # Errors
    /// As [`Tree::walk`].
    pub(crate) fn stats(&self, pool: &Pool) -> Result<TreeStats> {
        let mut stats = TreeStats { levels: u64::from(self.height(pool)?), ..TreeStats::default() };
        let mut sums = TreeStats::default();
        self.walk_leaves_with(
            pool,
            &mut |visit| {
                match visit.kind {
                    PageKind::Leaf => {
                        stats.leaf_pages += 1;
                        stats.entries += visit.entries as u64;
                        stats.leaf_bytes += visit.live_bytes as u64;
                        stats.leaf_capacity += visit.capacity as u64;
                    }
                    PageKind::Inner => stats.inner_pages += 1,
                    PageKind::OverflowIndex | PageKind::OverflowData => stats.overflow_pages += 1,
                }
                Ok(())
            },
            &mut |leaf| {
                for i in 0..leaf.count() {
                    sums.key_bytes += leaf.key_len(i) as u64;
                    sums.value_bytes += leaf.value(i).value_len();
                }
            },
        )?;
        (stats.key_bytes, stats.value_bytes) = (sums.key_bytes, sums.value_bytes);
        Ok(stats)
    }

    fn walk_leaves_with(
        &self,
        pool: &Pool,
        visit: &mut dyn FnMut(Visit) -> Result<()>,
        look: &mut dyn FnMut(Leaf<'_>),
    ) -> Result<()> {
        let root_level = self.height(pool)? - 1;
        visit_inner(self.root, &self.copy_root(pool)?, visit)?;
        for level in (1..root_level).rev() {
            let mut from = Some(Vec::new());
            while let Some(key) = from {
                let (page, node, upper) = self.copy_inner(pool, &key, level)?;
                visit_inner(page, &node, visit)?;
                from = upper;
            }
        }
        let mut from = Some(Vec::new());
        while let Some(key) = from {
            let pin = self.pin_leaf(pool, &key)?;
            let leaf = Leaf::new(&pin);
            visit(Visit {
                page: pin.page_id(),
                kind: PageKind::Leaf,
                entries: leaf.count(),
                live_bytes: leaf.live_bytes(),
                capacity: leaf.capacity(),
            })?;
            look(leaf);
            if leaf.has_overflow() {
                let _ticket = pool.ticket();
                if !pin.is_current() {
                    // Pages of its values may be gone already. The leaf was counted; its values are not.
                    from = leaf.upper().map(<[u8]>::to_vec);
                    continue;
                }
                for i in 0..leaf.count() {
                    if let CellValue::Overflow(value) = leaf.value(i) {
                        self.visit_overflow(pool, value, visit)?;
                    }
                }
            }
            from = leaf.upper().map(<[u8]>::to_vec);
        }
        Ok(())
    }

    fn visit_overflow(
        &self,
        pool: &Pool,
        value: super::OverflowRef,
        visit: &mut dyn FnMut(Visit) -> Result<()>,
    ) -> Result<()> {
        let pages = page_ids(pool, self.table, value)?;
        let data =
            super::node::overflow_shape(pool.page_size(), value.len).map_or(0, |shape| shape.data_pages);
        let indexes = pages.len().saturating_sub(data);
        for (i, page) in pages.into_iter().enumerate() {
            let kind = if i < indexes { PageKind::OverflowIndex } else { PageKind::OverflowData };
            visit(Visit { page, kind, entries: 0, live_bytes: 0, capacity: 0 })?;
        }
        Ok(())
    }

    fn copy_root(&self, pool: &Pool) -> Result<Vec<u8>> {
        let mut retry = Retry::default();
        loop {
            let obstacle = {
                let guard = pool.guard();
                if let Some(page) = guard.inner(guard.word(self.root)) {
                    let root = Inner::new(page);
                    if !root.lower().is_empty() || root.upper().is_some() {
                        return Err(inconsistent(self.root, "root", "it has fences".into()));
                    }
                    return Ok(page.to_vec());
                }
                match self.root_level(&guard)? {
                    Ok(_) => super::descend::Obstacle::Busy,
                    Err(step) => retry.obstacle(&guard, &step)?,
                }
            };
            retry.after(pool, obstacle, Access::Scan)?;
        }
    }

    /// A copy of the inner node at `level` responsible for `key`, and its upper fence.
    fn copy_inner(&self, pool: &Pool, key: &[u8], level: u8) -> Result<(PageId, Vec<u8>, Option<Vec<u8>>)> {
        let mut retry = Retry::default();
        loop {
            let obstacle = {
                let guard = pool.guard();
                match self.descend(&guard, Target::Key(key), level)? {
                    Step::At(place) => {
                        if let Some(page) = guard.inner(place.word) {
                            let node = Inner::new(page);
                            let lower = place.parent_node().child_lower(place.slot);
                            let upper = place.parent_node().child_upper(place.slot);
                            if node.lower() == lower && node.upper() == upper.as_deref() {
                                return Ok((place.page, page.to_vec(), upper));
                            }
                            self.disagree(&guard, &place, &retry)?;
                        }
                        super::descend::Obstacle::Busy
                    }
                    step => retry.obstacle(&guard, &step)?,
                }
            };
            retry.after(pool, obstacle, Access::Scan)?;
        }
    }

    /// Pins the leaf responsible for `key`, with fences as its parent has them.
    fn pin_leaf<'p>(&self, pool: &'p Pool, key: &[u8]) -> Result<PagePin<'p>> {
        let mut retry = Retry::default();
        let mut scratch = Vec::new();
        loop {
            let obstacle = {
                let guard = pool.guard();
                match self.descend(&guard, Target::Key(key), 0)? {
                    Step::At(place) => {
                        if let Some(pin) = guard.pin(place.page, place.word, Access::Scan)
                            && place.parent_unchanged(&guard)
                        {
                            if place.fences_agree(self.leaf(place.page, &pin)?, &mut scratch) {
                                return Ok(pin);
                            }
                            self.disagree(&guard, &place, &retry)?;
                        }
                        super::descend::Obstacle::Busy
                    }
                    step => retry.obstacle(&guard, &step)?,
                }
            };
            retry.after(pool, obstacle, Access::Scan)?;
        }
    }

    /// A node's fences are not those that its parent gives it. That is so for an instant while one of the two
    /// is being changed; when both can be locked and it is so still, it is damage.
    pub(super) fn disagree(
        &self,
        guard: &bedstone_bufpool::Guard<'_>,
        place: &Place<'_>,
        retry: &Retry,
    ) -> Result<()> {
        if !retry.is_suspicious() {
            return Ok(());
        }
        let Some(_parent) = guard.lock_inner(place.parent, place.parent_word) else { return Ok(()) };
        let word = guard.word(place.page);
        let mut scratch = Vec::new();
        let agree = if let Some(latch) = guard.latch(place.page, word) {
            place.fences_agree(self.leaf(place.page, latch.page())?, &mut scratch)
        } else if let Some(node) = guard.lock_inner(place.page, word) {
            let node = Inner::new(node.page());
            let parent = place.parent_node();
            node.lower() == parent.child_lower(place.slot)
                && node.upper() == parent.child_upper(place.slot).as_deref()
        } else {
            true
        };
        if agree {
            return Ok(());
        }
        let parent = place.parent;
        Err(inconsistent(
            place.page,
            "tree",
            format!("its fences are not the separators of its parent, {parent}"),
        ))
    }
}

fn visit_inner(page: PageId, bytes: &[u8], visit: &mut dyn FnMut(Visit) -> Result<()>) -> Result<()> {
    let node = Inner::new(bytes);
    visit(Visit {
        page,
        kind: PageKind::Inner,
        entries: node.count() + 1,
        live_bytes: node.live_bytes(),
        capacity: node.capacity(),
    })
}
