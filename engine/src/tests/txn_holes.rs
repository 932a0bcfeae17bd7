//! Corners of transactions and snapshots that a hostile reading found suspicious.

use super::*;
use crate::{Durability, Error, SnapshotOptions, Table, WriteBatch};
use std::collections::BTreeMap;
use std::time::Duration;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn contents(table: &Table) -> Map {
    let entries = table.iter().unwrap().map(|e| e.unwrap().into_parts());
    entries.map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

/// Old values of the first table are put aside, then the second one turns out to have no generation to put them into:
/// the commit begins anew, and must not take what it has put aside itself for a change by somebody else.
#[test]
fn a_commit_that_begins_anew_does_not_conflict_with_itself() {
    for spilled in [false, true] {
        let disk = SimDisk::new(1);
        let memory = if spilled { 0 } else { 1 << 20 };
        let db = small(&disk).transaction_memory(memory).create(DIR).unwrap();
        let (a, b) = (db.table("a").unwrap(), db.table("b").unwrap());
        a.put("k", "0").unwrap();
        b.put("k", "0").unwrap();
        let reader = db.begin_read().unwrap();
        a.put("other", "1").unwrap();
        let (mut older, mut tx) = (db.begin_write().unwrap(), db.begin_write().unwrap().serializable());
        older.put(&a, "j", "1").unwrap();
        assert_eq!(tx.iter(&b).unwrap().count(), 1);
        tx.put(&a, "k", "1").unwrap();
        tx.put(&b, "k", "1").unwrap();
        tx.commit().unwrap();
        older.commit().unwrap();
        for table in [&a, &b] {
            assert_eq!(reader.get(table, "k").unwrap().unwrap(), b"0"[..]);
            assert_eq!(table.get("k").unwrap().unwrap(), b"1"[..]);
        }
    }
}

/// What changes nothing is no reason for a conflict, and what changes something after it still is.
#[test]
fn a_delete_of_what_is_not_there_is_no_conflict() {
    let disk = SimDisk::new(1);
    let db = create(&disk);
    let table = db.table("t").unwrap();
    let begin = || {
        let mut tx = db.begin_write().unwrap();
        tx.put(&table, "k", "mine").unwrap();
        tx
    };
    let (one, two) = (begin(), begin());
    assert!(!table.delete("k").unwrap());
    assert!(!table.delete("k").unwrap());
    one.commit().unwrap();
    // The versions of the deletes must not have pushed out that of the commit.
    assert!(table.delete("k").unwrap());
    assert!(!table.delete("k").unwrap());
    assert!(two.commit().unwrap_err().is_retryable());
}

/// A serializable transaction has read a table that was changed and then dropped, and its history with it.
#[test]
fn a_table_read_and_dropped_is_not_forgotten() {
    for by_range in [false, true] {
        let disk = SimDisk::new(1);
        let db = create(&disk);
        let (a, b) = (db.table("a").unwrap(), db.table("b").unwrap());
        let mut one = db.begin_write().unwrap().serializable();
        let mut two = db.begin_write().unwrap().serializable();
        assert!(two.get(&b, "k").unwrap().is_none());
        two.put(&a, "k", "2").unwrap();
        match by_range {
            true => assert_eq!(one.iter(&a).unwrap().count(), 0),
            false => assert!(one.get(&a, "k").unwrap().is_none()),
        }
        one.put(&b, "k", "1").unwrap();
        two.commit().unwrap();
        db.drop_table("a").unwrap();
        // `one` has not seen `two`, and `two` has not seen `one`.
        assert!(matches!(one.commit(), Err(Error::TableDropped { .. })));
        assert!(b.get("k").unwrap().is_none());
        assert_clean(&db);
    }
}

/// The lists of old values of many keys of a commit take pages of their own, all at once more than the pool has.
#[test]
fn many_long_lists_of_old_values_fit_into_a_small_pool() {
    let disk = SimDisk::new(1);
    let db = small(&disk).pool_bytes(128 * 4096).create(DIR).unwrap();
    let table = db.table("t").unwrap();
    let mut snapshots = Vec::new();
    for round in 0..5 {
        let mut batch = WriteBatch::new();
        for i in 0..250 {
            batch.put(&table, key(i), value(round * 1000 + i, 800)).unwrap();
        }
        db.write(batch).unwrap_or_else(|e| panic!("round {round}: {e:?}"));
        snapshots.push(db.begin_read().unwrap());
    }
    for (round, snapshot) in snapshots.iter().enumerate() {
        for i in 0..250 {
            let found = snapshot.get(&table, key(i)).unwrap().unwrap();
            assert_eq!(found, value(round as u64 * 1000 + i, 800)[..]);
        }
    }
    assert_clean(&db);
}

/// A full disk at every stage: a commit is made or refused, nothing turns read-only, nobody conflicts with himself.
#[test]
fn a_full_disk_refuses_and_does_no_harm() {
    for spilled in [false, true] {
        let memory = if spilled { 2000 } else { 1 << 20 };
        for more in 0..26u64 {
            let disk = SimDisk::new(more);
            let db = small(&disk).transaction_memory(memory).create(DIR).unwrap();
            let (a, b) = (db.table("a").unwrap(), db.table("b").unwrap());
            let mut expected = [Map::new(), Map::new()];
            for i in 0..60 {
                for (table, map) in [&a, &b].into_iter().zip(&mut expected) {
                    table.put_with(key(i), value(i, 300), Durability::Relaxed).unwrap();
                    map.insert(key(i), value(i, 300));
                }
            }
            db.checkpoint().unwrap();
            let (before, reader) = (expected.clone(), db.begin_read().unwrap());
            disk.set_capacity(Some(disk.used() + more * 12_288));
            let (mut made, mut refused) = (0, 0);
            for round in 0..12 {
                let mut next = expected.clone();
                let outcome = (|| {
                    let mut tx = db.begin_write()?;
                    for i in 0..30 {
                        let (k, at) = (key(i * 3 + round), i as usize % 2);
                        let v = value(i + round, if i == 7 { 30_000 } else { 400 });
                        tx.put([&a, &b][at], &k, &v)?;
                        next[at].insert(k, v);
                    }
                    tx.commit()
                })();
                match outcome {
                    Ok(_) => (made, expected) = (made + 1, next),
                    Err(e) if e.is_no_space() && db.stats().read_only_because.is_none() => refused += 1,
                    Err(e) => panic!("{more} more, round {round}, spilled {spilled}: {e:?}"),
                }
            }
            disk.set_capacity(None);
            assert!(made + refused == 12 && (more > 0 || refused > 0));
            for (i, table) in [&a, &b].into_iter().enumerate() {
                assert!(contents(table) == expected[i], "{more} more, spilled {spilled}");
                let seen: Map = (reader.iter(table).unwrap().map(|e| e.unwrap().into_parts()))
                    .map(|(k, v)| (k.to_vec(), v.to_vec()))
                    .collect();
                assert!(seen == before[i], "{more} more, spilled {spilled}: the snapshot");
            }
            drop(reader);
            a.put("afterwards", "1").unwrap();
            db.step().unwrap();
            assert_clean(&db);
        }
    }
}

/// Pins of many layers of a spilled transaction fill the pool: a commit may be refused, but not in the middle.
#[test]
fn many_layers_in_a_small_pool_never_stop_a_commit_half_way() {
    for layers in (8..130).step_by(6) {
        let disk = SimDisk::new(1);
        let db = small(&disk).pool_bytes(64 * 4096).transaction_memory(0).create(DIR).unwrap();
        let table = db.table("t").unwrap();
        for i in 0..50 {
            table.put_with(key(i), value(i, 200), Durability::Relaxed).unwrap();
        }
        let reader = db.begin_read().unwrap();
        let mut tx = db.begin_write().unwrap();
        let outcome = (|| {
            for layer in 0..layers {
                tx.savepoint();
                tx.put(&table, key(layer % 50), value(layer, 300))?;
            }
            tx.commit()
        })();
        match outcome {
            Ok(_) | Err(Error::PoolExhausted { .. }) => {}
            Err(e) => panic!("{layers} layers: {e:?}"),
        }
        table.put("afterwards", "1").unwrap();
        assert_eq!(reader.iter(&table).unwrap().count(), 50, "{layers} layers");
        drop(reader);
        db.step().unwrap();
        assert_clean(&db);
    }
}

/// A mark says that no key from some place on existed; some had existed before that, and some come and go later.
#[test]
fn a_mark_among_deletes_and_inserts() {
    let disk = SimDisk::new(1);
    let db = create(&disk);
    let table = db.table("t").unwrap();
    let mut model = Map::new();
    let mut moments = Vec::new();
    let mut take = |model: &Map| moments.push((db.begin_read().unwrap(), model.clone()));
    take(&model);
    for i in 0..50 {
        table.put(key(i), "first").unwrap();
        model.insert(key(i), b"first".to_vec());
    }
    take(&model);
    assert_eq!(table.delete_range(key(5)..).unwrap(), 45);
    model.retain(|k, _| *k < key(5));
    take(&model);
    for round in 0..2 {
        let mut batch = WriteBatch::new();
        for i in 0..1500 {
            batch.put(&table, key(10 + i), format!("load {round}")).unwrap();
            model.insert(key(10 + i), format!("load {round}").into_bytes());
        }
        db.write(batch).unwrap();
        take(&model);
        table.put(key(20), "changed").unwrap();
        model.insert(key(20), b"changed".to_vec());
        take(&model);
        table.delete_range(key(8)..).unwrap();
        model.retain(|k, _| *k < key(8));
        take(&model);
        table.put(key(30), "again").unwrap();
        model.insert(key(30), b"again".to_vec());
        take(&model);
        table.delete(key(30)).unwrap();
        model.remove(&key(30));
        take(&model);
        db.step().unwrap();
    }
    while let Some((snapshot, model)) = moments.pop() {
        let n = moments.len();
        for i in [0, 4, 5, 9, 10, 20, 30, 49, 1000, 1509, 1510] {
            let found = snapshot.get(&table, key(i)).unwrap();
            assert_eq!(found.as_deref(), model.get(&key(i)).map(|v| &v[..]), "moment {n}, key {i}");
        }
        let all = |rev: bool| -> Vec<(Vec<u8>, Vec<u8>)> {
            let range = snapshot.iter(&table).unwrap();
            let pair = |e: crate::Result<crate::Entry<'_>>| {
                let (key, value) = e.unwrap().into_parts();
                (key.to_vec(), value.to_vec())
            };
            if rev { range.rev().map(pair).collect() } else { range.map(pair).collect() }
        };
        let expected: Vec<_> = model.into_iter().collect();
        assert!(all(false) == expected, "moment {n}");
        assert!(all(true).into_iter().rev().eq(expected), "moment {n}, from the back");
        db.step().unwrap();
    }
    assert_clean(&db);
}

#[test]
fn closing_with_snapshots_and_transactions_open() {
    let disk = SimDisk::new(1);
    let db = small(&disk).transaction_memory(0).create(DIR).unwrap();
    let table = db.table("t").unwrap();
    for i in 0..50 {
        table.put(key(i), value(i, 9000)).unwrap();
    }
    let snapshot = db.begin_read().unwrap();
    let mut tx = db.begin_write().unwrap().serializable();
    for i in 0..20 {
        tx.put(&table, key(i), value(i, 700)).unwrap();
        table.put(key(i + 20), value(i, 8000)).unwrap();
    }
    let mut range = snapshot.iter(&table).unwrap();
    assert_eq!(range.next().unwrap().unwrap().key(), key(0));
    let own = tx.iter(&table).unwrap();
    db.clone().close().unwrap();
    assert!(matches!(range.next(), Some(Err(Error::Closed { .. }))));
    assert!(matches!(snapshot.get(&table, key(1)), Err(Error::Closed { .. })));
    drop((range, own));
    assert!(matches!(tx.get(&table, key(1)), Err(Error::Closed { .. })));
    assert!(matches!(tx.put(&table, key(1), "x"), Err(Error::Closed { .. })));
    assert!(matches!(tx.commit(), Err(Error::Closed { .. })));
    assert!(matches!(db.begin_read(), Err(Error::Closed { .. })));
    drop((snapshot, table, db));
    let db = reopen(&disk);
    assert_eq!(db.table("t").unwrap().iter().unwrap().count(), 50);
    assert_clean(&db);
}

/// Keys longer than any table can have, wherever a key can be given.
#[test]
fn keys_that_cannot_exist() {
    let disk = SimDisk::new(1);
    for memory in [0, 1 << 20] {
        let db = small(&disk).transaction_memory(memory).create(format!("/db{memory}")).unwrap();
        let table = db.table("t").unwrap();
        let long = vec![b'k'; db.limits().max_key_bytes + 1];
        table.put("k", "v").unwrap();
        let snapshot = db.begin_read().unwrap();
        let mut tx = db.begin_write().unwrap().serializable();
        tx.put(&table, "k", "mine").unwrap();
        table.put("l", "new").unwrap();
        assert!(snapshot.get(&table, &long).unwrap().is_none());
        assert!(snapshot.multi_get(&table, &[&long[..], b"k"]).unwrap()[0].is_none());
        assert_eq!(snapshot.range(&table, ..&long[..]).unwrap().count(), 1);
        assert_eq!(snapshot.range(&table, &long[..]..).unwrap().rev().count(), 0);
        assert!(tx.get(&table, &long).unwrap().is_none());
        assert!(tx.multi_get(&table, &[&long[..], b"k"]).unwrap()[0].is_none());
        assert!(!tx.delete(&table, &long).unwrap());
        assert_eq!(tx.range(&table, &b"k"[..]..=&long[..]).unwrap().rev().count(), 1);
        assert!(matches!(tx.put(&table, &long, "x"), Err(Error::KeyTooLong { .. })));
        tx.commit().unwrap();
    }
}

/// Past its deadline a transaction commits nothing, and holds nothing.
#[test]
fn a_transaction_past_its_deadline() {
    for given_up in [false, true] {
        let disk = SimDisk::new(1);
        let db = create(&disk);
        let table = db.table("t").unwrap();
        table.put("k", "0").unwrap();
        let options = SnapshotOptions::new().deadline(Duration::from_millis(10));
        let mut tx = db.begin_write_with(options).unwrap().serializable();
        assert!(tx.contains(&table, "k").unwrap());
        tx.put(&table, "l", "1").unwrap();
        table.put("k", "1").unwrap();
        disk.advance(Duration::from_millis(20));
        if given_up {
            db.step().unwrap();
            // Nobody is there for whom old values would be kept: these leave no trace.
            table.put("k", "2").unwrap();
            table.put("l", "2").unwrap();
        }
        assert!(matches!(tx.get(&table, "k"), Err(Error::SnapshotTooOld)));
        let outcome = tx.commit();
        assert!(matches!(outcome, Err(Error::SnapshotTooOld)), "given up {given_up}: {outcome:?}");
    }
}

/// All who lock something against each other, with so much to do that they meet. It ends, or somebody waits in a circle.
#[test]
fn nobody_waits_in_a_circle() {
    let disk = SimDisk::new(1);
    let db = small(&disk).background(Background::Threads).transaction_memory(4000).create(DIR).unwrap();
    let tables: Vec<Table> = (0..2).map(|i| db.table(&format!("t{i}")).unwrap()).collect();
    let fine = |e: Error| {
        assert!(
            e.is_retryable() || matches!(e, Error::TableDropped { .. } | Error::PoolExhausted { .. }),
            "{e:?}"
        );
    };
    std::thread::scope(|scope| {
        for t in 0..2u64 {
            let (db, tables, fine) = (&db, &tables, &fine);
            scope.spawn(move || {
                for n in 0..60u64 {
                    let outcome = (|| {
                        let mut tx = db.begin_write()?.serializable();
                        let table = &tables[(n % 2) as usize];
                        tx.range(table, key(n)..key(n + 5))?.count();
                        for i in 0..20 {
                            let len = if i == 3 && n % 3 == 0 { 20_000 } else { 300 };
                            tx.put(&tables[(i % 2) as usize], key(t * 1000 + i), value(n, len))?;
                        }
                        tx.commit_with(Durability::Relaxed)
                    })();
                    outcome.map(drop).unwrap_or_else(fine);
                }
            });
        }
        scope.spawn(|| {
            for n in 0..25 {
                let name = format!("other{n}");
                let table = db.table(&name).unwrap();
                let snapshot = db.begin_read().unwrap();
                table.put("k", value(n, 9000)).unwrap();
                table.put("k", value(n, 8000)).unwrap();
                assert!(snapshot.get(&table, "k").unwrap().is_none());
                db.drop_table(&name).unwrap();
                if n % 5 == 0 {
                    assert_clean(&db);
                }
                db.checkpoint().unwrap();
            }
        });
        for n in 0..80u64 {
            let snapshot = db.begin_read().unwrap();
            tables[0].compare_and_swap(key(n), None, Some(&value(n, 100))).map(drop).unwrap_or_else(fine);
            tables[1].add("counter", 1).unwrap();
            let count = snapshot.iter(&tables[0]).unwrap().inspect(|e| assert!(e.is_ok())).count();
            assert_eq!(snapshot.iter(&tables[0]).unwrap().rev().count(), count);
        }
    });
    assert_eq!(tables[1].add("counter", 0).unwrap(), 80);
    assert_clean(&db);
    db.close().unwrap();
}
