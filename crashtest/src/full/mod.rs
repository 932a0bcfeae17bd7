//! Full disks. On the simulated disk a workload of several tables meets the end of the room at every budget of blocks, from
//! one that is too small to create a store up to one in which everything fits. A refused commit must have changed
//! nothing; readers and snapshots go on; deletes work; and writes resume by themselves, without opening the store again,
//! once there is room: because the disk grew, or because enough was deleted. A store that is killed or loses its power on
//! the full disk opens there, on a disk without a free block, with everything acknowledged.
//!
//! Where a scratch directory is given and file systems may be mounted, the same is done on a small real one.
//!
//! A round is one budget with one of four ends. With fewer rounds than there are budgets a sample is tried, spread evenly
//! over all of them. The seed draws workload and options.

mod real;
mod store;
mod workload;

use std::path::Path;

use bedstone::Durability;
use bedstone_io::sim::{CutMode, SimDisk};

use crate::cases::{Cases, Mode, Tally, replay as replay_case, run_all};
use crate::oracle::Ending;
use crate::plan::{Plan, Progress};
use crate::rng::Rng;
use crate::setup::{Config, DIR, check_clean, smallest_pool};
use crate::verdict::{Failure, Verdict};
use store::Store;
use workload::Workload;

const MODE: Mode = Mode {
    name: "full",
    what: "disks filled",
    counts: &[
        "full at create",
        "times full",
        "refused commits",
        "deletes while full",
        "resumptions",
        "openings while full",
    ],
};

const BLOCK: u64 = 4096;

/// Fills disks. Counts: "disks filled" (runs), "full at create", "times full", "refused commits", "deletes while full",
/// "resumptions", "openings while full". Below `scratch` a small file system is mounted, if that is allowed; a note says
/// what came of it.
pub fn run(plan: &Plan, scratch: Option<&Path>, watch: &(dyn Fn(&Progress) + Sync)) -> Verdict {
    let mut kept = run_all(&MODE, plan, watch, |seed| Full::draw(seed, plan.durability))?;
    if let Some(scratch) = scratch {
        let note = match real::run(plan, scratch) {
            Ok((counts, kind)) => {
                for (name, count) in counts {
                    match kept.counts.iter_mut().find(|(other, _)| *other == name) {
                        Some((_, sum)) => *sum += count,
                        None => kept.counts.push((name, count)),
                    }
                }
                format!("a real {kind} of 32 MiB was filled as well")
            }
            Err(Failure::CannotRun(why)) => format!("on the simulated disk only: {why}"),
            Err(broken) => return Err(broken),
        };
        kept.notes.push(note);
    }
    Ok(kept)
}

/// Runs one case of [`run`] on the simulated disk again: of the plan its seed and its durability count.
///
/// # Errors
/// Says which promise was broken, or that there is no such case.
pub fn replay(plan: &Plan, case: u64) -> Result<(), Failure> {
    replay_case(&MODE, plan.seed, case, |seed| Full::draw(seed, plan.durability))
}

/// What follows when the disk is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The disk grows.
    Grown,
    /// Everything is deleted.
    Deleted,
    /// The process ends, and the store is opened on a disk without a free block.
    Killed,
    /// The power goes; then the same.
    PowerCut,
}

const ENDS: [End; 4] = [End::Grown, End::Deleted, End::Killed, End::PowerCut];

/// All budgets of one workload.
struct Full {
    seed: u64,
    config: Config,
    workload: Workload,
    /// Blocks in use after the whole workload.
    blocks: u64,
}

impl Full {
    fn draw(seed: u64, durability: Option<Durability>) -> Result<Self, String> {
        let mut rng = Rng::of(&[seed, 31]);
        let page_size = if seed <= 1 { 4096 } else { *rng.pick(&[4096, 4096, 8192]) };
        let config = Config {
            page_size,
            pool_bytes: smallest_pool(page_size),
            checkpoint_bytes: *rng.pick(&[32 << 10, 64 << 10, 64 << 20]),
            transaction_memory: 2 << 10,
            durability,
            ..Config::small()
        };
        let workload = Workload::draw(&mut rng);
        let mut full = Self { seed, config, workload, blocks: 0 };
        let disk = SimDisk::new(seed);
        let db = full.config.builder(&disk).create(DIR).map_err(|error| error.to_string())?;
        let mut store = Store::new(db, durability);
        for op in full.workload.ops() {
            if !store.perform(op)? {
                return Err(format!("{op:?} was refused on a disk without end"));
            }
        }
        full.blocks = disk.used() / BLOCK;
        Ok(full)
    }

    fn of(&self, case: u64) -> (u64, End) {
        (case / ENDS.len() as u64, ENDS[(case % ENDS.len() as u64) as usize])
    }
}

impl Cases for Full {
    fn len(&self) -> u64 {
        self.blocks * ENDS.len() as u64
    }

    fn name(&self, case: u64) -> String {
        let (blocks, end) = self.of(case);
        let page = self.config.page_size;
        format!("a disk of {blocks} blocks, seed {}, pages of {page} bytes, then {end:?}", self.seed)
    }

    fn run(&self, case: u64, tally: &mut Tally) -> Result<(), String> {
        let (blocks, end) = self.of(case);
        let disk = SimDisk::new(case);
        disk.set_capacity(Some(blocks * BLOCK));
        let db = match self.config.builder(&disk).create(DIR) {
            Ok(db) => db,
            Err(error) if error.is_no_space() => {
                tally.add("full at create", 1);
                disk.set_capacity(None);
                let disk = disk.reopen();
                let db = self.config.builder(&disk).open_or_create(DIR);
                let db = db.map_err(|error| format!("creating again with room: {error} ({error:?})"))?;
                return Store::new(db, self.config.durability).end_well();
            }
            Err(error) => return Err(format!("create: {error} ({error:?})")),
        };
        let mut store = Store::new(db, self.config.durability);
        let ops = self.workload.ops();
        let mut refused = None;
        for (i, op) in ops.iter().enumerate() {
            if i == ops.len() / 3 {
                store.look()?;
            }
            if !store.perform(op)? {
                refused = Some(op);
                break;
            }
        }
        // What is left of the room may do for the last part of the workload.
        let Some(refused) = refused else { return store.end_well() };
        tally.add("times full", 1);
        store.bears_it(refused, &self.workload, tally)?;
        match end {
            End::Grown => {
                disk.set_capacity(None);
                store.resumes(refused)?;
                tally.add("resumptions", 1);
                store.end_well()
            }
            End::Deleted => {
                store.deletes_all(tally)?;
                store.resumes_small()?;
                tally.add("resumptions", 1);
                disk.set_capacity(None);
                store.end_well()
            }
            End::Killed | End::PowerCut => {
                let ending = if end == End::Killed { Ending::Killed } else { Ending::PowerCut };
                if end == End::PowerCut {
                    disk.power_cut(CutMode::Random);
                }
                let next = disk.reopen();
                drop(store.db.take());
                // A cut takes back what the store had allocated and not yet synced: then the disk is as full as it was,
                // and nobody else has come.
                if end == End::Killed {
                    next.set_capacity(Some(next.used()));
                }
                let db = self.config.builder(&next).open(DIR);
                let db = db.map_err(|error| format!("opening on the full disk: {error} ({error:?})"))?;
                tally.add("openings while full", 1);
                store.reopened(db, ending)?;
                store.deletes_some(tally)?;
                next.set_capacity(None);
                store.resumes(refused)?;
                tally.add("resumptions", 1);
                let db = store.db.take().ok_or("no store")?;
                check_clean(&db)?;
                db.close().map_err(|error| format!("close: {error}"))
            }
        }
    }
}
