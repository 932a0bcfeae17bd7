//! Kills writing processes again and again and verifies what they leave:
//! `cargo run --release -p bedstone-tests --bin kill -- --generations 500`. With `child ...` it is such a process itself.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Instant;

use bedstone_crashtest::kill::{Plan, run};
use bedstone_crashtest::worker;
use clap::Parser;

/// SIGKILL at random moments: every acknowledged commit is there, none half, what survives is a prefix.
#[derive(Parser)]
struct Options {
    /// Children to kill.
    #[arg(long, default_value_t = 200)]
    generations: u64,
    /// Writer threads of each child.
    #[arg(long, default_value_t = 4)]
    threads: u64,
    /// Decides what is written.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(outcome) = worker::child_main(&arguments) {
        return match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(what) => {
                eprintln!("{what}");
                ExitCode::FAILURE
            }
        };
    }
    let options = Options::parse();
    let began = Instant::now();
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => {
            eprintln!("this program's own path: {error}");
            return ExitCode::from(2);
        }
    };
    let Options { generations, threads, seed } = options;
    match run(&Plan { program, seed, generations, threads }) {
        Ok(report) => {
            println!(
                "{} children killed ({} while opening), {} acknowledged commits verified, {} commits in all, {:.1} s; {}",
                report.kills,
                report.kills_while_opening,
                report.acknowledged,
                report.commits,
                began.elapsed().as_secs_f64(),
                report.mode
            );
            ExitCode::SUCCESS
        }
        Err(what) => {
            println!("promise broken: {what}");
            ExitCode::FAILURE
        }
    }
}
