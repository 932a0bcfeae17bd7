//! `bedstone crash-test`: verdicts, exit codes, what is left behind. That it finds broken promises is shown elsewhere, by
//! defects made on purpose.

use std::path::Path;

use serde_json::Value as Json;

use crate::support::run;

fn crash_test(dir: &Path, arguments: &[&str]) -> crate::support::Done {
    let mut all = vec!["crash-test".into(), dir.as_os_str().to_owned()];
    all.extend(arguments.iter().map(Into::into));
    run(all)
}

fn json(done: &crate::support::Done) -> Json {
    serde_json::from_slice(&done.out).unwrap()
}

/// Processes that write are killed by SIGKILL at random moments, while they open the database too; every acknowledged
/// commit is there afterwards, none is there in part, and what survives is a prefix across all writers.
#[test]
fn killed_writers_leave_every_acknowledged_commit() {
    for (seed, durability) in [("1", "mixed"), ("2", "sync"), ("3", "buffered")] {
        let dir = tempfile::tempdir().unwrap();
        let options = ["--mode", "kill", "--rounds", "10", "--threads", "3", "--json"];
        let seed = ["--seed", seed, "--durability", durability];
        let done = crash_test(dir.path(), &[&options[..], &seed].concat()).exits(0);
        let report = json(&done);
        let counts = &report["modes"][0]["counts"];
        assert_eq!(counts["kills"], 10, "{report}");
        assert!(counts["acknowledged_commits"].as_u64().unwrap() > 10, "{report}");
        assert!(counts["recoveries_verified"].as_u64().unwrap() > 3, "{report}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "something was left behind");
    }
}

#[test]
fn power_is_cut_on_simulated_disks_and_a_round_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let options = ["--mode", "power", "--rounds", "16", "--seed", "7"];
    let done = crash_test(dir.path(), &options).exits(0);
    let text = String::from_utf8(done.out).unwrap();
    assert!(text.contains("power     kept") && text.contains("power cuts"), "{text}");
    assert!(text.ends_with("Every promise was kept (seed 7).\n"), "{text}");
    let again = || crash_test(dir.path(), &["--mode", "power", "--seed", "7", "--only", "3"]).exits(0).err;
    let operations = again();
    assert!(operations.starts_with("seed ") && operations.lines().count() > 200, "{operations}");
    assert_eq!(operations, again());
}

#[test]
fn what_cannot_run_says_what_to_do_and_exits_with_2() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let done = crash_test(file.path(), &["--mode", "kill", "--rounds", "1"]).exits(2);
    let text = String::from_utf8(done.out).unwrap();
    assert!(text.contains("could not run") && text.contains("name a directory"), "{text}");
    let dir = tempfile::tempdir().unwrap();
    crash_test(dir.path(), &["--mode", "kill", "--only", "3"]).exits(2);
    crash_test(dir.path(), &["--only", "3"]).exits(3);
    crash_test(dir.path(), &["--mode", "earthquake"]).exits(3);
    crash_test(dir.path(), &["--minutes", "-1"]).exits(3);
}
