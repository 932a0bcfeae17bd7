//! What a frame owes to the disk, and the law of images: **no content that a checkpoint needs is lost, and of two
//! images of a page the one with the newer content wins.**
//!
//! - A change belongs to a checkpoint epoch. The frame then *owes* an image: it is dirty.
//! - An image is *captured* while the content cannot change (pin, reader epoch). The captured bit says "an image equal
//!   to the present content has been or is being taken"; it is set under the lock of the space map, after the capture
//!   number was drawn and the frame was then seen to be the page's newest version. So of two captures of one page the
//!   later content has the larger number. A later change clears the bit.
//! - A writer of a later epoch must leave a frame alone whose content belongs to the epoch being closed and is not
//!   captured ([`Dirty::needed`]): it moves to a copy, and the old frame is preserved.
//! - The frame is clean again when the write has ended well and the captured bit is still the one set by that capture.
//!
//! The methods that say whether the number of owed images changed are the only ones that change it.

use bedstone_io::sync::{AtomicU64, Ordering};

use crate::table::Location;

const CAPTURED: u64 = 1;

/// The debts of one frame. All zero (a clean frame) at first.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    /// `epoch << 1 | captured`: the checkpoint epoch of the last change, 0 when clean.
    word: AtomicU64,
    /// Number of the capture that set the captured bit. Written and compared under the lock of the space map.
    capture: AtomicU64,
    /// Where the image of a clean frame lies (payload of an on-disk translation word).
    location: AtomicU64,
}

impl Dirty {
    /// The content equals the image at [`Dirty::location`].
    pub(crate) fn is_clean(&self) -> bool {
        self.word.load(Ordering::Acquire) == 0
    }

    /// Where the image of a clean frame lies.
    pub(crate) fn location(&self) -> Location {
        Location(self.location.load(Ordering::Acquire))
    }

    /// The epoch of the last change, unless the frame is clean.
    pub(crate) fn epoch(&self) -> Option<u64> {
        match self.word.load(Ordering::Acquire) {
            0 => None,
            word => Some(word >> 1),
        }
    }

    /// The epoch of a content of which no image has been captured.
    pub(crate) fn owed(&self) -> Option<u64> {
        match self.word.load(Ordering::Acquire) {
            0 => None,
            word if word & CAPTURED != 0 => None,
            word => Some(word >> 1),
        }
    }

    /// The content belongs to the epoch `closing` (0: none is being closed) or an older one and has no image yet: a
    /// change of the later epoch `epoch` must leave it as it is. May turn from true to false at any moment (a capture,
    /// the end of the checkpoint), never from false to true while the asker is announced in `epoch`.
    pub(crate) fn needed(&self, epoch: u64, closing: u64) -> bool {
        epoch > closing && self.owed().is_some_and(|of| of <= closing)
    }

    /// The content changes in `epoch`; the caller has the frame alone. Returns whether one more image is owed.
    pub(crate) fn change(&self, epoch: u64) -> bool {
        let before = self.word.swap(epoch << 1, Ordering::AcqRel);
        debug_assert!(before >> 1 <= epoch, "a change of epoch {epoch} after one of epoch {}", before >> 1);
        before == 0 || before & CAPTURED != 0
    }

    /// Nobody needs an image of the content any more. Returns whether one less is owed.
    pub(crate) fn forget(&self) -> bool {
        let before = self.word.swap(0, Ordering::AcqRel);
        before != 0 && before & CAPTURED == 0
    }

    /// The content was just read from `location`. The caller has the frame alone.
    pub(crate) fn loaded(&self, location: Location) {
        self.word.store(0, Ordering::Relaxed);
        self.location.store(location.0, Ordering::Relaxed);
    }

    /// Sets the captured bit for the content of `epoch`, if it still has none; an image less is owed then. The caller
    /// keeps the content from changing and holds the lock of the space map.
    pub(crate) fn capture(&self, epoch: u64, number: u64) -> bool {
        let owing = epoch << 1;
        let set =
            self.word.compare_exchange(owing, owing | CAPTURED, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if set {
            self.capture.store(number, Ordering::Relaxed);
        }
        set
    }

    /// The image captured as `number` lies at `location` now: if it is still equal to the content, the frame becomes
    /// clean. Under the lock of the space map.
    pub(crate) fn written(&self, epoch: u64, number: u64, location: Location) {
        let captured = epoch << 1 | CAPTURED;
        if self.word.load(Ordering::Acquire) == captured && self.capture.load(Ordering::Relaxed) == number {
            // Before the frame is seen clean: whoever evicts it needs the place. Nobody reads it before.
            self.location.store(location.0, Ordering::Release);
            // A change at this moment wins, and the frame stays dirty.
            let _ = self.word.compare_exchange(captured, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// The image captured as `number` could not be written: if it is still equal to the content, the frame owes it
    /// again. Returns whether one more is owed. Under the lock of the space map.
    pub(crate) fn unwritten(&self, epoch: u64, number: u64) -> bool {
        let captured = epoch << 1 | CAPTURED;
        self.capture.load(Ordering::Relaxed) == number
            && self.word.compare_exchange(captured, epoch << 1, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}
