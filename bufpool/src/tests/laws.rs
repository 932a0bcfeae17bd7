//! What goes wrong only when somebody uses the pool in an unusual way, or two things happen in an unusual order: one
//! thread, every step spelled out.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::frame::FrameId;
use crate::table::Place;

fn small(frames: usize) -> (Arc<SimDisk>, Pool) {
    let disk = formatted(1, 4096);
    let pool = open(&disk, &config(frames, 4096, Background::Manual, PolicyKind::S3Fifo)).unwrap();
    (disk, pool)
}

fn frame_of(pool: &Pool, id: PageId) -> FrameId {
    match pool.shared().table.place(id) {
        Place::Leaf(frame) => frame,
        place => panic!("{id} is {place:?}"),
    }
}

fn new_inner(pool: &Pool, value: u64) -> PageId {
    let mut reserve = pool.reserve(1).unwrap();
    let mut page = pool.new_page(&mut reserve, PageKind::Inner, 1, 1);
    let id = page.page_id();
    fill(&mut page, id, value);
    page.publish(&pool.announce());
    id
}

fn replace_inner(pool: &Pool, id: PageId, value: u64) {
    let mut reserve = pool.reserve(1).unwrap();
    let guard = pool.guard();
    let lock = guard.lock_inner(id, guard.word(id)).unwrap();
    let mut new = lock.new_version(&mut reserve, 1);
    fill(&mut new, id, value);
    lock.replace(new, &pool.announce());
}

#[test]
fn guards_may_be_dropped_in_any_order() {
    let (_disk, pool) = small(128);
    let id = new_inner(&pool, 7);
    let first = pool.guard();
    let second = pool.guard();
    drop(first);
    let page = second.inner(second.word(id)).unwrap();
    for value in 0..30 {
        replace_inner(&pool, id, value);
        pool.shared().collect_retired();
        // Whatever frame came free is used for something else.
        create(&pool, value).unwrap();
    }
    assert_eq!(value_of(page, id), 7, "a node changed under a guard");
    drop(second);
    assert!(pool.shared().collect_retired() > 0);
}

#[test]
#[should_panic(expected = "the reserve of another pool")]
fn a_frame_of_another_pool_is_refused() {
    let ((_a, one), (_b, other)) = (small(64), small(64));
    let id = create(&one, 1).unwrap();
    let mut reserve = other.reserve(1).unwrap();
    let guard = one.guard();
    let latch = guard.latch(id, guard.word(id)).unwrap();
    latch.new_version(&mut reserve);
}

#[test]
#[should_panic(expected = "a page of another pool")]
fn a_version_of_another_pool_is_refused() {
    let ((_a, one), (_b, other)) = (small(64), small(64));
    let (id, same) = (create(&one, 1).unwrap(), create(&other, 1).unwrap());
    assert_eq!(id, same);
    let mut reserve = other.reserve(1).unwrap();
    let new = {
        let guard = other.guard();
        guard.latch(id, guard.word(id)).unwrap().new_version(&mut reserve)
    };
    let guard = one.guard();
    guard.latch(id, guard.word(id)).unwrap().replace(new, &one.announce());
}

#[test]
fn a_new_version_can_be_changed_before_it_is_let_go() {
    let (_disk, pool) = small(64);
    let id = create(&pool, 1).unwrap();
    let mut reserve = pool.reserve(2).unwrap();
    {
        let guard = pool.guard();
        let latch = guard.latch(id, guard.word(id)).unwrap();
        let mut new = latch.new_version(&mut reserve);
        fill(&mut new, id, 2);
        let operation = pool.announce();
        let latch = latch.replace(new, &operation);
        let mut page = latch.modify(&operation, &mut reserve);
        fill(&mut page, id, 3);
        page.finish();
    }
    assert_eq!(value_of(&pin(&pool, id).unwrap(), id), 3);
}

#[test]
fn a_reserve_too_small_leaves_no_latch_behind() {
    let (_disk, pool) = small(64);
    let id = create(&pool, 1).unwrap();
    let reader = pin(&pool, id).unwrap();
    let attempt = catch_unwind(AssertUnwindSafe(|| {
        let mut nothing = pool.reserve(0).unwrap();
        while !nothing.is_empty() {
            drop(pool.new_page(&mut nothing, PageKind::Leaf, 0, 1));
        }
        let guard = pool.guard();
        let latch = guard.latch(id, guard.word(id)).unwrap();
        latch.modify(&pool.announce(), &mut nothing).finish();
    }));
    assert!(attempt.is_err(), "the reader forces a copy, and there is no frame for it");
    drop(reader);
    assert_eq!(change(&pool, id, 2).unwrap(), 1);
}

/// Changes a page half-way and panics.
fn abandon(pool: &Pool, id: PageId) {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut reserve = pool.reserve(1).unwrap();
        let guard = pool.guard();
        let latch = guard.latch(id, guard.word(id)).unwrap();
        let mut page = latch.modify(&pool.announce(), &mut reserve);
        page[100] ^= 1;
        panic!("half-way");
    }));
    assert!(outcome.is_err());
    assert!(pool.failed().is_some());
}

#[test]
fn nobody_waits_for_the_end_of_a_change_that_was_abandoned() {
    let (_disk, pool) = small(64);
    let (id, other) = (create(&pool, 1).unwrap(), create(&pool, 5).unwrap());
    abandon(&pool, id);
    // The change was made in place: the page is lost to this opening.
    assert!(matches!(pin(&pool, id), Err(PoolError::Failed(_))));
    assert_eq!(value_of(&pin(&pool, other).unwrap(), other), 5);
    assert!(matches!(checkpoint(&pool), Err(PoolError::Failed(_))));
}

#[test]
fn readers_keep_the_version_before_a_change_that_was_abandoned() {
    let (_disk, pool) = small(64);
    let id = create(&pool, 1).unwrap();
    let reader = pin(&pool, id).unwrap();
    abandon(&pool, id);
    drop(reader);
    assert_eq!(value_of(&pin(&pool, id).unwrap(), id), 1);
}

#[test]
fn a_checkpoint_under_way_ends_when_a_change_is_abandoned() {
    let (_disk, pool) = small(64);
    let id = create(&pool, 1).unwrap();
    let reader = pin(&pool, id).unwrap();
    let mut checkpoint = pool.begin_checkpoint().unwrap();
    abandon(&pool, id);
    drop(reader);
    assert!(
        checkpoint
            .write_pages()
            .and_then(|()| { checkpoint.finish(CheckpointParams { replay_lsn: 0, log_end: 0 }) })
            .is_err()
    );
}

#[test]
#[should_panic(expected = "written before it is finished")]
fn a_checkpoint_without_its_pages_is_refused() {
    let (_disk, pool) = small(64);
    create(&pool, 1).unwrap();
    drop(pool.begin_checkpoint().unwrap().finish(CheckpointParams { replay_lsn: 0, log_end: 0 }));
}

/// An image preserved for a checkpoint that is given up is captured after one of the page's newer content, whose write
/// ends last: the newer one must win.
#[test]
fn what_a_checkpoint_given_up_preserved_is_older_than_anything_since() {
    let (disk, pool) = small(64);
    let id = create(&pool, 1).unwrap();
    let mut given_up = pool.begin_checkpoint().unwrap();
    assert_eq!(change(&pool, id, 2).unwrap(), 1);
    let shared = pool.shared();
    let mut newer = shared.new_batch();
    assert!(shared.capture(&mut newer, frame_of(&pool, id), u64::MAX));
    given_up.write_pages().unwrap();
    drop(given_up);
    shared.write_batch(newer).unwrap();
    checkpoint(&pool).unwrap();
    assert_sound(&pool, 0);
    drop(pool);
    let pool = open(&disk.reopen(), &config(64, 4096, Background::Manual, PolicyKind::S3Fifo)).unwrap();
    assert_eq!(value_of(&pin(&pool, id).unwrap(), id), 2, "a change was lost");
}

/// Writers keep their reserves and change pages in place: the room for the images must be asked for all the same.
#[test]
fn a_full_disk_is_met_before_a_change_and_not_by_the_checkpoint() {
    let (disk, pool) = small(1024);
    let ids: Vec<PageId> = (0..600).map(|value| create(&pool, value).unwrap()).collect();
    checkpoint(&pool).unwrap();
    disk.set_capacity(Some(disk.used()));
    let mut values: Vec<u64> = (0..600).collect();
    let mut refused = 0;
    for (at, &id) in ids.iter().enumerate() {
        match change(&pool, id, 10_000 + at as u64) {
            Ok(_) => values[at] = 10_000 + at as u64,
            Err(PoolError::NoSpace { .. }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 0, "the disk has no room for all of them");
    checkpoint(&pool).unwrap();
    disk.set_capacity(None);
    for (&id, &value) in ids.iter().zip(&values) {
        assert_eq!(value_of(&pin(&pool, id).unwrap(), id), value);
    }
    assert_settled(&pool, 0);
}

#[test]
fn what_happened_to_pages_is_not_hoarded() {
    let (_disk, pool) = small(256);
    for value in 0..20_000 {
        let id = create(&pool, value).unwrap();
        free(&pool, id).unwrap();
    }
    assert!(pool.shared().events.len() < 10_000);
}

#[test]
fn the_root_of_the_catalog_is_never_given_out() {
    let (_disk, pool) = small(64);
    let mut reserve = pool.reserve(1).unwrap();
    drop(pool.new_page_with_id(&mut reserve, PageId::CATALOG_ROOT, PageKind::Inner, 1, 0));
    for value in 0..10 {
        assert_ne!(create(&pool, value).unwrap(), PageId::CATALOG_ROOT);
    }
}

#[test]
fn many_threads_keep_no_more_than_their_share() {
    let (_disk, pool) = small(64);
    let ids: Vec<PageId> = (0..40).map(|value| create(&pool, value).unwrap()).collect();
    let all_pinned = std::sync::Barrier::new(ids.len());
    let kept: usize = std::thread::scope(|scope| {
        let (pool, all_pinned) = (&pool, &all_pinned);
        let threads: Vec<_> = ids
            .iter()
            .map(|&id| {
                scope.spawn(move || {
                    let mut pin = pin(pool, id).unwrap();
                    let kept = !pin.should_copy();
                    all_pinned.wait();
                    usize::from(kept)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!((1..=64 / 4).contains(&kept), "{kept} pins kept");
}

#[test]
fn clean_pages_can_be_read_while_nothing_can_be_written() {
    let (disk, pool) = small(64);
    let ids: Vec<PageId> = (0..200).map(|value| create(&pool, value).unwrap()).collect();
    checkpoint(&pool).unwrap();
    for &id in &ids[..20] {
        change(&pool, id, 1_000).unwrap();
    }
    disk.fail_nth(OpKind::Write, 1, Fault::Eio, Repeat::Forever);
    for (value, &id) in ids.iter().enumerate().skip(20) {
        assert_eq!(value_of(&pin(&pool, id).unwrap(), id), value as u64);
    }
    disk.clear_faults();
    checkpoint(&pool).unwrap();
    assert_settled(&pool, 0);
}
