//! The scenario without faults, one stage for each of its parts: where the runs with faults set out from.

use std::sync::Arc;

use bedstone::Durability;
use bedstone_io::sim::{Fault, OpKind, Repeat, SimDisk};

use super::list::kinds;
use crate::oracle::Ending;
use crate::rng::Rng;
use crate::scenario::{Part, Scenario};
use crate::setup::{Config, smallest_pool};

/// The moment before a part.
pub(super) struct Stage {
    pub(super) part: Part,
    /// The medium at that moment; forked by each run.
    pub(super) medium: Arc<SimDisk>,
    pub(super) scenario: Scenario,
    /// How many operations of each kind the part makes.
    operations: Vec<(OpKind, u64)>,
}

impl Stage {
    pub(super) fn operations(&self, kind: OpKind) -> u64 {
        self.operations.iter().find(|(other, _)| *other == kind).map_or(0, |(_, count)| *count)
    }
}

/// Options of the store. The first seeds have the smallest pool and pages; so that pages are evicted and read again.
fn config(seed: u64, durability: Option<Durability>) -> Config {
    let mut rng = Rng::of(&[seed, 11]);
    let page_size = if seed <= 1 { 4096 } else { *rng.pick(&[4096, 4096, 8192, 16384]) };
    let least = smallest_pool(page_size);
    Config {
        page_size,
        pool_bytes: if seed <= 1 { least } else { *rng.pick(&[least, least + least / 2]) },
        transaction_memory: 2 << 10,
        durability,
        ..Config { syncs: 1 + rng.index(2), policy: Config::draw(&mut rng).policy, ..Config::small() }
    }
}

/// Runs the whole scenario without faults, and remembers it at the beginning of each part.
pub(super) fn stages(seed: u64, durability: Option<Durability>) -> Result<Vec<Stage>, String> {
    let mut scenario = Scenario::new(config(seed, durability), seed);
    let mut disk = SimDisk::new(seed);
    let mut stages = Vec::new();
    for part in Part::ALL {
        let (medium, before) = (disk.fork(seed), scenario.clone());
        let counter = disk.fork(seed);
        for kind in kinds() {
            counter.fail_nth(kind, u64::MAX, Fault::Eio, Repeat::Once);
        }
        scenario.part(&counter, part);
        let operations = kinds().zip(counter.counted()).collect();
        if let Some(error) = scenario.errors.iter().chain(&scenario.wrong).next() {
            return Err(format!("without a fault, in the part {part:?}: {error}"));
        }
        stages.push(Stage { part, medium, scenario: before, operations });
        disk = counter.reopen();
        disk.clear_faults();
    }
    scenario.verify(&disk, Ending::Closed)?;
    Ok(stages)
}
