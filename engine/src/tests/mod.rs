//! Tests of the whole engine, nearly all on the simulated disk.

mod basic;
mod concurrent;
mod counters;
mod crash;
mod deceived;
mod faults;
mod format;
mod handles;
mod interleaved;
mod medium;
mod snapshots;
mod stepping;
mod temp_tree;
mod ticket;
mod transactions;
mod txn_holes;
mod versions;
mod write_set;

use std::path::Path;
use std::sync::Arc;

use bedstone_io::sim::SimDisk;

use crate::{Background, Builder, Database};

/// Where the database lies on a simulated disk.
const DIR: &str = "/db";

/// A small database driven by one thread: 4 KiB pages, 1 MiB of pool, small log segments and buffer.
fn small(disk: &Arc<SimDisk>) -> Builder {
    Database::builder()
        .disk(disk.clone())
        .background(Background::Manual)
        .page_size(4096)
        .pool_bytes(1 << 20)
        .log_segment_bytes(256 << 10)
        .log_buffer_bytes(64 << 10)
        .checkpoint_log_bytes(512 << 10)
}

fn create(disk: &Arc<SimDisk>) -> Database {
    small(disk).create(DIR).unwrap()
}

/// Opens again what another handle closed or lost.
fn reopen(disk: &Arc<SimDisk>) -> Database {
    small(disk).open(DIR).unwrap()
}

/// The check finds nothing.
#[track_caller]
fn assert_clean(db: &Database) {
    let report = db.check().unwrap();
    assert!(report.is_clean(), "{:#?}", report.problems);
}

fn dir() -> &'static Path {
    Path::new(DIR)
}

fn key(i: u64) -> Vec<u8> {
    format!("key{i:08}").into_bytes()
}

fn value(i: u64, len: usize) -> Vec<u8> {
    let mut bytes = format!("value{i}:").into_bytes();
    bytes.extend((0..len).map(|j| (i as usize * 31 + j * 7) as u8));
    bytes.truncate(len.max(8));
    bytes
}
