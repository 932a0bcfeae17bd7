//! The entries of a range as a snapshot or a transaction sees them: the tree's leaves, under what the history says
//! about them, under the transaction's own writes.
//!
//! Each direction is merged for itself; the two ends meet by key, as those of a scan of the tree do.
//!
//! *Tree and history.* An end of the tree's scan sees each leaf as it was when it was pinned. The history must be read
//! after that (see [`super::history`]). So whenever the end has reached leaves that may hold what the snapshot must not
//! see (their highest LSN is not below its `low_lsn`), the walk through the history begins anew, behind the last key
//! that was given: it then says everything about the leaves reached so far, and whatever it has in common with later
//! leaves is repeated when they are reached. Leaves that hold nothing newer than the snapshot need no history; a walk
//! that goes on into them finds nothing there, or what they themselves say.

use std::ops::Bound;
use std::sync::Arc;

use bedstone_bufpool::PagePin;

use crate::btree::node::CellValue;
use crate::btree::{OverflowReader, OverflowRef, Scan};
use crate::catalog::TableState;
use crate::error::Result;
use crate::shared::Shared;
pub(crate) use crate::txn::history::Way;
use crate::txn::history::{Answer, HistoryScan, Old};
use crate::txn::versions::View;

/// A key written by the transaction itself, and its value or `None` for a delete.
pub(crate) type OwnEntry = (Vec<u8>, Option<Vec<u8>>);

/// Entries written by the transaction itself, in order, from both ends. The ends need not mind each other.
pub(crate) trait Own {
    /// The next one in this direction.
    fn next(&mut self, way: Way) -> Result<Option<OwnEntry>>;
}

/// Where the value of the entry that was given last is.
pub(crate) enum Given {
    /// In the leaf that this end of the tree's scan is in.
    InLeaf,
    /// In pages of its own, referred to by that leaf.
    LongInLeaf(OverflowRef),
    /// In pages of its own that were replaced since.
    LongOld(OverflowRef),
    /// Here.
    Bytes(Vec<u8>),
}

/// A merged range.
pub(crate) struct Merge<'p> {
    shared: &'p Shared,
    table: &'p TableState,
    view: Arc<View>,
    own: Option<Box<dyn Own + 'p>>,
    lower: Bound<Vec<u8>>,
    upper: Bound<Vec<u8>>,
    front: End<'p>,
    back: End<'p>,
    over: bool,
}

/// One direction. It has a scan of its own: the two ends of one scan would meet at what one of them has only looked
/// at.
struct End<'p> {
    way: Way,
    scan: Scan<'p>,
    /// The tree's next entry, not given yet: its key lies in the scan. `None`: not looked for.
    tree: Option<TreeNext>,
    history: Option<HistoryScan<'p>>,
    own: Option<OwnNext>,
    /// The key given last.
    key: Vec<u8>,
    given: bool,
    /// The key that is nearest now.
    next_key: Vec<u8>,
}

#[derive(Clone, Copy)]
enum TreeNext {
    InLeaf,
    Long(OverflowRef),
    End,
}

enum OwnNext {
    Entry(Vec<u8>, Option<Vec<u8>>),
    End,
}

impl<'p> Merge<'p> {
    pub(crate) fn new(
        shared: &'p Shared,
        table: &'p TableState,
        view: Arc<View>,
        own: Option<Box<dyn Own + 'p>>,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
    ) -> Self {
        let end = |way| End {
            way,
            scan: table.tree.scan(&shared.pool, lower, upper),
            tree: None,
            history: None,
            own: None,
            key: Vec::new(),
            given: false,
            next_key: Vec::new(),
        };
        let (front, back) = (end(Way::Forward), end(Way::Backward));
        let (lower, upper) = (lower.map(<[u8]>::to_vec), upper.map(<[u8]>::to_vec));
        Self { shared, table, view, own, lower, upper, front, back, over: false }
    }

    fn end(&self, way: Way) -> &End<'p> {
        match way {
            Way::Forward => &self.front,
            Way::Backward => &self.back,
        }
    }

    /// The key given last in this direction.
    pub(crate) fn key(&self, way: Way) -> &[u8] {
        &self.end(way).key
    }

    /// For [`Given::InLeaf`]: the pinned leaf, and where in it the value lies.
    pub(crate) fn pin(&self, way: Way) -> Option<(&PagePin<'p>, std::ops::Range<usize>)> {
        match way {
            Way::Forward => self.front.scan.front_pin(),
            Way::Backward => self.back.scan.back_pin(),
        }
    }

    /// For [`Given::LongInLeaf`]: a reader of the value.
    pub(crate) fn reader(&self, way: Way, value: OverflowRef) -> Result<OverflowReader<'p>> {
        let reader = match way {
            Way::Forward => self.front.scan.front_reader(value),
            Way::Backward => self.back.scan.back_reader(value),
        };
        reader.map_err(|e| self.shared.pool_error(e))
    }

    /// The next entry in this direction; its key is [`Merge::key`] from then on.
    pub(crate) fn next(&mut self, way: Way) -> Result<Option<Given>> {
        while !self.over {
            self.fill(way)?;
            let (end, other) = match way {
                Way::Forward => (&mut self.front, &self.back),
                Way::Backward => (&mut self.back, &self.front),
            };
            let found = end.nearest(&self.view)?;
            let met = other.given && !way.is_before(&end.next_key, &other.key);
            if !found || met {
                self.over = true;
                break;
            }
            std::mem::swap(&mut end.key, &mut end.next_key);
            end.given = true;
            if let Some(given) = end.pass() {
                return Ok(Some(given));
            }
        }
        Ok(None)
    }

    /// Sees that the tree's next entry and the next own one are known.
    fn fill(&mut self, way: Way) -> Result<()> {
        let end = match way {
            Way::Forward => &mut self.front,
            Way::Backward => &mut self.back,
        };
        if end.own.is_none() {
            end.own = Some(match &mut self.own {
                None => OwnNext::End,
                Some(own) => own.next(way)?.map_or(OwnNext::End, |(key, value)| OwnNext::Entry(key, value)),
            });
        }
        if end.tree.is_some() {
            return Ok(());
        }
        let (next, reached) = end.advance().map_err(|e| self.shared.pool_error(e))?;
        end.tree = Some(next);
        if reached.is_some_and(|lsn| lsn >= self.view.low_lsn) {
            let (lower, upper) = (borrowed(&self.lower), borrowed(&self.upper));
            let (lower, upper) = match (end.given, way) {
                (false, _) => (lower, upper),
                (true, Way::Forward) => (Bound::Excluded(&end.key[..]), upper),
                (true, Way::Backward) => (lower, Bound::Excluded(&end.key[..])),
            };
            end.history = HistoryScan::new(self.shared, self.table, &self.view, way, lower, upper);
        }
        Ok(())
    }
}

impl End<'_> {
    /// The tree's next entry, and the highest LSN of the leaves that were reached on the way to it.
    fn advance(&mut self) -> bedstone_bufpool::Result<(TreeNext, Option<u64>)> {
        let entry = match self.way {
            Way::Forward => self.scan.next()?,
            Way::Backward => self.scan.next_back()?,
        };
        let next = match entry.map(|entry| entry.value) {
            None => TreeNext::End,
            Some(CellValue::Inline(_)) => TreeNext::InLeaf,
            Some(CellValue::Overflow(value)) => TreeNext::Long(value),
        };
        let reached = match self.way {
            Way::Forward => self.scan.front_reached(),
            Way::Backward => self.scan.back_reached(),
        };
        Ok((next, reached))
    }

    fn tree_key(&self) -> Option<&[u8]> {
        match (self.tree, self.way) {
            (None | Some(TreeNext::End), _) => None,
            (_, Way::Forward) => Some(self.scan.front_key()),
            (_, Way::Backward) => Some(self.scan.back_key()),
        }
    }

    /// Finds the nearest key of the three and notes it; `false` if there is none.
    fn nearest(&mut self, view: &View) -> Result<bool> {
        let history = match &mut self.history {
            Some(history) => history.peek(view)?,
            None => None,
        };
        let tree = match (self.tree, self.way) {
            (None | Some(TreeNext::End), _) => None,
            (_, Way::Forward) => Some(self.scan.front_key()),
            (_, Way::Backward) => Some(self.scan.back_key()),
        };
        let own = match &self.own {
            Some(OwnNext::Entry(key, _)) => Some(&key[..]),
            _ => None,
        };
        let nearer = |a, b| if self.way.is_before(b, a) { b } else { a };
        let Some(key) = [history, tree, own].into_iter().flatten().reduce(nearer) else { return Ok(false) };
        self.next_key.clear();
        self.next_key.extend_from_slice(key);
        Ok(true)
    }

    /// Goes past the key that was just set, in all three, and says what is there for the reader: what the transaction
    /// wrote, else what the history says, else what the tree has.
    fn pass(&mut self) -> Option<Given> {
        let mut given = None;
        if self.tree_key() == Some(&self.key) {
            let unversioned = self.history.as_ref().map(|history| history.unversioned(&self.key));
            given = match (unversioned, self.tree.take()) {
                (Some(Answer::Was(_)), _) | (_, None | Some(TreeNext::End)) => None,
                (_, Some(TreeNext::Long(value))) => Some(Given::LongInLeaf(value)),
                (_, Some(TreeNext::InLeaf)) => Some(Given::InLeaf),
            };
        }
        if let Some(history) = &mut self.history
            && history.stands_at(&self.key)
        {
            given = match history.take() {
                Some(Old::Inline(bytes)) => Some(Given::Bytes(bytes)),
                Some(Old::Long(value)) => Some(Given::LongOld(value)),
                Some(Old::Absent) | None => None,
            };
        }
        if matches!(&self.own, Some(OwnNext::Entry(key, _)) if *key == self.key)
            && let Some(OwnNext::Entry(_, value)) = self.own.take()
        {
            given = value.map(Given::Bytes);
        }
        given
    }
}

fn borrowed(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(|key| &key[..])
}
