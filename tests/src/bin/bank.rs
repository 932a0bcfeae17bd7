//! A bank under SIGKILL: `cargo run --release -p bedstone-tests --bin bank -- --generations 500`. It is also the
//! process that is killed.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Instant;

use bedstone_crashtest::kill;
use bedstone_tests::bank::{Plan, Report, run, run_killed};
use clap::Parser;

/// Transfers between accounts: the sum is the same in every snapshot and after every kill.
#[derive(Parser)]
struct Options {
    /// Children to kill; 0 makes all transfers in this process instead.
    #[arg(long, default_value_t = 200)]
    generations: u64,
    /// Threads that move money.
    #[arg(long, default_value_t = 64)]
    threads: u64,
    /// Threads that add it up.
    #[arg(long, default_value_t = 4)]
    readers: u64,
    /// Accounts.
    #[arg(long, default_value_t = 100)]
    accounts: u64,
    /// Transfers of each thread where nobody is killed.
    #[arg(long, default_value_t = 10_000)]
    transfers: u64,
    /// Decides what each thread does.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let Options { generations, threads, readers, accounts, transfers, seed } = Options::parse();
    let endless = kill::is_child();
    let plan =
        Plan { seed, threads, readers, accounts, transfers: if endless { u64::MAX } else { transfers } };
    if let Some(code) = kill::child_main(&plan) {
        return code;
    }
    let began = Instant::now();
    let outcome =
        if generations == 0 { run(&plan) } else { run_killed(&plan, generations, &kill::this_program) };
    match outcome {
        Ok(Report { transfers, conflicts, sums, kills, acknowledged, mode }) => {
            println!(
                "{transfers} transfers, {conflicts} conflicts, {sums} snapshots added up, {kills} children killed, \
                 {acknowledged} acknowledged transfers verified, {:.1} s; {mode}",
                began.elapsed().as_secs_f64()
            );
            ExitCode::SUCCESS
        }
        Err(what) => {
            println!("money is lost or found: {what}");
            ExitCode::FAILURE
        }
    }
}
