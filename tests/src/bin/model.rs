//! Model runs on the simulated disk, for as many seeds as wanted:
//! `cargo run --release -p bedstone-tests --bin model -- --seeds 0..1000`, or one of them with everything it does:
//! `... --bin model -- --seeds 17..18 --trace`.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use bedstone_crashtest::simulation::Report;
use bedstone_crashtest::{seeds, simulation};
use clap::Parser;

/// Random operations with power cuts on the simulated disk, compared with a model.
#[derive(Parser)]
struct Options {
    /// Seeds to run, as FROM..TO or as a count.
    #[arg(long, default_value = "0..1000", value_parser = seed_range)]
    seeds: std::ops::Range<u64>,
    /// Operations of each run.
    #[arg(long, default_value_t = 300)]
    operations: usize,
    /// Threads; as many as there are cores if not given.
    #[arg(long)]
    threads: Option<usize>,
    /// Stops after so many failures.
    #[arg(long, default_value_t = 10)]
    failures: usize,
    /// Prints every operation.
    #[arg(long)]
    trace: bool,
}

fn seed_range(text: &str) -> Result<std::ops::Range<u64>, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
    match text.split_once("..") {
        Some((from, "")) => number(from).map(|from| from..from + 1000),
        Some((from, to)) => Ok(number(from)?..number(to)?),
        None => Ok(0..number(text)?),
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let began = Instant::now();
    let total = Mutex::new(Report::default());
    let threads = options.threads.unwrap_or_else(seeds::cores);
    let failures = seeds::run_seeds(options.seeds.clone(), threads, options.failures, |seed| {
        let report = simulation::run(seed, options.operations, options.trace)?;
        let mut total = total.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        total.add(&report);
        Ok(())
    });
    for (seed, what) in &failures {
        println!("seed {seed} failed: {what}");
    }
    let total = total.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    println!(
        "{} seeds ({}..{}), {} failed, {:.1} s: {total}",
        options.seeds.end - options.seeds.start,
        options.seeds.start,
        options.seeds.end,
        failures.len(),
        began.elapsed().as_secs_f64()
    );
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
