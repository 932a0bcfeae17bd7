//! Checkpoint epochs, and the images of pages that are changed while a checkpoint is under way.

use super::*;
use crate::checkpoint_epoch::CheckpointEpoch;
use crate::preserved::Preserved;
use crate::threads::{Slot, Slots};

/// Operations that were announced in the epoch closed, against the one who closed it: all they did is to be seen, and
/// none of them is still at it.
fn announced(announce: fn(&CheckpointEpoch, &Slot) -> u64) {
    struct Operations {
        epoch: CheckpointEpoch,
        slots: Slots,
        /// What operations of epoch 1 change.
        done: Watched<u64>,
    }
    check(3, move || {
        let all = Operations { epoch: CheckpointEpoch::new(), slots: Slots::new(), done: Watched::new(0) };
        all.slots.slot(1);
        let all = Arc::new(all);
        let writer = spawn(&all, move |all| {
            let slot = all.slots.slot(0);
            let mut done = 0;
            for _ in 0..2 {
                if announce(&all.epoch, slot) == 1 {
                    all.done.set(all.done.get() + 1);
                    done += 1;
                }
                all.epoch.end(slot);
            }
            done
        });
        assert_eq!(all.epoch.close(&all.slots), 1);
        let seen = all.done.get();
        assert_eq!(seen, writer.join().unwrap(), "an operation of the closed epoch was missed");
    });
}

#[test]
fn closing_an_epoch_waits_for_its_operations() {
    announced(CheckpointEpoch::announce);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn control_announced_without_a_second_look() {
    announced(|epoch, slot| {
        let now = epoch.now();
        slot.announced.store(now, Ordering::Release);
        loom::sync::atomic::fence(Ordering::SeqCst);
        now
    });
}

#[test]
#[should_panic(expected = "Causality violation")]
fn control_an_announcement_that_does_not_release_the_one_before() {
    announced(|epoch, slot| {
        let mut now = epoch.now();
        loop {
            slot.announced.store(now, Ordering::Relaxed);
            loom::sync::atomic::fence(Ordering::SeqCst);
            let again = epoch.now();
            if again == now {
                return now;
            }
            now = again;
        }
    });
}

/// An image captured of the page.
#[derive(Debug, Clone, Copy)]
struct Image {
    frame: FrameId,
    epoch: u64,
    number: u64,
    value: u64,
}

/// What `Space` knows: the capture numbers given out, and per epoch the image with the largest.
#[derive(Debug, Default)]
struct Deltas {
    captures: u64,
    filed: [Option<(u64, u64)>; 3],
    in_flight: [usize; 3],
    owed: i64,
}

struct Store {
    world: World,
    slots: Slots,
    epoch: CheckpointEpoch,
    preserved: Preserved,
    deltas: Mutex<Deltas>,
    /// The broken variants.
    broken: Broken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Nothing,
    /// Writers change pages in place that the checkpoint needs.
    InPlace,
    /// Writers retire frames that the checkpoint needs without a pin for it.
    NotKept,
    /// A frame that was changed after its capture becomes clean when the image has been written.
    CleanAnyway,
}

impl Store {
    /// One page of value 10, changed last in epoch 1, not captured.
    fn new(broken: Broken) -> Self {
        let store = Self {
            world: World::with_page(3, 10),
            slots: Slots::new(),
            epoch: CheckpointEpoch::new(),
            preserved: Preserved::new(),
            deltas: Mutex::new(Deltas::default()),
            broken,
        };
        store.slots.slot(1);
        let Place::Leaf(frame) = store.world.table.place(PAGE) else { unreachable!() };
        store.owe(store.world.frame(frame).dirty.change(1));
        store
    }

    fn owe(&self, more: bool) {
        self.deltas.lock().owed += i64::from(more);
    }

    fn forget(&self, frame: FrameId) {
        let less = self.world.frame(frame).dirty.forget();
        self.deltas.lock().owed -= i64::from(less);
    }

    /// `LeafLatch::modify` and `PageMut::finish`: the epoch in which the page got its new value.
    fn change(&self, slot: &Slot, value: u64) -> Option<u64> {
        let world = &self.world;
        let latched = world.try_latch(PAGE)?;
        let epoch = self.epoch.announce(slot);
        let descriptor = world.frame(latched);
        let needed = descriptor.dirty.needed(epoch, self.epoch.closing()) && self.broken != Broken::InPlace;
        if !needed && descriptor.try_exclusive() {
            self.owe(descriptor.dirty.change(epoch));
            world.write(latched, Content { page: PAGE, value });
            descriptor.unlatch();
        } else {
            let copy = world.take().expect("a frame");
            assert_eq!(world.read(latched).page, PAGE);
            world.write(copy, Content { page: PAGE, value });
            world.frame(copy).assign(PAGE);
            self.owe(world.frame(copy).dirty.change(epoch));
            world.frame(copy).open_latched();
            world.set_word(PAGE, Place::Leaf(copy));
            // `Shared::retire_leaf`.
            let retire = || _ = descriptor.retire(true);
            if self.broken == Broken::NotKept
                || !self.preserved.keep(PAGE, latched, &descriptor.dirty, epoch, &self.epoch, retire)
            {
                self.forget(latched);
                let released = descriptor.retire(false);
                world.released(latched, released);
            }
            world.frame(copy).unlatch();
        }
        self.epoch.end(slot);
        Some(epoch)
    }

    /// `Shared::capture_held`.
    fn capture_held(&self, frame: FrameId, is_current: impl Fn() -> bool) -> Option<Image> {
        let descriptor = self.world.frame(frame);
        let epoch = descriptor.dirty.owed()?;
        let number = {
            let mut deltas = self.deltas.lock();
            deltas.captures += 1;
            let number = deltas.captures;
            if !is_current() || !descriptor.dirty.capture(epoch, number) {
                return None;
            }
            deltas.in_flight[epoch as usize] += 1;
            deltas.owed -= 1;
            number
        };
        Some(Image { frame, epoch, number, value: self.world.read(frame).value })
    }

    /// `Shared::capture` of a leaf.
    fn capture(&self, frame: FrameId, epoch_max: u64) -> Option<Image> {
        let descriptor = self.world.frame(frame);
        if descriptor.dirty.owed().is_none_or(|epoch| epoch > epoch_max) {
            return None;
        }
        let page = descriptor.page();
        if self.world.table.place(page) != Place::Leaf(frame) {
            return None;
        }
        if let Err(released) = descriptor.pin(page) {
            self.world.released(frame, released);
            return None;
        }
        let image = self.capture_held(frame, || descriptor.is_current());
        self.world.unpin(frame);
        image
    }

    /// The end of `Shared::write_images`; with `failed` the write failed.
    fn write(&self, image: Image, failed: bool) {
        let mut deltas = self.deltas.lock();
        let dirty = &self.world.frame(image.frame).dirty;
        let at = image.epoch as usize;
        deltas.in_flight[at] -= 1;
        if failed {
            deltas.owed += i64::from(dirty.unwritten(image.epoch, image.number));
            return;
        }
        if deltas.filed[at].is_none_or(|(number, _)| number < image.number) {
            deltas.filed[at] = Some((image.number, image.value));
        }
        if self.broken == Broken::CleanAnyway {
            dirty.forget();
        } else {
            dirty.written(image.epoch, image.number, Location(image.value));
        }
    }

    /// Writes the page out, if it is dirty and can be had, as the evictor does.
    fn write_page(&self, failed: bool) {
        if let Place::Leaf(frame) = self.world.table.place(PAGE)
            && let Some(image) = self.capture(frame, u64::MAX)
        {
            self.write(image, failed);
        }
    }

    /// `Checkpoint::write_pages`.
    fn write_pages(&self, epoch: u64) {
        loop {
            let mut left = false;
            for (at, frame) in self.world.frames.iter().enumerate() {
                if frame.dirty.owed().is_some_and(|of| of <= epoch) {
                    left = true;
                    if let Some(image) = self.capture(FrameId(at as u32), epoch) {
                        self.write(image, false);
                    }
                }
            }
            for (_, frame) in self.preserved.take() {
                left = true;
                if let Some(image) = self.capture_held(frame, || true) {
                    self.write(image, false);
                }
                self.release_preserved(frame);
            }
            if !left && self.deltas.lock().in_flight[epoch as usize] == 0 {
                return;
            }
            yield_now();
        }
    }

    fn release_preserved(&self, frame: FrameId) {
        self.forget(frame);
        self.world.unpin(frame);
    }

    /// With all threads at rest: the page is whole, what it owes is what is counted, and clean means written.
    fn assert_settled(&self) {
        self.world.assert_whole(PAGE);
        let owing = self.world.frames.iter().filter(|frame| frame.dirty.owed().is_some()).count();
        assert_eq!(self.deltas.lock().owed, owing as i64, "promises leak");
        let Place::Leaf(frame) = self.world.table.place(PAGE) else { unreachable!() };
        let dirty = &self.world.frame(frame).dirty;
        if dirty.is_clean() {
            assert_eq!(
                dirty.location().0,
                self.world.read(frame).value,
                "clean, but the image is another one"
            );
        }
        assert!(self.preserved.take().is_empty(), "a preserved frame was forgotten");
        assert_eq!(self.world.free_frames(), 2, "a frame leaks");
    }
}

/// A checkpoint against a writer and, with `evictor`, somebody who writes pages out besides: the image of the epoch
/// closed is the last content of that epoch.
fn checkpoint_and_writer(broken: Broken, evictor: bool) {
    check(if evictor { 2 } else { 3 }, move || {
        let store = Arc::new(Store::new(broken));
        let writer = spawn(&store, |store| store.change(store.slots.slot(0), 11));
        let evictor = evictor.then(|| spawn(&store, |store| store.write_page(false)));
        let epoch = store.epoch.close(&store.slots);
        store.write_pages(epoch);
        store.epoch.set_closing(0);
        let image = store.deltas.lock().filed[1].map(|(_, value)| value);
        let changed = writer.join().unwrap();
        if let Some(evictor) = evictor {
            evictor.join().unwrap();
        }
        let last = if changed == Some(1) { 11 } else { 10 };
        assert_eq!(image, Some(last), "the image is not the last content of the epoch");
        store.assert_settled();
    });
}

#[test]
fn an_image_is_the_last_content_of_its_epoch() {
    checkpoint_and_writer(Broken::Nothing, false);
}

#[test]
fn an_image_is_the_last_content_of_its_epoch_whoever_writes_it() {
    checkpoint_and_writer(Broken::Nothing, true);
}

#[test]
#[should_panic(expected = "the image is not the last content of the epoch")]
fn control_changed_in_place_though_needed() {
    checkpoint_and_writer(Broken::InPlace, false);
}

#[test]
#[should_panic(expected = "the image is not the last content of the epoch")]
fn control_retired_though_needed() {
    checkpoint_and_writer(Broken::NotKept, false);
}

/// Writing out, with an error or without, against a writer of the same epoch.
fn write_out_and_writer(broken: Broken, failed: bool) {
    check(3, move || {
        let store = Arc::new(Store::new(broken));
        let writer = spawn(&store, |store| store.change(store.slots.slot(0), 11));
        store.write_page(failed);
        writer.join().unwrap();
        store.assert_settled();
        store.write_page(false);
        store.assert_settled();
    });
}

#[test]
fn a_change_after_the_capture_keeps_the_page_dirty() {
    write_out_and_writer(Broken::Nothing, false);
}

#[test]
fn a_failed_write_keeps_the_page_dirty() {
    write_out_and_writer(Broken::Nothing, true);
}

#[test]
#[should_panic(expected = "clean, but the image is another one")]
fn control_clean_whatever_happened_since() {
    write_out_and_writer(Broken::CleanAnyway, false);
}

/// A checkpoint is given up while a writer of the next epoch replaces a page that it needs: nothing may stay on the list
/// of preserved frames, where the next checkpoint would take it for the page's content of its own epoch.
fn giving_up(keep: fn(&Store, FrameId, u64) -> bool) {
    check(3, move || {
        let store = Arc::new(Store::new(Broken::Nothing));
        let Place::Leaf(frame) = store.world.table.place(PAGE) else { unreachable!() };
        assert_eq!(store.epoch.close(&store.slots), 1);
        let writer = spawn(&store, move |store| {
            let slot = store.slots.slot(0);
            assert!(store.world.frame(frame).latch(PAGE));
            let epoch = store.epoch.announce(slot);
            store.world.set_word(PAGE, Place::Free);
            if !keep(store, frame, epoch) {
                store.forget(frame);
                let released = store.world.frame(frame).retire(false);
                store.world.released(frame, released);
            }
            store.epoch.end(slot);
        });
        // `Checkpoint::drop`.
        store.epoch.set_closing(0);
        let given_up = store.preserved.take();
        given_up.into_iter().for_each(|(_, frame)| store.release_preserved(frame));
        writer.join().unwrap();
        assert!(store.preserved.take().is_empty(), "a preserved frame was forgotten");
        assert_eq!(store.world.free_frames(), 3, "a frame leaks");
        assert_eq!(store.deltas.lock().owed, 0, "promises leak");
    });
}

#[test]
fn a_checkpoint_given_up_leaves_nothing_preserved() {
    giving_up(|store, frame, epoch| {
        let descriptor = store.world.frame(frame);
        store
            .preserved
            .keep(PAGE, frame, &descriptor.dirty, epoch, &store.epoch, || _ = descriptor.retire(true))
    });
}

#[test]
#[should_panic(expected = "a preserved frame was forgotten")]
fn control_preserved_without_a_look_under_the_lock() {
    giving_up(|store, frame, epoch| {
        let descriptor = store.world.frame(frame);
        let needed = descriptor.dirty.needed(epoch, store.epoch.closing());
        if needed {
            _ = descriptor.retire(true);
            store.preserved.put_back([(PAGE, frame)]);
        }
        needed
    });
}
