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

/// Steps of the global epoch after which no reader can be looking at an entry.
const STEPS: u64 = 2;

#[derive(Debug)]
pub(crate) struct Epochs<T> {
    global: AtomicU64,
    retired: Mutex<VecDeque<(u64, T)>>,
}

impl<T> Epochs<T> {
    pub(crate) fn new() -> Self {
        Self { global: AtomicU64::new(1), retired: Mutex::new(VecDeque::new()) }
    }

    /// Enters, with the slot of the calling thread; to be left as often as it is entered, in any order.
    #[inline]
    pub(crate) fn enter(&self, slot: &Slot) {
        if slot.reader.load(Ordering::Relaxed) != 0 {
            slot.nested.store(slot.nested.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            return;
        }
        let epoch = self.global.load(Ordering::Relaxed);
        // Release: a collector may see this store and never the 0 before it, and what the thread read under its last
        // entry must happen before the collector gives it away all the same.
        slot.reader.store(epoch, Ordering::Release);
        // Orders the store before every load of a translation word: either the collector's scan sees this slot, or
        // we see every translation word that was changed before the scan.
        fence(Ordering::SeqCst);
    }

    #[inline]
    pub(crate) fn leave(&self, slot: &Slot) {
        match slot.nested.load(Ordering::Relaxed) {
            0 => slot.reader.store(0, Ordering::Release),
            nested => slot.nested.store(nested - 1, Ordering::Relaxed),
        }
    }

    /// Hands over something that no reader can reach any more, though some may still be looking at it.
    pub(crate) fn retire(&self, item: T) {
        fence(Ordering::SeqCst);
        let epoch = self.global.load(Ordering::Relaxed);
        self.retired.lock().push_back((epoch, item));
    }

    /// Moves the global epoch on if every reader has seen it.
    fn advance(&self, slots: &Slots) -> bool {
        let epoch = self.global.load(Ordering::Relaxed);
        fence(Ordering::SeqCst);
        for slot in slots.iter() {
            let entered = slot.reader.load(Ordering::Acquire);
            if entered != 0 && entered != epoch {
                return false;
            }
        }
        // If another thread has moved it meanwhile, that is as good.
        let _ = self.global.compare_exchange(epoch, epoch + 1, Ordering::Release, Ordering::Relaxed);
        true
    }

    /// Everything retired that no reader can be looking at, moving the epoch on as far as needed and possible.
    pub(crate) fn collect(&self, slots: &Slots) -> Vec<T> {
        self.collect_after(STEPS, slots)
    }

    /// As [`Epochs::collect`], where an entry is free after so many steps of the global epoch (the models show that
    /// fewer will not do).
    pub(crate) fn collect_after(&self, steps: u64, slots: &Slots) -> Vec<T> {
        let mut out = Vec::new();
        for _ in 0..=steps {
            {
                let mut retired = self.retired.lock();
                let global = self.global.load(Ordering::Acquire);
                while retired.front().is_some_and(|(epoch, _)| epoch + steps <= global) {
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

    /// The global epoch, for the broken variants that the models must catch.
    #[cfg(all(test, loom))]
    pub(crate) fn now(&self) -> u64 {
        self.global.load(Ordering::Relaxed)
    }

    /// How many entries wait.
    pub(crate) fn waiting(&self) -> usize {
        self.retired.lock().len()
    }
}
