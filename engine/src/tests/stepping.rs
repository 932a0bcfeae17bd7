//! Background work by hand, and what may be done between the steps of a checkpoint.

use bedstone_io::sim::{CutMode, SimDisk};

use super::{assert_clean, create, reopen};
use crate::{CheckpointStep, Durability, Error, Work};

#[test]
fn a_checkpoint_pauses_after_each_step_and_others_commit_meanwhile() {
    let disk = SimDisk::new(1);
    let db = create(&disk);
    let table = db.table("t").unwrap();
    for i in 0..200u32 {
        table.put_with(i.to_be_bytes(), [1; 300], Durability::Relaxed).unwrap();
    }
    let mut steps = Vec::new();
    let info = db
        .checkpoint_stepwise(|step| {
            for call in [db.checkpoint().map(drop), db.check().map(drop), db.clone().close()] {
                assert!(matches!(call, Err(Error::InsideCheckpoint { .. })), "{step:?}: {call:?}");
            }
            let key = 1000 + steps.len() as u32;
            table.put_with(key.to_be_bytes(), [2; 3000], Durability::Relaxed).unwrap();
            table.delete((steps.len() as u32).to_be_bytes()).unwrap();
            let snapshot = db.begin_read().unwrap();
            assert!(snapshot.contains(&table, key.to_be_bytes()).unwrap());
            Work::ALL.into_iter().for_each(|work| db.work(work).unwrap());
            steps.push(step);
        })
        .unwrap();
    assert!(info.number > 0);
    let distinct: std::collections::HashSet<_> = steps.iter().copied().collect();
    assert_eq!(distinct.len(), 8, "{steps:?}");
    assert_eq!(steps[0], CheckpointStep::EpochClosed);
    assert_eq!(steps.last(), Some(&CheckpointStep::SpaceFreed));
    // Each step put one key and deleted one: in this life and in the next.
    assert_eq!(table.iter().unwrap().count(), 200);
    let deleted = steps.len() as u32;
    assert_clean(&db);
    db.sync().unwrap();
    disk.power_cut(CutMode::Drop);
    let disk = disk.reopen();
    drop((table, db));
    let db = reopen(&disk);
    let keys: Vec<_> =
        db.table("t").unwrap().iter().unwrap().map(|entry| entry.unwrap().key().to_vec()).collect();
    let expected = (deleted..200).chain(1000..1000 + deleted).map(|i| i.to_be_bytes().to_vec());
    assert!(keys.into_iter().eq(expected));
    assert_clean(&db);
}

#[test]
fn relaxed_commits_wait_for_the_log_sync_that_is_done_by_hand() {
    for synced in [false, true] {
        let disk = SimDisk::new(2);
        let db = create(&disk);
        let table = db.table("t").unwrap();
        table.put_with(b"k", b"v", Durability::Relaxed).unwrap();
        for work in Work::ALL.into_iter().filter(|work| *work != Work::LogSync) {
            db.work(work).unwrap();
        }
        if synced {
            db.work(Work::LogSync).unwrap();
        }
        disk.power_cut(CutMode::Drop);
        let disk = disk.reopen();
        drop((table, db));
        let db = reopen(&disk);
        assert_eq!(db.table("t").unwrap().contains(b"k").unwrap(), synced);
    }
}

/// A panic between the steps once left the pool's books behind the superblocks: blocks that the durable checkpoint named
/// were given out again.
#[test]
fn a_panic_between_the_steps_leaves_a_whole_checkpoint() {
    for at in 0..8 {
        let disk = SimDisk::new(3);
        let db = create(&disk);
        let table = db.table("t").unwrap();
        for i in 0..300u32 {
            table.put_with(i.to_be_bytes(), [1; 300], Durability::Relaxed).unwrap();
        }
        let mut steps = 0;
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            db.checkpoint_stepwise(|_| {
                steps += 1;
                assert_ne!(steps, at + 1, "on purpose");
            })
        }));
        assert!(outcome.is_err(), "it pauses more than {at} times");
        assert_eq!(steps, at + 1, "it is not called again");
        assert_clean(&db);
        for i in 0..300u32 {
            table.put_with(i.to_be_bytes(), [2; 300], Durability::Relaxed).unwrap();
        }
        for work in Work::ALL {
            db.work(work).unwrap();
        }
        disk.power_cut(CutMode::Keep);
        let disk = disk.reopen();
        drop((table, db));
        let db = reopen(&disk);
        assert_clean(&db);
        assert_eq!(db.table("t").unwrap().iter().unwrap().count(), 300);
    }
}

#[test]
fn between_the_steps_of_one_database_others_do_as_they_like() {
    let (one, other) = (SimDisk::new(4), SimDisk::new(5));
    let (one, other) = (create(&one), create(&other));
    one.checkpoint_stepwise(|_| {
        other.table("t").unwrap().put(b"k", b"v").unwrap();
        other.checkpoint().unwrap();
        assert_clean(&other);
        other
            .checkpoint_stepwise(|_| {
                assert!(matches!(one.checkpoint(), Err(Error::InsideCheckpoint { .. })));
                assert!(matches!(other.checkpoint(), Err(Error::InsideCheckpoint { .. })));
            })
            .unwrap();
    })
    .unwrap();
    one.close().unwrap();
    other.close().unwrap();
}
