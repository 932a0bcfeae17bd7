//! Faults of the medium: every operation of a scenario that uses every part of the store fails, one in each run, once
//! or from there on, in every way that an operation of its kind can fail. Every failure must be a typed error, nothing may
//! panic, and when the store is opened again, after the end of the process or after a power cut, everything
//! acknowledged must be there, and must survive another power cut.
//!
//! A round is one run: one operation, one way of failing, one ending. With fewer rounds than there are runs a sample is
//! tried, spread evenly over all of them. The seed draws the store's options and the lengths of values.

mod list;
mod stage;

use std::sync::Arc;

use bedstone::Durability;
use bedstone_io::sim::{CutMode, Fault, OpKind, SimDisk};

use crate::cases::{Cases, Mode, Tally, replay as replay_case, run_all, run_picked};
use crate::oracle::Ending;
use crate::plan::{Plan, Progress};
use crate::scenario::Scenario;
use crate::verdict::{Failure, Verdict};
use list::{End, List, Struck};
use stage::{Stage, stages};

const MODE: Mode = Mode {
    name: "fault",
    what: "faults tried",
    counts: &[
        "operations failed",
        "reads failed",
        "writes failed",
        "syncs failed",
        "directory syncs failed",
        "allocations failed",
        "other operations failed",
        "errors met",
        "ended before the fault",
    ],
};

/// Fails operations, each in a run of its own. Counts: "faults tried" (runs), "operations failed", those of a kind where
/// the fault asked for one, "errors met" (given to the caller), and "ended before the fault" (runs cut short before the
/// operation came, which is one of the closing then).
pub fn run(plan: &Plan, watch: &(dyn Fn(&Progress) + Sync)) -> Verdict {
    run_all(&MODE, plan, watch, |seed| Faults::draw(seed, plan.durability))
}

/// The same with faults of one kind only.
pub fn run_kind(plan: &Plan, kind: OpKind, fault: Fault, watch: &(dyn Fn(&Progress) + Sync)) -> Verdict {
    run_picked(
        &MODE,
        plan,
        watch,
        |seed| Faults::draw(seed, plan.durability),
        |faults, case| {
            let struck = faults.list.case(case);
            (struck.kind, struck.fault) == (kind, fault)
        },
    )
}

/// Runs one case of [`run`] again: of the plan its seed and its durability count.
///
/// # Errors
/// Says which promise was broken, or that there is no such case.
pub fn replay(plan: &Plan, case: u64) -> Result<(), Failure> {
    replay_case(&MODE, plan.seed, case, |seed| Faults::draw(seed, plan.durability))
}

/// All faults of one seed.
struct Faults {
    stages: Vec<Stage>,
    list: List,
}

impl Faults {
    fn draw(seed: u64, durability: Option<Durability>) -> Result<Self, String> {
        let stages = stages(seed, durability)?;
        Ok(Self { list: List::new(&stages), stages })
    }
}

impl Cases for Faults {
    fn len(&self) -> u64 {
        self.list.len()
    }

    fn name(&self, case: u64) -> String {
        let Struck { stage, kind, fault, nth, repeat, end, of } = self.list.case(case);
        let part = self.stages[stage].part;
        format!("{fault:?} at {kind:?} {nth} of {of} of the part {part:?}, {repeat:?}, then {end:?}")
    }

    fn run(&self, case: u64, tally: &mut Tally) -> Result<(), String> {
        let struck = self.list.case(case);
        let stage = &self.stages[struck.stage];
        let disk = stage.medium.fork(case * 31 + 7);
        let mut scenario = stage.scenario.clone();
        disk.fail_nth(struck.kind, struck.nth, struck.fault, struck.repeat);
        if let Some(nth) = struck.cut_at(case) {
            disk.set_cut_at("", struck.kind, nth, CutMode::Drop);
        }
        let ending = if struck.end.is_own() { stage.part.ending() } else { Ending::Killed };
        let next = scenario.part_until(&disk, stage.part, ending);
        next.clear_faults();
        next.cancel_cut();
        // A life that is cut short makes no operations of its closing.
        let never = disk.stats().faults == 0;
        if never && struck.end.is_own() {
            return Err("the operation that was to fail was never made: no two runs are the same".into());
        }
        tally.add("ended before the fault", u64::from(never));
        tally.add("operations failed", disk.stats().faults);
        tally.add(list::failed(struck.kind), disk.stats().faults);
        tally.add("errors met", scenario.errors.len() as u64);
        if struck.fault == Fault::FlippedRead {
            return wrong(&scenario);
        }
        judge(scenario, next, struck.end)
    }
}

/// Where the medium lies the store cannot keep everything, but it must notice: wrong data is never served.
fn wrong(scenario: &Scenario) -> Result<(), String> {
    match scenario.wrong.first() {
        None => Ok(()),
        Some(wrong) => Err(format!("{wrong} (errors before: {:?})", scenario.errors)),
    }
}

fn judge(mut scenario: Scenario, disk: Arc<SimDisk>, end: End) -> Result<(), String> {
    // When the sync of a directory fails, names in it are lost to every later sync, that of a directory just made too,
    // and nobody can make it anew without taking it away first. A creation that failed so is refused; that the next
    // one in the same boot survives a power cut is not promised.
    let nameless = |error: &String| error.starts_with("open") && error.contains("cannot sync directory");
    if scenario.oracle.now().tables.is_empty() && scenario.errors.first().is_some_and(nameless) {
        return scenario.verify(&disk, Ending::Killed).map(drop);
    }
    let ending = match end.cut() {
        Some(mode) => {
            disk.power_cut(mode);
            Ending::PowerCut
        }
        None => Ending::Killed,
    };
    let disk = disk.reopen();
    scenario.verify(&disk, ending)?;
    // Whatever the opening relied on must be on the medium by now, not only in a page cache.
    let disk = disk.reopen();
    disk.power_cut(CutMode::Drop);
    scenario
        .verify(&disk.reopen(), Ending::PowerCut)
        .map(drop)
        .map_err(|what| format!("after another power cut: {what}"))
}
