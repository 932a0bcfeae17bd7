//! The way in for readers: a [`Guard`] (reader epoch), the [`Word`]s read through it, and [`PagePin`]s.

use std::marker::PhantomData;
use std::ops::Deref;

use bedstone_io::sync::Ordering;

use crate::frame::{FrameId, Released};
use crate::header::PageId;
use crate::pool::{Access, Pool, Shared};
use crate::table::{LOCK, Place};
use crate::write::{InnerLock, LeafLatch};

/// A reader epoch: inner nodes seen through it stay as they are until it is dropped. It must not be held across I/O,
/// waiting or user code: one stalled guard stops the freeing of every replaced inner node.
#[derive(Debug)]
pub struct Guard<'p> {
    shared: &'p Shared,
    /// Entered and left by the same thread.
    not_send: PhantomData<*mut ()>,
}

/// The translation word of a page, as read through a guard.
#[derive(Debug, Clone, Copy)]
pub struct Word<'g> {
    bits: u64,
    /// The pool it was read from: a word says nothing about another one.
    shared: &'g Shared,
}

/// Where a page is, as far as a tree needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageState {
    /// A resident inner node: [`Guard::inner`] gives its bytes.
    Inner,
    /// A resident leaf or overflow page: [`Guard::pin`], [`Guard::latch`].
    Pinnable,
    /// Not resident, or being read in: drop the guard, call [`Pool::fault`], start again from the root.
    Absent,
    /// No such page: the caller came through an outdated parent and starts again from the root.
    Free,
}

impl Word<'_> {
    /// Where the page was when the word was read.
    #[inline]
    pub fn state(self) -> PageState {
        match Place::of(self.bits) {
            Place::Free => PageState::Free,
            Place::Leaf(_) => PageState::Pinnable,
            Place::Inner(_) => PageState::Inner,
            Place::Disk(_) | Place::Loading => PageState::Absent,
        }
    }

    /// Both words name the same version of the page (a structure lock held on it does not count).
    #[inline]
    pub fn same(self, other: Word<'_>) -> bool {
        self.bits & !LOCK == other.bits & !LOCK
    }
}

impl Pool {
    /// Enters a reader epoch.
    #[inline]
    pub fn guard(&self) -> Guard<'_> {
        let shared = self.shared();
        shared.epochs.enter(shared.slots.mine());
        Guard { shared, not_send: PhantomData }
    }
}

impl Drop for Guard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.shared.epochs.leave(self.shared.slots.mine());
    }
}

impl<'p> Guard<'p> {
    /// The page's translation word now (an acquire load).
    #[inline]
    pub fn word<'g>(&'g self, page: PageId) -> Word<'g> {
        Word { bits: self.shared.table.word(page).load(Ordering::Acquire), shared: self.shared }
    }

    /// The bytes of a resident inner node, envelope included; `None` if the word names none.
    #[inline]
    pub fn inner<'g>(&'g self, word: Word<'g>) -> Option<&'g [u8]> {
        let Place::Inner(frame) = Place::of(word.bits) else { return None };
        assert!(std::ptr::eq(word.shared, self.shared), "a word of another pool");
        self.shared.touch(frame);
        // SAFETY: the word was read through a guard of this pool that is still alive (its lifetime), so the frame held
        // this version of an inner node after that guard entered its epoch. Inner nodes never change once published,
        // and a replaced one goes through the reader epochs before its frame is used again, hence not while that guard
        // lives. A thread's entries may be left in any order: it stays inside until the last one is.
        Some(unsafe { self.shared.arena.bytes(frame) })
    }

    /// Pins a leaf or overflow page. `None`: it moved meanwhile, start again. After pinning, a tree checks that the
    /// parent's word is still [`Word::same`]. [`Access::Scan`] does not make the page hot.
    #[inline]
    pub fn pin(&self, page: PageId, word: Word<'_>, access: Access) -> Option<PagePin<'p>> {
        let Place::Leaf(frame) = Place::of(word.bits) else { return None };
        match self.shared.frame(frame).pin(page) {
            Ok(()) => {
                if access == Access::Point {
                    self.shared.touch(frame);
                }
                Some(PagePin { shared: self.shared, frame, kept: Kept::No })
            }
            Err(released) => {
                self.shared.released(frame, released);
                None
            }
        }
    }

    /// Takes the writer latch of a leaf: readers may still pin it, other writers may not have it. `None`: it moved,
    /// or another writer keeps it; start again. Afterwards the same check of the parent's word as for a pin.
    #[inline]
    pub fn latch(&self, page: PageId, word: Word<'_>) -> Option<LeafLatch<'p>> {
        let Place::Leaf(frame) = Place::of(word.bits) else { return None };
        self.shared.frame(frame).latch(page).then(|| {
            self.shared.touch(frame);
            LeafLatch::new(self.shared, frame, page)
        })
    }

    /// Takes the structure lock of an inner node if `word` still names its newest version and nobody else has it.
    /// `None`: start again. Locks are taken top-down.
    pub fn lock_inner(&self, page: PageId, word: Word<'_>) -> Option<InnerLock<'p>> {
        let Place::Inner(frame) = Place::of(word.bits) else { return None };
        let open = word.bits & !LOCK;
        self.shared
            .table
            .word(page)
            .compare_exchange(open, open | LOCK, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
            .then(|| InnerLock::new(self.shared, frame, page))
    }

    /// Starts fetching the descriptor and the first cache lines of the page that the word names.
    #[inline]
    pub fn prefetch(&self, word: Word<'_>) {
        if let Place::Leaf(frame) | Place::Inner(frame) = Place::of(word.bits) {
            self.shared.prefetch_frame(frame);
        }
    }
}

/// Whether a pin counts against what users may hold.
#[derive(Debug, Clone, Copy)]
enum Kept {
    No,
    /// Within the allowance of the thread with this number.
    Thread(u32),
    /// Beyond it, within the allowance of all.
    Common,
}

/// A pinned page: its bytes never change, whatever writers do meanwhile. Cloning pins once more.
#[derive(Debug)]
pub struct PagePin<'p> {
    shared: &'p Shared,
    frame: FrameId,
    kept: Kept,
}

impl PagePin<'_> {
    /// The page.
    pub fn page_id(&self) -> PageId {
        self.shared.frame(self.frame).page()
    }

    /// The pinned version is still the newest one of its page.
    pub fn is_current(&self) -> bool {
        self.shared.frame(self.frame).is_current()
    }

    /// To be asked before the pin is handed to a user for an unknown time. `true`: pins held by users already take
    /// their share of the pool (a quarter), so copy what is needed and drop the pin. `false`: the pin may be
    /// kept, and counts until it is dropped.
    #[inline]
    pub fn should_copy(&mut self) -> bool {
        if !matches!(self.kept, Kept::No) {
            return false;
        }
        self.kept = self.shared.keep_pin();
        matches!(self.kept, Kept::No)
    }
}

impl Shared {
    /// Counts one more pin kept by a user, unless their share is used up.
    #[inline]
    fn keep_pin(&self) -> Kept {
        let number = crate::threads::number();
        // So many threads have an allowance of their own that together they have as much as there is for all.
        if (number as u64) < self.kept_common_max / self.kept_per_thread {
            let slot = self.slots.slot(number);
            if slot.kept.fetch_add(1, Ordering::Relaxed) < self.kept_per_thread {
                return Kept::Thread(number as u32);
            }
            slot.kept.fetch_sub(1, Ordering::Relaxed);
        }
        if self.kept_common.fetch_add(1, Ordering::Relaxed) < self.kept_common_max {
            return Kept::Common;
        }
        self.kept_common.fetch_sub(1, Ordering::Relaxed);
        Kept::No
    }
}

impl Clone for PagePin<'_> {
    /// Pins once more. The clone counts against the users' share if that has room, and is given out in any case.
    fn clone(&self) -> Self {
        self.shared.frame(self.frame).pin_again();
        let kept = if matches!(self.kept, Kept::No) { Kept::No } else { self.shared.keep_pin() };
        Self { shared: self.shared, frame: self.frame, kept }
    }
}

impl Deref for PagePin<'_> {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the frame is pinned by this value: by the law of the pool nobody writes it until the pin goes.
        unsafe { self.shared.arena.bytes(self.frame) }
    }
}

impl Drop for PagePin<'_> {
    #[inline]
    fn drop(&mut self) {
        match self.kept {
            Kept::No => {}
            Kept::Thread(number) => {
                self.shared.slots.slot(number as usize).kept.fetch_sub(1, Ordering::Relaxed);
            }
            Kept::Common => {
                self.shared.kept_common.fetch_sub(1, Ordering::Relaxed);
            }
        }
        match self.shared.frame(self.frame).unpin() {
            Released::Shared => {}
            Released::Free => self.shared.free_frame(self.frame),
        }
    }
}
