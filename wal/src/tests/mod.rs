//! Tests of the whole log over the simulated disk.

mod cached;
mod crash;
mod damage;
mod failure;
mod notify;
mod open;
mod round_trip;
mod space;
mod threads;
mod torn;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bedstone_io::Disk;

use crate::{
    Appended, Background, Durability, EndState, LogReader, Lsn, SEGMENT_HEADER_BYTES, Wal, WalConfig,
    WalError, classify_end,
};

const DIR: &str = "/db/redo";
const ID: [u8; 16] = *b"0123456789abcdef";
const SEGMENT: u64 = 64 * 1024;

/// A generator for tests (SplitMix64).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

fn config(opening: u32) -> WalConfig {
    WalConfig {
        segment_bytes: SEGMENT,
        buffer_bytes: 64 * 1024,
        background: Background::Manual,
        ..WalConfig::new(DIR, ID, opening)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Read {
    lsn: Lsn,
    end: Lsn,
    kind: u8,
    opening: u32,
    payload: Vec<u8>,
}

/// Reads from `from` to the end.
fn read(disk: &Arc<dyn Disk>, from: Lsn) -> Result<(Vec<Read>, LogReader), WalError> {
    let mut reader = LogReader::open(Arc::clone(disk), Path::new(DIR), ID, from)?;
    let mut records = Vec::new();
    while let Some(record) = reader.next()? {
        let crate::Record { lsn, end, kind, opening, payload, .. } = record;
        records.push(Read { lsn, end, kind, opening, payload: payload.to_vec() });
    }
    Ok((records, reader))
}

/// Reads, judges the end and opens for appending.
fn recover(disk: &Arc<dyn Disk>, cfg: WalConfig, from: Lsn) -> Result<(Vec<Read>, Wal), WalError> {
    let (records, reader) = read(disk, from)?;
    classify_end(&reader, Lsn::ZERO)?.into_result()?;
    let end = reader.end().expect("the end was reached");
    let wal = Wal::open(Arc::clone(disk), cfg, end)?;
    Ok((records, wal))
}

fn create(disk: &Arc<dyn Disk>, cfg: WalConfig) -> Wal {
    Wal::create(&**disk, &cfg, Lsn::ZERO).expect("create");
    // The names above the log's own directory are the caller's to make durable.
    disk.sync_dir(Path::new("/")).expect("sync");
    let (records, wal) = recover(disk, cfg, Lsn::ZERO).expect("open");
    assert!(records.is_empty());
    wal
}

fn append(wal: &Wal, kind: u8, payload: &[u8]) -> Result<Appended, WalError> {
    let mut credit = wal.reserve(payload.len() as u64, 1)?;
    wal.append(&mut credit, kind, &[payload], &mut |_| ())
}

fn commit(wal: &Wal, payload: &[u8]) -> Appended {
    let appended = append(wal, 1, payload).expect("append");
    wal.wait(appended.end, Durability::Sync).expect("wait");
    appended
}

/// A payload that differs in every byte from its neighbours and from other payloads.
fn payload(number: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng(number);
    (0..len).map(|_| rng.next() as u8).collect()
}

fn segment_file(start: u64) -> PathBuf {
    Path::new(DIR).join(format!("{start:020}.log"))
}

/// File and offset of a position in a log of segments of [`SEGMENT`] bytes from 0 on.
fn place(lsn: u64) -> (PathBuf, u64) {
    (segment_file(lsn / SEGMENT * SEGMENT), SEGMENT_HEADER_BYTES + lsn % SEGMENT)
}

fn is_torn(reader: &LogReader, required: Lsn) -> bool {
    classify_end(reader, required).expect("classify") == EndState::Torn
}
