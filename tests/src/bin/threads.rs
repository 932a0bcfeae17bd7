//! Threads that write and read with small pools, for as long as wanted:
//! `cargo run -p bedstone-tests --bin threads -- --seconds 60` (without `--release`: with debug assertions).
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bedstone_crashtest::setup::PAGE_SIZES;
use bedstone_tests::threads::{Plan, run};
use clap::Parser;

/// Writers and readers on one database with a pool far smaller than its data.
#[derive(Parser)]
struct Options {
    /// How long, over all page sizes.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Writing threads.
    #[arg(long, default_value_t = 4)]
    writers: u64,
    /// Reading threads.
    #[arg(long, default_value_t = 4)]
    readers: u64,
    /// Decides what each thread does.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let Options { seconds, writers, readers, seed } = Options::parse();
    let time = Duration::from_secs(seconds) / PAGE_SIZES.len() as u32;
    for page_size in PAGE_SIZES {
        match run(&Plan { seed, time, writers, readers, page_size }) {
            Ok(report) => println!(
                "pages of {page_size}: {} writes, {} entries read, {} refused for want of frames, pool {} KiB, file {} KiB; {}",
                report.commits.load(Ordering::Relaxed),
                report.reads.load(Ordering::Relaxed),
                report.exhausted.load(Ordering::Relaxed),
                report.sizes.0 >> 10,
                report.sizes.1 >> 10,
                report.mode
            ),
            Err(what) => {
                println!("pages of {page_size}, seed {seed}: {what}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
