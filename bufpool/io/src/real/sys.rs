//! System calls that the standard library does not offer, each behind a safe function. All `unsafe` of this
//! module is the calling of C: every pointer passed is to a live local or to nothing.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `cachestat(2)`, Linux 6.5; the same number on every architecture.
const SYS_CACHESTAT: libc::c_long = 451;

/// Pages are counted in these units whatever the kernel's page size is.
const COUNTED_PAGE: u64 = 4096;

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `fdatasync`, once. Not even EINTR is answered by a second call: a failed call may have consumed the
/// kernel's record of a failed write, and the next one would then report success.
pub(super) fn fdatasync(file: &File) -> io::Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::fdatasync(file.as_raw_fd()) })
}

/// `fsync`, once, as [`fdatasync`].
pub(super) fn fsync(file: &File) -> io::Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::fsync(file.as_raw_fd()) })
}

/// Allocates blocks for `len` bytes from `offset` and lengthens the file to their end.
pub(super) fn fallocate(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let too_big = |_| io::Error::from_raw_os_error(libc::EFBIG);
    let offset = libc::off64_t::try_from(offset).map_err(too_big)?;
    let len = libc::off64_t::try_from(len).map_err(too_big)?;
    loop {
        // SAFETY: takes no pointers.
        match check(unsafe { libc::fallocate64(file.as_raw_fd(), 0, offset, len) }) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// Alignments for direct I/O on `file` as (memory, offset) in bytes; `None` if the file system does not say
/// (before Linux 6.1, btrfs, tmpfs). Zeros mean that the file takes no direct I/O.
pub(super) fn direct_alignment(file: &File) -> Option<(u32, u32)> {
    let mut stat = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is a C string, empty with AT_EMPTY_PATH, and `stat` is room for one structure.
    let outcome = check(unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            stat.as_mut_ptr(),
        )
    });
    // SAFETY: all of it is integers, zeroed above.
    let stat = unsafe { stat.assume_init() };
    (outcome.is_ok() && stat.stx_mask & libc::STATX_DIOALIGN != 0)
        .then_some((stat.stx_dio_mem_align, stat.stx_dio_offset_align))
}

/// Name of the type of the file system on which `path` lies.
pub(super) fn file_system(path: &Path) -> String {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return "unknown".into() };
    let mut stat = MaybeUninit::<libc::statfs64>::zeroed();
    // SAFETY: the path is a C string, and `stat` is room for one structure.
    let outcome = check(unsafe { libc::statfs64(path.as_ptr(), stat.as_mut_ptr()) });
    // SAFETY: all of it is integers, zeroed above.
    let magic = unsafe { stat.assume_init() }.f_type as u64 & 0xffff_ffff;
    if outcome.is_err() {
        return "unknown".into();
    }
    // Numbers from statfs(2) and linux/magic.h.
    let name = match magic {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x794c_7630 => "overlayfs",
        0x2fc1_2fc1 => "zfs",
        0xf2f5_2010 => "f2fs",
        0xca45_1a4e => "bcachefs",
        0x6969 => "nfs",
        0x6573_5546 => "fuse",
        0xff53_4d42 | 0xfe53_4d42 => "smb",
        0x0102_1997 => "9p",
        0x8584_58f6 => "ramfs",
        0x4d44 => "vfat",
        0x2011_bab0 => "exfat",
        0x00c3_6400 => "ceph",
        0x0116_1970 => "gfs2",
        0x7461_636f => "ocfs2",
        0x7366_746e => "ntfs",
        _ => return format!("0x{magic:x}"),
    };
    name.into()
}

/// How many 4 KiB pages of `file` the kernel has cached, if it can be asked.
pub(super) fn cached_pages(file: &File) -> Option<u64> {
    cachestat(file).or_else(|| mincore(file))
}

fn cachestat(file: &File) -> Option<u64> {
    /// `struct cachestat_range`; a length of 0 means up to the end.
    #[repr(C)]
    struct Range {
        offset: u64,
        len: u64,
    }
    /// `struct cachestat`.
    #[repr(C)]
    #[derive(Default)]
    struct Stat {
        cached: u64,
        dirty: u64,
        writeback: u64,
        evicted: u64,
        recently_evicted: u64,
    }
    let range = Range { offset: 0, len: 0 };
    let mut stat = Stat::default();
    // SAFETY: both pointers are to structures of the layout that the kernel expects, alive for the call.
    let outcome =
        unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut stat, 0_u32) };
    (outcome == 0).then(|| stat.cached * kernel_page() / COUNTED_PAGE)
}

fn mincore(file: &File) -> Option<u64> {
    /// Mapped at a time; a multiple of every page size.
    const PIECE: u64 = 1 << 30;
    let len = file.metadata().ok()?.len();
    let page = kernel_page();
    let mut cached = 0;
    let mut offset = 0;
    while offset < len {
        let piece = (len - offset).min(PIECE) as usize;
        let mut resident = vec![0_u8; piece.div_ceil(page as usize)];
        // SAFETY: a fresh mapping at an address of the kernel's choice. Its bytes are never looked at, so it
        // does not matter that others may change or shorten the file; `mincore` writes one byte per page into
        // `resident`, which has so many; and exactly this mapping is removed again.
        unsafe {
            let start = libc::mmap64(
                std::ptr::null_mut(),
                piece,
                libc::PROT_READ,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                offset as libc::off64_t,
            );
            if start == libc::MAP_FAILED {
                return None;
            }
            let asked = libc::mincore(start, piece, resident.as_mut_ptr());
            libc::munmap(start, piece);
            if asked != 0 {
                return None;
            }
        }
        cached += resident.iter().filter(|&&page| page & 1 != 0).count() as u64;
        offset += piece as u64;
    }
    Some(cached * page / COUNTED_PAGE)
}

fn kernel_page() -> u64 {
    // SAFETY: takes no pointers.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(COUNTED_PAGE).max(COUNTED_PAGE)
}

/// Whether this process may make a file so long (the system's own limit, and RLIMIT_FSIZE). A write beyond
/// the limit raises SIGXFSZ, which ends a process that has not arranged for it, before the EFBIG of the call
/// can be seen.
pub(super) fn may_grow_to(len: u64) -> bool {
    let mut limit = libc::rlimit64 { rlim_cur: libc::RLIM64_INFINITY, rlim_max: libc::RLIM64_INFINITY };
    // SAFETY: the pointer is to a live structure.
    let asked = check(unsafe { libc::getrlimit64(libc::RLIMIT_FSIZE, &raw mut limit) });
    i64::try_from(len).is_ok()
        && (asked.is_err() || limit.rlim_cur == libc::RLIM64_INFINITY || len <= limit.rlim_cur)
}

/// A file in memory without a name, for probes.
pub(super) fn memory_file() -> io::Result<File> {
    // SAFETY: the name is a C string.
    let fd = unsafe { libc::memfd_create(c"bedstone-probe".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// The kernel's release, such as "6.18.0-generic".
pub(super) fn kernel_release() -> String {
    let mut name = MaybeUninit::<libc::utsname>::zeroed();
    // SAFETY: `name` is room for one structure.
    unsafe { libc::uname(name.as_mut_ptr()) };
    // SAFETY: all of it is characters, zeroed above.
    let name = unsafe { name.assume_init() };
    let bytes: Vec<u8> = name.release.iter().map(|&c| c as u8).take_while(|&c| c != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn both_ways_of_counting_cached_pages_agree() {
        let mut file = memory_file().unwrap();
        file.write_all(&[7; 5 * 4096 + 1]).unwrap();
        assert_eq!(
            mincore(&file),
            Some(6 * kernel_page() / COUNTED_PAGE).filter(|_| kernel_page() == COUNTED_PAGE)
        );
        if let Some(cached) = cachestat(&file) {
            assert_eq!(Some(cached), mincore(&file));
        } else {
            eprintln!("skipped: cachestat(2) is not to be had");
        }
    }

    #[test]
    fn the_kernel_has_a_release_and_a_file_system() {
        assert!(kernel_release().contains('.'));
        assert_eq!(file_system(Path::new("/proc")), "0x9fa0");
        assert_eq!(file_system(Path::new("/nowhere/at/all")), "unknown");
    }
}
