//! Power cuts at every operation: what was acknowledged is there, what was not is there wholly or not at all.

use super::*;
use crate::{Error, WriteBatch};
use bedstone_io::Disk;
use bedstone_io::sim::{CutMode, Phase, TraceDisk};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

const MODES: [CutMode; 3] = [CutMode::Random, CutMode::Drop, CutMode::Keep];

type Contents = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

fn contents(db: &Database) -> Contents {
    let tables = db.tables().unwrap();
    tables
        .iter()
        .map(|info| {
            let table = db.open_table(&info.name).unwrap().unwrap();
            let entries = table
                .iter()
                .unwrap()
                .map(|e| e.unwrap())
                .map(|e| (e.key().to_vec(), e.value().to_vec()))
                .collect();
            (info.name.clone(), entries)
        })
        .collect()
}

/// One step of a script, done to the database and to the model.
#[derive(Debug, Clone)]
enum Step {
    Put(&'static str, u64, usize),
    Delete(&'static str, u64),
    /// Puts of consecutive keys, and deletes of some before them.
    Batch(&'static str, &'static str, std::ops::Range<u64>, usize),
    Stream(&'static str, u64, usize),
    Drop(&'static str),
    Rename(&'static str, &'static str),
    Checkpoint,
    Reopen,
}

fn apply_to_model(model: &mut Contents, step: &Step, n: u64) {
    match step.clone() {
        Step::Put(t, k, len) | Step::Stream(t, k, len) => {
            model.entry(t.into()).or_default().insert(key(k), value(n, len));
        }
        Step::Delete(t, k) => {
            model.entry(t.into()).or_default().remove(&key(k));
        }
        Step::Batch(a, b, keys, len) => {
            for t in [a, b] {
                model.entry(t.into()).or_default();
            }
            for k in keys {
                model.get_mut(a).unwrap().insert(key(k), value(n, len));
                model.get_mut(b).unwrap().remove(&key(k + 3));
                model.get_mut(b).unwrap().insert(key(k), value(n + 1, len));
            }
        }
        Step::Drop(t) => {
            model.remove(t);
        }
        Step::Rename(a, b) => {
            if !model.contains_key(b)
                && let Some(t) = model.remove(a)
            {
                model.insert(b.into(), t);
            }
        }
        Step::Checkpoint | Step::Reopen => {}
    }
}

/// Does a step. The tables it needs are made before it in commits of their own, so an error may come after
/// that.
fn apply(db: &Database, step: &Step, n: u64) -> Result<(), Error> {
    match step.clone() {
        Step::Put(t, k, len) => db.table(t)?.put(key(k), value(n, len)),
        Step::Stream(t, k, len) => db.table(t)?.put_reader(key(k), len as u64, &value(n, len)[..]),
        Step::Delete(t, k) => db.table(t)?.delete(key(k)).map(drop),
        Step::Batch(a, b, keys, len) => {
            let (a, b) = (db.table(a)?, db.table(b)?);
            let mut batch = WriteBatch::new();
            for k in keys {
                batch.put(&a, key(k), value(n, len))?;
                batch.delete(&b, key(k + 3))?;
                batch.put(&b, key(k), value(n + 1, len))?;
            }
            db.write(batch)
        }
        Step::Drop(t) => db.drop_table(t).map(drop),
        Step::Rename(a, b) => match db.rename_table(a, b) {
            Err(Error::TableNotFound { .. } | Error::TableExists { .. }) => Ok(()),
            other => other,
        },
        Step::Checkpoint => db.checkpoint().map(drop),
        Step::Reopen => Ok(()),
    }
}

/// Tables that were made but never written to are there or not: making one is a commit of its own.
fn without_empty(mut contents: Contents) -> Contents {
    contents.retain(|_, t| !t.is_empty());
    contents
}

fn script() -> Vec<Step> {
    use Step::*;
    let mut steps =
        vec![Put("a", 1, 20), Put("a", 2, 300), Delete("a", 1), Batch("a", "b", 0..20, 50), Checkpoint];
    steps.extend((0..10).map(|i| Put("b", i * 3, 40 + 10 * i as usize)));
    steps.extend([
        Batch("b", "a", 10..150, 60),
        Put("c", 5, 3000),
        Stream("c", 6, 20_000),
        Rename("c", "d"),
        Put("d", 5, 9000),
        Checkpoint,
        Drop("a"),
        Put("a", 9, 10),
        Reopen,
        Delete("d", 5),
        Batch("a", "d", 0..30, 400),
        Drop("d"),
        Checkpoint,
        Put("d", 1, 30),
        Drop("b"),
        Checkpoint,
        Put("e", 1, 5000),
    ]);
    steps
}

fn options(disk: &Arc<SimDisk>) -> Builder {
    small(disk).log_segment_bytes(64 << 10).log_buffer_bytes(32 << 10)
}

/// What the database may hold after a cut.
struct Outcome {
    acknowledged: Contents,
    /// The same with the step that was under way.
    attempted: Contents,
    finished: bool,
}

fn run(disk: &Arc<SimDisk>, steps: &[Step]) -> Outcome {
    run_through(&(disk.clone() as Arc<dyn Disk>), disk, steps)
}

/// Runs the steps on `disk`, seen through `outer`.
fn run_through(outer: &Arc<dyn Disk>, disk: &Arc<SimDisk>, steps: &[Step]) -> Outcome {
    let options = |disk: &Arc<SimDisk>| options(disk).disk(outer.clone());
    let mut model = Contents::new();
    let stopped =
        |model: Contents, attempted: Contents| Outcome { acknowledged: model, attempted, finished: false };
    let Ok(mut db) = options(disk).open_or_create(DIR) else { return stopped(model.clone(), model) };
    for (n, step) in steps.iter().enumerate() {
        let n = n as u64 * 1000;
        let mut after = model.clone();
        apply_to_model(&mut after, step, n);
        if matches!(step, Step::Reopen) {
            if db.close().is_err() {
                return stopped(model.clone(), model);
            }
            match options(disk).open(DIR) {
                Ok(opened) => db = opened,
                Err(_) => return stopped(model.clone(), model),
            }
        }
        if apply(&db, step, n).is_err() {
            return stopped(model, after);
        }
        model = after;
    }
    if db.close().is_err() {
        return stopped(model.clone(), model);
    }
    Outcome { acknowledged: model.clone(), attempted: model, finished: true }
}

/// Looks at what a cut left; then at what a second cut during recovery leaves.
fn examine(disk: &Arc<SimDisk>, outcome: &Outcome, what: &str) {
    let db = match options(disk).open(DIR) {
        Ok(db) => db,
        Err(Error::NotFound { .. }) if outcome.acknowledged.is_empty() => return,
        Err(e) => panic!("{what}: {e}"),
    };
    let found = without_empty(contents(&db));
    let allowed = [&outcome.acknowledged, &outcome.attempted].map(|c| without_empty(c.clone()));
    if !allowed.contains(&found) {
        let shape = |c: &Contents| c.iter().map(|(t, e)| (t.clone(), e.len())).collect::<Vec<_>>();
        panic!(
            "{what}: found {:?}, acknowledged {:?}, attempted {:?}",
            shape(&found),
            shape(&allowed[0]),
            shape(&allowed[1])
        );
    }
    let report = db.check().unwrap();
    assert!(report.is_clean(), "{what}: {:#?}", report.problems);
    // It goes on from here.
    let table = db.table("after").unwrap();
    table.put(b"k", b"v").unwrap();
    db.close().unwrap();
    let db = options(disk).open(DIR).unwrap();
    assert_eq!(db.table("after").unwrap().get(b"k").unwrap().unwrap(), b"v", "{what}");
    assert_clean(&db);
}

#[test]
fn a_cut_anywhere_leaves_what_was_acknowledged() {
    let steps = script();
    for (m, mode) in MODES.into_iter().enumerate() {
        let mut cut = 1;
        // Every operation at first, when the store is made, then a stride that differs by mode.
        let stride = [2, 5, 7][m];
        loop {
            let seed = cut * 31 + m as u64;
            let what = format!("{mode:?}, cut at operation {cut}, seed {seed}");
            let disk = SimDisk::new(seed);
            disk.set_cut_after(cut, mode);
            let outcome = run(&disk, &steps);
            if outcome.finished && disk.is_powered() {
                break;
            }
            let disk = disk.reopen();
            examine(&disk, &outcome, &what);
            cut += if cut < 40 { 1 } else { stride };
        }
        assert!(cut > 100, "the script has too few operations: {cut}");
    }
}

/// The process dies before any one of its operations, of checkpoints, recoveries and closing too: both caches of the
/// system live on, and the next one finds what no sync has covered.
#[test]
fn the_process_dies_at_any_operation() {
    let steps = script();
    let mut n = 1;
    loop {
        let disk = SimDisk::new(n);
        let trace = TraceDisk::new(disk.clone());
        let (medium, seen) = (disk.clone(), AtomicU64::new(0));
        trace.on_op(move |phase, _| {
            if phase == Phase::Before && seen.fetch_add(1, Ordering::Relaxed) + 1 == n {
                // All handles of the old life are dead from here on.
                drop(medium.reopen());
            }
        });
        let outcome = run_through(&(trace.clone() as Arc<dyn Disk>), &disk, &steps);
        if outcome.finished {
            break;
        }
        let disk = disk.reopen();
        // What the next process finds, and what a power cut leaves of what it found.
        let cut = disk.fork_cut(CutMode::Random, n);
        examine(&disk, &outcome, &format!("killed before operation {n}"));
        examine(&cut, &outcome, &format!("killed before operation {n}, then a power cut"));
        n += if n < 40 { 1 } else { 3 };
    }
    assert!(n > 150, "the script has too few operations: {n}");
}

#[test]
fn a_cut_while_recovering_changes_nothing() {
    let steps = script();
    let whole = SimDisk::new(99);
    assert!(run(&whole, &steps).finished);
    for part in [40, 75, 90] {
        let disk = SimDisk::new(99 + part);
        disk.set_cut_after(whole.ops() * part / 100, CutMode::Random);
        let outcome = run(&disk, &steps);
        assert!(!disk.is_powered() && !outcome.finished, "the cut is meant to be in the middle");
        cut_recovery(&disk.reopen(), &outcome);
    }
}

fn cut_recovery(base: &Arc<SimDisk>, outcome: &Outcome) {
    for (m, mode) in MODES.into_iter().enumerate() {
        let mut cut = 1;
        loop {
            let seed = cut * 17 + m as u64;
            let what = format!("recovery: {mode:?}, cut at operation {cut}, seed {seed}");
            let disk = base.fork(seed);
            disk.set_cut_after(cut, mode);
            let opened = options(&disk).open(DIR);
            let survived = match opened {
                Ok(db) => db.checkpoint().is_ok() && db.close().is_ok(),
                Err(_) => false,
            };
            if survived && disk.is_powered() {
                break;
            }
            examine(&disk.reopen(), outcome, &what);
            cut += 1;
        }
        assert!(cut > 5, "recovery has too few operations: {cut}");
    }
}

#[test]
fn a_cut_while_creating_leaves_none_or_one_that_opens() {
    for (m, mode) in MODES.into_iter().enumerate() {
        for cut in 1.. {
            let seed = cut * 13 + m as u64;
            let disk = SimDisk::new(seed);
            disk.set_cut_after(cut, mode);
            let created = options(&disk).create("/some/where/db").map(std::mem::forget).is_ok();
            if created && disk.is_powered() {
                assert!(cut > 10);
                break;
            }
            let disk = disk.reopen();
            match options(&disk).open("/some/where/db") {
                Ok(db) => {
                    assert!(db.tables().unwrap().is_empty());
                    assert_clean(&db);
                    db.close().unwrap();
                }
                Err(Error::NotFound { .. }) => assert!(!created, "{mode:?} at {cut}: it was there"),
                Err(e) => panic!("{mode:?}, cut at {cut}, seed {seed}: {e}"),
            }
            let db = options(&disk).open_or_create("/some/where/db").unwrap();
            db.table("t").unwrap().put(b"k", b"v").unwrap();
            db.close().unwrap();
            // A leftover name that turns up again after a further cut must not matter either.
            let disk = disk.fork_cut(mode, seed);
            let db = options(&disk).open("/some/where/db").unwrap();
            assert_eq!(db.table("t").unwrap().get(b"k").unwrap().unwrap(), b"v");
        }
    }
}

fn random_script(seed: u64) -> Vec<Step> {
    const NAMES: [&str; 4] = ["a", "b", "c", "d"];
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = move |n: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % n
    };
    (0..60 + below(60))
        .map(|_| {
            let (t, u) = (NAMES[below(4) as usize], NAMES[below(4) as usize]);
            let k = below(200);
            match below(40) {
                0..=13 => Step::Put(t, k, below(900) as usize),
                14..=15 => Step::Put(t, k, 1000 + below(9000) as usize),
                16..=22 => Step::Delete(t, k),
                23..=28 => Step::Batch(t, u, k..k + 1 + below(150), below(200) as usize),
                29 => Step::Batch(t, u, k..k + 4, 4000),
                30..=31 => Step::Stream(t, k, 2000 + below(60_000) as usize),
                32..=33 => Step::Drop(t),
                34..=35 => Step::Rename(t, u),
                36..=38 => Step::Checkpoint,
                _ => Step::Reopen,
            }
        })
        .collect()
}

#[test]
fn random_scripts_with_random_cuts() {
    for seed in 0..80 {
        let steps = random_script(seed);
        let whole = SimDisk::new(seed);
        let outcome = run(&whole, &steps);
        assert!(outcome.finished, "seed {seed}");
        let ops = whole.ops();
        examine(&whole, &outcome, &format!("random script, seed {seed}, no cut"));
        for part in 1..4 {
            let disk = SimDisk::new(seed * 8 + part);
            let mode = MODES[(seed + part) as usize % 3];
            let cut = (ops * (part * 25 + seed % 25) / 100).max(1);
            disk.set_cut_after(cut, mode);
            let outcome = run(&disk, &steps);
            disk.cancel_cut();
            examine(&disk.reopen(), &outcome, &format!("random script, seed {seed}, {mode:?}, cut at {cut}"));
        }
    }
}
