//! The power goes below a real ext4 and a real XFS, at any moment and while recovering too: every acknowledged commit is
//! there afterwards, and none is there in part. Without root, /dev/fuse or the commands the tests say so and do nothing.
//! Longer: `bedstone crash-test DIR --mode power-fs --minutes 60`.

use std::process::Command;

use bedstone_crashtest::power_fs::{FileSystem, possible, run};
use bedstone_crashtest::{Failure, Plan, Standard, Verdict, Workload, unwatched};
use bedstone_tests::liar::Liar;

const THREADS: usize = 3;

/// Gives nothing if this machine cannot do it.
fn cuts(file_system: FileSystem, plan: &Plan, workload: &dyn Workload, commits: &str) -> Option<Verdict> {
    if let Err(why) = possible(file_system) {
        println!("left out: {why}");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let child = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
        command.args([plan.seed.to_string(), plan.threads.to_string(), commits.to_owned()]);
        Ok(command)
    };
    let verdict = run(plan, file_system, workload, &child, &dir.path().join("mounts"), &unwatched);
    if matches!(verdict, Err(Failure::Broken { .. })) && commits != "lies" {
        // The disk that shows it.
        println!("kept in {}", dir.keep().display());
    }
    Some(verdict)
}

fn every_promise_is_kept(file_system: FileSystem) {
    let plan = Plan { threads: THREADS, ..Plan::rounds(1, 40) };
    let Some(verdict) = cuts(file_system, &plan, &Standard::new(&plan), "1000000") else { return };
    let kept = verdict.unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(kept.count("crash states"), 40);
    for what in ["second cuts", "acknowledged commits", "recorded writes", "recorded flushes"] {
        assert!(kept.count(what) > 0, "{what}: {kept:?}");
    }
}

#[test]
fn power_cuts_below_ext4_leave_every_acknowledged_commit() {
    every_promise_is_kept(FileSystem::Ext4);
}

#[test]
fn power_cuts_below_xfs_leave_every_acknowledged_commit() {
    every_promise_is_kept(FileSystem::Xfs);
}

/// A store that acknowledges before it syncs is caught.
#[test]
fn canary_commits_without_a_sync_are_caught_below_a_file_system() {
    let plan = Plan { threads: THREADS, ..Plan::rounds(1, 40) };
    match cuts(FileSystem::Ext4, &plan, &Liar::new(&plan), "lies") {
        None => {}
        Some(Err(Failure::Broken { what, .. })) => assert!(what.contains("was acknowledged"), "{what}"),
        Some(other) => panic!("the lie went unnoticed: {other:?}"),
    }
}
