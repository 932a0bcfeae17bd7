//! Where images lie and which units and page ids may be used: the stable map of the last checkpoint, what has been
//! written since (one delta per checkpoint epoch), the free units, the free page ids.
//!
//! Laws:
//! 1. A unit that the stable map names is never given out. It becomes free when a newer checkpoint that no longer
//!    names it is durable.
//! 2. An image that replaces another one of the same page *in the same delta* frees that one at once: no checkpoint
//!    ever named it. Of two images the one captured later wins, in whichever order their writes end.
//! 3. The durable map is only ever the stable map plus the delta of the epoch being closed, never anything read from
//!    the translation words, which belong to later epochs already.
//! 4. A freed page id is given out again only after the checkpoint that contains the freeing is durable and every
//!    reader of that time has left.
//! 5. A freed overflow page that a reader with a ticket may still want keeps its translation word and its units until
//!    the ticket is gone, though the delta says "free" at once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bedstone_io::defect::{self, Defect};

use crate::error::PoolError;
use crate::header::PageId;
use crate::map::{Entry, MapUpdate, Stable};
use crate::table::Location;
use crate::units::Units;

/// What an epoch says about one page.
#[derive(Debug, Clone, Copy)]
struct Filed {
    /// `None`: freed.
    entry: Option<Entry>,
    /// Number of the capture (or of the freeing): later wins.
    capture: u64,
}

/// What was written and freed in one checkpoint epoch.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    pub(crate) epoch: u64,
    pages: BTreeMap<PageId, Filed>,
    /// Images captured whose writes have not ended.
    pub(crate) in_flight: usize,
    /// A write of one of its images failed: the checkpoint of this epoch must be given up.
    pub(crate) failed: Option<Arc<PoolError>>,
}

impl Delta {
    /// What the map must say after this epoch.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (PageId, Option<Entry>)> {
        self.pages.iter().map(|(&page, filed)| (page, filed.entry))
    }
}

/// A freed overflow page that still waits for readers.
#[derive(Debug, Default)]
struct Deferred {
    /// Images that no checkpoint names any more, kept for the readers.
    held: Vec<Entry>,
    /// The checkpoint that contains the freeing is durable.
    durable: bool,
}

#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) units: Units,
    /// Units of one page image.
    pub(crate) page_units: u64,
    pub(crate) stable: Stable,
    pub(crate) open: Delta,
    pub(crate) closing: Option<Delta>,
    free_ids: Vec<PageId>,
    pub(crate) next_id: u32,
    id_max: u32,
    deferred: BTreeMap<PageId, Deferred>,
    /// Deferred pages in the order of their freeing, each with its stamp.
    deferred_order: VecDeque<(u64, PageId)>,
    /// Stamp of the newest deferred freeing.
    free_stamp: u64,
    /// Tickets held, by the stamp at which they were taken.
    tickets: BTreeMap<u64, usize>,
    captures: u64,
    /// Units given back although the stable map names them, see [`Space::superseded`]: not to be given back again.
    pub(crate) early: BTreeSet<u64>,
}

impl Space {
    pub(crate) fn new(units: Units, stable: Stable, page_units: u64, next_id: u32, id_max: u32) -> Self {
        // The table has a word for each id up to the last one. Where there was less memory for it than in an earlier
        // life, ids that are free may lie behind it, and stay unused.
        let next_id = next_id.min(id_max.saturating_add(1));
        // Ids below the mark that the map does not name were freed, or handed out and never written.
        let free_ids = (2..next_id).rev().map(PageId).filter(|&page| stable.get(page).is_free()).collect();
        Self {
            units,
            page_units,
            stable,
            open: Delta { epoch: 1, ..Delta::default() },
            closing: None,
            free_ids,
            next_id: next_id.max(2),
            id_max,
            deferred: BTreeMap::new(),
            deferred_order: VecDeque::new(),
            free_stamp: 0,
            tickets: BTreeMap::new(),
            captures: 0,
            early: BTreeSet::new(),
        }
    }

    /// `count` page ids, or none if there are not so many left.
    pub(crate) fn take_ids(&mut self, count: usize, out: &mut Vec<PageId>) -> bool {
        let fresh = count.saturating_sub(self.free_ids.len());
        if fresh > self.id_max.saturating_sub(self.next_id) as usize {
            return false;
        }
        out.extend(self.free_ids.drain(self.free_ids.len() - (count - fresh)..).rev());
        for _ in 0..fresh {
            out.push(PageId(self.next_id));
            self.next_id += 1;
        }
        true
    }

    pub(crate) fn return_ids(&mut self, ids: impl IntoIterator<Item = PageId>) {
        self.free_ids.extend(ids.into_iter().filter(|&page| page > PageId::CATALOG_ROOT));
    }

    /// Takes the one id that is never in the free list (the catalog's root).
    pub(crate) fn claim_id(&mut self, page: PageId) {
        assert_eq!(page, PageId::CATALOG_ROOT, "only the catalog's root has a fixed id");
    }

    /// Number of a capture; later captures of a page have larger ones.
    pub(crate) fn next_capture(&mut self) -> u64 {
        self.captures += 1;
        self.captures
    }

    fn delta_of(&mut self, epoch: u64) -> &mut Delta {
        match &mut self.closing {
            Some(closing) if epoch <= closing.epoch => closing,
            _ => &mut self.open,
        }
    }

    /// An image of a page of `epoch` is about to be written.
    pub(crate) fn begin_image(&mut self, epoch: u64) {
        self.delta_of(epoch).in_flight += 1;
    }

    /// It will not be written after all, or its write failed with `error`.
    pub(crate) fn abandon_image(&mut self, epoch: u64, error: Option<Arc<PoolError>>) {
        let for_closing = self.closing.as_ref().is_some_and(|closing| epoch <= closing.epoch);
        let delta = self.delta_of(epoch);
        delta.in_flight -= 1;
        // In the open epoch the page is simply dirty still. The epoch being closed may have lost its only image.
        if for_closing {
            delta.failed = error;
        }
    }

    /// Its write has ended well.
    pub(crate) fn file_image(&mut self, page: PageId, epoch: u64, capture: u64, entry: Entry) {
        let for_closing = self.closing.as_ref().is_some_and(|closing| epoch <= closing.epoch);
        let deferred = self.deferred.contains_key(&page);
        let delta = self.delta_of(epoch);
        delta.in_flight -= 1;
        // A freed page's image belongs to no map; a reader with a ticket may still want it. Only the checkpoint being
        // closed can need the image of a page that was freed after its epoch.
        let freed = matches!(delta.pages.get(&page), Some(Filed { entry: None, .. }));
        if freed || (deferred && !for_closing) {
            self.give_back(page, entry);
            return;
        }
        let delta = self.delta_of(epoch);
        let useless = match delta.pages.get_mut(&page) {
            Some(filed) if filed.capture > capture => Some(entry),
            Some(filed) => {
                filed.capture = capture;
                filed.entry.replace(entry)
            }
            None => {
                delta.pages.insert(page, Filed { entry: Some(entry), capture });
                self.superseded(page);
                None
            }
        };
        if let Some(entry) = useless {
            self.give_back(page, entry);
        }
    }

    /// The page is freed in `epoch`.
    pub(crate) fn file_free(&mut self, page: PageId, epoch: u64) {
        let capture = self.next_capture();
        let delta = self.delta_of(epoch);
        let before = delta.pages.insert(page, Filed { entry: None, capture });
        if let Some(Filed { entry: Some(entry), .. }) = before {
            self.give_back(page, entry);
        }
        self.superseded(page);
    }

    /// A delta says something newer about the page than the stable map. Law 1: its image there stays in use all the same.
    fn superseded(&mut self, page: PageId) {
        let old = self.stable.get(page);
        if defect::is(Defect::ReuseEarly)
            && !old.is_free()
            && !self.is_deferred(page)
            && self.early.insert(old.unit())
        {
            self.free_units(old.unit(), old.units());
        }
    }

    /// Units of an image that no checkpoint names: free, unless a reader may still come for the page.
    pub(crate) fn give_back(&mut self, page: PageId, entry: Entry) {
        match self.deferred.get_mut(&page) {
            Some(deferred) => deferred.held.push(entry),
            None => self.free_units(entry.unit(), entry.units()),
        }
    }

    pub(crate) fn free_units(&mut self, unit: u64, units: u64) {
        let freed = self.units.free(unit, units);
        debug_assert!(freed.is_ok(), "units {unit}+{units} freed twice");
        if let Err(error) = freed {
            tracing::error!(unit, units, ?error, "units freed twice; left as they are");
        }
    }

    /// Puts a freed overflow page behind the tickets taken so far. Must precede its `file_free`.
    pub(crate) fn defer(&mut self, page: PageId) {
        self.free_stamp += 1;
        let before = self.deferred.insert(page, Deferred::default());
        debug_assert!(before.is_none(), "{page} freed twice");
        self.deferred_order.push_back((self.free_stamp, page));
    }

    pub(crate) fn is_deferred(&self, page: PageId) -> bool {
        self.deferred.contains_key(&page)
    }

    pub(crate) fn take_ticket(&mut self) -> u64 {
        *self.tickets.entry(self.free_stamp).or_default() += 1;
        self.free_stamp
    }

    /// One more holder of a ticket that is held already.
    pub(crate) fn take_ticket_at(&mut self, stamp: u64) {
        *self.tickets.entry(stamp).or_default() += 1;
    }

    pub(crate) fn return_ticket(&mut self, stamp: u64) {
        if let Some(count) = self.tickets.get_mut(&stamp) {
            *count -= 1;
            if *count == 0 {
                self.tickets.remove(&stamp);
            }
        }
    }

    /// Deferred pages that no ticket protects any more, oldest first, at most `max`. A ticket taken at stamp s protects
    /// pages freed with larger stamps.
    pub(crate) fn ripe(&mut self, max: usize, out: &mut Vec<(u64, PageId)>) {
        let oldest = self.tickets.keys().next().copied().unwrap_or(u64::MAX);
        while out.len() < max
            && let Some(&(stamp, _)) = self.deferred_order.front()
            && stamp <= oldest
        {
            out.extend(self.deferred_order.pop_front());
        }
    }

    /// Ripe pages that could not be taken yet go back to where they were.
    pub(crate) fn not_ripe(&mut self, pages: Vec<(u64, PageId)>) {
        for page in pages.into_iter().rev() {
            self.deferred_order.push_front(page);
        }
    }

    /// A ripe page has left its translation word: its units are free, and its id too if the freeing is durable already
    /// (returned then).
    pub(crate) fn finish_deferred(&mut self, page: PageId) -> Option<PageId> {
        let deferred = self.deferred.remove(&page)?;
        for entry in deferred.held {
            self.free_units(entry.unit(), entry.units());
        }
        deferred.durable.then_some(page)
    }

    /// The checkpoint that made the closing delta durable is over: takes the new map, frees what the old one held
    /// and nobody wants any more; returns the page ids that may be given out again.
    pub(crate) fn finish_closing(&mut self, update: MapUpdate) -> Vec<PageId> {
        let Some(closing) = self.closing.take() else { return Vec::new() };
        let mut ids = Vec::new();
        let mut held = BTreeMap::new();
        for (page, entry) in closing.entries() {
            let deferred = self.deferred.get_mut(&page);
            if deferred.is_some() {
                let old = self.stable.get(page);
                if !old.is_free() {
                    held.insert(old.unit(), (page, old));
                }
            }
            match (entry, deferred) {
                (None, Some(deferred)) => deferred.durable = true,
                (None, None) => ids.push(page),
                (Some(_), _) => {}
            }
        }
        for (unit, units) in self.stable.apply(update) {
            if self.early.remove(&unit) {
                continue;
            }
            match held.get(&unit) {
                Some(&(page, entry)) => self.give_back(page, entry),
                None => self.free_units(unit, units),
            }
        }
        ids
    }

    /// Freed pages that still wait for readers.
    pub(crate) fn deferred_count(&self) -> usize {
        self.deferred.len()
    }

    pub(crate) fn held_units(&self) -> u64 {
        self.deferred.values().flat_map(|deferred| &deferred.held).map(|entry| entry.units()).sum()
    }

    /// At most so many blocks the map will need at the next checkpoint, with `promised` images still to come.
    pub(crate) fn map_blocks_wanted(&self, promised: u64) -> u64 {
        let filed = self.open.pages.len() + self.closing.as_ref().map_or(0, |closing| closing.pages.len());
        // A promised image may be of a page whose number is not taken yet.
        let next_id = self.next_id.saturating_add(u32::try_from(promised).unwrap_or(u32::MAX));
        self.stable.blocks_at_most(filed as u64 + promised, next_id) + 4
    }

    /// The epoch `epoch` is being closed: what comes next goes to a new delta.
    pub(crate) fn close_epoch(&mut self, epoch: u64) {
        debug_assert!(self.closing.is_none());
        let mut delta = std::mem::replace(&mut self.open, Delta { epoch: epoch + 1, ..Delta::default() });
        delta.epoch = epoch;
        self.closing = Some(delta);
    }

    /// The checkpoint was given up: what it would have said goes to the next one. Only with nothing in flight.
    pub(crate) fn reopen_epoch(&mut self) {
        let Some(closing) = self.closing.take() else { return };
        debug_assert_eq!(closing.in_flight, 0);
        for (page, old) in closing.pages {
            match self.open.pages.get(&page) {
                Some(_) => {
                    if let Some(entry) = old.entry {
                        self.give_back(page, entry);
                    }
                }
                None => {
                    // Older than anything of the open epoch, whatever its number: an image preserved for the closed epoch may
                    // have been captured after one of the page's newer content, whose write has not ended yet.
                    self.open.pages.insert(page, Filed { capture: 0, ..old });
                }
            }
        }
    }

    /// All units named by anything but the stable map (for the check): images of the deltas and held ones.
    pub(crate) fn unstable_entries(&self) -> Vec<Entry> {
        let filed =
            |delta: &Delta| -> Vec<Entry> { delta.entries().filter_map(|(_, entry)| entry).collect() };
        let mut all = filed(&self.open);
        all.extend(self.closing.iter().flat_map(filed));
        all.extend(self.deferred.values().flat_map(|deferred| deferred.held.iter().copied()));
        all
    }
}

/// The location of an entry, as translation words hold it.
pub(crate) fn location_of(entry: Entry) -> Location {
    Location::new(entry.unit(), entry.check())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(next_id: u32, id_max: u32) -> Space {
        Space::new(Units::new(64), Stable::new(4096, &[7; 16]), 1, next_id, id_max)
    }

    fn take(space: &mut Space, count: usize) -> Option<Vec<u32>> {
        let mut ids = Vec::new();
        let given = space.take_ids(count, &mut ids);
        assert!(given || ids.is_empty(), "nothing is given of what is refused");
        given.then(|| ids.into_iter().map(|PageId(id)| id).collect())
    }

    /// The last page ids there are: given out once each, then refused, and given again when they come back.
    #[test]
    fn page_ids_end_without_running_over() {
        for id_max in [20, u32::MAX] {
            let mut space = Space {
                next_id: id_max - 3,
                free_ids: Vec::new(),
                ..Space::new(Units::new(64), Stable::new(4096, &[7; 16]), 1, 2, id_max)
            };
            assert_eq!(take(&mut space, 4), None);
            assert_eq!(take(&mut space, 2), Some(vec![id_max - 3, id_max - 2]));
            assert_eq!(take(&mut space, 1), Some(vec![id_max - 1]));
            assert_eq!((take(&mut space, 1), take(&mut space, 0)), (None, Some(Vec::new())));
            space.return_ids([PageId(id_max - 2)]);
            assert_eq!((take(&mut space, 2), take(&mut space, 1)), (None, Some(vec![id_max - 2])));
        }
    }

    /// A store that once had more pages than the table has words in this run (where memory is limited, the table is
    /// smaller): the ids behind its end were free, and would have been given out, all of them with the word of
    /// page 0.
    #[test]
    fn ids_beyond_the_table_are_not_given_out() {
        for next_id in [50, 51, 52, 1000] {
            let mut space = space(next_id, 50);
            let mut seen = std::collections::BTreeSet::new();
            while let Some(ids) = take(&mut space, 1) {
                assert!(ids.iter().all(|id| (2..=50).contains(id) && seen.insert(*id)), "{ids:?}");
            }
            assert!(seen.len() >= 48, "{seen:?}");
        }
    }
}
