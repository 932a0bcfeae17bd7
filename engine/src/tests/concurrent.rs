//! Many threads at once: each writes keys of its own, everybody's keys are read, checkpoints are made all the
//! time.

use super::*;
use crate::{Durability, Error, WriteBatch};
use bedstone_io::sim::CutMode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn threaded(disk: &Arc<SimDisk>) -> Builder {
    small(disk).background(Background::Threads).pool_bytes(2 << 20).checkpoint_log_bytes(128 << 10)
}

/// What a value says: whose it is, for which key, and which write it was.
fn stamp(thread: u64, key: u64, n: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(24 + len);
    for part in [thread, key, n] {
        bytes.extend_from_slice(&part.to_le_bytes());
    }
    bytes.resize(24 + len, (thread + key + n) as u8);
    bytes
}

fn read_stamp(bytes: &[u8]) -> (u64, u64, u64) {
    let part = |i: usize| u64::from_le_bytes(bytes[i * 8..i * 8 + 8].try_into().unwrap());
    let (thread, key, n) = (part(0), part(1), part(2));
    assert!(bytes[24..].iter().all(|&b| b == (thread + key + n) as u8), "a torn value");
    (thread, key, n)
}

fn name(thread: u64, key: u64) -> Vec<u8> {
    format!("{key:04}-{thread}").into_bytes()
}

const THREADS: u64 = 3;
const KEYS: u64 = 60;

/// What each thread's last acknowledged and last attempted writes to each of its keys were (0: none).
struct Seen {
    acknowledged: Vec<AtomicU64>,
    attempted: Vec<AtomicU64>,
}

impl Seen {
    fn new() -> Self {
        let zeros = || (0..THREADS * KEYS).map(|_| AtomicU64::new(0)).collect();
        Self { acknowledged: zeros(), attempted: zeros() }
    }

    fn at(thread: u64, key: u64) -> usize {
        (thread * KEYS + key) as usize
    }
}

/// Writes until told to stop, or until an error comes.
fn write_along(db: &Database, thread: u64, seen: &Seen, stop: &AtomicBool) -> Result<(), Error> {
    let table = db.table("t")?;
    let mut rng = thread * 7919 + 1;
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        rng = rng.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let key = (rng >> 33) % KEYS;
        n += 1;
        let len = if (rng >> 50).is_multiple_of(97) { 30_000 } else { (rng >> 40) as usize % 300 };
        let keys: Vec<u64> = match (rng >> 20) % 4 {
            0 => (0..20).map(|i| (key + i) % KEYS).collect(),
            _ => vec![key],
        };
        for &key in &keys {
            seen.attempted[Seen::at(thread, key)].store(n, Ordering::SeqCst);
        }
        if keys.len() == 1 {
            table.put_with(name(thread, key), stamp(thread, key, n, len), Durability::Sync)?;
        } else {
            let mut batch = WriteBatch::new();
            for &key in &keys {
                batch.put(&table, name(thread, key), stamp(thread, key, n, len.min(500)))?;
            }
            db.write(batch)?;
        }
        for &key in &keys {
            seen.acknowledged[Seen::at(thread, key)].store(n, Ordering::SeqCst);
        }
    }
    Ok(())
}

fn verify(db: &Database, seen: &Seen, what: &str) {
    let table = db.table("t").unwrap();
    for thread in 0..THREADS {
        for key in 0..KEYS {
            let at = Seen::at(thread, key);
            let (acknowledged, attempted) =
                (seen.acknowledged[at].load(Ordering::SeqCst), seen.attempted[at].load(Ordering::SeqCst));
            let found = table.get(name(thread, key)).unwrap().map_or(0, |value| {
                let (t, k, n) = read_stamp(&value);
                assert_eq!((t, k), (thread, key), "{what}: another key's value");
                n
            });
            assert!(
                (acknowledged..=attempted).contains(&found),
                "{what}: key {key} of thread {thread}: write {found} found, {acknowledged} acknowledged, {attempted} tried"
            );
        }
    }
    let report = db.check().unwrap();
    assert!(report.is_clean(), "{what}: {:#?}", report.problems);
}

/// Reads everything again and again: whole values, ascending keys.
fn read_along(db: &Database, stop: &AtomicBool) -> Result<(), Error> {
    let table = db.table("t")?;
    while !stop.load(Ordering::Relaxed) {
        let mut last: Option<Vec<u8>> = None;
        for entry in table.iter()? {
            let entry = entry?;
            read_stamp(entry.value());
            assert!(last.as_deref() < Some(entry.key()), "keys ascend");
            last = Some(entry.key().to_vec());
        }
        let keys: Vec<Vec<u8>> = (0..KEYS).map(|k| name(k % THREADS, k)).collect();
        for value in table.multi_get(&keys)?.into_iter().flatten() {
            read_stamp(&value);
        }
    }
    Ok(())
}

fn run(db: &Database, seen: &Seen, enough: impl Fn() -> bool) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let stop = &stop;
                scope.spawn(move || write_along(db, thread, seen, stop))
            })
            .collect();
        scope.spawn(|| drop(read_along(db, &stop)));
        while !enough() && writers.iter().any(|w| !w.is_finished()) {
            let _ = db.checkpoint();
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn checkpoints_beside_writers_and_readers() {
    let disk = SimDisk::new(11);
    let db = threaded(&disk).create(DIR).unwrap();
    let seen = Seen::new();
    run(&db, &seen, || db.stats().puts > 2500 && db.stats().pool.checkpoints > 20);
    assert!(db.stats().read_only_because.is_none(), "{}", db.stats());
    verify(&db, &seen, "while open");
    db.close().unwrap();
    let db = threaded(&disk).open(DIR).unwrap();
    verify(&db, &seen, "after closing");
}

#[test]
fn power_cuts_beside_writers_and_checkpoints() {
    for round in 0..12u64 {
        let mode = [CutMode::Random, CutMode::Drop, CutMode::Keep][round as usize % 3];
        let disk = SimDisk::new(1000 + round);
        let db = threaded(&disk).create(DIR).unwrap();
        drop(db.table("t").unwrap());
        let seen = Seen::new();
        disk.set_cut_after(300 + round * 170, mode);
        run(&db, &seen, || false);
        assert!(!disk.is_powered());
        drop(db);
        let disk = disk.reopen();
        let db = threaded(&disk).open(DIR).unwrap();
        verify(&db, &seen, &format!("round {round}, {mode:?}"));
        db.close().unwrap();
        let db = threaded(&disk).open(DIR).unwrap();
        verify(&db, &seen, &format!("round {round}, {mode:?}, opened again"));
    }
}

#[test]
fn tables_come_and_go_beside_writers() {
    let disk = SimDisk::new(21);
    let db = threaded(&disk).create(DIR).unwrap();
    let stop = AtomicBool::new(false);
    let drops = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..2u64 {
            let (db, stop) = (&db, &stop);
            scope.spawn(move || {
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    let table = db.table("comes and goes").unwrap();
                    for i in 0..50 {
                        n += 1;
                        let len = if i == 25 { 20_000 } else { 200 };
                        match table.put_with(
                            name(thread, n % KEYS),
                            stamp(thread, n % KEYS, n, len),
                            Durability::Relaxed,
                        ) {
                            Ok(_) | Err(Error::TableDropped { .. }) => {}
                            Err(e) => panic!("{e}"),
                        }
                        match table.iter().and_then(|mut all| all.try_for_each(|e| e.map(drop))) {
                            Ok(()) | Err(Error::TableDropped { .. }) => {}
                            Err(e) => panic!("{e}"),
                        }
                    }
                }
            });
        }
        while drops.load(Ordering::Relaxed) < 40 {
            if db.drop_table("comes and goes").unwrap() {
                drops.fetch_add(1, Ordering::Relaxed);
            }
            db.checkpoint().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    db.drop_table("comes and goes").unwrap();
    db.checkpoint().unwrap();
    assert_clean(&db);
    db.close().unwrap();
    let db = threaded(&disk).open(DIR).unwrap();
    assert_clean(&db);
    db.checkpoint().unwrap();
    assert_clean(&db);
}
