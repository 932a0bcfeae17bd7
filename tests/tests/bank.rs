//! Sixty-four threads move money between accounts: the sum is the same in every snapshot, and after the process was
//! killed. Longer: `cargo run --release -p bedstone-tests --bin bank -- --generations 500`.

use std::process::Command;

use bedstone_tests::bank::{Plan, run, run_killed};

#[test]
fn the_sum_is_the_same_in_every_snapshot() {
    let plan = Plan { seed: 1, threads: 64, readers: 3, accounts: 40, transfers: 40 };
    let report = run(&plan).unwrap();
    println!("{report:?}");
    assert_eq!(report.transfers, 64 * 40);
    assert!(report.sums >= 3, "{report:?}");
}

#[test]
fn the_sum_survives_kills() {
    let plan = Plan { seed: 2, threads: 64, readers: 2, accounts: 200, transfers: 0 };
    let program = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bank"));
        command.args(["--seed", "2", "--threads", "64", "--readers", "2", "--accounts", "200"]);
        Ok(command)
    };
    let report = run_killed(&plan, 8, &program).unwrap();
    println!("{report:?}");
    assert_eq!(report.kills, 8);
    assert!(report.acknowledged > 0 && report.transfers >= report.acknowledged, "{report:?}");
}
