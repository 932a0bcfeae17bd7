//! Power cuts on the simulated disk, for Bedstone itself: model runs ([`crate::simulation`]), and the standard workload.

use parking_lot::Mutex;

use crate::plan::{Pace, Plan, Progress};
use crate::rng::Rng;
use crate::rounds::run_rounds;
use crate::simulated::{Cuts, power_cuts_round};
use crate::simulation::{self, Report};
use crate::standard::Standard;
use crate::verdict::{Failure, Kept, Verdict};

/// Operations of a model run.
pub const OPERATIONS: usize = 300;
/// Every so many rounds one is the standard workload's.
const STANDARD: u64 = 8;
/// Threads of the standard workload where it has several.
const WRITERS: usize = 4;

/// Cuts the power of simulated disks at operations of every kind, while a store is created, worked on, checkpointed,
/// closed and recovered, and verifies every answer and what is left. `plan.threads` disks at a time. A round is a disk:
/// a model run, which draws its operations, options and data anew, or the standard workload.
///
/// Counts: `disks`, `power cuts`, `while opening`, `operations`, `between the steps of checkpoints`,
/// `failed operations of the disk`, `acknowledged commits`, `recoveries verified`.
///
/// # Errors
/// [`Failure::Broken`] with what was lost and the number of the disk.
pub fn run(plan: &Plan, watch: &(dyn Fn(&Progress) + Sync)) -> Verdict {
    let pace = Pace::begin(plan, "simulated disks", None, watch);
    let sum = Mutex::new((Report::default(), Cuts::default()));
    let disks = run_rounds(&pace, plan.threads, |round| {
        match disk(plan, round, false)? {
            Done::Model(report) => sum.lock().0.add(&report),
            Done::Standard(cuts) => sum.lock().1.add(&cuts),
        }
        Ok(())
    })?;
    let (model, standard) = sum.into_inner();
    Ok(Kept {
        counts: vec![
            ("disks", disks),
            ("power cuts", model.cuts + model.cuts_in_recovery + standard.cuts),
            ("while opening", model.cuts_in_recovery + standard.while_opening),
            ("operations", model.operations),
            ("between the steps of checkpoints", model.pauses),
            ("failed operations of the disk", model.faults),
            ("acknowledged commits", model.commits + standard.acknowledged),
            ("recoveries verified", model.openings + standard.recoveries),
        ],
        notes: Vec::new(),
        took: pace.elapsed(),
    })
}

/// What a round has done.
pub enum Done {
    /// A model run.
    Model(Report),
    /// The standard workload.
    Standard(Cuts),
}

/// One disk of [`run`]; with `trace` every operation of a model run is printed on standard error.
///
/// # Errors
/// As [`run`].
pub fn disk(plan: &Plan, round: u64, trace: bool) -> Result<Done, Failure> {
    // Not the sum: then the next seed would have the same disks, but for one.
    let seed = Rng::of(&[plan.seed, round]).next();
    if round % STANDARD == STANDARD - 1 {
        // Every other one has several threads: only they are acknowledged by each other's syncs, and have commits under
        // way when a checkpoint begins. They meet by chance, so such a disk cannot be repeated exactly.
        let threads = if (round / STANDARD).is_multiple_of(2) { WRITERS } else { 1 };
        let standard = Standard::new(&Plan { seed, threads, ..plan.clone() });
        let done = power_cuts_round(plan.seed, round, &standard).map(Done::Standard);
        return match threads {
            1 => done,
            _ => done.map_err(|failure| {
                failure
                    .and("several writers met by chance here: it may take a few repetitions to see it again")
            }),
        };
    }
    simulation::run_at(seed, OPERATIONS, plan.durability, trace).map(Done::Model).map_err(Failure::broken)
}
