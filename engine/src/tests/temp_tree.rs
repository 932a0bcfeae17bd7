//! Temporary trees: used, given back, left over by a crash, and under the eyes of the check.

use super::*;
use crate::btree::node::CellValue;
use crate::btree::{BuildPass, NewValue, Op, OverflowReader, PreparedOverflow, Write};
use crate::checkpoint::Building;
use crate::shared::Shared;
use crate::txn::temp_tree::TempTree;
use bedstone_io::sim::CutMode;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};

/// Puts the values of `keys`; those longer than a leaf holds get pages of their own.
fn fill(shared: &Shared, tree: &TempTree, keys: impl Iterator<Item = (u64, usize)>) {
    let entries: Vec<(Vec<u8>, Vec<u8>)> = keys.map(|(i, len)| (key(i), value(i, len))).collect();
    let pass: BuildPass<'_> = shared.gate.enter();
    let _building = Building::begin();
    let mut ops: Vec<Op<'_, '_>> = Vec::new();
    for (key, value) in &entries {
        let new = if key.len() + value.len() <= shared.limits.max_inline_bytes {
            NewValue::Inline(value)
        } else {
            let (len, table) = (value.len() as u64, tree.tree().table);
            let mut built =
                PreparedOverflow::build(&shared.pool, table, len, &mut &value[..], Some(&pass)).unwrap();
            built.publish_early();
            NewValue::Overflow(built)
        };
        ops.push(Op { key, write: Write::Put(new), lsn: 0 });
    }
    tree.apply_owning(shared, &mut ops, &shared.slots.claim(), false).unwrap();
}

fn entries(shared: &Shared, tree: &TempTree) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut scan = tree.tree().scan(&shared.pool, Bound::Unbounded, Bound::Unbounded);
    let mut all = BTreeMap::new();
    while let Some(entry) = scan.next().unwrap() {
        let key = entry.key.to_vec();
        let value = match entry.value {
            CellValue::Inline(value) => value.to_vec(),
            CellValue::Overflow(long) => {
                OverflowReader::read_all(&mut scan.front_reader(long).unwrap()).unwrap()
            }
        };
        all.insert(key, value);
    }
    all
}

fn model(keys: impl Iterator<Item = (u64, usize)>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    keys.map(|(i, len)| (key(i), value(i, len))).collect()
}

/// What is neither freed nor forgotten: tombstones in memory.
fn tombstones(db: &Database) -> usize {
    db.shared().catalog.change().tombstones.len()
}

const MIXED: fn(u64) -> (u64, usize) = |i| (i, [40, 300, 9_000][i as usize % 3]);

#[test]
fn a_temporary_tree_is_a_tree_and_leaves_nothing() {
    let disk = SimDisk::new(1);
    let db = create(&disk);
    let table = db.table("t").unwrap();
    table.put(b"k", b"v").unwrap();
    let shared = db.shared();
    let before = db.check().unwrap().pages;
    let (a, b) = (shared.create_temp(false).unwrap(), shared.create_temp(false).unwrap());
    assert_ne!(a.tree().table, b.tree().table);
    fill(shared, &a, (0..300).map(MIXED));
    fill(shared, &b, (0..50).map(|i| (i, 20)));
    assert_eq!(entries(shared, &a), model((0..300).map(MIXED)));
    assert_clean(&db);
    db.checkpoint().unwrap();
    assert_clean(&db);
    assert_eq!(entries(shared, &a), model((0..300).map(MIXED)), "upkeep keeps away from it");
    let later = db.table("later").unwrap();
    assert!(later.id() > b.tree().table);

    shared.drop_temp(a);
    db.step().unwrap();
    assert_clean(&db);
    assert_eq!(tombstones(&db), 1);
    // Merely dropped, it is given back as well.
    drop(b);
    db.checkpoint().unwrap();
    assert_eq!(tombstones(&db), 0);
    let report = db.check().unwrap();
    assert!(report.is_clean(), "{:#?}", report.problems);
    // The table made meanwhile has two.
    assert_eq!(report.pages, before + 2);
    db.close().unwrap();
    let db = reopen(&disk);
    assert_clean(&db);
    assert_eq!(tombstones(&db), 0, "what was removed stays removed");
    assert!(db.table("last").unwrap().id() > later.id());
}

#[test]
fn what_a_crash_or_a_close_leaves_is_given_back_when_opening() {
    for mode in [CutMode::Random, CutMode::Drop, CutMode::Keep] {
        for (seed, checkpoints) in [(1, 0), (2, 1), (3, 2)] {
            let what = format!("{mode:?}, {checkpoints} checkpoints, seed {seed}");
            let disk = SimDisk::new(seed);
            let db = create(&disk);
            db.table("t").unwrap().put(b"k", b"v").unwrap();
            let pages = db.check().unwrap().pages;
            let shared = db.shared();
            let tree = shared.create_temp(false).unwrap();
            fill(shared, &tree, (0..200).map(MIXED));
            for _ in 0..checkpoints {
                db.checkpoint().unwrap();
                fill(shared, &tree, (100..400).map(|i| (i, 3000)));
            }
            let ids = [tree.tree().table, db.table("u").unwrap().id()];
            let cut = disk.fork_cut(mode, seed);
            let opened = reopen(&cut);
            let report = opened.check().unwrap();
            assert!(report.is_clean(), "{what}: {:#?}", report.problems);
            assert_eq!(report.pages, pages + 2, "{what}");
            // Its number is not given to anybody else while anything of it is known.
            assert!(opened.table("v").unwrap().id() > ids[1], "{what}");
            opened.checkpoint().unwrap();
            opened.table("v").unwrap().put(b"k", b"v").unwrap();
            opened.checkpoint().unwrap();
            assert_eq!(tombstones(&opened), 0, "{what}");
            opened.close().unwrap();
            assert_clean(&reopen(&cut));

            // Closing with the tree in use leaves it to the next opening as well.
            db.close().unwrap();
            drop(tree);
            let db = reopen(&disk);
            let report = db.check().unwrap();
            assert!(report.is_clean(), "{what}: {:#?}", report.problems);
            assert_eq!(report.pages, pages + 2, "{what}");
        }
    }
}

#[test]
fn a_number_lost_in_a_crash_goes_to_a_table_without_harm() {
    let disk = SimDisk::new(7);
    let db = create(&disk);
    db.table("t").unwrap();
    db.checkpoint().unwrap();
    let lost = db.shared().create_temp(false).unwrap();
    fill(db.shared(), &lost, (0..100).map(MIXED));
    // The image never had the tree, so its number is free again.
    let disk = disk.fork_cut(CutMode::Drop, 7);
    let again = reopen(&disk);
    let table = again.table("u").unwrap();
    assert_eq!(table.id(), lost.tree().table);
    table.put(b"k", b"v").unwrap();
    for _ in 0..3 {
        // With the table in the log only, and then in the image.
        let disk = disk.fork_cut(CutMode::Drop, 8);
        let third = reopen(&disk);
        assert_eq!(third.table("u").unwrap().get(b"k").unwrap().unwrap(), b"v");
        assert_clean(&third);
        again.checkpoint().unwrap();
    }
}

#[test]
fn errors_leave_nothing_behind() {
    let disk = SimDisk::new(9);
    let db = create(&disk);
    db.table("t").unwrap().put(b"k", b"v").unwrap();
    let tree = db.shared().create_temp(false).unwrap();
    let handle = db.clone();
    db.close().unwrap();
    let shared = handle.shared();
    assert!(matches!(shared.create_temp(false), Err(crate::Error::Closed { .. })));
    let mut ops = [Op { key: b"k", write: Write::Put(NewValue::Inline(b"v")), lsn: 0 }];
    let applied = tree.apply_owning(shared, &mut ops, &shared.slots.claim(), false);
    assert!(matches!(applied, Err(crate::Error::Closed { .. })));
}

#[test]
fn the_check_holds_writers_of_temporary_trees_off() {
    let disk = SimDisk::new(11);
    let db = small(&disk).background(Background::Threads).pool_bytes(4 << 20).create(DIR).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for t in 0..3 {
            let (db, over) = (&db, &over);
            scope.spawn(move || {
                let shared = db.shared();
                let table = db.table(&format!("t{t}")).unwrap();
                let mut round = 0;
                while !over.load(Ordering::Relaxed) || round < 3 {
                    let tree = shared.create_temp(false).unwrap();
                    for part in 0..6 {
                        fill(shared, &tree, (part * 40..part * 40 + 60).map(MIXED));
                        table.put(key(part), value(part, 500)).unwrap();
                    }
                    assert_eq!(entries(shared, &tree), model((0..260).map(MIXED)));
                    shared.drop_temp(tree);
                    round += 1;
                }
            });
        }
        for _ in 0..12 {
            assert_clean(&db);
            db.checkpoint().unwrap();
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_clean(&db);
    db.close().unwrap();
    let db = reopen(&disk);
    assert_eq!(db.check().unwrap().tables.len(), 3);
    assert_clean(&db);
}
