//! Long runs of transactions and snapshots on a real disk. `large` makes a transaction larger than memory, and with
//! `--kill` kills the processes that make such ones; `snapshot-updates` holds a snapshot open while all keys change again
//! and again; `figures` measures what a live snapshot costs the writers.
//!
//! `cargo run --release -p bedstone-tests --bin transactions -- large --data-gib 5 --pool-mib 256 /path/on/the/disk`. With
//! `child ...` it is a process that is killed.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bedstone_tests::transactions::figures::{self, Figures, KEYS_EACH, Kind};
use bedstone_tests::transactions::held::{self, Held};
use bedstone_tests::transactions::large::{self, Large, Moment};
use clap::{Args, Parser, Subcommand};

/// Transactions larger than memory, snapshots held for long, and what they cost.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    run: Run,
}

#[derive(Subcommand)]
enum Run {
    /// One transaction larger than memory: committed with memory bounded; with --kill, there wholly or not at all
    Large(LargeArgs),
    /// A snapshot held open while updates pass over all keys: file, pool, old values, and the time of its gets
    SnapshotUpdates(HeldArgs),
    /// Commits a second with no snapshot, one taken just before, and one taken long ago; medians of interleaved rounds
    Figures(FiguresArgs),
}

#[derive(Args)]
struct LargeArgs {
    /// Bytes of keys and values of one transaction, in GiB
    #[arg(long, default_value_t = 5.0)]
    data_gib: f64,
    /// Bytes of the pool, in MiB
    #[arg(long, default_value_t = 256)]
    pool_mib: usize,
    /// Memory of a transaction, in MiB
    #[arg(long, default_value_t = 64)]
    memory_mib: usize,
    /// Transactions one after the other: the first one fills an empty table, each further one changes every entry of it
    #[arg(long, default_value_t = 1)]
    transactions: u64,
    /// Instead of that, kill so many processes that make such transactions, at random moments
    #[arg(long, value_name = "KILLS", num_args = 0..=1, default_missing_value = "10")]
    kill: Option<u64>,
    /// Seed of keys and moments
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to put the database (a new folder in there, removed at the end)
    dir: PathBuf,
}

#[derive(Args)]
struct HeldArgs {
    /// Updates of random keys
    #[arg(long, default_value_t = 10_000_000)]
    updates: u64,
    /// Keys
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Threads that make the updates
    #[arg(long, default_value_t = 2)]
    threads: u64,
    /// Random gets of which the mean time is taken
    #[arg(long, default_value_t = 1000)]
    gets: u64,
    /// Bytes of the pool, in MiB
    #[arg(long, default_value_t = 256)]
    pool_mib: usize,
    /// Seed of the updates
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to put the database (a new folder in there, removed at the end)
    dir: PathBuf,
}

#[derive(Args)]
struct FiguresArgs {
    /// Keys
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Milliseconds of each measurement
    #[arg(long, default_value_t = 1000)]
    millis: u64,
    /// Bytes of the pool, in MiB
    #[arg(long, default_value_t = 1024)]
    pool_mib: usize,
    /// Seed of the keys
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to put the database (a new folder in there, removed at the end)
    dir: PathBuf,
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match large::child_main(&arguments) {
        Some(outcome) => outcome.map_err(Into::into),
        None => match Options::parse().run {
            Run::Large(args) => large(&args),
            Run::SnapshotUpdates(args) => snapshot_updates(&args),
            Run::Figures(args) => figures(&args),
        },
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("{what}");
            ExitCode::FAILURE
        }
    }
}

fn folder(dir: &PathBuf) -> std::io::Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix("bedstone-transactions-").tempdir_in(dir)
}

fn large(args: &LargeArgs) -> Outcome {
    let plan = Large {
        data_bytes: (args.data_gib * f64::from(1 << 30)) as u64,
        pool_bytes: args.pool_mib << 20,
        transaction_memory: args.memory_mib << 20,
        transactions: args.transactions,
        seed: args.seed,
    };
    let dir = folder(&args.dir)?;
    let mut say = |line: &str| println!("{line}");
    if let Some(kills) = args.kill {
        let seen = large::kill(&plan, &std::env::current_exe()?, dir.path(), kills, &mut say)?;
        println!(
            "{:<14} {:>6} {:>13} {:>6} {:>8}",
            "killed while", "kills", "acknowledged", "all", "nothing"
        );
        for moment in [Moment::Writing, Moment::Committing, Moment::Acknowledged, Moment::Recovering] {
            let of = |is: &dyn Fn(&large::Killed) -> bool| {
                seen.iter().filter(|killed| killed.moment == moment && is(killed)).count()
            };
            println!(
                "{:<14} {:>6} {:>13} {:>6} {:>8}",
                format!("{moment:?}").to_lowercase(),
                of(&|_| true),
                of(&|killed| killed.acknowledged),
                of(&|killed| killed.found),
                of(&|killed| !killed.found)
            );
        }
        println!("kept: every transaction was there wholly or not at all, and every acknowledged one was");
        return Ok(());
    }
    let seen = large::run(&plan, &dir.path().join("db"), &mut say)?;
    println!("I/O: {}", seen.io);
    println!("{:>12} {:>12} {:>12} {:>12} {:>10}", "puts", "deletes", "writes/s", "commit/s", "file MiB");
    for one in &seen.each {
        let writes = (one.puts + one.deletes) as f64;
        println!(
            "{:>12} {:>12} {:>12.0} {:>12.0} {:>10}",
            one.puts,
            one.deletes,
            writes / one.writing.as_secs_f64(),
            writes / one.commit.as_secs_f64(),
            one.file_bytes >> 20
        );
    }
    println!("compared and checked in {:.1?}", seen.verify);
    let limit = plan.resident_limit();
    println!("resident: {} MiB at most, allowed are {} MiB", seen.resident_peak >> 20, limit >> 20);
    if seen.resident_peak > limit {
        return Err("the process took more memory than allowed".into());
    }
    Ok(())
}

fn snapshot_updates(args: &HeldArgs) -> Outcome {
    let plan = Held {
        keys: args.keys,
        updates: args.updates,
        threads: args.threads.max(1),
        gets: args.gets,
        pool_bytes: args.pool_mib << 20,
        seed: args.seed,
    };
    let dir = folder(&args.dir)?;
    let seen = held::run(&plan, &dir.path().join("db"), &mut |line| println!("{line}"))?;
    println!("I/O: {}", seen.io);
    println!("{:.0} updates/s", plan.updates as f64 / seen.updates.as_secs_f64());
    println!(
        "{:<16} {:>9} {:>9} {:>9} {:>15} {:>13} {:>11} {:>10}",
        "", "file MiB", "free MiB", "pool MiB", "old values MiB", "snapshot get", "newest get", "scan"
    );
    for at in &seen.moments {
        println!(
            "{:<16} {:>9} {:>9} {:>9} {:>15} {:>13} {:>11} {:>10}",
            at.what,
            at.file_bytes >> 20,
            at.free_bytes >> 20,
            at.pool_bytes >> 20,
            at.held_bytes >> 20,
            format!("{:.2?}", at.get[0]),
            format!("{:.2?}", at.get[1]),
            format!("{:.2?}", at.scan)
        );
    }
    println!("kept: every key had its old value in the snapshot to the end");
    Ok(())
}

fn figures(args: &FiguresArgs) -> Outcome {
    let plan = Figures {
        keys: args.keys,
        rounds: args.rounds,
        time: Duration::from_millis(args.millis),
        pool_bytes: args.pool_mib << 20,
        seed: args.seed,
    };
    let dir = folder(&args.dir)?;
    let seen = figures::run(&plan, &dir.path().join("db"), &mut |line| println!("{line}"))?;
    println!("I/O: {}", seen.io);
    println!("commits a second, median of {} rounds; in brackets the ratio to no snapshot", plan.rounds);
    println!(
        "{:<22} {:>7} {:>12} {:>20} {:>20} {:>16}",
        "", "threads", "no snapshot", "taken just before", "taken long ago", "again of 1000"
    );
    for row in &seen.rows {
        let kind = match row.kind {
            Kind::Put => "put (Relaxed)".to_owned(),
            Kind::Transaction => format!("transaction, {KEYS_EACH} keys"),
        };
        let beside = |which: usize| format!("{:.0} ({:.2})", row.rates[which], row.ratios[which]);
        println!(
            "{kind:<22} {:>7} {:>12.0} {:>20} {:>20} {:>16.2}",
            row.threads,
            row.rates[0],
            beside(1),
            beside(2),
            row.again
        );
    }
    Ok(())
}
