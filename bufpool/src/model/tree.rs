//! A reader that descends from a parent to a leaf while the leaf is split or merged. Keys are the bits of a leaf's value;
//! the parent's value says whether the keys from 2 on live in the right leaf.

use super::*;

/// The parent, an inner node: its frames are never used again in these models (the reader epochs see to that).
const PARENT: PageId = PageId(3);
const LEFT: PageId = PAGE;
const RIGHT: PageId = OTHER;

const KEY_1: u64 = 1;
const KEY_2: u64 = 2;
const WHOLE: u64 = 0;
const SPLIT: u64 = 1;

/// A new frame for an inner node, not yet reachable.
fn new_inner(world: &World, value: u64) -> FrameId {
    let frame = world.take().expect("a frame");
    world.write(frame, Content { page: PARENT, value });
    world.frame(frame).assign(PARENT);
    frame
}

fn tree(parent: u64, leaves: &[(PageId, u64)]) -> World {
    let world = World::new(5, &[]);
    for &(page, keys) in leaves {
        world.create(page, keys);
    }
    world.set_word(PARENT, Place::Inner(new_inner(&world, parent)));
    world
}

/// Whether the tree holds `key`; `None` after too many starts.
fn find(world: &World, key: u64, recheck: bool) -> Option<bool> {
    for _ in 0..ROUNDS {
        let word = world.table.word(PARENT).load(Ordering::Acquire);
        let Place::Inner(parent) = Place::of(word) else { unreachable!() };
        let child = if key >= KEY_2 && world.read(parent).value == SPLIT { RIGHT } else { LEFT };
        if let Some(leaf) = world.try_pin(child) {
            let same = world.table.word(PARENT).load(Ordering::Acquire) == word;
            let found = (same || !recheck).then(|| world.read(leaf).value & key != 0);
            world.unpin(leaf);
            if found.is_some() {
                return found;
            }
        }
        yield_now();
    }
    None
}

/// Publishes a new version of the parent.
fn replace_parent(world: &World, value: u64) {
    let new = new_inner(world, value);
    world.set_word(PARENT, Place::Inner(new));
}

fn split(recheck: bool, parent_first: bool) {
    check(3, move || {
        let world = Arc::new(tree(WHOLE, &[(LEFT, KEY_1 | KEY_2)]));
        let splitter = spawn(&world, move |world| {
            world.create(RIGHT, KEY_2);
            if parent_first {
                replace_parent(world, SPLIT);
            }
            assert!(world.change(LEFT, |_| KEY_1));
            if !parent_first {
                replace_parent(world, SPLIT);
            }
        });
        assert_ne!(find(&world, KEY_2, recheck), Some(false), "a key was lost");
        splitter.join().unwrap();
        assert_eq!(find(&world, KEY_2, true), Some(true));
        assert_eq!(find(&world, KEY_1, true), Some(true));
    });
}

#[test]
fn a_split_loses_no_key() {
    split(true, true);
}

#[test]
#[should_panic(expected = "a key was lost")]
fn control_no_second_look_at_the_parent() {
    split(false, true);
}

#[test]
#[should_panic(expected = "a key was lost")]
fn control_left_shortened_before_the_parent_is_published() {
    split(true, false);
}

/// Takes over the right leaf's keys into a new version of the left one: the new frame, shut.
fn merge_left(world: &World, left: FrameId) -> FrameId {
    let copy = world.take().expect("a frame");
    world.write(copy, Content { page: LEFT, value: KEY_1 | KEY_2 });
    world.frame(copy).assign(LEFT);
    world.frame(copy).dirty.change(1);
    world.frame(copy).open_latched();
    world.set_word(LEFT, Place::Leaf(copy));
    world.frame(left).dirty.forget();
    let released = world.frame(left).retire(false);
    world.released(left, released);
    copy
}

fn free_right(world: &World, right: FrameId) {
    world.set_word(RIGHT, Place::Free);
    world.frame(right).dirty.forget();
    let released = world.frame(right).retire(false);
    world.released(right, released);
}

/// A merge against a reader of `key`; the reader sees whether a deletion after the merge that it knows of is undone.
fn merge(key: u64, parent_before_right: bool) {
    check(3, move || {
        let world = Arc::new(tree(SPLIT, &[(LEFT, KEY_1), (RIGHT, KEY_2)]));
        let merger = spawn(&world, move |world| {
            let (Some(left), Some(right)) = (world.try_latch(LEFT), world.try_latch(RIGHT)) else {
                unreachable!()
            };
            let new_left = if parent_before_right {
                let new_left = merge_left(world, left);
                replace_parent(world, WHOLE);
                free_right(world, right);
                new_left
            } else {
                // The right leaf's frame may be used for another page while the parent still sends readers there.
                free_right(world, right);
                world.create(RIGHT, 0);
                let new_left = merge_left(world, left);
                replace_parent(world, WHOLE);
                new_left
            };
            world.frame(new_left).unlatch();
        });
        assert_ne!(find(&world, key, true), Some(false), "a key was lost");
        merger.join().unwrap();
        assert_eq!(find(&world, KEY_1, true), Some(true));
        assert_eq!(find(&world, KEY_2, true), Some(true));
        world.assert_whole(LEFT);
    });
}

#[test]
fn a_merge_loses_no_key_of_the_left_leaf() {
    merge(KEY_1, true);
}

#[test]
fn a_merge_loses_no_key_of_the_right_leaf() {
    merge(KEY_2, true);
}

#[test]
#[should_panic(expected = "a key was lost")]
fn control_right_leaf_used_again_before_the_parent_is_published() {
    merge(KEY_2, false);
}

/// A deletion from the merged leaf, and one that reads the key in the right leaf after it knows of that: two versions
/// of the key's leaf would be open at once.
fn merge_and_delete(shut: bool) {
    check(3, move || {
        let world = Arc::new(tree(SPLIT, &[(LEFT, KEY_1), (RIGHT, KEY_2)]));
        let deleted = Arc::new(bedstone_io::sync::AtomicU64::new(0));
        let merger = {
            let deleted = deleted.clone();
            spawn(&world, move |world| {
                let (Some(left), Some(right)) = (world.try_latch(LEFT), world.try_latch(RIGHT)) else {
                    unreachable!()
                };
                let new_left = merge_left(world, left);
                let delete = || {
                    assert!(world.change(LEFT, |keys| keys & !KEY_2));
                    deleted.store(1, Ordering::Release);
                };
                if !shut {
                    world.frame(new_left).unlatch();
                    delete();
                }
                replace_parent(world, WHOLE);
                free_right(world, right);
                if shut {
                    world.frame(new_left).unlatch();
                    delete();
                }
            })
        };
        let gone = deleted.load(Ordering::Acquire) == 1;
        let found = find(&world, KEY_2, true);
        assert!(!(gone && found == Some(true)), "a deleted key came back");
        merger.join().unwrap();
        assert_eq!(find(&world, KEY_2, true), Some(false));
    });
}

#[test]
fn the_merged_leaf_stays_shut_until_the_right_one_is_retired() {
    merge_and_delete(true);
}

#[test]
#[should_panic(expected = "a deleted key came back")]
fn control_merged_leaf_opened_too_early() {
    merge_and_delete(false);
}
