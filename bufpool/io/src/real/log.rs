//! Log segments and small metadata files: through the page cache, durable by `fdatasync`.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::sys;
use super::transfer::{Memory, Transfer, write_all_at};
use crate::error::{IoError, Op};
use crate::traits::LogFile;

/// Zeros written at a time when a file is made longer.
const ZEROS: usize = 1 << 20;

/// A file of [`super::RealDisk`] for buffered I/O.
#[derive(Debug)]
pub(super) struct RealLog {
    pub(super) file: File,
    pub(super) path: PathBuf,
}

impl RealLog {
    fn error(&self, op: Op, source: io::Error) -> IoError {
        IoError::new(op, &self.path, source)
    }

    /// Makes the file `len` bytes long, if it is shorter, by `fill`, which is given the present length.
    fn grow(&self, len: u64, fill: impl FnOnce(u64) -> io::Result<()>) -> Result<(), IoError> {
        let present = self.len()?;
        if len <= present {
            return Ok(());
        }
        let outcome = if sys::may_grow_to(len) {
            fill(present)
        } else {
            Err(io::Error::from_raw_os_error(libc::EFBIG))
        };
        outcome.map_err(|source| self.error(Op::Allocate, source).at(present, len - present))
    }

    fn write_zeros(&self, present: u64, len: u64) -> io::Result<()> {
        let zeros = vec![0_u8; ZEROS.min((len - present) as usize)];
        let mut offset = present;
        while offset < len {
            let piece = (len - offset).min(zeros.len() as u64) as usize;
            write_all_at(&self.file, &zeros[..piece], offset, 1)?;
            offset += piece as u64;
        }
        Ok(())
    }
}

impl LogFile for RealLog {
    fn path(&self) -> &Path {
        &self.path
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, IoError> {
        use std::os::unix::fs::FileExt;
        let mut filled = 0;
        while filled < buf.len() {
            match self.file.read_at(&mut buf[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(moved) => filled += moved,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error(Op::Read, error).at(offset, buf.len() as u64)),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), IoError> {
        let mut transfer = Transfer::new(Memory::Write(buf), offset, 1);
        transfer.run_blocking(&self.file);
        transfer.into_result().map_err(|source| self.error(Op::Write, source).at(offset, buf.len() as u64))
    }

    fn sync_data(&self) -> Result<(), IoError> {
        sys::fdatasync(&self.file).map_err(|source| self.error(Op::Sync, source))
    }

    fn sync_all(&self) -> Result<(), IoError> {
        sys::fsync(&self.file).map_err(|source| self.error(Op::Sync, source))
    }

    fn len(&self) -> Result<u64, IoError> {
        Ok(self.file.metadata().map_err(|source| self.error(Op::Stat, source))?.len())
    }

    fn allocate_zeroed(&self, len: u64) -> Result<(), IoError> {
        self.grow(len, |present| self.write_zeros(present, len))
    }

    fn allocate(&self, len: u64) -> Result<(), IoError> {
        self.grow(len, |present| match sys::fallocate(&self.file, present, len - present) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => {
                self.write_zeros(present, len)
            }
            outcome => outcome,
        })
    }

    fn cached_pages(&self) -> Option<u64> {
        sys::cached_pages(&self.file)
    }
}
