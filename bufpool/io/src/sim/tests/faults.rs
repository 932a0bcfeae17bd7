//! Faults on order, and rot.

use super::*;
use crate::sim::{Fault, OpKind, Repeat};

#[test]
fn the_nth_operation_fails_once_or_for_ever() {
    let (disk, file) = with_log(1);
    disk.fail_nth(OpKind::Write, 2, Fault::Eio, Repeat::Once);
    file.write_at(b"a", 0).unwrap();
    let error = file.write_at(b"b", 1).unwrap_err();
    assert!(is_eio(&error));
    assert_eq!((error.op, error.offset, error.len), (crate::Op::Write, Some(1), Some(1)));
    file.write_at(b"c", 2).unwrap();
    assert_eq!(disk.copy_out(path(FILE)).unwrap(), b"a\0c");

    disk.fail_nth(OpKind::Any, 2, Fault::Errno(libc::EROFS), Repeat::Forever);
    file.len().unwrap();
    for _ in 0..3 {
        assert_eq!(file.len().unwrap_err().source.raw_os_error(), Some(libc::EROFS));
        assert!(disk.exists(path(FILE)).is_err() && disk.create_dir_all(path("/x")).is_err());
    }
    assert_eq!(disk.stats().faults, 10);
    disk.clear_faults();
    file.len().unwrap();
}

#[test]
fn a_fault_may_name_its_files() {
    let (disk, file) = with_log(1);
    let other = disk.open_log(path("/db/other.log"), OpenMode::CreateNew).unwrap();
    disk.fail_nth_on(".log", OpKind::Mutation, 2, Fault::Enospc, Repeat::Once);
    file.write_at(b"a", 0).unwrap();
    other.write_at(b"a", 0).unwrap();
    file.write_at(b"a", 0).unwrap();
    read_log(&*other, 0, 1);
    assert!(other.write_at(b"a", 0).unwrap_err().is_no_space());
}

#[test]
fn every_kind_of_operation_can_fail() {
    type Try = fn(&SimDisk) -> Result<(), crate::IoError>;
    let tries: [(OpKind, Try); 12] = [
        (OpKind::Open, |disk| disk.open_log(path(FILE), OpenMode::Read).map(|_| ())),
        (OpKind::Create, |disk| disk.open_log(path("/new"), OpenMode::CreateNew).map(|_| ())),
        (OpKind::Read, |disk| open_log(disk).read_at(&mut [0], 0).map(|_| ())),
        (OpKind::Write, |disk| open_log(disk).write_at(&[0], 0)),
        (OpKind::Sync, |disk| open_log(disk).sync_all()),
        (OpKind::SyncDir, |disk| disk.sync_dir(path("/"))),
        (OpKind::Allocate, |disk| open_direct(disk).allocate(8192)),
        (OpKind::Truncate, |disk| open_direct(disk).truncate(0)),
        (OpKind::Rename, |disk| disk.rename(path(FILE), path("/x"))),
        (OpKind::Remove, |disk| disk.remove(path(FILE))),
        (OpKind::Stat, |disk| disk.exists(path(FILE)).map(|_| ())),
        (OpKind::Lock, |disk| disk.lock(path("/LOCK")).map(|_| ())),
    ];
    for (kind, attempt) in tries {
        for fault in [Fault::Eio, Fault::ShortWrite, Fault::LyingSync] {
            let (disk, _) = with_log(1);
            disk.fail_nth(kind, 1, fault, Repeat::Once);
            let lies = fault == Fault::LyingSync && matches!(kind, OpKind::Sync | OpKind::SyncDir);
            assert_eq!(attempt(&disk).is_ok(), lies, "{kind:?} {fault:?}");
            attempt(&disk).unwrap();
        }
    }
}

#[test]
fn short_and_torn_transfers_do_some_of_their_work() {
    let mut some = [0; 3];
    for seed in 0..40 {
        let (disk, file) = with_log(seed);
        disk.fail_nth(OpKind::Write, 1, Fault::ShortWrite, Repeat::Once);
        assert!(file.write_at(&[1; 4000], 0).unwrap_err().is_no_space());
        let bytes = disk.copy_out(path(FILE)).unwrap();
        assert!(bytes.len() < 4000 && bytes.iter().all(|byte| *byte == 1), "seed {seed}");
        some[0] += usize::from(!bytes.is_empty());

        disk.fail_nth(OpKind::Write, 1, Fault::TornWrite, Repeat::Once);
        assert!(is_eio(&file.write_at(&[2; 4096], 4096).unwrap_err()));
        some[1] += usize::from(disk.copy_out(path(FILE)).unwrap().contains(&2));

        file.write_at(&[3; 4096], 0).unwrap();
        disk.fail_nth(OpKind::Read, 1, Fault::ShortRead, Repeat::Once);
        let mut buf = [0; 4096];
        assert!(is_eio(&file.read_at(&mut buf, 0).unwrap_err()));
        some[2] += usize::from(buf[0] == 3 && buf[4095] == 0);
    }
    assert!(some.iter().all(|count| *count > 20), "{some:?}");
}

#[test]
fn lies_are_acknowledged() {
    let (disk, file) = with_direct(1);
    file.write_at(pages(1, 4).as_aligned(), 0).unwrap();
    disk.fail_nth(OpKind::Write, 1, Fault::LostWrite, Repeat::Once);
    file.write_at(pages(2, 1).as_aligned(), 0).unwrap();
    assert_eq!(read_direct(&*file, 0, 1)[..], [1; 4096]);

    disk.fail_nth(OpKind::Write, 1, Fault::MisdirectedWrite, Repeat::Once);
    file.write_at(pages(2, 1).as_aligned(), 4096).unwrap();
    assert_eq!(read_direct(&*file, 4096, 1)[..], [1; 4096]);
    assert_eq!(read_direct(&*file, 8192, 1)[..], [2; 4096]);

    disk.fail_nth(OpKind::Read, 1, Fault::FlippedRead, Repeat::Once);
    let wrong: u32 = read_direct(&*file, 0, 4)
        .iter()
        .zip(read_direct(&*file, 0, 4).iter())
        .map(|(a, b)| (a ^ b).count_ones())
        .sum();
    assert_eq!(wrong, 1);

    disk.fail_nth(OpKind::Sync, 1, Fault::LyingSync, Repeat::Once);
    file.sync_data().unwrap();
    assert_eq!(disk.fork_cut(CutMode::Drop, 0).copy_out(path(FILE)).unwrap().len(), 0);
    file.sync_data().unwrap();
    assert_eq!(disk.fork_cut(CutMode::Drop, 0).copy_out(path(FILE)).unwrap().len(), 16384);
}

#[test]
fn a_partial_sync_makes_some_durable_and_loses_the_rest() {
    let mut mixed = 0;
    for seed in 0..60 {
        let (disk, file) = with_direct(seed);
        file.allocate(8 * 4096).unwrap();
        file.sync_data().unwrap();
        for i in 0..8 {
            file.write_at(pages(1, 1).as_aligned(), i * 4096).unwrap();
        }
        disk.fail_nth(OpKind::Sync, 1, Fault::PartialSync, Repeat::Once);
        assert!(is_eio(&file.sync_data().unwrap_err()));
        file.sync_data().unwrap();
        assert_eq!(read_direct(&*file, 0, 8)[..], [1; 8 * 4096]);
        let kept = disk.fork_cut(CutMode::Keep, 0).copy_out(path(FILE)).unwrap();
        assert_eq!(kept, after(&disk, CutMode::Drop).copy_out(path(FILE)).unwrap(), "seed {seed}");
        mixed += usize::from(kept.contains(&0) && kept.contains(&1));
    }
    assert!(mixed > 10, "{mixed}");
}

#[test]
fn rot_is_seen_by_open_handles_and_after_a_cut() {
    let (disk, file) = with_direct(1);
    let mut buf = pages(0, 2);
    buf[4096..].fill(1);
    file.write_at(buf.as_aligned(), 0).unwrap();
    file.sync_data().unwrap();
    disk.flip_bit(path(FILE), 10, 3).unwrap();
    disk.overwrite(path(FILE), 20, b"rot").unwrap();
    disk.swap(path(FILE), 0, 4096, 4096).unwrap();
    let seen = read_direct(&*file, 0, 2).to_vec();
    assert_eq!((seen[0], seen[4096 + 10]), (1, 8));
    assert_eq!(seen[4096 + 20..][..3], *b"rot");
    assert_eq!(open_log(&disk).len().unwrap(), 8192);
    assert!(disk.flip_bit(path(FILE), 8192, 0).unwrap_err().is_unexpected_eof());
    assert!(disk.flip_bit(path("/none"), 0, 0).unwrap_err().is_not_found());

    disk.truncate_file(path(FILE), 100).unwrap();
    assert_eq!(file.len().unwrap(), 100);
    let disk = after(&disk, CutMode::Drop);
    assert_eq!(disk.copy_out(path(FILE)).unwrap(), seen[..100]);
    disk.remove_file(path(FILE)).unwrap();
    assert_eq!(after(&disk, CutMode::Random).files().len(), 0);
}

#[test]
fn files_can_be_put_on_the_medium_and_brought_back_to_an_old_state() {
    let (disk, file) = with_log(1);
    file.write_at(b"old state", 0).unwrap();
    let snapshot = disk.snapshot();
    file.write_at(b"new", 0).unwrap();
    file.sync_data().unwrap();
    disk.copy_in(path("/far/away/other"), b"other").unwrap();
    assert_eq!(snapshot.files(), [path(FILE)]);
    assert_eq!(snapshot.copy_out(path(FILE)).unwrap(), b"old state");

    disk.restore_file(&snapshot, path(FILE)).unwrap();
    assert_eq!(read_log(&*file, 0, 100), b"old state");
    let cut = disk.fork_cut(CutMode::Drop, 0);
    assert_eq!(cut.copy_out(path(FILE)).unwrap(), b"old state");
    assert_eq!(cut.copy_out(path("/far/away/other")).unwrap(), b"other");

    disk.restore(&snapshot);
    assert!(is_eio(&file.len().unwrap_err()));
    let disk = disk.reopen();
    assert_eq!(disk.files(), [path(FILE)]);
    assert_eq!(disk.unsynced(path(FILE)).unwrap(), 1);
}
