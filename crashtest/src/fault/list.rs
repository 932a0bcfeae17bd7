//! Which operations fail in which ways: all runs of a seed, by number.

use bedstone_io::sim::{CutMode, Fault, OpKind, Repeat};

use super::stage::Stage;
use crate::oracle::Ending;

// Error numbers of Linux.
const EMFILE: i32 = 24;
const EFBIG: i32 = 27;
const EDQUOT: i32 = 122;

/// The ways in which operations of each kind can fail. "Any" and "Mutation" are there for what goes on failing: a medium
/// that is gone, and one that takes nothing any more.
const FAULTS: &[(OpKind, &[Fault])] = &[
    (OpKind::Any, &[Fault::Eio]),
    (OpKind::Mutation, &[Fault::Enospc]),
    (OpKind::Open, &[Fault::Eio, Fault::Errno(EMFILE)]),
    (OpKind::Create, &[Fault::Eio, Fault::Enospc, Fault::Errno(EDQUOT), Fault::Errno(EMFILE)]),
    (OpKind::Read, &[Fault::Eio, Fault::ShortRead, Fault::FlippedRead]),
    (
        OpKind::Write,
        &[
            Fault::Eio,
            Fault::Enospc,
            Fault::Errno(EDQUOT),
            Fault::Errno(EFBIG),
            Fault::ShortWrite,
            Fault::TornWrite,
        ],
    ),
    (OpKind::Sync, &[Fault::Eio, Fault::Enospc, Fault::Errno(EDQUOT), Fault::PartialSync]),
    (OpKind::SyncDir, &[Fault::Eio, Fault::Enospc]),
    (
        OpKind::Allocate,
        &[Fault::Eio, Fault::Enospc, Fault::Errno(EDQUOT), Fault::Errno(EFBIG), Fault::ShortWrite],
    ),
    (OpKind::Truncate, &[Fault::Eio]),
    (OpKind::Rename, &[Fault::Eio, Fault::Enospc]),
    (OpKind::Remove, &[Fault::Eio]),
    (OpKind::Stat, &[Fault::Eio]),
    (OpKind::Lock, &[Fault::Eio, Fault::Enospc, Fault::Errno(EMFILE)]),
    (OpKind::CreateDir, &[Fault::Eio, Fault::Enospc]),
];

/// Every kind of operation that faults are ordered for.
pub(super) fn kinds() -> impl Iterator<Item = OpKind> {
    FAULTS.iter().map(|(kind, _)| *kind)
}

/// The name under which failed operations of a kind are counted.
pub(super) fn failed(kind: OpKind) -> &'static str {
    match kind {
        OpKind::Read => "reads failed",
        OpKind::Write => "writes failed",
        OpKind::Sync => "syncs failed",
        OpKind::SyncDir => "directory syncs failed",
        OpKind::Allocate => "allocations failed",
        _ => "other operations failed",
    }
}

/// What follows on the part of the scenario with the fault in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The part's own end, which closes the store in most parts; then the store is opened again in the same boot.
    Own,
    /// The part's own end; then a power cut that loses everything unsynced.
    OwnThenDrop,
    /// The process ends in place of it.
    Killed,
    /// A power cut in place of it that loses everything unsynced.
    Drop,
    /// A power cut in place of it that loses some of it.
    Random,
    /// A power cut a few operations of the same kind after the fault: before a checkpoint stands for what the fault has
    /// taken from the log.
    Soon,
}

impl End {
    /// The part comes to its own end.
    pub(super) fn is_own(self) -> bool {
        matches!(self, End::Own | End::OwnThenDrop)
    }

    /// The power cut after the part.
    pub(super) fn cut(self) -> Option<CutMode> {
        match self {
            End::Own | End::Killed => None,
            End::OwnThenDrop | End::Drop | End::Soon => Some(CutMode::Drop),
            End::Random => Some(CutMode::Random),
        }
    }
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Struck {
    pub(super) stage: usize,
    pub(super) kind: OpKind,
    pub(super) fault: Fault,
    /// Which operation of the kind, from 1 to `of`.
    pub(super) nth: u64,
    pub(super) of: u64,
    pub(super) repeat: Repeat,
    pub(super) end: End,
}

impl Struck {
    /// The operation of the kind at which the power goes, for [`End::Soon`].
    pub(super) fn cut_at(&self, case: u64) -> Option<u64> {
        (self.end == End::Soon).then(|| self.nth + 2 + case % 3)
    }
}

/// All runs of a seed: blocks that differ only in the operation that fails.
pub(super) struct List {
    /// With the number of its first run.
    blocks: Vec<(u64, Struck)>,
    len: u64,
}

impl List {
    pub(super) fn new(stages: &[Stage]) -> Self {
        let mut list = Self { blocks: Vec::new(), len: 0 };
        for (at, stage) in stages.iter().enumerate() {
            for (kind, faults) in FAULTS {
                for fault in *faults {
                    list.add(at, stage, *kind, *fault);
                }
            }
        }
        list
    }

    fn add(&mut self, at: usize, stage: &Stage, kind: OpKind, fault: Fault) {
        let of = stage.operations(kind);
        let lies = fault == Fault::FlippedRead;
        let repeats: &[Repeat] = if lies { &[Repeat::Once] } else { &[Repeat::Once, Repeat::Forever] };
        let ends: &[End] = match stage.part.ending() {
            _ if lies => &[End::Own],
            Ending::Closed => &[End::Own, End::OwnThenDrop, End::Drop, End::Random],
            Ending::Killed | Ending::PowerCut => &[End::Killed, End::Drop, End::Random],
        };
        let mut runs: Vec<(Repeat, End)> =
            repeats.iter().flat_map(|repeat| ends.iter().map(move |end| (*repeat, *end))).collect();
        if matches!(kind, OpKind::Sync | OpKind::Write) {
            runs.push((Repeat::Once, End::Soon));
        }
        for (repeat, end) in runs {
            if of > 0 {
                let struck = Struck { stage: at, kind, fault, nth: 1, of, repeat, end };
                self.blocks.push((self.len, struck));
                self.len += of;
            }
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn case(&self, case: u64) -> Struck {
        let (first, struck) = self.blocks[self.blocks.partition_point(|(first, _)| *first <= case) - 1];
        Struck { nth: case - first + 1, ..struck }
    }
}
