//! Bytes and lengths: what reads see, what syncs cover, what cuts leave.

use std::collections::BTreeSet;

use super::*;
use crate::error::IoError;
use crate::sim::{Fault, OpKind, Repeat};
use crate::traits::{ReadOp, WriteOp};

#[test]
fn a_write_is_seen_at_once_and_lost_at_a_cut_unless_synced() {
    let (disk, file) = with_log(1);
    file.write_at(b"durable", 0).unwrap();
    file.sync_data().unwrap();
    file.write_at(b"DUR", 0).unwrap();
    file.write_at(b"more", 7).unwrap();
    assert_eq!(read_log(&*file, 0, 100), b"DURablemore");
    assert_eq!(disk.copy_out_durable(path(FILE)).unwrap(), b"durable");
    assert_eq!(disk.unsynced(path(FILE)).unwrap(), 2);

    let kept = disk.fork_cut(CutMode::Keep, 0);
    assert_eq!(kept.copy_out(path(FILE)).unwrap(), b"DURablemore");
    let dropped = after(&disk, CutMode::Drop);
    assert_eq!(dropped.copy_out(path(FILE)).unwrap(), b"durable");
}

#[test]
fn a_direct_write_is_as_volatile_as_a_buffered_one() {
    let (disk, file) = with_direct(1);
    file.write_at(pages(1, 2).as_aligned(), 0).unwrap();
    file.sync_data().unwrap();
    file.write_at(pages(2, 1).as_aligned(), 4096).unwrap();
    assert_eq!(read_direct(&*file, 4096, 1)[..], [2; 4096]);
    let dropped = after(&disk, CutMode::Drop);
    assert_eq!(dropped.copy_out(path(FILE)).unwrap(), [1; 8192]);
}

#[test]
fn a_sync_covers_the_writes_of_all_handles() {
    let (disk, file) = with_direct(1);
    let log = open_log(&disk);
    log.write_at(b"buffered", 0).unwrap();
    file.write_at(pages(3, 1).as_aligned(), 4096).unwrap();
    log.sync_all().unwrap();
    let bytes = after(&disk, CutMode::Drop).copy_out(path(FILE)).unwrap();
    assert_eq!(bytes[..8], *b"buffered");
    assert_eq!(bytes[4096..], [3; 4096]);
}

#[test]
fn direct_reads_see_buffered_writes_and_the_other_way_round() {
    let (disk, direct) = with_direct(1);
    let log = open_log(&disk);
    log.write_at(&[5; 4096], 0).unwrap();
    assert_eq!(read_direct(&*direct, 0, 1)[..], [5; 4096]);
    direct.write_at(pages(6, 1).as_aligned(), 0).unwrap();
    assert_eq!(read_log(&*log, 0, 4096), [6; 4096]);
    log.write_at(b"x", 1).unwrap();
    direct.write_at(pages(7, 1).as_aligned(), 4096).unwrap();
    assert_eq!(read_direct(&*direct, 0, 1)[..3], *b"\x06x\x06");
}

#[test]
fn after_a_failed_sync_the_page_cache_lies_and_nothing_brings_the_bytes_back() {
    for (mode, fault) in [CutMode::Keep, CutMode::Drop, CutMode::Random].into_iter().zip([
        Fault::Eio,
        Fault::Enospc,
        Fault::Errno(libc::EDQUOT),
    ]) {
        let (disk, log) = with_log(2);
        log.write_at(&[1; 8192], 0).unwrap();
        log.sync_data().unwrap();
        log.write_at(&[2; 4096], 0).unwrap();
        disk.fail_nth(OpKind::Sync, 1, fault, Repeat::Once);
        assert_eq!(log.sync_data().unwrap_err().source.raw_os_error(), fault.errno());
        log.sync_data().unwrap();

        assert_eq!(read_log(&*log, 0, 1), [2]);
        let direct = open_direct(&disk);
        assert_eq!(read_direct(&*direct, 0, 1)[0], 1);
        // The same boot, another process: the cache still lies, until it is emptied.
        let disk = disk.reopen();
        assert_eq!(read_log(&*open_log(&disk), 0, 1), [2]);
        disk.drop_cache(path(FILE)).unwrap();
        assert_eq!(read_log(&*open_log(&disk), 0, 1), [1]);
        assert_eq!(after(&disk, mode).copy_out(path(FILE)).unwrap(), [1; 8192]);
    }
}

#[test]
fn what_a_failed_sync_lost_can_be_written_anew() {
    let (disk, log) = with_log(2);
    log.write_at(b"one", 0).unwrap();
    disk.fail_nth(OpKind::Sync, 1, Fault::Eio, Repeat::Once);
    log.sync_data().unwrap_err();
    log.write_at(b"one", 0).unwrap();
    log.sync_data().unwrap();
    assert_eq!(after(&disk, CutMode::Drop).copy_out(path(FILE)).unwrap(), b"one");
}

#[test]
fn lengths_and_bytes_survive_apart() {
    let mut seen = BTreeSet::new();
    for seed in 0..300 {
        let (disk, file) = with_direct(seed);
        file.allocate(4096).unwrap();
        file.sync_data().unwrap();
        file.write_at(pages(9, 1).as_aligned(), 4096).unwrap();
        let disk = after(&disk, CutMode::Random);
        let bytes = disk.copy_out(path(FILE)).unwrap();
        assert!(bytes.len() == 4096 || bytes.len() == 8192, "seed {seed}");
        let nines = bytes.iter().filter(|byte| **byte == 9).count();
        assert_eq!(nines % 512, 0, "seed {seed}");
        seen.insert((bytes.len(), nines.min(4096) / 4095, nines > 0));
    }
    // Neither; the length alone, reading as zeros; both; both but torn.
    assert_eq!(
        seen.into_iter().collect::<Vec<_>>(),
        [(4096, 0, false), (8192, 0, false), (8192, 0, true), (8192, 1, true)]
    );
}

#[test]
fn a_later_write_may_survive_an_earlier_one() {
    let (disk, file) = with_log(0);
    file.allocate_zeroed(8192).unwrap();
    file.sync_data().unwrap();
    file.write_at(&[1; 4096], 0).unwrap();
    file.write_at(&[2; 4096], 4096).unwrap();
    let outcomes: BTreeSet<(bool, bool)> = (0..200)
        .map(|seed| {
            let bytes = disk.fork_cut(CutMode::Random, seed).copy_out(path(FILE)).unwrap();
            (bytes[..4096] == [1; 4096], bytes[4096..] == [2; 4096])
        })
        .collect();
    assert_eq!(outcomes.len(), 4);
}

#[test]
fn a_torn_write_never_splits_a_sector_of_the_chosen_size() {
    for sector in [512, 4096] {
        let (disk, file) = with_direct(0);
        disk.set_sector(sector);
        file.allocate(16384).unwrap();
        file.sync_data().unwrap();
        file.write_at(pages(4, 4).as_aligned(), 0).unwrap();
        let mut torn = 0;
        for seed in 0..100 {
            let bytes = disk.fork_cut(CutMode::Random, seed).copy_out(path(FILE)).unwrap();
            for part in bytes.chunks(sector as usize) {
                assert!(part.iter().all(|byte| *byte == part[0]), "seed {seed}");
            }
            torn += usize::from(bytes.contains(&0) && bytes.contains(&4));
        }
        assert!(torn > 5, "{torn}");
    }
}

#[test]
fn shortening_is_volatile_and_leaves_no_old_bytes_behind() {
    let (disk, file) = with_direct(3);
    file.write_at(pages(1, 2).as_aligned(), 0).unwrap();
    file.sync_data().unwrap();
    file.truncate(4096).unwrap();
    file.allocate(8192).unwrap();
    assert_eq!(read_direct(&*file, 4096, 1)[..], [0; 4096]);
    assert_eq!(disk.fork_cut(CutMode::Drop, 0).copy_out(path(FILE)).unwrap(), [1; 8192]);
    for seed in 0..100 {
        let bytes = disk.fork_cut(CutMode::Random, seed).copy_out(path(FILE)).unwrap();
        assert_eq!(bytes[..4096], [1; 4096]);
        let tail = bytes.get(4096).copied().unwrap_or(0);
        assert!(bytes[4096..].iter().all(|byte| *byte == tail), "seed {seed}");
    }
    file.sync_data().unwrap();
    let bytes = after(&disk, CutMode::Drop).copy_out(path(FILE)).unwrap();
    assert_eq!((bytes.len(), &bytes[4096..]), (8192, &[0; 4096][..]));
}

#[test]
fn reads_beyond_the_end() {
    let (disk, log) = with_log(1);
    log.write_at(&[1; 5000], 0).unwrap();
    assert_eq!(read_log(&*log, 4990, 100), [1; 10]);
    assert_eq!(read_log(&*log, 9000, 100), []);
    let direct = open_direct(&disk);
    let error = direct.read_at(pages(0, 1).as_aligned_mut(), 4096).unwrap_err();
    assert!(error.is_unexpected_eof());
    assert_eq!((error.offset, error.len), (Some(4096), Some(4096)));
    let error = direct.read_at(pages(0, 1).as_aligned_mut(), 100).unwrap_err();
    assert_eq!(error.source.raw_os_error(), Some(libc::EINVAL));
}

#[test]
fn a_file_opened_for_reading_cannot_be_written() {
    let (disk, _) = with_log(1);
    let log = disk.open_log(path(FILE), OpenMode::Read).unwrap();
    assert!(log.write_at(b"x", 0).is_err());
    let direct = disk.open_direct(path(FILE), OpenMode::Read).unwrap();
    assert!(direct.allocate(4096).is_err() && direct.truncate(0).is_err());
}

#[test]
fn a_wild_offset_is_an_error() {
    let (_disk, log) = with_log(1);
    for offset in [u64::MAX, u64::MAX - 2, 1 << 50] {
        let error = log.write_at(b"abc", offset).unwrap_err();
        assert!(error.is_no_space(), "EFBIG expected: {error}");
        assert_eq!(read_log(&*log, offset, 3), []);
    }
}

fn fresh() -> Result<(), IoError> {
    Err(IoError::new(crate::Op::Read, path("none"), std::io::Error::other("no result yet")))
}

#[test]
fn batches_give_every_operation_its_own_result() {
    let (disk, file) = with_direct(5);
    let bufs: Vec<AlignedBuf> = (0..8).map(|i| pages(i, 1)).collect();
    let mut ops: Vec<WriteOp<'_>> = bufs
        .iter()
        .enumerate()
        .map(|(i, buf)| WriteOp { buf: buf.as_aligned(), offset: i as u64 * 4096, result: fresh() })
        .collect();
    disk.fail_nth(OpKind::Write, 3, Fault::Eio, Repeat::Once);
    file.write_batch(&mut ops);
    let failed: Vec<usize> = (0..8).filter(|i| ops[*i].result.is_err()).collect();
    assert_eq!(failed.len(), 1);

    let mut into: Vec<AlignedBuf> = (0..9).map(|_| pages(0xaa, 1)).collect();
    let mut reads: Vec<ReadOp<'_>> = into
        .iter_mut()
        .enumerate()
        .map(|(i, buf)| ReadOp { buf: buf.as_aligned_mut(), offset: i as u64 * 4096, result: fresh() })
        .collect();
    file.read_batch(&mut reads);
    let length = file.len().unwrap() / 4096;
    for (i, read) in reads.iter().enumerate() {
        if (i as u64) < length {
            let expected = if failed.contains(&i) { 0 } else { i as u8 };
            assert!(read.result.is_ok() && read.buf.iter().all(|byte| *byte == expected), "{i}");
        } else {
            assert!(read.result.as_ref().unwrap_err().is_unexpected_eof());
        }
    }
}

#[test]
fn batches_are_carried_out_in_different_orders() {
    // The operation that meets the fault is the third one carried out, so its place shows the order.
    let failed: BTreeSet<usize> = (0..60)
        .map(|seed| {
            let (disk, file) = with_direct(seed);
            let buf = pages(1, 1);
            let mut ops: Vec<WriteOp<'_>> = (0..6)
                .map(|i| WriteOp { buf: buf.as_aligned(), offset: i * 4096, result: fresh() })
                .collect();
            disk.fail_nth(OpKind::Write, 3, Fault::Eio, Repeat::Once);
            file.write_batch(&mut ops);
            ops.iter().position(|op| op.result.is_err()).unwrap()
        })
        .collect();
    assert_eq!(failed.len(), 6);
}
