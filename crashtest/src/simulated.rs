//! A workload on the simulated disk, without root and without wear: power cuts and faults at chosen operations.
//!
//! Everything is decided by the plan's seed and the number of the round, as long as the workload works in the thread that
//! calls it and decides by its seed: a round that failed can be repeated by itself.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bedstone::{Background, Database, Error};
use bedstone_io::sim::{CutMode, Fault, OpKind, Repeat, SimDisk};
use parking_lot::Mutex;

use crate::plan::{Pace, Plan, Progress};
use crate::rng::Rng;
use crate::rounds::run_rounds;
use crate::setup::{DIR, check_clean};
use crate::verdict::{Failure, Kept, Verdict};
use crate::workload::{Ack, Acks, Promised, Workload};

/// Lives of a disk in one round.
const LIVES: u64 = 6;

/// What a round of power cuts has done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cuts {
    /// Power cuts.
    pub cuts: u64,
    /// Those while the store was being opened.
    pub while_opening: u64,
    /// Acknowledgements heard.
    pub acknowledged: u64,
    /// Recoveries verified.
    pub recoveries: u64,
}

impl Cuts {
    pub(crate) fn add(&mut self, other: &Cuts) {
        self.cuts += other.cuts;
        self.while_opening += other.while_opening;
        self.acknowledged += other.acknowledged;
        self.recoveries += other.recoveries;
    }
}

/// Cuts the power at random operations, again and again, and verifies what is left. A round is a disk with several lives,
/// each of which ends by a cut: unsynced writes are kept, dropped or torn, each for itself, and likewise lengths and
/// names. `plan.threads` rounds run at the same time.
///
/// Counts: `disks`, `power cuts`, `while opening`, `acknowledged commits`, `recoveries verified`.
///
/// # Errors
/// [`Failure::Broken`] with what was lost and the number of the round, for [`power_cuts_round`].
pub fn power_cuts(plan: &Plan, workload: &dyn Workload, watch: &(dyn Fn(&Progress) + Sync)) -> Verdict {
    let pace = Pace::begin(plan, "simulated disks", None, watch);
    let sum = Mutex::new(Cuts::default());
    let disks = run_rounds(&pace, plan.threads, |round| {
        let cuts = power_cuts_round(plan.seed, round, workload)?;
        sum.lock().add(&cuts);
        Ok(())
    })?;
    let sum = sum.into_inner();
    Ok(Kept {
        counts: vec![
            ("disks", disks),
            ("power cuts", sum.cuts),
            ("while opening", sum.while_opening),
            ("acknowledged commits", sum.acknowledged),
            ("recoveries verified", sum.recoveries),
        ],
        notes: Vec::new(),
        took: pace.elapsed(),
    })
}

/// One round of [`power_cuts`].
///
/// # Errors
/// [`Failure::Broken`] with what was lost.
pub fn power_cuts_round(seed: u64, round: u64, workload: &dyn Workload) -> Result<Cuts, Failure> {
    let mut rng = Rng::of(&[seed, round, 31]);
    let mut disk = SimDisk::new(rng.next());
    if rng.chance(1, 4) {
        disk.set_sector(4096);
    }
    let mut promised = Promised::default();
    let mut cuts = Cuts::default();
    let mut created = false;
    for life in 0..LIVES {
        let far = *rng.pick(&[8, 60, 400, 2000]);
        disk.set_cut_after(1 + rng.below(far), mode(&mut rng));
        let db = match open(workload, &disk) {
            Ok(db) => Some(db),
            Err(_) if !disk.is_powered() => None,
            Err(error) => return Err(Failure::broken(format!("life {life}: opening: {error} ({error:?})"))),
        };
        match db {
            Some(db) => {
                created = true;
                let outcome = verify(workload, &db, &mut promised);
                match outcome {
                    Ok(()) => cuts.recoveries += 1,
                    Err(_) if !disk.is_powered() => {}
                    Err(what) => return Err(Failure::broken(format!("life {life}: {what}"))),
                }
                if disk.is_powered() {
                    let (worked, heard) = work(workload, &db, |_| true);
                    promised.extend(&heard);
                    if let Err(error) = worked
                        && disk.is_powered()
                    {
                        return Err(Failure::broken(format!("life {life}: {error} ({error:?})")));
                    }
                }
                disk.cancel_cut();
                if disk.is_powered() {
                    disk.power_cut(mode(&mut rng));
                }
                // The next life first: what the handle's end does must not reach the medium.
                disk = disk.reopen();
                drop(db);
            }
            None => {
                cuts.while_opening += u64::from(created);
                disk = disk.reopen();
            }
        }
        cuts.cuts += 1;
    }
    let db = open(workload, &disk)
        .map_err(|error| Failure::broken(format!("opening at the end: {error} ({error:?})")))?;
    verify(workload, &db, &mut promised).map_err(Failure::broken)?;
    cuts.recoveries += 1;
    cuts.acknowledged = promised.heard;
    Ok(cuts)
}

/// Lets every operation on the medium fail that the workload's first `commits` commits make, its first opening and its
/// closing included: once, and in another run from there on. After each the store is opened again, after the end of
/// the process or a power cut, and verified. A round is one such run; the run ends when all were made.
///
/// Counts: `operations`, `faults tried`, `acknowledged commits`.
///
/// # Errors
/// [`Failure::Broken`] with what was lost, and the operation that had failed.
pub fn faults(
    plan: &Plan,
    workload: &dyn Workload,
    commits: u64,
    watch: &(dyn Fn(&Progress) + Sync),
) -> Verdict {
    const KINDS: [(OpKind, Fault); 5] = [
        (OpKind::Any, Fault::Eio),
        (OpKind::Mutation, Fault::Enospc),
        (OpKind::Write, Fault::TornWrite),
        (OpKind::Read, Fault::ShortRead),
        (OpKind::Sync, Fault::PartialSync),
    ];
    let mut cases: Vec<(OpKind, Fault, u64, Repeat)> = KINDS
        .iter()
        .flat_map(|&(kind, fault)| {
            let count = operations(workload, kind, commits);
            (1..=count)
                .flat_map(move |n| [Repeat::Once, Repeat::Forever].map(|repeat| (kind, fault, n, repeat)))
        })
        .collect();
    let all = cases.len() as u64;
    let pace = Pace::begin(plan, "faults", Some(all), watch);
    let acknowledged = AtomicU64::new(0);
    // In an order that a limited run samples evenly.
    Rng::of(&[plan.seed, 33]).shuffle(&mut cases);
    let tried = run_rounds(&pace, plan.threads, |round| {
        let (kind, fault, n, repeat) = cases[round as usize];
        let heard = one_fault(plan.seed, workload, commits, (kind, fault, n, repeat)).map_err(|what| {
            Failure::broken(format!("{what}\n  after {fault:?} at {kind:?} {n}, {repeat:?}"))
        })?;
        acknowledged.fetch_add(heard, Ordering::Relaxed);
        Ok(())
    })?;
    Ok(Kept {
        counts: vec![
            ("operations", operations(workload, OpKind::Any, commits)),
            ("faults tried", tried),
            ("acknowledged commits", acknowledged.into_inner()),
        ],
        notes: Vec::new(),
        took: pace.elapsed(),
    })
}

fn one_fault(
    seed: u64,
    workload: &dyn Workload,
    commits: u64,
    (kind, fault, n, repeat): (OpKind, Fault, u64, Repeat),
) -> Result<u64, String> {
    let mut rng = Rng::of(&[seed, n, 37]);
    let disk = SimDisk::new(rng.next());
    disk.fail_nth(kind, n, fault, repeat);
    let mut promised = Promised::default();
    // A checkpoint makes what a fault has taken from the log superfluous. So half of the lives end soon after the fault.
    let soon = rng.chance(1, 2).then(|| rng.below(4));
    let Ok(db) = open(workload, &disk) else {
        // A failed sync of the directory may have lost names for good, so no power cut here: but another opening in the
        // same boot must go on from whatever the first has left.
        disk.clear_faults();
        let disk = disk.reopen();
        let db = open(workload, &disk)
            .map_err(|error| format!("opening after a failed one: {error} ({error:?})"))?;
        verify(workload, &db, &mut promised)?;
        return Ok(0);
    };
    let at_fault = AtomicU64::new(u64::MAX);
    let (worked, heard) = work(workload, &db, |heard| {
        if disk.stats().faults > 0 {
            at_fault.fetch_min(heard, Ordering::Relaxed);
        }
        let since = heard.saturating_sub(at_fault.load(Ordering::Relaxed));
        heard < commits
            && soon.is_none_or(|soon| at_fault.load(Ordering::Relaxed) == u64::MAX || since < soon)
    });
    promised.extend(&heard);
    if let Err(Error::Internal(what)) = worked {
        return Err(format!("an error that should not be: {what}"));
    }
    let left_open = match soon {
        Some(_) => Some(db),
        None => {
            drop(db.close());
            None
        }
    };
    disk.clear_faults();
    if rng.chance(2, 3) {
        disk.power_cut(mode(&mut rng));
    }
    let disk = disk.reopen();
    // In the next life, which it cannot reach.
    drop(left_open);
    let db = open(workload, &disk).map_err(|error| format!("opening afterwards: {error} ({error:?})"))?;
    // After a fault even what the kernel had is not owed: a failed sync may have lost it.
    verify(workload, &db, &mut promised)?;
    db.close().map_err(|error| format!("closing afterwards: {error} ({error:?})"))?;
    Ok(promised.heard)
}

/// How many operations of this kind the workload makes without faults.
fn operations(workload: &dyn Workload, kind: OpKind, commits: u64) -> u64 {
    let disk = SimDisk::new(1);
    // A fault that strikes nothing, but counts: the medium tells how many operations it has let through.
    disk.fail_nth(kind, u64::MAX, Fault::Eio, Repeat::Once);
    if let Ok(db) = open(workload, &disk) {
        drop(work(workload, &db, |heard| heard < commits));
        drop(db.close());
    }
    disk.counted().iter().sum()
}

fn open(workload: &dyn Workload, disk: &Arc<SimDisk>) -> bedstone::Result<Database> {
    workload.options().disk(disk.clone()).background(Background::Manual).open_or_create(Path::new(DIR))
}

/// Works as long as `goes_on` says so, which is told how many commits were acknowledged.
fn work(
    workload: &dyn Workload,
    db: &Database,
    goes_on: impl Fn(u64) -> bool + Sync,
) -> (bedstone::Result<()>, Promised) {
    let promised = Mutex::new(Promised::default());
    let report = |ack: Ack| {
        let mut promised = promised.lock();
        promised.add(ack);
        goes_on(promised.heard)
    };
    let outcome = workload.work(db, &Acks::new(&report));
    (outcome, promised.into_inner())
}

fn verify(workload: &dyn Workload, db: &Database, promised: &mut Promised) -> Result<(), String> {
    let found = workload.verify(db, promised.after_power_cut())?;
    check_clean(db)?;
    promised.found(found)
}

fn mode(rng: &mut Rng) -> CutMode {
    *rng.pick(&[CutMode::Random, CutMode::Random, CutMode::Random, CutMode::Drop, CutMode::Keep])
}
