//! A process that works on a store until it is killed or has done enough, for tests that need one: the standard workload
//! of the crash tests. `BEDSTONE_CRASHTEST_CHILD=STORE worker SEED THREADS COMMITS`
#![forbid(unsafe_code)]

use std::process::ExitCode;

use bedstone_crashtest::{Plan, Standard, kill};

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args().skip(1).map_while(|text| text.parse().ok()).collect();
    let &[seed, threads, commits] = &numbers[..] else {
        eprintln!("usage: {}=STORE worker SEED THREADS COMMITS", kill::CHILD);
        return ExitCode::from(3);
    };
    let plan = Plan { threads: threads as usize, ..Plan::rounds(seed, 1) };
    kill::child_main(&Standard::new(&plan).commits(commits)).unwrap_or_else(|| {
        eprintln!("{} is not set", kill::CHILD);
        ExitCode::from(3)
    })
}
