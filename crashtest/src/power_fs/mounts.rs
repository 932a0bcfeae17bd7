//! Loop devices and mounts, which go when they are dropped, and the commands that make file systems.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags};

use super::FileSystem;

/// How long a file system may stay in use after everybody has closed it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a command to its end and gives what it printed.
///
/// # Errors
/// If it is missing or fails, in words that say what to do.
pub(crate) fn command(name: &str, package: &str, arguments: &[&str]) -> Result<String, String> {
    let output =
        Command::new(name).args(arguments).stdin(Stdio::null()).output().map_err(|error| {
            format!("{name} cannot be started: {error}; it comes with the package {package}")
        })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    // Some print all their options after the first line.
    let first = said.lines().next().unwrap_or_default();
    Err(format!("{name} {}: {first}", arguments.join(" ")))
}

/// Tries until it is no longer `busy`.
fn patiently<T, E>(attempt: impl Fn() -> Result<T, E>, busy: impl Fn(&E) -> bool) -> Result<T, E> {
    let began = Instant::now();
    loop {
        match attempt() {
            Err(error) if busy(&error) && began.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(1));
            }
            outcome => return outcome,
        }
    }
}

/// Gives this thread, and those and the processes it starts, mounts of their own: nobody else sees them, no other process
/// keeps one alive by a copy, and the kernel undoes them when the last of these threads ends, however it ends.
pub(crate) fn mounts_of_our_own() -> Result<(), String> {
    let none: Option<&str> = None;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
        .and_then(|()| nix::mount::mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))
        .map_err(|error| format!("no mount namespace (a container must be privileged for it): {error}"))
}

fn text(path: &Path) -> Result<&str, String> {
    path.to_str().ok_or_else(|| format!("{} is no text", path.display()))
}

/// A loop device.
pub(super) struct Loop {
    device: PathBuf,
}

impl Loop {
    /// Makes a loop device of a file.
    pub(super) fn attach(file: &Path) -> Result<Self, String> {
        let device = command("losetup", "util-linux", &["--find", "--show", "--direct-io=on", text(file)?])?;
        Ok(Self { device: device.into() })
    }

    pub(super) fn device(&self) -> &Path {
        &self.device
    }

    /// Exchanges the content of the disk below, by `exchange`, while nobody uses the device, and makes the kernel forget
    /// what it remembers of the old one.
    pub(super) fn exchange(&self, exchange: impl FnOnce()) -> Result<(), String> {
        // A file system that still lives on the device, after its last mount has gone, would write to the new content.
        let exclusive = || {
            let mut options = OpenOptions::new();
            options.read(true).custom_flags(nix::libc::O_EXCL).open(&self.device)
        };
        let held = patiently(exclusive, |error| error.raw_os_error() == Some(nix::libc::EBUSY))
            .map_err(|error| format!("{} is in use by something else: {error}", self.device.display()))?;
        exchange();
        let forgotten = command("blockdev", "util-linux", &["--flushbufs", text(&self.device)?]);
        drop(held);
        forgotten.map(drop)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        if let Ok(device) = text(&self.device) {
            // Nothing more can be done about it here; a device still in use goes with its last user.
            let _ = command("losetup", "util-linux", &["--detach", device]);
        }
    }
}

/// Makes a file system.
pub(super) fn format(file_system: FileSystem, device: &Path) -> Result<(), String> {
    let device = text(device)?;
    match file_system {
        FileSystem::Ext4 => {
            let arguments =
                ["-q", "-F", "-m0", "-b4096", "-N1024", "-Jsize=4", "-Enodiscard,lazy_itable_init=0", device];
            command("mkfs.ext4", "e2fsprogs", &arguments)
        }
        FileSystem::Xfs => {
            let arguments = ["-q", "-f", "-K", "-ssize=4096", "-dagcount=2", device];
            command("mkfs.xfs", "xfsprogs", &arguments)
        }
    }
    .map(drop)
}

/// A mounted file system.
pub(super) struct Mounted {
    dir: PathBuf,
    mounted: bool,
}

impl Mounted {
    /// Mounts it; the kernel recovers what a power cut left.
    pub(super) fn mount(file_system: FileSystem, device: &Path, dir: &Path) -> Result<Self, String> {
        let flags = MsFlags::MS_NOATIME | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let options = match file_system {
            FileSystem::Ext4 => None,
            // Many disks of one origin are mounted at the same time.
            FileSystem::Xfs => Some("nouuid"),
        };
        let mount = || nix::mount::mount(Some(device), dir, Some(file_system.name()), flags, options);
        // A process that another thread is just starting has a copy of every file that is open here, for a moment.
        patiently(mount, |error| *error == Errno::EBUSY)
            .map_err(|error| format!("mounting {}: {error}", file_system.name()))?;
        Ok(Self { dir: dir.into(), mounted: true })
    }

    /// Unmounts it, with nothing left behind that could still write. The kernel lets go of the files of an io_uring, or
    /// of a process, a little after they are closed; until then it refuses.
    pub(super) fn unmount(mut self) -> Result<(), String> {
        patiently(|| nix::mount::umount2(&self.dir, MntFlags::empty()), |error| *error == Errno::EBUSY)
            .map_err(|error| format!("unmounting {}: {error}", self.dir.display()))?;
        self.mounted = false;
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.mounted {
            // Lazily: it goes with its last user.
            let _ = nix::mount::umount2(&self.dir, MntFlags::MNT_DETACH);
        }
    }
}

/// Directories to mount at, below a directory of their own. Only empty ones are removed: what is still mounted stays.
pub(super) struct Places {
    root: PathBuf,
    made: Vec<PathBuf>,
}

impl Places {
    pub(super) fn make(scratch: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(scratch)?;
        let root = tempfile::TempDir::with_prefix_in("power-fs-", scratch)?.keep();
        Ok(Self { made: vec![root.clone()], root })
    }

    /// A directory of this name.
    pub(super) fn dir(&mut self, name: &str) -> std::io::Result<PathBuf> {
        let dir = self.root.join(name);
        std::fs::create_dir(&dir)?;
        self.made.push(dir.clone());
        Ok(dir)
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        for dir in self.made.iter().rev() {
            let _ = std::fs::remove_dir(dir);
        }
    }
}
