//! The way from the root to a node, and what to do when it is disturbed. The module documentation of `btree`
//! says why a node reached this way is the right one.

use super::chaos::point;
use super::node::{Inner, Leaf};
use super::{Result, Tree, inconsistent};
use bedstone_bufpool::{Access, Guard, PageHeader, PageId, PageKind, PageState, Pool, PoolError, Word};
use bedstone_io::sync::{spin_loop, yield_now};

/// Which key's place is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target<'k> {
    /// The smallest key.
    First,
    /// The node responsible for this key.
    Key(&'k [u8]),
    /// The node responsible for the keys just below this one.
    Before(&'k [u8]),
    /// The greatest key.
    Last,
    /// The last child of every node, whatever the fences say: in a tree that is being taken down from its
    /// right end they no longer reach to the end of all keys.
    Outermost,
}

/// A node found: its word, and its parent as it was read on the way. Before anything is believed about a
/// leaf, it is pinned or latched, and then [`Place::parent_unchanged`] must hold.
#[derive(Clone, Copy)]
pub(super) struct Place<'g> {
    pub(super) parent: PageId,
    pub(super) parent_word: Word<'g>,
    pub(super) parent_page: &'g [u8],
    /// Index of the node among its parent's children.
    pub(super) slot: usize,
    pub(super) page: PageId,
    pub(super) word: Word<'g>,
}

impl<'g> Place<'g> {
    /// The recheck: the parent is still the version that was read.
    #[inline]
    pub(super) fn parent_unchanged(&self, guard: &Guard<'_>) -> bool {
        point();
        guard.word(self.parent).same(self.parent_word)
    }

    /// The parent as it was read.
    #[inline]
    pub(super) fn parent_node(&self) -> Inner<'g> {
        Inner::new(self.parent_page)
    }

    /// The leaf's fences are those that the parent gives it. They differ for an instant while the leaf
    /// splits.
    pub(super) fn fences_agree(&self, leaf: Leaf<'_>, scratch: &mut Vec<u8>) -> bool {
        let parent = self.parent_node();
        let lower_agrees = match self.slot.checked_sub(1) {
            None => parent.lower() == leaf.lower(),
            Some(before) => {
                parent.separator_to(before, scratch);
                *scratch == leaf.lower()
            }
        };
        lower_agrees
            && if self.slot == parent.count() {
                parent.upper() == leaf.upper()
            } else {
                parent.separator_to(self.slot, scratch);
                leaf.upper().is_some_and(|upper| *scratch == upper)
            }
    }
}

/// Where kind and table stand in the envelope: they are compared at every visit of a leaf.
const KIND: usize = 4;
const TABLE: std::ops::Range<usize> = 12..16;

/// How a descent ended.
pub(super) enum Step<'g> {
    /// At the node.
    At(Place<'g>),
    /// A page on the way is not in memory: bring it in, start again.
    Absent(PageId),
    /// The child that the place names is free: either an operation is between two of its steps, or the tree
    /// is damaged.
    Free(Place<'g>),
    /// Disturbed by a change of structure: start again.
    Again,
}

/// The child to take for `target`; `None` when the node does not reach so far (its right part has just gone
/// to another node).
#[inline(always)]
fn choose(node: Inner<'_>, target: Target<'_>) -> Option<usize> {
    match target {
        Target::Key(key) => {
            let slot = node.search(key);
            if slot == node.count() && node.upper().is_some_and(|upper| key >= upper) {
                return None;
            }
            Some(slot)
        }
        Target::First => Some(0),
        Target::Outermost => Some(node.count()),
        Target::Last => node.upper().is_none().then(|| node.count()),
        Target::Before(bound) => {
            let slot = node.search_below(bound);
            if slot == node.count() && node.upper().is_some_and(|upper| bound > upper) {
                return None;
            }
            Some(slot)
        }
    }
}

impl Tree {
    /// Level of the root now: 1 for a root above leaves.
    pub(super) fn root_level<'g>(&self, guard: &'g Guard<'_>) -> Result<std::result::Result<u8, Step<'g>>> {
        let word = guard.word(self.root);
        match word.state() {
            PageState::Inner => {}
            PageState::Absent => return Ok(Err(Step::Absent(self.root))),
            PageState::Free => return Err(PoolError::Free(self.root)),
            PageState::Pinnable => {
                return Err(inconsistent(self.root, "root", "it is not an inner node".into()));
            }
        }
        Ok(Ok(guard.inner(word).map_or(1, |page| Inner::new(page).level())))
    }

    /// Goes down to the node at `level` (less than the root's) that `target` names.
    ///
    /// # Errors
    /// [`PoolError::Free`] if the root itself is free (the table was dropped), [`PoolError::Corrupt`] if the
    /// nodes contradict each other.
    #[inline(always)]
    pub(super) fn descend<'g>(
        &self,
        guard: &'g Guard<'_>,
        target: Target<'_>,
        level: u8,
    ) -> Result<Step<'g>> {
        let mut page = self.root;
        let mut word = guard.word(page);
        let Some(mut bytes) = guard.inner(word) else { return self.rootless(word) };
        let mut node = Inner::new(bytes);
        let mut at = node.level();
        if at <= level {
            return Ok(Step::Again);
        }
        loop {
            let Some(slot) = choose(node, target) else { return Ok(Step::Again) };
            let child = node.child(slot);
            point();
            let child_word = guard.word(child);
            guard.prefetch(child_word);
            point();
            let place = Place {
                parent: page,
                parent_word: word,
                parent_page: bytes,
                slot,
                page: child,
                word: child_word,
            };
            at -= 1;
            let state = child_word.state();
            if at == level {
                return match state {
                    PageState::Pinnable if level == 0 => Ok(Step::At(place)),
                    PageState::Inner if level > 0 && place.parent_unchanged(guard) => Ok(Step::At(place)),
                    _ => self.disturbed(guard, place, at),
                };
            }
            if !place.parent_unchanged(guard) {
                return Ok(Step::Again);
            }
            let Some(next_bytes) = guard.inner(child_word) else { return self.disturbed(guard, place, at) };
            let next = Inner::new(next_bytes);
            if next.level() != at {
                return Err(wrong_level(child, next.level(), at));
            }
            (page, word, node, bytes) = (child, child_word, next, next_bytes);
        }
    }

    #[cold]
    fn rootless<'g>(&self, word: Word<'g>) -> Result<Step<'g>> {
        match word.state() {
            PageState::Absent => Ok(Step::Absent(self.root)),
            PageState::Free => Err(PoolError::Free(self.root)),
            PageState::Pinnable => Err(inconsistent(self.root, "root", "it is not an inner node".into())),
            PageState::Inner => Ok(Step::Again),
        }
    }

    /// The child of `place` is not what its parent, one level above `level`, says.
    #[cold]
    fn disturbed<'g>(&self, guard: &Guard<'_>, place: Place<'g>, level: u8) -> Result<Step<'g>> {
        match place.word.state() {
            _ if !place.parent_unchanged(guard) => Ok(Step::Again),
            PageState::Absent => Ok(Step::Absent(place.page)),
            PageState::Free => Ok(Step::Free(place)),
            PageState::Pinnable => Err(wrong_level(place.page, 0, level)),
            PageState::Inner => {
                let found = guard.inner(place.word).map_or(level, |page| Inner::new(page).level());
                Err(wrong_level(place.page, found, level))
            }
        }
    }

    /// The leaf in `bytes`, reached as `page`: neither another kind of page nor one of another tree.
    #[inline]
    pub(super) fn leaf<'a>(&self, page: PageId, bytes: &'a [u8]) -> Result<Leaf<'a>> {
        if bytes[KIND] != PageKind::Leaf as u8 || bytes[TABLE] != self.table.to_le_bytes() {
            return Err(wrong_page(page, &PageHeader::read(bytes), self.table));
        }
        Ok(Leaf::new(bytes))
    }

    /// A leaf that was reached for `key` without any disturbance is not responsible for it.
    #[cold]
    pub(super) fn not_covered(&self, page: PageId, key: &[u8]) -> PoolError {
        let shown = key.get(..32).unwrap_or(key);
        inconsistent(
            page,
            "leaf",
            format!("the fences of the leaf do not cover the key {shown:02x?}.. that its parent sends there"),
        )
    }
}

#[cold]
fn wrong_level(page: PageId, found: u8, expected: u8) -> PoolError {
    inconsistent(page, "tree", format!("a node of level {found} where level {expected} belongs"))
}

#[cold]
fn wrong_page(page: PageId, header: &PageHeader, table: u32) -> PoolError {
    inconsistent(
        page,
        "leaf",
        format!("expected a leaf of table {table}, found kind {} of table {}", header.kind, header.table),
    )
}

/// How often something may be found free before that is looked into.
const SUSPICIOUS: u32 = 256;

/// Counts how often an operation had to start again, and waits a little longer each time.
#[derive(Debug, Default)]
pub(super) struct Retry {
    tries: u32,
}

impl Retry {
    /// To be called with nothing held before an operation starts again.
    ///
    /// # Errors
    /// [`PoolError::Failed`] when the store has failed: a latch may then never be released.
    pub(super) fn again(&mut self, pool: &Pool) -> Result<()> {
        self.tries = self.tries.saturating_add(1);
        if self.tries <= 6 {
            for _ in 0..1 << self.tries {
                spin_loop();
            }
        } else {
            yield_now();
            if self.tries.is_multiple_of(1024)
                && let Some(error) = pool.failed()
            {
                return Err(PoolError::Failed(error));
            }
        }
        Ok(())
    }

    /// The operation met something that can be only for an instant, and has met it very often.
    pub(super) fn is_suspicious(&self) -> bool {
        self.tries > SUSPICIOUS
    }

    /// What a descent that did not arrive asks for; the guard must be gone.
    pub(super) fn after(&mut self, pool: &Pool, obstacle: Obstacle, access: Access) -> Result<()> {
        match obstacle {
            Obstacle::Absent(page) => bring(pool, page, access),
            Obstacle::Busy => self.again(pool),
        }
    }

    /// What stands in the way, once the guard is gone. A free child that stays free is damage: whoever frees
    /// a child holds the structure lock of its parent until the parent no longer names it.
    pub(super) fn obstacle(&self, guard: &Guard<'_>, step: &Step<'_>) -> Result<Obstacle> {
        match step {
            Step::Absent(page) => Ok(Obstacle::Absent(*page)),
            Step::At(_) | Step::Again => Ok(Obstacle::Busy),
            Step::Free(place) => {
                if self.is_suspicious()
                    && let Some(_lock) = guard.lock_inner(place.parent, place.parent_word)
                    && guard.word(place.page).state() == PageState::Free
                {
                    let parent = place.parent;
                    return Err(inconsistent(
                        place.page,
                        "tree",
                        format!("{parent} refers to a page that is free"),
                    ));
                }
                Ok(Obstacle::Busy)
            }
        }
    }
}

/// Why an operation starts again.
#[derive(Debug, Clone, Copy)]
pub(super) enum Obstacle {
    /// This page must be brought in first.
    Absent(PageId),
    /// Somebody else was in the way.
    Busy,
}

/// Brings a page in. One that was freed meanwhile was seen through an outdated parent.
pub(super) fn bring(pool: &Pool, page: PageId, access: Access) -> Result<()> {
    match pool.fault(page, access) {
        Err(PoolError::Free(_)) => Ok(()),
        other => other,
    }
}
