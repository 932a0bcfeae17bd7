//! What handles, values and iterators may rely on while others write, drop tables or close the database.

use super::*;
use crate::{Durability, Error, WriteBatch};
use bedstone_bufpool::PageKind;
use std::io::Read;
use std::sync::Mutex;

#[test]
fn a_value_stays_as_it_was() {
    let disk = SimDisk::new(41);
    let db = create(&disk);
    let table = db.table("t").unwrap();
    table.put(b"k", vec![1; 500]).unwrap();
    table.put(b"long", vec![2; 50_000]).unwrap();
    let pinned = table.get(b"k").unwrap().unwrap();
    assert!(pinned.is_pinned());
    let mut reader = table.value_reader(b"long").unwrap().unwrap();
    let mut range = table.iter().unwrap();
    let first = range.next().unwrap().unwrap();
    table.put(b"k", vec![3; 500]).unwrap();
    table.delete(b"long").unwrap();
    for i in 0..300 {
        table.put(key(i), value(i, 200)).unwrap();
    }
    db.checkpoint().unwrap();
    assert_eq!(pinned, vec![1; 500]);
    assert_eq!(first.value(), &vec![1; 500]);
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, vec![2; 50_000]);
    assert_eq!(table.get(b"k").unwrap().unwrap(), vec![3; 500]);
    assert_eq!(pinned.into_owned(), vec![1; 500]);
    drop((reader, range, first));
    assert_clean(&db);
}

#[test]
fn more_values_than_the_pool_has_pages_may_be_held() {
    let disk = SimDisk::new(42);
    let db = create(&disk);
    let table = db.table("t").unwrap();
    for i in 0..3000 {
        table.put(key(i), value(i, 300)).unwrap();
    }
    let held: Vec<_> = (0..3000).map(|i| table.get(key(i)).unwrap().unwrap()).collect();
    assert!(held.iter().filter(|v| v.is_pinned()).count() < 256);
    table.put(b"meanwhile", b"x").unwrap();
    let entries: Vec<_> = table.iter().unwrap().map(|e| e.unwrap()).collect();
    assert_eq!(entries.len(), 3001);
    for (i, v) in held.iter().enumerate() {
        assert_eq!(v, &value(i as u64, 300));
    }
}

#[test]
fn handles_outlive_close_and_only_give_errors() {
    let disk = SimDisk::new(43);
    let db = create(&disk);
    let table = db.table("t").unwrap();
    table.put(b"k", vec![1; 300]).unwrap();
    let other = db.clone();
    let held = table.get(b"k").unwrap().unwrap();
    let mut range = table.iter().unwrap();
    db.close().unwrap();
    assert_eq!(held, vec![1; 300]);
    assert!(matches!(range.next(), Some(Err(Error::Closed { .. }))));
    assert!(matches!(other.table("t"), Err(Error::Closed { .. })));
    assert!(matches!(other.checkpoint(), Err(Error::Closed { .. })));
    assert!(matches!(other.check(), Err(Error::Closed { .. })));
    assert!(matches!(table.put_with(b"k", b"", Durability::Relaxed), Err(Error::Closed { .. })));
    let mut batch = WriteBatch::new();
    batch.put(&table, b"a", b"b").unwrap();
    assert!(matches!(other.write(batch), Err(Error::Closed { .. })));
    // The lock is free although handles are left.
    let again = reopen(&disk);
    assert_eq!(again.table("t").unwrap().get(b"k").unwrap().unwrap(), vec![1; 300]);
    other.close().unwrap();
    assert_clean(&again);
}

#[test]
fn calls_from_inside_a_reader_that_would_wait_for_it_are_refused() {
    struct Nested<'a>(&'a Database, u64, Mutex<Vec<String>>);
    impl Read for &Nested<'_> {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            let table = self.0.table("t").unwrap();
            let mut said = self.2.lock().unwrap();
            if said.is_empty() {
                table.put(b"short", b"fine").unwrap();
                let error = |r: Result<(), Error>| r.unwrap_err().to_string();
                said.push(error(table.put(b"long", vec![0; 600_000])));
                said.push(error(self.0.checkpoint().map(drop)));
                said.push(error(self.0.check().map(drop)));
                said.push(error(self.0.clone().close()));
            }
            buf.fill(self.1 as u8);
            Ok(buf.len())
        }
    }
    let disk = SimDisk::new(44);
    let db = create(&disk);
    let table = db.table("t").unwrap();
    let nested = Nested(&db, 7, Mutex::default());
    table.put_reader(b"outer", 600_000, &nested).unwrap();
    let said = nested.2.into_inner().unwrap();
    assert_eq!(said.len(), 4);
    assert!(said.iter().all(|s| s.contains("inside the reader")), "{said:?}");
    assert_eq!(table.get(b"outer").unwrap().unwrap(), vec![7; 600_000]);
    assert_eq!(table.get(b"short").unwrap().unwrap(), b"fine");
    assert_clean(&db);
    db.close().unwrap();
}

#[test]
fn a_catalog_of_many_tables() {
    let disk = SimDisk::new(45);
    let db = create(&disk);
    let name = |i: u64| format!("table number {i} {}", "x".repeat(100));
    for i in 0..120 {
        db.table(&name(i)).unwrap().put(b"k", key(i)).unwrap();
    }
    for i in (0..120).step_by(3) {
        assert!(db.drop_table(&name(i)).unwrap());
    }
    for i in (1..120).step_by(3) {
        db.rename_table(&name(i), &name(i + 1000)).unwrap();
    }
    db.checkpoint().unwrap();
    for disk in [disk.fork_cut(bedstone_io::sim::CutMode::Drop, 1), disk.fork(2)] {
        let db = reopen(&disk);
        assert_eq!(db.tables().unwrap().len(), 80);
        for i in 0..120 {
            let at = if i % 3 == 1 { i + 1000 } else { i };
            let found = db.open_table(&name(at)).unwrap().map(|t| t.get(b"k").unwrap().unwrap().to_vec());
            assert_eq!(found, (i % 3 != 0).then(|| key(i)));
        }
        assert_clean(&db);
    }
}

#[test]
fn the_check_finds_a_page_that_belongs_to_nobody() {
    let disk = SimDisk::new(46);
    let db = create(&disk);
    db.table("t").unwrap().put(b"k", b"v").unwrap();
    let pool = &db.shared().pool;
    let mut reserve = pool.reserve(1).unwrap();
    let page = pool.new_page(&mut reserve, PageKind::OverflowData, 0, 1);
    let id = page.page_id();
    page.publish(&pool.announce());
    let report = db.check().unwrap();
    assert_eq!(report.problems.len(), 1, "{:#?}", report.problems);
    assert_eq!(report.problems[0].page, Some(id.0));
}

#[test]
fn progress_is_told_and_the_log_is_bounded_by_checkpoints() {
    let disk = SimDisk::new(47);
    let db = create(&disk);
    let table = db.table("t").unwrap();
    for i in 0..6000 {
        table.put_with(key(i % 500), value(i, 400), Durability::Relaxed).unwrap();
    }
    let stats = db.stats();
    assert!(stats.pool.checkpoints > 3, "{stats}");
    assert!(stats.wal.tail.0 - stats.replay_lsn < 700 << 10, "{stats}");
    db.sync().unwrap();
    let disk = disk.reopen();
    drop((table, db));
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = told.clone();
    let db = small(&disk).on_recovery_progress(move |p| sink.lock().unwrap().push(p)).open(DIR).unwrap();
    let told = told.lock().unwrap();
    assert!(told.len() >= 2 && told.last().unwrap().done);
    assert_eq!(told.last().unwrap().at_lsn, db.recovery().end_lsn);
    assert_eq!(told.last().unwrap().commits, db.recovery().commits);
    assert!(db.recovery().commits > 0);
    let used = disk.used();
    assert!(used < 4 << 20, "{used} bytes for 500 entries");
}
