//! A process that works on a store until it is killed or has done enough, for tests that need one: the standard workload
//! of the crash tests. `BEDSTONE_CRASHTEST_CHILD=STORE worker SEED THREADS COMMITS`, and `worker SEED THREADS
//! lies` for one that lies.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use bedstone_crashtest::{Plan, Standard, kill};
use bedstone_tests::liar::Liar;

fn main() -> ExitCode {
    let lies = std::env::args().nth(3).is_some_and(|word| word == "lies");
    let numbers: Vec<u64> = std::env::args().skip(1).map_while(|text| text.parse().ok()).collect();
    let plan = |seed, threads| Plan { threads: threads as usize, ..Plan::rounds(seed, 1) };
    let code = match numbers[..] {
        [seed, threads] if lies => kill::child_main(&Liar::new(&plan(seed, threads))),
        [seed, threads, commits] => kill::child_main(&Standard::new(&plan(seed, threads)).commits(commits)),
        _ => {
            eprintln!("usage: {}=STORE worker SEED THREADS {{COMMITS|lies}}", kill::CHILD);
            return ExitCode::from(3);
        }
    };
    code.unwrap_or_else(|| {
        eprintln!("{} is not set", kill::CHILD);
        ExitCode::from(3)
    })
}
