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
    pub fn modify(mut self, operation: &Announcement<'_>, reserve: &mut Reserve<'p>) -> PageMut<'p> {
        self.held = false;
        let shared = self.shared;
        let descriptor = shared.frame(self.frame);
        let needed = shared.needed_by_checkpoint(self.frame, operation.epoch);
        if !needed && descriptor.try_exclusive() {
            shared.mark_dirty(self.frame, operation.epoch);
            return PageMut { shared, frame: self.frame, page: self.page, old: None, epoch: operation.epoch, done: false };
        }
        let copy = reserve.take_frame();
        // SAFETY: the latch keeps every other writer out of the old frame; the new one came from the reserve and is
        // this thread's alone.
        unsafe { shared.arena.bytes_mut(copy).copy_from_slice(shared.arena.bytes(self.frame)) };
        shared.stats.copies.fetch_add(1, Ordering::Relaxed);
        shared.frame(copy).assign(self.page);
        shared.mark_dirty(copy, operation.epoch);
        PageMut { shared, frame: copy, page: self.page, old: Some(self.frame), epoch: operation.epoch, done: false }
    }

    /// An unpublished new version of this page for a rebuild: same id and envelope, body zeroed.
    pub fn new_version(&self, reserve: &mut Reserve<'p>) -> NewPage<'p> {
        let header = PageHeader::read(self.page());
        NewPage::new(self.shared, reserve.take_frame(), header, None)
    }

    /// Publishes `new`, made by [`LeafLatch::new_version`] of this latch, instead of the page. Returns the latch on the
    /// new version, which readers enter once it is dropped.
    ///
    /// # Panics
    /// If `new` is a version of another page.
    pub fn replace(mut self, new: NewPage<'p>, operation: &Announcement<'_>) -> LeafLatch<'p> {
        assert!(new.page == self.page && new.fresh_id.is_none(), "a new version of {} instead of {}", new.page, self.page);
        let shared = self.shared;
        let frame = new.into_frame();
        shared.frame(frame).assign(self.page);
        shared.mark_dirty(frame, operation.epoch);
        shared.frame(frame).open(true);
        shared.table.word(self.page).store(Place::Leaf(frame).word(), Ordering::Release);
        self.held = false;
        shared.retire_leaf(self.frame, self.page, operation.epoch);
        LeafLatch::new(shared, frame, self.page)
    }

    /// Frees the page. Its parent no longer refers to it.
    pub fn free(mut self, operation: &Announcement<'_>) {
        self.held = false;
        let shared = self.shared;
        shared.table.word(self.page).store(Place::Free.word(), Ordering::Release);
        shared.retire_leaf(self.frame, self.page, operation.epoch);
        shared.file_free(self.page, operation.epoch);
    }
}

impl Drop for LeafLatch<'_> {
    fn drop(&mut self) {
        if self.held {
            self.shared.frame(self.frame).unlatch();
        }
    }
}

/// A page open for changing. It must be finished: dropped unfinished (by a panic), its content would be half a
/// change, so the store then fails for good.
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
            shared.frame(self.frame).open(true);
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
        if !self.done {
            // Both frames stay latched for ever: nobody can see half a change, and recovery starts from the log.
            self.shared.fail_with("a change of a page was abandoned half-way");
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
        NewPage::new(self.shared, reserve.take_frame(), header, None)
    }

    /// Publishes `new`, made by [`InnerLock::new_version`] of this lock, and releases the lock.
    ///
    /// # Panics
    /// If `new` is a version of another page.
    pub fn replace(mut self, new: NewPage<'p>, operation: &Announcement<'_>) {
        assert!(new.page == self.page && new.fresh_id.is_none(), "a new version of {} instead of {}", new.page, self.page);
        self.held = false;
        let shared = self.shared;
        let frame = new.into_frame();
        shared.frame(frame).assign(self.page);
        shared.mark_dirty(frame, operation.epoch);
        // The store also clears the lock bit.
        shared.table.word(self.page).store(Place::Inner(frame).word(), Ordering::Release);
        shared.retire_inner(self.frame, self.page, operation.epoch);
    }

    /// Frees the node. Its parent no longer refers to it.
    pub fn free(mut self, operation: &Announcement<'_>) {
        self.held = false;
        let shared = self.shared;
        shared.table.word(self.page).store(Place::Free.word(), Ordering::Release);
        shared.retire_inner(self.frame, self.page, operation.epoch);
        shared.file_free(self.page, operation.epoch);
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

    fn into_frame(mut self) -> FrameId {
        self.held = false;
        self.frame
    }

    /// Makes a page with a new id reachable by its id, and lets readers in.
    ///
    /// # Panics
    /// If it is a new version of an existing page (those go through `replace`).
    pub fn publish(self, operation: &Announcement<'_>) {
        assert!(self.fresh_id.is_some(), "{} is published by replacing its old version", self.page);
        let (shared, page, kind) = (self.shared, self.page, self.kind);
        let frame = self.into_frame();
        shared.frame(frame).assign(page);
        shared.mark_dirty(frame, operation.epoch);
        let place = if kind == PageKind::Inner {
            Place::Inner(frame)
        } else {
            shared.frame(frame).open(false);
            Place::Leaf(frame)
        };
        shared.table.word(page).store(place.word(), Ordering::Release);
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
            self.shared.free_frame(self.frame);
            if let Some(page) = self.fresh_id {
                self.shared.space.lock().return_ids([page]);
            }
        }
    }
}

impl Pool {
    /// A page with a new id that nobody can see yet: envelope written, body zeroed.
    pub fn new_page<'p>(&'p self, reserve: &mut Reserve<'p>, kind: PageKind, level: u8, table: u32) -> NewPage<'p> {
        let page = reserve.take_id();
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
        NewPage::new(self.shared(), reserve.take_frame(), header, Some(page))
    }
}

impl Shared {
    /// The content of `frame` belongs to an epoch that a checkpoint is closing, and no image of it has been taken
    /// yet: a change of a later epoch must leave it as it is.
    fn needed_by_checkpoint(&self, frame: FrameId, epoch: u64) -> bool {
        let dirty = self.frame(frame).dirty.load(Ordering::Acquire);
        let closing = self.epoch.closing();
        dirty != 0 && dirty & 1 == 0 && dirty >> 1 <= closing && epoch > closing
    }

    /// Records that the frame's content changes in `epoch` and has no image yet. The caller has the frame alone.
    fn mark_dirty(&self, frame: FrameId, epoch: u64) {
        let before = self.frame(frame).dirty.swap(epoch << 1, Ordering::AcqRel);
        if before == 0 || before & 1 == 1 {
            self.promise(1);
        }
    }

    /// Takes a frame that no translation word names any more away from its page.
    fn retire_leaf(&self, frame: FrameId, page: PageId, epoch: u64) {
        let descriptor = self.frame(frame);
        if self.needed_by_checkpoint(frame, epoch) {
            // Retired with a pin that the checkpoint owns, in one step: no moment at which the image could be lost.
            self.released(frame, descriptor.retire(true));
            self.preserved.lock().push((page, frame));
            return;
        }
        // While the latch is still held: after the retirement the frame may belong to somebody else at once.
        self.forget_dirty(frame);
        self.released(frame, descriptor.retire(false));
    }

    fn retire_inner(&self, frame: FrameId, page: PageId, epoch: u64) {
        if self.needed_by_checkpoint(frame, epoch) {
            self.preserved.lock().push((page, frame));
            return;
        }
        self.forget_dirty(frame);
        self.retire_by_epoch(frame);
    }

    /// The frame's content needs no image any more.
    pub(crate) fn forget_dirty(&self, frame: FrameId) {
        let before = self.frame(frame).dirty.swap(0, Ordering::AcqRel);
        if before != 0 && before & 1 == 0 {
            self.promise(-1);
        }
    }
}
