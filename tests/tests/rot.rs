//! Rot: every file of a small store is damaged in every way there is, one damage at a time. Each is answered by an error
//! that names the place, or is provably harmless; wrong data is never served, nothing is lost in silence, nothing
//! panics. Every bit of headers is turned, other bytes are sampled; `BEDSTONE_LONG=1` samples far more of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bedstone::{Database, Durability, Error};
use bedstone_crashtest::model::{Model, show};
use bedstone_crashtest::rng::Rng;
use bedstone_crashtest::setup::{Config, DIR, smallest_pool};
use bedstone_crashtest::{seeds, view};
use bedstone_io::sim::{SimDisk, Snapshot};

const UNIT: u64 = 4096;

/// A store with tables of several levels, long values and a log behind the last checkpoint, killed without closing.
struct Victim {
    config: Config,
    now: Snapshot,
    /// The medium some checkpoints earlier.
    earlier: Snapshot,
    /// What the store holds, and what it held before its last commit.
    holds: [Model; 2],
}

fn victim() -> Victim {
    let config = Config { pool_bytes: smallest_pool(4096), ..Config::small() };
    let disk = SimDisk::new(11);
    let db = config.builder(&disk).create(DIR).unwrap();
    let mut rng = Rng::new(11);
    let tables = [db.table("one").unwrap(), db.table("two").unwrap()];
    let put = |rng: &mut Rng, i: u64, len: usize| {
        let key = format!("a common part/{:04}", i % 250);
        let durability = if i.is_multiple_of(50) { Durability::Sync } else { Durability::Relaxed };
        tables[(i % 2) as usize].put_with(key, rng.bytes(len), durability).unwrap();
    };
    let mut earlier = disk.snapshot();
    for round in 0..5 {
        for i in 0..250 {
            put(&mut rng, i + round * 7, if i % 60 == 0 { 9000 } else { 100 + i as usize });
        }
        db.checkpoint().unwrap();
        if round == 1 {
            earlier = disk.snapshot();
        }
    }
    let before = (0..400).map(|i| {
        let before = if i == 399 { view::dump(&db).unwrap() } else { Model::default() };
        tables[1].put(format!("logged {i:03}"), rng.bytes(40 + i)).unwrap();
        before
    });
    let before = before.last().unwrap();
    let after = view::dump(&db).unwrap();
    let disk = disk.reopen();
    drop((tables, db));
    Victim { config, now: disk.snapshot(), earlier, holds: [after, before] }
}

/// What came of a damage.
#[derive(Debug, PartialEq, Eq, Clone, Copy, PartialOrd, Ord)]
enum Outcome {
    Refused,
    ReadError,
    FoundByCheck,
    Harmless,
}

/// The error tells of damage, and of the file that is damaged.
fn names_the_place(error: &Error, file: &Path) -> Result<(), String> {
    let kind = error.is_corruption()
        || matches!(
            error,
            Error::NotADatabase { .. }
                | Error::UnsupportedVersion { .. }
                | Error::NotFound { .. }
                | Error::Io(_)
        );
    let text = error.to_string();
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let directory = file.parent().unwrap_or(file).to_string_lossy();
    if !kind {
        return Err(format!("an error of the wrong kind: {error} ({error:?})"));
    }
    if !text.contains(&*name) && !text.contains(&*directory) {
        return Err(format!("the error does not name {}: {text}", file.display()));
    }
    Ok(())
}

impl Victim {
    /// Damages a copy of the medium, opens it, reads everything in every way, and judges.
    fn suffer(&self, file: &Path, damage: impl FnOnce(&SimDisk)) -> Result<Outcome, String> {
        let disk = SimDisk::new(1);
        disk.restore(&self.now);
        let disk = disk.reopen();
        damage(&disk);
        let db = match self.config.builder(&disk).open(DIR) {
            Ok(db) => db,
            Err(error) => return names_the_place(&error, file).map(|()| Outcome::Refused),
        };
        // At most the last commit, behind which nothing tells a torn tail from damage, may be missing.
        let mut verdicts = self.holds.iter().map(|holds| read_all(&db, holds, file));
        let verdict = match verdicts.next() {
            Some(Err(first)) => verdicts.next().and_then(Result::ok).ok_or(first)?,
            Some(Ok(outcome)) => outcome,
            None => return Err("nothing to compare with".into()),
        };
        match db.check() {
            Ok(report) if report.is_clean() && verdict == Outcome::ReadError => {
                Err("reads failed and the check finds nothing".into())
            }
            Ok(report) if report.is_clean() => Ok(verdict),
            Ok(_) if verdict == Outcome::Harmless => Ok(Outcome::FoundByCheck),
            Ok(_) => Ok(verdict),
            Err(error) => names_the_place(&error, file).map(|()| verdict),
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        let files = self.now.files();
        files.into_iter().filter(|path| !path.ends_with("LOCK")).collect()
    }

    fn data(&self) -> PathBuf {
        Path::new(DIR).join("data")
    }

    fn logs(&self) -> Vec<PathBuf> {
        self.files().into_iter().filter(|path| path.extension().is_some_and(|ext| ext == "log")).collect()
    }

    fn len(&self, file: &Path) -> u64 {
        self.now.copy_out(file).unwrap().len() as u64
    }
}

/// Everything read is right, or the read fails with an error that names the place; nothing is left out in silence.
fn read_all(db: &Database, holds: &Model, file: &Path) -> Result<Outcome, String> {
    let mut outcome = Outcome::Harmless;
    let mut failed = |error: Error| {
        outcome = Outcome::ReadError;
        names_the_place(&error, file)
    };
    for (name, map) in &holds.tables {
        let table = match db.open_table(name) {
            Ok(Some(table)) => table,
            Ok(None) => return Err(format!("table {name} is gone without an error")),
            Err(error) => {
                failed(error)?;
                continue;
            }
        };
        for (key, value) in map {
            match table.get(key) {
                Ok(Some(got)) if got[..] == value[..] => {}
                Ok(got) => return Err(format!("get of {} gave {:?}", show(key), got.as_deref().map(show))),
                Err(error) => failed(error)?,
            }
        }
        for backward in [false, true] {
            let mut scan = match table.iter() {
                Ok(scan) => scan,
                Err(error) => {
                    failed(error)?;
                    continue;
                }
            };
            let mut expected: Vec<_> = map.iter().collect();
            if backward {
                expected.reverse();
            }
            let mut expected = expected.into_iter();
            loop {
                let entry = if backward { scan.next_back() } else { scan.next() };
                match (entry, expected.next()) {
                    (None, None) => break,
                    (Some(Ok(entry)), Some((key, value)))
                        if entry.key() == key && entry.value()[..] == value[..] => {}
                    (Some(Err(error)), _) => {
                        failed(error)?;
                        // It must not go on past the gap.
                        let next = if backward { scan.next_back() } else { scan.next() };
                        if !matches!(next, Some(Err(_))) {
                            return Err("an iterator went on after an error".into());
                        }
                        break;
                    }
                    (got, want) => {
                        let got = got.map(|entry| entry.map(|entry| show(entry.key())));
                        return Err(format!(
                            "a scan gave {got:?} instead of {:?}",
                            want.map(|want| show(want.0))
                        ));
                    }
                }
            }
        }
    }
    if let Ok(tables) = db.tables()
        && let Some(odd) = tables.iter().find(|table| !holds.tables.contains_key(&table.name))
    {
        return Err(format!("there is a table {odd:?}"));
    }
    Ok(outcome)
}

/// How much more to sample than usual.
fn more() -> u64 {
    if std::env::var_os("BEDSTONE_LONG").is_some() { 40 } else { 1 }
}

type Damage = (PathBuf, String, Box<dyn Fn(&SimDisk) + Send + Sync>);

/// Tries every damage, prints how many there were of each outcome, and fails with the first that was not survived.
fn try_all(victim: &Arc<Victim>, damages: Vec<Damage>) -> std::collections::BTreeMap<Outcome, usize> {
    let outcomes = std::sync::Mutex::new(std::collections::BTreeMap::new());
    let failures = seeds::run_seeds(0..damages.len() as u64, seeds::cores(), 5, |at| {
        let (file, what, damage) = &damages[at as usize];
        let outcome = victim.suffer(file, |disk| damage(disk)).map_err(|error| format!("{what}: {error}"))?;
        *outcomes.lock().unwrap().entry(outcome).or_insert(0) += 1;
        Ok(())
    });
    let outcomes = outcomes.into_inner().unwrap();
    println!("{} damages: {outcomes:?}", damages.len());
    assert!(failures.is_empty(), "{failures:#?}, of {} damages", damages.len());
    outcomes
}

fn flip(file: &Path, offset: u64, bit: u32) -> Damage {
    let path = file.to_path_buf();
    let what = format!("bit {bit} of byte {offset} of {}", file.display());
    (file.to_path_buf(), what, Box::new(move |disk| disk.flip_bit(&path, offset, bit).unwrap()))
}

fn write(file: &Path, offset: u64, bytes: Vec<u8>, what: &str) -> Damage {
    let path = file.to_path_buf();
    let what = format!("{what} at {offset} of {}, {} bytes", file.display(), bytes.len());
    (file.to_path_buf(), what, Box::new(move |disk| disk.overwrite(&path, offset, &bytes).unwrap()))
}

fn cut(file: &Path, len: u64) -> Damage {
    let path = file.to_path_buf();
    let what = format!("{} cut to {len} bytes", file.display());
    (file.to_path_buf(), what, Box::new(move |disk| disk.truncate_file(&path, len).unwrap()))
}

#[test]
fn without_damage_all_is_well() {
    let victim = victim();
    assert_eq!(victim.suffer(&victim.data(), |_| ()), Ok(Outcome::Harmless));
    assert!(victim.logs().len() >= 2, "the log should span segments: {:?}", victim.logs());
}

#[test]
fn bits_of_the_superblocks() {
    let victim = Arc::new(victim());
    let data = victim.data();
    let mut damages = Vec::new();
    for slot in [0, 64 * 1024] {
        for byte in (0..108).chain([1000, 4000, 4092, 4093, 4094, 4095]) {
            damages.extend((0..8).map(|bit| flip(&data, slot + byte, bit)));
        }
    }
    let outcomes = try_all(&victim, damages);
    assert_eq!(outcomes.get(&Outcome::Refused), None, "one damaged superblock of two is survived");
    // Both at once: no store can open, and none must be made up.
    for byte in [0, 8, 9, 12, 20, 33, 41, 45, 50, 58, 66, 73, 4093] {
        let outcome = victim.suffer(&data, |disk| {
            disk.flip_bit(&data, byte, 3).unwrap();
            disk.flip_bit(&data, 64 * 1024 + byte, 3).unwrap();
        });
        assert_eq!(outcome, Ok(Outcome::Refused), "byte {byte} of both superblocks");
    }
}

#[test]
fn bits_of_every_block_of_the_data_file() {
    let victim = Arc::new(victim());
    let data = victim.data();
    let mut rng = Rng::new(2);
    let units = victim.len(&data) / UNIT;
    let mut damages = Vec::new();
    for unit in 32..units {
        // Every byte of the first header bytes of some blocks, samples of every block.
        let every = unit % 16 == 3 || more() > 1;
        if every {
            for byte in 0..32 {
                damages.push(flip(&data, unit * UNIT + byte, rng.below(8) as u32));
            }
        }
        for _ in 0..3 * more() {
            damages.push(flip(&data, unit * UNIT + rng.below(UNIT), rng.below(8) as u32));
        }
    }
    let outcomes = try_all(&victim, damages);
    assert!(outcomes.contains_key(&Outcome::ReadError), "no damage was met: {outcomes:?}");
}

#[test]
fn blocks_zeroed_swapped_replaced_by_garbage_or_by_their_own_past() {
    let victim = Arc::new(victim());
    let data = victim.data();
    let mut rng = Rng::new(3);
    let units = victim.len(&data) / UNIT;
    let old = victim.earlier.copy_out(&data).unwrap();
    let new = victim.now.copy_out(&data).unwrap();
    let mut damages = Vec::new();
    for unit in 32..units {
        let at = unit * UNIT;
        damages.push(write(&data, at, vec![0; UNIT as usize], "zeros"));
        damages.push(write(&data, at, rng.bytes(512), "garbage"));
        damages.push(write(&data, at + 512, vec![0; 512], "a zeroed sector"));
        let range = at as usize..(at + UNIT) as usize;
        if let Some(past) = old.get(range.clone())
            && past != &new[range]
        {
            damages.push(write(&data, at, past.to_vec(), "its own past"));
        }
        let other = 32 + rng.below(units - 32);
        let path = data.clone();
        let what = format!("blocks {unit} and {other} swapped");
        damages.push((
            data.clone(),
            what,
            Box::new(move |disk| disk.swap(&path, at, other * UNIT, UNIT).unwrap()),
        ));
    }
    try_all(&victim, damages);
}

#[test]
fn bits_of_the_log() {
    let victim = Arc::new(victim());
    let mut rng = Rng::new(4);
    let mut damages = Vec::new();
    for log in victim.logs() {
        for byte in (0..64).chain([100, 4095]) {
            damages.extend((0..8).map(|bit| flip(&log, byte, bit)));
        }
        let len = victim.len(&log);
        for _ in 0..150 * more() {
            let at = 4096 + rng.below(len - 4096);
            damages.push(flip(&log, at, rng.below(8) as u32));
        }
        for _ in 0..20 * more() {
            let at = 4096 + rng.below((len - 4096) / 512) * 512;
            damages.push(write(&log, at, vec![0; 512], "a zeroed sector"));
            damages.push(write(&log, at, rng.bytes(512), "garbage"));
        }
    }
    try_all(&victim, damages);
}

#[test]
fn files_cut_short() {
    let victim = Arc::new(victim());
    let mut rng = Rng::new(5);
    let mut damages = Vec::new();
    for file in victim.files() {
        let len = victim.len(&file);
        let step = if file == victim.data() { UNIT } else { 2048 };
        damages.extend((0..len).step_by(step as usize).map(|len| cut(&file, len)));
        damages.extend([1, 7, 8, 511, 4095, len - 1, len - 512].map(|len| cut(&file, len)));
        damages.extend((0..20).map(|_| cut(&file, rng.below(len))));
    }
    try_all(&victim, damages);
}

#[test]
fn files_removed_or_brought_back_from_the_past() {
    let victim = Arc::new(victim());
    let mut damages: Vec<Damage> = Vec::new();
    for file in victim.files() {
        let path = file.clone();
        damages.push((
            file.clone(),
            format!("{} removed", file.display()),
            Box::new(move |disk| disk.remove_file(&path).unwrap()),
        ));
        let (path, owner) = (file.clone(), victim.clone());
        if victim.earlier.files().contains(&file) {
            damages.push((
                file.clone(),
                format!("{} as it was earlier", file.display()),
                Box::new(move |disk| disk.restore_file(&owner.earlier, &path).unwrap()),
            ));
        }
        let path = file.clone();
        damages.push((
            file.clone(),
            format!("{} replaced by a foreign file", file.display()),
            Box::new(move |disk| disk.copy_in(&path, b"{\"this\": \"is some other file\"}\n").unwrap()),
        ));
    }
    let logs = victim.logs();
    let (first, second) = (logs[0].clone(), logs[1].clone());
    damages.push((
        first.clone(),
        "two segments with each other's names".into(),
        Box::new(move |disk| {
            let (a, b) = (disk.copy_out(&first).unwrap(), disk.copy_out(&second).unwrap());
            disk.copy_in(&first, &b).unwrap();
            disk.copy_in(&second, &a).unwrap();
        }),
    ));
    try_all(&victim, damages);
}

/// Damage that happens while the store is open is noticed when the page is read again.
#[test]
fn rot_while_the_store_is_open() {
    let victim = victim();
    let data = victim.data();
    let mut rng = Rng::new(6);
    let mut errors = 0;
    for _ in 0..30 {
        let disk = SimDisk::new(1);
        disk.restore(&victim.now);
        let disk = disk.reopen();
        let db = victim.config.builder(&disk).open(DIR).unwrap();
        for _ in 0..5 {
            let units = victim.len(&data) / UNIT;
            let at = (32 + rng.below(units - 32)) * UNIT + rng.below(UNIT);
            disk.flip_bit(&data, at, rng.below(8) as u32).unwrap();
        }
        if read_all(&db, &victim.holds[0], &data).unwrap() == Outcome::ReadError {
            errors += 1;
        }
    }
    assert!(errors > 5, "only {errors} of 30 were met");
}
