//! What is done until the disk is full.

use bedstone::Durability;

use crate::model::Bytes;
use crate::rng::Rng;
use crate::simulation::shape::value_of;

/// A write: table, key and value.
pub(super) type Write = (String, Vec<u8>, Bytes);

/// One step.
#[derive(Debug, Clone)]
pub(super) enum Op {
    /// Sets a key.
    Put(Write, Durability),
    /// Sets a key to a value that comes out of a reader.
    Reader(Write),
    /// Sets keys at once.
    Batch(Vec<Write>),
    /// Sets keys in a transaction that does not fit into its memory.
    Transaction(Vec<Write>),
    /// Removes everything between two keys.
    DeleteRange(String, Vec<u8>, Vec<u8>),
    /// Makes a checkpoint.
    Checkpoint,
    /// Does what is due in the background.
    Step,
}

/// The steps of a seed.
pub(super) struct Workload(Vec<Op>);

const STEPS: usize = 120;
const TABLES: [&str; 3] = ["alpha", "beta", "gamma"];

impl Workload {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        Self((0..STEPS).map(|_| op(rng)).collect())
    }

    pub(super) fn ops(&self) -> &[Op] {
        &self.0
    }
}

fn write(rng: &mut Rng, longest: u64) -> Write {
    let key = format!("key {:04}", rng.below(300)).into_bytes();
    let len = rng.below(longest) as usize;
    ((*rng.pick(&TABLES)).to_owned(), key, value_of(rng.next(), len))
}

fn op(rng: &mut Rng) -> Op {
    let some = |rng: &mut Rng, count: u64| (0..1 + rng.below(count)).map(|_| write(rng, 400)).collect();
    match rng.below(20) {
        0..8 => {
            let levels = [Durability::Sync, Durability::Sync, Durability::Buffered, Durability::Relaxed];
            let longest = *rng.pick(&[60, 500, 900]);
            Op::Put(write(rng, longest), *rng.pick(&levels))
        }
        8..10 => Op::Put(write(rng, 20_000), Durability::Sync),
        10..12 => Op::Reader(write(rng, 12_000)),
        12..15 => Op::Batch(some(rng, 20)),
        15..17 => Op::Transaction(some(rng, 30)),
        17 => {
            let from = rng.below(300);
            let key = |number: u64| format!("key {number:04}").into_bytes();
            Op::DeleteRange((*rng.pick(&TABLES)).to_owned(), key(from), key(from + 30))
        }
        18 => Op::Checkpoint,
        _ => Op::Step,
    }
}
