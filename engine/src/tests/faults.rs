//! Errors of the medium: what fails, what goes on, and what opening again finds.

use super::*;
use crate::{Durability, Error};
use bedstone_io::sim::{CutMode, Fault, OpKind, Repeat};

#[test]
fn a_failed_sync_of_the_log_is_for_good() {
    let disk = SimDisk::new(31);
    let db = create(&disk);
    let table = db.table("t").unwrap();
    table.put(b"before", b"1").unwrap();
    disk.fail_nth_on(".log", OpKind::Sync, 1, Fault::Eio, Repeat::Once);
    let error = table.put(b"lost", b"2").unwrap_err();
    assert!(matches!(error, Error::NotKnownDurable(_)), "{error}");
    for _ in 0..3 {
        assert!(matches!(table.put(b"later", b"3"), Err(Error::ReadOnlyFailed(_))));
        assert!(matches!(db.checkpoint(), Err(Error::ReadOnlyFailed(_))));
        assert!(matches!(db.sync(), Err(Error::ReadOnlyFailed(_))));
        assert!(matches!(db.table("new"), Err(Error::ReadOnlyFailed(_))));
    }
    assert_eq!(table.get(b"before").unwrap().unwrap(), b"1", "reads go on");
    assert!(db.stats().read_only_because.is_some());
    assert!(db.close().is_err());
    // The same boot: the page cache still shows what the sync lost. Then a cut: nothing that was served may
    // go.
    let db = reopen(&disk);
    let table = db.table("t").unwrap();
    assert_eq!(table.get(b"before").unwrap().unwrap(), b"1");
    let served = table.get(b"lost").unwrap().map(|v| v.to_vec());
    table.put(b"after", b"4").unwrap();
    let disk = disk.fork_cut(CutMode::Drop, 5);
    let db = reopen(&disk);
    let table = db.table("t").unwrap();
    assert_eq!(table.get(b"lost").unwrap().map(|v| v.to_vec()), served);
    assert_eq!(table.get(b"after").unwrap().unwrap(), b"4");
    assert_clean(&db);
}

#[test]
fn a_checkpoint_that_cannot_write_pages_is_given_up_and_made_later() {
    let disk = SimDisk::new(32);
    let db = create(&disk);
    let table = db.table("t").unwrap();
    for i in 0..500 {
        table.put(key(i), value(i, 100)).unwrap();
    }
    // The first write is a page's. (A later one may be a superblock's, which is for good.)
    for round in 1..8 {
        for i in 0..round {
            table.put(key(i * 50), b"changed").unwrap();
        }
        disk.fail_nth_on("data", OpKind::Write, 1, Fault::Eio, Repeat::Once);
        let error = db.checkpoint().unwrap_err();
        assert!(!error.is_read_only(), "{error}");
        disk.clear_faults();
        assert_clean(&db);
    }
    assert_eq!(db.stats().checkpoint_failures, 7);
    let info = db.checkpoint().unwrap();
    assert!(info.number > 0 && info.replay_lsn == info.log_end);
    assert_clean(&db);
    let disk = disk.fork_cut(CutMode::Drop, 6);
    let db = reopen(&disk);
    assert_eq!(db.table("t").unwrap().get(key(150)).unwrap().unwrap(), b"changed");
    assert_eq!(db.table("t").unwrap().iter().unwrap().count(), 500);
    assert_clean(&db);
}

/// The log's own thread met it; no call has yet.
#[test]
fn a_log_that_failed_in_the_background_shows_in_the_stats() {
    let disk = SimDisk::new(34);
    let db = small(&disk).background(crate::Background::Threads).create(DIR).unwrap();
    let table = db.table("t").unwrap();
    disk.fail_nth_on(".log", OpKind::Sync, 1, Fault::Eio, Repeat::Forever);
    table.put_with(b"k", b"v", Durability::Relaxed).unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while db.stats().read_only_because.is_none() {
        assert!(std::time::Instant::now() < until, "the log was never synced: {:?}", db.stats());
        std::thread::yield_now();
    }
    assert!(matches!(table.put(b"k", b"w"), Err(Error::ReadOnlyFailed(_))));
}

/// A close whose checkpoint is given up syncs the log, and told of the checkpoint only when that failed too, although
/// commits that the kernel had may be lost then.
#[test]
fn a_close_that_cannot_sync_the_log_says_so() {
    for (log_fails, checkpoint_fails) in [(false, true), (true, true), (true, false)] {
        let disk = SimDisk::new(33);
        let db = create(&disk);
        let table = db.table("t").unwrap();
        table.put_with(b"k", b"v", Durability::Buffered).unwrap();
        if checkpoint_fails {
            disk.fail_nth_on("data", OpKind::Write, 1, Fault::Eio, Repeat::Forever);
        }
        if log_fails {
            disk.fail_nth_on(".log", OpKind::Sync, 1, Fault::Eio, Repeat::Forever);
        }
        drop(table);
        let error = db.close().unwrap_err();
        assert_eq!(error.is_read_only(), log_fails, "{error}");
        disk.clear_faults();
        let db = reopen(&disk);
        let found = db.table("t").unwrap().get(b"k").unwrap().is_some();
        assert!(found || log_fails);
    }
}

/// Whatever fails once or for good, at whichever operation: what was acknowledged is there after opening
/// again.
#[test]
fn every_operation_fails_once_and_for_good() {
    for repeat in [Repeat::Once, Repeat::Forever] {
        let mut nth = 1;
        loop {
            let disk = SimDisk::new(nth);
            let db = create(&disk);
            let made = db.table("t").is_ok();
            assert!(made);
            let before = disk.ops();
            disk.fail_nth(OpKind::Mutation, nth, Fault::Eio, repeat);
            let mut acknowledged = 0;
            let table = db.table("t").unwrap();
            for i in 0..60 {
                if i == 30 {
                    let _ = db.checkpoint();
                }
                if table.put(key(i), value(i, 150)).is_err() {
                    break;
                }
                acknowledged = i + 1;
            }
            let closed = db.close();
            let untouched = acknowledged == 60 && closed.is_ok();
            disk.clear_faults();
            for disk in [disk.reopen(), disk.fork_cut(CutMode::Drop, nth)] {
                let db = reopen(&disk);
                let table = db.table("t").unwrap();
                for i in 0..acknowledged {
                    let found = table.get(key(i)).unwrap();
                    assert_eq!(
                        found.unwrap(),
                        value(i, 150),
                        "{repeat:?} at {nth}: key {i} of {acknowledged}"
                    );
                }
                let found = table.iter().unwrap().count() as u64;
                assert!(found <= acknowledged + 1, "{repeat:?} at {nth}");
                assert_clean(&db);
            }
            if untouched && disk.ops() - before < nth {
                break;
            }
            nth += 1;
        }
        assert!(nth > 50, "{nth}");
    }
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_space() {
    let disk = SimDisk::new(33);
    let db = create(&disk);
    let table = db.table("t").unwrap();
    table.put(b"first", b"1").unwrap();
    disk.set_capacity(Some(disk.used() + (400 << 10)));
    let mut stored = 0;
    let error = loop {
        match table.put(key(stored), value(stored, 900)) {
            Ok(()) => stored += 1,
            Err(e) => break e,
        }
        assert!(stored < 10_000, "the disk must get full");
    };
    assert!(error.is_no_space() && !error.is_read_only(), "{error}");
    assert!(table.put(key(stored), value(stored, 900)).unwrap_err().is_no_space());
    assert!(table.put(b"long", vec![1; 400_000]).unwrap_err().is_no_space());
    let mut batch = crate::WriteBatch::new();
    for i in 0..500 {
        batch.put(&table, key(i), value(i, 900)).unwrap();
    }
    assert!(db.write(batch).unwrap_err().is_no_space());
    assert_eq!(table.iter().unwrap().count() as u64, stored + 1, "reads go on");
    for i in 0..stored.min(20) {
        assert_eq!(table.get(key(i)).unwrap().unwrap(), value(i, 900));
    }
    disk.set_capacity(None);
    table.put(key(stored), value(stored, 900)).unwrap();
    assert_clean(&db);
    let disk = disk.fork_cut(CutMode::Drop, 7);
    let db = reopen(&disk);
    assert_eq!(db.table("t").unwrap().iter().unwrap().count() as u64, stored + 2);
    assert_clean(&db);
}

/// Whatever was promised, what survives is a prefix of the order of commits that holds every synced one.
#[test]
fn what_survives_is_a_prefix_whatever_the_durability() {
    for seed in 0..30 {
        let disk = SimDisk::new(seed);
        let db = create(&disk);
        let table = db.table("t").unwrap();
        let mut synced = 0;
        let n = 40 + seed * 3;
        for i in 0..n {
            let durability = match (i * 7 + seed) % 5 {
                0 if seed % 3 != 0 => Durability::Sync,
                1 => Durability::Buffered,
                _ => Durability::Relaxed,
            };
            table.put_with(key(i), value(i, 200), durability).unwrap();
            if durability == Durability::Sync {
                synced = i + 1;
            }
            if i == n / 2 && seed % 4 == 0 {
                db.checkpoint().unwrap();
                synced = i + 1;
            }
        }
        for mode in [CutMode::Random, CutMode::Drop] {
            let disk = disk.fork_cut(mode, seed);
            let db = reopen(&disk);
            let found: Vec<_> =
                db.table("t").unwrap().iter().unwrap().map(|e| e.unwrap().key().to_vec()).collect();
            assert_eq!(found, (0..found.len() as u64).map(key).collect::<Vec<_>>(), "seed {seed}: a prefix");
            assert!(found.len() as u64 >= synced, "seed {seed}: {} found, {synced} synced", found.len());
            assert_clean(&db);
        }
    }
}

#[test]
fn a_page_that_rots_gives_an_error_and_no_other_page_suffers() {
    let disk = SimDisk::new(34);
    let db = create(&disk);
    let table = db.table("t").unwrap();
    for i in 0..2000 {
        table.put(key(i), value(i, 100)).unwrap();
    }
    db.close().unwrap();
    let path = dir().join("data");
    let len = disk.copy_out(&path).unwrap().len() as u64;
    let (mut refused, mut bad_reads) = (0, 0);
    for at in (0..len).step_by(4096) {
        let disk = disk.fork(at);
        disk.flip_bit(&path, at + 100, 3).unwrap();
        let Ok(db) = small(&disk).open(DIR) else {
            refused += 1;
            continue;
        };
        let table = match db.table("t") {
            Ok(table) => table,
            Err(e) => {
                assert!(e.is_corruption(), "{e}");
                refused += 1;
                continue;
            }
        };
        let mut failed = 0;
        for i in 0..2000 {
            match table.get(key(i)) {
                Ok(found) => assert_eq!(found.unwrap(), value(i, 100)),
                Err(e) => {
                    assert!(e.is_corruption() && e.page().is_some(), "{e}");
                    failed += 1;
                }
            }
        }
        assert!(failed < 2000 || at < len, "one page does not take all with it");
        bad_reads += u64::from(failed > 0);
        let mut range = table.iter().unwrap();
        let error = range.by_ref().find_map(Result::err);
        assert_eq!(error.is_some(), failed > 0);
        if let Some(error) = error {
            assert!(error.is_corruption(), "{error}");
            assert!(range.next().is_some_and(|e| e.is_err()), "it keeps failing");
        }
        let report = db.check().unwrap();
        assert_eq!(report.is_clean(), failed == 0 && at != 0 && at != 65536 || report.is_clean());
        if failed > 0 {
            assert!(!report.is_clean());
        }
    }
    assert!(refused > 0 && bad_reads > 40, "{refused} {bad_reads}");
}
