//! Group commit: who writes, who syncs, who waits, and who is told what.
//!
//! This is the whole protocol and nothing else: no I/O, no lock, no thread. The log keeps one [`Ledger`] under its
//! mutex; every method is one atomic step. A thread that wants the log to reach a position asks for its [`Turn`]:
//! that is either an answer, or a duty that the thread has now *claimed* and must carry out, or "wait". A thread
//! that waits is told its next turn by another thread, with the duty already claimed in its name, so that between
//! the hand-over and the waking nobody else can take it and nobody needs to look twice.
//!
//! Duties, and how many threads may hold one at a time:
//! - **write** (one): hand everything in the buffer to the kernel. Writes are therefore in log order, and what was
//!   written is always a prefix.
//! - **sync** (one or two): `fdatasync` for the prefix that was written when the duty was claimed.
//!
//! Rules:
//! 1. The durable position moves only when a sync has succeeded and every sync claimed before it has succeeded too.
//! 2. After a failure it never moves again, and neither does the written position. (Linux reports an error of
//!    writing back once to each open file: of two syncs in flight one may take the error that belongs to the
//!    other's bytes. Each slot therefore has an open file of its own, see [`SyncRun::slot`].)
//! 3. *Nobody hangs*: a thread is told to wait only while some duty is held whose end changes its answer, and every
//!    end of a duty ([`Ledger::write_done`], [`Ledger::sync_done`], [`Ledger::fail`]) is followed by
//!    [`Ledger::dispatch`], which asks again for every waiter and gives away what has become free.
//!
//! The tests at the end walk through every interleaving of small cases.

use std::collections::VecDeque;

use bedstone_io::defect::{self, Defect};

/// What is wanted of the log up to some position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Need {
    /// The kernel has it.
    Written,
    /// The medium has it.
    Durable,
}

/// What a thread has to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Turn {
    /// Nothing: the position was reached.
    Done,
    /// Nothing: the log failed before the position was reached.
    Failed,
    /// It holds the duty to write.
    Write,
    /// It holds this duty to sync.
    Sync(SyncRun),
    /// Wait to be told.
    Wait,
}

/// A claimed duty to sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SyncRun {
    /// Which of the open files of each segment this sync uses. Two syncs in flight never share one, so that an error
    /// is reported to both.
    pub(crate) slot: usize,
    /// The bytes to make durable begin here at the latest.
    pub(crate) from: u64,
    /// They end here.
    pub(crate) upto: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct InFlight {
    run: SyncRun,
    succeeded: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Waiter<W> {
    need: Need,
    upto: u64,
    who: W,
}

/// The state of group commit. `W` stands for a waiting thread.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Ledger<W> {
    written: u64,
    durable: u64,
    /// Somebody holds the duty to write.
    writing: bool,
    /// Syncs claimed and not yet counted, in the order of claiming.
    syncs: VecDeque<InFlight>,
    max_syncs: usize,
    failed: bool,
    waiters: Vec<Waiter<W>>,
    /// Waits ended by the newest sync.
    last_group: u64,
}

/// Above this many waits per sync a second sync at the same time costs more than it gains: it splits the group.
const OVERLAP_UP_TO: u64 = 2;

impl<W> Ledger<W> {
    /// A log that is durable up to `durable`, with at most `max_syncs` syncs in flight.
    pub(crate) fn new(durable: u64, max_syncs: usize) -> Self {
        Self {
            written: durable,
            durable,
            writing: false,
            syncs: VecDeque::new(),
            max_syncs,
            failed: false,
            waiters: Vec::new(),
            last_group: 0,
        }
    }

    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    pub(crate) fn durable(&self) -> u64 {
        self.durable
    }

    pub(crate) fn writing(&self) -> bool {
        self.writing
    }

    pub(crate) fn failed(&self) -> bool {
        self.failed
    }

    fn sync_allowed(&self) -> bool {
        let limit = if self.last_group <= OVERLAP_UP_TO { self.max_syncs } else { 1 };
        self.syncs.len() < limit
    }

    /// The next turn of a thread that wants `need` up to `upto`, which must not lie beyond the log's tail.
    pub(crate) fn turn(&mut self, need: Need, upto: u64) -> Turn {
        let reached = match need {
            Need::Written => self.written,
            Need::Durable => self.durable,
        };
        if reached >= upto {
            return Turn::Done;
        }
        if self.failed {
            return Turn::Failed;
        }
        if need == Need::Durable {
            // Rule 1, broken: a sync that covers the position is under way, and has not succeeded yet.
            if defect::is(Defect::AckBeforeSync)
                && self.syncs.back().is_some_and(|last| last.run.upto >= upto)
            {
                return Turn::Done;
            }
            if self.syncs.back().is_some_and(|last| last.run.upto >= upto) || !self.sync_allowed() {
                return Turn::Wait;
            }
            if self.written >= upto {
                return Turn::Sync(self.claim_sync());
            }
        }
        if self.writing {
            return Turn::Wait;
        }
        self.writing = true;
        Turn::Write
    }

    fn claim_sync(&mut self) -> SyncRun {
        let slot = usize::from(self.syncs.iter().any(|other| other.run.slot == 0));
        let run = SyncRun { slot, from: self.durable, upto: self.written };
        self.syncs.push_back(InFlight { run, succeeded: false });
        run
    }

    /// Notes down a thread whose turn was [`Turn::Wait`]; in the same step as that turn.
    pub(crate) fn enqueue(&mut self, need: Need, upto: u64, who: W) {
        self.waiters.push(Waiter { need, upto, who });
    }

    /// The holder of the duty to write has handed over everything up to `upto`, or has given up after a failure.
    pub(crate) fn write_done(&mut self, upto: u64) {
        self.writing = false;
        if !self.failed {
            self.written = self.written.max(upto);
        }
    }

    /// The holder of `run` has come back with success. Returns how many waits have ended by it, or `None` if the
    /// durable position could not move (an earlier sync is in flight, or the log has failed).
    pub(crate) fn sync_done(&mut self, run: SyncRun) -> Option<u64> {
        if self.failed {
            return None;
        }
        if let Some(mine) = self.syncs.iter_mut().find(|other| other.run == run) {
            mine.succeeded = true;
        }
        let before = self.durable;
        while let Some(first) = self.syncs.front()
            && first.succeeded
        {
            self.durable = self.durable.max(first.run.upto);
            self.syncs.pop_front();
        }
        if self.durable == before {
            return None;
        }
        let ended = |waiter: &&Waiter<W>| waiter.need == Need::Durable && waiter.upto <= self.durable;
        self.last_group = self.waiters.iter().filter(ended).count() as u64 + 1;
        Some(self.last_group)
    }

    /// A write or a sync has failed: nothing moves any more.
    pub(crate) fn fail(&mut self) {
        self.failed = true;
    }

    /// Takes out of the queue every thread that has a turn now; each must be told. Called after every step that ends
    /// a duty, and after [`Ledger::fail`].
    pub(crate) fn dispatch(&mut self, told: &mut Vec<(W, Turn)>) {
        // One pass is enough: a claim only takes away from what the others could claim, so that a waiter passed over
        // would be passed over again.
        let mut waiting = std::mem::take(&mut self.waiters);
        for waiter in waiting.drain(..) {
            match self.turn(waiter.need, waiter.upto) {
                Turn::Wait => self.waiters.push(waiter),
                turn => told.push((waiter.who, turn)),
            }
        }
    }
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
