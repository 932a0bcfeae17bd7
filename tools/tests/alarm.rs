//! The alarm rings: for each rule of durability that this build can break on purpose, the mode of `bedstone crash-test`
//! that notices. The list is the test: every defect is on it, the mode reports a broken promise when the defect is on,
//! and keeps every promise in the same run when it is off.
//!
//! The defects are [`bedstone_io::defect`]'s. They are a switch of the whole process, so each run is a child.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use bedstone_io::defect::{Defect, VARIABLE};
use tempfile::TempDir;

/// A run of one mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Run {
    mode: &'static str,
    seed: u64,
    /// With a defect it must be noticed by then.
    rounds: u64,
    /// Rounds without one.
    kept: u64,
}

/// The model's disks whose power goes.
const POWER: Run = Run { mode: "power", seed: 1, rounds: 200, kept: 200 };
/// Writers that are killed. They meet by chance, so there are several times as many rounds as it takes.
const KILL: Run = Run { mode: "kill", seed: 1, rounds: 150, kept: 30 };
/// Damage at rest.
const ROT: Run = Run { mode: "rot", seed: 1, rounds: 200, kept: 200 };

/// Who notices what.
const LIST: &[(Defect, Run)] = &[
    (Defect::SkipLogSync, POWER),
    (Defect::AckBeforeSync, POWER),
    (Defect::RetryFailedSync, POWER),
    (Defect::SkipDataSync, POWER),
    (Defect::SuperblocksAtOnce, POWER),
    (Defect::ReuseEarly, POWER),
    (Defect::RecycleEarly, POWER),
    (Defect::HalfBatch, POWER),
    (Defect::ReplayFromLogEnd, KILL),
    (Defect::TrustPageCache, POWER),
    (Defect::IgnoreChecksum, ROT),
    (Defect::IgnoreLogChecksum, POWER),
    (Defect::SkipDirSync, POWER),
    (Defect::SkipSegmentDirSync, POWER),
];

/// How a crash test ends.
const KEPT: i32 = 0;
const BROKEN: i32 = 1;

/// The command of a run in `dir`.
fn command(run: Run, dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bedstone"));
    command.args(["--allow-buffered", "crash-test"]).arg(dir).args(["--mode", run.mode]);
    command.args(["--seed", &run.seed.to_string(), "--rounds", &run.rounds.to_string()]);
    command.env_remove(VARIABLE);
    command
}

/// What a run came to: its exit code, and what it said.
fn outcome(run: Run, defect: Option<Defect>) -> (Option<i32>, String) {
    let dir = TempDir::new().unwrap();
    let mut command = command(run, dir.path());
    command.envs(defect.map(|defect| (VARIABLE, defect.name())));
    let output = command.output().unwrap();
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.code(), format!("{command:?}\n{}", String::from_utf8_lossy(&said)))
}

#[test]
fn every_defect_is_on_the_list_once() {
    let names = |defects: &mut dyn Iterator<Item = Defect>| -> Vec<_> {
        let mut names: Vec<_> = defects.map(Defect::name).collect();
        names.sort_unstable();
        names
    };
    let listed = names(&mut LIST.iter().map(|(defect, _)| *defect));
    assert_eq!(listed, names(&mut Defect::ALL.iter().copied()));
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "rules can be broken only in builds with debug assertions")]
fn every_alarm_rings() {
    let mut silent = Vec::new();
    for (defect, run) in LIST {
        let name = defect.name();
        let began = std::time::Instant::now();
        let (code, said) = outcome(*run, Some(*defect));
        if !matches!(code, Some(KEPT | BROKEN)) {
            silent
                .push(format!("{name}: the mode {} could not run, it ended with {code:?}: {said}", run.mode));
            continue;
        }
        assert!(
            said.contains(&format!("{VARIABLE}={name}: this process breaks promises on purpose")),
            "the command was built without the switch, so nothing was tested; build it with the feature \"defects\" of \
             bedstone: {said}"
        );
        // For the table in the documentation.
        println!("{name:22} {:6} {:5.1} s", run.mode, began.elapsed().as_secs_f64());
        if code == Some(KEPT) {
            silent.push(format!("{name}: not noticed: {said}"));
        }
    }
    assert!(silent.is_empty(), "{}", silent.join("\n"));
}

#[test]
fn without_a_defect_every_promise_is_kept() {
    let runs: BTreeSet<Run> = LIST.iter().map(|(_, run)| *run).collect();
    for run in runs {
        let (code, said) = outcome(Run { rounds: run.kept, ..run }, None);
        assert_eq!(code, Some(KEPT), "{said}");
        assert!(!said.contains("on purpose"), "{said}");
    }
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "rules can be broken only in builds with debug assertions")]
fn an_unknown_defect_is_refused() {
    let dir = TempDir::new().unwrap();
    let run = Run { rounds: 1, ..POWER };
    let output = command(run, dir.path()).env(VARIABLE, "no-such-thing").output().unwrap();
    let said = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("there is no such defect") && said.contains(Defect::SkipLogSync.name()), "{said}");
}
