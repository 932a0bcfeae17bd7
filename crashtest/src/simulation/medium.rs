//! What the medium does to a run: operations fail, the power goes; and what becomes of the database then.

use bedstone::CheckpointStep;
use bedstone_io::sim::{Fault, OpKind, Repeat};

use super::{Run, Step, cut_mode};
use crate::oracle::Ending;
use crate::simulation::ops::Op;

/// What fails, and how. The sync of a directory is left to the fault mode: where it fails, names may be lost to every
/// later sync, and what holds afterwards depends on which name it was.
const FAULTS: [(OpKind, Fault); 12] = [
    (OpKind::Read, Fault::Eio),
    (OpKind::Read, Fault::ShortRead),
    (OpKind::Write, Fault::Eio),
    (OpKind::Write, Fault::TornWrite),
    (OpKind::Write, Fault::ShortWrite),
    (OpKind::Write, Fault::Enospc),
    (OpKind::Sync, Fault::Eio),
    (OpKind::Sync, Fault::PartialSync),
    (OpKind::Allocate, Fault::Enospc),
    (OpKind::Create, Fault::Enospc),
    (OpKind::Rename, Fault::Eio),
    (OpKind::Remove, Fault::Eio),
];

impl Run {
    /// Lets one of the next operations of the disk fail.
    pub(super) fn arm(&mut self) {
        let (kind, fault) = *self.rng.pick(&FAULTS);
        let far = *self.rng.pick(&[1, 4, 30]);
        self.disk.fail_nth(kind, 1 + self.rng.below(far), fault, Repeat::Once);
    }

    /// Something has failed whose consequences may still show.
    pub(super) fn has_faults(&self) -> bool {
        self.disk.stats().faults > self.faults_over
    }

    /// An error may be the medium's.
    pub(super) fn has_trouble(&self) -> bool {
        !self.disk.is_powered() || self.has_faults()
    }

    pub(super) fn faults_are_over(&mut self) {
        self.disk.clear_faults();
        let faults = self.disk.stats().faults;
        self.report.faults += faults - self.faults_over;
        self.faults_over = faults;
    }

    /// Goes on after the power has gone or an operation of the disk has failed: with the database as it is, if it takes
    /// writes and can make all of them durable, or else by opening it again.
    pub(super) fn after_trouble(&mut self) -> Step {
        if !self.disk.is_powered() {
            self.report.cuts += 1;
            self.note(|| "(power cut)".into());
            return self.reopen_after_trouble();
        }
        self.note(|| "(a fault)".into());
        self.disk.clear_faults();
        if self.rng.chance(1, 3) {
            return self.reopen_after_trouble();
        }
        // What failed in the background may not have been met by a commit yet; there is nothing to sync then.
        let takes_writes = self.db.as_ref().is_some_and(|db| db.stats().read_only_because.is_none());
        match self.db.as_ref().map(|db| db.sync()) {
            Some(Ok(())) if self.disk.is_powered() && takes_writes => {
                self.oracle.synced();
                self.faults_are_over();
                Ok(())
            }
            _ => self.reopen_after_trouble(),
        }
    }

    /// Opens again. Nothing is owed but what was durable: a failed sync may have lost what the kernel had.
    pub(super) fn reopen_after_trouble(&mut self) -> Step {
        if self.disk.is_powered() && self.rng.chance(1, 2) {
            self.report.cuts += 1;
            let mode = cut_mode(&mut self.rng);
            self.disk.power_cut(mode);
        }
        self.disk = self.disk.reopen();
        self.faults_are_over();
        // The handle's end must not reach the medium's next life.
        self.moments.clear();
        self.db = None;
        self.open(Ending::PowerCut)
    }

    /// Makes a checkpoint with operations between its steps, as other threads would do them.
    pub(super) fn checkpoint_beside(&mut self, beside: &[Op]) -> Step {
        let db = self.db()?;
        let mut ops = beside.iter();
        let mut outcome = Ok(());
        let was = std::mem::replace(&mut self.holding, true);
        let done = db.checkpoint_stepwise(|step| {
            if step == CheckpointStep::LogSynced {
                self.oracle.synced();
            }
            while outcome.is_ok() && self.rng.chance(2, 3) {
                let Some(op) = ops.next() else { break };
                self.report.pauses += 1;
                self.note(|| format!("    {step:?}: {}", op.brief()));
                outcome = self.perform(op);
            }
        });
        self.holding = was;
        outcome?;
        // What was done beside it may have had the frames.
        if !matches!(done, Err(bedstone::Error::PoolExhausted { .. })) {
            self.read("checkpoint", done)?;
        }
        ops.try_for_each(|op| self.perform(op))
    }
}
