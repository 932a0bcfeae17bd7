//! Snapshots: against a model that clones itself, and under writers.

use super::*;
use crate::{Snapshot, SnapshotOptions, WriteBatch};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// A generator for tests (SplitMix64).
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % n
    }
}

/// Everything that can be read through a snapshot agrees with the model.
#[track_caller]
fn agrees(snapshot: &Snapshot, table: &crate::Table, model: &Model, rng: &mut Rng, context: &str) {
    for _ in 0..8 {
        let key = key(rng.below(300));
        let value = snapshot.get(table, &key).unwrap();
        assert_eq!(value.as_deref(), model.get(&key).map(|v| &v[..]), "{context}: get {key:?}");
    }
    let keys: Vec<Vec<u8>> = (0..20).map(|_| key(rng.below(300))).collect();
    let values = snapshot.multi_get(table, &keys).unwrap();
    for (key, value) in keys.iter().zip(&values) {
        assert_eq!(value.as_deref(), model.get(key).map(|v| &v[..]), "{context}: multi_get {key:?}");
    }
    let (a, b) = (key(rng.below(300)), key(rng.below(300)));
    let (a, b) = if a <= b { (a, b) } else { (b, a) };
    let expected: Vec<(&[u8], &[u8])> =
        model.range(a.clone()..b.clone()).map(|(k, v)| (&k[..], &v[..])).collect();
    let mut range = snapshot.range(table, &a[..]..&b[..]).unwrap();
    let (mut front, mut back) = (Vec::new(), Vec::new());
    let all_front = rng.below(3) == 0;
    loop {
        let forward = all_front || rng.below(2) == 0;
        let next = if forward { range.next() } else { range.next_back() };
        let Some(entry) = next else { break };
        let (key, value) = entry.unwrap().into_parts();
        (if forward { &mut front } else { &mut back }).push((key.to_vec(), value.to_vec()));
    }
    front.extend(back.into_iter().rev());
    let found: Vec<(&[u8], &[u8])> = front.iter().map(|(k, v)| (&k[..], &v[..])).collect();
    assert!(
        found == expected,
        "{context}: range {a:?}..{b:?}: {} instead of {}",
        found.len(),
        expected.len()
    );
}

fn run(seed: u64, steps: u64) {
    let disk = SimDisk::new(seed);
    let mut rng = Rng(seed);
    let mut db = create(&disk);
    let mut table = db.table("t").unwrap();
    let mut model = Model::new();
    let mut open: Vec<(Snapshot, Model)> = Vec::new();
    for step in 0..steps {
        let context = format!("seed {seed}, step {step}");
        let len =
            [0, 20, 120, 700, 6_000, 40_000][rng.below(if seed.is_multiple_of(3) { 6 } else { 4 }) as usize];
        match rng.below(20) {
            0..7 => {
                let (key, value) = (key(rng.below(300)), value(rng.below(1 << 30), len));
                table.put(&key, &value).unwrap();
                model.insert(key, value);
            }
            7..9 => {
                let key = key(rng.below(300));
                assert_eq!(table.delete(&key).unwrap(), model.remove(&key).is_some(), "{context}");
            }
            9..12 => {
                let mut batch = WriteBatch::new();
                for _ in 0..rng.below(60) {
                    let key = key(rng.below(300));
                    if rng.below(3) == 0 {
                        batch.delete(&table, &key).unwrap();
                        model.remove(&key);
                    } else {
                        let value = value(rng.below(1 << 30), len);
                        batch.put(&table, &key, &value).unwrap();
                        model.insert(key, value);
                    }
                }
                db.write(batch).unwrap();
            }
            12..14 if open.len() < 6 => open.push((db.begin_read().unwrap(), model.clone())),
            14 if !open.is_empty() => drop(open.swap_remove(rng.below(open.len() as u64) as usize)),
            15 => drop(db.checkpoint().unwrap()),
            16 => db.step().unwrap(),
            17 if rng.below(10) == 0 => {
                open.clear();
                drop(table);
                db.close().unwrap();
                db = reopen(&disk);
                table = db.table("t").unwrap();
            }
            18 if rng.below(6) == 0 => {
                // A load behind the last key.
                let mut batch = WriteBatch::new();
                for i in 0..1500 {
                    let key = key(1000 + step * 10_000 + i);
                    batch.put(&table, &key, b"loaded").unwrap();
                    model.insert(key, b"loaded".to_vec());
                }
                db.write(batch).unwrap();
            }
            _ => {}
        }
        for (snapshot, model) in &open {
            agrees(snapshot, &table, model, &mut rng, &context);
        }
    }
    drop(open);
    assert_clean(&db);
    db.close().unwrap();
}

#[test]
fn snapshots_against_a_model() {
    for seed in 0..24 {
        run(seed, 250);
    }
}

#[test]
fn a_snapshot_sees_one_moment_of_several_tables() {
    let disk = SimDisk::new(1);
    let db = create(&disk);
    let (one, two) = (db.table("one").unwrap(), db.table("two").unwrap());
    one.put("a", "1").unwrap();
    let before = db.begin_read().unwrap();
    let mut batch = WriteBatch::new();
    batch.put(&one, "a", "2").unwrap();
    batch.put(&two, "b", "2").unwrap();
    db.write(batch).unwrap();
    let after = db.begin_read_with(SnapshotOptions::new().name("after")).unwrap();
    let later = db.table("later").unwrap();
    later.put("c", "3").unwrap();
    assert_eq!(before.get(&one, "a").unwrap().unwrap(), b"1"[..]);
    assert!(before.get(&two, "b").unwrap().is_none());
    assert_eq!(after.get(&one, "a").unwrap().unwrap(), b"2"[..]);
    assert_eq!(after.first(&two).unwrap().unwrap().key(), b"b");
    assert!(after.iter(&later).unwrap().next().is_none(), "made afterwards");
    assert!(before.lsn() <= after.lsn());
    let infos = db.snapshots();
    assert_eq!((infos.len(), &infos[1].name[..], infos[1].id), (2, "after", after.id()));
    assert!(infos[0].held_bytes > 0);
    before.close();
    after.close();
    assert!(db.snapshots().is_empty());
}

#[test]
fn past_its_deadline_a_snapshot_says_so_and_holds_nothing() {
    let disk = SimDisk::new(1);
    let db = create(&disk);
    let table = db.table("t").unwrap();
    table.put("a", "1").unwrap();
    let snapshot = db.begin_read_with(SnapshotOptions::new().deadline(Duration::from_millis(50))).unwrap();
    table.put("a", "2").unwrap();
    let mut range = snapshot.iter(&table).unwrap();
    assert_eq!(snapshot.get(&table, "a").unwrap().unwrap(), b"1"[..]);
    disk.advance(Duration::from_millis(60));
    assert!(matches!(snapshot.get(&table, "a"), Err(crate::Error::SnapshotTooOld)));
    assert!(matches!(range.next(), Some(Err(crate::Error::SnapshotTooOld))));
    assert!(matches!(range.next(), Some(Err(crate::Error::IteratorFailed(_)))));
    db.step().unwrap();
    assert!(db.snapshots().is_empty());
}

/// Many updates of few keys under one snapshot: as many old values as keys, and all gone afterwards.
#[test]
fn a_long_snapshot_keeps_one_value_of_each_key() {
    let disk = SimDisk::new(1);
    let db = create(&disk);
    let table = db.table("t").unwrap();
    for i in 0..200 {
        table.put(key(i), value(i, 100)).unwrap();
    }
    let snapshot = db.begin_read().unwrap();
    for i in 0..20_000 {
        table.put(key(i % 200), value(i, 100)).unwrap();
        if i % 3000 == 0 {
            // Shorter ones come and go.
            assert_eq!(
                db.begin_read().unwrap().get(&table, key(i % 200)).unwrap().unwrap(),
                value(i, 100)[..]
            );
        }
    }
    for i in 0..200 {
        assert_eq!(snapshot.get(&table, key(i)).unwrap().unwrap(), value(i, 100)[..]);
    }
    let tree = table.state().history.newest_tree().unwrap();
    let stats = tree.stats(&db.shared().pool).unwrap();
    assert!(stats.leaf_pages < 50, "{stats:?}");
    drop(snapshot);
    assert_clean(&db);
}

/// Money moves between accounts in batches of two; every snapshot sees the same sum, however it reads.
#[test]
fn sums_are_constant_in_every_snapshot_under_writers() {
    for (seed, pages) in [(1, 1 << 20), (2, 4 << 20)] {
        let disk = SimDisk::new(seed);
        let db = small(&disk).background(Background::Threads).pool_bytes(pages).create(DIR).unwrap();
        let table = db.table("accounts").unwrap();
        const ACCOUNTS: u64 = 400;
        let mut batch = WriteBatch::new();
        for i in 0..ACCOUNTS {
            batch.put(&table, key(i), 100u64.to_le_bytes()).unwrap();
        }
        db.write(batch).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for t in 0..3 {
                let (db, table, stop) = (&db, &table, &stop);
                scope.spawn(move || {
                    // Accounts of its own, so that reading the balance first is enough.
                    let mut rng = Rng(seed * 100 + t);
                    let own = |n: u64| key(n * 3 + t);
                    while !stop.load(Ordering::Relaxed) {
                        let (a, b) = (rng.below(130), rng.below(130));
                        if a == b {
                            continue;
                        }
                        let read = |k: &[u8]| {
                            u64::from_le_bytes(table.get(k).unwrap().unwrap()[..].try_into().unwrap())
                        };
                        let (from, to) = (own(a), own(b));
                        let (x, y) = (read(&from), read(&to));
                        let amount = rng.below(x + 1);
                        let mut batch = WriteBatch::new();
                        batch.put(table, &from, (x - amount).to_le_bytes()).unwrap();
                        batch.put(table, &to, (y + amount).to_le_bytes()).unwrap();
                        db.write_with(batch, crate::Durability::Relaxed).unwrap();
                    }
                });
            }
            let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
            for round in 0..300 {
                let snapshot = db.begin_read().unwrap();
                let sum: u64 = match round % 4 {
                    0 => snapshot.iter(&table).unwrap().map(|e| number(e.unwrap().value())).sum(),
                    1 => snapshot.iter(&table).unwrap().rev().map(|e| number(e.unwrap().value())).sum(),
                    2 => (0..ACCOUNTS).map(|i| number(&snapshot.get(&table, key(i)).unwrap().unwrap())).sum(),
                    _ => {
                        let keys: Vec<Vec<u8>> = (0..ACCOUNTS).map(key).collect();
                        let values = snapshot.multi_get(&table, &keys).unwrap();
                        values.iter().map(|v| number(v.as_ref().unwrap())).sum()
                    }
                };
                assert_eq!(sum, ACCOUNTS * 100, "round {round}");
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_clean(&db);
        db.close().unwrap();
    }
}
