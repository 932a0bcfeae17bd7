use std::path::Path;
use std::sync::Arc;

use bedstone_io::Disk;
use bedstone_io::sim::SimDisk;

use super::{
    DIR, SEGMENT, append, commit, config, create, is_torn, payload, place, read, recover, segment_file,
};
use crate::{
    EndReason, EndState, LogReader, Lsn, SEGMENT_HEADER_BYTES, Wal, WalConfig, WalError, classify_end,
};

/// A log of several segments, every record durable before the next; their positions.
fn committed(count: u64, len: usize) -> (Arc<SimDisk>, Vec<(u64, u64)>) {
    let disk = SimDisk::new(3);
    let shared: Arc<dyn Disk> = disk.clone();
    let wal = create(&shared, config(1));
    let places = (0..count)
        .map(|number| {
            let appended = commit(&wal, &payload(number, len));
            (appended.lsn.0, appended.end.0)
        })
        .collect();
    (disk, places)
}

#[test]
fn a_bad_record_with_durable_ones_behind_it_is_damage() {
    let (disk, places) = committed(300, 900);
    let last = places.len() - 1;
    for (index, &(begin, end)) in places.iter().enumerate().step_by(7) {
        for lsn in [begin, begin + 5, begin + 9, begin + 39, begin + 40, end - 5] {
            let (file, offset) = place(lsn);
            disk.flip_bit(&file, offset, 5).unwrap();
            let shared: Arc<dyn Disk> = disk.clone();
            let (records, reader) = read(&shared, Lsn::ZERO).unwrap();
            assert_eq!(records.len(), index);
            let state = classify_end(&reader, Lsn::ZERO).unwrap();
            // The next record was appended when this one was durable and says so; the last one has no witness.
            match state {
                EndState::Damaged { file, offset, lsn, .. } => {
                    assert!(index < last);
                    assert_eq!(((file, offset), lsn), (place(begin), Lsn(begin)));
                }
                EndState::Torn => assert_eq!(index, last),
            }
            disk.flip_bit(&file, offset, 5).unwrap();
        }
    }
}

/// A record that reaches into the next segment may have been damaged there.
#[test]
fn damage_of_a_record_in_two_segments_names_both() {
    // The first header begins 8 bytes before the end of a segment; the second record has its header before that end.
    for first in [SEGMENT - 8, SEGMENT - 48] {
        let disk = SimDisk::new(3);
        let shared: Arc<dyn Disk> = disk.clone();
        let wal = create(&shared, config(1));
        for number in 0..63 {
            commit(&wal, &payload(number, 1024 - 40));
        }
        commit(&wal, &payload(63, (first - 63 * 1024) as usize - 40));
        let begin = commit(&wal, &payload(64, 900)).lsn;
        assert_eq!(begin, Lsn(first));
        commit(&wal, &payload(65, 900));
        let next = segment_file(SEGMENT);
        disk.flip_bit(&next, SEGMENT_HEADER_BYTES + 3, 5).unwrap();
        let (_, reader) = read(&shared, Lsn::ZERO).unwrap();
        let EndState::Damaged { file, lsn, why, .. } = classify_end(&reader, Lsn::ZERO).unwrap() else {
            panic!("a torn tail");
        };
        assert_eq!((file, lsn), (segment_file(0), begin));
        assert!(why.contains(&format!("reaches into {}", next.display())), "{why}");
    }
}

#[test]
fn a_record_that_reaches_into_a_segment_that_was_cut_names_that() {
    let disk = SimDisk::new(3);
    let shared: Arc<dyn Disk> = disk.clone();
    let wal = create(&shared, config(1));
    for number in 0..66 {
        commit(&wal, &payload(number, 1008 - 40));
    }
    let last = crossing(&shared);
    let next = segment_file(SEGMENT);
    disk.truncate_file(&next, SEGMENT_HEADER_BYTES).unwrap();
    let (_, reader) = read(&shared, Lsn::ZERO).unwrap();
    assert_eq!(reader.position(), last);
    match classify_end(&reader, Lsn::ZERO).unwrap() {
        EndState::Damaged { file, offset, .. } => assert_eq!((file, offset), (next, SEGMENT_HEADER_BYTES)),
        EndState::Torn => panic!("a torn tail"),
    }
}

/// Where the record begins that reaches into the second segment.
fn crossing(disk: &Arc<dyn Disk>) -> Lsn {
    let (records, _) = read(disk, Lsn::ZERO).unwrap();
    let found = records.iter().find(|record| record.lsn.0 < SEGMENT && record.end.0 > SEGMENT);
    found.expect("records do not end where segments do").lsn
}

#[test]
fn wiped_sectors_and_swapped_stretches_are_damage() {
    let (disk, places) = committed(300, 900);
    let whole = disk.snapshot();
    for (from, len) in [(4096, 512), (4096, 4096), (8192, 40_000), (SEGMENT - 512, 512)] {
        disk.restore(&whole);
        let (file, offset) = place(from);
        disk.overwrite(&file, offset, &vec![0; len]).unwrap();
        let shared: Arc<dyn Disk> = disk.reopen();
        let (records, reader) = read(&shared, Lsn::ZERO).unwrap();
        let first_bad = places.iter().position(|&(_, end)| end > from).unwrap();
        assert_eq!(records.len(), first_bad);
        let error = classify_end(&reader, Lsn::ZERO).unwrap().into_result().unwrap_err();
        let (file, offset) = place(places[first_bad].0);
        let text = error.to_string();
        assert!(
            text.contains(file.to_str().unwrap()) && text.contains(&format!("offset {offset}")),
            "{text} should name {} and {offset}",
            file.display()
        );
        assert!(error.is_damage());
    }
    disk.restore(&whole);
    disk.swap(&segment_file(0), SEGMENT_HEADER_BYTES + 8192, SEGMENT_HEADER_BYTES + 16384, 4096).unwrap();
    let shared: Arc<dyn Disk> = disk.reopen();
    assert!(!is_torn(&read(&shared, Lsn::ZERO).unwrap().1, Lsn::ZERO));
}

#[test]
fn records_that_were_never_durable_prove_nothing() {
    let disk = SimDisk::new(3);
    let shared: Arc<dyn Disk> = disk.clone();
    let wal = create(&shared, config(1));
    let first = commit(&wal, b"durable");
    let second = append(&wal, 1, b"written together").unwrap();
    append(&wal, 1, b"with this").unwrap();
    wal.sync().unwrap();
    let (file, offset) = place(second.lsn.0);
    disk.flip_bit(&file, offset + 8, 0).unwrap();
    let (records, reader) = read(&shared, Lsn::ZERO).unwrap();
    assert_eq!(records.len(), 1);
    assert!(is_torn(&reader, first.end));
    assert!(!is_torn(&reader, second.end));
}

#[test]
fn missing_cut_and_foreign_segments() {
    let (disk, places) = committed(300, 900);
    let whole = disk.snapshot();
    let total = places.len();
    let fresh = || -> Arc<dyn Disk> { disk.reopen() };

    disk.remove_file(&segment_file(0)).unwrap();
    let error = read(&fresh(), Lsn::ZERO).unwrap_err();
    assert!(matches!(error, WalError::MissingSegment { lsn: Lsn(0), .. }), "{error}");

    disk.restore(&whole);
    disk.remove_file(&segment_file(2 * SEGMENT)).unwrap();
    let (records, reader) = read(&fresh(), Lsn::ZERO).unwrap();
    assert!(records.len() < total);
    assert_eq!(reader.end().unwrap().reason, EndReason::MissingSegment);
    assert!(!is_torn(&reader, Lsn::ZERO));
    assert!(matches!(read(&fresh(), Lsn(2 * SEGMENT)), Err(WalError::MissingSegment { .. })));

    disk.restore(&whole);
    disk.flip_bit(&segment_file(SEGMENT), 33, 1).unwrap();
    let (_, reader) = read(&fresh(), Lsn::ZERO).unwrap();
    assert_eq!(reader.end().unwrap().reason, EndReason::BadSegmentHeader);
    assert!(!is_torn(&reader, Lsn::ZERO));
    // The file that is damaged is named, not the one before it where reading stopped.
    match classify_end(&reader, Lsn::ZERO).unwrap() {
        EndState::Damaged { file, offset: 0, .. } => assert_eq!(file, segment_file(SEGMENT)),
        other => panic!("{other:?}"),
    }
    assert!(matches!(read(&fresh(), Lsn(SEGMENT)), Err(WalError::BadSegmentHeader { .. })));

    // Bits of the header that no field claims count as well.
    disk.restore(&whole);
    disk.flip_bit(&segment_file(0), 4000, 1).unwrap();
    assert!(matches!(read(&fresh(), Lsn::ZERO), Err(WalError::BadSegmentHeader { .. })));

    for len in [0, 100, 4096, 4097, 20_000] {
        disk.restore(&whole);
        disk.truncate_file(&segment_file(SEGMENT), len).unwrap();
        let (records, reader) = read(&fresh(), Lsn::ZERO).unwrap();
        assert!(records.len() < total);
        assert!(!is_torn(&reader, Lsn::ZERO), "cut to {len} bytes");
    }
    // Cut behind the end of the log: nothing is missing, but it is no doing of ours.
    disk.restore(&whole);
    let tail = places[total - 1].1;
    let (file, offset) = place(tail);
    disk.truncate_file(&file, offset.next_multiple_of(4096)).unwrap();
    let (records, reader) = read(&fresh(), Lsn::ZERO).unwrap();
    assert_eq!(records.len(), total);
    assert!(!is_torn(&reader, Lsn::ZERO));

    disk.restore(&whole);
    let error = LogReader::open(fresh(), Path::new(DIR), [9; 16], Lsn::ZERO).unwrap_err();
    assert!(matches!(error, WalError::WrongDatabase { .. }), "{error}");
    assert!(error.to_string().contains("0909") && error.to_string().contains("30313233"));

    // A copy of a segment under another name claims the same bytes.
    let copy = disk.copy_out(&segment_file(0)).unwrap();
    disk.copy_in(&segment_file(7), &copy).unwrap();
    assert!(matches!(read(&fresh(), Lsn::ZERO), Err(WalError::BadSegmentHeader { .. })));
}

#[test]
fn a_name_does_not_matter() {
    let (disk, places) = committed(300, 900);
    let shared: Arc<dyn Disk> = disk.clone();
    shared.rename(&segment_file(SEGMENT), &Path::new(DIR).join("anything.log")).unwrap();
    assert_eq!(read(&shared, Lsn::ZERO).unwrap().0.len(), places.len());
}

#[test]
fn a_damaged_log_is_salvaged_up_to_the_damage() {
    let (disk, places) = committed(300, 900);
    let (begin, _) = places[150];
    let (file, offset) = place(begin + 50);
    disk.flip_bit(&file, offset, 0).unwrap();
    let shared: Arc<dyn Disk> = disk.clone();
    assert!(matches!(recover(&shared, config(2), Lsn::ZERO), Err(WalError::Damaged { .. })));

    // Whoever decides to go on from there is not told of the same damage again.
    let (_, reader) = read(&shared, Lsn::ZERO).unwrap();
    let wal = Wal::open(Arc::clone(&shared), config(2), reader.end().unwrap()).unwrap();
    let replay = wal.tail();
    drop(wal);
    for from in [Lsn::ZERO, replay] {
        let (_, reader) = read(&shared, from).unwrap();
        assert_eq!(reader.position(), replay);
        assert!(is_torn(&reader, replay));
    }
    let (records, wal) = recover(&shared, config(3), Lsn::ZERO).unwrap();
    assert_eq!(records.len(), 150);
    commit(&wal, &payload(1, 900));
    assert_eq!(read(&shared, Lsn::ZERO).unwrap().0.len(), 151);

    // So is one whose last segment was cut.
    let tail = wal.tail();
    drop(wal);
    let (file, offset) = place(tail.0);
    disk.truncate_file(&file, offset.next_multiple_of(4096)).unwrap();
    let (_, reader) = read(&shared, Lsn::ZERO).unwrap();
    let wal = Wal::open(Arc::clone(&shared), config(4), reader.end().unwrap()).unwrap();
    commit(&wal, &payload(2, 900));
    drop(wal);
    let (records, _) = recover(&shared, WalConfig { opening: 5, ..config(5) }, Lsn::ZERO).unwrap();
    assert_eq!(records.len(), 152);
}

/// The newest segment is in nobody's way while the log ends before it. Once the log has used up the one before, it is
/// missed, however the last record before it fits.
#[test]
fn a_newest_segment_that_is_gone_is_missed() {
    for len in (900..1000).step_by(8) {
        for commits in [60, 75, 140] {
            let (disk, places) = committed(commits, len);
            let (_, tail) = places[places.len() - 1];
            let newest = segment_file(tail / SEGMENT * SEGMENT);
            disk.remove_file(&newest).unwrap();
            let shared: Arc<dyn Disk> = disk.clone();
            let outcome = read(&shared, Lsn::ZERO)
                .and_then(|(_, reader)| classify_end(&reader, Lsn::ZERO))
                .and_then(EndState::into_result);
            assert!(outcome.unwrap_err().is_damage(), "{commits} records of {len} bytes");
        }
    }
}
