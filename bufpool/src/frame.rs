//! The state word of a frame and the law of the pool: **a pinned frame never changes**.
//!
//! ```text
//! 63 X  bytes may change: no new pins          62 L  a writer holds the latch: readers may pin
//! 61 R  retired, free or inner: every pin fails   59..32 version, raised when X is released    31..0 pins
//! ```
//!
//! - A reader pins by compare-and-swap while neither X nor R is set, then checks that the frame still holds the
//!   page it came for; the tree checks in addition that the parent's translation word has not changed.
//! - A writer takes L. To change bytes in place it needs X, which can be had only while there are no pins;
//!   otherwise it fills another frame, points the translation word at it, retires this one, and only then lets
//!   readers into the new one. In that order exactly one version of a page accepts pins at any moment.
//! - A frame is retired by setting R together with clearing L and X, in one step. From then on pins can only fall.
//!   Whoever brings them to zero (the retirer itself if there were none) owns the frame and gives it back: exactly
//!   one party sees that moment, because it is decided by the value that one atomic operation returned.
//! - A free frame has R set. It gets its page id first, then becomes the page's newest version, still shut, by one
//!   store, then the translation word is pointed at it, and only then is it opened; so a reader with an outdated
//!   word either fails on R or sees the new page id, and no evictor finds it before its word names it.
//! - Frames of inner nodes keep R for their whole life: they are read under a reader epoch and never pinned.
//!
//! Nobody ever waits for pins; sections under X contain no waits.

use bedstone_io::sync::{AtomicU8, AtomicU32, AtomicU64, Ordering, spin_loop, yield_now};

use crate::dirty::Dirty;
use crate::header::PageId;

pub(crate) const X: u64 = 1 << 63;
pub(crate) const L: u64 = 1 << 62;
pub(crate) const R: u64 = 1 << 61;
pub(crate) const PINS: u64 = (1 << 32) - 1;
/// More pins than any program holds: values were leaked on purpose, four thousand million times. Going on would carry
/// into the version bits and end in "no pins" (the standard library's `Arc` ends the process likewise).
const PINS_MAX: u64 = PINS / 2;
const VERSION_ONE: u64 = 1 << 32;
const VERSION: u64 = ((1 << 60) - 1) & !PINS;

/// How often a reader looks again while a writer has X (a change in place takes about 200 ns).
const SPINS: u32 = if cfg!(loom) { 1 } else { 100 };
/// How often a writer looks again for pins to drain before it copies (a plain get pins for about 100 ns, a copy of
/// 16 KiB takes a microsecond and a frame).
const PIN_SPINS: u32 = if cfg!(loom) { 1 } else { 40 };

/// Number of a frame of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FrameId(pub(crate) u32);

/// State of one frame, one cache line, outside the page.
#[repr(align(64))]
#[derive(Debug, Default)]
pub(crate) struct Frame {
    state: AtomicU64,
    /// The page it holds; changed only while R keeps everybody out.
    page: AtomicU32,
    /// Set by readers, read and cleared by the evictor.
    pub(crate) touched: AtomicU8,
    /// What it owes to the disk.
    pub(crate) dirty: Dirty,
}

#[cold]
fn too_many_pins() -> ! {
    std::process::abort()
}

#[cfg(not(loom))]
// SAFETY: a frame of zeros is one of atomic integers, all zero.
unsafe impl crate::arena::Zeroed for Frame {}

/// What became of a frame when its last pin went or it was retired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Released {
    /// Somebody else still has it.
    Shared,
    /// Nobody has it any more: the caller gives it to the free list.
    Free,
}

impl Frame {
    /// Makes a zeroed frame a free one. Only while the pool is being built.
    pub(crate) fn init_free(&self) {
        self.state.store(R, Ordering::Relaxed);
    }

    pub(crate) fn page(&self) -> PageId {
        PageId(self.page.load(Ordering::Relaxed))
    }

    /// Gives a free frame to a page. R still keeps everybody out.
    pub(crate) fn assign(&self, page: PageId) {
        debug_assert_eq!(self.state.load(Ordering::Relaxed) & (R | L | X | PINS), R);
        self.page.store(page.0, Ordering::Relaxed);
    }

    /// Makes an assigned frame the newest version of its page, latched and shut (L and X): it is the caller who lets
    /// readers in, by [`Frame::unlatch`], once the translation word names the frame. Never the other way round: a frame
    /// that is open before its word names it can be claimed by an evictor that holds an older, equal word.
    pub(crate) fn open_latched(&self) {
        let version = self.state.load(Ordering::Relaxed) & VERSION;
        self.state.store(version | L | X, Ordering::Release);
    }

    /// One more pin for a reader that came for `page`. `Err` if it is not here any more; with `Released::Free` the
    /// passing pin turned out to be the last one of a retired frame, which the caller then frees.
    #[inline]
    pub(crate) fn pin(&self, page: PageId) -> Result<(), Released> {
        let mut state = self.state.load(Ordering::Relaxed);
        let mut tries = 0;
        loop {
            if state & R != 0 || self.page() != page {
                return Err(Released::Shared);
            }
            if state & X != 0 {
                tries += 1;
                if tries > SPINS {
                    yield_now()
                } else {
                    spin_loop()
                }
                state = self.state.load(Ordering::Relaxed);
                continue;
            }
            if state & PINS > PINS_MAX {
                too_many_pins();
            }
            match self.state.compare_exchange_weak(state, state + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => state = now,
            }
        }
        // Between the look above and the swap the frame may have gone to another page and come back to the very
        // same state word; the page id read after the pin decides.
        if self.page() == page { Ok(()) } else { Err(self.unpin()) }
    }

    /// One more pin on top of one that the caller holds.
    #[inline]
    pub(crate) fn pin_again(&self) {
        let before = self.state.fetch_add(1, Ordering::Relaxed);
        debug_assert!(before & PINS != 0);
        if before & PINS > PINS_MAX {
            too_many_pins();
        }
    }

    /// Gives a pin back.
    #[inline]
    pub(crate) fn unpin(&self) -> Released {
        let before = self.state.fetch_sub(1, Ordering::Release);
        debug_assert!(before & PINS != 0);
        self.released(before, 1)
    }

    /// What a step that took the pins from `last` (the value that meant "the last one") says about the frame.
    #[inline]
    fn released(&self, before: u64, last: u64) -> Released {
        if before & R != 0 && before & PINS == last {
            // Everything the other readers did with the frame happens before it is reused.
            self.state.load(Ordering::Acquire);
            return Released::Free;
        }
        Released::Shared
    }

    /// Takes the writer latch for `page`; readers may still pin. `false` if the page is not here any more or another
    /// writer keeps the latch for long.
    pub(crate) fn latch(&self, page: PageId) -> bool {
        let mut state = self.state.load(Ordering::Relaxed);
        let mut tries = 0;
        loop {
            if state & R != 0 || self.page() != page {
                return false;
            }
            if state & (L | X) != 0 {
                tries += 1;
                if tries > SPINS {
                    return false;
                }
                spin_loop();
                state = self.state.load(Ordering::Relaxed);
                continue;
            }
            match self.state.compare_exchange_weak(state, state | L, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => state = now,
            }
        }
        if self.page() == page {
            return true;
        }
        self.unlatch();
        false
    }

    /// With the latch held: shuts readers out if there are none. Waits briefly for pins to drain, never long.
    pub(crate) fn try_exclusive(&self) -> bool {
        for _ in 0..PIN_SPINS {
            let state = self.state.load(Ordering::Relaxed);
            debug_assert!(state & (L | R) == L);
            if state & X != 0 {
                // Shut from the beginning: a new version whose publisher has not let readers in yet.
                return true;
            }
            if state & PINS == 0
                && self.state.compare_exchange(state, state | X, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                return true;
            }
            spin_loop();
        }
        false
    }

    /// Releases the latch, and X with a new version if it was held.
    pub(crate) fn unlatch(&self) {
        let state = self.state.load(Ordering::Relaxed);
        debug_assert!(state & L != 0 && state & R == 0);
        if state & X != 0 {
            // Under X nobody else changes the word: new pins, latches and evictions all fail.
            let version = state.wrapping_add(VERSION_ONE) & VERSION;
            self.state.store(version, Ordering::Release);
        } else {
            self.state.fetch_and(!L, Ordering::Release);
        }
    }

    /// For the evictor: latch and X at once if nobody has the frame in any way and it still holds `page`.
    pub(crate) fn try_claim(&self, page: PageId) -> bool {
        let state = self.state.load(Ordering::Relaxed);
        if state & (R | L | X | PINS) != 0 || self.page() != page {
            return false;
        }
        if self.state.compare_exchange(state, state | L | X, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return false;
        }
        if self.page() == page {
            return true;
        }
        self.unlatch();
        false
    }

    /// Retires a latched frame for good; with `keep` one pin is left on it for the checkpoint that still needs its
    /// content, in the same step.
    pub(crate) fn retire(&self, keep: bool) -> Released {
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            debug_assert!(state & L != 0 && state & R == 0);
            let next = ((state | R) & !(L | X)) + u64::from(keep);
            match self.state.compare_exchange_weak(state, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) if keep => return Released::Shared,
                Ok(before) => return self.released(before | R, 0),
                Err(now) => state = now,
            }
        }
    }

    /// The frame is not retired: what a pin holder sees is still the newest version of its page.
    pub(crate) fn is_current(&self) -> bool {
        self.state.load(Ordering::Acquire) & R == 0
    }

    /// The state word, for the broken variants that the models must catch.
    #[cfg(all(test, loom))]
    pub(crate) fn state(&self) -> &AtomicU64 {
        &self.state
    }

    /// Pins at this moment, for messages.
    pub(crate) fn pins(&self) -> u64 {
        self.state.load(Ordering::Relaxed) & PINS
    }
}
