//! The real disk, the same tests in both modes.

mod children;

use tempfile::TempDir;

use super::*;
use crate::buf::AlignedSliceMut;
use crate::traits::{ReadOp, WriteOp};

/// Each mode that works on this machine, with a fresh directory.
fn in_both_modes(test: impl Fn(&RealDisk, &Path)) {
    for choice in [IoChoice::Pread, IoChoice::Uring] {
        match RealDisk::new(choice, true) {
            Ok(disk) => {
                let dir = TempDir::new().unwrap();
                test(&disk, dir.path());
            }
            Err(error) => eprintln!("skipped in mode {choice:?}: {error}"),
        }
    }
}

/// Bytes that differ in every block and between seeds.
fn pattern(len: usize, seed: u64) -> AlignedBuf {
    let mut buf = AlignedBuf::zeroed(len);
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for chunk in buf.chunks_exact_mut(8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        chunk.copy_from_slice(&x.to_le_bytes());
    }
    buf
}

fn ok() -> Result<(), IoError> {
    Ok(())
}

/// Writes `blocks` blocks in a batch, in an order that is not that of the file, and reads them back in
/// another.
fn write_and_read(file: &dyn DirectFile, blocks: usize, block: usize, seed: u64) {
    let data = pattern(blocks * block, seed);
    let place = |i: usize| (i * 7 + 3) % blocks;
    let mut writes: Vec<_> = (0..blocks)
        .map(|i| {
            let at = place(i) * block;
            WriteOp { buf: data.as_aligned().slice(at..at + block), offset: at as u64, result: ok() }
        })
        .collect();
    file.write_batch(&mut writes);
    for write in writes {
        write.result.unwrap();
    }
    file.sync_data().unwrap();
    let mut back = AlignedBuf::zeroed(data.len());
    let mut reads: Vec<_> = back
        .as_aligned_mut()
        .chunks(block)
        .enumerate()
        .map(|(i, buf)| ReadOp { buf, offset: (i * block) as u64, result: ok() })
        .rev()
        .collect();
    file.read_batch(&mut reads);
    for read in reads {
        read.result.unwrap();
    }
    assert!(*back == *data, "seed {seed}: the bytes read are not those written");
}

#[test]
fn batches_of_every_size_come_back() {
    in_both_modes(|disk, dir| {
        let file = disk.open_direct(&dir.join("data"), OpenMode::CreateNew).unwrap();
        file.read_batch(&mut []);
        file.write_batch(&mut []);
        // 1 and 11 have no factor in common with 7; 200 exceeds the depth of the ring several times.
        for (blocks, block) in [(1, 4096), (2, 16384), (11, 4096), (64, 4096), (200, 4096), (65, 65536)] {
            write_and_read(&*file, blocks, block, blocks as u64);
        }
    });
}

#[test]
fn single_operations_come_back() {
    in_both_modes(|disk, dir| {
        let path = dir.join("data");
        let file = disk.open_direct(&path, OpenMode::CreateNew).unwrap();
        assert_eq!((file.path(), file.len().unwrap()), (&*path, 0));
        let data = pattern(3 * ALIGN, 5);
        file.write_at(data.as_aligned(), 2 * ALIGN as u64).unwrap();
        assert_eq!(file.len().unwrap(), 5 * ALIGN as u64);
        let mut back = AlignedBuf::zeroed(5 * ALIGN);
        file.read_at(back.as_aligned_mut(), 0).unwrap();
        assert!(back[..2 * ALIGN].iter().all(|&b| b == 0));
        assert_eq!(back[2 * ALIGN..], *data);
        file.write_at(data.as_aligned().slice(0..0), 0).unwrap();
        let again = disk.open_direct(&path, OpenMode::Read).unwrap();
        again.read_at(back.as_aligned_mut().slice(0..3 * ALIGN), 2 * ALIGN as u64).unwrap();
        assert_eq!(back[..3 * ALIGN], *data);
        let refused = again.write_at(data.as_aligned(), 0).unwrap_err();
        assert_eq!((refused.op, refused.source.raw_os_error()), (Op::Write, Some(libc::EBADF)));
    });
}

#[test]
fn many_threads_use_one_file() {
    in_both_modes(|disk, dir| {
        let file = disk.open_direct(&dir.join("data"), OpenMode::CreateNew).unwrap();
        file.allocate(8 * 32 * ALIGN as u64).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..8_u64 {
                let file = &file;
                scope.spawn(move || {
                    let start = thread * 32 * ALIGN as u64;
                    for round in 0..5 {
                        let data = pattern(32 * ALIGN, thread * 100 + round);
                        let mut writes: Vec<_> = (0..)
                            .zip(data.as_aligned().chunks(ALIGN))
                            .map(|(i, buf)| WriteOp { buf, offset: start + i * ALIGN as u64, result: ok() })
                            .collect();
                        file.write_batch(&mut writes);
                        assert!(writes.iter().all(|write| write.result.is_ok()));
                        let mut back = AlignedBuf::zeroed(data.len());
                        let mut reads: Vec<_> = (0..)
                            .zip(back.as_aligned_mut().chunks(ALIGN))
                            .map(|(i, buf)| ReadOp { buf, offset: start + i * ALIGN as u64, result: ok() })
                            .collect();
                        file.read_batch(&mut reads);
                        assert!(reads.iter().all(|read| read.result.is_ok()));
                        drop(reads);
                        assert!(*back == *data, "thread {thread}, round {round}");
                    }
                });
            }
        });
    });
}

#[test]
fn each_operation_of_a_batch_has_its_own_result() {
    in_both_modes(|disk, dir| {
        let path = dir.join("data");
        let file = disk.open_direct(&path, OpenMode::CreateNew).unwrap();
        let data = pattern(2 * ALIGN, 1);
        file.write_at(data.as_aligned(), 0).unwrap();
        // The file ends 100 bytes into its third block.
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(2 * ALIGN as u64 + 100).unwrap();
        let offsets = [0, 4096, 8192, 12288, 100, u64::MAX - 4095, 4096];
        let mut back = AlignedBuf::zeroed(offsets.len() * ALIGN);
        let mut reads: Vec<_> = offsets
            .into_iter()
            .zip(back.as_aligned_mut().chunks(ALIGN))
            .map(|(offset, buf)| ReadOp { buf, offset, result: ok() })
            .collect();
        file.read_batch(&mut reads);
        let results: Vec<_> = reads.into_iter().map(|read| read.result).collect();
        assert!(results[0].is_ok() && results[1].is_ok() && results[6].is_ok());
        for at in [2, 3] {
            let error = results[at].as_ref().unwrap_err();
            assert!(error.is_unexpected_eof(), "{error}");
            assert_eq!((error.offset, error.len), (Some(offsets[at]), Some(4096)));
        }
        let misaligned = results[4].as_ref().unwrap_err();
        assert_eq!(misaligned.source.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(results[5].as_ref().unwrap_err().source.raw_os_error(), Some(libc::EFBIG));
        assert_eq!(back[..2 * ALIGN], *data);
        assert_eq!(back[6 * ALIGN..], data[ALIGN..]);

        let short = file.read_at(back.as_aligned_mut().slice(0..ALIGN), 8192).unwrap_err();
        assert!(short.is_unexpected_eof() && short.to_string().contains("100 of 4096 bytes"), "{short}");
        let wrong = file.write_at(data.as_aligned(), 512).unwrap_err();
        assert_eq!(wrong.source.kind(), io::ErrorKind::InvalidInput);

        let closed = disk.open_direct(&path, OpenMode::Read).unwrap();
        let mut writes: Vec<_> =
            (0..3).map(|_| WriteOp { buf: data.as_aligned(), offset: 0, result: ok() }).collect();
        closed.write_batch(&mut writes);
        for write in writes {
            assert_eq!(write.result.unwrap_err().source.raw_os_error(), Some(libc::EBADF));
        }
    });
}

#[test]
fn direct_files_stay_out_of_the_page_cache() {
    in_both_modes(|disk, dir| {
        let report = disk.report(dir);
        eprintln!("{report:?}");
        let file = disk.open_direct(&dir.join("data"), OpenMode::CreateNew).unwrap();
        write_and_read(&*file, 50, ALIGN, 9);
        match (report.direct, file.cached_pages()) {
            (true, Some(pages)) => assert_eq!(pages, 0),
            (direct, pages) => eprintln!("skipped: direct {direct}, cached pages {pages:?}"),
        }
        let log = disk.open_log(&dir.join("log"), OpenMode::CreateNew).unwrap();
        log.write_at(&[1; 5 * ALIGN], 0).unwrap();
        assert!(log.cached_pages().is_none_or(|pages| pages >= 5));
    });
}

#[test]
fn allocation_grows_with_zeros_and_never_shortens() {
    in_both_modes(|disk, dir| {
        let path = dir.join("data");
        let file = disk.open_direct(&path, OpenMode::CreateNew).unwrap();
        let data = pattern(ALIGN, 3);
        file.write_at(data.as_aligned(), 0).unwrap();
        file.allocate(1 << 20).unwrap();
        file.allocate(ALIGN as u64).unwrap();
        assert_eq!(file.len().unwrap(), 1 << 20);
        assert!(std::fs::metadata(&path).unwrap().blocks() * 512 >= 1 << 20, "blocks must be there");
        let mut back = AlignedBuf::zeroed(1 << 20);
        back.fill(1);
        file.read_at(back.as_aligned_mut(), 0).unwrap();
        assert_eq!(back[..ALIGN], *data);
        assert!(back[ALIGN..].iter().all(|&b| b == 0));
        file.truncate(2 * ALIGN as u64).unwrap();
        assert_eq!(file.len().unwrap(), 2 * ALIGN as u64);
        assert_eq!(file.truncate(1 << 20).unwrap_err().op, Op::Truncate);
        assert_eq!(file.len().unwrap(), 2 * ALIGN as u64);
        assert!(file.allocate(u64::MAX).unwrap_err().is_no_space());
    });
}

#[test]
fn log_files_are_written_read_and_grown() {
    in_both_modes(|disk, dir| {
        let path = dir.join("log");
        let log = disk.open_log(&path, OpenMode::CreateNew).unwrap();
        log.write_at(b"abc", 0).unwrap();
        log.allocate_zeroed(3 << 20).unwrap();
        log.allocate_zeroed(10).unwrap();
        assert_eq!(log.len().unwrap(), 3 << 20);
        log.write_at(b"xyz", 100).unwrap();
        log.sync_data().unwrap();
        log.sync_all().unwrap();
        let mut all = vec![9; (3 << 20) + 5];
        assert_eq!(log.read_at(&mut all, 0).unwrap(), 3 << 20);
        assert_eq!((&all[..4], &all[99..104]), (&b"abc\0"[..], &b"\0xyz\0"[..]));
        assert!(all[104..3 << 20].iter().all(|&b| b == 0));
        assert_eq!(log.read_at(&mut all, 3 << 20).unwrap(), 0);
        let again = disk.open_log(&path, OpenMode::Read).unwrap();
        assert_eq!(again.read_at(&mut all[..3], 100).unwrap(), 3);
        assert_eq!((&all[..3], again.path()), (&b"xyz"[..], &*path));
        assert_eq!(again.write_at(b"no", 0).unwrap_err().op, Op::Write);
        assert!(log.write_at(b"far", u64::MAX - 1).unwrap_err().is_no_space());
        assert!(log.allocate_zeroed(u64::MAX).unwrap_err().is_no_space());
    });
}

#[test]
fn names_are_made_listed_renamed_and_removed() {
    in_both_modes(|disk, dir| {
        let deep = dir.join("a/b");
        disk.create_dir_all(&deep).unwrap();
        disk.create_dir_all(&deep).unwrap();
        drop(disk.open_log(&deep.join("one"), OpenMode::CreateNew).unwrap());
        let taken = disk.open_log(&deep.join("one"), OpenMode::CreateNew).unwrap_err();
        assert!(taken.is_already_exists() && taken.op == Op::Create);
        let taken = disk.open_direct(&deep.join("one"), OpenMode::CreateNew).unwrap_err();
        assert!(taken.is_already_exists() && taken.op == Op::Create);
        disk.open_direct(&deep.join("one"), OpenMode::ReadWrite).unwrap();
        for error in [
            disk.open_direct(&deep.join("none"), OpenMode::ReadWrite).unwrap_err(),
            disk.open_log(&deep.join("none"), OpenMode::Read).unwrap_err(),
            disk.open_direct(&dir.join("no/where"), OpenMode::CreateNew).unwrap_err(),
            disk.remove(&deep.join("none")).unwrap_err(),
            disk.list(&dir.join("none")).unwrap_err(),
            disk.sync_dir(&dir.join("none")).unwrap_err(),
        ] {
            assert!(error.is_not_found(), "{error}");
        }
        drop(disk.open_direct(&deep.join("two"), OpenMode::CreateNew).unwrap());
        disk.rename(&deep.join("two"), &deep.join("one")).unwrap();
        disk.sync_dir(&deep).unwrap();
        assert_eq!(disk.list(&deep).unwrap(), ["one"]);
        assert!(disk.exists(&deep.join("one")).unwrap() && !disk.exists(&deep.join("two")).unwrap());
        disk.remove(&deep.join("one")).unwrap();
        assert!(disk.list(&deep).unwrap().is_empty());
        let before = disk.now();
        assert!(disk.now() >= before && disk.unix_ms() > 1_600_000_000_000);
    });
}

#[test]
fn choices_are_read_from_text() {
    for (text, choice) in [
        ("auto", IoChoice::Auto),
        ("", IoChoice::Auto),
        ("uring", IoChoice::Uring),
        ("pread", IoChoice::Pread),
    ] {
        assert_eq!(text.parse::<IoChoice>().unwrap(), choice);
    }
    let error = "URING!".parse::<IoChoice>().unwrap_err();
    assert_eq!(error.to_string(), r#"BEDSTONE_IO is "URING!"; it can be auto, uring or pread"#);
}

#[test]
fn kernels_that_lose_writes_are_known() {
    for release in ["5.11.0", "5.13.19-generic", "5.14.0-570.el9.x86_64", "5.15", "5.15.2"] {
        assert!(writes_may_hang(release), "{release}");
    }
    for release in ["5.10.200", "5.15.3", "5.16.0", "6.18.0-fc", "4.19", "", "x"] {
        assert!(!writes_may_hang(release), "{release}");
    }
    let (uring, reason) = choose(IoChoice::Auto, "5.14.0").unwrap();
    assert!(!uring && reason.contains("MDEV-26674"));
    // Who knows better may say so: a distribution may have mended it.
    match choose(IoChoice::Uring, "5.14.0") {
        Ok((uring, _)) => assert!(uring),
        Err(SetupError::NoUring { source }) => eprintln!("skipped in part: no io_uring: {source}"),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn refused_direct_io_is_an_error_unless_buffering_is_allowed() {
    let dir = TempDir::new().unwrap();
    for (allow, mode) in [(false, IoChoice::Pread), (true, IoChoice::Pread), (true, IoChoice::Auto)] {
        let disk = RealDisk::new(mode, allow).unwrap();
        let meta = std::fs::metadata(dir.path()).unwrap();
        let mut facts = disk.facts(dir.path());
        facts.direct = Direct::Refused("so says the test".into());
        disk.directories.lock().insert((meta.dev(), meta.ino()), facts);
        let path = dir.path().join("data");
        let opened = disk.open_direct(&path, OpenMode::CreateNew);
        if allow {
            write_and_read(&*opened.unwrap(), 10, ALIGN, 2);
            std::fs::remove_file(&path).unwrap();
        } else {
            let error = opened.unwrap_err();
            assert!(error.is_direct_refused() && error.to_string().contains("so says the test"), "{error}");
            assert!(!path.exists());
        }
        let report = disk.report(dir.path());
        assert!(!report.direct && report.reason.contains("so says the test"));
    }
}

#[test]
fn a_thread_that_ends_takes_its_ring_along() {
    let Ok(disk) = RealDisk::new(IoChoice::Uring, true) else { return eprintln!("skipped: no io_uring") };
    let dir = TempDir::new().unwrap();
    let file = disk.open_direct(&dir.path().join("data"), OpenMode::CreateNew).unwrap();
    for seed in 0..50 {
        let file = Arc::clone(&file);
        std::thread::spawn(move || write_and_read(&*file, 4, ALIGN, seed)).join().unwrap();
    }
}

#[test]
fn operations_that_end_while_others_are_submitted_are_told_apart() {
    // Reads of an empty file in memory fail, those of a full one succeed; both in one batch, in all
    // positions.
    let Ok(()) = probe_uring() else { return eprintln!("skipped: no io_uring") };
    let file = sys::memory_file().unwrap();
    transfer::write_all_at(&file, &pattern(100 * ALIGN, 8), 0, ALIGN).unwrap();
    let mut back = AlignedBuf::zeroed(200 * ALIGN);
    let mut transfers: Vec<_> = (0..)
        .zip(back.as_aligned_mut().chunks(ALIGN))
        .map(|(i, buf): (u64, AlignedSliceMut<'_>)| {
            transfer::Transfer::new(
                transfer::Memory::Read(buf.into_inner()),
                (i * 77 % 200) * ALIGN as u64,
                ALIGN,
            )
        })
        .collect();
    assert!(ring::run(file.as_fd(), &mut transfers).is_ok());
    for (i, transfer) in transfers.into_iter().enumerate() {
        assert_eq!(transfer.into_result().is_ok(), i * 77 % 200 < 100, "transfer {i}");
    }
    let expected = pattern(100 * ALIGN, 8);
    for (i, block) in back.chunks(ALIGN).enumerate().filter(|(i, _)| i * 77 % 200 < 100) {
        let at = i * 77 % 200 * ALIGN;
        assert!(block == &expected[at..at + ALIGN], "block {i}");
    }
}
