//! Adverse conditions that a test can bring upon its own process. They cannot be taken back: use them in a
//! child process that the test starts for the purpose.

use std::io;

/// Makes the three system calls of io_uring fail with `errno` (`libc::EPERM` as container runtimes do,
/// `libc::ENOSYS` as a kernel without io_uring does) in all threads of this process and in what it starts.
/// Rings that exist already can no longer be entered. Needs no privilege.
///
/// # Errors
/// If the kernel has no seccomp filters, or if a thread has a filter of its own that others do not share.
pub fn deny_io_uring(errno: i32) -> io::Result<()> {
    raw::deny_io_uring(errno)
}

/// Limits the length of files that this process may make (RLIMIT_FSIZE), in bytes, and has writes beyond it
/// answered by EFBIG: the signal SIGXFSZ, which would end the process, is ignored from now on.
///
/// # Errors
/// If the limit is above one that was set before.
pub fn limit_file_size(bytes: u64) -> io::Result<()> {
    raw::limit_file_size(bytes)
}

/// Shuts the file system down that `dir` lies on, as a failing controller does: from now on every operation on it
/// fails, for every process, until it is unmounted; of what was not on the medium nothing gets there any more (ext4 and
/// XFS; to be used on a file system made for the purpose).
///
/// # Errors
/// If the process may not do so, or the file system cannot.
pub fn shut_down_file_system(dir: &std::path::Path) -> io::Result<()> {
    raw::shut_down_file_system(&std::fs::File::open(dir)?)
}

/// Runs `work` in a forked process; true if it ended without a panic, and before a minute had passed. The child is the copy
/// of the calling thread alone: `work` must not need what other threads may have locked at this moment.
pub fn in_fork(work: impl FnOnce()) -> bool {
    raw::in_fork(work)
}

mod raw {
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;

    /// The numbers of io_uring_setup, io_uring_enter and io_uring_register, the same on every architecture.
    const FIRST: u32 = 425;
    const LAST: u32 = 427;

    pub(super) fn deny_io_uring(errno: i32) -> io::Result<()> {
        let statement = |code: u32, yes: u8, no: u8, operand: u32| libc::sock_filter {
            code: code as u16,
            jt: yes,
            jf: no,
            k: operand,
        };
        // The call's number is the first field of `struct seccomp_data`.
        let mut filter = [
            statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            statement(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 2, FIRST),
            statement(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K, 1, 0, LAST),
            statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
            statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: takes no pointers; a process may always renounce new privileges.
        if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `program` and the filter that it names live during the call, which copies them.
        let installed = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                libc::SECCOMP_FILTER_FLAG_TSYNC,
                &raw const program,
            )
        };
        match installed {
            0 => Ok(()),
            thread if thread > 0 => Err(io::Error::other(format!("thread {thread} has a filter of its own"))),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub(super) fn in_fork(work: impl FnOnce()) -> bool {
        // SAFETY: the child does what `work` does, whose caller vouches for it, and leaves by `_exit`, or by the signal
        // that the alarm raises.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: takes no pointers.
            unsafe { libc::alarm(60) };
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            // SAFETY: ends the process.
            unsafe { libc::_exit(i32::from(outcome.is_err())) }
        }
        let mut status = -1;
        // SAFETY: the pointer is to a live integer.
        let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        pid > 0 && waited == pid && status == 0
    }

    /// EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN, which are one number: `_IOR('X', 125, __u32)`.
    const SHUT_DOWN: libc::Ioctl = 0x8004_587d_u32 as libc::Ioctl;
    /// Without writing anything first, the journal included.
    const AT_ONCE: u32 = 2;

    pub(super) fn shut_down_file_system(dir: &File) -> io::Result<()> {
        let how = AT_ONCE;
        // SAFETY: the call reads one integer, which lives during it.
        let outcome = unsafe { libc::ioctl(dir.as_raw_fd(), SHUT_DOWN, &raw const how) };
        if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    pub(super) fn limit_file_size(bytes: u64) -> io::Result<()> {
        let limit = libc::rlimit64 { rlim_cur: bytes, rlim_max: bytes };
        // SAFETY: ignoring a signal installs no handler; the structure lives during the call.
        let outcome = unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            libc::setrlimit64(libc::RLIMIT_FSIZE, &raw const limit)
        };
        if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
