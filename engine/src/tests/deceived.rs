//! A medium that lies, files of another database, and commits for which nothing was promised yet.

use super::*;
use crate::{Durability, Error};
use bedstone_io::sim::{CutMode, Fault, OpKind, Repeat};
use std::collections::BTreeMap;

type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// The whole table, or the first error.
fn state(db: &Database) -> Result<State, Error> {
    let Some(table) = db.open_table("t")? else { return Ok(State::new()) };
    table.iter()?.map(|entry| entry.map(|entry| (entry.key().to_vec(), entry.value().to_vec()))).collect()
}

fn options(disk: &Arc<SimDisk>) -> Builder {
    small(disk).log_segment_bytes(64 << 10).log_buffer_bytes(32 << 10).checkpoint_log_bytes(64 << 10)
}

/// From some moment on the disk acknowledges syncs and does nothing; then the power goes. What was promised cannot
/// be kept. But what is served is a state that the database once had, or an error that speaks of damage: the check
/// never calls clean what is neither.
#[test]
fn a_disk_that_ignores_syncs_is_found_out_or_shows_a_state_that_was() {
    const COMMITS: u64 = 700;
    let (mut found_out, mut older, mut newest) = (0, 0, 0);
    for seed in 0..150_u64 {
        let disk = SimDisk::new(seed);
        let db = options(&disk).create(DIR).unwrap();
        let table = db.table("t").unwrap();
        let mut states = vec![State::new()];
        for i in 0..COMMITS {
            if i == seed * 4 {
                // The files alone, or their names too.
                disk.fail_nth(OpKind::Sync, 1, Fault::LyingSync, Repeat::Forever);
                if seed % 2 == 0 {
                    disk.fail_nth(OpKind::SyncDir, 1, Fault::LyingSync, Repeat::Forever);
                }
            }
            let mut next = states.last().unwrap().clone();
            table.put(key(i * 7 % 150), value(i, 250)).unwrap();
            next.insert(key(i * 7 % 150), value(i, 250));
            states.push(next);
        }
        let mode = if seed % 3 == 0 { CutMode::Drop } else { CutMode::Random };
        let disk = disk.fork_cut(mode, seed);
        std::mem::forget((table, db));
        let outcome = options(&disk).open(DIR).and_then(|db| {
            let found = state(&db)?;
            Ok((found, db.check()?.is_clean()))
        });
        match outcome {
            Ok((found, clean)) if states.contains(&found) => {
                assert!(clean, "seed {seed}: all was read, and the check finds fault");
                if Some(&found) == states.last() { newest += 1 } else { older += 1 }
            }
            Ok((found, clean)) => {
                panic!("seed {seed}: {} entries of no state there was, clean: {clean}", found.len())
            }
            Err(error) => {
                let told = error.is_corruption() || matches!(error, Error::NotADatabase { .. });
                assert!(told, "seed {seed}: {error} ({error:?})");
                found_out += 1;
            }
        }
    }
    println!("{found_out} found out, {older} in an older state, {newest} whole");
    assert!(found_out > 20 && older > 5, "{found_out} found out, {older} in an older state, {newest} whole");
}

/// Blocks of another database that did just the same, at the very places: never served as this one's.
#[test]
fn blocks_of_another_database_are_noticed() {
    let store = |seed: u64| {
        let disk = SimDisk::new(seed);
        disk.advance(std::time::Duration::from_secs(seed));
        let db = options(&disk).create(DIR).unwrap();
        let table = db.table("t").unwrap();
        for i in 0..600 {
            table.put_with(key(i), value(i + seed * 1000, 200), Durability::Relaxed).unwrap();
        }
        db.close().unwrap();
        disk.reopen()
    };
    let (mine, other) = (store(1), store(2));
    let right = state(&options(&mine).open(DIR).unwrap()).unwrap();
    let path = dir().join("data");
    let (own, foreign) = (mine.copy_out(&path).unwrap(), other.copy_out(&path).unwrap());
    let (mut harmless, mut noticed) = (0, 0);
    let units = own.len().min(foreign.len()) / 4096;
    for unit in 0..units {
        let at = unit * 4096;
        let block = &foreign[at..at + 4096];
        if own[at..at + 4096] == *block {
            continue;
        }
        let disk = mine.fork(unit as u64);
        disk.overwrite(&path, at as u64, block).unwrap();
        let outcome = options(&disk).open(DIR).and_then(|db| state(&db));
        match outcome {
            Ok(found) => {
                assert!(found == right, "unit {unit}: wrong data");
                harmless += 1;
            }
            Err(error) => {
                assert!(error.is_corruption() || matches!(error, Error::NotADatabase { .. }), "{error}");
                noticed += 1;
            }
        }
    }
    assert!(noticed > 30, "{noticed} noticed, {harmless} harmless of {units}");
    // The whole data file, or the whole log, of the other one.
    let disk = mine.fork(1);
    disk.copy_in(&path, &foreign).unwrap();
    let error = options(&disk.reopen()).open(DIR).unwrap_err();
    assert!(matches!(error, Error::NotADatabase { .. }) || error.is_corruption(), "{error}");
}

/// Commits that nothing has made durable yet outlive a check, and a durable commit behind them takes them along.
#[test]
fn a_check_loses_no_commit_that_is_not_durable_yet() {
    for seed in 0..6 {
        let disk = SimDisk::new(seed);
        let db = options(&disk).create(DIR).unwrap();
        let table = db.table("t").unwrap();
        let mut expected = State::new();
        for i in 0..120 {
            let durability = [Durability::Relaxed, Durability::Buffered, Durability::Relaxed][i as usize % 3];
            table.put_with(key(i % 90), value(i, 150), durability).unwrap();
            expected.insert(key(i % 90), value(i, 150));
            if i % 40 == 20 {
                assert_clean(&db);
                assert_eq!(state(&db).unwrap(), expected, "after a check");
            }
            if i == 30 + seed * 10 {
                db.checkpoint().unwrap();
                assert_clean(&db);
            }
        }
        table.put(b"durable", b"1").unwrap();
        expected.insert(b"durable".to_vec(), b"1".to_vec());
        assert_clean(&db);
        let mut disk = disk.fork_cut(CutMode::Drop, seed);
        for round in 0..3 {
            let db = options(&disk).open(DIR).unwrap();
            assert_eq!(state(&db).unwrap(), expected, "seed {seed}, opening {round}");
            assert_clean(&db);
            disk = disk.fork_cut(CutMode::Drop, seed + round);
        }
    }
}

/// Dropping the last handle closes as well as may be: what was only relaxed is durable then, if the medium lets it.
/// It is no promise: where the medium refuses, nobody hears of it, and only what was acknowledged as durable is
/// there.
#[test]
fn dropping_the_last_handle_is_closing_without_an_answer() {
    for refuses in [None, Some(OpKind::Sync), Some(OpKind::Write), Some(OpKind::Mutation)] {
        let disk = SimDisk::new(71);
        let db = options(&disk).create(DIR).unwrap();
        let table = db.table("t").unwrap();
        for i in 0..60 {
            let durability = if i == 20 { Durability::Sync } else { Durability::Relaxed };
            table.put_with(key(i), value(i, 100), durability).unwrap();
        }
        if let Some(kind) = refuses {
            disk.fail_nth(kind, 1, Fault::Eio, Repeat::Forever);
        }
        let second = db.clone();
        drop(db);
        assert!(second.open_table("t").is_ok(), "not the last handle");
        drop((second, table));
        disk.clear_faults();
        let db = options(&disk.fork_cut(CutMode::Drop, 3)).open(DIR).unwrap();
        let found = state(&db).unwrap().len() as u64;
        let least = if refuses.is_none() { 60 } else { 21 };
        assert!((least..=60).contains(&found), "{refuses:?}: {found}");
        assert_eq!(state(&db).unwrap(), (0..found).map(|i| (key(i), value(i, 100))).collect());
        assert_clean(&db);
        // Nothing of the dropped one is left, its lock included.
        options(&disk).open(DIR).unwrap();
    }
}
