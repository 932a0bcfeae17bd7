//! One failed write or sync, and what comes after it.

use std::sync::Arc;

use bedstone_io::Disk;
use bedstone_io::sim::{CutMode, Fault, OpKind, Repeat, SimDisk};

use super::{append, commit, config, create, payload, read};
use crate::{Durability, Lsn, WalConfig, WalError};

#[test]
fn a_failed_write_or_sync_is_final() {
    for (kind, fault) in [
        (OpKind::Write, Fault::Eio),
        (OpKind::Write, Fault::Enospc),
        (OpKind::Write, Fault::TornWrite),
        (OpKind::Sync, Fault::Eio),
        (OpKind::Sync, Fault::PartialSync),
        (OpKind::Sync, Fault::Enospc),
    ] {
        let disk = SimDisk::new(2);
        let shared: Arc<dyn Disk> = disk.clone();
        let wal = create(&shared, config(1));
        let good = commit(&wal, b"good");
        let mut held = wal.reserve(1000, 10).unwrap();
        disk.fail_nth(kind, 1, fault, Repeat::Once);
        let bad = append(&wal, 1, b"bad").unwrap();
        let error = wal.wait(bad.end, Durability::Sync).unwrap_err();
        assert!(matches!(&error, WalError::Failed(cause) if matches!(**cause, WalError::Io(_))), "{error}");
        let ops = disk.ops();

        assert!(wal.failed().is_some() && wal.stats().failed);
        assert_eq!(wal.durable_lsn(), good.end);
        wal.wait(good.end, Durability::Sync).unwrap();
        for durability in [Durability::Sync, Durability::Relaxed] {
            assert!(wal.wait(bad.end, durability).unwrap_err().is_failed());
        }
        assert!(wal.sync().unwrap_err().is_failed());
        assert!(
            wal.append(&mut held, 1, &[b"x"], &mut |_| panic!("no position is given"))
                .unwrap_err()
                .is_failed()
        );
        assert!(wal.try_append(&mut held, 1, &[b"x"], &mut |_| ()).unwrap_err().is_failed());
        assert!(wal.reserve(1, 1).unwrap_err().is_failed());
        assert!(wal.recycle_below(good.end).unwrap_err().is_failed());
        wal.step();
        drop(held);
        assert!(wal.close().unwrap_err().is_failed());
        assert_eq!(disk.ops(), ops, "nothing is tried again");
        let text = error.to_string();
        assert!(text.contains("open the database again") && text.contains("/db/redo/"), "{text}");
    }
}

/// Each operation in turn fails, once and for good; what was acknowledged is there after a power cut.
#[test]
fn every_operation_fails_once_and_for_good() {
    for repeat in [Repeat::Once, Repeat::Forever] {
        for n in 1.. {
            let disk = SimDisk::new(n);
            let shared: Arc<dyn Disk> = disk.clone();
            let wal = create(&shared, config(1));
            disk.fail_nth(OpKind::Any, n, Fault::Eio, repeat);
            let mut acknowledged = 0;
            let mut refused = 0;
            for number in 0..150 {
                let outcome = append(&wal, 1, &payload(number, 1000))
                    .and_then(|appended| wal.wait(appended.end, Durability::Sync));
                match outcome {
                    Ok(()) if refused == 0 => acknowledged += 1,
                    Ok(()) => assert!(wal.failed().is_none()),
                    Err(_) => refused += 1,
                }
                wal.step();
            }
            drop(wal);
            disk.clear_faults();
            let after: Arc<dyn Disk> = disk.fork_cut(CutMode::Drop, n);
            let (records, _) = read(&after, Lsn::ZERO).unwrap();
            assert!(records.len() >= acknowledged, "{repeat:?} at {n}: {} of {acknowledged}", records.len());
            for (number, record) in records.iter().enumerate().take(acknowledged) {
                assert_eq!(record.payload, payload(number as u64, 1000));
            }
            if refused == 0 && acknowledged == 150 && n > 400 {
                break;
            }
        }
    }
}

#[test]
fn reading_reports_errors_of_the_medium_and_goes_on_after_them() {
    let disk = SimDisk::new(2);
    let shared: Arc<dyn Disk> = disk.clone();
    let wal = create(&shared, WalConfig { syncs_in_flight: 1, ..config(1) });
    for number in 0..100 {
        commit(&wal, &payload(number, 1000));
    }
    let mut reader =
        crate::LogReader::open(Arc::clone(&shared), std::path::Path::new(super::DIR), super::ID, Lsn::ZERO)
            .unwrap();
    disk.fail_nth(OpKind::Read, 2, Fault::Eio, Repeat::Once);
    let (mut count, mut errors) = (0, 0);
    loop {
        match reader.next() {
            Ok(Some(_)) => count += 1,
            Ok(None) => break,
            Err(WalError::Io(_)) => errors += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((count, errors), (100, 1));
}
