//! The lock file: `flock(2)` on a file that says who holds it. The kernel gives the lock back when the holder
//! dies, so a file left behind locks nobody out.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::sys;
use crate::error::{IoError, Op};
use crate::traits::LockFile;

/// A held lock.
#[derive(Debug)]
struct RealLock {
    file: File,
    /// The process that took it. A forked child shares the lock and must not give it back.
    process: u32,
}

impl LockFile for RealLock {}

impl Drop for RealLock {
    fn drop(&mut self) {
        if self.process == std::process::id() {
            // The file keeps its name: to remove it would let two processes hold locks on two files of one
            // name.
            let _ = self.file.set_len(0);
            let _ = self.file.unlock();
        }
    }
}

/// Takes the lock at `path`; see [`crate::Disk::lock`].
pub(super) fn lock(path: &Path) -> Result<Box<dyn LockFile>, IoError> {
    let fail = |source| IoError::new(Op::Lock, path, source);
    loop {
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(fail)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(fail(held_by(&mut file))),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(TryLockError::Error(error)) => return Err(fail(error)),
        }
        // Somebody may have removed or replaced the file between our opening and locking it; a lock on a file
        // that no longer has the name excludes nobody.
        let ours = file.metadata().map_err(fail)?;
        match std::fs::metadata(path) {
            Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) => {}
            Ok(_) => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(fail(error)),
        }
        let process = std::process::id();
        // The lock holds whether or not its holder can be named: a full disk must not keep anybody from
        // opening. The old text is written over before it is cut off, because that needs no new block.
        let text = format!("{process}\n");
        // A write beyond RLIMIT_FSIZE would end the process.
        let written = if sys::may_grow_to(text.len() as u64) {
            file.write_all(text.as_bytes()).and_then(|()| file.set_len(text.len() as u64))
        } else {
            Err(io::Error::from_raw_os_error(libc::EFBIG))
        };
        if let Err(error) = written {
            tracing::debug!(path = %path.display(), %error, "the lock file does not name its holder");
        }
        return Ok(Box::new(RealLock { file, process }));
    }
}

/// The error of a lock that somebody else has.
fn held_by(file: &mut File) -> io::Error {
    let mut text = String::new();
    let holder = file.take(32).read_to_string(&mut text).ok().and_then(|_| text.trim().parse::<u32>().ok());
    let message = match holder {
        Some(process) if process == std::process::id() => {
            format!("held by process {process}, which is this one")
        }
        Some(process) => format!("held by process {process}"),
        None => "held by another process".into(),
    };
    io::Error::new(io::ErrorKind::WouldBlock, message)
}
