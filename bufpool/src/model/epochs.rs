//! Reader epochs: a replaced inner node is not used again while somebody may be reading it.

use bedstone_io::sync::fence;

use super::*;
use crate::epoch::Epochs;
use crate::threads::{Slot, Slots};

struct Readers {
    world: World,
    epochs: Epochs<FrameId>,
    slots: Slots,
}

impl Readers {
    /// An inner node with two spare frames, and slots for two threads.
    fn new() -> Self {
        let readers = Self { world: World::new(2, &[]), epochs: Epochs::new(), slots: Slots::new() };
        readers.slots.slot(1);
        readers.replace(1, |_| ());
        readers
    }

    /// Publishes a new version and gives the frame of the one before to the collector.
    fn replace(&self, value: u64, collect: impl Fn(&Self)) {
        let world = &self.world;
        let Some(frame) = world.take() else { return };
        world.write(frame, Content { page: PAGE, value });
        world.frame(frame).assign(PAGE);
        let before = world.table.place(PAGE);
        world.set_word(PAGE, Place::Inner(frame));
        if let Place::Inner(before) = before {
            self.epochs.retire(before);
            collect(self);
        }
    }

    fn free(&self, frames: Vec<FrameId>) {
        frames.into_iter().for_each(|frame| self.world.free_frame(frame));
    }

    /// What the node says now.
    fn get(&self) -> u64 {
        let Place::Inner(frame) = self.world.table.place(PAGE) else { unreachable!() };
        self.world.read(frame).value
    }
}

/// A reader that goes in and out twice against a writer that replaces the node twice, out of two frames: the second
/// time in the frame of the first version, if that was given back.
fn reader_and_collector(enter: fn(&Readers, &Slot), steps: u64) {
    check(3, move || {
        let readers = Arc::new(Readers::new());
        let writer = spawn(&readers, move |readers| {
            for value in [2, 3] {
                readers.replace(value, |readers| {
                    readers.free(readers.epochs.collect_after(steps, &readers.slots))
                });
            }
        });
        let mut last = 0;
        for _ in 0..2 {
            let slot = readers.slots.slot(0);
            enter(&readers, slot);
            let value = readers.get();
            assert!(value >= last, "the node went back in time");
            last = value;
            readers.epochs.leave(slot);
        }
        writer.join().unwrap();
        readers.free(readers.epochs.collect(&readers.slots));
        assert_eq!(readers.world.free_frames(), 1, "a frame was not given back");
    });
}

#[test]
fn a_replaced_node_waits_for_its_readers() {
    reader_and_collector(|readers, slot| readers.epochs.enter(slot), 2);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn control_one_step_of_the_epoch_only() {
    reader_and_collector(|readers, slot| readers.epochs.enter(slot), 1);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn control_no_fence_after_the_entry() {
    reader_and_collector(|_, slot| slot.reader.store(1, Ordering::Release), 2);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn control_an_entry_that_does_not_release_what_was_read_before() {
    reader_and_collector(
        |readers, slot| {
            slot.reader.store(readers.epochs.now(), Ordering::Relaxed);
            fence(Ordering::SeqCst);
        },
        2,
    );
}

/// Two entries of one thread, the first one left first.
fn two_entries(second: fn(&Readers, &Slot), leave_first: fn(&Readers, &Slot)) {
    check(3, move || {
        let readers = Arc::new(Readers::new());
        let writer = spawn(&readers, |readers| {
            for value in [2, 3] {
                readers.replace(value, |readers| readers.free(readers.epochs.collect(&readers.slots)));
            }
        });
        let slot = readers.slots.slot(0);
        readers.epochs.enter(slot);
        second(&readers, slot);
        leave_first(&readers, slot);
        readers.get();
        readers.epochs.leave(slot);
        assert_eq!(slot.reader.load(Ordering::Relaxed), 0, "still inside");
        writer.join().unwrap();
    });
}

#[test]
fn entries_may_be_left_in_any_order() {
    two_entries(|readers, slot| readers.epochs.enter(slot), |readers, slot| readers.epochs.leave(slot));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn control_a_second_entry_that_counts_for_nothing() {
    two_entries(|_, _| (), |readers, slot| readers.epochs.leave(slot));
}
