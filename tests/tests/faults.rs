//! Every operation on the medium fails once, and from there on, over a scenario that uses every part of the store:
//! every failure is a typed error, nothing panics, and nothing acknowledged is lost when the store is opened again, with
//! and without a power cut in between.

use bedstone::{Database, Durability, Error};
use bedstone_crashtest::oracle::Ending;
use bedstone_crashtest::scenario::{Part, Scenario};
use bedstone_crashtest::setup::{Config, DIR, check_clean, smallest_pool};
use bedstone_crashtest::{Limit, Plan, fault, seeds, unwatched};
use bedstone_io::sim::{CutMode, Fault, OpKind, Repeat, SimDisk};

fn config() -> Config {
    Config { pool_bytes: smallest_pool(4096), ..Config::small() }
}

/// So many rounds; without end with `BEDSTONE_LONG=1`: everything is tried then, as the command does.
fn rounds(usually: u64) -> u64 {
    if std::env::var_os("BEDSTONE_LONG").is_some() { u64::MAX } else { usually }
}

/// Tries a sample of the faults of one kind, spread evenly over all operations of the scenario, once and for good, with all
/// endings.
fn everywhere(kind: OpKind, fault: Fault, usually: u64) {
    let plan = Plan { threads: seeds::cores(), ..Plan::rounds(1, rounds(usually)) };
    let kept = fault::run_kind(&plan, kind, fault, &unwatched).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{:?} in {:?}", kept.counts, kept.took);
    assert!(kept.count("operations failed") > 0, "{kept:?}");
}

#[test]
fn the_scenario_itself_is_sound() {
    let mut scenario = Scenario::new(config(), 1);
    let mut disk = SimDisk::new(1);
    for part in Part::ALL {
        disk = scenario.part(&disk, part);
        assert_eq!(scenario.errors, Vec::<String>::new(), "{part:?}");
    }
    scenario.verify(&disk, Ending::Closed).unwrap();
}

#[test]
fn any_operation_fails_with_an_input_output_error() {
    everywhere(OpKind::Any, Fault::Eio, 800);
}

#[test]
fn any_change_meets_a_full_disk() {
    everywhere(OpKind::Mutation, Fault::Enospc, 400);
}

#[test]
fn any_write_is_short() {
    everywhere(OpKind::Write, Fault::ShortWrite, 250);
}

#[test]
fn any_write_is_torn() {
    everywhere(OpKind::Write, Fault::TornWrite, 250);
}

#[test]
fn any_read_is_short() {
    everywhere(OpKind::Read, Fault::ShortRead, 250);
}

#[test]
fn any_sync_does_part_of_its_work_and_fails() {
    everywhere(OpKind::Sync, Fault::PartialSync, 250);
}

#[test]
fn any_log_segment_is_left_half_made() {
    everywhere(OpKind::Allocate, Fault::ShortWrite, 250);
}

/// Where the medium lies, the store cannot keep everything, but it must notice: wrong data is never served. Reads of the
/// scenario see a flipped bit once.
#[test]
fn a_read_with_a_wrong_bit_is_noticed() {
    everywhere(OpKind::Read, Fault::FlippedRead, 400);
}

/// A sample of all that the command `crash-test fault` tries, with other options of the store.
#[test]
fn any_operation_fails_in_any_way() {
    let plan = Plan { threads: seeds::cores(), ..Plan::rounds(2, rounds(1000)) };
    let kept = fault::run(&plan, &unwatched).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{:?} in {:?}", kept.counts, kept.took);
    for what in ["reads failed", "writes failed", "syncs failed", "directory syncs failed", "errors met"] {
        assert!(kept.count(what) > 0, "{what}: {kept:?}");
    }
    for durability in [Durability::Sync, Durability::Buffered, Durability::Relaxed] {
        let plan = Plan { durability: Some(durability), ..plan.clone() };
        let plan = Plan { limit: Limit::Rounds(rounds(200)), ..plan };
        fault::run(&plan, &unwatched).unwrap_or_else(|failure| panic!("{durability:?}: {failure}"));
    }
    assert_eq!(fault::replay(&Plan::rounds(2, 1), 5), Ok(()));
    assert!(fault::replay(&Plan::rounds(2, 1), u64::MAX).is_err());
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
    let mut scenario = Scenario::new(config.clone(), 1);
    scenario.part(&disk, Part::Fill);
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
    let mut scenario = Scenario::new(config.clone(), 1);
    let db = config.builder(&disk).create(DIR).unwrap();
    drop(db);
    scenario.part(&disk.reopen(), Part::Fill);
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
