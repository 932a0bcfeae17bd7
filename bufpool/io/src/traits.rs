//! The traits behind which every medium stands.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::buf::{AlignedSlice, AlignedSliceMut};
use crate::error::IoError;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// It must exist; it is only read.
    Read,
    /// It must exist; it is read and written.
    ReadWrite,
    /// It must not exist; it is created empty, then read and written.
    CreateNew,
}

/// Which way direct I/O goes to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoMode {
    /// Batches through io_uring.
    Uring,
    /// `pread` and `pwrite`, batches spread over threads.
    Pread,
    /// The simulated disk.
    Simulated,
}

/// What is in effect, and why.
#[derive(Debug, Clone)]
pub struct IoReport {
    /// The way batches go to the kernel.
    pub mode: IoMode,
    /// Why it is that one: what was asked for, which probe failed and with which error.
    pub reason: String,
    /// Data files bypass the page cache (O_DIRECT was accepted and a real read worked).
    pub direct: bool,
    /// Required alignment of memory for direct I/O, in bytes, as the file system reports it.
    pub mem_align: u32,
    /// Required alignment of file offsets and lengths for direct I/O, in bytes.
    pub offset_align: u32,
    /// Name of the file system type ("ext4", "xfs", "tmpfs", ...), where known.
    pub file_system: String,
}

/// One read of a batch.
#[derive(Debug)]
pub struct ReadOp<'a> {
    /// Where the bytes go.
    pub buf: AlignedSliceMut<'a>,
    /// Where they come from in the file, a multiple of [`crate::ALIGN`].
    pub offset: u64,
    /// Set by the batch: `Ok` when the whole buffer was filled.
    pub result: Result<(), IoError>,
}

/// One write of a batch.
#[derive(Debug)]
pub struct WriteOp<'a> {
    /// The bytes.
    pub buf: AlignedSlice<'a>,
    /// Where they go in the file, a multiple of [`crate::ALIGN`].
    pub offset: u64,
    /// Set by the batch: `Ok` when the whole buffer was written.
    pub result: Result<(), IoError>,
}

/// A file whose bytes travel between the medium and the caller's aligned memory, past the page cache. A write
/// that returned is *not* durable until [`DirectFile::sync_data`] has returned after it.
#[expect(
    clippy::len_without_is_empty,
    reason = "the length is asked of the system and may fail; nobody asks for emptiness"
)]
pub trait DirectFile: Send + Sync + Debug {
    /// The name it was opened under, for messages.
    fn path(&self) -> &Path;
    /// Fills the whole of `buf` from `offset`. A file that ends earlier gives an error whose
    /// `is_unexpected_eof` holds.
    fn read_at(&self, buf: AlignedSliceMut<'_>, offset: u64) -> Result<(), IoError>;
    /// Writes the whole of `buf` at `offset`.
    fn write_at(&self, buf: AlignedSlice<'_>, offset: u64) -> Result<(), IoError>;
    /// Carries out all reads, many in flight at once; returns when every one has its result. Completions are
    /// matched with their operations by tag; the order of completion is free.
    fn read_batch(&self, ops: &mut [ReadOp<'_>]);
    /// Carries out all writes, many in flight at once; returns when every one has its result.
    fn write_batch(&self, ops: &mut [WriteOp<'_>]);
    /// Makes every write that returned before this call durable (`fdatasync`). After an error nothing may be
    /// assumed of any of them, and the call must not be repeated.
    fn sync_data(&self) -> Result<(), IoError>;
    /// Length in bytes.
    fn len(&self) -> Result<u64, IoError>;
    /// Grows the file to `len` bytes with the blocks allocated, so that writes below `len` cannot meet a full
    /// disk. Never shortens. Bytes between the old length and the new one read as zeros.
    fn allocate(&self, len: u64) -> Result<(), IoError>;
    /// Shortens the file to `len` bytes.
    fn truncate(&self, len: u64) -> Result<(), IoError>;
    /// How many 4 KiB pages of the file the operating system caches (cachestat, else mincore); `None` where
    /// it cannot be asked.
    fn cached_pages(&self) -> Option<u64>;
}

/// A file written through the page cache: log segments and small metadata files.
#[expect(
    clippy::len_without_is_empty,
    reason = "the length is asked of the system and may fail; nobody asks for emptiness"
)]
pub trait LogFile: Send + Sync + Debug {
    /// The name it was opened under, for messages.
    fn path(&self) -> &Path;
    /// Reads up to `buf.len()` bytes from `offset`; fewer only at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, IoError>;
    /// Hands the whole of `buf` to the kernel (survives the process, not the machine).
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), IoError>;
    /// Makes every write that returned before this call durable (`fdatasync`). After an error nothing may be
    /// assumed of any of them, and the call must not be repeated.
    fn sync_data(&self) -> Result<(), IoError>;
    /// The same with all metadata (`fsync`).
    fn sync_all(&self) -> Result<(), IoError>;
    /// Length in bytes.
    fn len(&self) -> Result<u64, IoError>;
    /// Grows the file to `len` bytes by writing zeros from its present end (so that later writes neither meet
    /// a full disk nor touch metadata). Not durable before a sync. On error the file may be partly grown.
    fn allocate_zeroed(&self, len: u64) -> Result<(), IoError>;
    /// The same without writing: the blocks are allocated (so later writes cannot meet a full disk) but marked as
    /// unwritten, and the first sync of each block written also records that mark's end. Far quicker to make, a little
    /// dearer at first use.
    fn allocate(&self, len: u64) -> Result<(), IoError>;
    /// As [`DirectFile::cached_pages`].
    fn cached_pages(&self) -> Option<u64>;
}

/// A held lock file; released when dropped (and by the kernel when the process dies).
pub trait LockFile: Send + Sync + Debug {}

/// A medium: names and directories, files of both kinds, locks, and time.
pub trait Disk: Send + Sync + Debug {
    /// Opens a file for direct I/O. `CreateNew` fails with `AlreadyExists` if it exists.
    fn open_direct(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DirectFile>, IoError>;
    /// Opens a file for buffered I/O. `CreateNew` fails with `AlreadyExists` if it exists.
    fn open_log(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn LogFile>, IoError>;
    /// Takes the lock file at `path` (made if absent) for this process; an error whose `is_locked` holds,
    /// with the holder's process id in its message, if another one has it. The holder writes its process id
    /// into it.
    fn lock(&self, path: &Path) -> Result<Box<dyn LockFile>, IoError>;
    /// Creates a directory and its missing parents.
    fn create_dir_all(&self, path: &Path) -> Result<(), IoError>;
    /// Names in a directory (files and directories), in no particular order.
    fn list(&self, dir: &Path) -> Result<Vec<String>, IoError>;
    /// Whether something exists under this name.
    fn exists(&self, path: &Path) -> Result<bool, IoError>;
    /// Renames a file within the medium, replacing what is there. Durable after [`Disk::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError>;
    /// Removes a file. Durable after [`Disk::sync_dir`].
    fn remove(&self, path: &Path) -> Result<(), IoError>;
    /// Makes the names in a directory durable (`fsync` of the directory).
    fn sync_dir(&self, dir: &Path) -> Result<(), IoError>;
    /// Time since some fixed moment, never going back.
    fn now(&self) -> Duration;
    /// Wall-clock time in milliseconds since 1970.
    fn unix_ms(&self) -> u64;
    /// What is in effect for direct files under `dir`, and why.
    fn report(&self, dir: &Path) -> IoReport;
}
