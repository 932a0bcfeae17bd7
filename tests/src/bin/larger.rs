//! Data larger than memory: loads `--data-mib` with a pool of `--pool-mib`, reads, scans and overwrites, and shows that
//! the process stays within pool + 64 MiB and that no page of the data file is cached by the operating system.
//!
//! `cargo run --release -p bedstone-tests --bin larger -- --data-mib 3072 --pool-mib 256 /path/on/the/disk`
#![forbid(unsafe_code)]

use std::path::PathBuf;

use bedstone_tests::larger::{Larger, run};
use clap::Parser;

/// Proof that nothing is cached twice, with figures.
#[derive(Parser)]
struct Args {
    /// Bytes of keys and values, in MiB.
    #[arg(long, default_value_t = 3072)]
    data_mib: u64,
    /// Bytes of the pool, in MiB.
    #[arg(long, default_value_t = 256)]
    pool_mib: usize,
    /// Random gets, and as many overwrites.
    #[arg(long, default_value_t = 400_000)]
    ops: u64,
    /// Threads doing them.
    #[arg(long, default_value_t = 8)]
    threads: u64,
    /// Seed of keys and accesses.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to put the database (a new folder in there, removed at the end).
    dir: PathBuf,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let plan = Larger {
        data_bytes: args.data_mib << 20,
        pool_bytes: args.pool_mib << 20,
        ops: args.ops,
        threads: args.threads,
        seed: args.seed,
    };
    let dir = tempfile::Builder::new().prefix("bedstone-larger-").tempdir_in(&args.dir)?;
    let seen = run(&plan, &dir.path().join("db"), &mut |line| println!("{line}"))?;
    let rate = |ops: u64, time: std::time::Duration| ops as f64 / time.as_secs_f64();
    println!("I/O: {}", seen.io);
    println!("load:       {:>10.0} entries/s", rate(seen.entries, seen.load));
    println!("gets:       {:>10.0} /s with {} threads", rate(args.ops, seen.gets), args.threads);
    println!("scan:       {:>10.0} entries/s", rate(seen.entries, seen.scan));
    println!("overwrites: {:>10.0} /s with {} threads", rate(args.ops, seen.overwrites), args.threads);
    println!(
        "data file:  {:>10} MiB, of which {} pages in the page cache",
        seen.file_bytes >> 20,
        seen.data_cached_pages
    );
    println!("redo log:   {:>10} MiB in the page cache", seen.log_cached_bytes >> 20);
    let limit = (args.pool_mib as u64 + 64) << 20;
    println!("resident:   {:>10} MiB at most, allowed are {} MiB", seen.resident_peak >> 20, limit >> 20);
    if seen.data_cached_pages != 0 || seen.resident_peak > limit {
        return Err("the data file is cached, or the process took more memory than allowed".into());
    }
    println!("kept: nothing is cached twice");
    Ok(())
}
