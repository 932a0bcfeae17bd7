//! Power cuts below a real file system: ext4 or XFS of the running kernel, on a disk that loses, keeps and tears writes.
//!
//! The disk is a file of a FUSE file system that this process serves from memory, made a block device by the loop driver.
//! A recording takes down every write and flush that reaches it while a child process works on a store, and
//! the position in that record at which each acknowledgement was heard. Each *round* then chooses a position at which the
//! power goes and, for each write that no flush had covered, whether it is there; puts that content on
//! another disk of the same kind; mounts it, so that the kernel's own recovery runs; opens the store, verifies and checks
//! it. Sometimes that recovery is recorded in its turn, and the power goes in or after it too.
//!
//! All mounts lie in a namespace of this run's own and go with it, even if the process is killed; loop devices are then left
//! (`losetup --list` shows them with a file below `power-fs-`, `losetup --detach` removes them).
//!
//! It needs Linux, root, `/dev/fuse`, loop devices, and the commands of `util-linux` and `e2fsprogs` or `xfsprogs`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use crate::plan::{Pace, Plan, Progress};
use crate::rng::Rng;
use crate::verdict::{Failure, Kept, Verdict};
use crate::workload::Workload;

mod image;
pub(crate) mod mounts;
mod record;
mod recording;
mod round;
mod server;

use image::Image;
use mounts::{Places, command, mounts_of_our_own};
use recording::Recording;
use round::{Counts, Lane};
use server::{Disk, Disks};

/// Bytes of a disk; what is not written takes no memory.
const DISK_BYTES: u64 = 1 << 30;
/// Crash states made of one recording before the next is made.
const ROUNDS_OF_A_RECORDING: u64 = 100;
/// The store's directory in the file system.
const STORE: &str = "store";

/// The file system below the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// ext4.
    Ext4,
    /// XFS.
    Xfs,
}

impl FileSystem {
    /// Its name, as the kernel has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    /// The command that makes one, and the package it comes with.
    fn maker(self) -> (&'static str, &'static str) {
        match self {
            Self::Ext4 => ("mkfs.ext4", "e2fsprogs"),
            Self::Xfs => ("mkfs.xfs", "xfsprogs"),
        }
    }

    /// How a write is torn: the unit that gets there whole, and how many bytes at the beginning of the disk are always
    /// whole. Severer than this the file systems themselves do not survive. ext4 writes its superblock in place,
    /// two sectors under one checksum. XFS skips the replay of a metadata block whose head is as new as the log, so it
    /// counts on a block of its sector size being written as one; that size is made 4096 here.
    fn tears(self) -> (usize, u64) {
        match self {
            Self::Ext4 => (512, 4096),
            Self::Xfs => (4096, 0),
        }
    }
}

/// A disk, the file that it is, where it is mounted, and what is on it before anything is.
struct Station {
    disk: Arc<Disk>,
    file: PathBuf,
    dir: PathBuf,
    blank: Image,
}

/// Cuts the power below `workload`'s store again and again. Rounds are crash states that were verified. `child` makes
/// the command of a program that calls [`crate::kill::child_main`] with the same workload; `scratch` is a directory for
/// mount points. A disk on which a promise was broken is saved to a file beside `scratch`.
///
/// # Errors
/// [`Failure::Broken`] says which promise was broken and after what; [`Failure::CannotRun`] what is missing.
pub fn run(
    plan: &Plan,
    file_system: FileSystem,
    workload: &dyn Workload,
    child: &(dyn Fn() -> Result<Command, Failure> + Sync),
    scratch: &Path,
    watch: &(dyn Fn(&Progress) + Sync),
) -> Verdict {
    possible(file_system).map_err(Failure::CannotRun)?;
    // A thread that is begun for it: mounts belong to the threads that made them.
    std::thread::scope(|scope| {
        join(scope.spawn(|| {
            mounts_of_our_own().map_err(Failure::CannotRun)?;
            cut_again_and_again(plan, file_system, workload, child, scratch, watch)
        }))
    })
}

fn cut_again_and_again(
    plan: &Plan,
    file_system: FileSystem,
    workload: &dyn Workload,
    child: &(dyn Fn() -> Result<Command, Failure> + Sync),
    scratch: &Path,
    watch: &(dyn Fn(&Progress) + Sync),
) -> Verdict {
    let cannot_run = |what| Failure::CannotRun(format!("{}, seed {}: {what}", file_system.name(), plan.seed));
    let io = |what: &'static str| {
        move |error: std::io::Error| Failure::CannotRun(format!("{what} in {}: {error}", scratch.display()))
    };
    let lanes = std::thread::available_parallelism().map_or(1, usize::from) * 2;
    let mut places = Places::make(scratch).map_err(io("the directory for mount points"))?;
    let served = places.dir("disks").map_err(io("a mount point"))?;
    let disks = Disks::serve(&served, 1 + lanes, DISK_BYTES).map_err(io("mounting the FUSE file system"))?;
    let mut station = |number: usize| {
        let dir = places.dir(&number.to_string()).map_err(io("a mount point"))?;
        let (disk, file) = (disks.disk(number).clone(), disks.path(number));
        Ok::<_, Failure>(Station { disk, file, dir, blank: Image::new(DISK_BYTES) })
    };
    let recorder = station(0)?;
    let lanes = (1..=lanes)
        .map(|number| Lane::new(station(number)?, file_system, workload).map_err(Failure::CannotRun))
        .collect::<Result<Vec<_>, _>>()?;

    let pace = Pace::begin(plan, "power cuts", None, watch);
    let mut counts = Counts::default();
    let rounds = Rounds::begin(&pace);
    let mut left = None;
    for number in 0.. {
        let mut rng = Rng::of(&[plan.seed, number, 21]);
        let made = Recording::make(&recorder, file_system, left.take(), child()?, &mut rng);
        let recording = made.map_err(|failure| match failure {
            Failure::CannotRun(what) => cannot_run(format!("recording {number}: {what}")),
            broken => broken.and(&format!("in recording {number} on {}", file_system.name())),
        })?;
        counts.recorded(&recording);
        let until = (number + 1) * ROUNDS_OF_A_RECORDING;
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let running: Vec<_> = lanes
                .iter()
                .map(|lane| {
                    let (rounds, recording) = (&rounds, &recording);
                    scope.spawn(move || {
                        let mut counts = Counts::default();
                        while let Some(round) = rounds.next(until) {
                            let outcome = lane.round(recording, plan.seed, round, &mut counts);
                            if let Err(failed) = outcome {
                                rounds.stop();
                                return Err((round, failed));
                            }
                        }
                        Ok(counts)
                    })
                })
                .collect();
            running.into_iter().map(join).collect()
        });
        let (done, failed): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
        if let Some((round, failed)) =
            failed.into_iter().filter_map(Result::err).min_by_key(|(round, _)| *round)
        {
            return Err(told(failed, plan.seed, number, round, file_system, scratch));
        }
        done.into_iter().flatten().for_each(|done| counts.add(done));
        if rounds.is_over() {
            break;
        }
        // Half of the processes go on where an earlier one was cut off, and recover what is there themselves.
        left = rng.chance(1, 2).then(|| recording.left(file_system, &mut rng));
    }
    Ok(Kept { counts: counts.told(), notes: counts.notes(file_system), took: pace.elapsed() })
}

fn join<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Hands out the numbers of the rounds to the lanes.
struct Rounds<'p, 'w> {
    pace: &'p Pace<'w>,
    /// The next one; `None` when it is enough.
    next: Mutex<Option<u64>>,
}

impl<'p, 'w> Rounds<'p, 'w> {
    fn begin(pace: &'p Pace<'w>) -> Self {
        Self { pace, next: Mutex::new(Some(0)) }
    }

    /// The next round, if it lies below `until` and there is to be one.
    fn next(&self, until: u64) -> Option<u64> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let round = (*next)?;
        if !self.pace.goes_on(round) {
            *next = None;
            return None;
        }
        if round >= until {
            return None;
        }
        *next = Some(round + 1);
        Some(round)
    }

    fn stop(&self) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn is_over(&self) -> bool {
        self.next.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

/// Whether this machine can do it at all.
///
/// # Errors
/// What is missing, and what to do about it.
pub fn possible(file_system: FileSystem) -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("power cuts below a file system mount one, which needs root: run it with sudo".into());
    }
    if !Path::new("/dev/fuse").exists() {
        return Err(
            "there is no /dev/fuse: load the module with `modprobe fuse`, or give the container the device \
                    (`--device /dev/fuse --privileged`)"
                .into(),
        );
    }
    if !Path::new("/dev/loop-control").exists() {
        return Err(
            "there are no loop devices: load the module with `modprobe loop`, or run a privileged container"
                .into(),
        );
    }
    for (name, package) in [("losetup", "util-linux"), ("blockdev", "util-linux"), file_system.maker()] {
        command(name, package, &["-V"])?;
    }
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !known.split_whitespace().any(|known| known == file_system.name())
        && command("modprobe", "kmod", &[file_system.name()]).is_err()
    {
        let name = file_system.name();
        return Err(format!(
            "the running kernel has no {name}: load it with `modprobe {name}`, or choose the other"
        ));
    }
    Ok(())
}

/// Completes a failure by where it was, and by the disk on which it was.
fn told(
    failed: round::Failed,
    seed: u64,
    recording: u64,
    round: u64,
    file_system: FileSystem,
    scratch: &Path,
) -> Failure {
    let name = file_system.name();
    let place = format!("{name}, seed {seed}, recording {recording}, round {round}");
    match failed {
        round::Failed::CannotRun(what) => Failure::CannotRun(format!("{place}: {what}")),
        round::Failed::Broken { what, image } => {
            let dir = scratch.canonicalize().ok();
            let dir = dir.as_deref().and_then(Path::parent).unwrap_or(scratch);
            let file = dir.join(format!("bedstone-{name}-seed-{seed}-round-{round}.img"));
            let kept = match image.save(&file) {
                Ok(()) => {
                    format!("the disk as it was after the cut is {0} (mount -o loop {0} DIR)", file.display())
                }
                Err(error) => format!("the disk could not be saved to {}: {error}", file.display()),
            };
            Failure::broken(format!("{place}: {what}; {kept}"))
        }
    }
}
