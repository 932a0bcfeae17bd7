//! The operations that a model run is made of, and how a seed draws them.

use std::ops::Bound;

use bedstone::Durability;

use crate::model::Bytes;
use crate::rng::Rng;
use crate::simulation::shape::Shape;

/// Names that tables have in model runs.
pub const TABLES: [&str; 4] = ["alpha", "beta", "gamma", "delta"];

/// How a range is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walk {
    /// By the iterator, from the front.
    Forward,
    /// By the iterator, from the back.
    Backward,
    /// From both ends in turns that this number decides.
    Both(u64),
    /// By `next_ref`.
    ForwardRef,
    /// By `next_back_ref`.
    BackwardRef,
    /// By `for_each_ref`.
    Each,
}

/// One write of a batch: a value, or `None` to delete.
pub type Write = (usize, Vec<u8>, Option<Bytes>);

/// What is read through a snapshot or in a transaction.
#[derive(Debug, Clone)]
pub enum Look {
    /// Keys, one by one.
    Gets(Vec<Vec<u8>>),
    /// Keys at once.
    MultiGet(Vec<Vec<u8>>),
    /// A range.
    Range(Bound<Vec<u8>>, Bound<Vec<u8>>, Walk),
    /// What begins with a prefix.
    Prefix(Vec<u8>, Walk),
    /// First and last entry.
    Ends,
}

/// A step of a transaction.
#[derive(Debug, Clone)]
pub enum Step {
    /// Sets a key, or removes it.
    Write(Write),
    /// Removes a range.
    DeleteRange(usize, Bound<Vec<u8>>, Bound<Vec<u8>>),
    /// Reads.
    Look(usize, Look),
    /// Sets a savepoint.
    Savepoint,
    /// Rolls back to one of those set, which this number decides.
    RollBack(u64),
    /// Releases one of those set.
    Release(u64),
    /// Somebody else does something.
    Other(Op),
}

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By a commit.
    Commit(Durability),
    /// By a commit whose ticket is waited for.
    Ticket,
    /// By rolling back.
    RollBack,
    /// By dropping it.
    Drop,
}

/// A write transaction.
#[derive(Debug, Clone)]
pub struct Tx {
    /// It validates what it reads.
    pub serializable: bool,
    /// What it does.
    pub steps: Vec<Step>,
    /// How it ends.
    pub end: End,
}

/// How the database is left before it is opened again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// By `close`.
    Close,
    /// By dropping the handle.
    Drop,
    /// As a process that is killed.
    Kill,
}

/// An operation. Tables are indexes into [`TABLES`].
#[derive(Debug, Clone)]
pub enum Op {
    /// Sets a key.
    Put(usize, Vec<u8>, Bytes, Durability),
    /// Sets a key from a reader.
    PutReader(usize, Vec<u8>, Bytes),
    /// Removes a key.
    Delete(usize, Vec<u8>, Durability),
    /// A batch over any tables.
    Batch(Vec<Write>, Durability),
    /// Reads a key, by `get`, `contains` and, if there is a value, by its reader.
    Get(usize, Vec<u8>),
    /// Reads keys.
    MultiGet(usize, Vec<Vec<u8>>),
    /// Reads a range.
    Range(usize, Bound<Vec<u8>>, Bound<Vec<u8>>, Walk),
    /// Reads what begins with a prefix.
    Prefix(usize, Vec<u8>, Walk),
    /// First and last entry.
    Ends(usize),
    /// Reads values, does other operations while it holds them, and looks at them again.
    Hold(usize, Vec<Vec<u8>>, Vec<Op>),
    /// Reads a range with other operations in between.
    WalkDuring(usize, bool, Vec<Op>),
    /// Takes a snapshot and keeps it.
    BeginRead,
    /// Reads a table through one of the snapshots kept.
    ReadOld(u64, usize, Look),
    /// Compares all that one of the snapshots kept sees, and closes it.
    CloseRead(u64),
    /// A transaction.
    Transact(Tx),
    /// Sets a key, or removes it, if it has the value that it has, or another one.
    Swap(usize, Vec<u8>, Option<Bytes>, bool),
    /// Makes a table.
    Create(usize),
    /// Drops a table.
    Drop(usize),
    /// Renames a table.
    Rename(usize, usize),
    /// Makes a checkpoint.
    Checkpoint,
    /// Makes a checkpoint, with operations between its steps.
    CheckpointBeside(Vec<Op>),
    /// Makes everything durable.
    Sync,
    /// All background work that is due.
    Step,
    /// One piece of background work.
    Work(bedstone::Work),
    /// Compares everything in every way, and checks the structure.
    Compare,
    /// Ends and opens again.
    Reopen(Leave),
    /// Does something that must be refused.
    Refused(u64),
}

/// Draws operations. Weights are drawn too, and drawn anew now and then: a run that only deletes for a while empties
/// its trees, one that never reads behaves unlike one that does (swarm testing: Groce et al., ISSTA 2012).
#[derive(Debug)]
pub struct Generator {
    shape: Shape,
    weights: [u64; KINDS],
    durabilities: [u64; 3],
    /// The durability of every commit, if one was asked for.
    fixed: Option<Durability>,
    largest_batch: u64,
    left: u32,
}

const KINDS: usize = 25;

impl Generator {
    /// A generator of operations over keys and values of this shape.
    pub fn new(rng: &mut Rng, shape: Shape, fixed: Option<Durability>) -> Self {
        let mut generator =
            Self { shape, weights: [0; KINDS], durabilities: [1, 0, 0], fixed, largest_batch: 10, left: 0 };
        generator.new_phase(rng);
        generator
    }

    fn new_phase(&mut self, rng: &mut Rng) {
        const USUAL: [u64; KINDS] = [
            30, 2, 12, 10, 3, // put, from a reader, delete, batch, deletes of neighbours
            8, 4, 6, 2, 2, 3, 3, // get, multi-get, range, prefix, ends, hold, walk
            1, 1, 1, 3, 2, 4, 2,
            1, // create, drop, rename, checkpoint, sync, step, reopen, compare or refused
            4, 6, 2, 8, 3, // begin to read, read, end it, transaction, swap
        ];
        self.weights = USUAL;
        for weight in &mut self.weights {
            match rng.below(5) {
                0 => *weight = 0,
                1 => *weight *= 4,
                _ => {}
            }
        }
        self.weights[0] += 1;
        if rng.chance(1, 4) {
            // A phase of shrinking.
            self.weights[2] = 60;
            self.weights[4] = 20;
            self.weights[0] = 3;
            self.weights[3] = 1;
        }
        self.durabilities = *rng.pick(&[[1, 0, 0], [1, 1, 1], [0, 0, 1], [1, 4, 4], [0, 1, 0]]);
        self.largest_batch = *rng.pick(&[3, 10, 40, 200]);
        self.left = 20 + rng.below(120) as u32;
    }

    fn durability(&self, rng: &mut Rng) -> Durability {
        let [sync, buffered, relaxed] = self.durabilities;
        let draw = rng.below(sync + buffered + relaxed);
        if let Some(fixed) = self.fixed {
            return fixed;
        }
        if draw < sync {
            Durability::Sync
        } else if draw < sync + buffered {
            Durability::Buffered
        } else {
            Durability::Relaxed
        }
    }

    fn table(rng: &mut Rng) -> usize {
        // Skewed, so that one table becomes large.
        rng.index(TABLES.len()).min(rng.index(TABLES.len()))
    }

    fn walk(rng: &mut Rng) -> Walk {
        match rng.below(6) {
            0 => Walk::Forward,
            1 => Walk::Backward,
            2 => Walk::Both(rng.next()),
            3 => Walk::ForwardRef,
            4 => Walk::BackwardRef,
            _ => Walk::Each,
        }
    }

    fn one_bound(&mut self, rng: &mut Rng) -> Bound<Vec<u8>> {
        match rng.below(4) {
            0 => Bound::Unbounded,
            1 => Bound::Excluded(self.shape.bound(rng)),
            _ => Bound::Included(self.shape.bound(rng)),
        }
    }

    fn write(&mut self, rng: &mut Rng) -> Write {
        let key = self.shape.key(rng);
        let value = if rng.chance(3, 4) { Some(self.shape.value(rng, &key)) } else { None };
        (Self::table(rng), key, value)
    }

    /// A few operations that do not nest, reopen or touch the tables themselves: what may happen while values are held.
    fn inner(&mut self, rng: &mut Rng) -> Vec<Op> {
        (0..1 + rng.below(8))
            .map(|_| match rng.below(8) {
                0 => Op::Checkpoint,
                1 => Op::Step,
                2 => {
                    let key = self.shape.key(rng);
                    Op::Delete(Self::table(rng), key, self.durability(rng))
                }
                3 => {
                    let writes = (0..1 + rng.below(12)).map(|_| self.write(rng)).collect();
                    Op::Batch(writes, self.durability(rng))
                }
                4 => Op::Get(Self::table(rng), self.shape.key(rng)),
                _ => {
                    let key = self.shape.key(rng);
                    let value = self.shape.value(rng, &key);
                    Op::Put(Self::table(rng), key, value, self.durability(rng))
                }
            })
            .collect()
    }

    /// Operations that may happen between the steps of a checkpoint: whatever does not wait for one.
    fn beside(&mut self, rng: &mut Rng) -> Vec<Op> {
        let mut beside = Vec::new();
        for _ in 0..1 + rng.below(14) {
            let table = Self::table(rng);
            beside.push(match rng.below(12) {
                0 => Op::Work(*rng.pick(&bedstone::Work::ALL)),
                1 => Op::BeginRead,
                2 => Op::CloseRead(rng.next()),
                3 => Op::ReadOld(rng.next(), table, self.look(rng)),
                4 => {
                    let mut tx = self.transaction(rng);
                    // What happens beside it is what this list is.
                    tx.steps.retain(|step| !matches!(step, Step::Other(_)));
                    Op::Transact(tx)
                }
                5 => {
                    let key = self.shape.key(rng);
                    Op::PutReader(table, key, self.shape.long_value(rng))
                }
                6 => match rng.below(3) {
                    0 => Op::Create(table),
                    1 => Op::Drop(table),
                    _ => Op::Rename(table, rng.index(TABLES.len())),
                },
                _ => match self.inner(rng).swap_remove(0) {
                    Op::Checkpoint => Op::Sync,
                    op => op,
                },
            });
        }
        beside
    }

    fn look(&mut self, rng: &mut Rng) -> Look {
        match rng.below(6) {
            0 | 1 => Look::Gets((0..1 + rng.below(6)).map(|_| self.shape.bound(rng)).collect()),
            2 => Look::MultiGet((0..rng.below(20)).map(|_| self.shape.bound(rng)).collect()),
            3 => Look::Prefix(self.shape.bound(rng), Self::walk(rng)),
            4 => Look::Ends,
            _ => Look::Range(self.one_bound(rng), self.one_bound(rng), Self::walk(rng)),
        }
    }

    fn transaction(&mut self, rng: &mut Rng) -> Tx {
        let count = *rng.pick(&[1, 4, 12, 60]);
        let others = rng.chance(1, 2);
        let mut steps = Vec::new();
        for _ in 0..1 + rng.below(count) {
            steps.push(match rng.below(24) {
                0 => Step::Savepoint,
                1 => Step::RollBack(rng.next()),
                2 => Step::Release(rng.next()),
                3 => Step::DeleteRange(
                    Self::table(rng),
                    Bound::Included(self.shape.bound(rng)),
                    Bound::Excluded(self.shape.bound(rng)),
                ),
                4..=8 => Step::Look(Self::table(rng), self.look(rng)),
                9 | 10 if others => Step::Other(self.inner(rng).swap_remove(0)),
                _ => Step::Write(self.write(rng)),
            });
        }
        let end = match rng.below(8) {
            0 => End::RollBack,
            1 => End::Drop,
            2 => End::Ticket,
            _ => End::Commit(self.durability(rng)),
        };
        Tx { serializable: rng.chance(1, 3), steps, end }
    }

    /// The next operation.
    pub fn next(&mut self, rng: &mut Rng) -> Op {
        if self.left == 0 {
            self.new_phase(rng);
        }
        self.left -= 1;
        let mut draw = rng.below(self.weights.iter().sum());
        let kind = self.weights.iter().position(|weight| {
            let here = draw < *weight;
            draw = draw.wrapping_sub(*weight);
            here
        });
        let table = Self::table(rng);
        match kind.unwrap_or(0) {
            0 => {
                let key = self.shape.key(rng);
                let value = self.shape.value(rng, &key);
                Op::Put(table, key, value, self.durability(rng))
            }
            1 => {
                let key = self.shape.key(rng);
                let value =
                    if rng.chance(1, 2) { self.shape.long_value(rng) } else { self.shape.value(rng, &key) };
                Op::PutReader(table, key, value)
            }
            2 => Op::Delete(table, self.shape.key(rng), self.durability(rng)),
            3 => {
                let count = 1 + rng.below(self.largest_batch);
                let writes = (0..count).map(|_| self.write(rng)).collect();
                Op::Batch(writes, self.durability(rng))
            }
            4 => {
                let count = 1 + rng.below(60);
                let deletes =
                    self.shape.neighbours(rng, count).into_iter().map(|key| (table, key, None)).collect();
                Op::Batch(deletes, self.durability(rng))
            }
            5 => Op::Get(table, self.shape.bound(rng)),
            6 => Op::MultiGet(table, (0..rng.below(50)).map(|_| self.shape.bound(rng)).collect()),
            7 => Op::Range(table, self.one_bound(rng), self.one_bound(rng), Self::walk(rng)),
            8 => Op::Prefix(table, self.shape.bound(rng), Self::walk(rng)),
            9 => Op::Ends(table),
            10 => {
                let keys = (0..1 + rng.below(3)).map(|_| self.shape.key(rng)).collect();
                Op::Hold(table, keys, self.inner(rng))
            }
            11 => Op::WalkDuring(table, rng.chance(1, 2), self.inner(rng)),
            12 => Op::Create(table),
            13 => Op::Drop(table),
            14 => Op::Rename(table, rng.index(TABLES.len())),
            15 if rng.chance(2, 3) => Op::CheckpointBeside(self.beside(rng)),
            15 => Op::Checkpoint,
            16 => Op::Sync,
            17 if rng.chance(3, 4) => Op::Work(*rng.pick(&bedstone::Work::ALL)),
            17 => Op::Step,
            18 => Op::Reopen(*rng.pick(&[Leave::Close, Leave::Drop, Leave::Kill])),
            20 => Op::BeginRead,
            21 => Op::ReadOld(rng.next(), table, self.look(rng)),
            22 => Op::CloseRead(rng.next()),
            23 => Op::Transact(self.transaction(rng)),
            24 => {
                let (_, key, value) = self.write(rng);
                Op::Swap(table, key, value, rng.chance(2, 3))
            }
            _ => {
                if rng.chance(1, 2) {
                    Op::Compare
                } else {
                    Op::Refused(rng.next())
                }
            }
        }
    }
}

impl Op {
    /// In a few words, for a log of what a run did.
    pub fn brief(&self) -> String {
        use crate::model::show;
        match self {
            Op::Put(t, k, v, d) => format!("put {} {} = {} bytes, {d:?}", TABLES[*t], show(k), v.len()),
            Op::PutReader(t, k, v) => format!("put_reader {} {} = {} bytes", TABLES[*t], show(k), v.len()),
            Op::Delete(t, k, d) => format!("delete {} {}, {d:?}", TABLES[*t], show(k)),
            Op::Batch(writes, d) => {
                let puts = writes.iter().filter(|w| w.2.is_some()).count();
                let bytes: usize =
                    writes.iter().map(|w| w.1.len() + w.2.as_ref().map_or(0, |v| v.len())).sum();
                format!("batch of {puts} puts, {} deletes, {bytes} bytes, {d:?}", writes.len() - puts)
            }
            Op::Get(t, k) => format!("get {} {}", TABLES[*t], show(k)),
            Op::MultiGet(t, keys) => format!("multi_get {} of {}", TABLES[*t], keys.len()),
            Op::Range(t, low, high, walk) => {
                let text = |bound: &Bound<Vec<u8>>| format!("{:?}", bound.as_ref().map(|key| show(key)));
                format!("range {} {}..{} {walk:?}", TABLES[*t], text(low), text(high))
            }
            Op::Prefix(t, p, walk) => format!("prefix {} {} {walk:?}", TABLES[*t], show(p)),
            Op::Hold(t, keys, inner) => format!("hold {} {} keys [{}]", TABLES[*t], keys.len(), list(inner)),
            Op::WalkDuring(t, back, inner) => {
                format!(
                    "walk {} {} [{}]",
                    TABLES[*t],
                    if *back { "backward" } else { "forward" },
                    list(inner)
                )
            }
            Op::ReadOld(which, t, look) => {
                format!("read of snapshot {} {} {}", which % 8, TABLES[*t], look.brief())
            }
            Op::Transact(tx) => {
                let steps: Vec<String> = tx.steps.iter().map(Step::brief).collect();
                let kind = if tx.serializable { "serializable transaction" } else { "transaction" };
                format!("{kind} [{}] {:?}", steps.join("; "), tx.end)
            }
            Op::Swap(t, k, v, right) => {
                let value = v.as_ref().map(|v| v.len());
                format!("swap {} {} to {value:?} bytes, expecting right: {right}", TABLES[*t], show(k))
            }
            Op::CheckpointBeside(beside) => format!("checkpoint, and beside it [{}]", list(beside)),
            Op::Create(t) => format!("create {}", TABLES[*t]),
            Op::Drop(t) => format!("drop {}", TABLES[*t]),
            Op::Rename(a, b) => format!("rename {} to {}", TABLES[*a], TABLES[*b]),
            Op::Ends(t) => format!("ends {}", TABLES[*t]),
            Op::Reopen(leave) => format!("reopen after {leave:?}"),
            other => format!("{other:?}"),
        }
    }
}

impl Look {
    fn brief(&self) -> String {
        use crate::model::show;
        match self {
            Look::Gets(keys) => format!("gets of {:?}", keys.iter().map(|key| show(key)).collect::<Vec<_>>()),
            Look::MultiGet(keys) => format!("multi_get of {}", keys.len()),
            Look::Range(low, high, walk) => {
                let text = |bound: &Bound<Vec<u8>>| format!("{:?}", bound.as_ref().map(|key| show(key)));
                format!("range {}..{} {walk:?}", text(low), text(high))
            }
            Look::Prefix(prefix, walk) => format!("prefix {} {walk:?}", show(prefix)),
            Look::Ends => "ends".to_owned(),
        }
    }
}

impl Step {
    fn brief(&self) -> String {
        use crate::model::show;
        match self {
            Step::Write((t, k, Some(v))) => format!("put {} {} = {} bytes", TABLES[*t], show(k), v.len()),
            Step::Write((t, k, None)) => format!("delete {} {}", TABLES[*t], show(k)),
            Step::DeleteRange(t, ..) => format!("delete_range {}", TABLES[*t]),
            Step::Look(t, look) => format!("{} {}", TABLES[*t], look.brief()),
            Step::Other(op) => format!("(another: {})", op.brief()),
            other => format!("{other:?}"),
        }
    }
}

fn list(ops: &[Op]) -> String {
    ops.iter().map(Op::brief).collect::<Vec<_>>().join("; ")
}
