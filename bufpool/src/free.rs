//! Freeing pages: at once for tree nodes, behind tickets for overflow pages; and the growing of the data file.

use std::sync::Arc;
use std::sync::atomic::Ordering as StdOrdering;

use bedstone_io::sync::Ordering;

use crate::announce::Announcement;
use crate::error::{PoolError, Result};
use crate::evict::Event;
use crate::header::PageId;
use crate::pool::{Pool, Retired, Shared};
use crate::table::Place;

/// Deferred pages taken up in one go.
const REAP: usize = 256;
/// Least and largest step by which the data file grows, in bytes.
const GROW_MIN: u64 = 1 << 20;
const GROW_MAX: u64 = 64 << 20;
/// Images that only operations which free space may draw on.
const URGENT_PAGES: i64 = 32;
/// Pages that a new data file has room for: what is kept back for deletes, and as much again for everything else.
pub(crate) const FIRST_PAGES: usize = 2 * URGENT_PAGES as usize;

/// Holds back the freeing of overflow pages freed after it was taken.
#[derive(Debug)]
pub struct Ticket<'p> {
    shared: &'p Shared,
    stamp: u64,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.shared.space.lock().return_ticket(self.stamp);
    }
}

impl Clone for Ticket<'_> {
    fn clone(&self) -> Self {
        self.shared.space.lock().take_ticket_at(self.stamp);
        Self { shared: self.shared, stamp: self.stamp }
    }
}

/// A [`Ticket`] that is not bound to a borrow of the pool: for whoever lives as long as it likes. It keeps the pool's
/// memory, though not the pool, alive.
#[derive(Debug)]
pub struct OwnedTicket {
    shared: Arc<Shared>,
    stamp: u64,
}

impl Drop for OwnedTicket {
    fn drop(&mut self) {
        self.shared.space.lock().return_ticket(self.stamp);
    }
}

impl Pool {
    /// As [`Pool::ticket`], not bound to a borrow.
    pub fn owned_ticket(&self) -> OwnedTicket {
        let stamp = self.shared().space.lock().take_ticket();
        OwnedTicket { shared: self.shared_owned(), stamp }
    }

    /// One more ticket as old as `owned`, which must be one of this pool.
    ///
    /// # Panics
    /// If it is of another pool.
    pub fn ticket_like(&self, owned: &OwnedTicket) -> Ticket<'_> {
        let shared = self.shared();
        assert!(std::ptr::eq(shared, &*owned.shared), "the ticket of another pool");
        shared.space.lock().take_ticket_at(owned.stamp);
        Ticket { shared, stamp: owned.stamp }
    }

    /// Holds back the freeing of overflow pages freed after this call, until dropped. The order that makes it safe:
    /// pin the leaf, take the ticket, then see [`crate::PagePin::is_current`]; if the leaf is not the newest version any
    /// more, its overflow pages may have been freed before the ticket, so read the leaf again.
    pub fn ticket(&self) -> Ticket<'_> {
        let shared = self.shared();
        let stamp = shared.space.lock().take_ticket();
        Ticket { shared, stamp }
    }

    /// Frees an overflow page that nothing refers to any more but readers with a [`Ticket`]. Belongs to the same
    /// operation as the change that took away the last reference, and comes after that change can be seen
    /// ([`crate::PageMut::finish`] and the like): a ticket taken between the two would protect nothing.
    pub fn free_page(&self, page: PageId, operation: &Announcement<'_>) {
        let shared = self.shared();
        let epoch = operation.epoch(shared);
        let mut space = shared.space.lock();
        space.defer(page);
        space.file_free(page, epoch);
    }

    /// The page id is in use.
    pub fn is_live(&self, page: PageId) -> bool {
        self.shared().table.place(page) != Place::Free && !self.shared().space.lock().is_deferred(page)
    }
}

impl Shared {
    /// Says in the open delta that the page is free from this epoch on.
    pub(crate) fn file_free(&self, page: PageId, epoch: u64) {
        self.space.lock().file_free(page, epoch);
        self.events.push(Event::Removed(page));
    }

    /// Takes freed overflow pages that no reader can want any more out of their words; returns how many frames came
    /// free.
    pub(crate) fn reap_deferred(&self) -> usize {
        let mut ripe = Vec::new();
        {
            let mut space = self.space.lock();
            if space.deferred_count() == 0 {
                return 0;
            }
            space.ripe(REAP, &mut ripe);
        }
        let mut frames = 0;
        let mut later = Vec::new();
        for (stamp, page) in ripe {
            if self.reap(page, &mut frames) {
                self.events.push(Event::Removed(page));
                let id = self.space.lock().finish_deferred(page);
                if let Some(id) = id {
                    self.epochs.retire(Retired::Id(id));
                }
            } else {
                later.push((stamp, page));
            }
        }
        if !later.is_empty() {
            self.space.lock().not_ripe(later);
        }
        frames
    }

    /// The same until no more come free.
    pub(crate) fn reap_all_deferred(&self) {
        let left = || self.space.lock().deferred_count();
        let mut before = left();
        while before > 0 {
            self.reap_deferred();
            let now = left();
            if now >= before {
                break;
            }
            before = now;
        }
    }

    /// Makes the word of a freed page say so. `false`: it is being read, or somebody still has it; later.
    fn reap(&self, page: PageId, frames: &mut usize) -> bool {
        let word = self.table.word(page);
        let now = word.load(Ordering::Acquire);
        match Place::of(now) {
            Place::Free => true,
            Place::Loading => false,
            Place::Disk(_) => {
                word.compare_exchange(now, Place::Free.word(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
            }
            Place::Leaf(frame) => {
                let descriptor = self.frame(frame);
                if !descriptor.try_claim(page) {
                    return false;
                }
                // The image of a checkpoint being closed may still need the content: then later.
                if descriptor.dirty.epoch().is_some_and(|epoch| epoch <= self.epoch.closing()) {
                    descriptor.unlatch();
                    return false;
                }
                word.store(Place::Free.word(), Ordering::Release);
                self.forget_dirty(frame);
                let released = descriptor.retire(false);
                self.released(frame, released);
                *frames += 1;
                true
            }
            // Overflow pages are never inner nodes.
            Place::Inner(_) => false,
        }
    }

    /// Makes sure that free units cover `pages` more images on top of everything promised, growing the file if need be.
    pub(crate) fn ensure_space(&self, pages: i64, urgent: bool) -> Result<()> {
        loop {
            let missing = self.missing_pages(pages, urgent);
            if missing <= 0 {
                return Ok(());
            }
            self.grow(missing as u64)?;
        }
    }

    fn missing_pages(&self, pages: i64, urgent: bool) -> i64 {
        let promised = self.promised.load(StdOrdering::Relaxed).max(0) + pages;
        // The map's blocks for images that are still to come count from the promise on: else the checkpoint would be the
        // first to miss room for them, on a disk that deletes have filled.
        let (free, map_pages) = {
            let space = self.space.lock();
            (space.units.free_units() / self.page_units, space.map_blocks_wanted(promised.max(0) as u64))
        };
        let spared = if urgent { 0 } else { URGENT_PAGES };
        promised + map_pages as i64 + spared - free as i64
    }

    /// Grows the data file by room for at least `pages` more images.
    pub(crate) fn grow(&self, pages: u64) -> Result<()> {
        let _one = self.growing.lock();
        let total = self.space.lock().units.total();
        let file_bytes = total * crate::UNIT as u64;
        let need = (pages * self.page_size as u64).next_multiple_of(crate::UNIT as u64 * 16);
        let step = need.max((file_bytes / 8).clamp(GROW_MIN, GROW_MAX).next_multiple_of(1 << 16));
        let grown = |len: u64| {
            self.space.lock().units.grow(len / crate::UNIT as u64);
            Ok(())
        };
        match self.file.allocate(file_bytes + step) {
            Ok(()) => grown(file_bytes + step),
            // A large step may not fit where the need itself does.
            Err(error)
                if error.is_no_space() && need < step && self.file.allocate(file_bytes + need).is_ok() =>
            {
                grown(file_bytes + need)
            }
            Err(error) if error.is_no_space() => {
                Err(PoolError::NoSpace { file: self.file.path().to_path_buf(), wanted: need })
            }
            Err(error) => Err(error.into()),
        }
    }
}
