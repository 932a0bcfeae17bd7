//! The modes, each with the part of the harness that does it.

use std::path::{Path, PathBuf};
use std::process::Command;

use bedstone_crashtest::{Failure, Kept, Plan, Progress, Standard, Verdict, kill, power};
use clap::ValueEnum;

/// What is done to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    /// Kills a working process at random moments and verifies what it leaves on the real disk
    Kill,
    /// Cuts the power of simulated disks at every kind of moment
    Power,
}

/// A directory of a run's own.
pub(super) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    /// Makes it below `base`.
    pub(super) fn make(base: &Path) -> Result<Self, Failure> {
        let cannot = |error: std::io::Error| {
            Failure::CannotRun(format!(
                "cannot make a directory in {}: {error}; name a directory that you may write to",
                base.display()
            ))
        };
        std::fs::create_dir_all(base).map_err(cannot)?;
        let dir = tempfile::TempDir::with_prefix_in("crash-test-", base).map_err(cannot)?;
        Ok(Self { dir })
    }

    fn path(&self) -> PathBuf {
        self.dir.path().to_path_buf()
    }

    /// Leaves it where it is.
    pub(super) fn keep(self) {
        let _ = self.dir.keep();
    }
}

type Watch<'a> = &'a (dyn Fn(&Progress) + Sync);

impl Mode {
    /// Its name on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Mode::Kill => "kill",
            Mode::Power => "power",
        }
    }

    /// Whether it runs without a process or a disk of its own.
    pub(super) fn is_simulated(self) -> bool {
        self != Mode::Kill
    }

    /// Runs it.
    pub(super) fn run(
        self,
        plan: &Plan,
        standard: &Standard,
        place: &Place,
        program: &dyn Fn() -> Result<Command, Failure>,
        watch: Watch<'_>,
    ) -> Verdict {
        match self {
            Mode::Kill => kill::run(plan, standard, &place.path().join("store"), program, watch),
            Mode::Power => power::run(plan, watch),
        }
    }

    /// Repeats one round of it.
    pub(super) fn only(self, plan: &Plan, round: u64) -> Verdict {
        let done = match self {
            Mode::Kill => {
                return Err(Failure::CannotRun(
                    "a kill cannot be repeated: real processes meet by chance; run the mode again with the same seed"
                        .into(),
                ));
            }
            Mode::Power => power::disk(plan, round, true).map(drop),
        };
        done.map_err(|failure| failure.in_round(round))?;
        Ok(Kept { counts: vec![("rounds", 1)], notes: Vec::new(), took: std::time::Duration::ZERO })
    }
}
