//! The modes, each with the part of the harness that does it.

use std::path::{Path, PathBuf};
use std::process::Command;

use bedstone_crashtest::power_fs::{self, FileSystem, possible};
use bedstone_crashtest::{
    Failure, Kept, Limit, Plan, Progress, Standard, Verdict, fault, full, kill, power, rot,
};
use clap::ValueEnum;

/// What is done to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    /// Kills a working process at random moments and verifies what it leaves on the real disk
    Kill,
    /// Cuts the power of simulated disks at every kind of moment
    Power,
    /// Cuts the power below a real ext4 and a real XFS (root, Linux); DIR is only where they are mounted
    PowerFs,
    /// Lets every operation of a scenario fail in turn, on simulated disks
    Fault,
    /// Damages every region of every file of small databases, on simulated disks
    Rot,
    /// Fills simulated disks up, and with root a real file system
    Full,
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

    /// Leaves it where it is, which this gives.
    pub(super) fn keep(self) -> PathBuf {
        self.dir.keep()
    }
}

type Watch<'a> = &'a (dyn Fn(&Progress) + Sync);

impl Mode {
    /// Its name on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Mode::Kill => "kill",
            Mode::Power => "power",
            Mode::PowerFs => "power-fs",
            Mode::Fault => "fault",
            Mode::Rot => "rot",
            Mode::Full => "full",
        }
    }

    /// Whether it runs without a process or a disk of its own.
    pub(super) fn is_simulated(self) -> bool {
        !matches!(self, Mode::Kill | Mode::PowerFs)
    }

    /// Runs it.
    pub(super) fn run(
        self,
        plan: &Plan,
        standard: &Standard,
        place: &Place,
        program: &(dyn Fn() -> Result<Command, Failure> + Sync),
        watch: Watch<'_>,
    ) -> Verdict {
        match self {
            Mode::Kill => kill::run(plan, standard, &place.path().join("store"), program, watch),
            Mode::Power => power::run(plan, watch),
            Mode::Fault => fault::run(plan, watch),
            Mode::Rot => rot::run(plan, watch),
            Mode::Full => full::run(plan, Some(&place.path()), watch),
            Mode::PowerFs => below_file_systems(plan, standard, &place.path().join("mounts"), program, watch),
        }
    }

    /// Repeats one round of it.
    pub(super) fn only(self, plan: &Plan, round: u64) -> Verdict {
        let done = match self {
            Mode::Kill | Mode::PowerFs => {
                return Err(Failure::CannotRun(
                    "a round of this mode cannot be repeated by itself: real processes meet by chance; run the mode again \
                     with the same seed"
                        .into(),
                ));
            }
            Mode::Power => power::disk(plan, round, true).map(drop),
            Mode::Fault => fault::replay(plan, round),
            Mode::Rot => rot::replay(plan, round),
            Mode::Full => full::replay(plan, round),
        };
        done.map_err(|failure| failure.in_round(plan.seed, round))?;
        Ok(Kept { counts: vec![("rounds", 1)], notes: Vec::new(), took: std::time::Duration::ZERO })
    }
}

/// Both file systems, half of the time each; one of them if the other is not to be had.
fn below_file_systems(
    plan: &Plan,
    standard: &Standard,
    scratch: &Path,
    program: &(dyn Fn() -> Result<Command, Failure> + Sync),
    watch: Watch<'_>,
) -> Verdict {
    let (there, missing): (Vec<_>, Vec<_>) = [FileSystem::Ext4, FileSystem::Xfs]
        .into_iter()
        .map(|fs| (fs, possible(fs)))
        .partition(|(_, can)| can.is_ok());
    let mut notes: Vec<String> = Vec::new();
    for (fs, why) in missing {
        notes.push(format!("{} left out: {}", fs.name(), why.err().unwrap_or_default()));
    }
    let limit = match plan.limit {
        Limit::Time(time) => Limit::Time(time / there.len().max(1) as u32),
        rounds => rounds,
    };
    let plan = Plan { limit, ..plan.clone() };
    let mut all: Option<Kept> = None;
    for (fs, _) in there {
        let kept = power_fs::run(&plan, fs, standard, program, scratch, watch)?;
        let states = kept.count("crash states");
        let rate = states as f64 * 60.0 / kept.took.as_secs_f64().max(1e-3);
        notes.push(format!("{}: {states} crash states, {rate:.0} a minute", fs.name()));
        notes.extend(kept.notes.iter().cloned());
        all = Some(match all {
            None => kept,
            Some(sum) => sum.plus(&kept),
        });
    }
    match all {
        Some(kept) => Ok(Kept { notes, ..kept }),
        None => Err(Failure::CannotRun(notes.join("; "))),
    }
}
