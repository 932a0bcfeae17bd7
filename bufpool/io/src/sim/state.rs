//! The medium behind all handles: one state under one lock, and the frame every operation runs in.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::cut::{At, CutMode, Moment, Planned};
use super::fault::{Armed, Fault, mutates};
use super::rng::Rng;
use super::tree::{Ino, Tree};
use crate::error::{IoError, Op};

/// Length no file may reach: a wild offset is an error (EFBIG), not an exhausted memory.
pub(super) const MAX_FILE: u64 = 8 << 30;

/// What was done to a medium since it was made, failed attempts included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SimStats {
    /// Reads; each one of a batch counts.
    pub reads: u64,
    /// Writes; each one of a batch counts.
    pub writes: u64,
    /// Syncs of files and directories.
    pub syncs: u64,
    /// Bytes read by reads that succeeded.
    pub bytes_read: u64,
    /// Bytes written by writes that succeeded.
    pub bytes_written: u64,
    /// Faults that struck.
    pub faults: u64,
    /// Power cuts.
    pub cuts: u64,
    /// Time the operations would have taken on a plain solid-state disk, one after the other.
    pub latency: Duration,
}

/// Everything about a medium.
pub(super) struct State {
    pub(super) tree: Tree,
    pub(super) rng: Rng,
    /// Handles and disks of an earlier life are dead.
    pub(super) life: u64,
    pub(super) powered: bool,
    pub(super) capacity: Option<u64>,
    pub(super) sector: u64,
    pub(super) clock: Duration,
    pub(super) ops: u64,
    pub(super) planned: Option<Planned>,
    pub(super) faults: Vec<Armed>,
    pub(super) locks: BTreeMap<Ino, u32>,
    pub(super) stats: SimStats,
}

/// A medium, shared by disks and handles of all its lives.
#[derive(Clone)]
pub(super) struct Medium(Arc<Mutex<State>>);

/// What an operation has to reckon with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order {
    /// The fault that strikes it and that it must act out itself.
    pub(super) fault: Option<Fault>,
    /// The power goes while it is under way.
    pub(super) interrupted: bool,
}

pub(super) fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

/// What every call gets from a medium without power.
pub(super) fn no_power() -> io::Error {
    errno(libc::EIO)
}

impl State {
    pub(super) fn new(tree: Tree, seed: u64) -> Self {
        Self {
            tree,
            rng: Rng::new(seed),
            life: 0,
            powered: true,
            capacity: None,
            sector: 512,
            clock: Duration::ZERO,
            ops: 0,
            planned: None,
            faults: Vec::new(),
            locks: BTreeMap::new(),
            stats: SimStats::default(),
        }
    }

    /// Takes the power away.
    pub(super) fn cut(&mut self, mode: CutMode) {
        if !self.powered {
            return;
        }
        self.powered = false;
        self.planned = None;
        self.locks.clear();
        self.stats.cuts += 1;
        self.tree.cut(mode, self.sector, &mut self.rng);
    }

    /// Ends this life: every handle is dead, no lock is held, and the power is on.
    pub(super) fn next_life(&mut self) {
        self.life += 1;
        self.powered = true;
        self.locks.clear();
        self.tree.close_all();
    }

    /// The largest length up to which the file may grow on this medium.
    pub(super) fn room(&mut self, ino: Ino) -> io::Result<u64> {
        let size = self.tree.file(ino)?.size();
        let Some(capacity) = self.capacity else { return Ok(MAX_FILE) };
        let blocks = size.next_multiple_of(4096);
        let free = capacity.saturating_sub(self.tree.used()) / 4096 * 4096;
        Ok(blocks.saturating_add(free).min(MAX_FILE))
    }

    fn count(&mut self, op: Op) {
        let micros = match op {
            Op::Read => 80,
            Op::Write => 20,
            Op::Sync | Op::SyncDir => 500,
            _ => 10,
        };
        let time = Duration::from_micros(micros);
        self.clock += time;
        self.stats.latency += time;
        match op {
            Op::Read => self.stats.reads += 1,
            Op::Write => self.stats.writes += 1,
            Op::Sync | Op::SyncDir => self.stats.syncs += 1,
            _ => {}
        }
    }

    /// Lets every armed fault count the operation; the first that strikes has it.
    fn strike(&mut self, op: Op, path: &Path) -> Option<Fault> {
        let mut struck = None;
        for armed in &mut self.faults {
            if armed.strikes(op, path) && struck.is_none() {
                struck = Some(armed.fault);
            }
        }
        if struck.is_some() {
            self.stats.faults += 1;
        }
        struck
    }

    /// The frame around every operation: power, count, planned cut, faults, the work itself, and the cut after it.
    fn run<T>(
        &mut self,
        life: u64,
        op: Op,
        path: &Path,
        work: impl FnOnce(&mut State, Order) -> io::Result<T>,
    ) -> io::Result<T> {
        if !self.powered || self.life != life {
            return Err(no_power());
        }
        self.count(op);
        if mutates(op) {
            self.ops += 1;
        }
        let cut = match &mut self.planned {
            Some(planned) => {
                let now = match &mut planned.at {
                    At::Count(at) => self.ops >= *at,
                    At::Kind(armed) => armed.strikes(op, path),
                };
                now.then(|| (planned.mode, Moment::draw(&mut self.rng)))
            }
            None => None,
        };
        let fault = self.strike(op, path);
        let mut order = Order { fault: None, interrupted: false };
        match cut {
            Some((mode, Moment::Before)) => {
                self.cut(mode);
                return Err(no_power());
            }
            Some((mode, Moment::During)) => {
                order.interrupted = true;
                if matches!(op, Op::Write | Op::Sync) {
                    // Whatever it answers, the caller only learns that the power is gone.
                    let _ = work(self, order);
                }
                self.cut(mode);
                return Err(no_power());
            }
            _ => {}
        }
        let result = match fault {
            Some(fault) if !fault.applies_to(op) => Err(errno(fault.errno().unwrap_or(libc::EIO))),
            _ => {
                order.fault = fault;
                work(self, order)
            }
        };
        match cut {
            Some((mode, _)) => {
                self.cut(mode);
                Err(no_power())
            }
            None => result,
        }
    }
}

impl Medium {
    pub(super) fn new(state: State) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    /// Runs one operation of the given life.
    pub(super) fn run<T>(
        &self,
        life: u64,
        op: Op,
        path: &Path,
        work: impl FnOnce(&mut State, Order) -> io::Result<T>,
    ) -> Result<T, IoError> {
        self.state().run(life, op, path, work).map_err(|source| IoError::new(op, path, source))
    }
}
