//! Processes that write are killed by SIGKILL at random moments, while they open the database too; every acknowledged
//! commit is there afterwards, none is there in part, and what survives is a prefix across all writers.
//! Longer: `cargo run --release -p bedstone-tests --bin kill -- --generations 500`.

use std::path::Path;

use bedstone_crashtest::kill::{Plan, run};

#[test]
fn killed_writers_leave_every_acknowledged_commit() {
    for seed in [1, 2, 3] {
        let program = Path::new(env!("CARGO_BIN_EXE_kill")).to_path_buf();
        let report = run(&Plan { program, seed, generations: 10, threads: 3 }).unwrap();
        assert_eq!(report.kills, 10);
        assert!(report.acknowledged > 0 && report.commits >= report.acknowledged, "{report:?}");
    }
}
