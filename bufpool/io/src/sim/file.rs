//! Open files and held locks.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::cut::torn;
use super::fault::Fault;
use super::state::{MAX_FILE, Medium, Order, State, errno};
use super::tree::Ino;
use crate::buf::{ALIGN, AlignedSlice, AlignedSliceMut};
use crate::error::{IoError, Op};
use crate::traits::{DirectFile, LockFile, LogFile, OpenMode, ReadOp, WriteOp};

/// One open file. It is dead once its disk's life has ended.
struct Handle {
    medium: Medium,
    life: u64,
    ino: Ino,
    path: PathBuf,
    direct: bool,
    writable: bool,
}

/// A file opened for direct I/O.
pub(super) struct SimDirect(Handle);

/// A file opened for buffered I/O.
pub(super) struct SimLog(Handle);

/// A held lock.
pub(super) struct SimLock {
    pub(super) medium: Medium,
    pub(super) life: u64,
    pub(super) ino: Ino,
    pub(super) path: PathBuf,
}

impl Handle {
    fn open(medium: &Medium, life: u64, path: &Path, mode: OpenMode, direct: bool) -> Result<Self, IoError> {
        let op = if mode == OpenMode::CreateNew { Op::Create } else { Op::Open };
        let ino = medium.run(life, op, path, |state, _| {
            let ino = match mode {
                OpenMode::CreateNew => state.tree.create_file(path)?,
                _ => state.tree.find_file(path)?,
            };
            let file = state.tree.file(ino)?;
            file.handles += 1;
            file.cached |= !direct;
            Ok(ino)
        });
        // An error of a create with a cut after it leaves the file to the medium, without a handle.
        let ino = ino?;
        let writable = mode != OpenMode::Read;
        Ok(Self { medium: medium.clone(), life, ino, path: path.to_path_buf(), direct, writable })
    }

    fn run<T>(&self, op: Op, work: impl FnOnce(&mut State, Order) -> io::Result<T>) -> Result<T, IoError> {
        self.medium.run(self.life, op, &self.path, work)
    }

    fn check_aligned(&self, offset: u64) -> io::Result<()> {
        if self.direct && !offset.is_multiple_of(ALIGN as u64) { Err(errno(libc::EINVAL)) } else { Ok(()) }
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(errno(libc::EBADF)) }
    }

    /// Reads what there is of `buf`; the number of bytes.
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<usize, IoError> {
        let len = buf.len() as u64;
        self.run(Op::Read, |state, order| {
            self.check_aligned(offset)?;
            let file = state.tree.file(self.ino)?;
            let there = file.size().saturating_sub(offset).min(len) as usize;
            let mut filled = there;
            if order.fault == Some(Fault::ShortRead) {
                filled = state.rng.below(there as u64) as usize;
            }
            state.tree.file(self.ino)?.read(offset, &mut buf[..filled], self.direct);
            match order.fault {
                Some(Fault::ShortRead) => return Err(errno(libc::EIO)),
                Some(Fault::FlippedRead) if there > 0 => {
                    let bit = state.rng.below(there as u64 * 8);
                    buf[(bit / 8) as usize] ^= 1 << (bit % 8);
                }
                _ => {}
            }
            if self.direct && (there as u64) < len {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends before these bytes"));
            }
            state.stats.bytes_read += there as u64;
            Ok(there)
        })
        .map_err(|error| error.at(offset, len))
    }

    fn write(&self, buf: &[u8], offset: u64) -> Result<(), IoError> {
        let len = buf.len() as u64;
        self.run(Op::Write, |state, order| {
            self.check_writable()?;
            self.check_aligned(offset)?;
            let end = offset.checked_add(len).filter(|end| *end <= MAX_FILE);
            let end = end.ok_or_else(|| errno(libc::EFBIG))?;
            let size = state.tree.file(self.ino)?.size();
            if order.interrupted || order.fault == Some(Fault::TornWrite) {
                for (start, end) in torn(offset, len, state.sector, &mut state.rng) {
                    let part = &buf[start as usize..end as usize];
                    state.put(self.ino, offset + start, part, self.direct)?;
                }
                return Err(errno(libc::EIO));
            }
            match order.fault {
                Some(Fault::LostWrite) => return Ok(()),
                Some(Fault::ShortWrite) => {
                    let done = state.rng.below(len.div_ceil(state.sector)) * state.sector;
                    state.put(self.ino, offset, &buf[..done as usize], self.direct)?;
                    return Err(errno(libc::ENOSPC));
                }
                Some(Fault::MisdirectedWrite) => {
                    let aside = if end + len <= size { end } else { offset.saturating_sub(len) };
                    return state.put(self.ino, aside, buf, self.direct);
                }
                _ => {}
            }
            state.put(self.ino, offset, buf, self.direct)?;
            state.stats.bytes_written += len;
            Ok(())
        })
        .map_err(|error| error.at(offset, len))
    }

    fn sync(&self) -> Result<(), IoError> {
        // A sync takes long on a real medium, and other threads go on meanwhile.
        std::thread::yield_now();
        self.run(Op::Sync, |state, order| {
            let (sector, rng) = (state.sector, &mut state.rng);
            let file = state.tree.file(self.ino)?;
            if order.interrupted {
                file.half_sync(sector, rng);
                return Err(errno(libc::EIO));
            }
            match order.fault {
                Some(Fault::LyingSync) => {}
                Some(fault) => {
                    if fault == Fault::PartialSync {
                        file.half_sync(sector, rng);
                    }
                    file.fail_sync();
                    return Err(errno(fault.errno().unwrap_or(libc::EIO)));
                }
                None => file.sync(),
            }
            Ok(())
        })
    }

    fn len(&self) -> Result<u64, IoError> {
        self.run(Op::Stat, |state, _| Ok(state.tree.file(self.ino)?.size()))
    }

    /// Grows the file; `partly` as far as there is room, else wholly or not at all.
    fn grow(&self, len: u64, partly: bool) -> Result<(), IoError> {
        self.run(Op::Allocate, |state, order| {
            self.check_writable()?;
            let size = state.tree.file(self.ino)?.size();
            if len <= size {
                return Ok(());
            }
            if len > MAX_FILE {
                return Err(errno(libc::EFBIG));
            }
            let room = match order.fault {
                Some(_) => size + state.rng.below(len - size),
                None => state.room(self.ino)?,
            };
            if partly || room >= len {
                state.tree.file(self.ino)?.grow(len.min(room));
            }
            if room < len { Err(errno(libc::ENOSPC)) } else { Ok(()) }
        })
        .map_err(|error| error.at(0, len))
    }

    fn cached_pages(&self) -> Option<u64> {
        let mut state = self.medium.state();
        let file = state.tree.file(self.ino).ok()?;
        Some(if file.cached { file.size().div_ceil(4096) } else { 0 })
    }
}

impl State {
    /// Writes as far as there is room; ENOSPC if that is not all.
    fn put(&mut self, ino: Ino, offset: u64, bytes: &[u8], direct: bool) -> io::Result<()> {
        let end = offset + bytes.len() as u64;
        let grows = end > self.tree.file(ino)?.size();
        let room = if grows { self.room(ino)? } else { end };
        let fits = room.saturating_sub(offset).min(bytes.len() as u64) as usize;
        self.tree.file(ino)?.write(offset, &bytes[..fits], direct);
        if fits < bytes.len() { Err(errno(libc::ENOSPC)) } else { Ok(()) }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.medium.state();
        if state.life != self.life || !state.powered {
            return;
        }
        if let Ok(file) = state.tree.file(self.ino) {
            file.handles = file.handles.saturating_sub(1);
            if file.handles == 0 {
                state.tree.collect();
            }
        }
    }
}

impl SimDirect {
    pub(super) fn open(medium: &Medium, life: u64, path: &Path, mode: OpenMode) -> Result<Self, IoError> {
        Handle::open(medium, life, path, mode, true).map(Self)
    }
}

impl SimLog {
    pub(super) fn open(medium: &Medium, life: u64, path: &Path, mode: OpenMode) -> Result<Self, IoError> {
        Handle::open(medium, life, path, mode, false).map(Self)
    }
}

impl DirectFile for SimDirect {
    fn path(&self) -> &Path {
        &self.0.path
    }

    fn read_at(&self, mut buf: AlignedSliceMut<'_>, offset: u64) -> Result<(), IoError> {
        self.0.read(&mut buf, offset).map(|_| ())
    }

    fn write_at(&self, buf: AlignedSlice<'_>, offset: u64) -> Result<(), IoError> {
        self.0.write(&buf, offset)
    }

    fn read_batch(&self, ops: &mut [ReadOp<'_>]) {
        let order = self.0.medium.state().rng.order(ops.len());
        for i in order {
            let op = &mut ops[i];
            op.result = self.0.read(&mut op.buf, op.offset).map(|_| ());
        }
    }

    fn write_batch(&self, ops: &mut [WriteOp<'_>]) {
        let order = self.0.medium.state().rng.order(ops.len());
        for i in order {
            let op = &mut ops[i];
            op.result = self.0.write(&op.buf, op.offset);
        }
    }

    fn sync_data(&self) -> Result<(), IoError> {
        self.0.sync()
    }

    fn len(&self) -> Result<u64, IoError> {
        self.0.len()
    }

    fn allocate(&self, len: u64) -> Result<(), IoError> {
        self.0.grow(len, false)
    }

    fn truncate(&self, len: u64) -> Result<(), IoError> {
        self.0
            .run(Op::Truncate, |state, _| {
                self.0.check_writable()?;
                state.tree.file(self.0.ino)?.shrink(len);
                Ok(())
            })
            .map_err(|error| error.at(len, 0))
    }

    fn cached_pages(&self) -> Option<u64> {
        self.0.cached_pages()
    }
}

impl LogFile for SimLog {
    fn path(&self) -> &Path {
        &self.0.path
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, IoError> {
        self.0.read(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), IoError> {
        self.0.write(buf, offset)
    }

    fn sync_data(&self) -> Result<(), IoError> {
        self.0.sync()
    }

    fn sync_all(&self) -> Result<(), IoError> {
        self.0.sync()
    }

    fn len(&self) -> Result<u64, IoError> {
        self.0.len()
    }

    fn allocate_zeroed(&self, len: u64) -> Result<(), IoError> {
        self.0.grow(len, true)
    }

    fn allocate(&self, len: u64) -> Result<(), IoError> {
        self.0.grow(len, false)
    }

    fn cached_pages(&self) -> Option<u64> {
        self.0.cached_pages()
    }
}

impl LockFile for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.medium.state();
        if state.life == self.life && state.powered {
            state.locks.remove(&self.ino);
        }
    }
}

impl fmt::Debug for SimDirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDirect").field("path", &self.0.path).finish_non_exhaustive()
    }
}

impl fmt::Debug for SimLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimLog").field("path", &self.0.path).finish_non_exhaustive()
    }
}

impl fmt::Debug for SimLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimLock").field("path", &self.path).finish_non_exhaustive()
    }
}
