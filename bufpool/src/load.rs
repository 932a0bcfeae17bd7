//! Bringing pages in: one by one for a reader that waits, many at once for batches, in the background for scans.
//!
//! A page is brought in by whoever swaps its word from "on disk" to "being read"; everybody else waits on the word's
//! shard until it says something else. A failed read puts the old word back, so that the next reader tries again and
//! gets its own error.

use bedstone_io::sync::Ordering;
use bedstone_io::{AlignedSliceMut, ReadOp};

use crate::error::{PoolError, Result};
use crate::frame::FrameId;
use crate::header::{PageId, PageKind};
use crate::page_file::verify_image;
use crate::pool::{Access, FRESH, Pool, Shared};
use crate::table::{LOCK, Location, Place};

/// Reads in flight at once by one batch.
const BATCH: usize = 64;

/// A page being brought in by this thread. Dropped unfinished, it puts the old word back.
struct Loading<'p> {
    shared: &'p Shared,
    page: PageId,
    location: Location,
    frame: FrameId,
    done: bool,
}

impl Loading<'_> {
    /// Checks what was read and opens the page to everybody.
    fn finish(mut self, access: Access) -> Result<()> {
        let shared = self.shared;
        // SAFETY: the frame came from the free list and is this loader's alone until it is opened below.
        let bytes = unsafe { shared.arena.bytes(self.frame) };
        let damaged = |detail: String| PoolError::Corrupt {
            file: shared.file.path().to_path_buf(),
            offset: self.location.unit() * crate::UNIT as u64,
            page: Some(self.page),
            what: "page",
            detail,
        };
        let header = verify_image(self.page, shared.entry_at(self.location), bytes)
            .map_err(|finding| damaged(finding.to_string()))?;
        shared.verify.verify(&header, bytes).map_err(damaged)?;
        let descriptor = shared.frame(self.frame);
        descriptor.assign(self.page);
        descriptor.dirty.loaded(self.location);
        descriptor.touched.store(FRESH, Ordering::Relaxed);
        self.done = true;
        shared.admit(self.page, access);
        shared.publish(self.frame, self.page, header.kind == PageKind::Inner as u8);
        shared.wake_waiters(self.page);
        Ok(())
    }
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.shared.table.word(self.page).store(Place::Disk(self.location).word(), Ordering::Release);
            self.shared.wake_waiters(self.page);
            self.shared.free_frame(self.frame);
        }
    }
}

impl Pool {
    /// Brings a page in; also `Ok` when it is there already. No guard, latch or announcement may be held.
    ///
    /// # Errors
    /// [`PoolError::Free`] if there is no such page, [`PoolError::Corrupt`] if its image is not what was written,
    /// [`PoolError::Exhausted`] if no frame can be freed, or an I/O error.
    pub fn fault(&self, page: PageId, access: Access) -> Result<()> {
        self.shared().fault(page, access)
    }

    /// Brings many pages in, all reads in flight at once; those already there cost nothing, those that are free are
    /// passed over. The first error is returned, after every read has ended.
    ///
    /// # Errors
    /// As [`Pool::fault`].
    pub fn fault_many(&self, pages: &[PageId], access: Access) -> Result<()> {
        let shared = self.shared();
        // So many frames at once that the rest of the pool can go on.
        let batch = BATCH.min(shared.arena.frames() / 8).max(1);
        for pages in pages.chunks(batch) {
            shared.fault_batch(pages, access)?;
            for &page in pages {
                match shared.table.place(page) {
                    // Somebody else reads it, or it went again: the plain way waits and reports.
                    Place::Loading | Place::Disk(_) => match shared.fault(page, access) {
                        Ok(()) | Err(PoolError::Free(_)) => {}
                        Err(error) => return Err(error),
                    },
                    Place::Free | Place::Leaf(_) | Place::Inner(_) => {}
                }
            }
        }
        Ok(())
    }

    /// Asks the read-ahead threads to bring pages in and returns at once. Errors are left to the reader that comes.
    /// Without background threads the pages are read before it returns.
    pub fn prefetch(&self, pages: &[PageId]) {
        let shared = self.shared();
        let mut wanted: Vec<PageId> = pages
            .iter()
            .copied()
            .filter(|&page| matches!(shared.table.place(page), Place::Disk(_)))
            .collect();
        wanted.truncate(shared.arena.frames() / 16);
        if wanted.is_empty() {
            return;
        }
        match &shared.read_ahead {
            // A full queue means that the disk is busy enough.
            Some(queue) => drop(queue.try_send(wanted)),
            None => drop(shared.fault_batch(&wanted, Access::Scan)),
        }
    }
}

impl Shared {
    pub(crate) fn fault(&self, page: PageId, access: Access) -> Result<()> {
        debug_assert_eq!(self.slots.mine().reader.load(Ordering::Relaxed), 0, "no guard across I/O");
        loop {
            match self.table.place(page) {
                Place::Leaf(_) | Place::Inner(_) => return Ok(()),
                Place::Free => return Err(PoolError::Free(page)),
                Place::Loading => self.wait_while_loading(page),
                Place::LOST => {
                    self.check_failed()?;
                    return Err(PoolError::Free(page));
                }
                Place::Disk(_) => {
                    let frame = self.take_frame()?;
                    let Some(loading) = self.begin_load(page, frame) else { continue };
                    // SAFETY: the frame came from the free list; until `finish` opens it, it is this loader's alone.
                    let bytes = unsafe { self.arena.bytes_mut(frame) };
                    let buffer = AlignedSliceMut::new(bytes).expect("frames are aligned");
                    self.stats.page_reads.fetch_add(1, Ordering::Relaxed);
                    self.file.read_at(buffer, loading.location.unit() * crate::UNIT as u64)?;
                    return loading.finish(access);
                }
            }
        }
    }

    /// Claims the reading of a page into `frame`; gives the frame back if the page is not on disk any more.
    fn begin_load(&self, page: PageId, frame: FrameId) -> Option<Loading<'_>> {
        let word = self.table.word(page);
        let now = word.load(Ordering::Acquire);
        if let Place::Disk(location) = Place::of(now)
            && word.compare_exchange(now, Place::Loading.word(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
        {
            return Some(Loading { shared: self, page, location, frame, done: false });
        }
        self.free_frame(frame);
        None
    }

    /// Reads those of `pages` that are on disk, with all reads in flight at once. Stops early, without an error, when
    /// frames run short.
    pub(crate) fn fault_batch(&self, pages: &[PageId], access: Access) -> Result<()> {
        debug_assert_eq!(self.slots.mine().reader.load(Ordering::Relaxed), 0, "no guard across I/O");
        let mut loads = Vec::new();
        for &page in pages {
            if matches!(self.table.place(page), place @ Place::Disk(_) if place != Place::LOST) {
                // The first frame may be waited for; for more of them nobody else's pages are worth a wait while this
                // thread already keeps others from reading theirs.
                let frame = if loads.is_empty() { Some(self.take_frame()?) } else { self.take_frame_now() };
                let Some(frame) = frame else { break };
                loads.extend(self.begin_load(page, frame));
            }
        }
        if loads.is_empty() {
            return Ok(());
        }
        let mut ops: Vec<ReadOp<'_>> = loads
            .iter()
            .map(|loading| {
                // SAFETY: as in `fault`: every frame is distinct and this loader's alone.
                let bytes = unsafe { self.arena.bytes_mut(loading.frame) };
                let buf = AlignedSliceMut::new(bytes).expect("frames are aligned");
                ReadOp { buf, offset: loading.location.unit() * crate::UNIT as u64, result: Ok(()) }
            })
            .collect();
        self.stats.page_reads.fetch_add(ops.len() as u64, Ordering::Relaxed);
        self.stats.read_batches.fetch_add(1, Ordering::Relaxed);
        self.file.read_batch(&mut ops);
        let results: Vec<_> = ops.into_iter().map(|op| op.result).collect();
        let mut first = Ok(());
        for (loading, result) in loads.into_iter().zip(results) {
            let outcome = result.map_err(PoolError::from).and_then(|()| loading.finish(access));
            if first.is_ok() {
                first = outcome;
            }
        }
        first
    }

    fn wait_while_loading(&self, page: PageId) {
        let (lock, condition) = self.load_shard(page);
        let mut waiting = lock.lock();
        // The loader changes the word first and takes the lock to notify afterwards: no wake-up is lost.
        while matches!(self.table.place(page), Place::Loading) {
            condition.wait(&mut waiting);
        }
    }

    fn wake_waiters(&self, page: PageId) {
        let (lock, condition) = self.load_shard(page);
        drop(lock.lock());
        condition.notify_all();
    }

    /// The word of `page` without the lock bit.
    pub(crate) fn word_of(&self, page: PageId) -> u64 {
        self.table.word(page).load(Ordering::Acquire) & !LOCK
    }
}
