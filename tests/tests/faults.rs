//! Every operation on the medium fails once, and from there on, over a scenario that uses every part of the store:
//! every failure is a typed error, nothing panics, and nothing acknowledged is lost when the store is opened again, with
//! and without a power cut in between.

use std::sync::Arc;

use bedstone::{Database, Error};
use bedstone_crashtest::oracle::Ending;
use bedstone_crashtest::scenario::Scenario;
use bedstone_crashtest::seeds;
use bedstone_crashtest::setup::{Config, DIR, check_clean, smallest_pool};
use bedstone_io::sim::{CutMode, Fault, OpKind, Repeat, SimDisk};

fn config() -> Config {
    Config { pool_bytes: smallest_pool(4096), ..Config::small() }
}

fn both_parts(config: &Config, disk: &Arc<SimDisk>) -> Scenario {
    let mut scenario = Scenario::new(config.clone());
    scenario.part(disk, 0);
    // As if the process had ended, so that an open failure of the first part does not hold the lock.
    let disk = disk.reopen();
    scenario.part(&disk, 1);
    scenario
}

/// How many operations of this kind the scenario makes without faults.
fn operations(config: &Config, kind: OpKind) -> u64 {
    // A fault that never comes counts what it waits for.
    let (mut low, mut high) = (0, 1 << 16);
    while low + 1 < high {
        let middle = (low + high) / 2;
        let disk = SimDisk::new(1);
        disk.fail_nth(kind, middle, Fault::Eio, Repeat::Once);
        drop(both_parts(config, &disk));
        if disk.stats().faults > 0 { low = middle } else { high = middle }
    }
    low
}

fn run_one(
    config: &Config,
    kind: OpKind,
    n: u64,
    fault: Fault,
    repeat: Repeat,
    cut: Option<CutMode>,
) -> Result<(), String> {
    let disk = SimDisk::new(n * 31 + 7);
    disk.fail_nth(kind, n, fault, repeat);
    let mut scenario = both_parts(config, &disk);
    disk.clear_faults();
    // When the sync of a directory fails, names in it are lost to every later sync, that of a directory just made too,
    // and nobody can make it anew without taking it away first. A creation that failed so is refused; that the next
    // one in the same boot survives a power cut is not promised.
    if scenario
        .errors
        .first()
        .is_some_and(|error| error.starts_with("open") && error.contains("cannot sync directory"))
    {
        return scenario.verify(&disk.reopen(), Ending::Killed).map(drop);
    }
    let ending = match cut {
        Some(mode) => {
            disk.power_cut(mode);
            Ending::PowerCut
        }
        None => Ending::Killed,
    };
    let disk = disk.reopen();
    scenario.verify(&disk, ending)?;
    // Whatever the opening relied on must be on the medium by now, not only in a page cache.
    let disk = disk.reopen();
    disk.power_cut(CutMode::Drop);
    scenario
        .verify(&disk.reopen(), Ending::PowerCut)
        .map_err(|what| format!("after another power cut: {what}"))
        .map(drop)
}

/// Runs a fault at every operation of a kind, once and for good, each followed by one of three ends (by all of them with
/// `BEDSTONE_LONG=1`).
fn everywhere(kind: OpKind, fault: Fault) {
    let config = config();
    let count = operations(&config, kind);
    assert!(count > 0, "the scenario has no operation of the kind {kind:?}");
    let mut cases = Vec::new();
    for n in 1..=count {
        for repeat in [Repeat::Once, Repeat::Forever] {
            let cuts = [None, Some(CutMode::Drop), Some(CutMode::Random)];
            if std::env::var_os("BEDSTONE_LONG").is_some() {
                cases.extend(cuts.map(|cut| (n, repeat, cut)));
            } else {
                cases.push((n, repeat, cuts[(n as usize + usize::from(repeat == Repeat::Once)) % 3]));
            }
        }
    }
    let failures = seeds::run_seeds(0..cases.len() as u64, seeds::cores(), 12, |at| {
        let (n, repeat, cut) = cases[at as usize];
        run_one(&config, kind, n, fault, repeat, cut)
            .map_err(|what| format!("{fault:?} at {kind:?} {n} of {count}, {repeat:?}, then {cut:?}: {what}"))
    });
    let text: String =
        failures.iter().map(|(at, what)| format!("{:?}: {what}\n", cases[*at as usize])).collect();
    assert!(failures.is_empty(), "{text}");
}

#[test]
fn the_scenario_itself_is_sound() {
    let config = config();
    let disk = SimDisk::new(1);
    let mut scenario = both_parts(&config, &disk);
    assert_eq!(scenario.errors, Vec::<String>::new());
    scenario.verify(&disk.reopen(), Ending::Closed).unwrap();
}

#[test]
fn any_operation_fails_with_an_input_output_error() {
    everywhere(OpKind::Any, Fault::Eio);
}

#[test]
fn any_change_meets_a_full_disk() {
    everywhere(OpKind::Mutation, Fault::Enospc);
}

#[test]
fn any_write_is_short() {
    everywhere(OpKind::Write, Fault::ShortWrite);
}

#[test]
fn any_write_is_torn() {
    everywhere(OpKind::Write, Fault::TornWrite);
}

#[test]
fn any_read_is_short() {
    everywhere(OpKind::Read, Fault::ShortRead);
}

#[test]
fn any_sync_does_part_of_its_work_and_fails() {
    everywhere(OpKind::Sync, Fault::PartialSync);
}

#[test]
fn any_log_segment_is_left_half_made() {
    everywhere(OpKind::Allocate, Fault::ShortWrite);
}

/// Where the medium lies, the store cannot keep everything, but it must notice: wrong data is never served. Reads of the
/// scenario see a flipped bit once.
#[test]
fn a_read_with_a_wrong_bit_is_noticed() {
    let config = config();
    let count = operations(&config, OpKind::Read);
    for n in 1..=count {
        let disk = SimDisk::new(n);
        disk.fail_nth(OpKind::Read, n, Fault::FlippedRead, Repeat::Once);
        let scenario = both_parts(&config, &disk);
        assert_eq!(
            scenario.wrong,
            Vec::<String>::new(),
            "read {n} of {count} (errors: {:?})",
            scenario.errors
        );
    }
}

/// After a sync has failed Linux calls the pages clean; a second sync would succeed and prove nothing (Rebello et
/// al., ATC 2020). The store must not acknowledge anything any more, and must not have tried again.
#[test]
fn a_failed_sync_of_the_log_ends_all_acknowledgements() {
    let config = config();
    let disk = SimDisk::new(5);
    let db = config.builder(&disk).create(DIR).unwrap();
    let table = db.table("t").unwrap();
    table.put(b"before", b"1").unwrap();
    disk.fail_nth_on(".log", OpKind::Sync, 1, Fault::Eio, Repeat::Once);
    let error = table.put(b"doubtful", b"2").unwrap_err();
    assert!(matches!(error, Error::NotKnownDurable(_)), "{error:?}");
    let syncs = disk.stats().syncs;
    let error = table.put(b"later", b"3").unwrap_err();
    assert!(matches!(error, Error::ReadOnlyFailed(_)), "{error:?}");
    assert!(db.sync().is_err() && db.checkpoint().is_err());
    assert_eq!(table.get(b"before").unwrap().as_deref(), Some(&b"1"[..]), "reads go on");
    assert!(db.close().is_err(), "a store that failed must not say that it closed well");
    assert_eq!(disk.stats().syncs, syncs, "a sync was tried again");

    // Opened in the same boot, the page cache still shows the doubtful commit. What the opening shows must last.
    let disk = disk.reopen();
    let db = config.builder(&disk).open(DIR).unwrap();
    let shown = db.table("t").unwrap().contains(b"doubtful").unwrap();
    disk.power_cut(CutMode::Drop);
    let disk = disk.reopen();
    drop(db);
    let db = config.builder(&disk).open(DIR).unwrap();
    let table = db.table("t").unwrap();
    assert_eq!(table.get(b"before").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(
        table.contains(b"doubtful").unwrap(),
        shown,
        "a commit that a recovery showed was lost by the next"
    );
    assert!(!table.contains(b"later").unwrap());
    check_clean(&db).unwrap();
}

/// A failed checkpoint before its superblock is given up: commits go on, and a later one succeeds.
#[test]
fn a_checkpoint_that_cannot_write_a_page_is_given_up_and_repeated() {
    let config = config();
    let disk = SimDisk::new(6);
    let db = config.builder(&disk).create(DIR).unwrap();
    let table = db.table("t").unwrap();
    for i in 0..50u32 {
        table.put(i.to_be_bytes(), [7; 300]).unwrap();
    }
    disk.fail_nth_on("data", OpKind::Write, 1, Fault::Eio, Repeat::Once);
    let error = db.checkpoint().unwrap_err();
    assert!(!error.is_read_only(), "{error:?}");
    table.put(b"after", b"1").unwrap();
    db.checkpoint().unwrap();
    db.close().unwrap();
    let db = config.builder(&disk).open(DIR).unwrap();
    assert!(db.table("t").unwrap().contains(b"after").unwrap());
    check_clean(&db).unwrap();
}

/// A read error concerns its page alone: other pages stay readable and writable.
#[test]
fn a_page_that_cannot_be_read_leaves_the_others_alone() {
    let config = config();
    let disk = SimDisk::new(7);
    let db = config.builder(&disk).create(DIR).unwrap();
    let table = db.table("t").unwrap();
    for i in 0..3000u32 {
        table.put_with(i.to_be_bytes(), [i as u8; 100], bedstone::Durability::Relaxed).unwrap();
    }
    db.close().unwrap();
    drop(table);
    let db: Database = config.builder(&disk).open(DIR).unwrap();
    let table = db.table("t").unwrap();
    disk.fail_nth_on("data", OpKind::Read, 1, Fault::Eio, Repeat::Once);
    let failed = (0..3000u32).filter(|i| table.get(i.to_be_bytes()).is_err()).count();
    assert!((0..=1).contains(&failed), "{failed} gets failed of one failed read");
    assert_eq!(disk.stats().faults, 1);
    for i in 0..3000u32 {
        assert_eq!(table.get(i.to_be_bytes()).unwrap().as_deref(), Some(&[i as u8; 100][..]));
    }
    table.put(b"still", b"writable").unwrap();
}

/// A power cut at every operation of a recovery, then at every operation of the recovery of that one, loses nothing.
#[test]
fn recovery_can_be_cut_at_any_operation_twice() {
    let config = config();
    let disk = SimDisk::new(8);
    let mut scenario = Scenario::new(config.clone());
    scenario.part(&disk, 0);
    let disk = disk.reopen();
    let db = config.builder(&disk).open(DIR).unwrap();
    let table = db.table("one").unwrap();
    for i in 0..40u32 {
        table.put(format!("log {i}"), [i as u8; 200]).unwrap();
    }
    disk.power_cut(CutMode::Random);
    let disk = disk.reopen();
    drop((table, db));
    let start = disk.snapshot();
    for first in 1..40 {
        for second in [1, 2, 5, 11] {
            disk.restore(&start);
            disk.reseed(first * 100 + second);
            let mut life = disk.reopen();
            for n in [first, second] {
                life.set_cut_after(n, CutMode::Random);
                drop(config.builder(&life).open(DIR));
                life.cancel_cut();
                life = life.reopen();
            }
            let db = config
                .builder(&life)
                .open(DIR)
                .unwrap_or_else(|error| panic!("cuts at {first}, {second}: {error}"));
            let table = db.table("one").unwrap();
            for i in 0..40u32 {
                let value = table.get(format!("log {i}")).unwrap();
                assert_eq!(value.as_deref(), Some(&[i as u8; 200][..]), "cuts at {first}, {second}");
            }
            drop(table);
            check_clean(&db).unwrap_or_else(|what| panic!("cuts at {first}, {second}: {what}"));
        }
    }
}

/// The two superblocks are there so that one torn write never takes both. The second of two openings must not begin with
/// the only one that the first left whole.
#[test]
fn two_torn_superblock_writes_in_a_row_leave_one_whole() {
    let config = config();
    for first in 1..=2 {
        for second in 1..=2 {
            for seed in 0..8 {
                let disk = SimDisk::new(seed);
                config.builder(&disk).create(DIR).unwrap().close().unwrap();
                let mut life = disk.reopen();
                for n in [first, second] {
                    life.fail_nth_on("data", OpKind::Write, n, Fault::TornWrite, Repeat::Once);
                    let opened = config.builder(&life).open(DIR);
                    life.power_cut(CutMode::Keep);
                    drop(opened);
                    life.clear_faults();
                    life = life.reopen();
                }
                let opened = config.builder(&life).open(DIR);
                assert!(opened.is_ok(), "torn at {first}, then at {second}, seed {seed}: {opened:?}");
            }
        }
    }
}

/// The harness itself: a medium that acknowledges syncs of the log and does nothing breaks promises, and the oracle must
/// say so. (Such hardware cannot be survived.)
#[test]
fn the_alarm_rings_when_syncs_of_the_log_do_nothing() {
    let config = config();
    let disk = SimDisk::new(9);
    disk.fail_nth_on(".log", OpKind::Sync, 1, Fault::LyingSync, Repeat::Forever);
    let mut scenario = Scenario::new(config.clone());
    let db = config.builder(&disk).create(DIR).unwrap();
    drop(db);
    scenario.part(&disk.reopen(), 0);
    disk.clear_faults();
    let earlier = disk.snapshot();
    let mut noticed = 0;
    for seed in 0..5 {
        disk.restore(&earlier);
        disk.reseed(seed);
        let life = disk.reopen();
        life.fail_nth_on(".log", OpKind::Sync, 1, Fault::LyingSync, Repeat::Forever);
        let db = config.builder(&life).open(DIR).unwrap();
        db.table("one").unwrap().put(b"promised", b"1").unwrap();
        life.power_cut(CutMode::Drop);
        let life = life.reopen();
        drop(db);
        life.clear_faults();
        let kept = config.builder(&life).open(DIR).and_then(|db| db.table("one")?.contains(b"promised"));
        noticed += usize::from(!matches!(kept, Ok(true)));
    }
    assert_eq!(
        noticed, 5,
        "a promise was kept by a medium that keeps nothing: the simulation proves nothing"
    );
}
