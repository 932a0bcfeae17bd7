use std::path::Path;
use std::sync::Arc;

use bedstone_io::sim::{Fault, OpKind, Repeat, SimDisk};
use bedstone_io::{Disk, Op};

use super::{DIR, SEGMENT, append, commit, config, create, payload, read, recover, segment_file};
use crate::{Background, EndReason, EndState, Lsn, WalConfig, WalError, classify_end};

const FILE: u64 = SEGMENT + 4096;

#[test]
fn a_full_disk_is_met_before_anything_happens() {
    let disk = SimDisk::new(1);
    let shared: Arc<dyn Disk> = disk.clone();
    let wal = create(&shared, config(1));
    disk.set_capacity(Some(2 * FILE + 8192));
    let mut count = 0;
    let error = loop {
        match wal.reserve(900, 1) {
            Ok(mut credit) => {
                wal.append(&mut credit, 1, &[&payload(count, 900)], &mut |_| ()).unwrap();
                count += 1;
            }
            Err(error) => break error,
        }
    };
    assert!(error.is_no_space(), "{error}");
    assert!(error.to_string().contains(DIR));
    assert!(count * 944 > 2 * SEGMENT - SEGMENT / 8 - 2000, "both segments were used, but for the reserve");
    wal.sync().unwrap();
    assert!(wal.failed().is_none());
    assert_eq!(disk.used(), 2 * FILE, "nothing is left of the segment that found no room");
    // What frees space still goes on, up to the last segment's end.
    let before = count;
    while let Ok(mut credit) = wal.reserve_urgent(900, 1) {
        wal.append(&mut credit, 1, &[&payload(count, 900)], &mut |_| ()).unwrap();
        count += 1;
    }
    assert!((7..=SEGMENT / 8 / 944).contains(&(count - before)), "{} with the reserve", count - before);
    wal.sync().unwrap();
    assert!(wal.reserve(0, 1).unwrap_err().is_no_space(), "nothing is left for others");
    assert_eq!(disk.used(), 2 * FILE);

    disk.set_capacity(Some(3 * FILE));
    drop(wal.reserve(100, 1).unwrap());
    disk.set_capacity(Some(3 * FILE + 8192));
    // Smaller ones fit without touching the medium.
    let free = wal.stats().free_bytes;
    drop(wal.reserve(free - 47, 1).unwrap());
    assert_eq!(wal.stats().free_bytes, free, "credits come back");
    for _ in 0..3 {
        assert!(wal.reserve(free, 1).unwrap_err().is_no_space());
        wal.step();
    }

    // A request for several segments gives back those it got in vain.
    disk.set_capacity(Some(5 * FILE));
    assert!(wal.reserve(5 * SEGMENT, 1).unwrap_err().is_no_space());
    assert_eq!((disk.used(), wal.stats().free_bytes), (3 * FILE, free));
    let names = shared.list(Path::new(DIR)).unwrap();
    assert_eq!(names.len(), 3, "{names:?}");

    disk.set_capacity(None);
    for number in count..count + 100 {
        commit(&wal, &payload(number, 900));
    }
    let (records, _) = read(&shared, Lsn::ZERO).unwrap();
    assert_eq!(records.len() as u64, count + 100);
    for (number, record) in (0..).zip(&records) {
        assert_eq!(record.payload, payload(number, 900));
    }
}

#[test]
fn recycling_makes_room_on_a_full_disk() {
    let disk = SimDisk::new(1);
    let shared: Arc<dyn Disk> = disk.clone();
    let wal = create(&shared, config(1));
    disk.set_capacity(Some(2 * FILE));
    let mut last = Lsn::ZERO;
    for number in 0..1000 {
        if wal.reserve(1000, 1).is_err_and(|error| error.is_no_space()) {
            wal.recycle_below(last).unwrap();
        }
        last = commit(&wal, &payload(number, 1000)).lsn;
    }
    let stats = wal.stats();
    assert!(stats.segments_recycled >= 12 && stats.segments_created == 0, "{stats:?}");
    drop(wal);
    let (records, _) = recover(&shared, config(2), last).unwrap();
    assert_eq!(records.len(), 1);
}

#[test]
fn a_steady_log_makes_no_new_segments() {
    let disk: Arc<dyn Disk> = SimDisk::new(1);
    let wal = create(&disk, config(1));
    let mut number = 0;
    let mut created = Vec::new();
    for round in 0..20 {
        for _ in 0..200 {
            commit(&wal, &payload(number, 1000));
            number += 1;
            wal.step();
        }
        let before = wal.tail();
        wal.recycle_below(before).unwrap();
        created.push(wal.stats().segments_created);
        let (records, reader) = read(&disk, before).unwrap();
        assert!(records.is_empty() && reader.position() == before, "round {round}: old records read as new");
        let names = disk.list(Path::new(DIR)).unwrap();
        assert!(names.len() <= 6, "{names:?}");
    }
    assert_eq!(created[5], created[19], "{created:?}");
    let stats = wal.stats();
    assert!(stats.segments_recycled > 40 && stats.segments <= 3, "{stats:?}");
    // The positions and the rest of the row of segments stay right over a reopening.
    let from = wal.tail();
    commit(&wal, b"one more");
    drop(wal);
    let (records, wal) = recover(&disk, config(2), from).unwrap();
    assert_eq!(records.len(), 1);
    // One checkpoint later a burst's segments are given back.
    for _ in 0..3 {
        for number in 0..64 {
            commit(&wal, &payload(number, 1000));
        }
        wal.recycle_below(wal.tail()).unwrap();
    }
    assert!(disk.list(Path::new(DIR)).unwrap().len() <= 4);
}

#[test]
fn old_records_of_a_recycled_segment_never_read_as_new() {
    // Records of a length that divides the page and the segment: old ones lie exactly where new ones would.
    let disk: Arc<dyn Disk> = SimDisk::new(1);
    let wal = create(&disk, config(1));
    let bytes = payload(1, 1024 - 40);
    let mut wrong_lsn = 0;
    for number in 0..64 * 8 {
        let from = wal.tail();
        commit(&wal, &bytes);
        if number % 64 == 63 {
            wal.recycle_below(from).unwrap();
        }
        wal.step();
        let (records, reader) = read(&disk, from).unwrap();
        assert_eq!((records.len(), reader.position()), (1, wal.tail()));
        if let EndReason::WrongLsn { found } = reader.end().unwrap().reason {
            assert!(found < from);
            wrong_lsn += 1;
        }
    }
    assert!(wrong_lsn > 64, "the case was met {wrong_lsn} times");
}

#[test]
fn a_segment_is_durable_with_its_name_before_it_is_written_to() {
    let trace = bedstone_io::sim::TraceDisk::new(SimDisk::new(1));
    let disk: Arc<dyn Disk> = trace.clone();
    let wal = create(&disk, config(1));
    for number in 0..300 {
        commit(&wal, &payload(number, 1000));
        if number % 100 == 99 {
            wal.recycle_below(wal.tail()).unwrap();
        }
    }
    assert!(wal.stats().segments_recycled > 1 && wal.stats().segments_created > 0);
    let events = trace.take_events();
    let mut named = 0;
    for (index, event) in events.iter().enumerate() {
        let Some(to) = event.to.as_ref().filter(|_| event.op == Op::Rename) else { continue };
        if to.extension().is_none_or(|extension| extension != "log") {
            continue;
        }
        named += 1;
        let synced = events[..index].iter().rev().find(|earlier| earlier.path == event.path).unwrap();
        assert_eq!((synced.op, synced.ok), (Op::Sync, true), "the last thing done to {:?}", event.path);
        let first = events[index..].iter().position(|later| later.op == Op::Write && later.path == *to);
        let dir_synced = events[index..].iter().position(|later| later.op == Op::SyncDir).unwrap();
        assert!(first.is_none_or(|first| first > dir_synced));
    }
    assert!(named >= 5);
}

#[test]
fn a_segment_that_cannot_be_made_does_not_fail_the_log_but_a_failed_sync_does() {
    for kind in [OpKind::Create, OpKind::Allocate, OpKind::Rename] {
        let disk = SimDisk::new(1);
        let shared: Arc<dyn Disk> = disk.clone();
        let wal = create(&shared, config(1));
        disk.fail_nth(kind, 1, Fault::Eio, Repeat::Once);
        assert!(matches!(wal.reserve(2 * SEGMENT, 1), Err(WalError::Io(_))));
        assert!(wal.failed().is_none());
        drop(wal.reserve(2 * SEGMENT, 1).unwrap());
        commit(&wal, b"x");
    }
    for kind in [OpKind::Sync, OpKind::SyncDir] {
        let disk = SimDisk::new(1);
        let shared: Arc<dyn Disk> = disk.clone();
        let wal = create(&shared, config(1));
        disk.fail_nth(kind, 1, Fault::Eio, Repeat::Once);
        assert!(wal.reserve(2 * SEGMENT, 1).unwrap_err().is_failed());
        assert!(append(&wal, 1, b"x").unwrap_err().is_failed());
        assert!(wal.failed().is_some());
    }
}

/// A segment that was to be recycled has its new header and could not be given its new name, nor removed, and so had the
/// next one that was tried: both said that they were the same segment, and the log was not opened any more.
#[test]
fn two_segments_that_could_not_be_renamed_do_not_stand_in_each_others_way() {
    for made_after_all in [false, true] {
        let disk = SimDisk::new(1);
        let shared: Arc<dyn Disk> = disk.clone();
        let wal = create(&shared, config(1));
        for number in 0..64 * 5 {
            commit(&wal, &payload(number, 984));
        }
        let from = commit(&wal, &payload(320, 984)).lsn;
        wal.recycle_below(from).unwrap();
        for kind in [OpKind::Rename, OpKind::Remove] {
            disk.fail_nth(kind, 1, Fault::Eio, Repeat::Forever);
        }
        for _ in 0..2 {
            assert!(matches!(wal.reserve(2 * SEGMENT, 1), Err(WalError::Io(_))));
        }
        disk.clear_faults();
        if made_after_all {
            (321..480).for_each(|number| assert!(commit(&wal, &payload(number, 984)).lsn > from));
        }
        drop(wal);
        // They need not be removed either.
        disk.fail_nth_on(".log", OpKind::Remove, 1, Fault::Eio, Repeat::Forever);
        let (records, wal) = recover(&shared, config(2), from).unwrap();
        disk.clear_faults();
        assert_eq!(records.len(), if made_after_all { 160 } else { 1 });
        (480..800).for_each(|number| assert!(commit(&wal, &payload(number, 984)).lsn > from));
        assert_eq!(read(&shared, from).unwrap().0.len(), records.len() + 320);
    }
}

/// The leftover of a recycling says that it is the segment whose own header is damaged: reading went on in its old records,
/// found none that follow, and took that for the end of the log.
#[test]
fn a_leftover_does_not_stand_in_for_a_damaged_segment() {
    let disk = SimDisk::new(1);
    let shared: Arc<dyn Disk> = disk.clone();
    let wal = create(&shared, config(1));
    for number in 0..64 * 4 {
        commit(&wal, &payload(number, 984));
    }
    let from = commit(&wal, &payload(256, 984)).lsn;
    wal.recycle_below(from).unwrap();
    for kind in [OpKind::Rename, OpKind::Remove] {
        disk.fail_nth(kind, 1, Fault::Eio, Repeat::Forever);
    }
    let names = disk.files();
    let claimed =
        (1..).map(|i| i * SEGMENT).find(|start| *start > from.0 && !names.contains(&segment_file(*start)));
    let claimed = claimed.unwrap();
    assert!(matches!(wal.reserve(2 * SEGMENT, 1), Err(WalError::Io(_))));
    disk.clear_faults();
    (257..400).for_each(|number| assert!(commit(&wal, &payload(number, 984)).lsn > from));
    drop(wal);
    assert_eq!(read(&shared, from).unwrap().0.len(), 400 - 256);
    disk.flip_bit(&segment_file(claimed), 40, 1).unwrap();
    let (_, reader) = read(&shared, from).unwrap();
    match classify_end(&reader, Lsn::ZERO).unwrap() {
        EndState::Damaged { file, .. } => assert_eq!(file, segment_file(claimed)),
        EndState::Torn => panic!("what is behind {} is lost without an error", reader.position()),
    }
}

#[test]
fn many_threads_share_the_space() {
    let disk = SimDisk::new(1);
    let shared: Arc<dyn Disk> = disk.clone();
    let wal = create(&shared, WalConfig { background: Background::Threads, ..config(1) });
    disk.set_capacity(Some(6 * FILE));
    let refused = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (wal, refused) = (&wal, &refused);
            scope.spawn(move || {
                for number in 0..60 {
                    match append(wal, thread, &payload(number, 1000)) {
                        Ok(appended) => wal.wait(appended.end, crate::Durability::Buffered).unwrap(),
                        Err(error) => {
                            assert!(error.is_no_space(), "{error}");
                            refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let refused = refused.into_inner();
    assert!(refused > 50, "480 records of a kilobyte do not fit: {refused}");
    wal.sync().unwrap();
    let stats = wal.stats();
    let prepared: u64 = wal.segments().iter().map(|segment| segment.bytes).sum();
    assert_eq!(stats.free_bytes, prepared - SEGMENT / 8 - stats.tail.0, "every credit came back");
    assert_eq!(read(&shared, Lsn::ZERO).unwrap().0.len() as u64, 480 - refused);
}
