//! The real disk.
//!
//! Data files are opened with O_DIRECT, so that nothing is cached both by the pool and by the kernel: 312 MB
//! of pool cost 313 MB of memory, against 625 MB buffered. Batches of reads and writes go through io_uring,
//! one ring per thread, or through `pread` and `pwrite` spread over helper threads. The second way is a full
//! citizen: from eight threads on it was level with rings in every measurement, and containers whose seccomp
//! profile forbids io_uring have nothing else. A single operation always goes by `pread` or `pwrite`, because
//! a ring gains nothing at depth one (42 against 43 us for 4 KiB); at depth 32 it gains a factor of five.
//!
//! Log files go through the page cache, where a small append costs 2 us, and are made durable by `fdatasync`.
//! Zeros are written once when a segment is made: a file that grows costs a journal write per commit on ext4
//! and a second flush per commit on XFS.
//!
//! **A direct write that has returned is not durable**: 200 of them caused no flush of the drive's cache.
//! `sync_data` is what makes it so. It is never repeated after an error, not even after EINTR, because the
//! kernel reports a failed write-back only once.
//!
//! **What is used is probed**, by writing and reading, when the first file of a directory is opened, and
//! io_uring already at [`RealDisk::new`]; [`Disk::report`] tells the outcome and its reason. When io_uring is
//! forbidden later (a seccomp filter installed after the start) batches go by `pread` from then on, and the
//! report says so.
//!
//! Linux 5.11 to 5.15.2 can lose the wake-up of a write through io_uring, so that it never completes
//! (MariaDB's bug MDEV-26674); [`IoChoice::Auto`] does not use io_uring there, [`IoChoice::Uring`] does.
//!
//! **Limits on the file size** (RLIMIT_FSIZE): `allocate` and `allocate_zeroed` answer EFBIG before they
//! exceed it. A plain write beyond it raises SIGXFSZ in the process, as every write does; so grow files
//! before writing to them.

mod crew;
mod direct;
mod lock;
mod log;
mod probe;
mod progress;
mod ring;
mod sys;
#[cfg(test)]
mod tests;
mod transfer;

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use crate::buf::{ALIGN, AlignedBuf};
use crate::error::{IoError, Op};
use crate::traits::{DirectFile, Disk, IoMode, IoReport, LockFile, LogFile, OpenMode};
use crew::Crew;
use direct::RealDirect;
use log::RealLog;
use probe::{Direct, Facts};

/// Which way batches are to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IoChoice {
    /// io_uring if it works here, else `pread` and `pwrite`.
    #[default]
    Auto,
    /// io_uring, or an error.
    Uring,
    /// `pread` and `pwrite`, on helper threads.
    Pread,
}

/// Why a [`RealDisk`] cannot be had as asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The environment names a choice that does not exist.
    #[error("BEDSTONE_IO is {value:?}; it can be auto, uring or pread")]
    UnknownChoice {
        /// What it says.
        value: String,
    },
    /// io_uring was asked for and does not work.
    #[error("io_uring was asked for and does not work here")]
    NoUring {
        /// The answer to setting up a ring or to the first read through it.
        source: io::Error,
    },
}

impl IoChoice {
    /// The choice that the environment variable `BEDSTONE_IO` names: `auto`, `uring` or `pread`; `Auto` if it
    /// is not set or empty.
    pub fn from_env() -> Result<Self, SetupError> {
        match std::env::var_os("BEDSTONE_IO") {
            None => Ok(Self::Auto),
            Some(value) => value.to_string_lossy().parse(),
        }
    }
}

impl std::str::FromStr for IoChoice {
    type Err = SetupError;
    fn from_str(value: &str) -> Result<Self, SetupError> {
        match value {
            "" | "auto" => Ok(Self::Auto),
            "uring" => Ok(Self::Uring),
            "pread" => Ok(Self::Pread),
            other => Err(SetupError::UnknownChoice { value: other.into() }),
        }
    }
}

/// What the files of one disk share.
#[derive(Debug)]
struct Engine {
    uring: AtomicBool,
    reason: Mutex<String>,
    crew: Crew,
}

impl Engine {
    fn new(uring: bool, reason: String) -> Self {
        Self { uring: AtomicBool::new(uring), reason: Mutex::new(reason), crew: Crew::new() }
    }

    fn uses_uring(&self) -> bool {
        self.uring.load(Ordering::Relaxed)
    }

    /// io_uring worked at the start and is forbidden now.
    fn lose_uring(&self, error: &io::Error) {
        if self.uring.swap(false, Ordering::Relaxed) {
            tracing::warn!(%error, "io_uring has stopped working; going on with pread and pwrite");
            let errno = error.raw_os_error().map_or("", errno_name);
            *self.reason.lock() = format!("io_uring worked at first, then failed: {errno} {error}");
        }
    }
}

/// The system's name of an error that setting up io_uring gives, since that is what people search for.
fn errno_name(errno: i32) -> &'static str {
    match errno {
        libc::EPERM => "EPERM",
        libc::EACCES => "EACCES",
        libc::ENOSYS => "ENOSYS",
        libc::ENOMEM => "ENOMEM",
        libc::EMFILE => "EMFILE",
        libc::ENFILE => "ENFILE",
        libc::EINVAL => "EINVAL",
        _ => "",
    }
}

/// The file system of the machine, behind [`Disk`].
#[derive(Debug)]
pub struct RealDisk {
    engine: Arc<Engine>,
    allow_buffered: bool,
    began: Instant,
    /// What was found out, by device and inode of the directory.
    directories: Mutex<HashMap<(u64, u64), Facts>>,
}

impl RealDisk {
    /// The disk, with batches going the way of `choice`. Where O_DIRECT does not work, opening a data file is
    /// an error (`is_direct_refused` holds), or goes through the page cache if `allow_buffered`.
    ///
    /// # Errors
    /// [`SetupError::NoUring`] if `choice` is [`IoChoice::Uring`] and a read through a ring fails.
    pub fn new(choice: IoChoice, allow_buffered: bool) -> Result<Arc<RealDisk>, SetupError> {
        let (uring, reason) = choose(choice, &sys::kernel_release())?;
        tracing::debug!(uring, reason, "disk opened");
        Ok(Arc::new(RealDisk {
            engine: Arc::new(Engine::new(uring, reason)),
            allow_buffered,
            began: Instant::now(),
            directories: Mutex::default(),
        }))
    }

    /// What direct I/O does in `dir`, as found out earlier or now.
    fn facts(&self, dir: &Path) -> Facts {
        let key = std::fs::metadata(dir).ok().map(|meta| (meta.dev(), meta.ino()));
        if let Some(facts) = key.and_then(|key| self.directories.lock().get(&key).cloned()) {
            return facts;
        }
        let facts = probe::probe(dir, self.engine.uses_uring());
        if let Some(key) = key.filter(|_| facts.is_certain()) {
            self.directories.lock().insert(key, facts.clone());
        }
        facts
    }

    /// Opens for direct I/O and tries it; the reason if the file system will not have it.
    fn open_past_cache(&self, path: &Path, mode: OpenMode, facts: &Facts) -> Result<RealDirect, Refusal> {
        let refuse = |reason: String| Refusal::Direct(reason);
        if let Direct::Refused(reason) = &facts.direct {
            return Err(refuse(reason.clone()));
        }
        let opened = open(path, mode, libc::O_DIRECT).map_err(|error| match error.raw_os_error() {
            Some(libc::EINVAL) => refuse(format!("opening with O_DIRECT failed: {error}")),
            _ => Refusal::Other(error),
        });
        let tried = opened.and_then(|file| {
            let (_, offset_align) = probe::check_alignment(sys::direct_alignment(&file)).map_err(refuse)?;
            let direct = self.direct_file(file, path, offset_align as usize, facts);
            direct
                .try_read()
                .map_err(|error| refuse(format!("a direct read of the file failed: {error}")))?;
            Ok(direct)
        });
        // A refused file may have been made all the same, by this call, since the mode demands that it was
        // not there. It is taken back, so that the name is free for a buffered file.
        if mode == OpenMode::CreateNew && matches!(tried, Err(Refusal::Direct(_))) {
            let _ = std::fs::remove_file(path);
        }
        tried
    }

    fn direct_file(&self, file: File, path: &Path, granule: usize, facts: &Facts) -> RealDirect {
        RealDirect {
            file,
            path: path.to_path_buf(),
            engine: Arc::clone(&self.engine),
            granule,
            ring_refused: facts.ring_refused.is_some(),
        }
    }
}

/// Why a file was not opened for direct I/O.
enum Refusal {
    /// The file system does not do it.
    Direct(String),
    /// The file cannot be opened.
    Other(io::Error),
}

/// Whether to use io_uring, and why.
fn choose(choice: IoChoice, kernel: &str) -> Result<(bool, String), SetupError> {
    if choice == IoChoice::Pread {
        return Ok((false, "pread was asked for".into()));
    }
    if choice == IoChoice::Auto && writes_may_hang(kernel) {
        return Ok((
            false,
            format!("io_uring of Linux {kernel} can lose the completion of a write (MDEV-26674)"),
        ));
    }
    match (probe_uring(), choice) {
        (Ok(()), IoChoice::Uring) => {
            Ok((true, "io_uring was asked for, and a read through it worked".into()))
        }
        (Ok(()), _) => Ok((true, "a read through io_uring worked".into())),
        (Err(source), IoChoice::Uring) => Err(SetupError::NoUring { source }),
        (Err(error), _) => {
            let errno = error.raw_os_error().map_or("", errno_name);
            let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
            let why = match (error.raw_os_error(), disabled.trim()) {
                (Some(libc::EPERM), "1" | "2") => ", forbidden by the sysctl kernel.io_uring_disabled",
                (Some(libc::EPERM), _) => ", forbidden, as a seccomp filter does",
                (Some(libc::ENOSYS), _) => ", absent from the kernel or hidden by a seccomp filter",
                (Some(libc::ENOMEM), _) => ", as with RLIMIT_MEMLOCK used up",
                _ => "",
            };
            Ok((false, format!("io_uring failed its probe: {errno} {error}{why}")))
        }
    }
}

/// Sets up a ring and reads through it from a file in memory.
fn probe_uring() -> io::Result<()> {
    let expected = AlignedBuf::copy_of(&[0x5b; ALIGN]);
    let mut memory = AlignedBuf::zeroed(ALIGN);
    let file = sys::memory_file()?;
    if !sys::may_grow_to(expected.len() as u64) {
        // A write beyond RLIMIT_FSIZE, to a file in memory too, would end the process.
        return Err(io::Error::other("RLIMIT_FSIZE leaves no room for the probe"));
    }
    transfer::write_all_at(&file, &expected, 0, ALIGN)?;
    ring::probe(file.as_fd(), &expected, &mut memory)
}

/// Linux 5.11 to 5.15.2, by the release that the kernel gives itself. Distributions that have mended an older
/// release cannot be told apart by it.
fn writes_may_hang(release: &str) -> bool {
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    let version = (next(), next(), next());
    ((5, 11, 0)..=(5, 15, 2)).contains(&version)
}

/// Opens a file with additional flags.
fn open(path: &Path, mode: OpenMode, flags: i32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags);
    match mode {
        OpenMode::Read => {}
        OpenMode::ReadWrite => {
            options.write(true);
        }
        OpenMode::CreateNew => {
            options.write(true).create_new(true);
        }
    }
    options.open(path)
}

/// The operation that an opening counts as.
fn opening(mode: OpenMode) -> Op {
    if mode == OpenMode::CreateNew { Op::Create } else { Op::Open }
}

/// The directory in which `path` lies.
fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Disk for RealDisk {
    fn open_direct(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DirectFile>, IoError> {
        let fail = |source| IoError::new(opening(mode), path, source);
        let facts = self.facts(directory_of(path));
        match self.open_past_cache(path, mode, &facts) {
            Ok(direct) => Ok(Arc::new(direct)),
            Err(Refusal::Other(error)) => Err(fail(error)),
            Err(Refusal::Direct(reason)) if !self.allow_buffered => {
                let message =
                    format!("direct I/O does not work, and the page cache was not allowed instead: {reason}");
                Err(fail(io::Error::new(io::ErrorKind::Unsupported, message)))
            }
            Err(Refusal::Direct(reason)) => {
                tracing::warn!(path = %path.display(), reason, "data file goes through the page cache");
                let file = open(path, mode, 0).map_err(fail)?;
                Ok(Arc::new(self.direct_file(file, path, 1, &facts)))
            }
        }
    }

    fn open_log(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn LogFile>, IoError> {
        let file = open(path, mode, 0).map_err(|source| IoError::new(opening(mode), path, source))?;
        Ok(Arc::new(RealLog { file, path: path.to_path_buf() }))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn LockFile>, IoError> {
        lock::lock(path)
    }

    fn create_dir_all(&self, path: &Path) -> Result<(), IoError> {
        std::fs::create_dir_all(path).map_err(|source| IoError::new(Op::CreateDir, path, source))
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>, IoError> {
        let fail = |source| IoError::new(Op::Stat, dir, source);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(fail)? {
            names.push(entry.map_err(fail)?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    fn exists(&self, path: &Path) -> Result<bool, IoError> {
        path.try_exists().map_err(|source| IoError::new(Op::Stat, path, source))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        std::fs::rename(from, to).map_err(|source| IoError::new(Op::Rename, from, source))
    }

    fn remove(&self, path: &Path) -> Result<(), IoError> {
        std::fs::remove_file(path).map_err(|source| IoError::new(Op::Remove, path, source))
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), IoError> {
        File::open(dir)
            .and_then(|dir| sys::fsync(&dir))
            .map_err(|source| IoError::new(Op::SyncDir, dir, source))
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn unix_ms(&self) -> u64 {
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn report(&self, dir: &Path) -> IoReport {
        let facts = self.facts(dir);
        let uring = self.engine.uses_uring() && facts.ring_refused.is_none();
        let mut reason = self.engine.reason.lock().clone();
        if let Some(refused) = facts.ring_refused.filter(|_| self.engine.uses_uring()) {
            reason = format!("{reason}; here {refused}");
        }
        let direct = match facts.direct {
            Direct::Works => true,
            Direct::Cached(why) | Direct::Refused(why) => {
                reason = format!("{reason}; not direct: {why}");
                false
            }
            Direct::Untried(why) => {
                reason = format!("{reason}; direct I/O was not tried: {why}");
                false
            }
        };
        IoReport {
            mode: if uring { IoMode::Uring } else { IoMode::Pread },
            reason,
            direct,
            mem_align: facts.mem_align,
            offset_align: facts.offset_align,
            file_system: facts.file_system,
        }
    }
}
