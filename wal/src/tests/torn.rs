use std::sync::Arc;

use bedstone_io::Disk;
use bedstone_io::sim::SimDisk;

use super::{SEGMENT, commit, config, create, is_torn, payload, place, read, recover};
use crate::{EndReason, Lsn};

/// A log whose last record lies at `at`, with as many bytes of payload.
fn log_with_last(at: u64, len: usize) -> (Arc<SimDisk>, u64, u64, usize) {
    let disk = SimDisk::new(7);
    let shared: Arc<dyn Disk> = disk.clone();
    let wal = create(&shared, config(1));
    let mut count = 0;
    while wal.tail().0 < at {
        let left = (at - wal.tail().0) as usize;
        let step = if left > 4096 { 2000 } else { left - 40 };
        commit(&wal, &payload(count, step));
        count += 1;
    }
    assert_eq!(wal.tail(), Lsn(at));
    let last = commit(&wal, &payload(999, len));
    wal.close().unwrap();
    (disk, last.lsn.0, last.end.0, count as usize)
}

/// Where last records begin: within a segment, and so that header or payload lie across two.
const BEGINNINGS: [u64; 4] = [800, SEGMENT - 8, SEGMENT - 40, SEGMENT - 64];

#[test]
fn every_cut_of_the_last_record_ends_the_log_before_it() {
    for at in BEGINNINGS {
        let (disk, begin, end, count) = log_with_last(at, 101);
        let whole = disk.snapshot();
        for cut in begin..end {
            disk.restore(&whole);
            for lsn in cut..end {
                let (file, offset) = place(lsn);
                disk.overwrite(&file, offset, &[0]).unwrap();
            }
            let shared: Arc<dyn Disk> = disk.reopen();
            let (records, reader) = read(&shared, Lsn::ZERO).unwrap();
            if cut >= begin + 40 + 101 {
                assert_eq!(records.len(), count + 1, "only padding was cut off at {cut}");
                continue;
            }
            assert_eq!((records.len(), reader.position()), (count, Lsn(begin)), "cut at {cut}");
            let (file, offset) = place(begin);
            let log_end = reader.end().unwrap();
            assert_eq!((&log_end.segment, log_end.offset), (&file, offset));
            assert!(is_torn(&reader, Lsn::ZERO) && is_torn(&reader, Lsn(begin)));
            assert!(!is_torn(&reader, Lsn(end)), "the superblock knows better");
        }
    }
}

#[test]
fn every_flipped_bit_of_the_last_record_ends_the_log_before_it() {
    for at in BEGINNINGS {
        let (disk, begin, end, count) = log_with_last(at, 13);
        for lsn in begin..end {
            let (file, offset) = place(lsn);
            for bit in 0..8 {
                disk.flip_bit(&file, offset, bit).unwrap();
                let shared: Arc<dyn Disk> = disk.clone();
                let (records, reader) = read(&shared, Lsn::ZERO).unwrap();
                assert_eq!((records.len(), reader.position()), (count, Lsn(begin)), "bit {bit} at {lsn}");
                let reason = &reader.end().unwrap().reason;
                match lsn - begin {
                    0..40 => assert!(matches!(reason, EndReason::BadChecksum { .. }), "{reason:?}"),
                    _ => assert!(matches!(reason, EndReason::BadPayloadChecksum { .. }), "{reason:?}"),
                }
                assert!(is_torn(&reader, Lsn::ZERO));
                disk.flip_bit(&file, offset, bit).unwrap();
            }
        }
    }
}

#[test]
fn the_log_goes_on_where_it_was_torn() {
    for at in BEGINNINGS {
        for cut in [1, 39, 41, 90] {
            let (disk, begin, _, count) = log_with_last(at, 200);
            let (file, offset) = place(begin + cut);
            disk.flip_bit(&file, offset, 3).unwrap();
            let shared: Arc<dyn Disk> = disk.clone();
            let (records, wal) = recover(&shared, config(2), Lsn::ZERO).unwrap();
            assert_eq!((records.len(), wal.tail()), (count, Lsn(begin)));
            for number in 0..200 {
                commit(&wal, &payload(number, 1000));
            }
            let (records, reader) = read(&shared, Lsn::ZERO).unwrap();
            assert_eq!((records.len(), reader.position()), (count + 200, wal.tail()));
        }
    }
}
