//! Write transactions: what they see, what they conflict with, and larger than their memory.

use super::*;
use crate::{Error, Table, Transaction, UpdateOptions};
use bedstone_io::sim::CutMode;
use std::collections::BTreeMap;

fn get(tx: &Transaction, table: &Table, key: &str) -> Option<Vec<u8>> {
    tx.get(table, key).unwrap().map(|v| v.to_vec())
}

#[test]
fn a_transaction_sees_its_beginning_and_its_own_writes() {
    let disk = SimDisk::new(1);
    let db = create(&disk);
    let table = db.table("t").unwrap();
    for k in ["a", "b", "c", "d"] {
        table.put(k, "old").unwrap();
    }
    let mut tx = db.begin_write().unwrap();
    tx.put(&table, "b", "mine").unwrap();
    tx.put(&table, "bb", "mine").unwrap();
    assert!(tx.delete(&table, "c").unwrap());
    assert!(!tx.delete(&table, "c").unwrap());
    table.put("d", "new").unwrap();
    table.put("e", "new").unwrap();
    assert_eq!(get(&tx, &table, "b").unwrap(), b"mine");
    assert_eq!(get(&tx, &table, "d").unwrap(), b"old");
    let all: Vec<_> = tx
        .iter(&table)
        .unwrap()
        .map(|e| e.unwrap())
        .map(|e| (e.key().to_vec(), e.value().to_vec()))
        .collect();
    let expected: Vec<(&[u8], &[u8])> =
        vec![(b"a", b"old"), (b"b", b"mine"), (b"bb", b"mine"), (b"d", b"old")];
    assert!(all.iter().map(|(k, v)| (&k[..], &v[..])).eq(expected.iter().copied()), "{all:?}");
    let mut back: Vec<_> = tx.iter(&table).unwrap().rev().map(|e| e.unwrap().key().to_vec()).collect();
    back.reverse();
    assert!(back.iter().eq(all.iter().map(|(k, _)| k)));
    assert_eq!(tx.last(&table).unwrap().unwrap().key(), b"d");
    assert!(table.get("bb").unwrap().is_none(), "nobody else sees it");
    let commit = tx.commit().unwrap();
    assert!(commit.lsn > 0);
    assert_eq!(table.get("bb").unwrap().unwrap(), b"mine"[..]);
    assert!(table.get("c").unwrap().is_none());
    assert_eq!(table.get("d").unwrap().unwrap(), b"new"[..]);
    assert_clean(&db);
}

#[test]
fn the_first_committer_wins() {
    let disk = SimDisk::new(1);
    let db = create(&disk);
    let table = db.table("t").unwrap();
    table.put("k", "0").unwrap();
    let (mut one, mut two, mut three) =
        (db.begin_write().unwrap(), db.begin_write().unwrap(), db.begin_write().unwrap());
    one.put(&table, "k", "1").unwrap();
    two.put(&table, "k", "2").unwrap();
    three.put(&table, "other", "3").unwrap();
    one.commit().unwrap();
    let e = two.commit().unwrap_err();
    assert!(e.is_retryable() && e.to_string().contains("key \"k\""), "{e}");
    three.commit().unwrap();
    // Autocommits count as well, deletes and inserts too.
    for change in [|t: &Table| assert!(t.delete("k").unwrap()), |t: &Table| t.put("k", "x").unwrap()] {
        let mut tx = db.begin_write().unwrap();
        tx.put(&table, "k", "y").unwrap();
        change(&table);
        assert!(tx.commit().unwrap_err().is_retryable());
    }
    // Dropped: nothing happened.
    let mut tx = db.begin_write().unwrap();
    tx.put(&table, "k", "gone").unwrap();
    drop(tx);
    assert_eq!(table.get("k").unwrap().unwrap(), b"x"[..]);
    let tries = std::cell::Cell::new(0);
    db.update(|tx| {
        tries.set(tries.get() + 1);
        if tries.get() < 3 {
            table.put("k", tries.get().to_string())?;
        }
        tx.put(&table, "k", "updated")
    })
    .unwrap();
    assert_eq!((tries.get(), table.get("k").unwrap().unwrap().to_vec()), (3, b"updated".to_vec()));
    let e = db.update_with(UpdateOptions::new().attempts(4), |tx| {
        table.put("k", "again")?;
        tx.put(&table, "k", "never")
    });
    assert!(e.unwrap_err().is_retryable());
    assert!(db.snapshots().is_empty());
}

#[test]
fn write_skew_is_possible_and_serializable_prevents_it() {
    let disk = SimDisk::new(1);
    let db = create(&disk);
    let table = db.table("t").unwrap();
    for serializable in [false, true] {
        for by_range in [false, true] {
            table.put("a", "1").unwrap();
            table.put("b", "1").unwrap();
            let begin = || {
                let tx = db.begin_write().unwrap();
                if serializable { tx.serializable() } else { tx }
            };
            let (mut one, mut two) = (begin(), begin());
            for (tx, delete) in [(&mut one, "a"), (&mut two, "b")] {
                let both = match by_range {
                    true => tx.iter(&table).unwrap().count() == 2,
                    false => tx.contains(&table, "a").unwrap() && tx.contains(&table, "b").unwrap(),
                };
                assert!(both);
                tx.delete(&table, delete).unwrap();
            }
            one.commit().unwrap();
            assert_eq!(two.commit().is_err_and(|e| e.is_retryable()), serializable);
        }
    }
    // A phantom: the range was empty when it was read.
    let mut tx = db.begin_write().unwrap().serializable();
    assert_eq!(tx.prefix(&table, "p").unwrap().count(), 0);
    tx.put(&table, "q", "1").unwrap();
    table.put("p1", "1").unwrap();
    assert!(tx.commit().unwrap_err().is_retryable());
    let mut tx = db.begin_write().unwrap().serializable();
    assert_eq!(tx.prefix(&table, "p").unwrap().count(), 1);
    tx.put(&table, "q", "1").unwrap();
    table.put("o", "elsewhere").unwrap();
    tx.commit().unwrap();
    // Too late.
    let mut tx = db.begin_write().unwrap();
    tx.put(&table, "x", "1").unwrap();
    assert!(matches!(tx.serializable().commit(), Err(Error::Poisoned(_))));
}

#[test]
fn savepoints() {
    let disk = SimDisk::new(1);
    let db = create(&disk);
    let table = db.table("t").unwrap();
    let mut tx = db.begin_write().unwrap();
    tx.put(&table, "a", "1").unwrap();
    let one = tx.savepoint();
    tx.put(&table, "a", "2").unwrap();
    let two = tx.savepoint();
    tx.delete(&table, "a").unwrap();
    tx.rollback_to(&two).unwrap();
    assert_eq!(get(&tx, &table, "a").unwrap(), b"2");
    tx.rollback_to(&one).unwrap();
    assert_eq!(get(&tx, &table, "a").unwrap(), b"1");
    assert!(matches!(tx.rollback_to(&two), Err(Error::NoSavepoint)));
    assert!(matches!(db.begin_write().unwrap().release(one), Err(Error::NoSavepoint)));
    tx.put(&table, "b", "3").unwrap();
    tx.release(one).unwrap();
    tx.commit().unwrap();
    assert_eq!(table.get("b").unwrap().unwrap(), b"3"[..]);
}

#[test]
fn single_keys_are_changed_as_one() {
    let disk = SimDisk::new(1);
    let db = small(&disk).background(Background::Threads).create(DIR).unwrap();
    let table = db.table("t").unwrap();
    assert!(table.insert_if_absent("k", "1").unwrap());
    assert!(!table.insert_if_absent("k", "2").unwrap());
    assert!(!table.compare_and_swap("k", Some(b"0"), Some(b"2")).unwrap());
    assert!(table.compare_and_swap("k", Some(b"1"), Some(&[7; 5000])).unwrap());
    assert!(table.compare_and_swap("k", Some(&[7; 5000]), None).unwrap());
    assert!(!table.contains("k").unwrap());
    assert_eq!(table.update("k", |old| old.is_none().then(|| b"new".to_vec())).unwrap().unwrap(), b"new");
    assert_eq!(table.take("k").unwrap().unwrap(), b"new");
    assert!(table.take("k").unwrap().is_none());
    table.put("n", "text").unwrap();
    assert!(matches!(table.add("n", 1), Err(Error::NotACounter { .. })));
    table.put("n", i64::MAX.to_le_bytes()).unwrap();
    assert!(matches!(table.add("n", 1), Err(Error::NotACounter { .. })));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..200).for_each(|_| assert!(table.add("c", 1).unwrap() > 0)));
        }
    });
    assert_eq!(table.add("c", 0).unwrap(), 800);
    for i in 0..3000 {
        table.put_with(key(i), "v", crate::Durability::Relaxed).unwrap();
    }
    assert_eq!(table.delete_range(key(10)..key(2990)).unwrap(), 2980);
    assert_eq!(table.prefix("key").unwrap().count(), 20);
    assert_clean(&db);
    db.close().unwrap();
}

/// A transaction of many times its memory, cut off by a power cut at every stage: all of it or nothing.
#[test]
fn larger_than_its_memory_and_all_or_nothing() {
    for seed in 0..12u64 {
        let disk = SimDisk::new(seed);
        let options = |disk: &Arc<SimDisk>| small(disk).transaction_memory(20_000);
        let db = options(&disk).create(DIR).unwrap();
        let table = db.table("t").unwrap();
        let other = db.table("other").unwrap();
        let mut before = BTreeMap::new();
        for i in 0..300 {
            let (k, v) = (key(i * 7 % 300), value(i, 60));
            table.put(&k, &v).unwrap();
            before.insert(k, v);
        }
        let snapshot = (seed % 2 == 0).then(|| db.begin_read().unwrap());
        let mut after = before.clone();
        if seed > 1 {
            disk.set_cut_after(20 * seed * seed, CutMode::Random);
        }
        let outcome = (|| {
            let mut tx = db.begin_write()?;
            for i in 0..2000 {
                let (k, v) = (key(i % 700), value(i, if i % 50 == 0 { 9000 } else { 150 }));
                tx.put(&table, &k, &v)?;
                after.insert(k, v);
                if i % 9 == 0 {
                    tx.put(&other, key(i), "x")?;
                }
            }
            assert_eq!(tx.delete_range(&table, key(100)..key(400))?, 300);
            after.retain(|k, _| !(key(100)..key(400)).contains(k));
            assert_eq!(tx.iter(&table)?.count(), after.len());
            assert_eq!(tx.get(&table, key(650))?.as_deref(), after.get(&key(650)).map(|v| &v[..]));
            tx.commit()
        })();
        if let Some(snapshot) = &snapshot
            && disk.is_powered()
        {
            assert!(
                snapshot.iter(&table).unwrap().map(|e| e.unwrap()).all(|e| before[e.key()] == e.value()[..])
            );
            assert_eq!(snapshot.iter(&table).unwrap().count(), before.len());
        }
        drop((snapshot, table, other, db));
        disk.cancel_cut();
        let disk = if disk.is_powered() { disk } else { disk.reopen() };
        let db = options(&disk).open(DIR).unwrap();
        let table = db.table("t").unwrap();
        let found: BTreeMap<_, _> = (table.iter().unwrap().map(|e| e.unwrap().into_parts()))
            .map(|(k, v)| (k.to_vec(), v.to_vec()))
            .collect();
        match outcome {
            Ok(_) => assert!(found == after, "seed {seed}: committed"),
            Err(e) => assert!(found == before || found == after, "seed {seed}: {e}"),
        }
        assert!(seed > 1 || found == after);
        db.step().unwrap();
        assert_clean(&db);
    }
}
