//! Disks that fill up (`bedstone_crashtest::full`): a refused commit has changed nothing, deletes work, writes resume by
//! themselves, and a store opens on a disk without a free block. A sample is spread evenly over all budgets of blocks;
//! `BEDSTONE_LONG=1` tries everything.

use bedstone::Durability;
use bedstone_crashtest::full::{replay, run};
use bedstone_crashtest::setup::{Config, DIR, check_clean, smallest_pool, temp_dir};
use bedstone_crashtest::{Plan, seeds, unwatched};
use bedstone_io::sim::SimDisk;

#[test]
fn a_disk_fills_up_at_any_block() {
    for seed in [1, 2, 8] {
        let rounds = if std::env::var_os("BEDSTONE_LONG").is_some() { u64::MAX } else { 300 };
        let plan = Plan { threads: seeds::cores(), ..Plan::rounds(seed, rounds) };
        let kept = run(&plan, None, &unwatched).unwrap_or_else(|failure| panic!("{failure}"));
        println!("seed {seed}: {:?} in {:?}", kept.counts, kept.took);
        for (name, count) in &kept.counts {
            assert!(*count > 0, "{name}: {kept:?}");
        }
    }
    for durability in [Durability::Sync, Durability::Buffered, Durability::Relaxed] {
        let plan = Plan { threads: seeds::cores(), durability: Some(durability), ..Plan::rounds(3, 100) };
        run(&plan, None, &unwatched).unwrap_or_else(|failure| panic!("{durability:?}: {failure}"));
    }
    assert_eq!(replay(&Plan::rounds(1, 1), 0), Ok(()));
    assert!(replay(&Plan::rounds(1, 1), u64::MAX).is_err());
}

/// Where file systems may be mounted, a small real one is filled too; a note says whether.
#[test]
fn a_small_real_file_system_fills_up_where_one_can_be_mounted() {
    let dir = temp_dir();
    let kept =
        run(&Plan::rounds(1, 1), Some(dir.path()), &unwatched).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{:?}", kept.notes);
    assert_eq!(kept.notes.len(), 1);
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    assert!(!mounts.contains(&*dir.path().to_string_lossy()), "a mount was left behind");
}

/// Replay asked for room as a writer does who has to leave some to deletes. So a store that had deleted on a full disk,
/// out of that room, and was killed could not be opened before somebody else had made room.
#[test]
fn a_store_that_deleted_on_a_full_disk_and_was_killed_opens_there() {
    for long in [false, true] {
        let disk = SimDisk::new(1);
        let config = Config { pool_bytes: smallest_pool(4096), ..Config::small() };
        let db = config.builder(&disk).create(DIR).unwrap();
        let (table, other) = (db.table("t").unwrap(), db.table("other").unwrap());
        disk.set_capacity(Some(disk.used() + (600 << 10)));
        let value = |i: u32| vec![i as u8; if long && i.is_multiple_of(8) { 9000 } else { 700 }];
        let written =
            (0..).take_while(|i: &u32| table.put(i.to_be_bytes(), value(*i)).is_ok()).count() as u32;
        other.delete(b"nothing").unwrap();
        // Leaves all over the tree are changed, so that pages are dirty that had been written out.
        let deleted = (0..written).step_by(9);
        for i in deleted.clone() {
            assert!(table.delete(i.to_be_bytes()).unwrap(), "key {i}");
        }
        let next = disk.reopen();
        drop((table, other, db));
        next.set_capacity(Some(next.used()));
        let db = config.builder(&next).open(DIR).unwrap_or_else(|error| panic!("long {long}: {error}"));
        let table = db.table("t").unwrap();
        assert_eq!(table.iter().unwrap().count(), written as usize - deleted.count(), "long {long}");
        check_clean(&db).unwrap();
    }
}

/// The blocks of the map were not counted for images still to come. So once deletes all over a tree had used the room
/// kept back for them, the checkpoint that was to give room back met a full disk itself, and the store was stuck.
#[test]
fn deletes_all_over_a_tree_on_a_full_disk_never_get_stuck() {
    for room in [300 << 10, 900 << 10, 3000 << 10] {
        let disk = SimDisk::new(1);
        let config = Config { pool_bytes: smallest_pool(4096), ..Config::small() };
        let db = config.builder(&disk).create(DIR).unwrap();
        let table = db.table("t").unwrap();
        disk.set_capacity(Some(disk.used() + room));
        let written = (0..).take_while(|i: &u32| table.put(i.to_be_bytes(), [7; 700]).is_ok()).count() as u32;
        for i in (0..written).step_by(9) {
            assert!(table.delete(i.to_be_bytes()).unwrap(), "key {i} of {written}, {room} bytes");
        }
        check_clean(&db).unwrap();
    }
}

/// The first delete from a table behind a snapshot makes a tree for old values, and an old value just short enough for
/// its leaf goes to pages of its own there. Both asked for room as writers do who have to leave some to deletes.
#[test]
fn deletes_behind_a_snapshot_on_a_full_disk_draw_on_the_room_kept_back_for_old_values_too() {
    for len in [60, 1005] {
        let disk = SimDisk::new(1);
        let config = Config { pool_bytes: smallest_pool(4096), ..Config::small() };
        let db = config.builder(&disk).create(DIR).unwrap();
        let tables: Vec<_> = (0..5).map(|i| db.table(&format!("t{i}")).unwrap()).collect();
        for table in &tables {
            table.put(b"k", vec![7; len]).unwrap();
        }
        let snapshot = db.begin_read().unwrap();
        let filler = db.table("filler").unwrap();
        disk.set_capacity(Some(disk.used() + (300 << 10)));
        let written = (0..).take_while(|i: &u32| filler.put(i.to_be_bytes(), [7; 700]).is_ok()).count();
        assert!(written > 0);
        for (i, table) in tables.iter().enumerate() {
            assert!(table.delete(b"k").unwrap_or_else(|e| panic!("table {i}, {len} bytes: {e}")));
            assert_eq!(snapshot.get(table, b"k").unwrap().as_deref(), Some(&vec![7; len][..]), "table {i}");
        }
        drop(snapshot);
        check_clean(&db).unwrap();
    }
}

/// Room that a delete had set aside out of what is kept back went to the next put when the delete needed none of it, until
/// nothing was left for deletes.
#[test]
fn deletes_of_nothing_give_no_put_the_room_kept_back_for_deletes() {
    let disk = SimDisk::new(1);
    let db = Config::small().builder(&disk).create(DIR).unwrap();
    let table = db.table("t").unwrap();
    disk.set_capacity(Some(disk.used() + (300 << 10)));
    let mut written = (0..).take_while(|i: &u32| table.put(i.to_be_bytes(), [7; 700]).is_ok()).count() as u32;
    for _ in 0..200 {
        assert!(!table.delete(b"absent").unwrap());
        written += u32::from(table.put(written.to_be_bytes(), [7; 700]).is_ok());
    }
    for i in 0..written {
        assert!(table.delete(i.to_be_bytes()).unwrap(), "key {i} of {written}");
    }
    check_clean(&db).unwrap();
}

/// What a transaction met is told through the error that says that it is good for nothing any more.
#[test]
fn a_range_deleted_without_room_for_its_bookkeeping_says_that_the_disk_is_full() {
    let disk = SimDisk::new(1);
    let config = Config { pool_bytes: smallest_pool(4096), transaction_memory: 1 << 10, ..Config::small() };
    let db = config.builder(&disk).create(DIR).unwrap();
    let table = db.table("t").unwrap();
    disk.set_capacity(Some(disk.used() + (300 << 10)));
    let written = (0..).take_while(|i: &u32| table.put(i.to_be_bytes(), [7; 700]).is_ok()).count();
    let error = table.delete_range::<&[u8]>(..).unwrap_err();
    assert!(error.is_no_space() && !error.is_read_only(), "{error:?}");
    assert_eq!(table.iter().unwrap().count(), written);
}

/// The space of freed long values came back only when the pool needed frames: on a full disk with a pool that is large enough,
/// never.
#[test]
fn long_values_that_were_deleted_give_their_space_back_without_eviction() {
    let disk = SimDisk::new(1);
    let config = Config { pool_bytes: 8 << 20, ..Config::small() };
    let db = config.builder(&disk).create(DIR).unwrap();
    let table = db.table("t").unwrap();
    for i in 0..8u32 {
        table.put(i.to_be_bytes(), vec![7; 100_000]).unwrap();
    }
    db.checkpoint().unwrap();
    let full = db.stats().pool.free_bytes;
    for i in 0..8u32 {
        table.delete(i.to_be_bytes()).unwrap();
    }
    db.checkpoint().unwrap();
    let pool = db.stats().pool;
    assert_eq!(pool.held_bytes, 0, "{pool:?}");
    assert!(pool.free_bytes >= full + 700_000, "{full}, then {pool:?}");
    check_clean(&db).unwrap();
}
