//! Checkpoint epochs and their announcement.
//!
//! Every page operation (a change of a leaf, a split, a merge, a publication) belongs to one checkpoint epoch, so that
//! the image of a checkpoint holds whole operations only. A thread first takes all latches that its operation needs,
//! then announces: it reads the epoch, writes it into its slot, and reads the epoch again; a plain read-then-write
//! would let a checkpoint miss it. Closing epoch e sets the epoch to e + 1 and waits until no slot holds e or
//! less; that wait is short because nothing that waits, reads, or allocates happens while announced.

use bedstone_io::sync::{AtomicU64, Ordering, fence, spin_loop, yield_now};

use crate::threads::{Slot, Slots};

/// The checkpoint epoch that page operations belong to now, and the one being written out.
#[derive(Debug)]
pub(crate) struct CheckpointEpoch {
    current: AtomicU64,
    /// The epoch a checkpoint is closing; 0 when none runs. Stored before `current` moves past it.
    closing: AtomicU64,
}

impl CheckpointEpoch {
    pub(crate) fn new() -> Self {
        Self { current: AtomicU64::new(1), closing: AtomicU64::new(0) }
    }

    /// The epoch now, for the broken variants that the models must catch.
    #[cfg(all(test, loom))]
    pub(crate) fn now(&self) -> u64 {
        self.current.load(Ordering::Acquire)
    }

    pub(crate) fn closing(&self) -> u64 {
        self.closing.load(Ordering::Acquire)
    }

    pub(crate) fn set_closing(&self, epoch: u64) {
        self.closing.store(epoch, Ordering::Release);
    }

    pub(crate) fn announce(&self, slot: &Slot) -> u64 {
        assert_eq!(slot.announced.load(Ordering::Relaxed), 0, "one announcement a thread at a time");
        let mut epoch = self.current.load(Ordering::Acquire);
        loop {
            // Release: a checkpoint may see this store and never the 0 before it, and must see all the same what the
            // thread did under its last announcement.
            slot.announced.store(epoch, Ordering::Release);
            fence(Ordering::SeqCst);
            let now = self.current.load(Ordering::Acquire);
            if now == epoch {
                return epoch;
            }
            epoch = now;
        }
    }

    /// Ends the announcement.
    pub(crate) fn end(&self, slot: &Slot) {
        slot.announced.store(0, Ordering::Release);
    }

    /// Begins the next epoch and waits until every operation of the present one is over; returns the epoch closed.
    pub(crate) fn close(&self, slots: &Slots) -> u64 {
        let epoch = self.current.load(Ordering::Relaxed);
        self.closing.store(epoch, Ordering::Release);
        self.current.store(epoch + 1, Ordering::Release);
        fence(Ordering::SeqCst);
        for slot in slots.iter() {
            let mut tries = 0;
            loop {
                let announced = slot.announced.load(Ordering::Acquire);
                if announced == 0 || announced > epoch {
                    break;
                }
                tries += 1;
                if tries > 100 { yield_now() } else { spin_loop() }
            }
        }
        epoch
    }
}
