//! What a user does first: create, open, close, tables, keys, ranges, batches, limits.

use super::*;
use crate::{Error, WriteBatch};
use std::collections::BTreeMap;

#[test]
fn what_was_put_is_there_after_closing_and_opening() {
    let disk = SimDisk::new(1);
    let db = create(&disk);
    let table = db.table("places").unwrap();
    assert!(table.get(b"a").unwrap().is_none());
    table.put(b"a", b"1").unwrap();
    table.put(b"b", vec![7; 100]).unwrap();
    table.put(b"a", b"2").unwrap();
    assert_eq!(table.get(b"a").unwrap().unwrap(), b"2");
    assert!(table.delete(b"a").unwrap());
    assert!(!table.delete(b"a").unwrap());
    assert_clean(&db);
    db.close().unwrap();
    assert!(matches!(table.get(b"b"), Err(Error::Closed { .. })));
    assert!(matches!(table.put(b"b", b""), Err(Error::Closed { .. })));

    let db = reopen(&disk);
    assert!(db.recovery().clean, "{:?}", db.recovery());
    let table = db.open_table("places").unwrap().unwrap();
    assert_eq!(table.get(b"b").unwrap().unwrap(), vec![7; 100]);
    assert!(table.get(b"a").unwrap().is_none());
    assert!(db.open_table("other").unwrap().is_none());
    assert_clean(&db);
}

#[test]
fn what_was_put_is_there_after_the_process_dies() {
    let disk = SimDisk::new(2);
    let db = create(&disk);
    let table = db.table("t").unwrap();
    for i in 0..3000 {
        table.put(key(i), value(i, 100)).unwrap();
    }
    let disk = disk.reopen();
    drop((table, db));
    let db = reopen(&disk);
    assert!(!db.recovery().clean);
    let table = db.table("t").unwrap();
    for i in 0..3000 {
        assert_eq!(table.get(key(i)).unwrap().unwrap(), value(i, 100), "key {i}");
    }
    assert_eq!(table.stats().unwrap().entries, 3000);
    assert_clean(&db);
}

#[test]
fn ranges_go_both_ways() {
    let disk = SimDisk::new(3);
    let db = create(&disk);
    let table = db.table("t").unwrap();
    let mut model = BTreeMap::new();
    for i in 0..2000u64 {
        let k = key(i * 7919 % 10007);
        table.put(&k, value(i, 60)).unwrap();
        model.insert(k, value(i, 60));
    }
    let all: Vec<_> =
        table.iter().unwrap().map(|e| e.unwrap()).map(|e| (e.key().to_vec(), e.value().to_vec())).collect();
    assert_eq!(all, model.clone().into_iter().collect::<Vec<_>>());
    let back: Vec<_> = table.iter().unwrap().rev().map(|e| e.unwrap().key().to_vec()).collect();
    assert_eq!(back, model.keys().rev().cloned().collect::<Vec<_>>());
    let (from, to) = (key(1000), key(5000));
    let some: Vec<_> =
        table.range(from.clone()..to.clone()).unwrap().map(|e| e.unwrap().key().to_vec()).collect();
    assert_eq!(some, model.range(from..to).map(|(k, _)| k.clone()).collect::<Vec<_>>());
    // From both ends at once.
    let mut range = table.iter().unwrap();
    let mut met = Vec::new();
    while let Some(entry) = range.next() {
        met.push(entry.unwrap().key().to_vec());
        if let Some(entry) = range.next_back() {
            met.push(entry.unwrap().key().to_vec());
        }
    }
    assert!(range.next().is_none() && range.next_back().is_none());
    met.sort();
    assert_eq!(met, model.keys().cloned().collect::<Vec<_>>());
    let mut n = 0;
    table
        .iter()
        .unwrap()
        .for_each_ref(|k, v| {
            assert_eq!(model[k], v);
            n += 1;
            true
        })
        .unwrap();
    assert_eq!(n, model.len());
    let prefix: Vec<_> = table.prefix(b"key0000").unwrap().map(|e| e.unwrap().key().to_vec()).collect();
    assert_eq!(prefix, model.keys().filter(|k| k.starts_with(b"key0000")).cloned().collect::<Vec<_>>());
    assert_eq!(table.first().unwrap().unwrap().key(), model.keys().next().unwrap());
    assert_eq!(table.last().unwrap().unwrap().key(), model.keys().next_back().unwrap());
    let keys: Vec<Vec<u8>> = (0..300).map(key).collect();
    for (k, v) in keys.iter().zip(table.multi_get(&keys).unwrap()) {
        assert_eq!(v.as_deref(), model.get(k).map(Vec::as_slice));
    }
    assert!(table.prefix([0xff, 0xff]).unwrap().next().is_none());
    table.put([0xff, 0xff, 1], b"x").unwrap();
    assert_eq!(table.prefix([0xff, 0xff]).unwrap().count(), 1);
}

#[test]
fn a_batch_over_tables_is_one_commit() {
    let disk = SimDisk::new(4);
    let db = create(&disk);
    let (a, b) = (db.table("a").unwrap(), db.table("b").unwrap());
    a.put(b"gone", b"x").unwrap();
    let mut batch = WriteBatch::new();
    for i in (0..500).rev() {
        batch.put(&b, key(i), value(i, 50)).unwrap();
        batch.put(&a, key(i), value(i + 1, 50)).unwrap();
    }
    batch.put(&a, key(3), b"first").unwrap();
    batch.put(&a, key(3), b"last").unwrap();
    batch.delete(&a, b"gone").unwrap();
    batch.put(&b, b"came", b"").unwrap();
    batch.delete(&b, b"came").unwrap();
    assert_eq!(batch.len(), 1005);
    db.write(batch).unwrap();
    let disk = disk.reopen();
    let lost = (a, b, db);
    let db = reopen(&disk);
    drop(lost);
    let (a, b) = (db.table("a").unwrap(), db.table("b").unwrap());
    assert_eq!(a.get(key(3)).unwrap().unwrap(), b"last");
    assert!(!a.contains(b"gone").unwrap() && !b.contains(b"came").unwrap());
    for i in 4..500 {
        assert_eq!(a.get(key(i)).unwrap().unwrap(), value(i + 1, 50));
        assert_eq!(b.get(key(i)).unwrap().unwrap(), value(i, 50));
    }
    assert_clean(&db);
}

#[test]
fn long_values_and_fragments_come_back() {
    let disk = SimDisk::new(5);
    let db = create(&disk);
    let table = db.table("t").unwrap();
    // A record holds 8 KiB here: the second and later ones go out as fragments.
    let lens = [3000, 20_000, 100_000, 700_000, 1_500_000];
    for (i, &len) in lens.iter().enumerate() {
        table.put(key(i as u64), value(i as u64, len)).unwrap();
    }
    table.put_reader(b"read", 2_000_000, &value(9, 2_000_000)[..]).unwrap();
    table.put_reader(b"short", 3, &b"abc"[..]).unwrap();
    assert!(matches!(
        table.put_reader(b"cut", 2_000_000, &b"abc"[..]),
        Err(Error::Reader { read: 0..=3, .. })
    ));
    assert!(!table.contains(b"cut").unwrap());
    let mut batch = WriteBatch::new();
    for i in 10..40 {
        batch.put(&table, key(i), value(i, 5000)).unwrap();
    }
    db.write(batch).unwrap();
    let check = |db: &Database| {
        let table = db.table("t").unwrap();
        for (i, &len) in lens.iter().enumerate() {
            assert_eq!(table.get(key(i as u64)).unwrap().unwrap(), value(i as u64, len), "value {i}");
        }
        for i in 10..40 {
            assert_eq!(table.get(key(i)).unwrap().unwrap(), value(i, 5000), "value {i}");
        }
        let mut reader = table.value_reader(b"read").unwrap().unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut bytes).unwrap();
        assert!(bytes == value(9, 2_000_000) && reader.len() == 2_000_000);
        let found: Vec<usize> = table.iter().unwrap().map(|e| e.unwrap().value().len()).collect();
        assert_eq!(found.len(), lens.len() + 32);
        assert_clean(db);
    };
    check(&db);
    let lost = (table, db);
    let disk = disk.reopen();
    let db = reopen(&disk);
    drop(lost);
    check(&db);
    let table = db.table("t").unwrap();
    for i in 0..5 {
        assert!(table.delete(key(i)).unwrap());
    }
    table.put(b"read", b"short now").unwrap();
    assert_clean(&db);
    db.close().unwrap();
    let db = reopen(&disk);
    assert_clean(&db);
    assert_eq!(db.table("t").unwrap().get(b"read").unwrap().unwrap(), b"short now");
}

#[test]
fn tables_are_made_renamed_and_dropped() {
    let disk = SimDisk::new(6);
    let db = create(&disk);
    let a = db.create_table("a").unwrap();
    assert!(matches!(db.create_table("a"), Err(Error::TableExists { .. })));
    for i in 0..500 {
        a.put(key(i), value(i, 100)).unwrap();
    }
    db.rename_table("a", "z").unwrap();
    assert_eq!(a.name(), "z");
    a.put(b"k", b"v").unwrap();
    assert!(matches!(db.rename_table("a", "b"), Err(Error::TableNotFound { .. })));
    let b = db.table("b").unwrap();
    assert!(matches!(db.rename_table("b", "z"), Err(Error::TableExists { .. })));
    assert_eq!(db.tables().unwrap().iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["b", "z"]);
    assert!(db.drop_table("z").unwrap());
    assert!(!db.drop_table("z").unwrap());
    assert!(matches!(a.get(b"k"), Err(Error::TableDropped { .. })));
    assert!(matches!(a.put(b"k", b"v"), Err(Error::TableDropped { .. })));
    let mut batch = WriteBatch::new();
    batch.put(&b, b"x", b"y").unwrap();
    batch.put(&a, b"x", b"y").unwrap();
    assert!(matches!(db.write(batch), Err(Error::TableDropped { .. })));
    assert!(!b.contains(b"x").unwrap());
    let again = db.table("z").unwrap();
    assert!(again.id() > b.id() && !again.contains(b"k").unwrap());
    assert_clean(&db);
    db.checkpoint().unwrap();
    db.checkpoint().unwrap();
    assert_clean(&db);
    let newest = again.id();
    assert!(db.drop_table("z").unwrap());
    db.checkpoint().unwrap();
    db.checkpoint().unwrap();
    db.close().unwrap();
    let db = reopen(&disk);
    assert_clean(&db);
    assert!(db.table("new").unwrap().id() > newest, "numbers are never used twice");
    assert_eq!(db.tables().unwrap().len(), 2);
}

#[test]
fn limits_are_named() {
    let disk = SimDisk::new(7);
    let db = create(&disk);
    let table = db.table("t").unwrap();
    let limits = db.limits();
    let longest = vec![b'k'; limits.max_key_bytes];
    table.put(&longest, vec![1; 5000]).unwrap();
    table.put(vec![b'k'; limits.max_key_bytes - 1], b"x").unwrap();
    assert_eq!(table.get(&longest).unwrap().unwrap().len(), 5000);
    let too_long = vec![b'k'; limits.max_key_bytes + 1];
    assert!(matches!(table.put(&too_long, b""), Err(Error::KeyTooLong { len, max }) if len == max + 1));
    assert!(table.get(&too_long).unwrap().is_none());
    assert_eq!(table.multi_get(&[b"x".to_vec(), too_long.clone(), longest.clone()]).unwrap().len(), 3);
    let mut batch = WriteBatch::new();
    assert!(matches!(batch.put(&table, &too_long, b""), Err(Error::KeyTooLong { .. })));
    assert!(batch.is_empty());
    assert_eq!(db.write_with(batch, Default::default()).unwrap().lsn, 0);
    let too_large = Error::ValueTooLarge { len: limits.max_value_bytes + 1, max: limits.max_value_bytes };
    let error = table.put_reader(b"k", limits.max_value_bytes + 1, std::io::empty()).unwrap_err();
    assert_eq!(error.to_string(), too_large.to_string());
    table.put(b"", b"the empty key").unwrap();
    assert_eq!(table.first().unwrap().unwrap().value(), b"the empty key");
    for bad in ["", "a\nb"] {
        assert!(matches!(db.table(bad), Err(Error::InvalidTableName { .. })));
    }
    assert_clean(&db);
}

#[test]
fn opening_says_what_is_wrong() {
    let disk = SimDisk::new(8);
    assert!(matches!(small(&disk).open(DIR), Err(Error::NotFound { .. })));
    let db = create(&disk);
    assert!(small(&disk).open(DIR).unwrap_err().is_locked());
    db.close().unwrap();
    assert!(matches!(small(&disk).create(DIR), Err(Error::AlreadyExists { .. })));
    let error = small(&disk).page_size(8192).open(DIR).unwrap_err();
    assert!(matches!(error, Error::BadOption { option: "page_size", .. }), "{error}");
    assert!(matches!(small(&disk).page_size(5000).open(DIR), Err(Error::BadOption { .. })));
    assert!(matches!(small(&disk).pool_bytes(4096).open(DIR), Err(Error::PoolTooSmall { .. })));
    let db = small(&disk).open_or_create(DIR).unwrap();
    let other = small(&disk).create("/other").unwrap();
    let (mine, foreign) = (db.table("t").unwrap(), other.table("t").unwrap());
    let mut batch = WriteBatch::new();
    batch.put(&mine, b"a", b"").unwrap();
    assert!(matches!(batch.put(&foreign, b"a", b""), Err(Error::ForeignTable { .. })));
    assert!(matches!(other.write(batch), Err(Error::ForeignTable { .. })));
    assert!(dir().ends_with("db"));
}

#[test]
fn a_real_disk_works_as_well() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("a/b/db");
    let open = || Database::builder().allow_buffered(true).pool_bytes(8 << 20).log_segment_bytes(1 << 20);
    let db = open().open_or_create(&path).unwrap();
    let table = db.table("t").unwrap();
    for i in 0..200 {
        table.put(key(i), value(i, 300)).unwrap();
    }
    let mut batch = WriteBatch::new();
    for i in 200..20_000 {
        batch.put(&table, key(i), value(i, 100)).unwrap();
    }
    db.write(batch).unwrap();
    db.checkpoint().unwrap();
    assert_clean(&db);
    assert!(db.stats().to_json().contains("\"puts\":200"));
    db.close().unwrap();
    let db = open().open(&path).unwrap();
    assert_eq!(db.table("t").unwrap().iter().unwrap().count(), 20_000);
    assert_clean(&db);
}
