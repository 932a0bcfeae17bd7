//! Walking through a range of keys, from either end.
//!
//! Each end holds one pin, on the leaf it is in: the leaf is seen as it was when the end reached it, whatever
//! is written meanwhile. From leaf to leaf an end goes by key, with a new descent: the next leaf is the one
//! responsible for the upper fence, the previous one is responsible for the keys just below the lower fence.
//! In that leaf it begins at the fence, for it may have been merged with the one that the end comes from. So
//! splits and merges are of no concern, and every key that is there all the time is met exactly once.
//!
//! The two ends of a range see their leaves at different moments, so they meet by key: neither goes past the
//! last key that the other one gave.
//!
//! O_DIRECT has no read-ahead by the kernel. The parent names the leaves to come, so on the way down an end
//! asks for the next few that are not in memory: two at its second leaf, then twice as many each time, up to
//! [`WINDOW_MAX`].

use super::chaos::point;
use super::descend::{Obstacle, Place, Retry, Step, Target};
use super::node::{CellValue, Leaf};
use super::overflow_read::OverflowReader;
use super::{OverflowRef, Result, Tree};
use bedstone_bufpool::{Access, Guard, PageId, PagePin, PageState, Pool, Ticket, max_lsn, prefetch};
use std::ops::Bound;

/// How many entries ahead of the present one a long run asks for the lines of a cell.
const CELLS_AHEAD: usize = 4;

/// Most leaves asked for ahead.
const WINDOW_MAX: usize = 32;

/// The entries of a range. After an error the scan should be given up.
pub(crate) struct Scan<'p> {
    tree: Tree,
    pool: &'p Pool,
    lower: Bound<Vec<u8>>,
    upper: Bound<Vec<u8>>,
    front: End<'p>,
    back: End<'p>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Where {
    /// Not in any leaf yet.
    Outside,
    /// In a leaf.
    Inside,
    /// Past the last entry.
    Over,
}

/// One end of a scan.
struct End<'p> {
    state: Where,
    pin: Option<PagePin<'p>>,
    /// Held while the leaf has values in overflow pages.
    ticket: Option<Ticket<'p>>,
    /// The entries of the leaf that are still to come.
    begin: usize,
    end: usize,
    /// Index of the entry given last.
    at: usize,
    /// Something was given.
    given: bool,
    /// The key given last; unless the leaf is a new one, it begins with the leaf's prefix. The other end
    /// compares with it, so it stays until the next one is given.
    key: Vec<u8>,
    prefix_len: usize,
    new_leaf: bool,
    /// There are no further leaves.
    last_leaf: bool,
    /// The fence from which the next leaf is found.
    fence: Vec<u8>,
    /// Leaves reached, and the highest LSN among those reached since that was last asked for.
    leaves: u64,
    highest_lsn: u64,
    /// Leaves asked for ahead at a time, and how many of them are still to come.
    window: usize,
    ahead: usize,
    scratch: Vec<u8>,
}

impl End<'_> {
    fn new() -> Self {
        Self {
            state: Where::Outside,
            pin: None,
            ticket: None,
            begin: 0,
            end: 0,
            at: 0,
            given: false,
            key: Vec::new(),
            prefix_len: 0,
            new_leaf: false,
            last_leaf: false,
            fence: Vec::new(),
            leaves: 0,
            highest_lsn: 0,
            window: 0,
            ahead: 0,
            scratch: Vec::new(),
        }
    }

    fn reached(&mut self) -> Option<u64> {
        (std::mem::take(&mut self.leaves) > 0).then(|| std::mem::take(&mut self.highest_lsn))
    }

    fn finish(&mut self) {
        self.state = Where::Over;
        self.pin = None;
        self.ticket = None;
    }
}

/// An entry of a scan: key and value lie in the scan's own memory and in the pinned leaf.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'s> {
    /// The key.
    pub(crate) key: &'s [u8],
    /// The value, or where it lies.
    pub(crate) value: CellValue<'s>,
}

/// Which way an end goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Forward,
    Backward,
}

impl Tree {
    /// The entries between two bounds. Nothing is read yet.
    pub(crate) fn scan<'p>(&self, pool: &'p Pool, lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> Scan<'p> {
        let (lower, upper) = (lower.map(<[u8]>::to_vec), upper.map(<[u8]>::to_vec));
        Scan { tree: *self, pool, lower, upper, front: End::new(), back: End::new() }
    }
}

impl<'p> Scan<'p> {
    /// The next entry from the front.
    ///
    /// # Errors
    /// Those of reading pages.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Entry<'_>>> {
        if self.front.begin == self.front.end && !self.load_forward()? {
            return Ok(None);
        }
        let end = &mut self.front;
        end.at = end.begin;
        end.begin += 1;
        let at = end.at;
        Ok(self.give(Way::Forward, at))
    }

    /// The next entry from the back.
    ///
    /// # Errors
    /// Those of reading pages.
    #[inline]
    pub(crate) fn next_back(&mut self) -> Result<Option<Entry<'_>>> {
        if self.back.begin == self.back.end && !self.load_backward()? {
            return Ok(None);
        }
        let end = &mut self.back;
        end.end -= 1;
        end.at = end.end;
        let at = end.at;
        Ok(self.give(Way::Backward, at))
    }

    /// Gives the entry at `at` of an end's leaf, unless the ends have met.
    #[inline]
    fn give(&mut self, way: Way, at: usize) -> Option<Entry<'_>> {
        let (end, other) = match way {
            Way::Forward => (&mut self.front, &mut self.back),
            Way::Backward => (&mut self.back, &mut self.front),
        };
        let leaf = Leaf::new(end.pin.as_ref()?);
        if end.new_leaf {
            end.new_leaf = false;
            end.prefix_len = leaf.prefix_len();
            end.key.clear();
            end.key.extend_from_slice(leaf.prefix());
        }
        end.key.truncate(end.prefix_len);
        end.key.extend_from_slice(leaf.suffix(at));
        if other.given {
            let met = match way {
                Way::Forward => end.key >= other.key,
                Way::Backward => end.key <= other.key,
            };
            if met {
                // Neither end has anything more to give: all between them was given.
                (end.state, end.begin) = (Where::Over, end.end);
                (other.state, other.begin) = (Where::Over, other.end);
                return None;
            }
        }
        end.given = true;
        Some(Entry { key: &end.key, value: leaf.value(at) })
    }

    /// Calls `f` with the key and value of every entry left, from the front, until it returns `false`: the
    /// fastest way through a range. Says whether the end was reached.
    ///
    /// # Errors
    /// Those of reading pages.
    pub(crate) fn for_each(&mut self, mut f: impl FnMut(&[u8], CellValue<'_>) -> bool) -> Result<bool> {
        loop {
            if self.back.given {
                // Rare, and every key is to be compared with that of the other end.
                match self.next()? {
                    None => return Ok(true),
                    Some(entry) if f(entry.key, entry.value) => continue,
                    Some(_) => return Ok(false),
                }
            }
            if self.front.begin == self.front.end && !self.load_forward()? {
                return Ok(true);
            }
            let end = &mut self.front;
            let Some(pin) = &end.pin else { continue };
            let leaf = Leaf::new(pin);
            end.new_leaf = false;
            end.given = true;
            end.prefix_len = leaf.prefix_len();
            end.key.clear();
            end.key.extend_from_slice(leaf.prefix());
            while end.begin < end.end {
                let at = end.begin;
                if at + CELLS_AHEAD < end.end {
                    prefetch(leaf.cell_bytes(at + CELLS_AHEAD));
                }
                end.key.truncate(end.prefix_len);
                end.key.extend_from_slice(leaf.suffix(at));
                end.at = at;
                end.begin += 1;
                if !f(&end.key, leaf.value(at)) {
                    return Ok(false);
                }
            }
        }
    }

    /// The pin on the leaf of the entry that [`Self::next`] gave last, to be cloned by who keeps the value.
    pub(crate) fn front_pin(&self) -> Option<(&PagePin<'p>, std::ops::Range<usize>)> {
        let pin = self.front.pin.as_ref()?;
        Some((pin, Leaf::new(pin).value_range(self.front.at)))
    }

    /// The same for [`Self::next_back`].
    pub(crate) fn back_pin(&self) -> Option<(&PagePin<'p>, std::ops::Range<usize>)> {
        let pin = self.back.pin.as_ref()?;
        Some((pin, Leaf::new(pin).value_range(self.back.at)))
    }

    /// The key that [`Self::next`] gave last.
    pub(crate) fn front_key(&self) -> &[u8] {
        &self.front.key
    }

    /// The key that [`Self::next_back`] gave last.
    pub(crate) fn back_key(&self) -> &[u8] {
        &self.back.key
    }

    /// The highest LSN applied to any of the leaves that the front has reached since this was last called; `None` if it
    /// is still in the same one.
    pub(crate) fn front_reached(&mut self) -> Option<u64> {
        self.front.reached()
    }

    /// The same for the back.
    pub(crate) fn back_reached(&mut self) -> Option<u64> {
        self.back.reached()
    }

    /// A reader of an overflow value among the entries of the leaf that [`Self::next`] is in.
    ///
    /// # Errors
    /// Those of reading pages.
    pub(crate) fn front_reader(&self, value: OverflowRef) -> Result<OverflowReader<'p>> {
        self.reader(&self.front, value)
    }

    /// The same for [`Self::next_back`].
    ///
    /// # Errors
    /// Those of reading pages.
    pub(crate) fn back_reader(&self, value: OverflowRef) -> Result<OverflowReader<'p>> {
        self.reader(&self.back, value)
    }

    fn reader(&self, end: &End<'p>, value: OverflowRef) -> Result<OverflowReader<'p>> {
        let ticket = end.ticket.clone().unwrap_or_else(|| self.pool.ticket());
        OverflowReader::new(self.tree, self.pool, value, ticket)
    }

    /// Moves the front to a leaf with entries; `false` at the end.
    #[cold]
    fn load_forward(&mut self) -> Result<bool> {
        loop {
            let end = &mut self.front;
            match end.state {
                Where::Over => {
                    end.finish();
                    return Ok(false);
                }
                Where::Outside => {
                    let target = match &self.lower {
                        Bound::Unbounded => Target::First,
                        Bound::Included(key) | Bound::Excluded(key) => Target::Key(key),
                    };
                    reach(self.tree, self.pool, end, target, Way::Forward)?;
                }
                Where::Inside if end.last_leaf => {
                    end.finish();
                    return Ok(false);
                }
                Where::Inside => {
                    let fence = std::mem::take(&mut end.fence);
                    reach(self.tree, self.pool, end, Target::Key(&fence), Way::Forward)?;
                    end.fence = fence;
                }
            }
            let Some(pin) = end.pin.as_ref() else { continue };
            let leaf = Leaf::new(pin);
            end.begin = match (end.state, &self.lower) {
                (Where::Outside, Bound::Included(key)) => leaf.lower_bound(key),
                (Where::Outside, Bound::Excluded(key)) => after(leaf, key),
                (Where::Outside, Bound::Unbounded) => 0,
                // The leaf may have been merged with the one before it, whose keys were given already.
                _ => leaf.lower_bound(&end.fence),
            };
            let (stop, last) = upper_end(leaf, &self.upper);
            end.end = stop.max(end.begin);
            end.last_leaf = last || leaf.upper().is_none();
            end.fence.clear();
            end.fence.extend_from_slice(leaf.upper().unwrap_or_default());
            end.state = Where::Inside;
            if end.begin < end.end {
                return Ok(true);
            }
        }
    }

    /// Moves the back to a leaf with entries; `false` at the beginning.
    #[cold]
    fn load_backward(&mut self) -> Result<bool> {
        loop {
            let end = &mut self.back;
            let (bound, inclusive) = match end.state {
                Where::Over => {
                    end.finish();
                    return Ok(false);
                }
                Where::Outside => match &self.upper {
                    Bound::Unbounded => (None, false),
                    Bound::Included(key) => (Some(key.clone()), true),
                    Bound::Excluded(key) => (Some(key.clone()), false),
                },
                Where::Inside if end.last_leaf => {
                    end.finish();
                    return Ok(false);
                }
                Where::Inside => (Some(std::mem::take(&mut end.fence)), false),
            };
            let target = match &bound {
                None => Target::Last,
                Some(key) if inclusive => Target::Key(key),
                // Nothing is less than the empty key.
                Some(key) if key.is_empty() => {
                    end.finish();
                    return Ok(false);
                }
                Some(key) => Target::Before(key),
            };
            reach(self.tree, self.pool, end, target, Way::Backward)?;
            let Some(pin) = end.pin.as_ref() else { continue };
            let leaf = Leaf::new(pin);
            end.end = match (end.state, &self.upper, &bound) {
                // The leaf may have been merged with the one behind it, whose keys were given already.
                (Where::Inside, _, Some(fence)) => leaf.lower_bound(fence),
                (_, upper, _) => upper_end(leaf, upper).0,
            };
            let (start, last) = lower_end(leaf, &self.lower);
            end.begin = start.min(end.end);
            end.last_leaf = last || leaf.lower().is_empty();
            end.fence.clear();
            end.fence.extend_from_slice(leaf.lower());
            end.state = Where::Inside;
            if end.begin < end.end {
                return Ok(true);
            }
        }
    }
}

/// Index of the first key greater than `key`.
fn after(leaf: Leaf<'_>, key: &[u8]) -> usize {
    let at = leaf.lower_bound(key);
    at + usize::from(at < leaf.count() && is_key(leaf, at, key))
}

/// The key at `at` is `key`.
fn is_key(leaf: Leaf<'_>, at: usize, key: &[u8]) -> bool {
    leaf.key_len(at) == key.len() && key.starts_with(leaf.prefix()) && key.ends_with(leaf.suffix(at))
}

/// Where the entries within the upper bound end in this leaf, and whether the bound ends in it.
fn upper_end(leaf: Leaf<'_>, upper: &Bound<Vec<u8>>) -> (usize, bool) {
    match upper {
        Bound::Unbounded => (leaf.count(), false),
        Bound::Included(key) if leaf.upper().is_some_and(|fence| fence <= key.as_slice()) => {
            (leaf.count(), false)
        }
        Bound::Included(key) => (after(leaf, key), true),
        Bound::Excluded(key) if leaf.upper().is_some_and(|fence| fence < key.as_slice()) => {
            (leaf.count(), false)
        }
        Bound::Excluded(key) => (leaf.lower_bound(key), true),
    }
}

/// Where the entries within the lower bound begin in this leaf, and whether the bound begins in it.
fn lower_end(leaf: Leaf<'_>, lower: &Bound<Vec<u8>>) -> (usize, bool) {
    match lower {
        Bound::Unbounded => (0, false),
        Bound::Included(key) | Bound::Excluded(key) if leaf.lower() > key.as_slice() => (0, false),
        Bound::Included(key) => (leaf.lower_bound(key), true),
        Bound::Excluded(key) => (after(leaf, key), true),
    }
}

/// Brings an end to the leaf that `target` names: pinned, with fences as the parent has them, and with a
/// ticket if it has values in overflow pages.
fn reach<'p>(tree: Tree, pool: &'p Pool, end: &mut End<'p>, target: Target<'_>, way: Way) -> Result<()> {
    // One pin an end: the old leaf goes before the new one is looked for.
    end.pin = None;
    end.ticket = None;
    let first = end.state == Where::Outside;
    let access = if first { Access::Point } else { Access::Scan };
    end.window = if first { 0 } else { (end.window * 2).clamp(2, WINDOW_MAX) };
    let mut retry = Retry::default();
    let mut wanted: Vec<PageId> = Vec::new();
    loop {
        let obstacle = {
            let guard = pool.guard();
            match tree.descend(&guard, target, 0)? {
                Step::At(place) => {
                    if let Some(pin) = guard.pin(place.page, place.word, access)
                        && place.parent_unchanged(&guard)
                    {
                        let leaf = tree.leaf(place.page, &pin)?;
                        if place.fences_agree(leaf, &mut end.scratch) {
                            look_ahead(&guard, &place, end, way, &mut wanted);
                            drop(guard);
                            if leaf.has_overflow() {
                                point();
                                let ticket = pool.ticket();
                                if !pin.is_current() {
                                    // Values of this leaf may have been freed before the ticket.
                                    retry.again(pool)?;
                                    continue;
                                }
                                end.ticket = Some(ticket);
                            }
                            end.new_leaf = true;
                            end.leaves += 1;
                            end.highest_lsn = end.highest_lsn.max(max_lsn(&pin));
                            end.pin = Some(pin);
                            if !wanted.is_empty() {
                                pool.prefetch(&wanted);
                            }
                            return Ok(());
                        }
                        tree.disagree(&guard, &place, &retry)?;
                    }
                    Obstacle::Busy
                }
                step => retry.obstacle(&guard, &step)?,
            }
        };
        retry.after(pool, obstacle, access)?;
    }
}

/// Notes which of the leaves to come are not in memory, once half of those asked for before are used up.
fn look_ahead(guard: &Guard<'_>, place: &Place<'_>, end: &mut End<'_>, way: Way, wanted: &mut Vec<PageId>) {
    let parent = place.parent_node();
    let to_come = match way {
        Way::Forward => parent.count() - place.slot,
        Way::Backward => place.slot,
    };
    if end.window == 0 || to_come == 0 {
        end.ahead = 0;
        return;
    }
    // The leaf just reached was one of those asked for.
    let asked = end.ahead.saturating_sub(1).min(to_come);
    let child = |n: usize| match way {
        Way::Forward => parent.child(place.slot + n),
        Way::Backward => parent.child(place.slot - n),
    };
    // In memory, the lines of the next leaf.
    guard.prefetch(guard.word(child(1)));
    end.ahead = asked;
    if asked * 2 > end.window {
        return;
    }
    let until = end.window.min(to_come);
    wanted.clear();
    for n in asked + 1..=until {
        let page = child(n);
        if guard.word(page).state() == PageState::Absent {
            wanted.push(page);
        }
    }
    end.ahead = until;
}
