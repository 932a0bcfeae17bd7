//! What the engine asks of the medium, and in which order.

use super::*;
use crate::Durability;
use bedstone_io::sim::{CutMode, Fault, OpKind, Phase, Repeat, TraceDisk, TraceEvent};
use bedstone_io::{Disk, Op};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const SEGMENT: u64 = 64 << 10;

fn options(disk: &Arc<SimDisk>) -> Builder {
    small(disk).log_segment_bytes(SEGMENT).log_buffer_bytes(32 << 10).checkpoint_log_bytes(256 << 10)
}

/// The replay LSNs of both superblocks as a cut would leave them that drops everything unsynced.
fn durable_replay_lsns(disk: &SimDisk) -> [u64; 2] {
    let bytes = disk.copy_out_durable(&dir().join("data")).unwrap();
    [0, 64 << 10].map(|slot: usize| u64::from_le_bytes(bytes[slot + 48..slot + 56].try_into().unwrap()))
}

/// Where the log of a segment ends, by the segment's name; none for other files.
fn end_of_segment(event: &TraceEvent) -> Option<u64> {
    let name = event.path.file_name()?.to_str()?.strip_suffix(".log")?;
    Some(name.parse::<u64>().unwrap() + SEGMENT)
}

/// A segment of the log goes, or is taken into use again, when both superblocks are durable that do not need it,
/// and with them the pages that stand for it: a power cut at that moment, with the segment gone at once, loses
/// nothing.
#[test]
fn no_log_goes_before_what_stands_for_it_is_durable() {
    let disk = SimDisk::new(61);
    let trace = TraceDisk::new(disk.clone());
    let db = options(&disk).disk(trace.clone()).create(DIR).unwrap();
    let table = db.table("t").unwrap();
    let (written, gone) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (medium, known, seen) = (disk.clone(), written.clone(), gone.clone());
    trace.on_op(move |phase, event| {
        let Some(end) = end_of_segment(event).filter(|_| matches!(event.op, Op::Rename | Op::Remove)) else {
            return;
        };
        if phase == Phase::Before {
            let replay = durable_replay_lsns(&medium);
            assert!(replay.iter().all(|&lsn| lsn >= end), "replay from {replay:?}, gone up to {end}");
            return;
        }
        let n = seen.fetch_add(1, Ordering::Relaxed);
        let left = medium.fork_cut(CutMode::Drop, n);
        // The removal of the name was not durable yet. Suppose it was.
        drop(left.remove_file(&event.path));
        let db = options(&left).open(DIR).unwrap();
        let table = db.table("t").unwrap();
        for i in 0..known.load(Ordering::Relaxed) {
            assert_eq!(table.get(key(i % 700)).unwrap().unwrap().len(), 300, "{i}, after {n} segments");
        }
    });
    for i in 0..4000 {
        table.put(key(i % 700), value(i, 300)).unwrap();
        written.store(i + 1, Ordering::Relaxed);
    }
    assert!(db.stats().pool.checkpoints > 3 && gone.load(Ordering::Relaxed) > 8, "{}", db.stats());
    trace.clear_hook();

    // The sync of the data file fails: from then on no segment goes.
    trace.take_events();
    disk.fail_nth_on("data", OpKind::Sync, 1, Fault::Eio, Repeat::Once);
    assert!(db.checkpoint().unwrap_err().is_read_only());
    assert!(db.close().is_err());
    let events = trace.take_events();
    assert!(events.iter().any(|event| event.op == Op::Sync && event.is_on("data") && !event.ok));
    assert!(
        !events
            .iter()
            .any(|event| end_of_segment(event).is_some() && event.op != Op::Sync && event.op != Op::Write)
    );
    let db = options(&disk.fork_cut(CutMode::Drop, 99)).open(DIR).unwrap();
    assert_eq!(db.table("t").unwrap().iter().unwrap().count(), 700);
    assert_clean(&db);
}

/// Disks with sectors of 4 KiB take nothing smaller past the page cache: every direct operation is a multiple of
/// 4 KiB at a multiple of 4 KiB (the simulated disk refuses reads that are not), and no byte of the log is written
/// past the page cache, where small appends would have to be.
#[test]
fn direct_operations_are_aligned_and_the_log_is_written_through_the_page_cache() {
    for page_size in [4096, 16384, 65536] {
        let disk = SimDisk::new(62);
        disk.set_sector(4096);
        let trace = TraceDisk::new(disk.clone());
        let build = |disk: &Arc<SimDisk>| options(disk).page_size(page_size).pool_bytes(8 << 20);
        let db = build(&disk).disk(trace.clone()).create(DIR).unwrap();
        let table = db.table("t").unwrap();
        for i in 0..1500 {
            table.put(key(i % 400), value(i, 1 + i as usize % 700)).unwrap();
        }
        table.put(b"long", vec![1; 100_001]).unwrap();
        db.checkpoint().unwrap();
        let (mut direct, mut appended) = (0, 0);
        for event in trace.take_events() {
            if event.op == Op::Write && event.direct {
                assert!(end_of_segment(&event).is_none(), "{event:?}");
                assert!(event.offset.is_multiple_of(4096) && event.len.is_multiple_of(4096), "{event:?}");
                direct += 1;
            } else if event.op == Op::Write && end_of_segment(&event).is_some() {
                appended += 1;
            }
        }
        assert!(direct >= 15 && appended > 1000, "{direct} direct writes, {appended} of the log");
        let disk = disk.fork_cut(CutMode::Random, 3);
        assert_eq!(build(&disk).open(DIR).unwrap().table("t").unwrap().iter().unwrap().count(), 401);
    }
}

/// The power goes while a file is being made longer, and at the operations around: the length may survive without
/// the bytes, and the bytes without the length.
#[test]
fn the_power_goes_while_files_grow() {
    let run = |disk: &Arc<SimDisk>, outer: Arc<dyn Disk>| {
        let mut acknowledged = 0;
        let Ok(db) = options(disk).disk(outer).create(DIR) else { return acknowledged };
        let Ok(table) = db.table("t") else { return acknowledged };
        for i in 0..2600 {
            let durability = if i % 8 == 7 { Durability::Sync } else { Durability::Relaxed };
            if table.put_with(key(i), value(i, 600), durability).is_err() {
                break;
            }
            if durability == Durability::Sync {
                acknowledged = i + 1;
            }
        }
        std::mem::forget((db, table));
        acknowledged
    };
    // At which operations files grow.
    let disk = SimDisk::new(63);
    let trace = TraceDisk::new(disk.clone());
    let grows = Arc::new(Mutex::new(Vec::new()));
    let (medium, found) = (disk.clone(), grows.clone());
    trace.on_op(move |phase, event| {
        if phase == Phase::Before && event.op == Op::Allocate {
            found.lock().unwrap().push((medium.ops() + 1, event.is_on("data")));
        }
    });
    assert_eq!(run(&disk, trace), 2600);
    let grows = grows.lock().unwrap().clone();
    let of_data = grows.iter().filter(|grow| grow.1).count();
    assert!(of_data >= 2 && grows.len() - of_data >= 5, "{grows:?}");
    for (at, _) in grows {
        for (after, mode) in
            (0..4).flat_map(|after| [CutMode::Random, CutMode::Drop, CutMode::Keep].map(|mode| (after, mode)))
        {
            let what = format!("{mode:?}, cut at operation {at} + {after}");
            let disk = SimDisk::new(63);
            disk.set_cut_after(at + after, mode);
            let acknowledged = run(&disk, disk.clone());
            assert!(!disk.is_powered(), "{what}");
            let disk = disk.reopen();
            let db = match options(&disk).open(DIR) {
                Ok(db) => db,
                Err(crate::Error::NotFound { .. }) if acknowledged == 0 => continue,
                Err(error) => panic!("{what}: {error}"),
            };
            let table = db.table("t").unwrap();
            let there = table.iter().unwrap().count() as u64;
            assert!(there >= acknowledged, "{what}: {there} of {acknowledged}");
            for i in 0..there {
                assert_eq!(table.get(key(i)).unwrap().unwrap(), value(i, 600), "{what}");
            }
            assert_clean(&db);
        }
    }
}

/// What a file system answers that turned read-only because of an error.
const EROFS: i32 = 30;

/// The file system turns read-only under the engine at any operation: errors, reads go on, and so does closing;
/// opening is an error for as long as it lasts; afterwards everything acknowledged is there.
#[test]
fn a_file_system_turns_read_only_under_the_engine() {
    for n in 1.. {
        let disk = SimDisk::new(n);
        let db = options(&disk).create(DIR).unwrap();
        let table = db.table("t").unwrap();
        disk.fail_nth(OpKind::Mutation, n, Fault::Errno(EROFS), Repeat::Forever);
        let mut acknowledged = 0;
        for i in 0..40 {
            if i % 15 == 14 {
                drop(db.checkpoint());
            }
            if table.put(key(i), value(i, 400)).is_err() {
                break;
            }
            acknowledged = i + 1;
        }
        for i in 0..acknowledged {
            assert_eq!(table.get(key(i)).unwrap().unwrap(), value(i, 400), "turned at {n}: reads go on");
        }
        let closed = db.close();
        assert_eq!(closed.is_err(), disk.stats().faults > 0, "turned at {n}: {closed:?}");
        if closed.is_ok() {
            assert!(acknowledged == 40 && n > 60, "{n}");
            break;
        }
        for _ in 0..2 {
            let error = options(&disk).open(DIR).map(drop).unwrap_err();
            assert!(!error.is_corruption() && error.to_string().contains("30"), "turned at {n}: {error}");
        }
        disk.clear_faults();
        for disk in [disk.fork_cut(CutMode::Drop, n), disk.reopen()] {
            let db = options(&disk).open(DIR).unwrap();
            let table = db.table("t").unwrap();
            for i in 0..acknowledged {
                assert_eq!(table.get(key(i)).unwrap().unwrap(), value(i, 400), "turned at {n}");
            }
            table.put(b"again", b"writable").unwrap();
            assert_clean(&db);
        }
    }
}

/// A quota (EDQUOT) and a limit on the size of files (EFBIG) are a full disk: met before anything has happened, and
/// over when there is room.
#[test]
fn a_quota_and_a_limit_on_files_are_a_full_disk() {
    const EFBIG: i32 = 27;
    const EDQUOT: i32 = 122;
    for code in [EFBIG, EDQUOT] {
        let disk = SimDisk::new(64);
        let db = options(&disk).create(DIR).unwrap();
        let table = db.table("t").unwrap();
        disk.fail_nth(OpKind::Allocate, 1, Fault::Errno(code), Repeat::Forever);
        let mut stored = 0;
        let error = loop {
            match table.put(key(stored), value(stored, 900)) {
                Ok(()) => stored += 1,
                Err(error) => break error,
            }
            assert!(stored < 10_000, "the files must come to their limit");
        };
        assert!(error.is_no_space() && !error.is_read_only(), "{error}");
        assert!(!table.contains(key(stored)).unwrap());
        assert!(table.put(b"long", vec![1; 400_000]).unwrap_err().is_no_space());
        assert!(table.delete(key(0)).unwrap(), "deleting works");
        assert_clean(&db);
        disk.clear_faults();
        table.put(key(stored), value(stored, 900)).unwrap();
        let disk = disk.fork_cut(CutMode::Drop, 7);
        let db = options(&disk).open(DIR).unwrap();
        assert_eq!(db.table("t").unwrap().iter().unwrap().count() as u64, stored);
        assert_clean(&db);
        // At creation too, and nothing is left in the way.
        let disk = SimDisk::new(65);
        disk.fail_nth(OpKind::Allocate, 1, Fault::Errno(code), Repeat::Once);
        assert!(options(&disk).create(DIR).unwrap_err().is_no_space());
        options(&disk).create(DIR).unwrap();
    }
}
