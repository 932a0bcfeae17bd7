//! The way in for writers: latches, new pages and new versions, publication and retirement.
//!
//! The order that keeps exactly one version of a page open to readers: fill the new frame while it is shut (L and X),
//! point the translation word at it, retire the old frame, let readers into the new one.

use std::ops::{Deref, DerefMut};

use bedstone_io::sync::Ordering;

use crate::announce::Announcement;
use crate::frame::FrameId;
use crate::header::{FORMAT_VERSION, HEADER_BYTES, PageHeader, PageId, PageKind};
use crate::pool::{Pool, Shared};
use crate::reserve::Reserve;
use crate::table::Place;

/// The writer latch of a leaf: readers may pin the page meanwhile, other writers wait outside.
#[derive(Debug)]
pub struct LeafLatch<'p> {
    shared: &'p Shared,
    frame: FrameId,
    page: PageId,
    /// Cleared when the latch was handed on to something else.
    held: bool,
}

impl<'p> LeafLatch<'p> {
    pub(crate) fn new(shared: &'p Shared, frame: FrameId, page: PageId) -> Self {
        Self { shared, frame, page, held: true }
    }

    /// The page.
    pub fn page_id(&self) -> PageId {
        self.page
    }

    /// The page as it is now; it stays so while the latch is held.
    #[inline]
    pub fn page(&self) -> &[u8] {
        // SAFETY: bytes change only under X, which only the holder of the latch can take; taking it (`modify`)
        // consumes this value, so no slice borrowed from it is left.
        unsafe { self.shared.arena.bytes(self.frame) }
    }

    /// The page for changing: in place if nobody has it pinned and no checkpoint still needs it as it is, else in a
    /// copy out of the reserve (one frame at most).
    ///
    /// # Panics
    /// If the reserve is used up, or one of another pool.
    pub fn modify(mut self, operation: &Announcement<'_>, reserve: &mut Reserve<'p>) -> PageMut<'p> {
        let shared = self.shared;
        let epoch = operation.epoch(shared);
        let descriptor = shared.frame(self.frame);
        if !descriptor.dirty.needed(epoch, shared.epoch.closing()) && descriptor.try_exclusive() {
            self.held = false;
            if descriptor.dirty.change(epoch) {
                reserve.take_promise();
            }
            return PageMut { shared, frame: self.frame, page: self.page, old: None, epoch, done: false };
        }
        let copy = reserve.take_frame(shared);
        self.held = false;
        // SAFETY: the latch keeps every other writer out of the old frame; the new one came from the reserve and is
        // this thread's alone.
        unsafe { shared.arena.bytes_mut(copy).copy_from_slice(shared.arena.bytes(self.frame)) };
        shared.stats.copies.fetch_add(1, Ordering::Relaxed);
        shared.fill_frame(copy, self.page, epoch);
        PageMut { shared, frame: copy, page: self.page, old: Some(self.frame), epoch, done: false }
    }

    /// An unpublished new version of this page for a rebuild: same id and envelope, body zeroed.
    pub fn new_version(&self, reserve: &mut Reserve<'p>) -> NewPage<'p> {
        let header = PageHeader::read(self.page());
        NewPage::new(self.shared, reserve.take_frame(self.shared), header, None)
    }

    /// Publishes `new`, made by [`LeafLatch::new_version`] of this latch, instead of the page. Returns the latch on the
    /// new version, which readers enter once it is dropped.
    ///
    /// # Panics
    /// If `new` is a version of another page.
    pub fn replace(mut self, new: NewPage<'p>, operation: &Announcement<'_>) -> LeafLatch<'p> {
        new.assert_version_of(self.shared, self.page);
        let shared = self.shared;
        let epoch = operation.epoch(shared);
        let frame = new.into_frame();
        shared.fill_frame(frame, self.page, epoch);
        shared.frame(frame).open_latched();
        shared.table.word(self.page).store(Place::Leaf(frame).word(), Ordering::Release);
        self.held = false;
        shared.retire_leaf(self.frame, self.page, epoch);
        LeafLatch::new(shared, frame, self.page)
    }

    /// Frees the page. Its parent no longer refers to it.
    pub fn free(mut self, operation: &Announcement<'_>) {
        let shared = self.shared;
        let epoch = operation.epoch(shared);
        self.held = false;
        shared.table.word(self.page).store(Place::Free.word(), Ordering::Release);
        shared.retire_leaf(self.frame, self.page, epoch);
        shared.file_free(self.page, epoch);
    }
}

impl Drop for LeafLatch<'_> {
    fn drop(&mut self) {
        if self.held {
            self.shared.frame(self.frame).unlatch();
        }
    }
}

/// A page open for changing, to be finished while its operation is announced. Dropped unfinished (by a panic), its
/// content would be half a change, and so would the operation: the store then fails for good.
#[derive(Debug)]
pub struct PageMut<'p> {
    shared: &'p Shared,
    frame: FrameId,
    page: PageId,
    /// The frame that this one is a changed copy of.
    old: Option<FrameId>,
    epoch: u64,
    done: bool,
}

impl PageMut<'_> {
    /// Lets readers see the change.
    pub fn finish(mut self) {
        self.done = true;
        let shared = self.shared;
        if let Some(old) = self.old {
            shared.frame(self.frame).open_latched();
            shared.table.word(self.page).store(Place::Leaf(self.frame).word(), Ordering::Release);
            shared.retire_leaf(old, self.page, self.epoch);
        }
        shared.frame(self.frame).unlatch();
    }
}

impl Deref for PageMut<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the frame is under X without pins, or not yet published: it is this value's alone.
        unsafe { self.shared.arena.bytes(self.frame) }
    }
}

impl DerefMut for PageMut<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` makes this the only slice.
        unsafe { self.shared.arena.bytes_mut(self.frame) }
    }
}

impl Drop for PageMut<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let shared = self.shared;
        // First of all: from here on no checkpoint ends well, so what is thrown away below is missed by none. Recovery
        // starts from the log.
        shared.fail_with("a change of a page was abandoned half-way");
        shared.forget_dirty(self.frame);
        match self.old {
            // The version before is whole; readers may go on with it.
            Some(old) => {
                shared.free_frame(self.frame);
                shared.frame(old).unlatch();
            }
            // Nobody may see half a change, and nobody must wait for its end either.
            None => {
                shared.table.word(self.page).store(Place::LOST.word(), Ordering::Release);
                shared.released(self.frame, shared.frame(self.frame).retire(false));
            }
        }
    }
}

/// The structure lock of an inner node: nobody else replaces, evicts or frees it.
#[derive(Debug)]
pub struct InnerLock<'p> {
    shared: &'p Shared,
    frame: FrameId,
    page: PageId,
    held: bool,
}

impl<'p> InnerLock<'p> {
    pub(crate) fn new(shared: &'p Shared, frame: FrameId, page: PageId) -> Self {
        Self { shared, frame, page, held: true }
    }

    /// The node.
    pub fn page_id(&self) -> PageId {
        self.page
    }

    /// The node as it is; it stays so while the lock is held.
    pub fn page(&self) -> &[u8] {
        // SAFETY: inner nodes never change, and the lock keeps this version from being replaced and retired.
        unsafe { self.shared.arena.bytes(self.frame) }
    }

    /// An unpublished new version of this node: same id and envelope but for the level (a root grows and shrinks),
    /// body zeroed.
    pub fn new_version(&self, reserve: &mut Reserve<'p>, level: u8) -> NewPage<'p> {
        let header = PageHeader { level, ..PageHeader::read(self.page()) };
        NewPage::new(self.shared, reserve.take_frame(self.shared), header, None)
    }

    /// Publishes `new`, made by [`InnerLock::new_version`] of this lock, and releases the lock.
    ///
    /// # Panics
    /// If `new` is a version of another page.
    pub fn replace(mut self, new: NewPage<'p>, operation: &Announcement<'_>) {
        new.assert_version_of(self.shared, self.page);
        let shared = self.shared;
        let epoch = operation.epoch(shared);
        self.held = false;
        let frame = new.into_frame();
        shared.fill_frame(frame, self.page, epoch);
        // The store also clears the lock bit.
        shared.table.word(self.page).store(Place::Inner(frame).word(), Ordering::Release);
        shared.retire_inner(self.frame, self.page, epoch);
    }

    /// Frees the node. Its parent no longer refers to it.
    pub fn free(mut self, operation: &Announcement<'_>) {
        let shared = self.shared;
        let epoch = operation.epoch(shared);
        self.held = false;
        shared.table.word(self.page).store(Place::Free.word(), Ordering::Release);
        shared.retire_inner(self.frame, self.page, epoch);
        shared.file_free(self.page, epoch);
    }
}

impl Drop for InnerLock<'_> {
    fn drop(&mut self) {
        if self.held {
            self.shared.table.word(self.page).store(Place::Inner(self.frame).word(), Ordering::Release);
        }
    }
}

/// A page, or a new version of one, that nobody sees yet. Dropped unpublished, its frame and its new id go back.
#[derive(Debug)]
pub struct NewPage<'p> {
    shared: &'p Shared,
    frame: FrameId,
    page: PageId,
    kind: PageKind,
    /// The id, if it was taken for this page.
    fresh_id: Option<PageId>,
    held: bool,
}

impl<'p> NewPage<'p> {
    fn new(shared: &'p Shared, frame: FrameId, header: PageHeader, fresh_id: Option<PageId>) -> Self {
        let kind = PageKind::from_byte(header.kind).expect("the kind of a page in the pool was checked");
        let mut page = Self { shared, frame, page: header.page, kind, fresh_id, held: true };
        page.fill(0);
        header.write(&mut page[..HEADER_BYTES]);
        page
    }

    /// The page's id.
    pub fn page_id(&self) -> PageId {
        self.page
    }

    /// The frame, and with it the promise of room for its image.
    fn into_frame(mut self) -> FrameId {
        self.held = false;
        self.frame
    }

    fn assert_version_of(&self, shared: &Shared, page: PageId) {
        assert!(std::ptr::eq(self.shared, shared), "a page of another pool");
        assert!(
            self.page == page && self.fresh_id.is_none(),
            "a new version of {} instead of {page}",
            self.page
        );
    }

    /// Makes a page with a new id reachable by its id, and lets readers in.
    ///
    /// # Panics
    /// If it is a new version of an existing page (those go through `replace`).
    pub fn publish(self, operation: &Announcement<'_>) {
        assert!(self.fresh_id.is_some(), "{} is published by replacing its old version", self.page);
        let (shared, page, kind) = (self.shared, self.page, self.kind);
        let epoch = operation.epoch(shared);
        let frame = self.into_frame();
        shared.fill_frame(frame, page, epoch);
        shared.publish(frame, page, kind == PageKind::Inner);
        shared.admit(page, crate::pool::Access::Point);
    }
}

impl Deref for NewPage<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the frame came from the reserve and is this value's alone until it is published.
        unsafe { self.shared.arena.bytes(self.frame) }
    }
}

impl DerefMut for NewPage<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` makes this the only slice.
        unsafe { self.shared.arena.bytes_mut(self.frame) }
    }
}

impl Drop for NewPage<'_> {
    fn drop(&mut self) {
        if self.held {
            self.shared.promise(-1);
            self.shared.free_frame(self.frame);
            if let Some(page) = self.fresh_id {
                self.shared.space.lock().return_ids([page]);
            }
        }
    }
}

impl Pool {
    /// A page with a new id that nobody can see yet: envelope written, body zeroed.
    pub fn new_page<'p>(
        &'p self,
        reserve: &mut Reserve<'p>,
        kind: PageKind,
        level: u8,
        table: u32,
    ) -> NewPage<'p> {
        let page = reserve.take_id(self.shared());
        self.new_page_as(reserve, page, kind, level, table)
    }

    /// Like [`Pool::new_page`] with a given id, which must be free and never handed out otherwise: the root of the
    /// catalog in an empty database.
    pub fn new_page_with_id<'p>(
        &'p self,
        reserve: &mut Reserve<'p>,
        page: PageId,
        kind: PageKind,
        level: u8,
        table: u32,
    ) -> NewPage<'p> {
        self.shared().space.lock().claim_id(page);
        self.new_page_as(reserve, page, kind, level, table)
    }

    fn new_page_as<'p>(
        &'p self,
        reserve: &mut Reserve<'p>,
        page: PageId,
        kind: PageKind,
        level: u8,
        table: u32,
    ) -> NewPage<'p> {
        let header = PageHeader {
            checksum: 0,
            kind: kind as u8,
            level,
            version: FORMAT_VERSION,
            page,
            table,
            max_lsn: 0,
            history: 0,
        };
        NewPage::new(self.shared(), reserve.take_frame(self.shared()), header, Some(page))
    }
}

impl Shared {
    /// Gives a frame from a reserve, which brings the promise of room for its image along, to new content of `page`.
    fn fill_frame(&self, frame: FrameId, page: PageId, epoch: u64) {
        let descriptor = self.frame(frame);
        descriptor.assign(page);
        let owed = descriptor.dirty.change(epoch);
        debug_assert!(owed, "a free frame is clean");
    }

    /// Makes a page in a filled frame reachable by its id, and lets everybody in.
    pub(crate) fn publish(&self, frame: FrameId, page: PageId, inner: bool) {
        let word = self.table.word(page);
        if inner {
            word.store(Place::Inner(frame).word(), Ordering::Release);
        } else {
            let descriptor = self.frame(frame);
            descriptor.open_latched();
            word.store(Place::Leaf(frame).word(), Ordering::Release);
            descriptor.unlatch();
        }
    }

    /// Takes a latched frame that no translation word names any more away from its page.
    fn retire_leaf(&self, frame: FrameId, page: PageId, epoch: u64) {
        let descriptor = self.frame(frame);
        // With a pin that the checkpoint owns, in one step: no moment at which the image could be lost.
        let retire = || _ = descriptor.retire(true);
        if !self.preserved.keep(page, frame, &descriptor.dirty, epoch, &self.epoch, retire) {
            // While the latch is still held: after the retirement the frame may belong to somebody else at once.
            self.forget_dirty(frame);
            self.released(frame, descriptor.retire(false));
        }
    }

    fn retire_inner(&self, frame: FrameId, page: PageId, epoch: u64) {
        if !self.preserved.keep(page, frame, &self.frame(frame).dirty, epoch, &self.epoch, || ()) {
            self.forget_dirty(frame);
            self.retire_by_epoch(frame);
        }
    }

    /// The frame's content needs no image any more.
    pub(crate) fn forget_dirty(&self, frame: FrameId) {
        if self.frame(frame).dirty.forget() {
            self.promise(-1);
        }
    }
}
