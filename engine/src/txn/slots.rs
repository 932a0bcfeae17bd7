//! Apply slots: which commits are in the log but not yet wholly in the trees.
//!
//! A checkpoint needs a position C in the log such that every commit below C is wholly in the pages it
//! writes. The log's tail alone will not do: a commit's record is appended first and its writes reach the
//! trees later.
//!
//! Each commit owns a slot from before its append until its last write is in the trees. The slot is filled
//! with the LSN of the commit's first record *under the log's mutex, before the log's tail moves past that
//! record*. Whoever wants C loads the tail first (acquire) and scans the slots afterwards. Take any commit
//! whose first record lies below the tail that was loaded: the tail was stored (release) after its slot was
//! filled, so the scan sees the slot filled, or emptied again (then its writes are in the trees, and the
//! release of the emptying makes them visible), or filled by a later commit (then the earlier one has emptied
//! it before). Hence every commit below `min(slots seen, tail loaded)` is wholly applied. Scanning before
//! loading the tail would miss a commit that fills its slot and appends in between.
//!
//! C never goes back: it is kept with `fetch_max`. It could only seem to, when a scan that began earlier ends
//! later.
//!
//! # Fragments
//!
//! A large commit is written as fragments. Its slot holds the LSN of the *first* fragment, because replay
//! needs all of them; what counts for visibility is the LSN of its commit record, which a second word of the
//! slot holds from the commit record on. While fragments are being written the commit holds C back, but hides
//! nobody.
//!
//! That is not enough. Once such a commit is applied its slot is empty, but another slot may hold C somewhere
//! between its first fragment and its commit record. Replay from there would meet the commit record without
//! the fragments. It could not be left out either: replay repeats older writes to the same keys that lie
//! between C and the commit record, and would end with those. So C must not lie inside the stretch of any
//! fragmented commit: (first, commit record) goes on a list before the slot is emptied, the list is looked at
//! after the slots, and C is lowered to the first fragment of every stretch it falls into, until it falls
//! into none. A stretch that ends below a C once found is done with. C still never goes back: whatever was
//! found earlier was not inside this stretch, and was not above the slot's word.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam::utils::CachePadded;
use parking_lot::Mutex;

/// How many commits may be between append and apply at once; more wait for a free slot. The catalog's changes have one
/// of their own.
const SLOTS: usize = 128;
/// Nobody owns the slot.
const FREE: u64 = u64::MAX;
/// Somebody owns it but has appended nothing yet.
const OWNED: u64 = u64::MAX - 1;

struct Slot {
    /// LSN of the first record of the owner's commit.
    first: AtomicU64,
    /// LSN of the record that commits it.
    commit: AtomicU64,
}

/// The slots of a database.
pub(crate) struct Slots {
    slots: Box<[CachePadded<Slot>]>,
    /// Where the next search for a free slot begins.
    hint: CachePadded<AtomicUsize>,
    /// First fragment and commit record of the applied commits that were written as fragments and not passed
    /// by C yet.
    stretches: Mutex<Vec<(u64, u64)>>,
    /// The greatest C found.
    applied: AtomicU64,
    /// The greatest visible LSN found.
    visible: AtomicU64,
    /// Slots that will never be emptied.
    abandoned: AtomicUsize,
}

/// An owned slot. Dropping it says: all the commit's writes are in the trees, or it never appended anything
/// that counts.
pub(crate) struct ApplySlot<'a> {
    slots: &'a Slots,
    slot: &'a Slot,
    abandoned: Cell<bool>,
}

impl Slots {
    /// Slots for a log that has been replayed up to `lsn`.
    pub(crate) fn new(lsn: u64) -> Self {
        Self {
            slots: (0..=SLOTS)
                .map(|_| CachePadded::new(Slot { first: AtomicU64::new(FREE), commit: AtomicU64::new(FREE) }))
                .collect(),
            hint: CachePadded::new(AtomicUsize::new(0)),
            stretches: Mutex::new(Vec::new()),
            applied: AtomicU64::new(lsn),
            visible: AtomicU64::new(lsn),
            abandoned: AtomicUsize::new(0),
        }
    }

    /// Takes a slot. Waits while all are taken: their owners wait for I/O at most, never for a slot.
    pub(crate) fn claim(&self) -> ApplySlot<'_> {
        thread_local! {
            static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
        }
        let mut i = MINE.get();
        if i == usize::MAX {
            i = self.hint.fetch_add(1, Ordering::Relaxed);
        }
        let mut tries = 0usize;
        loop {
            let slot = &self.slots[i % SLOTS];
            if slot.first.load(Ordering::Relaxed) == FREE
                && slot.first.compare_exchange(FREE, OWNED, Ordering::SeqCst, Ordering::Relaxed).is_ok()
            {
                MINE.set(i % SLOTS);
                return ApplySlot { slots: self, slot, abandoned: Cell::new(false) };
            }
            i += 1;
            tries += 1;
            if tries.is_multiple_of(SLOTS) {
                std::thread::yield_now();
            }
        }
    }

    /// Takes the slot that is set aside for whoever holds the catalog's mutex, so that those who own the others may
    /// wait for that mutex.
    pub(crate) fn claim_for_catalog(&self) -> ApplySlot<'_> {
        let slot = &self.slots[SLOTS];
        while slot.first.compare_exchange(FREE, OWNED, Ordering::SeqCst, Ordering::Relaxed).is_err() {
            std::thread::yield_now();
        }
        ApplySlot { slots: self, slot, abandoned: Cell::new(false) }
    }

    /// Waits until no slot is owned, but for the abandoned ones. Who claims a slot and then looks at the
    /// database's state, and who changes the state and then comes here, cannot both miss the other: all four
    /// accesses are sequentially consistent.
    pub(crate) fn drain(&self) {
        let mut tries = 0u32;
        loop {
            let owned = self.slots.iter().filter(|s| s.first.load(Ordering::SeqCst) != FREE).count();
            if owned <= self.abandoned.load(Ordering::SeqCst) {
                return;
            }
            tries += 1;
            if tries < 100 {
                std::thread::yield_now();
            } else {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
    }

    /// C: every commit below it is wholly in the trees. `tail` must load the log's tail; it is called before
    /// the slots are looked at.
    pub(crate) fn applied_below(&self, tail: impl FnOnce() -> u64) -> u64 {
        let tail = tail();
        let mut min = self.slots.iter().map(|s| s.first.load(Ordering::Acquire)).fold(tail, u64::min);
        let mut stretches = self.stretches.lock();
        while let Some(&(first, _)) = stretches.iter().find(|&&(first, commit)| first < min && min <= commit)
        {
            min = first;
        }
        let applied = self.applied.fetch_max(min, Ordering::AcqRel).max(min);
        stretches.retain(|&(_, commit)| commit >= applied);
        applied
    }

    /// Every commit whose LSN is below this one can be seen in the trees.
    pub(crate) fn visible_below(&self, tail: impl FnOnce() -> u64) -> u64 {
        let tail = tail();
        let min = self.slots.iter().map(|s| s.commit.load(Ordering::Acquire)).fold(tail, u64::min);
        self.visible.fetch_max(min, Ordering::AcqRel).max(min)
    }
}

impl ApplySlot<'_> {
    /// Called under the log's mutex with the LSN of the commit's first record, before the tail moves.
    pub(crate) fn register_first(&self, lsn: u64) {
        self.slot.first.store(lsn, Ordering::Release);
    }

    /// Called under the log's mutex with the LSN of the record that commits, before the tail moves.
    pub(crate) fn register_commit(&self, lsn: u64) {
        self.slot.commit.store(lsn, Ordering::Release);
    }

    /// [`ApplySlot::abandon`] was called.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.get()
    }

    /// Keeps the slot for ever: the commit is in the log, but its writes are not all in the trees and never
    /// will be, because the engine has failed. No checkpoint may ever pass it.
    pub(crate) fn abandon(&self) {
        if !self.abandoned.replace(true) {
            self.slots.abandoned.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Drop for ApplySlot<'_> {
    fn drop(&mut self) {
        if self.abandoned.get() {
            return;
        }
        // Only the owner changes the words, so plain loads see what it stored.
        let (first, commit) =
            (self.slot.first.load(Ordering::Relaxed), self.slot.commit.load(Ordering::Relaxed));
        if first < commit && commit < OWNED {
            self.slots.stretches.lock().push((first, commit));
        }
        self.slot.commit.store(FREE, Ordering::Release);
        self.slot.first.store(FREE, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_registered_commit_decides() {
        let slots = Slots::new(10);
        assert_eq!(slots.applied_below(|| 100), 100);
        let a = slots.claim();
        let b = slots.claim();
        assert_eq!(slots.applied_below(|| 110), 110, "owned but empty slots hold nothing back");
        a.register_first(120);
        b.register_first(130);
        b.register_commit(130);
        assert_eq!(slots.applied_below(|| 140), 120);
        assert_eq!(slots.visible_below(|| 140), 130, "fragments without a commit record hide nobody");
        a.register_commit(150);
        drop(b);
        assert_eq!(slots.visible_below(|| 160), 150);
        assert_eq!(slots.applied_below(|| 160), 120);
        drop(a);
        assert_eq!(slots.applied_below(|| 160), 160);
        assert_eq!(slots.applied_below(|| 155), 160, "never back");
    }

    #[test]
    fn the_answer_never_lies_inside_a_commit_in_fragments() {
        let slots = Slots::new(10);
        let (long, short, late, given_up) = (slots.claim(), slots.claim(), slots.claim(), slots.claim());
        long.register_first(100);
        short.register_first(50);
        short.register_commit(110);
        late.register_first(150);
        late.register_commit(150);
        given_up.register_first(20);
        drop(given_up);
        long.register_commit(200);
        drop(long);
        assert_eq!(slots.applied_below(|| 300), 50);
        drop(short);
        // The oldest one at work is at 150, inside (100, 200), and 100 is inside (50, 110).
        assert_eq!(slots.applied_below(|| 300), 50);
        drop(late);
        assert_eq!(slots.applied_below(|| 300), 300);
        assert!(slots.stretches.lock().is_empty());
        let next = slots.claim();
        next.register_first(310);
        assert_eq!(slots.applied_below(|| 400), 310);
    }

    #[test]
    fn an_abandoned_slot_holds_the_checkpoint_back_for_ever() {
        let slots = Slots::new(0);
        let slot = slots.claim();
        slot.register_first(50);
        slot.abandon();
        drop(slot);
        for tail in [60, 1000] {
            assert_eq!(slots.applied_below(|| tail), 50);
        }
        drop(slots.claim());
        slots.drain();
    }

    /// Committers append under a mutex, apply, and clear; a scanner checks that everything below what it was
    /// told has been applied.
    #[test]
    fn nothing_below_the_answer_is_unapplied() {
        use std::sync::atomic::AtomicBool;
        const N: usize = 20_000;
        let slots = Slots::new(0);
        let log = Mutex::new(0u64);
        let tail = AtomicU64::new(0);
        let applied: Vec<AtomicBool> = (0..N * 2).map(|_| AtomicBool::new(false)).collect();
        let done = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..N {
                        let slot = slots.claim();
                        let lsn = {
                            let mut log = log.lock();
                            let lsn = *log;
                            slot.register_first(lsn);
                            slot.register_commit(lsn);
                            *log += 1;
                            tail.store(*log, Ordering::Release);
                            lsn
                        };
                        applied[lsn as usize].store(true, Ordering::Relaxed);
                        drop(slot);
                    }
                    done.fetch_add(1, Ordering::Release);
                });
            }
            let mut checked = 0;
            while done.load(Ordering::Acquire) < 2 || checked < 2 * N {
                let c = slots.applied_below(|| tail.load(Ordering::Acquire)) as usize;
                for (lsn, applied) in applied.iter().enumerate().take(c).skip(checked) {
                    assert!(applied.load(Ordering::Relaxed), "lsn {lsn} below {c} is not applied");
                }
                checked = checked.max(c);
            }
        });
    }
}
