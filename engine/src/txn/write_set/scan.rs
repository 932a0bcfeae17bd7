//! Walking through the writes of one table, in memory and moved out, from either end.
//!
//! Every layer that has writes of the table gives up to two sources, its memory and its tree; the newest comes
//! first. In each direction every source shows its next key; the nearest of them is given, from the newest source
//! that shows it, and all that show it go on. Each direction goes its own way through the sources, because the two
//! ends of one walk would meet at what one of them has only looked at. Where they meet is the caller's business.
//!
//! Nothing is copied but the key given last and values in pages of their own. A source in a tree holds one pin in
//! each direction in use.

use std::ops::Bound;

use bedstone_bufpool::PoolError;

use super::memory::{Memory, Place, untag};
use crate::btree::node::CellValue;
use crate::btree::{OverflowRef, Scan, Tree};
use crate::error::{Error, Result};
use crate::shared::Shared;

/// A write: a key, and the value it is set to, or `None` if it is deleted.
pub(crate) type Written<'s> = (&'s [u8], Option<&'s [u8]>);

/// From which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Front,
    Back,
}

/// The writes of one table in a range of keys. After an error it should be given up.
pub(crate) struct WriteScan<'w> {
    shared: &'w Shared,
    lower: Bound<Vec<u8>>,
    upper: Bound<Vec<u8>>,
    /// The newest first.
    places: Vec<Layer<'w>>,
    front: End<'w>,
    back: End<'w>,
}

/// Where writes are.
pub(super) enum Layer<'w> {
    Memory(&'w Memory, (Place, Place)),
    Tree(Tree),
}

/// One direction.
struct End<'w> {
    side: Side,
    /// Made when this direction is first used; one for each place.
    sources: Option<Vec<Source<'w>>>,
    /// The key given last, which source it came from, and its value if that was in pages of its own.
    key: Vec<u8>,
    from: usize,
    long: Vec<u8>,
}

struct Source<'w> {
    walk: Walk<'w>,
    head: Head,
    /// The head was given, or a newer source's instead.
    taken: bool,
}

enum Walk<'w> {
    /// The part of the memory that is still to come.
    Memory(&'w Memory, Place, Place),
    Tree(Box<Scan<'w>>),
}

#[derive(Clone, Copy)]
enum Head {
    None,
    Memory(Place),
    InLeaf,
    Long(OverflowRef),
}

impl<'w> WriteScan<'w> {
    pub(super) fn new(
        shared: &'w Shared,
        places: Vec<Layer<'w>>,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
    ) -> Self {
        let in_trees = places.iter().any(|p| matches!(p, Layer::Tree(_)));
        let bound = |b: Bound<&[u8]>| if in_trees { b.map(<[u8]>::to_vec) } else { Bound::Unbounded };
        let end = |side| End { side, sources: None, key: Vec::new(), from: 0, long: Vec::new() };
        Self {
            shared,
            lower: bound(lower),
            upper: bound(upper),
            places,
            front: end(Side::Front),
            back: end(Side::Back),
        }
    }

    /// The next write from the front.
    ///
    /// # Errors
    /// Those of reading pages.
    pub(crate) fn next(&mut self) -> Result<Option<Written<'_>>> {
        Ok(if self.advance(Side::Front)? { Some(self.current(Side::Front)) } else { None })
    }

    /// Goes to the next write from one end, whatever the other end gave; `false` when there is none.
    ///
    /// # Errors
    /// Those of reading pages.
    pub(crate) fn advance(&mut self, side: Side) -> Result<bool> {
        let Self { shared, lower, upper, places, front, back, .. } = self;
        let end = match side {
            Side::Front => front,
            Side::Back => back,
        };
        let sources = end.sources.get_or_insert_with(|| {
            let source = |place: &Layer<'w>| {
                let walk = match *place {
                    Layer::Memory(memory, (begin, end)) => Walk::Memory(memory, begin, end),
                    Layer::Tree(tree) => {
                        let (lower, upper) = (lower.as_ref(), upper.as_ref());
                        let (lower, upper) = (lower.map(Vec::as_slice), upper.map(Vec::as_slice));
                        Walk::Tree(Box::new(tree.scan(&shared.pool, lower, upper)))
                    }
                };
                Source { walk, head: Head::None, taken: true }
            };
            places.iter().map(source).collect()
        });
        let mut nearest: Option<usize> = None;
        for i in 0..sources.len() {
            if std::mem::take(&mut sources[i].taken) {
                sources[i].go_on(shared, side)?;
            }
            let Some(key) = sources[i].key(side) else { continue };
            let nearer = nearest.and_then(|n| sources[n].key(side)).is_none_or(|other| match side {
                Side::Front => key < other,
                Side::Back => key > other,
            });
            if nearer {
                nearest = Some(i);
            }
        }
        let Some(from) = nearest else {
            return Ok(false);
        };
        end.key.clear();
        end.key.extend_from_slice(sources[from].key(side).unwrap_or_default());
        end.from = from;
        for source in &mut sources[from..] {
            source.taken = source.key(side) == Some(&end.key);
        }
        if let Head::Long(long) = sources[from].head {
            end.long = sources[from].read_long(shared, side, long)?;
        }
        Ok(true)
    }

    /// The write that [`WriteScan::advance`] went to.
    pub(crate) fn current(&self, side: Side) -> Written<'_> {
        let end = match side {
            Side::Front => &self.front,
            Side::Back => &self.back,
        };
        let source = end.sources.as_ref().and_then(|sources| sources.get(end.from));
        (&end.key, source.and_then(|source| source.value(end)))
    }
}

impl<'w> Source<'w> {
    /// Shows the next entry.
    fn go_on(&mut self, shared: &Shared, side: Side) -> Result<()> {
        self.head = match &mut self.walk {
            Walk::Memory(memory, begin, end) => match side {
                Side::Front => match memory.forward(*begin, *end) {
                    Some((entry, next)) => {
                        *begin = next;
                        Head::Memory(entry)
                    }
                    None => Head::None,
                },
                Side::Back => match memory.backward(*end, *begin) {
                    Some(entry) => {
                        *end = entry;
                        Head::Memory(entry)
                    }
                    None => Head::None,
                },
            },
            Walk::Tree(scan) => {
                shared.readable()?;
                let entry = match side {
                    Side::Front => scan.next(),
                    Side::Back => scan.next_back(),
                };
                match entry.map_err(|e| reading_error(shared, e))?.map(|entry| entry.value) {
                    None => Head::None,
                    Some(CellValue::Inline(_)) => Head::InLeaf,
                    Some(CellValue::Overflow(long)) => Head::Long(long),
                }
            }
        };
        Ok(())
    }

    fn key(&self, side: Side) -> Option<&[u8]> {
        match (&self.walk, self.head) {
            (_, Head::None) => None,
            (Walk::Memory(memory, ..), Head::Memory(place)) => Some(memory.key(place)),
            (Walk::Tree(scan), _) => Some(match side {
                Side::Front => scan.front_key(),
                Side::Back => scan.back_key(),
            }),
            (Walk::Memory(..), _) => None,
        }
    }

    fn value<'s>(&'s self, end: &'s End<'w>) -> Option<&'s [u8]> {
        match (&self.walk, self.head) {
            (Walk::Memory(memory, ..), Head::Memory(place)) => memory.value(place),
            (Walk::Tree(scan), Head::InLeaf) => {
                let (pin, range) = match end.side {
                    Side::Front => scan.front_pin(),
                    Side::Back => scan.back_pin(),
                }?;
                untag(&pin[range])
            }
            (Walk::Tree(_), Head::Long(_)) => Some(&end.long),
            _ => None,
        }
    }

    fn read_long(&self, shared: &Shared, side: Side, long: OverflowRef) -> Result<Vec<u8>> {
        let Walk::Tree(scan) = &self.walk else { return Ok(Vec::new()) };
        let reader = match side {
            Side::Front => scan.front_reader(long),
            Side::Back => scan.back_reader(long),
        };
        reader.and_then(|mut reader| reader.read_all()).map_err(|e| reading_error(shared, e))
    }
}

/// An error of reading a temporary tree: after the database was closed that is what it means.
pub(super) fn reading_error(shared: &Shared, e: PoolError) -> Error {
    match shared.readable() {
        Err(closed) => closed,
        Ok(()) => shared.pool_error(e),
    }
}
