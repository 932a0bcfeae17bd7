//! What an opening leaves behind for the next one.

use std::path::Path;
use std::sync::Arc;

use bedstone_io::sim::{CutMode, Fault, OpKind, Repeat, SimDisk};
use bedstone_io::{Disk, OpenMode};

use super::cached::CachedDisk;
use super::{
    DIR, SEGMENT, append, commit, config, create, is_torn, payload, place, read, recover, segment_file,
};
use crate::{Durability, EndReason, Lsn, Wal, WalConfig, WalError, record_bytes};

#[test]
fn records_of_a_dead_timeline_never_continue_a_new_one() {
    // Three records written together; the first is lost, the others lie behind the hole.
    let disk = SimDisk::new(5);
    let shared: Arc<dyn Disk> = disk.clone();
    let wal = create(&shared, config(1));
    commit(&wal, &payload(0, 100));
    let lost = append(&wal, 1, &payload(1, 100)).unwrap();
    append(&wal, 1, &payload(2, 100)).unwrap();
    // And one far behind, in the next segment.
    while wal.tail().0 < SEGMENT {
        append(&wal, 1, &payload(3, 1000)).unwrap();
    }
    wal.sync().unwrap();
    drop(wal);
    let (file, offset) = place(lost.lsn.0 + 41);
    disk.flip_bit(&file, offset, 0).unwrap();

    // The new opening writes a record of the same length into the hole: what follows must not come back to life,
    // wherever the next reader begins.
    let (records, wal) = recover(&shared, config(2), Lsn::ZERO).unwrap();
    assert_eq!((records.len(), wal.tail()), (1, lost.lsn));
    let new = commit(&wal, &payload(4, 100));
    assert_eq!(new.end, lost.end);
    drop(wal);
    for from in [Lsn::ZERO, new.lsn, new.end] {
        let (records, reader) = read(&shared, from).unwrap();
        assert_eq!(reader.position(), new.end, "read from {from}: {records:?}");
        assert!(is_torn(&reader, new.end));
    }
    // Nor in the segments behind, once the log grows into them.
    let (_, wal) = recover(&shared, config(3), new.end).unwrap();
    while wal.tail().0 + record_bytes(500) <= SEGMENT {
        commit(&wal, &payload(5, 500));
    }
    let at = wal.tail();
    drop(wal);
    let (_, reader) = read(&shared, at).unwrap();
    assert_eq!(reader.position(), at);
}

#[test]
fn dead_records_at_the_very_places_of_new_ones_stay_dead() {
    // Records of a length that divides the page and the segment, far beyond the hole and into the next segment.
    let disk = SimDisk::new(5);
    let shared: Arc<dyn Disk> = disk.clone();
    let wal = create(&shared, config(1));
    let bytes = payload(1, 1024 - 40);
    for _ in 0..120 {
        append(&wal, 1, &bytes).unwrap();
    }
    wal.sync().unwrap();
    drop(wal);
    let (file, offset) = place(5 * 1024 + 50);
    disk.flip_bit(&file, offset, 0).unwrap();
    let (_, wal) = recover(&shared, config(2), Lsn::ZERO).unwrap();
    assert_eq!(wal.tail(), Lsn(5 * 1024));
    for _ in 5..110 {
        let tail = commit(&wal, &bytes).end;
        let (records, reader) = read(&shared, tail).unwrap();
        assert_eq!((records.len(), reader.position()), (0, tail));
        wal.step();
    }
    assert!(wal.stats().segments_recycled > 0, "the next segment was used again");
}

#[test]
fn an_older_opening_ends_the_log() {
    let disk = SimDisk::new(5);
    let shared: Arc<dyn Disk> = disk.clone();
    let wal = create(&shared, config(1));
    commit(&wal, b"0");
    let fork = disk.fork(1);
    commit(&wal, b"1");
    let old = commit(&wal, b"2");
    let (file, offset) = place(old.lsn.0);
    let bytes = disk.copy_out(&file).unwrap();
    let record = &bytes[offset as usize..][..old.end.since(old.lsn) as usize];

    let forked: Arc<dyn Disk> = fork.clone();
    let (_, wal) = recover(&forked, config(2), Lsn::ZERO).unwrap();
    assert_eq!(commit(&wal, b"x").end, old.lsn);
    fork.overwrite(&file, offset, record).unwrap();
    let (records, reader) = read(&forked, Lsn::ZERO).unwrap();
    assert_eq!(records.len(), 2);
    assert_eq!(reader.end().unwrap().reason, EndReason::OlderOpening { found: 1, newest: 2 });
    assert!(is_torn(&reader, Lsn::ZERO));
}

#[test]
fn where_reading_goes_through_the_page_cache_everything_read_is_written_again() {
    let disk = SimDisk::new(5);
    let shared: Arc<dyn Disk> = disk.clone();
    let wal = create(&shared, config(1));
    for number in 0..100 {
        commit(&wal, &payload(number, 900));
    }
    drop(wal.reserve(200_000, 200).unwrap());
    // Lost, and nobody can tell: the page cache shows it.
    disk.fail_nth(OpKind::Sync, 1, Fault::Eio, Repeat::Once);
    for number in 100..200 {
        append(&wal, 1, &payload(number, 900)).unwrap();
    }
    assert!(wal.sync().is_err());
    drop(wal);
    let cached: Arc<dyn Disk> = Arc::new(CachedDisk(disk.reopen()));
    let (records, wal) = recover(&cached, config(2), Lsn::ZERO).unwrap();
    assert_eq!(records.len(), 200);
    drop(wal);
    let after: Arc<dyn Disk> = disk.fork_cut(CutMode::Drop, 1);
    assert_eq!(read(&after, Lsn::ZERO).unwrap().0.len(), 200);
}

#[test]
fn what_recovery_read_from_the_page_cache_is_durable_once_it_is_open() {
    // The process died with everything in the page cache.
    let disk = SimDisk::new(5);
    let shared: Arc<dyn Disk> = disk.clone();
    let wal = create(&shared, config(1));
    for number in 0..200 {
        let end = append(&wal, 1, &payload(number, 900)).unwrap().end;
        wal.wait(end, Durability::Buffered).unwrap();
    }
    assert_eq!(wal.durable_lsn(), Lsn::ZERO);
    drop(wal);
    let next: Arc<dyn Disk> = disk.reopen();
    let (records, wal) = recover(&next, config(2), Lsn::ZERO).unwrap();
    assert_eq!(records.len(), 200);
    drop(wal);
    let after: Arc<dyn Disk> = disk.fork_cut(CutMode::Drop, 1);
    assert_eq!(read(&after, Lsn::ZERO).unwrap().0.len(), 200);
}

#[test]
fn after_a_failed_sync_and_a_reopening_in_the_same_boot_nothing_acknowledged_is_lost() {
    for seed in 0..30 {
        let disk = SimDisk::new(seed);
        let shared: Arc<dyn Disk> = disk.clone();
        let wal = create(&shared, config(1));
        for number in 0..5 {
            commit(&wal, &payload(number, 300));
        }
        // The kernel takes these for clean, though they never reached the medium.
        disk.fail_nth(
            OpKind::Sync,
            1,
            if seed % 2 == 0 { Fault::Eio } else { Fault::PartialSync },
            Repeat::Once,
        );
        for number in 5..8 {
            append(&wal, 1, &payload(number, 300)).unwrap();
        }
        assert!(wal.sync().unwrap_err().is_failed());
        drop(wal);

        let next: Arc<dyn Disk> = disk.reopen();
        let (records, wal) = recover(&next, config(2), Lsn::ZERO).unwrap();
        assert!((5..=8).contains(&records.len()), "seed {seed}");
        for number in 100..104 {
            commit(&wal, &payload(number, 300));
        }
        drop(wal);
        for mode in [CutMode::Drop, CutMode::Keep, CutMode::Random] {
            let after: Arc<dyn Disk> = disk.fork_cut(mode, seed);
            let (found, reader) = read(&after, Lsn::ZERO).unwrap();
            assert_eq!(found.len(), records.len() + 4, "seed {seed}, {mode:?}");
            assert!(is_torn(&reader, Lsn::ZERO));
        }
    }
}

#[test]
fn an_opening_number_must_grow() {
    let disk: Arc<dyn Disk> = SimDisk::new(5);
    let wal = create(&disk, config(4));
    commit(&wal, b"x");
    drop(wal);
    for opening in [0, 3, 4] {
        assert!(matches!(
            recover(&disk, config(opening), Lsn::ZERO),
            Err(WalError::OpeningNotNewer { found: 4, .. })
        ));
    }
    recover(&disk, config(5), Lsn::ZERO).unwrap();
}

#[test]
fn creation_removes_its_own_leftovers_and_nothing_else() {
    let disk: Arc<dyn Disk> = SimDisk::new(5);
    Wal::create(&*disk, &WalConfig { database_id: [1; 16], ..config(1) }, Lsn(4096)).unwrap();
    let file = disk.open_log(&Path::new(DIR).join("00000000000000000000.new"), OpenMode::CreateNew).unwrap();
    file.write_at(b"unfinished", 0).unwrap();
    let wal = create(&disk, config(1));
    let mut names = disk.list(Path::new(DIR)).unwrap();
    names.sort();
    assert_eq!(names, [format!("{:020}.log", 0), format!("{SEGMENT:020}.log")]);
    commit(&wal, b"x");
    drop(wal);
    let error = Wal::create(&*disk, &config(2), Lsn::ZERO).unwrap_err();
    assert!(matches!(error, WalError::AlreadyExists { .. }), "{error}");
    assert_eq!(read(&disk, Lsn::ZERO).unwrap().0.len(), 1);
}

#[test]
fn creation_cut_at_every_operation_leaves_no_log_or_an_empty_one() {
    for seed in 0..4 {
        for mode in [CutMode::Keep, CutMode::Drop, CutMode::Random] {
            for n in 1.. {
                let disk = SimDisk::new(seed);
                disk.set_cut_after(n, mode);
                let outcome = Wal::create(&*disk, &config(1), Lsn::ZERO)
                    .and_then(|()| Ok(disk.sync_dir(Path::new("/"))?));
                let done = disk.is_powered();
                disk.cancel_cut();
                if done {
                    outcome.unwrap();
                    break;
                }
                let next: Arc<dyn Disk> = disk.reopen();
                let found = match next.list(Path::new(DIR)) {
                    Ok(_) => recover(&next, config(1), Lsn::ZERO).map(|(records, _)| records.len()),
                    Err(error) => Err(error.into()),
                };
                match found {
                    Ok(records) => assert_eq!(records, 0),
                    Err(WalError::MissingSegment { .. } | WalError::Io(_)) => {
                        let wal = create(&next, config(1));
                        commit(&wal, b"x");
                    }
                    Err(error) => panic!("seed {seed}, {mode:?}, cut at {n}: {error}"),
                }
            }
        }
    }
}

#[test]
fn segments_that_were_in_the_making_are_cleared_away() {
    let disk = SimDisk::new(5);
    let shared: Arc<dyn Disk> = disk.clone();
    let wal = create(&shared, config(1));
    commit(&wal, b"x");
    drop(wal);
    assert!(shared.exists(&segment_file(SEGMENT)).unwrap());
    let unfinished = Path::new(DIR).join(format!("{:020}.new", 2 * SEGMENT));
    shared.open_log(&unfinished, OpenMode::CreateNew).unwrap().write_at(&[1; 5000], 0).unwrap();
    let (_, wal) = recover(&shared, config(2), Lsn::ZERO).unwrap();
    let mut names = shared.list(Path::new(DIR)).unwrap();
    names.sort();
    assert_eq!(names, [format!("{:020}.log", 0), format!("{SEGMENT:020}.log")]);
    assert_eq!((wal.stats().segments_recycled, wal.stats().segments_created), (1, 0));
    for number in 0..100 {
        commit(&wal, &payload(number, 1000));
    }
    drop(wal);
    assert_eq!(recover(&shared, config(3), Lsn::ZERO).unwrap().0.len(), 101);
}

/// A log that ends in or next to the last bytes of a segment, with a torn record there or none: an opening that is
/// cut off anywhere leaves what the next one takes for that same log.
#[test]
fn openings_at_the_end_of_a_segment_may_be_cut_off() {
    for left in (0..120).step_by(8) {
        for torn in [false, true] {
            let disk = SimDisk::new(left);
            let shared: Arc<dyn Disk> = disk.clone();
            let wal = create(&shared, config(1));
            while wal.tail().0 < 7 * (SEGMENT / 8) - 8192 {
                commit(&wal, &payload(wal.tail().0, 900));
            }
            let rest = SEGMENT - left - wal.tail().0 - record_bytes(0);
            let (half, other) = (rest / 16 * 8, rest - rest / 16 * 8 - record_bytes(0));
            commit(&wal, &payload(1, half as usize));
            let end = commit(&wal, &payload(2, other as usize)).end;
            assert_eq!(end.0, SEGMENT - left);
            let records = read(&shared, Lsn::ZERO).unwrap().0;
            if torn {
                let lost = append(&wal, 1, &payload(3, 500)).unwrap();
                append(&wal, 1, &payload(4, 3000)).unwrap();
                wal.sync().unwrap();
                let (file, offset) = place(lost.end.0 - 9);
                disk.flip_bit(&file, offset, 1).unwrap();
            }
            drop(wal);
            for n in 1.. {
                let mut fork = disk.fork(n);
                fork.set_cut_after(n, CutMode::Random);
                let cut: Arc<dyn Disk> = fork.clone();
                let outcome = recover(&cut, config(2), Lsn::ZERO).map(drop);
                let done = fork.is_powered();
                fork.cancel_cut();
                fork.power_cut(CutMode::Random);
                fork = fork.reopen();
                let next: Arc<dyn Disk> = fork.clone();
                let (found, wal) = recover(&next, config(3), Lsn::ZERO)
                    .unwrap_or_else(|error| panic!("{left} bytes left, torn: {torn}, cut at {n}: {error}"));
                assert_eq!(found, records, "{left} bytes left, torn: {torn}, cut at {n}");
                commit(&wal, b"goes on");
                drop(wal);
                let (found, _) = recover(&next, config(4), Lsn::ZERO).unwrap();
                assert_eq!(found.len(), records.len() + 1);
                if done {
                    outcome.unwrap();
                    break;
                }
            }
        }
    }
}
