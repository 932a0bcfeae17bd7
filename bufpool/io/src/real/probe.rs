//! What direct I/O does in a directory, found out by doing it. Opening with O_DIRECT proves nothing:
//! overlayfs and some FUSE file systems accept the flag and fail at the first read or write, tmpfs and btrfs
//! accept it and go through the page cache all the same.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::transfer::{read_exact_at, write_all_at};
use super::{ring, sys};
use crate::buf::{ALIGN, AlignedBuf};

/// What direct I/O does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Direct {
    /// Written and read back past the page cache.
    Works,
    /// It is accepted, but the pages stay in the page cache; the text says how that showed.
    Cached(String),
    /// It does not work; the text says why.
    Refused(String),
    /// It could not be tried; the text says why.
    Untried(String),
}

/// What was found out about a directory.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) direct: Direct,
    pub(super) mem_align: u32,
    pub(super) offset_align: u32,
    pub(super) file_system: String,
    /// Why io_uring cannot be used here although it works elsewhere.
    pub(super) ring_refused: Option<String>,
}

impl Facts {
    /// Whether the answer may be remembered.
    pub(super) fn is_certain(&self) -> bool {
        !matches!(self.direct, Direct::Untried(_))
    }
}

/// The system says that this cannot be done here, as opposed to: it went wrong.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOSYS | libc::ESPIPE))
}

/// Whether the alignments that a file system asks for are met by [`ALIGN`]; the reason if not.
pub(super) fn check_alignment(alignment: Option<(u32, u32)>) -> Result<(u32, u32), String> {
    let assumed = ALIGN as u32;
    match alignment {
        None => Ok((assumed, assumed)),
        Some((0, _) | (_, 0)) => Err("the file system says that it does no direct I/O on this file".into()),
        Some((mem, offset)) if assumed.is_multiple_of(mem) && assumed.is_multiple_of(offset) => {
            Ok((mem, offset))
        }
        Some((mem, offset)) => Err(format!(
            "direct I/O wants memory aligned to {mem} and offsets aligned to {offset} bytes, more than the {ALIGN} in use"
        )),
    }
}

/// Tries direct I/O in `dir` with a small file that has no name, or has one for an instant.
pub(super) fn probe(dir: &Path, with_ring: bool) -> Facts {
    let mut facts = Facts {
        direct: Direct::Works,
        mem_align: ALIGN as u32,
        offset_align: ALIGN as u32,
        file_system: sys::file_system(dir),
        ring_refused: None,
    };
    facts.direct = match nameless_file(dir) {
        Ok(file) => try_file(&file, with_ring, &mut facts),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            Direct::Refused(format!("opening with O_DIRECT failed: {error}"))
        }
        Err(error) => Direct::Untried(format!("no file could be made for the probe: {error}")),
    };
    facts
}

fn try_file(file: &File, with_ring: bool, facts: &mut Facts) -> Direct {
    match check_alignment(sys::direct_alignment(file)) {
        Ok((mem, offset)) => (facts.mem_align, facts.offset_align) = (mem, offset),
        Err(reason) => return Direct::Refused(reason),
    }
    let pattern = AlignedBuf::copy_of(&[0xb5; 2 * ALIGN]);
    if !sys::may_grow_to(pattern.len() as u64) {
        return Direct::Untried("RLIMIT_FSIZE leaves no room for the probe".into());
    }
    let outcome = |what: &str, error: io::Error| {
        let text = format!("{what} of {} aligned bytes failed: {error}", pattern.len());
        if is_refusal(&error) { Direct::Refused(text) } else { Direct::Untried(text) }
    };
    if let Err(error) = write_all_at(file, &pattern, 0, ALIGN) {
        return outcome("a direct write", error);
    }
    let mut back = AlignedBuf::zeroed(pattern.len());
    if let Err(error) = read_exact_at(file, &mut back, 0, ALIGN) {
        return outcome("a direct read", error);
    }
    if *back != *pattern {
        return Direct::Refused("a direct read gave other bytes than a direct write had put there".into());
    }
    if with_ring {
        back.fill(0);
        if let Err(error) = ring::probe(file.as_fd(), &pattern, &mut back) {
            facts.ring_refused = Some(format!("a direct read through io_uring failed: {error}"));
        }
    }
    match sys::cached_pages(file) {
        Some(pages) if pages > 0 => Direct::Cached(format!(
            "{} accepts O_DIRECT and keeps the pages in the page cache",
            facts.file_system
        )),
        _ => Direct::Works,
    }
}

/// A file for direct I/O in `dir` that goes away with its descriptor.
fn nameless_file(dir: &Path) -> io::Result<File> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    match options.clone().custom_flags(libc::O_TMPFILE | libc::O_DIRECT).open(dir) {
        // No O_TMPFILE here, or an old kernel that ignores the flag and sees a directory; or no O_DIRECT.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EINVAL | libc::EOPNOTSUPP | libc::EISDIR | libc::ENOENT | libc::ENOSYS)
            ) => {}
        outcome => return outcome,
    }
    let path =
        dir.join(format!(".bedstone-probe-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let file = options.create_new(true).custom_flags(libc::O_DIRECT).open(&path);
    // Some file systems create the file and then refuse to open it directly, so it is removed either way,
    // except where it was somebody else's.
    if file.as_ref().map_or_else(|error| error.kind() != io::ErrorKind::AlreadyExists, |_| true) {
        let _ = std::fs::remove_file(&path);
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alignments_are_judged() {
        assert_eq!(check_alignment(None), Ok((4096, 4096)));
        assert_eq!(check_alignment(Some((512, 512))), Ok((512, 512)));
        assert_eq!(check_alignment(Some((4, 4096))), Ok((4, 4096)));
        assert!(check_alignment(Some((0, 0))).is_err());
        assert!(check_alignment(Some((512, 65536))).is_err());
    }

    #[test]
    fn a_directory_that_takes_no_files_is_untried() {
        let facts = probe(Path::new("/nowhere/at/all"), false);
        assert!(matches!(facts.direct, Direct::Untried(_)), "{facts:?}");
        assert!(!facts.is_certain());
    }

    #[test]
    fn the_probe_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let facts = probe(dir.path(), true);
        eprintln!("{facts:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
