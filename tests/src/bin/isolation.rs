//! Runs clients against the engine, records what their transactions saw, and checks the histories:
//! `cargo run --release -p bedstone-tests --bin isolation -- --histories 10000`. With `--check FILE` it judges a history
//! that was kept.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use bedstone_crashtest::seeds;
use bedstone_tests::isolation::check::check;
use bedstone_tests::isolation::engine;
use bedstone_tests::isolation::fake::{Fake, Fault};
use bedstone_tests::isolation::run::{Ask, Counts, Plan, interleaved, judge};
use bedstone_tests::isolation::{History, Level, Options};
use clap::{Parser, ValueEnum};

/// What is asked of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Asked {
    /// Snapshot isolation.
    Si,
    /// Serializability.
    Serializable,
    /// A third of the histories each: one, the other, and both mixed.
    Both,
}

/// What runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// The engine.
    Engine,
    /// A right store in memory: what the checker itself costs.
    Memory,
}

/// Isolation: no history with an anomaly that its level forbids.
#[derive(Parser)]
struct Args {
    /// Histories.
    #[arg(long, default_value_t = 10_000)]
    histories: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What transactions ask for.
    #[arg(long, value_enum, default_value_t = Asked::Both)]
    level: Asked,
    /// What runs.
    #[arg(long, value_enum, default_value_t = Kind::Engine)]
    store: Kind,
    /// Histories at once.
    #[arg(long, default_value_t = seeds::cores())]
    threads: usize,
    /// Judges this file instead, at the level given (`both`: to each transaction what it asked for).
    #[arg(long)]
    check: Option<PathBuf>,
}

fn levels(asked: Asked, seed: u64) -> (Ask, Level) {
    let all = [
        (Ask::Never, Level::SnapshotIsolation),
        (Ask::Always, Level::Serializable),
        (Ask::Some, Level::AsAsked),
    ];
    match asked {
        Asked::Si => all[0],
        Asked::Serializable => all[1],
        Asked::Both => all[(seed % 3) as usize],
    }
}

fn check_file(path: &PathBuf, asked: Asked) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let history = History::parse(&text).map_err(|what| format!("{}: {what}", path.display()))?;
    let level = match asked {
        Asked::Si => Level::SnapshotIsolation,
        Asked::Serializable => Level::Serializable,
        Asked::Both => Level::AsAsked,
    };
    let report = check(&history, &Options::new(level));
    println!("{} transactions, {report}", history.txns.len());
    if report.is_clean() { Ok(()) } else { Err("the history is forbidden".into()) }
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(path) = &args.check {
        return match check_file(path, args.level) {
            Ok(()) => ExitCode::SUCCESS,
            Err(what) => {
                eprintln!("{what}");
                ExitCode::FAILURE
            }
        };
    }
    let began = Instant::now();
    let counts = Mutex::new(Counts::default());
    let failures = seeds::run_seeds(args.seed..args.seed + args.histories, args.threads, 3, |seed| {
        let (ask, level) = levels(args.level, seed);
        let (history, report) = match args.store {
            Kind::Engine => engine::run_one(seed, ask, level)?,
            Kind::Memory => {
                let plan = Plan { crashes: (seed % 2) as u32, ..Plan::draw(seed, ask) };
                let history = interleaved(&plan, &mut Fake::new(Fault::None, seed))?;
                let report = judge("memory", &plan, &history, &Options::new(level))?;
                (history, report)
            }
        };
        counts.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).add(&history, &report);
        Ok(())
    });
    let counts = counts.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    println!(
        "{} histories: {} transactions committed, {} refused or rolled back, {} met by a crash; {} histories with write skew \
         where it is allowed; {:.1} s",
        args.histories,
        counts.committed,
        counts.aborted,
        counts.unknown,
        counts.skewed,
        began.elapsed().as_secs_f64()
    );
    for (seed, what) in &failures {
        println!("seed {seed}: {what}");
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
