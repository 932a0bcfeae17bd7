//! Walking through the old versions of a range of keys.

use std::ops::Bound;

use super::record;
use super::{Answer, Old, bad_list};
use crate::btree::node::CellValue;
use crate::btree::{Scan, Tree};
use crate::catalog::TableState;
use crate::error::Result;
use crate::shared::Shared;
use crate::txn::versions::View;

/// From which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Forward,
    Backward,
}

impl Way {
    /// In this direction `a` comes before `b`.
    pub(crate) fn is_before(self, a: &[u8], b: &[u8]) -> bool {
        match self {
            Way::Forward => a < b,
            Way::Backward => a > b,
        }
    }
}

/// The keys of a range about which the history has something to say to one snapshot, in one direction.
pub(crate) struct HistoryScan<'p> {
    shared: &'p Shared,
    way: Way,
    /// One for each generation, the oldest first.
    sources: Vec<Source<'p>>,
    /// Commits that the snapshot does not see, and the key from which on nothing existed before each.
    marks: Vec<(u64, Vec<u8>)>,
}

struct Source<'p> {
    scan: Scan<'p>,
    key: Vec<u8>,
    /// The version of `key` that the snapshot sees. `None`: look further.
    version: Option<(u64, Old)>,
    over: bool,
}

impl<'p> HistoryScan<'p> {
    /// `None` if the history has nothing to say. The leaves of the range that are about to be merged with this must
    /// have been pinned before.
    pub(crate) fn new(
        shared: &'p Shared,
        table: &TableState,
        view: &View,
        way: Way,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
    ) -> Option<Self> {
        if table.history.is_empty() {
            return None;
        }
        let marks = table.history.marks(view);
        let source = |tree: Tree| Source {
            scan: tree.scan(&shared.pool, lower, upper),
            key: Vec::new(),
            version: None,
            over: false,
        };
        let sources: Vec<_> = table.history.relevant(view).into_iter().map(source).collect();
        (!sources.is_empty() || !marks.is_empty()).then_some(Self { shared, way, sources, marks })
    }

    /// The next key with a version, without going past it.
    pub(crate) fn peek(&mut self, view: &View) -> Result<Option<&[u8]>> {
        let shared = self.shared;
        for source in &mut self.sources {
            source.fill(shared, self.way, view)?;
        }
        Ok(self.best().map(|i| &self.sources[i].key[..]))
    }

    /// The key that [`HistoryScan::peek`] gave is this one.
    pub(crate) fn stands_at(&self, key: &[u8]) -> bool {
        self.best().is_some_and(|i| self.sources[i].key == key)
    }

    /// Goes past the key that [`HistoryScan::peek`] gave; what the snapshot sees there.
    pub(crate) fn take(&mut self) -> Option<Old> {
        let key = self.sources[self.best()?].key.clone();
        let mut seen = None;
        for source in self.sources.iter_mut().filter(|source| source.key == key) {
            // The oldest generation that has the key has the oldest version of it.
            let version = source.version.take();
            seen = seen.or(version);
        }
        let (csn, old) = seen?;
        Some(match self.mark_over(&key) {
            Some(mark) if mark < csn => Old::Absent,
            _ => old,
        })
    }

    /// A key without a version of its own: what the marks say about it.
    pub(crate) fn unversioned(&self, key: &[u8]) -> Answer {
        match self.mark_over(key) {
            Some(_) => Answer::Was(Old::Absent),
            None => Answer::AsInLeaf,
        }
    }

    /// A mark may concern keys below `upper`.
    pub(crate) fn is_marked_below(&self, upper: Bound<&[u8]>) -> bool {
        self.marks.iter().any(|(_, from)| match upper {
            Bound::Unbounded => true,
            Bound::Included(upper) => &from[..] <= upper,
            Bound::Excluded(upper) => &from[..] < upper,
        })
    }

    fn mark_over(&self, key: &[u8]) -> Option<u64> {
        self.marks.iter().filter(|(_, from)| key >= &from[..]).map(|mark| mark.0).min()
    }

    fn best(&self) -> Option<usize> {
        let open = self.sources.iter().enumerate().filter(|(_, source)| source.version.is_some());
        let mut best: Option<(usize, &[u8])> = None;
        for (i, source) in open {
            if best.is_none_or(|(_, key)| self.way.is_before(&source.key, key)) {
                best = Some((i, &source.key));
            }
        }
        best.map(|(i, _)| i)
    }
}

impl Source<'_> {
    /// Moves on to the next key with a version for the snapshot, unless it stands at one.
    fn fill(&mut self, shared: &Shared, way: Way, view: &View) -> Result<()> {
        while self.version.is_none() && !self.over {
            let entry = match way {
                Way::Forward => self.scan.next(),
                Way::Backward => self.scan.next_back(),
            };
            let Some(entry) = entry.map_err(|e| shared.pool_error(e))? else {
                self.over = true;
                return Ok(());
            };
            self.key.clear();
            self.key.extend_from_slice(entry.key);
            let version = match entry.value {
                CellValue::Inline(list) => record::seen_by(list, view).map(|v| (v.csn, v.old())),
                CellValue::Overflow(value) => {
                    let reader = match way {
                        Way::Forward => self.scan.front_reader(value),
                        Way::Backward => self.scan.back_reader(value),
                    };
                    let list = reader.and_then(|mut r| r.read_all()).map_err(|e| shared.pool_error(e))?;
                    record::seen_by(&list, view).map(|v| (v.csn, v.old()))
                }
            };
            self.version = match version {
                None => None,
                Some((csn, old)) => Some((csn, old.ok_or_else(bad_list)?)),
            };
        }
        Ok(())
    }
}
