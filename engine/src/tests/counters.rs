//! Numbers near their ends: what cannot grow any more is an error, and nothing wraps to a number that was used before.

use super::*;
use crate::Error;
use crate::catalog::TABLE_MAX;
use crate::create::{DATA, REDO};
use bedstone_bufpool::{FormatParams, Pool};
use bedstone_io::crc32c;
use bedstone_io::sim::CutMode;
use bedstone_wal::{Lsn, Wal, WalConfig};

/// A database whose log begins at `start`.
fn create_at(disk: &Arc<SimDisk>, start: u64) -> Database {
    use bedstone_io::Disk;
    let database_id = [5; 16];
    disk.create_dir_all(dir()).unwrap();
    let params = FormatParams { page_size: 4096, database_id, start_lsn: start };
    Pool::format(&**disk, &dir().join(DATA), &params).unwrap();
    let log = WalConfig {
        segment_bytes: 256 << 10,
        buffer_bytes: 64 << 10,
        ..WalConfig::new(dir().join(REDO), database_id, 0)
    };
    Wal::create(&**disk, &log, Lsn(start)).unwrap();
    disk.sync_dir(&dir().join(REDO)).unwrap();
    disk.sync_dir(dir()).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    reopen(disk)
}

/// Positions in the log on both sides of 2^32, of 2^40, and of the highest at which a log may begin: commits,
/// checkpoints, recycled segments, power cuts and recoveries.
#[test]
fn log_positions_of_all_sizes() {
    let last = u64::MAX / 2 / 4096 * 4096;
    for (seed, start) in (0..).zip([(1 << 32) - 8192, (1 << 40) - 300_000, (1 << 63) - 300_000 / 8 * 8, last])
    {
        let start = start.min(last) / 8 * 8;
        let mut disk = SimDisk::new(seed);
        drop(create_at(&disk, start));
        for round in 0..3_u64 {
            let db = reopen(&disk);
            let table = db.table("t").unwrap();
            for i in 0..900 {
                let durability =
                    if i % 100 == 99 { crate::Durability::Sync } else { crate::Durability::Relaxed };
                table.put_with(key(i), value(i + round, 500), durability).unwrap();
            }
            assert!(db.stats().wal.tail.0 > start + 500_000 * (round + 1), "from {start}: {}", db.stats());
            if round == 1 {
                db.checkpoint().unwrap();
            }
            disk = disk.fork_cut(CutMode::Random, seed * 10 + round);
            let db = reopen(&disk);
            let table = db.table("t").unwrap();
            for i in 0..900 {
                assert_eq!(
                    table.get(key(i)).unwrap().unwrap(),
                    value(i + round, 500),
                    "from {start}, key {i}"
                );
            }
            assert_clean(&db);
        }
    }
}

/// Changes both superblocks at `offset`, with a right checksum.
fn edit_superblocks(disk: &SimDisk, offset: usize, bytes: &[u8]) {
    let path = dir().join(DATA);
    let file = disk.copy_out(&path).unwrap();
    for slot in [0, 64 << 10] {
        let mut block = file[slot..slot + 4096].to_vec();
        block[offset..offset + bytes.len()].copy_from_slice(bytes);
        let sum = crc32c(0, &block[..4092]);
        block[4092..].copy_from_slice(&sum.to_le_bytes());
        disk.overwrite(&path, slot as u64, &block).unwrap();
    }
}

fn small_store(seed: u64) -> Arc<SimDisk> {
    let disk = SimDisk::new(seed);
    let db = create(&disk);
    db.table("t").unwrap().put(b"k", b"v").unwrap();
    db.close().unwrap();
    disk.reopen()
}

/// Where FORMAT.md puts them in a superblock.
const CHECKPOINT: usize = 32;
const OPENING: usize = 40;
const NEXT_PAGE_ID: usize = 44;
const REPLAY_LSN: usize = 48;
const LOG_END: usize = 56;

#[test]
fn the_last_openings_and_checkpoints() {
    let disk = small_store(1);
    edit_superblocks(&disk, OPENING, &(u32::MAX - 2).to_le_bytes());
    for round in 0..2_u64 {
        let db = reopen(&disk);
        db.table("t").unwrap().put(key(round), b"v").unwrap();
        assert_clean(&db);
        db.close().unwrap();
    }
    for _ in 0..2 {
        let error = small(&disk).open(DIR).unwrap_err();
        assert!(error.is_corruption() && error.to_string().contains("opening"), "{error}");
    }

    let disk = small_store(2);
    edit_superblocks(&disk, CHECKPOINT, &(u64::MAX / 2 - 2).to_le_bytes());
    let db = reopen(&disk);
    for round in 0..4_u64 {
        db.table("t").unwrap().put(key(round), b"v").unwrap();
        db.checkpoint().unwrap();
        assert_clean(&db);
    }
    db.close().unwrap();
    assert!(small(&disk).open(DIR).unwrap_err().is_corruption());
    for number in [u64::MAX, u64::MAX - 1] {
        let disk = small_store(3);
        edit_superblocks(&disk, CHECKPOINT, &number.to_le_bytes());
        assert!(small(&disk).open(DIR).unwrap_err().is_corruption());
    }
}

/// Impossible numbers behind a right checksum are refused, without a panic.
#[test]
fn positions_beyond_the_log_are_refused() {
    for high in [u64::MAX, u64::MAX - 7, u64::MAX - 4096, u64::MAX / 2, 1 << 62, 1 << 32] {
        for places in [&[REPLAY_LSN, LOG_END][..], &[LOG_END], &[REPLAY_LSN]] {
            let disk = small_store(4);
            for &place in places {
                edit_superblocks(&disk, place, &(high / 8 * 8).to_le_bytes());
            }
            let error = small(&disk).open(DIR).map(drop).unwrap_err();
            assert!(
                error.is_corruption() || matches!(error, Error::Corrupt { .. } | Error::NotADatabase { .. }),
                "{high:#x} at {places:?}: {error} ({error:?})"
            );
        }
    }
}

/// A page id far above those in use is a store that was larger once.
#[test]
fn a_store_that_once_had_many_pages() {
    let disk = small_store(5);
    edit_superblocks(&disk, NEXT_PAGE_ID, &3_000_000_u32.to_le_bytes());
    let db = reopen(&disk);
    let table = db.table("t").unwrap();
    for i in 0..500 {
        table.put(key(i), value(i, 300)).unwrap();
    }
    assert_clean(&db);
    db.close().unwrap();
    assert_eq!(reopen(&disk).table("t").unwrap().iter().unwrap().count(), 501);
}

#[test]
fn the_last_table_numbers() {
    let disk = SimDisk::new(6);
    let db = create(&disk);
    db.table("first").unwrap().put(b"k", b"1").unwrap();
    db.shared().catalog.change().next_id = TABLE_MAX - 1;
    for name in ["last but one", "last"] {
        db.table(name).unwrap().put(b"k", name).unwrap();
    }
    let refused = |db: &Database| {
        let error = db.table("one more").unwrap_err();
        assert!(matches!(error, Error::BadOption { option: "table", .. }), "{error}");
        assert!(db.open_table("one more").unwrap().is_none());
    };
    refused(&db);
    let ids: Vec<u32> = db.tables().unwrap().iter().map(|table| table.id).collect();
    assert!(ids.contains(&TABLE_MAX) && ids.contains(&(TABLE_MAX - 1)), "{ids:?}");
    // From the log, and from the pages.
    for checkpoint in [false, true] {
        if checkpoint {
            db.checkpoint().unwrap();
        }
        let db = reopen(&disk.fork_cut(CutMode::Random, 7));
        for name in ["last but one", "last"] {
            assert_eq!(db.table(name).unwrap().get(b"k").unwrap().unwrap(), name.as_bytes());
        }
        refused(&db);
        // A number that was given back by a drop is not used again.
        assert!(db.drop_table("last").unwrap());
        refused(&db);
        assert_clean(&db);
    }
}
