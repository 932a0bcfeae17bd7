//! Every interleaving of small cases: virtual threads that append, write, sync and wait, over a kernel that may
//! fail, explored depth-first. Each step is what a real thread does in one critical section or one system call.

use std::collections::HashSet;

use super::{Ledger, Need, SyncRun, Turn};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Goal {
    /// Append one byte and wait until it is written or durable.
    Commit(Need),
    /// Find the buffer full: have it written, or wait until the write under way has ended.
    Room,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    /// About to begin this goal.
    Begin(Goal),
    /// About to ask for its turn.
    Ask(Need, u64),
    /// In the queue.
    Parked(Need, u64),
    /// Knows its turn.
    Has(Turn, Need, u64),
    /// The write of everything up to the first number is under way.
    Writing(u64, Need, u64),
    /// The sync is under way; it began when the kernel had everything up to the first number.
    Syncing(SyncRun, u64, Need, u64),
    /// The write has failed and the log was told; the duty is still held.
    WriteFailed(u64, Need, u64),
    SyncFailed(SyncRun, Need, u64),
    Finished,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    ledger: Ledger<usize>,
    tail: u64,
    /// Position up to which the buffer was taken out.
    taken: u64,
    kernel: u64,
    medium: u64,
    /// An error of writing back that the open file of this slot has not reported yet.
    unreported: [bool; 2],
    /// Bytes were lost: nothing beyond the medium's position can become durable.
    lost: bool,
    failures_left: u8,
    threads: Vec<Place>,
}

impl World {
    fn new(goals: &[Goal], max_syncs: usize, failures: u8) -> Self {
        Self {
            ledger: Ledger::new(0, max_syncs),
            tail: 0,
            taken: 0,
            kernel: 0,
            medium: 0,
            unreported: [false; 2],
            lost: false,
            failures_left: failures,
            threads: goals.iter().map(|&goal| Place::Begin(goal)).collect(),
        }
    }

    fn dispatch(&mut self) {
        let mut told = Vec::new();
        self.ledger.dispatch(&mut told);
        for (who, turn) in told {
            let Place::Parked(need, upto) = self.threads[who] else {
                panic!("thread {who} was told without waiting: {self:?}");
            };
            self.threads[who] = Place::Has(turn, need, upto);
        }
    }

    fn answer(&mut self, turn: Turn, need: Need, upto: u64) -> Place {
        match turn {
            Turn::Done => {
                let reached = if need == Need::Durable { self.medium } else { self.kernel };
                assert!(reached >= upto, "acknowledged {upto} at {reached}: {self:?}");
                Place::Finished
            }
            Turn::Failed => {
                assert!(self.ledger.failed());
                Place::Finished
            }
            turn => Place::Has(turn, need, upto),
        }
    }

    /// All worlds that one step of thread `t` can lead to.
    fn steps(&self, t: usize) -> Vec<World> {
        let mut next = self.clone();
        let place = self.threads[t];
        let after = match place {
            Place::Finished | Place::Parked(..) => return Vec::new(),
            Place::Begin(Goal::Commit(need)) => {
                next.tail += 1;
                Place::Ask(need, next.tail)
            }
            Place::Begin(Goal::Room) => {
                Place::Ask(Need::Written, if next.ledger.writing() { next.taken } else { next.tail })
            }
            Place::Ask(need, upto) => match next.ledger.turn(need, upto) {
                Turn::Wait => {
                    next.ledger.enqueue(need, upto, t);
                    Place::Parked(need, upto)
                }
                turn => next.answer(turn, need, upto),
            },
            Place::Has(Turn::Wait, need, upto) => Place::Ask(need, upto),
            Place::Has(Turn::Write, need, upto) => {
                next.taken = next.tail;
                Place::Writing(next.tail, need, upto)
            }
            Place::Has(Turn::Sync(run), need, upto) => Place::Syncing(run, next.kernel, need, upto),
            Place::Has(turn, need, upto) => next.answer(turn, need, upto),
            Place::Writing(end, need, upto) => {
                let mut worlds = Vec::new();
                if next.failures_left > 0 {
                    let mut failed = next.clone();
                    failed.failures_left -= 1;
                    failed.ledger.fail();
                    failed.dispatch();
                    failed.threads[t] = Place::WriteFailed(end, need, upto);
                    worlds.push(failed);
                }
                next.kernel = next.kernel.max(end);
                next.end_write(t, end, need, upto);
                worlds.push(next);
                return worlds;
            }
            Place::WriteFailed(end, need, upto) => {
                next.end_write(t, end, need, upto);
                return vec![next];
            }
            Place::Syncing(run, began, need, upto) => {
                let mut worlds = Vec::new();
                if next.failures_left > 0 && next.kernel > next.medium {
                    let mut broken = next.clone();
                    broken.failures_left -= 1;
                    broken.lost = true;
                    broken.unreported = [true; 2];
                    broken.sync_returns(t, run, began, need, upto);
                    worlds.push(broken);
                }
                next.sync_returns(t, run, began, need, upto);
                worlds.push(next);
                return worlds;
            }
            Place::SyncFailed(_, need, upto) => {
                let turn = next.ledger.turn(need, upto);
                next.dispatch();
                next.answer(turn, need, upto)
            }
        };
        next.threads[t] = after;
        vec![next]
    }

    fn end_write(&mut self, t: usize, end: u64, need: Need, upto: u64) {
        self.ledger.write_done(end);
        let turn = self.ledger.turn(need, upto);
        self.threads[t] = self.answer(turn, need, upto);
        self.dispatch();
    }

    fn sync_returns(&mut self, t: usize, run: SyncRun, began: u64, need: Need, upto: u64) {
        if std::mem::take(&mut self.unreported[run.slot]) {
            self.ledger.fail();
            self.dispatch();
            self.threads[t] = Place::SyncFailed(run, need, upto);
            return;
        }
        if !self.lost {
            self.medium = self.medium.max(began);
        }
        self.ledger.sync_done(run);
        let turn = self.ledger.turn(need, upto);
        self.threads[t] = self.answer(turn, need, upto);
        self.dispatch();
    }

    fn check(&self) {
        assert!(self.ledger.durable() <= self.medium, "durable before the medium has it: {self:?}");
        assert!(self.ledger.written() <= self.kernel, "written before the kernel has it: {self:?}");
        let writers = self.threads.iter().filter(|place| {
            matches!(place, Place::Has(Turn::Write, ..) | Place::Writing(..) | Place::WriteFailed(..))
        });
        assert!(writers.count() <= 1, "two writers: {self:?}");
        let slots: Vec<_> = self
            .threads
            .iter()
            .filter_map(|place| match place {
                Place::Has(Turn::Sync(run), ..) | Place::Syncing(run, ..) => Some(run.slot),
                _ => None,
            })
            .collect();
        assert!(slots.len() <= 2 && (slots.len() < 2 || slots[0] != slots[1]), "shared slot: {self:?}");
    }
}

/// Explores everything; returns how many worlds there are.
fn explore(goals: &[Goal], max_syncs: usize, failures: u8) -> usize {
    let mut seen = HashSet::new();
    let mut open = vec![World::new(goals, max_syncs, failures)];
    while let Some(world) = open.pop() {
        if !seen.insert(world.clone()) {
            continue;
        }
        world.check();
        let next: Vec<_> = (0..goals.len()).flat_map(|t| world.steps(t)).collect();
        if next.is_empty() {
            assert!(world.threads.iter().all(|place| *place == Place::Finished), "somebody hangs: {world:?}");
        }
        open.extend(next);
    }
    seen.len()
}

const DURABLE: Goal = Goal::Commit(Need::Durable);
const WRITTEN: Goal = Goal::Commit(Need::Written);

#[test]
fn every_interleaving_of_three_threads() {
    let kinds = [DURABLE, WRITTEN, Goal::Room];
    for syncs in [1, 2] {
        for failures in [0, 1] {
            for (a, b, c) in (0..27).map(|i| (kinds[i % 3], kinds[i / 3 % 3], kinds[i / 9])) {
                explore(&[a, b, c], syncs, failures);
            }
        }
    }
}

#[test]
fn every_interleaving_of_four_committers() {
    for syncs in [1, 2] {
        let worlds = explore(&[DURABLE, DURABLE, DURABLE, DURABLE], syncs, 1);
        assert!(worlds > 1000, "only {worlds} worlds");
        explore(&[DURABLE, DURABLE, WRITTEN, Goal::Room], syncs, 1);
    }
}

#[test]
fn the_second_sync_is_used_only_while_groups_are_small() {
    let mut ledger = Ledger::new(0, 2);
    assert_eq!(ledger.turn(Need::Durable, 1), Turn::Write);
    ledger.write_done(1);
    let Turn::Sync(first) = ledger.turn(Need::Durable, 1) else { panic!("no sync") };
    assert_eq!(ledger.turn(Need::Durable, 2), Turn::Write, "a second committer overlaps");
    ledger.write_done(5);
    let Turn::Sync(second) = ledger.turn(Need::Durable, 2) else { panic!("no second sync") };
    assert_ne!(first.slot, second.slot);
    for upto in 3..=5 {
        assert_eq!(ledger.turn(Need::Durable, upto), Turn::Wait);
        ledger.enqueue(Need::Durable, upto, upto);
    }
    assert_eq!(ledger.sync_done(second), None, "the first has not come back");
    assert_eq!(ledger.durable(), 0);
    assert_eq!(ledger.sync_done(first), Some(4));
    assert_eq!(ledger.durable(), 5);
    let mut told = Vec::new();
    ledger.dispatch(&mut told);
    assert_eq!(told, [(3, Turn::Done), (4, Turn::Done), (5, Turn::Done)]);

    assert_eq!(ledger.turn(Need::Durable, 6), Turn::Write);
    ledger.write_done(6);
    assert!(matches!(ledger.turn(Need::Durable, 6), Turn::Sync(_)));
    assert_eq!(ledger.turn(Need::Durable, 7), Turn::Wait, "many commit: they gather");
}

#[test]
fn nothing_moves_after_a_failure() {
    let mut ledger: Ledger<u64> = Ledger::new(0, 2);
    assert_eq!(ledger.turn(Need::Durable, 1), Turn::Write);
    ledger.write_done(1);
    let Turn::Sync(first) = ledger.turn(Need::Durable, 1) else { panic!("no sync") };
    assert_eq!(ledger.turn(Need::Durable, 2), Turn::Write);
    ledger.enqueue(Need::Written, 2, 7);
    ledger.fail();
    let mut told = Vec::new();
    ledger.dispatch(&mut told);
    assert_eq!(told, [(7, Turn::Failed)]);
    ledger.write_done(2);
    assert_eq!(ledger.sync_done(first), None);
    assert_eq!((ledger.written(), ledger.durable()), (1, 0));
    assert_eq!(ledger.turn(Need::Written, 1), Turn::Done, "what was reached before stays reached");
    assert_eq!(ledger.turn(Need::Written, 2), Turn::Failed);
    assert_eq!(ledger.turn(Need::Durable, 1), Turn::Failed);
}
