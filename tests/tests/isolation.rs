//! The isolation checker: it names what is wrong in histories written by hand, finds the faults of stores that have
//! them on purpose, and finds nothing in right ones. Longer: `cargo run --release -p bedstone-tests --bin isolation --
//! --histories 10000`.

use std::collections::BTreeSet;
use std::sync::Mutex;

use bedstone_crashtest::seeds;
use bedstone_tests::isolation::fake::{Fake, Fault};
use bedstone_tests::isolation::run::{Ask, Counts, Plan, interleaved, judge, threaded};
use bedstone_tests::isolation::{Anomaly, History, Level, Options, check::check};
use bedstone_tests::isolation::{engine, exhaustive};

/// Judges a history in which `C` stands for what all lines begin with: client, phase, times and end of transactions
/// that are all committed and all run at once.
fn kinds(level: Level, lines: &[&str]) -> BTreeSet<Anomaly> {
    let text: String = lines
        .iter()
        .enumerate()
        .map(|(at, line)| match line.strip_prefix("C ") {
            Some(ops) => format!("T client {at} phase 0 at {at}..{} committed: {ops}\n", 1000 + at),
            None => format!("T {line}\n"),
        })
        .collect();
    let history = History::parse(&text).unwrap();
    assert_eq!(History::parse(&history.to_string()).unwrap(), history);
    let report = check(&history, &Options::new(level));
    println!("{report}");
    report.kinds()
}

fn expect(level: Level, lines: &[&str], wanted: &[Anomaly]) {
    assert_eq!(kinds(level, lines), wanted.iter().copied().collect(), "{lines:#?}");
}

/// Under both levels.
fn forbidden(lines: &[&str], wanted: &[Anomaly]) {
    expect(Level::SnapshotIsolation, lines, wanted);
    expect(Level::Serializable, lines, wanted);
}

#[test]
fn a_right_history_is_clean() {
    forbidden(
        &[
            "C append 1 1; append 2 2; read 1 [1]",
            "C read 1 [1]; append 1 3; range 0..9 {1 [1 3], 2 [2]}",
            "C range 0..9 {1 [1], 2 [2]}; read 3 []",
            "C read 1 [1 3]; read 2 [2]",
        ],
        &[],
    );
}

#[test]
fn write_cycle() {
    forbidden(
        &["C append 1 1; append 2 2", "C append 1 3; append 2 4", "C read 1 [1 3]; read 2 [4 2]"],
        // The reader saw no more than there is: nothing else is wrong.
        &[Anomaly::G0],
    );
}

#[test]
fn aborted_and_intermediate_reads() {
    forbidden(&["client 0 phase 0 at 0..9 aborted: append 1 1", "C read 1 [1]"], &[Anomaly::G1a]);
    forbidden(
        &["C append 1 1; append 1 2", "C read 1 [1]", "C read 1 [1 2]"],
        // Who read the first of two appends read before the second one, too.
        &[Anomaly::G1b, Anomaly::GSingle],
    );
}

#[test]
fn information_flows_in_a_circle() {
    forbidden(&["C append 1 1; read 2 [2]", "C append 2 2; read 1 [1]"], &[Anomaly::G1c]);
}

#[test]
fn read_skew() {
    forbidden(
        &["C append 1 1; append 2 2", "C read 1 [1]; read 2 []", "C read 1 [1]; read 2 [2]"],
        &[Anomaly::GSingle],
    );
    // The same where a range missed one of the keys.
    forbidden(&["C append 1 1; append 2 2", "C range 1..3 {1 [1]}", "C read 2 [2]"], &[Anomaly::GSingle]);
    // Rolled back or not, a reader had a snapshot.
    expect(
        Level::SnapshotIsolation,
        &[
            "C append 1 1; append 2 2",
            "C read 1 [1]; read 2 [2]",
            "client 3 phase 0 at 5..9 aborted: read 1 [1]; read 2 []",
        ],
        &[Anomaly::GSingle],
    );
}

#[test]
fn long_fork() {
    forbidden(
        &["C append 1 1", "C append 2 2", "C read 1 [1]; read 2 []", "C read 1 []; read 2 [2]"],
        &[Anomaly::GNonadjacent],
    );
}

#[test]
fn lost_update() {
    forbidden(
        &[
            "C read 1 []; append 1 1",
            "C read 1 []; append 1 2",
            "client 9 phase 0 at 2000..2001 committed: read 1 [2]",
        ],
        &[Anomaly::LostUpdate, Anomaly::Vanished],
    );
}

#[test]
fn write_skew_is_allowed_to_snapshots() {
    let skew = ["C read 1 []; append 2 2", "C read 2 []; append 1 1", "C read 1 [1]; read 2 [2]"];
    expect(Level::SnapshotIsolation, &skew, &[]);
    expect(Level::Serializable, &skew, &[Anomaly::G2Item]);
    let phantoms = ["C range 0..5 {}; append 1 1", "C range 0..5 {}; append 2 2", "C read 1 [1]; read 2 [2]"];
    expect(Level::SnapshotIsolation, &phantoms, &[]);
    expect(Level::Serializable, &phantoms, &[Anomaly::G2]);
}

/// Fekete, O'Neil, O'Neil: "A Read-Only Transaction Anomaly Under Snapshot Isolation", SIGMOD Record 2004.
#[test]
fn a_reader_alone_can_see_that_an_order_is_none() {
    let history = |reader: &str| {
        vec![
            "client 0 phase 0 at 0..30 committed serializable: read 1 []; read 2 []; append 2 2".to_owned(),
            "client 1 phase 0 at 1..9 committed serializable: read 1 []; append 1 1".to_owned(),
            format!("client 2 phase 0 at 10..20 committed{reader}: read 1 [1]; read 2 []"),
            "client 3 phase 0 at 40..41 committed: read 1 [1]; read 2 [2]".to_owned(),
        ]
    };
    let [asks, not] = [history(" serializable"), history("")];
    let [asks, not] = [&asks, &not].map(|lines| lines.iter().map(String::as_str).collect::<Vec<_>>());
    expect(Level::SnapshotIsolation, &asks, &[]);
    expect(Level::Serializable, &not, &[Anomaly::G2Item]);
    expect(Level::AsAsked, &asks, &[Anomaly::G2Item]);
    expect(Level::AsAsked, &not, &[]);
}

#[test]
fn inside_of_one_transaction() {
    forbidden(&["C read 1 []; append 1 1; read 1 []"], &[Anomaly::Internal]);
    forbidden(&["C append 1 1; range 0..5 {}"], &[Anomaly::Internal]);
    forbidden(&["C read 1 [1]; append 1 1"], &[Anomaly::Internal]);
    forbidden(
        &["C append 1 1", "C read 1 []; read 1 [1]", "C read 1 []; range 0..5 {1 [1]}", "C read 1 [1]"],
        &[Anomaly::NonRepeatableRead],
    );
}

#[test]
fn lists_that_cannot_be() {
    forbidden(&["C read 1 [7]"], &[Anomaly::Invented]);
    forbidden(&["C append 2 7", "C read 1 [7]"], &[Anomaly::Invented]);
    forbidden(&["C append 1 1", "C read 1 [1 1]"], &[Anomaly::Duplicate]);
    forbidden(
        &["C append 1 1", "C append 1 2", "C read 1 [1 2]", "C read 1 [2]"],
        &[Anomaly::IncompatibleOrder],
    );
}

#[test]
fn what_is_old_is_not_read() {
    let lines = [
        "client 0 phase 0 at 0..1 committed: append 1 1",
        "client 1 phase 0 at 2..3 committed: read 1 []",
        "client 2 phase 0 at 4..5 committed: read 1 [1]",
    ];
    forbidden(&lines, &[Anomaly::GSingleTime]);
    let history = History::parse(&lines.map(|line| format!("T {line}\n")).concat()).unwrap();
    let options = Options { real_time: false, ..Options::new(Level::Serializable) };
    assert!(check(&history, &options).is_clean());
    // And nothing is read before it was written.
    forbidden(
        &["client 0 phase 0 at 0..1 committed: read 1 [1]", "client 1 phase 0 at 2..3 committed: append 1 1"],
        &[Anomaly::G1cTime],
    );
}

#[test]
fn crashes() {
    let after = |before: &[&'static str], reads: &'static str| {
        let mut lines = before.to_vec();
        lines.push(reads);
        lines
    };
    let unknown = "client 0 phase 0 at 0..50 unknown: append 1 1; append 2 2";
    // All or nothing.
    forbidden(&after(&[unknown], "client 9 phase 1 at 60..61 committed: read 1 []; read 2 []"), &[]);
    forbidden(&after(&[unknown], "client 9 phase 1 at 60..61 committed: read 1 [1]; read 2 [2]"), &[]);
    forbidden(
        &after(&[unknown], "client 9 phase 1 at 60..61 committed: read 1 [1]; read 2 []"),
        &[Anomaly::TornCommit],
    );
    // What was acknowledged stays.
    forbidden(
        &after(
            &["client 0 phase 0 at 0..1 committed: append 1 1"],
            "client 9 phase 1 at 60..61 committed: read 1 []",
        ),
        &[Anomaly::Vanished],
    );
    // What only readers saw may go; what writers built upon may not.
    let gone = "client 9 phase 1 at 60..61 committed: read 1 []; read 2 []; read 3 []";
    forbidden(&after(&[unknown, "client 1 phase 0 at 5..9 committed: read 1 [1]; read 2 [2]"], gone), &[]);
    let stayed = "client 9 phase 1 at 60..61 committed: read 1 []; read 2 []; read 3 [3]";
    let built = "client 1 phase 0 at 5..9 committed: read 1 [1]; append 3 3";
    forbidden(&after(&[unknown, built], stayed), &[Anomaly::ReadOfLost]);
    let history = [unknown, "client 1 phase 0 at 5..9 committed: read 1 [1]", gone]
        .map(|line| format!("T {line}\n"))
        .concat();
    let waits = Options { readers_wait: true, ..Options::new(Level::SnapshotIsolation) };
    assert_eq!(
        check(&History::parse(&history).unwrap(), &waits).kinds(),
        BTreeSet::from([Anomaly::ReadOfLost])
    );
}

#[test]
fn a_line_that_is_none_is_named() {
    for bad in
        ["nonsense", "T0 client 1 phase 0 at 1..2 committed: read 4", "T0 client 1 phase 0 at 1..2 odd: "]
    {
        let error = History::parse(&format!("# a comment\n{bad}")).unwrap_err();
        assert!(error.contains("line 2"), "{error}");
    }
}

const LEVELS: [(Ask, Level); 3] =
    [(Ask::Never, Level::SnapshotIsolation), (Ask::Always, Level::Serializable), (Ask::Some, Level::AsAsked)];

#[test]
fn right_stores_are_clean_and_have_conflicts() {
    for (ask, level) in LEVELS {
        let mut counts = Counts::default();
        for seed in 0..150 {
            let plan = Plan { crashes: (seed % 3) as u32, ..Plan::draw(seed, ask) };
            let mut store = Fake::new(Fault::None, seed);
            let history = interleaved(&plan, &mut store).unwrap();
            counts.add(&history, &judge("right", &plan, &history, &Options::new(level)).unwrap());
        }
        println!("{level:?}: {counts:?}");
        assert!(counts.aborted * 10 > counts.committed && counts.committed > 5000, "{counts:?}");
        assert!(counts.unknown > 20, "{counts:?}");
        assert!(level != Level::SnapshotIsolation || counts.skewed > 50, "{counts:?}");
    }
}

#[test]
fn right_stores_are_clean_with_threads() {
    for (ask, level) in LEVELS {
        for seed in 0..40 {
            let plan = Plan { crashes: (seed % 2) as u32, ..Plan::draw(seed, ask) };
            let mut store = Fake::new(Fault::None, seed);
            let history = threaded(&plan, &mut store).unwrap();
            judge("threads", &plan, &history, &Options::new(level)).unwrap();
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let plan = Plan { crashes: 1, ..Plan::draw(7, Ask::Some) };
    let run = || interleaved(&plan, &mut Fake::new(Fault::None, 7)).unwrap();
    assert_eq!(run(), run());
}

/// Runs seeds until all of `wanted` were found, and says how many it took.
fn found(fault: Fault, ask: Ask, level: Level, crashes: u32, wanted: &[Anomaly]) {
    const SEEDS: u64 = 60;
    let mut left: BTreeSet<Anomaly> = wanted.iter().copied().collect();
    let mut seen = BTreeSet::new();
    for seed in 0..SEEDS {
        let plan = Plan { crashes, ..Plan::draw(seed, ask) };
        let history = interleaved(&plan, &mut Fake::new(fault, seed)).unwrap();
        let kinds = check(&history, &Options::new(level)).kinds();
        left.retain(|anomaly| !kinds.contains(anomaly));
        seen.extend(kinds);
        if left.is_empty() {
            println!("{fault:?}: {wanted:?} after {} seeds; seen were {seen:?}", seed + 1);
            return;
        }
    }
    panic!("{fault:?}: {left:?} not found within {SEEDS} seeds; found were {seen:?}");
}

#[test]
fn faults_on_purpose_are_found_and_named() {
    use Anomaly::*;
    let snapshots = |fault, wanted: &[Anomaly]| found(fault, Ask::Never, Level::SnapshotIsolation, 0, wanted);
    snapshots(Fault::NoConflicts, &[LostUpdate, Vanished]);
    snapshots(Fault::DirtyRead, &[G1a]);
    snapshots(Fault::IntermediateRead, &[G1b]);
    snapshots(Fault::LongFork, &[GNonadjacent]);
    snapshots(Fault::StaleSnapshot, &[GSingleTime]);
    snapshots(Fault::NoSnapshot, &[NonRepeatableRead, GSingle]);
    snapshots(Fault::HalfCommit, &[GSingle]);
    snapshots(Fault::AbortedVisible, &[G1a]);
    snapshots(Fault::StaleOwnRead, &[Internal]);
    snapshots(Fault::ForgottenCommit, &[Vanished]);
    found(Fault::TornCrash, Ask::Never, Level::SnapshotIsolation, 3, &[TornCommit]);
    found(Fault::NotDurable, Ask::Never, Level::SnapshotIsolation, 3, &[Vanished]);
    for (ask, level) in [(Ask::Always, Level::Serializable), (Ask::Some, Level::AsAsked)] {
        found(Fault::NoValidation, ask, level, 0, &[G2Item, G2]);
        found(Fault::ForgottenPhantom, ask, level, 0, &[G2]);
    }
}

#[test]
fn faults_of_validation_alone_are_clean_to_snapshots() {
    for fault in [Fault::NoValidation, Fault::ForgottenPhantom] {
        for seed in 0..40 {
            let plan = Plan::draw(seed, Ask::Always);
            let history = interleaved(&plan, &mut Fake::new(fault, seed)).unwrap();
            judge("skew", &plan, &history, &Options::new(Level::SnapshotIsolation)).unwrap();
        }
    }
}

/// The checker and the search through all orders agree, on right and on wrong histories, on both levels.
#[test]
fn verdicts_are_those_of_trying_everything() {
    let faults = [
        Fault::None,
        Fault::NoConflicts,
        Fault::DirtyRead,
        Fault::IntermediateRead,
        Fault::LongFork,
        Fault::StaleSnapshot,
        Fault::NoSnapshot,
        Fault::NoValidation,
        Fault::ForgottenPhantom,
        Fault::HalfCommit,
        Fault::AbortedVisible,
        Fault::StaleOwnRead,
        Fault::ForgottenCommit,
    ];
    // By level: histories that keep it, and histories that do not.
    let mut verdicts = [[0_u32; 2]; 2];
    let seeds = if std::env::var_os("BEDSTONE_LONG").is_some() { 400_000 } else { 4000 };
    for seed in 0..seeds {
        let fault = faults[seed as usize % faults.len()];
        let ask = LEVELS[seed as usize / faults.len() % 2].0;
        let (clients, width) = (2 + seed % 3, 2 + seed % 2);
        let plan = Plan { clients, txns: 6 / clients, ops: 4, width, stride: 3, ..Plan::draw(seed, ask) };
        let history = interleaved(&plan, &mut Fake::new(fault, seed)).unwrap();
        let truth = [exhaustive::is_snapshot_isolated(&history), exhaustive::is_serializable(&history)];
        for (at, level) in [Level::SnapshotIsolation, Level::Serializable].into_iter().enumerate() {
            let report = check(&history, &Options::new(level));
            // Serializability says nothing of what transactions read that were rolled back; the checker holds them to
            // their snapshots at every level.
            let right = truth[at] && (level == Level::SnapshotIsolation || truth[0]);
            assert_eq!(report.is_clean(), right, "seed {seed}, {fault:?}, {level:?}:\n{report}\n{history}");
            verdicts[at][usize::from(!right)] += 1;
        }
    }
    println!("{verdicts:?}");
    assert!(verdicts.iter().flatten().all(|count| *count > 300), "{verdicts:?}");
}

/// The engine, on simulated disks that lose power. `--bin isolation` runs more of these.
#[test]
fn the_engine_keeps_its_levels() {
    let counts = Mutex::new(Counts::default());
    let failures = seeds::run_seeds(0..300, seeds::cores(), 3, |seed| {
        let (ask, level) = LEVELS[(seed % 3) as usize];
        let (history, report) = engine::run_one(seed, ask, level)?;
        counts.lock().unwrap().add(&history, &report);
        Ok(())
    });
    let text: String = failures.iter().map(|(seed, what)| format!("seed {seed}: {what}\n")).collect();
    assert!(failures.is_empty(), "{text}");
    let counts = counts.into_inner().unwrap();
    println!("{counts:?}");
    assert!(counts.aborted * 10 > counts.committed && counts.committed > 5000, "{counts:?}");
    assert!(counts.skewed > 20, "{counts:?}");
}
