//! Each rule of the fault model, one by one.

mod bytes;
mod faults;
mod names;
mod protocol;
mod space;
mod trace;

use std::path::Path;
use std::sync::Arc;

use super::{CutMode, SimDisk};
use crate::buf::{ALIGN, AlignedBuf};
use crate::traits::{DirectFile, Disk, LogFile, OpenMode};

const FILE: &str = "/db/file";

fn path(name: &str) -> &Path {
    Path::new(name)
}

/// A medium with a durable directory `/db`.
fn disk(seed: u64) -> Arc<SimDisk> {
    let disk = SimDisk::new(seed);
    disk.create_dir_all(path("/db")).unwrap();
    disk.sync_dir(path("/")).unwrap();
    disk
}

/// A medium with a durable, empty file, open for buffered I/O.
fn with_log(seed: u64) -> (Arc<SimDisk>, Arc<dyn LogFile>) {
    let disk = disk(seed);
    let file = disk.open_log(path(FILE), OpenMode::CreateNew).unwrap();
    disk.sync_dir(path("/db")).unwrap();
    (disk, file)
}

/// A medium with a durable, empty file, open for direct I/O.
fn with_direct(seed: u64) -> (Arc<SimDisk>, Arc<dyn DirectFile>) {
    let disk = disk(seed);
    let file = disk.open_direct(path(FILE), OpenMode::CreateNew).unwrap();
    disk.sync_dir(path("/db")).unwrap();
    (disk, file)
}

fn open_log(disk: &SimDisk) -> Arc<dyn LogFile> {
    disk.open_log(path(FILE), OpenMode::ReadWrite).unwrap()
}

fn open_direct(disk: &SimDisk) -> Arc<dyn DirectFile> {
    disk.open_direct(path(FILE), OpenMode::ReadWrite).unwrap()
}

/// `pages` pages, each byte `fill`.
fn pages(fill: u8, pages: usize) -> AlignedBuf {
    let mut buf = AlignedBuf::zeroed(pages * ALIGN);
    buf.fill(fill);
    buf
}

fn read_log(file: &dyn LogFile, offset: u64, len: usize) -> Vec<u8> {
    let mut buf = vec![0xaa; len];
    let got = file.read_at(&mut buf, offset).unwrap();
    buf.truncate(got);
    buf
}

fn read_direct(file: &dyn DirectFile, offset: u64, count: usize) -> AlignedBuf {
    let mut buf = pages(0xaa, count);
    file.read_at(buf.as_aligned_mut(), offset).unwrap();
    buf
}

/// Cuts the power and gives what a store finds when it comes back.
fn after(disk: &SimDisk, mode: CutMode) -> Arc<SimDisk> {
    disk.power_cut(mode);
    disk.reopen()
}

fn is_eio(error: &crate::IoError) -> bool {
    error.source.raw_os_error() == Some(libc::EIO)
}
