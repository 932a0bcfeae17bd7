//! A disk on which direct I/O is not to be had: its direct files read through the page cache, and it says so.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bedstone_io::{
    AlignedSlice, AlignedSliceMut, DirectFile, Disk, IoError, IoReport, LockFile, LogFile, OpenMode, ReadOp,
    WriteOp,
};

#[derive(Debug)]
pub(super) struct CachedDisk(pub(super) Arc<dyn Disk>);

#[derive(Debug)]
struct CachedFile(Arc<dyn LogFile>);

impl Disk for CachedDisk {
    fn open_direct(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DirectFile>, IoError> {
        Ok(Arc::new(CachedFile(self.0.open_log(path, mode)?)))
    }
    fn open_log(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn LogFile>, IoError> {
        self.0.open_log(path, mode)
    }
    fn lock(&self, path: &Path) -> Result<Box<dyn LockFile>, IoError> {
        self.0.lock(path)
    }
    fn create_dir_all(&self, path: &Path) -> Result<(), IoError> {
        self.0.create_dir_all(path)
    }
    fn list(&self, dir: &Path) -> Result<Vec<String>, IoError> {
        self.0.list(dir)
    }
    fn exists(&self, path: &Path) -> Result<bool, IoError> {
        self.0.exists(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        self.0.rename(from, to)
    }
    fn remove(&self, path: &Path) -> Result<(), IoError> {
        self.0.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> Result<(), IoError> {
        self.0.sync_dir(dir)
    }
    fn now(&self) -> Duration {
        self.0.now()
    }
    fn unix_ms(&self) -> u64 {
        self.0.unix_ms()
    }
    fn report(&self, dir: &Path) -> IoReport {
        IoReport { direct: false, ..self.0.report(dir) }
    }
}

/// The log only reads through direct files.
impl DirectFile for CachedFile {
    fn path(&self) -> &Path {
        self.0.path()
    }
    fn read_at(&self, mut buf: AlignedSliceMut<'_>, offset: u64) -> Result<(), IoError> {
        let n = self.0.read_at(&mut buf, offset)?;
        assert_eq!(n, buf.len());
        Ok(())
    }
    fn len(&self) -> Result<u64, IoError> {
        self.0.len()
    }
    fn write_at(&self, _buf: AlignedSlice<'_>, _offset: u64) -> Result<(), IoError> {
        unreachable!()
    }
    fn read_batch(&self, _ops: &mut [ReadOp<'_>]) {
        unreachable!()
    }
    fn write_batch(&self, _ops: &mut [WriteOp<'_>]) {
        unreachable!()
    }
    fn sync_data(&self) -> Result<(), IoError> {
        unreachable!()
    }
    fn allocate(&self, _len: u64) -> Result<(), IoError> {
        unreachable!()
    }
    fn truncate(&self, _len: u64) -> Result<(), IoError> {
        unreachable!()
    }
    fn cached_pages(&self) -> Option<u64> {
        None
    }
}
