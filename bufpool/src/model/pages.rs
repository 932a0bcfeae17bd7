//! Pins, latches, copies, retirement, eviction and loading of single pages.

use super::*;
use crate::frame::{L, PINS, R, X};

/// A reader against a writer that may find the page free of pins (in place) or not (copy), and whose old frame is used
/// again at once for another page.
fn reader_and_writer(read: impl Fn(&World) -> Option<u64> + Clone + Send + Sync + 'static) {
    check(3, move || {
        let world = Arc::new(World::with_page(2, 10));
        let writer = spawn(&world, |world| {
            assert!(world.change(PAGE, |value| value + 1));
            world.create(OTHER, 7);
        });
        let found = read(&world);
        writer.join().unwrap();
        assert!(matches!(found, None | Some(10 | 11)));
        assert_eq!(world.get(PAGE), Some(11));
        world.assert_whole(PAGE);
        world.assert_whole(OTHER);
    });
}

#[test]
fn a_pinned_page_never_changes() {
    reader_and_writer(|world| world.get(PAGE));
}

/// Pins as [`Frame::pin`] does, but for the check of the page after it.
fn pin_unchecked(frame: &Frame, page: PageId) -> bool {
    let state = frame.state().load(Ordering::Relaxed);
    state & (R | X) == 0
        && frame.page() == page
        && frame.state().compare_exchange(state, state + 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
}

fn get_with(
    world: &World,
    pin: impl Fn(&Frame, PageId) -> bool,
    unpin: impl Fn(&Frame) -> Released,
) -> Option<u64> {
    let Place::Leaf(frame) = world.table.place(PAGE) else { return None };
    if !pin(world.frame(frame), PAGE) {
        return None;
    }
    let content = world.read(frame);
    assert_eq!(content.page, PAGE, "another page");
    let released = unpin(world.frame(frame));
    world.released(frame, released);
    Some(content.value)
}

/// A reader that read the word some time ago, while the page is freed and its frame used for another one.
fn late_reader(pin: fn(&Frame, PageId) -> bool) {
    check(4, move || {
        let world = Arc::new(World::with_page(1, 10));
        let writer = spawn(&world, |world| {
            let Some(frame) = world.try_latch(PAGE) else { unreachable!() };
            // `LeafLatch::free`.
            world.set_word(PAGE, Place::Free);
            let released = world.frame(frame).retire(false);
            world.released(frame, released);
            world.create(OTHER, 7);
        });
        let found = get_with(&world, pin, Frame::unpin);
        assert!(matches!(found, None | Some(10)));
        writer.join().unwrap();
        assert_eq!(world.get(PAGE), None);
        world.assert_whole(OTHER);
    });
}

#[test]
fn a_frame_used_again_turns_late_readers_away() {
    late_reader(|frame, page| frame.pin(page).is_ok());
}

#[test]
#[should_panic(expected = "another page")]
fn control_no_check_of_the_page_after_the_pin() {
    late_reader(pin_unchecked);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn control_a_pin_that_does_not_release() {
    reader_and_writer(|world| {
        get_with(
            world,
            |frame, page| frame.pin(page).is_ok(),
            |frame| {
                let before = frame.state().fetch_sub(1, Ordering::Relaxed);
                if before & R != 0 && before & PINS == 1 { Released::Free } else { Released::Shared }
            },
        )
    });
}

/// A pinned page is retired while its pin is cloned and given back and another reader comes: one party frees the frame.
fn last_one_out(retire: fn(&Frame) -> Released) {
    check(3, move || {
        let world = Arc::new(World::with_page(1, 10));
        let frame = world.try_pin(PAGE).unwrap();
        assert!(world.frame(frame).latch(PAGE));
        let holder = spawn(&world, move |world| {
            world.frame(frame).pin_again();
            world.unpin(frame);
            assert_eq!(world.read(frame).page, PAGE, "another page");
            world.unpin(frame);
        });
        let passing = spawn(&world, |world| world.get(PAGE));
        // `Shared::retire_leaf`.
        world.set_word(PAGE, Place::Free);
        let released = retire(world.frame(frame));
        world.released(frame, released);
        world.create(OTHER, 7);
        passing.join().unwrap();
        holder.join().unwrap();
        match world.table.place(OTHER) {
            Place::Leaf(_) => assert_eq!(world.free_frames(), 0),
            _ => assert_eq!(world.free_frames(), 1, "nobody gave the frame back"),
        }
    });
}

#[test]
fn the_last_one_out_frees_the_frame() {
    last_one_out(|frame| frame.retire(false));
}

#[test]
#[should_panic]
fn control_retired_without_the_bit() {
    last_one_out(|frame| {
        let before = frame.state().fetch_and(!(L | X), Ordering::AcqRel);
        if before & PINS == 0 { Released::Free } else { Released::Shared }
    });
}

#[test]
#[should_panic]
fn control_freed_in_spite_of_pins() {
    last_one_out(|frame| {
        _ = frame.retire(false);
        Released::Free
    });
}

#[test]
fn the_latch_keeps_two_writers_apart() {
    check(3, || {
        let world = Arc::new(World::with_page(3, 10));
        let other = spawn(&world, |world| world.change(PAGE, |value| value + 1));
        let mine = world.change(PAGE, |value| value + 1);
        let theirs = other.join().unwrap();
        assert_eq!(world.get(PAGE), Some(10 + u64::from(mine) + u64::from(theirs)), "a change was lost");
        world.assert_whole(PAGE);
        assert_eq!(world.free_frames(), 2);
    });
}

#[test]
fn eviction_against_reader_and_writer() {
    check(2, || {
        let world = Arc::new(World::with_page(2, 10));
        let reader = spawn(&world, |world| {
            world.load(PAGE, World::publish);
            world.get(PAGE)
        });
        let writer = spawn(&world, |world| world.change(PAGE, |value| value + 1));
        let evicted = world.evict(PAGE);
        let changed = writer.join().unwrap();
        let found = reader.join().unwrap();
        assert!(matches!(found, None | Some(10 | 11)));
        assert!(changed || evicted, "nothing but an eviction keeps the writer off");
        world.load(PAGE, World::publish);
        assert_eq!(world.get(PAGE), Some(10 + u64::from(changed)), "a change was lost");
        world.assert_whole(PAGE);
        assert_eq!(world.free_frames(), 1);
    });
}

#[test]
fn one_of_two_readers_brings_a_page_in() {
    check(3, || {
        let world = Arc::new(World::new(2, &[Content { page: PAGE, value: 10 }]));
        world.set_word(PAGE, Place::Disk(Location(1)));
        let other = spawn(&world, |world| (world.load(PAGE, World::publish), world.get(PAGE)));
        let mine = (world.load(PAGE, World::publish), world.get(PAGE));
        let theirs = other.join().unwrap();
        assert!(mine.0 != theirs.0, "exactly one of them read it");
        for found in [mine.1, theirs.1] {
            assert!(matches!(found, None | Some(10)));
        }
        assert_eq!(world.get(PAGE), Some(10));
        assert_eq!(world.free_frames(), 1);
    });
}

/// An evictor that read the word some time ago, while the page leaves and comes back to the very same frame.
fn late_evictor(publish: fn(&World, FrameId, PageId)) {
    check(3, move || {
        let world = Arc::new(World::with_page(1, 10));
        let evictor = spawn(&world, |world| world.evict(PAGE));
        if world.evict(PAGE) {
            world.load(PAGE, publish);
        }
        evictor.join().unwrap();
        world.load(PAGE, World::publish);
        world.assert_whole(PAGE);
        assert_eq!(world.get(PAGE), Some(10));
    });
}

#[test]
fn an_evictor_with_an_old_word_does_no_harm() {
    late_evictor(World::publish);
}

#[test]
#[should_panic(expected = "the word names a free frame")]
fn control_opened_before_the_word_names_it() {
    late_evictor(|world, frame, page| {
        world.frame(frame).open_latched();
        world.frame(frame).unlatch();
        world.set_word(page, Place::Leaf(frame));
    });
}
