//! The power goes, or the process dies, at every operation that changes the medium while a store is created, first
//! opened and first used. Afterwards there is either no store or one that opens, and it has everything acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bedstone::{Durability, Error};
use bedstone_crashtest::model::{Change, Model};
use bedstone_crashtest::oracle::{Ending, Oracle};
use bedstone_crashtest::setup::{Config, DIR, check_clean};
use bedstone_crashtest::view;
use bedstone_io::sim::{CutMode, Phase, SimDisk, TraceDisk};

const MODES: [CutMode; 3] = [CutMode::Drop, CutMode::Keep, CutMode::Random];

/// Creates a store and puts two keys; what was acknowledged, and whether it got that far that creating was.
fn create_and_use(config: &Config, disk: &Arc<SimDisk>) -> (Oracle, bool) {
    let mut oracle = Oracle::default();
    let Ok(db) = config.builder(disk).create(DIR) else { return (oracle, false) };
    let create = vec![Change::Create("first".into())];
    match db.create_table("first") {
        Ok(_) => oracle.acknowledged(create, Durability::Sync),
        Err(_) => {
            oracle.in_flight(create);
            return (oracle, true);
        }
    }
    for key in ["a", "b"] {
        let put = vec![Change::Put { table: "first".into(), key: key.into(), value: key.as_bytes().into() }];
        match db.open_table("first").and_then(|table| table.expect("just made").put(key, key)) {
            Ok(()) => oracle.acknowledged(put, Durability::Sync),
            Err(_) => {
                oracle.in_flight(put);
                break;
            }
        }
    }
    // A last checkpoint is part of what is cut; its failure is none of a commit.
    drop(db.close());
    (oracle, true)
}

/// Looks at what is there after the cut: no store, on which one can be created, or one that opens.
fn judge(config: &Config, disk: &Arc<SimDisk>, oracle: &mut Oracle, created: bool, context: &str) {
    let db = match config.builder(disk).open(DIR) {
        Ok(db) => db,
        Err(Error::NotFound { .. }) if !created => {
            let db = config
                .builder(disk)
                .create(DIR)
                .unwrap_or_else(|error| panic!("{context}: creating again: {error}"));
            assert_eq!(view::dump(&db).unwrap(), Model::default(), "{context}");
            db
        }
        Err(error) => panic!("{context}, created {created}: opening: {error} ({error:?})"),
    };
    let found = view::dump(&db).unwrap_or_else(|error| panic!("{context}: reading: {error}"));
    oracle.settle(found, Ending::PowerCut).unwrap_or_else(|what| panic!("{context}: {what}"));
    check_clean(&db).unwrap_or_else(|what| panic!("{context}: {what}"));
    db.table("later").unwrap().put(b"k", b"v").unwrap_or_else(|error| panic!("{context}: {error}"));
    db.close().unwrap_or_else(|error| panic!("{context}: close: {error}"));
}

fn mutations(config: &Config) -> u64 {
    let disk = SimDisk::new(1);
    let (_, created) = create_and_use(config, &disk);
    assert!(created);
    disk.ops()
}

fn config() -> Config {
    Config { page_size: 4096, ..Config::small() }
}

#[test]
fn a_power_cut_at_any_operation_leaves_no_store_or_one_that_opens() {
    let config = config();
    let count = mutations(&config);
    assert!(count > 20, "only {count} operations: this test sees nothing");
    for n in 1..=count {
        for (index, mode) in MODES.iter().enumerate() {
            for seed in 0..if *mode == CutMode::Random { 6 } else { 2 } {
                let disk = SimDisk::new(n * 1000 + index as u64 * 100 + seed);
                disk.set_cut_after(n, *mode);
                let (mut oracle, created) = create_and_use(&config, &disk);
                disk.cancel_cut();
                let disk = disk.reopen();
                judge(
                    &config,
                    &disk,
                    &mut oracle,
                    created,
                    &format!("cut at {n} of {count}, {mode:?}, seed {seed}"),
                );
            }
        }
    }
}

#[test]
fn a_second_cut_while_creating_again_or_first_opening_is_survived_too() {
    let config = config();
    let count = mutations(&config);
    for n in 1..=count {
        for m in (1..=24).step_by(2) {
            let m = m + n % 2;
            let disk = SimDisk::new(n * 1000 + m);
            disk.set_cut_after(n, CutMode::Random);
            let (mut oracle, created) = create_and_use(&config, &disk);
            disk.cancel_cut();
            let disk = disk.reopen();
            disk.set_cut_after(m, CutMode::Random);
            let opened = config.builder(&disk).open_or_create(DIR);
            let created = created || opened.is_ok();
            drop(opened);
            disk.cancel_cut();
            let disk = disk.reopen();
            let context = format!("cut at {n} of {count}, then at {m} of opening");
            judge(&config, &disk, &mut oracle, created, &context);
        }
    }
}

/// A process that dies leaves its names and bytes in the kernel's caches. The next one, which finds them, must not take
/// them for durable.
#[test]
fn a_store_created_over_the_remains_of_a_killed_creation_survives_a_power_cut() {
    let config = config();
    let count = mutations(&config);
    for n in 1..=count {
        let first = SimDisk::new(n);
        // The process dies before its n-th change: its handles are dead from then on, the caches live.
        let traced = TraceDisk::new(first.clone());
        let (medium, seen) = (first.clone(), AtomicU64::new(0));
        traced.on_op(move |phase, _| {
            if phase == Phase::Before && seen.fetch_add(1, Ordering::Relaxed) + 1 == n {
                drop(medium.reopen());
            }
        });
        let created = config.builder(&first).disk(traced).create(DIR).is_ok();
        let disk = first.reopen();
        if created {
            continue;
        }
        // What a user does who finds a store, and one who finds none.
        let opened = match config.builder(&disk).open(DIR) {
            Err(Error::NotFound { .. }) => config.builder(&disk).create(DIR),
            other => other,
        };
        let db = opened.unwrap_or_else(|error| {
            panic!("killed at {n} of {count}: opening or creating: {error} ({error:?})")
        });
        db.table("t").unwrap().put(b"k", b"v").unwrap();
        disk.power_cut(CutMode::Drop);
        let disk = disk.reopen();
        drop(db);
        let db = config
            .builder(&disk)
            .open(DIR)
            .unwrap_or_else(|error| panic!("killed at {n} of {count}, created again, power cut: {error}"));
        assert_eq!(
            db.table("t").unwrap().get(b"k").unwrap().as_deref(),
            Some(&b"v"[..]),
            "killed at {n} of {count}"
        );
    }
}

#[test]
fn create_refuses_what_exists_and_open_what_does_not() {
    let config = config();
    let disk = SimDisk::new(1);
    assert!(matches!(config.builder(&disk).open(DIR), Err(Error::NotFound { path }) if path.ends_with("db")));
    assert_eq!(disk.files().len(), 0, "looking for a store left something behind");
    config.builder(&disk).create(DIR).unwrap().close().unwrap();
    assert!(matches!(config.builder(&disk).create(DIR), Err(Error::AlreadyExists { .. })));
    config.builder(&disk).open_or_create(DIR).unwrap().close().unwrap();
}
