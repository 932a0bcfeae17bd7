//! A data file in memory, for the tests of what is stored in it. It neither loses nor tears anything; tests of that
//! use the simulated disk.

use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bedstone_io::{
    AlignedSlice, AlignedSliceMut, DirectFile, Disk, IoError, IoMode, IoReport, LockFile, LogFile, Op, OpenMode,
    ReadOp, WriteOp,
};
use parking_lot::Mutex;

#[derive(Debug)]
pub(crate) struct MemFile {
    path: PathBuf,
    bytes: Mutex<Vec<u8>>,
}

impl MemFile {
    pub(crate) fn with_len(len: usize) -> Arc<Self> {
        Arc::new(Self { path: "data".into(), bytes: Mutex::new(vec![0; len]) })
    }

    pub(crate) fn flip_bit(&self, offset: u64, bit: u32) {
        self.bytes.lock()[offset as usize] ^= 1 << bit;
    }

    pub(crate) fn overwrite(&self, offset: u64, bytes: &[u8]) {
        self.bytes.lock()[offset as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn copy(&self, offset: u64, len: usize) -> Vec<u8> {
        self.bytes.lock()[offset as usize..][..len].to_vec()
    }
}

impl DirectFile for MemFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn read_at(&self, mut buf: AlignedSliceMut<'_>, offset: u64) -> Result<(), IoError> {
        let bytes = self.bytes.lock();
        let range = usize::try_from(offset).ok().and_then(|from| bytes.get(from..)?.get(..buf.len()));
        let Some(range) = range else {
            let error = IoError::new(Op::Read, &self.path, Error::from(ErrorKind::UnexpectedEof));
            return Err(error.at(offset, buf.len() as u64));
        };
        buf.copy_from_slice(range);
        Ok(())
    }

    fn write_at(&self, buf: AlignedSlice<'_>, offset: u64) -> Result<(), IoError> {
        let mut bytes = self.bytes.lock();
        let end = offset as usize + buf.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset as usize..end].copy_from_slice(&buf);
        Ok(())
    }

    fn read_batch(&self, ops: &mut [ReadOp<'_>]) {
        for op in ops {
            let buf = AlignedSliceMut::new(&mut op.buf).expect("the buffer of an operation is aligned");
            op.result = self.read_at(buf, op.offset);
        }
    }

    fn write_batch(&self, ops: &mut [WriteOp<'_>]) {
        for op in ops {
            op.result = self.write_at(op.buf, op.offset);
        }
    }

    fn sync_data(&self) -> Result<(), IoError> {
        Ok(())
    }

    fn len(&self) -> Result<u64, IoError> {
        Ok(self.bytes.lock().len() as u64)
    }

    fn allocate(&self, len: u64) -> Result<(), IoError> {
        let mut bytes = self.bytes.lock();
        let longer = bytes.len().max(len as usize);
        bytes.resize(longer, 0);
        Ok(())
    }

    fn truncate(&self, len: u64) -> Result<(), IoError> {
        self.bytes.lock().truncate(len as usize);
        Ok(())
    }

    fn cached_pages(&self) -> Option<u64> {
        None
    }
}

/// A medium with one data file, which opens under any name.
#[derive(Debug)]
pub(crate) struct MemDisk(pub(crate) Arc<MemFile>);

impl Disk for MemDisk {
    fn open_direct(&self, _path: &Path, _mode: OpenMode) -> Result<Arc<dyn DirectFile>, IoError> {
        Ok(self.0.clone())
    }

    fn open_log(&self, _path: &Path, _mode: OpenMode) -> Result<Arc<dyn LogFile>, IoError> {
        unreachable!("the data file is no log")
    }

    fn lock(&self, _path: &Path) -> Result<Box<dyn LockFile>, IoError> {
        unreachable!("read-only tools take no lock")
    }

    fn create_dir_all(&self, _path: &Path) -> Result<(), IoError> {
        Ok(())
    }

    fn list(&self, _dir: &Path) -> Result<Vec<String>, IoError> {
        Ok(Vec::new())
    }

    fn exists(&self, _path: &Path) -> Result<bool, IoError> {
        Ok(true)
    }

    fn rename(&self, _from: &Path, _to: &Path) -> Result<(), IoError> {
        Ok(())
    }

    fn remove(&self, _path: &Path) -> Result<(), IoError> {
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> Result<(), IoError> {
        Ok(())
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn unix_ms(&self) -> u64 {
        0
    }

    fn report(&self, _dir: &Path) -> IoReport {
        IoReport {
            mode: IoMode::Simulated,
            reason: "a file in memory".to_owned(),
            direct: false,
            mem_align: 4096,
            offset_align: 4096,
            file_system: "none".to_owned(),
        }
    }
}
