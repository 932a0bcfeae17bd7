//! The simulated disk itself: names, time, power, and what a test may order.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::cut::{At, CutMode, Planned};
use super::fault::{Armed, Fault, OpKind, Repeat};
use super::file::{SimDirect, SimLock, SimLog};
use super::state::{Medium, SimStats, State, errno};
use super::tree::Tree;
use crate::buf::ALIGN;
use crate::error::{IoError, Op};
use crate::traits::{DirectFile, Disk, IoMode, IoReport, LockFile, LogFile, OpenMode};

/// Wall-clock time at which every medium begins, in milliseconds since 1970.
const EPOCH_MS: u64 = 1_750_000_000_000;

/// One life of a simulated medium: from when it was made or reopened to the next reopening. The operations of
/// [`Disk`] and of its handles fail with EIO once this life is over, so that threads of a store that "died" cannot
/// reach into the next one. Everything else acts on the medium, whichever life it is asked through.
pub struct SimDisk {
    pub(super) medium: Medium,
    life: u64,
}

impl SimDisk {
    /// An empty medium without a limit of space; `seed` decides all its choices.
    pub fn new(seed: u64) -> Arc<Self> {
        Self::over(Tree::new(), seed)
    }

    fn over(tree: Tree, seed: u64) -> Arc<Self> {
        Arc::new(Self { medium: Medium::new(State::new(tree, seed)), life: 0 })
    }

    /// Takes the power away now. Every handle is dead, and every operation fails with EIO, until
    /// [`SimDisk::reopen`]. Nothing happens if the power is off already.
    pub fn power_cut(&self, mode: CutMode) {
        self.medium.state().cut(mode);
    }

    /// Takes the power away by itself at the `n`-th mutating operation from now (1 is the next): before it, while
    /// it is under way, or after it, as the seed decides. Its caller gets EIO in each case.
    pub fn set_cut_after(&self, n: u64, mode: CutMode) {
        let mut state = self.medium.state();
        state.planned = Some(Planned { at: At::Count(state.ops + n.max(1)), mode });
    }

    /// The same at the `n`-th operation of this kind on a file whose path ends with `suffix`: for moments that are rare
    /// among all operations and tell most, as the syncs of a checkpoint are.
    pub fn set_cut_at(&self, suffix: &str, kind: OpKind, n: u64, mode: CutMode) {
        let armed = Armed {
            kind,
            suffix: Some(suffix.to_owned()),
            nth: n.max(1),
            // Never acted out: the power goes instead.
            fault: Fault::Eio,
            repeat: Repeat::Once,
            seen: 0,
        };
        self.medium.state().planned = Some(Planned { at: At::Kind(armed), mode });
    }

    /// Gives up the cut planned by [`SimDisk::set_cut_after`] or [`SimDisk::set_cut_at`], if it has not happened yet.
    pub fn cancel_cut(&self) {
        self.medium.state().planned = None;
    }

    /// Begins the next life of the medium: the power is on, all earlier disks and handles are dead, no lock is
    /// held. After a power cut it has what survived. Without one it is as after `kill -9`: the page cache and the
    /// device's cache are still there, and what no sync covered is still unsynced. Faults stay armed.
    pub fn reopen(&self) -> Arc<Self> {
        let mut state = self.medium.state();
        state.next_life();
        Arc::new(Self { medium: self.medium.clone(), life: state.life })
    }

    /// Whether the power is on.
    pub fn is_powered(&self) -> bool {
        self.medium.state().powered
    }

    /// A medium of its own with the same contents, unsynced ones included, powered, without locks, faults or a
    /// planned cut. Cheap: to look at what a cut at this moment would leave, fork, cut and reopen.
    pub fn fork(&self, seed: u64) -> Arc<Self> {
        let state = self.medium.state();
        let mut tree = state.tree.clone();
        tree.close_all();
        let fork = Self::over(tree, seed);
        {
            let mut forked = fork.medium.state();
            forked.capacity = state.capacity;
            forked.sector = state.sector;
            forked.clock = state.clock;
        }
        fork
    }

    /// A fork that has gone through a power cut: what a store would find if the power went now.
    pub fn fork_cut(&self, mode: CutMode, seed: u64) -> Arc<Self> {
        let fork = self.fork(seed);
        fork.power_cut(mode);
        fork.reopen()
    }

    /// Makes all choices from now on depend on `seed` alone.
    pub fn reseed(&self, seed: u64) {
        self.medium.state().rng = super::rng::Rng::new(seed);
    }

    /// Mutating operations attempted so far (each write of a batch is one): the points at which
    /// [`SimDisk::set_cut_after`] can cut.
    pub fn ops(&self) -> u64 {
        self.medium.state().ops
    }

    /// What was done to the medium so far.
    pub fn stats(&self) -> SimStats {
        self.medium.state().stats
    }

    /// The `n`-th operation of this kind from now on (1 is the next) meets `fault`.
    pub fn fail_nth(&self, kind: OpKind, n: u64, fault: Fault, repeat: Repeat) {
        self.arm(None, kind, n, fault, repeat);
    }

    /// The same, counting only operations on files whose path ends with `suffix` (for a rename: the old path).
    pub fn fail_nth_on(&self, suffix: &str, kind: OpKind, n: u64, fault: Fault, repeat: Repeat) {
        self.arm(Some(suffix.to_owned()), kind, n, fault, repeat);
    }

    fn arm(&self, suffix: Option<String>, kind: OpKind, n: u64, fault: Fault, repeat: Repeat) {
        let armed = Armed { kind, suffix, nth: n.max(1), fault, repeat, seen: 0 };
        self.medium.state().faults.push(armed);
    }

    /// How many operations each fault on order has counted so far, in the order in which they were ordered.
    pub fn counted(&self) -> Vec<u64> {
        self.medium.state().faults.iter().map(|armed| armed.seen).collect()
    }

    /// Takes back every fault. What they did remains.
    pub fn clear_faults(&self) {
        self.medium.state().faults.clear();
    }

    /// Space for the contents of all files together, in bytes, counted in blocks of 4 KiB; `None` for no limit.
    /// A file that would grow beyond gets ENOSPC; what is in it already stays writable.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.medium.state().capacity = bytes;
    }

    /// Space in use, in bytes, in blocks of 4 KiB: lengths of all files, removed ones that are still open included.
    pub fn used(&self) -> u64 {
        self.medium.state().tree.used()
    }

    /// The unit, in bytes, that a torn write never splits: 512 (at first) or 4096.
    ///
    /// # Panics
    /// If it is neither.
    pub fn set_sector(&self, bytes: u64) {
        assert!(bytes == 512 || bytes == 4096, "a sector has 512 or 4096 bytes, not {bytes}");
        self.medium.state().sector = bytes;
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.medium.state().clock += by;
    }

    fn run<T>(
        &self,
        op: Op,
        path: &Path,
        work: impl FnOnce(&mut State) -> std::io::Result<T>,
    ) -> Result<T, IoError> {
        self.medium.run(self.life, op, path, |state, _| work(state))
    }
}

impl Disk for SimDisk {
    fn open_direct(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DirectFile>, IoError> {
        Ok(Arc::new(SimDirect::open(&self.medium, self.life, path, mode)?))
    }

    fn open_log(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn LogFile>, IoError> {
        Ok(Arc::new(SimLog::open(&self.medium, self.life, path, mode)?))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn LockFile>, IoError> {
        let ino = self.run(Op::Lock, path, |state| {
            let ino = match state.tree.find_file(path) {
                Ok(ino) => ino,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => state.tree.create_file(path)?,
                Err(error) => return Err(error),
            };
            if let Some(pid) = state.locks.get(&ino) {
                let message = format!("held by process {pid}");
                return Err(std::io::Error::new(std::io::ErrorKind::WouldBlock, message));
            }
            let pid = std::process::id();
            state.locks.insert(ino, pid);
            let file = state.tree.file(ino)?;
            file.shrink(0);
            file.write(0, format!("{pid}\n").as_bytes(), false);
            Ok(ino)
        })?;
        let medium = self.medium.clone();
        Ok(Box::new(SimLock { medium, life: self.life, ino, path: path.to_path_buf() }))
    }

    fn create_dir_all(&self, path: &Path) -> Result<(), IoError> {
        self.run(Op::CreateDir, path, |state| state.tree.create_dirs(path))
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>, IoError> {
        self.run(Op::Stat, dir, |state| {
            let names = state.tree.list(dir)?;
            // Real directories are in no particular order either.
            let order = state.rng.order(names.len());
            Ok(order.into_iter().map(|i| names[i].clone()).collect())
        })
    }

    fn exists(&self, path: &Path) -> Result<bool, IoError> {
        self.run(Op::Stat, path, |state| Ok(state.tree.exists(path)))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError> {
        self.run(Op::Rename, from, |state| state.tree.rename(from, to))
    }

    fn remove(&self, path: &Path) -> Result<(), IoError> {
        self.run(Op::Remove, path, |state| state.tree.remove_file(path))
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), IoError> {
        self.medium.run(self.life, Op::SyncDir, dir, |state, order| match order.fault {
            None => state.tree.sync_dir(dir),
            Some(Fault::LyingSync) => Ok(()),
            Some(fault) => {
                state.tree.fail_sync_dir(dir)?;
                Err(errno(fault.errno().unwrap_or(libc::EIO)))
            }
        })
    }

    /// The medium's own clock: every operation moves it on, and so does asking, so that a caller who waits for it
    /// to reach some time does not wait for ever.
    fn now(&self) -> Duration {
        let mut state = self.medium.state();
        state.clock += Duration::from_micros(1);
        state.clock
    }

    fn unix_ms(&self) -> u64 {
        EPOCH_MS + self.medium.state().clock.as_millis() as u64
    }

    fn report(&self, _dir: &Path) -> IoReport {
        IoReport {
            mode: IoMode::Simulated,
            reason: "the disk is simulated".to_owned(),
            direct: true,
            mem_align: ALIGN as u32,
            offset_align: ALIGN as u32,
            file_system: "simulated".to_owned(),
        }
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk").field("life", &self.life).finish_non_exhaustive()
    }
}
