//! `bedstone crash-test`: whether this engine, on this file system and disk, keeps its promises.

mod modes;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bedstone::Durability;
use bedstone_crashtest::{Failure as Unkept, Limit, Plan, Standard, Verdict, kill};
use clap::{Args, ValueEnum};

use self::modes::Mode;
use self::report::Report;
use crate::cli::Global;
use crate::failure::{Answer, Failure};

/// Threads that write in a process that is killed, if nothing else is said.
const WRITERS: usize = 4;

/// Whether Bedstone keeps its promises on this file system and disk: kills processes, cuts the power of simulated disks,
/// lets operations fail, damages files, fills disks, and verifies what is left
///
/// Without --mode every mode that can run here runs. The databases are made in a directory of their own below DIR, which
/// is removed again, unless a promise was broken: then it is left to be looked at.
///
/// Exit codes: 0 every promise was kept, 1 one was broken, 2 a mode could not run.
#[derive(Args)]
pub(crate) struct CrashTest {
    /// Directory on the file system to be tested; made if it is not there
    dir: PathBuf,
    /// What to do; all that can be done here if not given
    #[arg(long = "mode", value_enum, value_delimiter = ',', value_name = "MODE")]
    modes: Vec<Mode>,
    /// Decides every choice; drawn and told if not given
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Time for each mode, in minutes
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = minutes)]
    minutes: f64,
    /// Rounds of each mode, instead of a time
    #[arg(long, value_name = "N", conflicts_with = "minutes")]
    rounds: Option<u64>,
    /// Writers of a process that is killed (4 if not given), or simulated disks at the same time (a core each)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Durability of all commits; ignored by rot, which damages files at rest
    #[arg(long, value_enum, default_value_t = Level::Mixed)]
    durability: Level,
    /// Repeats this one round of a mode, and prints what it does
    #[arg(long, value_name = "ROUND", conflicts_with_all = ["minutes", "rounds"])]
    only: Option<u64>,
    /// One JSON document instead of text
    #[arg(long)]
    json: bool,
}

/// Durability of the commits of a run.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Level {
    /// Drawn for each commit
    Mixed,
    /// On the medium when acknowledged
    Sync,
    /// Handed to the kernel when acknowledged
    Buffered,
    /// Soon
    Relaxed,
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(minutes) if (0.0..=1e6).contains(&minutes) => Ok(minutes),
        _ => Err("not a number of minutes from 0 to 1,000,000".into()),
    }
}

impl CrashTest {
    /// Runs the modes asked for, or works as the process that is killed.
    pub(crate) fn run(&self, global: &Global) -> Result<Answer, Failure> {
        let seed = self.seed.unwrap_or_else(|| {
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_secs() % 1_000_000)
        });
        let modes = if self.modes.is_empty() { Mode::value_variants() } else { &self.modes[..] };
        if self.only.is_some() && modes.len() != 1 {
            return Err(Failure::Usage("--only repeats a round of one mode: name it with --mode".into()));
        }
        let mut report = Report::new(self, seed, global);
        for mode in modes {
            report.begins(*mode);
            let verdict = self.one(*mode, seed, global, &report);
            // Without root or the file system's tools a mode is left out, unless it was asked for.
            let left_out = self.modes.is_empty() && matches!(verdict, Err(Unkept::CannotRun(_)));
            report.ended(*mode, verdict, left_out)?;
        }
        report.finish()
    }

    fn one(&self, mode: Mode, seed: u64, global: &Global, report: &Report) -> Verdict {
        let plan = self.plan(mode, seed);
        if let Some(round) = self.only {
            return mode.only(&plan, round);
        }
        let place = modes::Place::make(&self.dir)?;
        let program = || self.child(seed);
        let verdict = mode.run(&plan, &self.workload(&plan, global), &place, &program, &report.watch());
        match verdict {
            // What is left on a real disk is to be looked at.
            Err(failure @ Unkept::Broken { .. }) if !mode.is_simulated() => {
                Err(failure.and(&format!("what is left lies in {}", place.keep().display())))
            }
            other => other,
        }
    }

    fn plan(&self, mode: Mode, seed: u64) -> Plan {
        let threads = match self.threads {
            Some(threads) => usize::from(threads),
            None if mode.is_simulated() => bedstone_crashtest::seeds::cores(),
            None => WRITERS,
        };
        let limit = match self.rounds {
            Some(rounds) => Limit::Rounds(rounds),
            None => Limit::Time(Duration::from_secs_f64(self.minutes * 60.0)),
        };
        let durability = match self.durability {
            Level::Mixed => None,
            Level::Sync => Some(Durability::Sync),
            Level::Buffered => Some(Durability::Buffered),
            Level::Relaxed => Some(Durability::Relaxed),
        };
        Plan { seed, limit, threads, durability }
    }

    fn workload(&self, plan: &Plan, global: &Global) -> Standard {
        Standard::new(plan).allow_buffered(global.allow_buffered)
    }

    /// This program with the same options: what is killed. The seed is told, as it may have been drawn.
    fn child(&self, seed: u64) -> Result<std::process::Command, Unkept> {
        let mut command = kill::this_program()?;
        if self.seed.is_none() {
            command.arg("--seed").arg(seed.to_string());
        }
        Ok(command)
    }

    /// The durability that was asked for, if it is not the usual mixture.
    fn level(&self) -> Option<&'static str> {
        match self.durability {
            Level::Mixed => None,
            Level::Sync => Some("sync"),
            Level::Buffered => Some("buffered"),
            Level::Relaxed => Some("relaxed"),
        }
    }

    /// The options that decide what is done, as they are typed, for a command that does it again.
    fn typed(&self) -> String {
        let mut text = String::new();
        if let Some(threads) = self.threads {
            text.push_str(&format!(" --threads {threads}"));
        }
        if let Some(level) = self.level() {
            text.push_str(&format!(" --durability {level}"));
        }
        text
    }

    /// How long it was to go on, as it is typed.
    fn extent(&self) -> String {
        match self.rounds {
            Some(rounds) => format!(" --rounds {rounds}"),
            None => format!(" --minutes {}", self.minutes),
        }
    }

    /// If this process is one that is to be killed, works until it is.
    pub(crate) fn child_main(&self, global: &Global) -> Option<ExitCode> {
        let plan = self.plan(Mode::Kill, self.seed.unwrap_or_default());
        kill::child_main(&self.workload(&plan, global))
    }
}
