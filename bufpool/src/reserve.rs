//! Frames, page ids and file space set aside before a page operation begins, so that nothing can fail or wait once
//! latches are held.

use bedstone_io::sync::Ordering;

use crate::error::{PoolError, Result};
use crate::frame::FrameId;
use crate::header::PageId;
use crate::pool::{Pool, Shared};

/// What a writer has set aside: frames for copies and new versions, ids for new pages, and room in the data file for
/// as many images. What is left goes back when it is dropped.
#[derive(Debug)]
pub struct Reserve<'p> {
    shared: &'p Shared,
    parts: Parts,
    /// It may draw on room that others leave alone.
    urgent: bool,
}

/// The parts of a reserve, kept for the next writer when one is done.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    frames: Vec<FrameId>,
    ids: Vec<PageId>,
    /// Page images that the file has room for on account of this reserve.
    credit: i64,
}

impl Pool {
    /// Sets aside frames, page ids and data-file space for `pages` page changes or creations, all or nothing. May
    /// wait for I/O; no latch, guard or announcement may be held.
    ///
    /// # Errors
    /// [`PoolError::Exhausted`] if no frames can be freed, [`PoolError::NoSpace`] if the data file cannot grow (nothing
    /// has happened then), [`PoolError::Failed`], or an I/O error of writing pages out.
    pub fn reserve(&self, pages: usize) -> Result<Reserve<'_>> {
        self.reserve_as(pages, false)
    }

    /// As [`Pool::reserve`] for operations that free space in the end (deletes, drops): draws, now and at every
    /// refill, on room that others leave alone.
    ///
    /// # Errors
    /// As [`Pool::reserve`].
    pub fn reserve_urgent(&self, pages: usize) -> Result<Reserve<'_>> {
        self.reserve_as(pages, true)
    }

    fn reserve_as(&self, pages: usize, urgent: bool) -> Result<Reserve<'_>> {
        let shared = self.shared();
        let mut reserve = Reserve { shared, parts: shared.stash.pop().unwrap_or_default(), urgent };
        reserve.refill(pages)?;
        Ok(reserve)
    }
}

impl Reserve<'_> {
    /// Tops the reserve up to `pages` again. No latch, guard or announcement may be held.
    ///
    /// # Errors
    /// As [`Pool::reserve`]; what is set aside already stays.
    pub fn refill(&mut self, pages: usize) -> Result<()> {
        self.shared.check_failed()?;
        let parts = &mut self.parts;
        if parts.frames.len() < pages {
            self.shared.take_frames(pages, &mut parts.frames)?;
        }
        if parts.ids.len() < pages {
            let missing = pages - parts.ids.len();
            if !self.shared.space.lock().take_ids(missing, &mut parts.ids) {
                return Err(PoolError::Config(
                    "all page ids are in use: the database has reached its largest size for this page size"
                        .into(),
                ));
            }
        }
        self.hold_space(pages as u64)
    }

    /// Sets data-file space aside for `pages` images in all, growing the file if need be, and neither frames nor ids:
    /// for a large commit, before it enters the log. What is not used by then goes back with the reserve.
    ///
    /// # Errors
    /// [`PoolError::NoSpace`] if the data file cannot grow (nothing has happened then), [`PoolError::Failed`].
    pub fn hold_space(&mut self, pages: u64) -> Result<()> {
        let missing = i64::try_from(pages).unwrap_or(i64::MAX / 4) - self.parts.credit;
        if missing > 0 {
            // Promised first, looked at afterwards: of two writers who take the last room at once, one must see it.
            self.shared.promise(missing);
            if let Err(error) = self.shared.ensure_space(0, self.urgent) {
                self.shared.promise(-missing);
                return Err(error);
            }
            self.parts.credit += missing;
        }
        Ok(())
    }

    /// From now on the reserve may draw on room that others leave alone: what it is for is in the log already, so
    /// that it must not fail.
    pub fn make_urgent(&mut self) {
        self.urgent = true;
    }

    /// Frames left.
    pub fn len(&self) -> usize {
        self.parts.frames.len().min(self.parts.ids.len())
    }

    /// Nothing is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A frame for `shared`, and with it the promise of room for its image.
    ///
    /// # Panics
    /// If the reserve is used up (its owner set aside less than the operation needs), or is one of another pool.
    pub(crate) fn take_frame(&mut self, shared: &Shared) -> FrameId {
        assert!(std::ptr::eq(self.shared, shared), "the reserve of another pool");
        let frame = self.parts.frames.pop().expect("the reserve covers the operation");
        self.take_promise();
        frame
    }

    /// The promise of room for one image goes over to a page that owes one. The room of a reserve that is used up is
    /// promised all the same: its owner will find less room the next time.
    pub(crate) fn take_promise(&mut self) {
        if self.parts.credit > 0 {
            self.parts.credit -= 1;
        } else {
            self.shared.promise(1);
        }
    }

    /// # Panics
    /// As [`Reserve::take_frame`].
    pub(crate) fn take_id(&mut self, shared: &Shared) -> PageId {
        assert!(std::ptr::eq(self.shared, shared), "the reserve of another pool");
        self.parts.ids.pop().expect("the reserve covers the operation")
    }
}

impl Drop for Reserve<'_> {
    fn drop(&mut self) {
        let mut parts = std::mem::take(&mut self.parts);
        // What an urgent reserve was promised may be what others must leave alone, and the next owner may be one of them.
        let kept = if self.urgent { 0 } else { parts.frames.len() as i64 };
        let unused = parts.credit - kept;
        if unused > 0 {
            parts.credit -= unused;
            self.shared.promise(-unused);
        }
        if parts.frames.len() > self.shared.stash_frames_max {
            self.shared.dissolve(parts);
        } else if let Err(parts) = self.shared.stash.push(parts) {
            self.shared.dissolve(parts);
        }
    }
}

impl Shared {
    /// Gives back all that a reserve holds.
    pub(crate) fn dissolve(&self, parts: Parts) {
        self.free_frames(&parts.frames);
        if !parts.ids.is_empty() {
            self.space.lock().return_ids(parts.ids);
        }
        self.promise(-parts.credit);
    }

    /// Gives back what idle reserves hold, if there are any.
    pub(crate) fn dissolve_stash(&self) -> bool {
        let mut any = false;
        while let Some(parts) = self.stash.pop() {
            any |= !parts.frames.is_empty();
            self.dissolve(parts);
        }
        any
    }

    /// Changes the number of page images that must still be written, or may have to be.
    pub(crate) fn promise(&self, pages: i64) {
        self.promised.fetch_add(pages, Ordering::Relaxed);
    }
}
