use std::sync::Arc;

use bedstone_io::sim::SimDisk;
use bedstone_io::{Disk, IoChoice, RealDisk};

use super::{ID, Rng, SEGMENT, append, commit, config, create, payload, read, recover};
use crate::{Background, Durability, EndReason, LogReader, Lsn, Wal, WalConfig, WalError, record_bytes};

#[test]
fn records_come_back_whatever_the_sizes() {
    for segment_bytes in [SEGMENT, SEGMENT + 4096, 3 * SEGMENT] {
        for seed in 0..4 {
            let disk: Arc<dyn Disk> = SimDisk::new(seed);
            let cfg = WalConfig { segment_bytes, ..config(1) };
            let wal = create(&disk, cfg.clone());
            let mut rng = Rng(seed);
            let mut expected = Vec::new();
            for number in 0..400 {
                let len = match rng.below(4) {
                    0 => 0,
                    1 => rng.below(16),
                    2 => rng.below(600),
                    _ => rng.below(wal.max_payload() as u64 + 1),
                };
                let bytes = payload(number, len as usize);
                let split = rng.below(len + 1) as usize;
                let mut credit = wal.reserve(len, 1).unwrap();
                let mut seen = None;
                let parts = [&bytes[..split], &[], &bytes[split..]];
                let appended = wal
                    .append(&mut credit, number as u8, &parts, &mut |lsn| seen = Some((lsn, wal.tail())))
                    .unwrap();
                assert_eq!(seen, Some((appended.lsn, appended.lsn)), "the tail moves afterwards");
                assert_eq!(appended.end, appended.lsn.plus(record_bytes(len as usize)));
                assert_eq!(wal.tail(), appended.end);
                if rng.below(10) == 0 {
                    wal.wait(appended.end, Durability::Sync).unwrap();
                    assert!(wal.durable_lsn() >= appended.end);
                }
                expected.push((appended, number as u8, bytes));
            }
            wal.sync().unwrap();
            let (records, reader) = read(&disk, Lsn::ZERO).unwrap();
            assert_eq!(records.len(), expected.len(), "seed {seed}");
            for (found, (appended, kind, bytes)) in records.iter().zip(&expected) {
                assert_eq!((found.lsn, found.end, found.kind), (appended.lsn, appended.end, *kind));
                assert_eq!((found.opening, &found.payload), (1, bytes));
            }
            let end = reader.end().unwrap();
            assert_eq!((end.lsn, end.opening), (wal.tail(), 1));
            assert_eq!(end.reason, EndReason::ZeroTail);

            let from = expected[200].0.lsn;
            let (later, _) = read(&disk, from).unwrap();
            assert_eq!(later[..], records[200..]);
            drop(wal);
            let (again, wal) = recover(&disk, WalConfig { opening: 2, ..cfg }, from).unwrap();
            assert_eq!(again, later);
            commit(&wal, b"next");
            let (records, _) = read(&disk, from).unwrap();
            assert_eq!(
                records.last().map(|record| (record.opening, &record.payload[..])),
                Some((2, &b"next"[..]))
            );
            assert_eq!(records.len(), later.len() + 1);
        }
    }
}

#[test]
fn a_log_may_begin_anywhere_and_an_empty_one_opens() {
    for start in [0, 8, 4096, 123_456_792, u64::MAX / 4 / 8 * 8] {
        let disk: Arc<dyn Disk> = SimDisk::new(1);
        Wal::create(&*disk, &config(1), Lsn(start)).unwrap();
        for opening in 1..4 {
            let (records, wal) = recover(&disk, config(opening), Lsn(start)).unwrap();
            assert!(records.is_empty());
            assert_eq!((wal.tail(), wal.durable_lsn()), (Lsn(start), Lsn(start)));
        }
        let (_, wal) = recover(&disk, config(9), Lsn(start)).unwrap();
        for number in 0..300 {
            commit(&wal, &payload(number, 700));
        }
        assert_eq!(read(&disk, Lsn(start)).unwrap().0.len(), 300);
    }
    let disk: Arc<dyn Disk> = SimDisk::new(1);
    assert!(matches!(Wal::create(&*disk, &config(1), Lsn(4)), Err(WalError::Config { .. })));
}

/// There is no read-ahead of the kernel's past the page cache, so the log is read in large pieces: a header for each
/// segment, and the segments a mebibyte at a time, whatever the records' size.
#[test]
fn the_log_is_read_in_large_pieces() {
    const SEGMENT: u64 = 4 << 20;
    let sim = SimDisk::new(1);
    let disk: Arc<dyn Disk> = sim.clone();
    let wal = create(&disk, WalConfig { segment_bytes: SEGMENT, ..config(1) });
    let mut count = 0;
    while wal.tail().0 < 3 * SEGMENT - 2000 {
        append(&wal, 1, &payload(count, 100)).unwrap();
        count += 1;
    }
    wal.sync().unwrap();
    let tail = wal.tail();
    drop(wal);
    let before = sim.stats();
    let (records, reader) = read(&disk, Lsn::ZERO).unwrap();
    assert_eq!((records.len() as u64, reader.position()), (count, tail));
    let after = sim.stats();
    let (reads, bytes) = (after.reads - before.reads, after.bytes_read - before.bytes_read);
    assert!(reads <= 3 + 3 * (SEGMENT / (1 << 20) + 1), "{reads} reads of {count} records");
    assert!(bytes <= 3 * (SEGMENT + 3 * 4096), "{bytes} bytes of {tail}");
    // Opening for appending does not make it many again.
    drop(Wal::open(
        Arc::clone(&disk),
        WalConfig { segment_bytes: SEGMENT, ..config(2) },
        reader.end().unwrap(),
    ));
    let reads = sim.stats().reads - after.reads;
    assert!(reads < 100, "{reads} reads to open");
}

#[test]
fn the_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = RealDisk::new(IoChoice::from_env().unwrap(), true).unwrap();
    let cfg = WalConfig {
        segment_bytes: SEGMENT,
        buffer_bytes: 64 * 1024,
        ..WalConfig::new(dir.path().join("redo"), ID, 1)
    };
    Wal::create(&*disk, &cfg, Lsn::ZERO).unwrap();
    let mut count = 0;
    for opening in 1..4 {
        let mut reader = LogReader::open(Arc::clone(&disk), &cfg.dir, ID, Lsn::ZERO).unwrap();
        let mut found = 0;
        while let Some(record) = reader.next().unwrap() {
            assert_eq!(record.payload, payload(found, found as usize));
            found += 1;
        }
        assert_eq!(found, count);
        let cfg = WalConfig { opening, ..cfg.clone() };
        let wal = Wal::open(Arc::clone(&disk), cfg, reader.end().unwrap()).unwrap();
        for _ in 0..100 {
            let durability =
                [Durability::Sync, Durability::Buffered, Durability::Relaxed][count as usize % 3];
            let appended = append(&wal, 7, &payload(count, count as usize)).unwrap();
            wal.wait(appended.end, durability).unwrap();
            count += 1;
        }
        wal.close().unwrap();
    }
}

#[test]
fn what_is_out_of_bounds_is_refused_before_anything_happens() {
    let disk: Arc<dyn Disk> = SimDisk::new(1);
    for cfg in [
        WalConfig { segment_bytes: 4096, ..config(1) },
        WalConfig { segment_bytes: SEGMENT + 8, ..config(1) },
        WalConfig { buffer_bytes: 100, ..config(1) },
        WalConfig { syncs_in_flight: 3, ..config(1) },
        WalConfig { syncs_in_flight: 0, ..config(1) },
    ] {
        assert!(matches!(Wal::create(&*disk, &cfg, Lsn::ZERO), Err(WalError::Config { .. })));
    }
    let wal = create(&disk, config(1));
    let other_disk: Arc<dyn Disk> = SimDisk::new(2);
    let other = create(&other_disk, config(1));
    let max = wal.max_payload();
    let mut credit = wal.reserve(10 * max as u64, 10).unwrap();
    let mut called = false;
    let mut on_lsn = |_| called = true;
    let long = vec![0; max + 1];
    assert!(matches!(
        wal.append(&mut credit, 1, &[&long], &mut on_lsn),
        Err(WalError::RecordTooLarge { len, max: limit }) if len == max + 1 && limit == max
    ));
    assert!(matches!(other.append(&mut credit, 1, &[b"x"], &mut on_lsn), Err(WalError::Config { .. })));
    let mut small = wal.reserve(1, 1).unwrap();
    assert!(matches!(
        wal.append(&mut small, 1, &[b"123456789"], &mut on_lsn),
        Err(WalError::CreditTooSmall { needed: 56, left: 48 })
    ));
    assert!(!called);
    assert_eq!(wal.tail(), Lsn::ZERO);
    assert!(matches!(wal.wait(Lsn(8), Durability::Sync), Err(WalError::Config { .. })));
}

#[test]
fn levels_of_durability() {
    let disk = SimDisk::new(1);
    let shared: Arc<dyn Disk> = disk.clone();
    let wal = create(&shared, config(1));
    let written = append(&wal, 1, b"buffered").unwrap().end;
    wal.wait(written, Durability::Buffered).unwrap();
    assert_eq!((wal.written_lsn(), wal.durable_lsn()), (written, Lsn::ZERO));
    let relaxed = append(&wal, 1, b"relaxed").unwrap().end;
    wal.wait(relaxed, Durability::Relaxed).unwrap();
    assert_eq!((wal.written_lsn(), wal.durable_lsn()), (written, Lsn::ZERO));
    wal.step();
    assert_eq!((wal.written_lsn(), wal.durable_lsn()), (relaxed, relaxed));
    assert_eq!(wal.stats().syncs, 1);
    wal.step();
    assert_eq!(wal.sync().unwrap(), relaxed);
    assert_eq!(wal.stats().syncs, 1, "nothing was left to sync");
    let last = append(&wal, 1, b"relaxed too").unwrap().end;
    wal.wait(last, Durability::Relaxed).unwrap();
    wal.close().unwrap();
    let (records, _) =
        read(&(disk.fork_cut(bedstone_io::sim::CutMode::Drop, 1) as Arc<dyn Disk>), Lsn::ZERO).unwrap();
    assert_eq!(records.len(), 3);
}

#[test]
fn relaxed_commits_become_durable_by_themselves() {
    let disk: Arc<dyn Disk> = SimDisk::new(1);
    let cfg =
        WalConfig { background: Background::Threads, relaxed_delay: std::time::Duration::ZERO, ..config(1) };
    let wal = create(&disk, cfg);
    for number in 0..50 {
        let end = append(&wal, 1, &payload(number, 100)).unwrap().end;
        wal.wait(end, Durability::Relaxed).unwrap();
        // Ends only if the background does its work.
        while wal.durable_lsn() < end {
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_full_buffer_is_written_by_whoever_finds_it() {
    let disk: Arc<dyn Disk> = SimDisk::new(1);
    let wal = create(&disk, config(1));
    let bytes = vec![7; wal.max_payload()];
    let mut credit = wal.reserve(20 * bytes.len() as u64, 20).unwrap();
    let mut refused = 0;
    for _ in 0..20 {
        while wal.try_append(&mut credit, 1, &[&bytes], &mut |_| ()).unwrap().is_none() {
            refused += 1;
            wal.make_room().unwrap();
        }
    }
    assert!(refused >= 3);
    assert_eq!(wal.stats().buffer_full, refused);
    assert!(wal.written_lsn() > Lsn::ZERO && wal.durable_lsn() == Lsn::ZERO);
    wal.sync().unwrap();
    assert_eq!(read(&disk, Lsn::ZERO).unwrap().0.len(), 20);
}
