//! Reader epochs: how replaced inner nodes are kept until no reader can see them (Fraser, "Practical lock freedom",
//! 2004; the same scheme as crossbeam-epoch, but with one bounded list instead of lazy thread-local bags, because
//! every entry holds a frame of a pool of fixed size).
//!
//! A reader enters by writing the global epoch into its slot and leaves by writing 0. The global epoch moves from g to
//! g + 1 only when every slot is 0 or g. An entry retired at epoch g (after it became unreachable) is free once the
//! global epoch is g + 2: every reader that could have seen it entered at g or before, and both steps since then
//! required it to have left.

use std::collections::VecDeque;

use bedstone_io::sync::{AtomicU64, Mutex, Ordering, fence};

use crate::threads::{Slot, Slots};

#[derive(Debug)]
pub(crate) struct Epochs<T> {
    global: AtomicU64,
    retired: Mutex<VecDeque<(u64, T)>>,
}

impl<T> Epochs<T> {
    pub(crate) fn new() -> Self {
        Self { global: AtomicU64::new(1), retired: Mutex::new(VecDeque::new()) }
    }

    /// Enters. Returns false if the thread was inside already (then the outer entry counts, and `leave` must not be
    /// called for this one).
    #[inline]
    pub(crate) fn enter(&self, slot: &Slot) -> bool {
        if slot.reader.load(Ordering::Relaxed) != 0 {
            return false;
        }
        let epoch = self.global.load(Ordering::Relaxed);
        slot.reader.store(epoch, Ordering::Relaxed);
        // Orders the store before every load of a translation word: either the collector's scan sees this slot, or
        // we see every translation word that was changed before the scan.
        fence(Ordering::SeqCst);
        true
    }

    #[inline]
    pub(crate) fn leave(&self, slot: &Slot) {
        slot.reader.store(0, Ordering::Release);
    }

    /// Hands over something that no reader can reach any more, though some may still be looking at it.
    pub(crate) fn retire(&self, item: T) {
        fence(Ordering::SeqCst);
        let epoch = self.global.load(Ordering::Relaxed);
        self.retired.lock().push_back((epoch, item));
    }

    /// Moves the global epoch if every reader has seen it.
    fn advance(&self, slots: &Slots) -> bool {
        let epoch = self.global.load(Ordering::Relaxed);
        fence(Ordering::SeqCst);
        for slot in slots.iter() {
            let entered = slot.reader.load(Ordering::Relaxed);
            if entered != 0 && entered != epoch {
                return false;
            }
        }
        fence(Ordering::Acquire);
        self.global.compare_exchange(epoch, epoch + 1, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// Everything retired that no reader can be looking at, moving the epoch on as far as needed and possible.
    pub(crate) fn collect(&self, slots: &Slots) -> Vec<T> {
        let mut out = Vec::new();
        for _ in 0..3 {
            {
                let mut retired = self.retired.lock();
                let global = self.global.load(Ordering::Acquire);
                while retired.front().is_some_and(|(epoch, _)| epoch + 2 <= global) {
                    out.extend(retired.pop_front().map(|(_, item)| item));
                }
                if retired.is_empty() {
                    break;
                }
            }
            if !self.advance(slots) {
                break;
            }
        }
        out
    }

    /// How many entries wait.
    pub(crate) fn waiting(&self) -> usize {
        self.retired.lock().len()
    }
}
