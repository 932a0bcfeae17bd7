//! Data files: direct I/O in batches.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::transfer::{Memory, Transfer, read_exact_at, write_all_at};
use super::{Engine, ring, sys};
use crate::buf::{ALIGN, AlignedBuf, AlignedSlice, AlignedSliceMut};
use crate::error::{IoError, Op};
use crate::traits::{DirectFile, ReadOp, WriteOp};

/// Zeros written at a time where the file system cannot allocate without writing.
const ZEROS: usize = 1 << 20;

/// A file of [`super::RealDisk`] for direct I/O.
#[derive(Debug)]
pub(super) struct RealDirect {
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) engine: Arc<Engine>,
    /// Requests begin at multiples of this many bytes.
    pub(super) granule: usize,
    /// io_uring does not work on this file system.
    pub(super) ring_refused: bool,
}

fn misaligned() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("the offset is not a multiple of {ALIGN}"))
}

impl RealDirect {
    fn error(&self, op: Op, source: io::Error) -> IoError {
        IoError::new(op, &self.path, source)
    }

    fn transfer<'a>(&self, memory: Memory<'a>, offset: u64) -> Transfer<'a> {
        if offset.is_multiple_of(ALIGN as u64) {
            Transfer::new(memory, offset, self.granule)
        } else {
            Transfer::failed(misaligned())
        }
    }

    fn run_one(&self, op: Op, memory: Memory<'_>, len: usize, offset: u64) -> Result<(), IoError> {
        let mut transfer = self.transfer(memory, offset);
        transfer.run_blocking(&self.file);
        transfer.into_result().map_err(|source| self.error(op, source).at(offset, len as u64))
    }

    /// Carries out all transfers: those of a batch through this thread's ring, what that cannot do through
    /// the helper threads. A single one goes by `pread` or `pwrite`, which is as fast as a ring at depth one.
    fn run_all(&self, transfers: &mut [Transfer<'_>]) {
        if transfers.len() > 1 && !self.ring_refused && self.engine.uses_uring() {
            match ring::run(self.file.as_fd(), transfers) {
                Ok(()) => {}
                Err(ring::Loss::ForGood(error)) => self.engine.lose_uring(&error),
                Err(ring::Loss::ThisTime) => {}
            }
        }
        let left = transfers.iter().filter(|transfer| transfer.request().is_some()).count();
        if left == 0 {
            return;
        }
        let queue = Mutex::new(transfers.iter_mut().filter(|transfer| transfer.request().is_some()));
        self.engine.crew.run(left - 1, &|| {
            while let Some(transfer) = { queue.lock().next() } {
                transfer.run_blocking(&self.file);
            }
        });
    }

    /// Grows the file from `present` to `len` bytes by writing zeros.
    fn write_zeros(&self, present: u64, len: u64) -> io::Result<()> {
        let align = ALIGN as u64;
        let too_big = || io::Error::from_raw_os_error(libc::EFBIG);
        // A part of a block can be written only by lengthening the file over the rest of that block.
        let mut offset = present.checked_next_multiple_of(align).ok_or_else(too_big)?;
        let end = len.checked_next_multiple_of(align).ok_or_else(too_big)?;
        self.file.set_len(offset)?;
        let zeros = AlignedBuf::zeroed(ZEROS);
        while offset < end {
            let piece = (end - offset).min(ZEROS as u64) as usize;
            write_all_at(&self.file, &zeros[..piece], offset, self.granule)?;
            offset += piece as u64;
        }
        self.file.set_len(len)
    }
}

impl DirectFile for RealDirect {
    fn path(&self) -> &Path {
        &self.path
    }

    fn read_at(&self, buf: AlignedSliceMut<'_>, offset: u64) -> Result<(), IoError> {
        let len = buf.len();
        self.run_one(Op::Read, Memory::Read(buf.into_inner()), len, offset)
    }

    fn write_at(&self, buf: AlignedSlice<'_>, offset: u64) -> Result<(), IoError> {
        self.run_one(Op::Write, Memory::Write(buf.into_inner()), buf.len(), offset)
    }

    fn read_batch(&self, ops: &mut [ReadOp<'_>]) {
        let mut transfers: Vec<_> = ops
            .iter_mut()
            .map(|op| self.transfer(Memory::Read(op.buf.reborrow().into_inner()), op.offset))
            .collect();
        self.run_all(&mut transfers);
        let results: Vec<_> = transfers.into_iter().map(Transfer::into_result).collect();
        for (op, result) in ops.iter_mut().zip(results) {
            let len = op.buf.len() as u64;
            op.result = result.map_err(|source| self.error(Op::Read, source).at(op.offset, len));
        }
    }

    fn write_batch(&self, ops: &mut [WriteOp<'_>]) {
        let mut transfers: Vec<_> =
            ops.iter().map(|op| self.transfer(Memory::Write(op.buf.into_inner()), op.offset)).collect();
        self.run_all(&mut transfers);
        for (op, transfer) in ops.iter_mut().zip(transfers) {
            let len = op.buf.len() as u64;
            op.result =
                transfer.into_result().map_err(|source| self.error(Op::Write, source).at(op.offset, len));
        }
    }

    fn sync_data(&self) -> Result<(), IoError> {
        sys::fdatasync(&self.file).map_err(|source| self.error(Op::Sync, source))
    }

    fn len(&self) -> Result<u64, IoError> {
        Ok(self.file.metadata().map_err(|source| self.error(Op::Stat, source))?.len())
    }

    fn allocate(&self, len: u64) -> Result<(), IoError> {
        let present = self.len()?;
        if len <= present {
            return Ok(());
        }
        let whole_blocks = len.checked_next_multiple_of(ALIGN as u64);
        let outcome = if whole_blocks.is_none_or(|whole| !sys::may_grow_to(whole)) {
            Err(io::Error::from_raw_os_error(libc::EFBIG))
        } else {
            match sys::fallocate(&self.file, present, len - present) {
                Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => {
                    self.write_zeros(present, len)
                }
                outcome => outcome,
            }
        };
        outcome.map_err(|source| self.error(Op::Allocate, source).at(present, len - present))
    }

    fn truncate(&self, len: u64) -> Result<(), IoError> {
        let present = self.len()?;
        if len > present {
            let source = io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{len} bytes are more than the {present} there"),
            );
            return Err(self.error(Op::Truncate, source));
        }
        self.file.set_len(len).map_err(|source| self.error(Op::Truncate, source))
    }

    fn cached_pages(&self) -> Option<u64> {
        sys::cached_pages(&self.file)
    }
}

impl RealDirect {
    /// Reads the beginning of the file, to see whether direct reads work on it. A file that is shorter, or
    /// one that the medium cannot read, has not refused.
    pub(super) fn try_read(&self) -> io::Result<()> {
        let mut block = AlignedBuf::zeroed(ALIGN);
        match read_exact_at(&self.file, &mut block, 0, self.granule) {
            Err(error) if super::probe::is_refusal(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_written_where_nothing_can_be_allocated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let engine = Arc::new(Engine::new(false, "wanted by the test".into()));
        let direct = RealDirect { file, path, engine, granule: 1, ring_refused: true };
        write_all_at(&direct.file, &[9; 5000], 0, 1).unwrap();
        let len = 3 * ZEROS as u64 + 77;
        direct.write_zeros(5000, len).unwrap();
        assert_eq!(direct.len().unwrap(), len);
        let mut all = vec![1; len as usize];
        read_exact_at(&direct.file, &mut all, 0, 1).unwrap();
        assert!(all[..5000].iter().all(|&b| b == 9) && all[5000..].iter().all(|&b| b == 0));
    }
}
