//! A process that writes and is killed: what its parent runs, what it reports over the pipe, and how the parent judges
//! what it finds afterwards.
//!
//! Each writer thread has keys of its own, and each of its commits is decided by seed, thread and number alone, so
//! the parent can tell from the number of the last commit found what the whole state of that thread must be. Every
//! commit writes its number, and with it the numbers of the other threads' commits that it had seen: if it
//! survived, so must they have.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use bedstone::{Builder, Database, Durability, Table, WriteBatch};

use crate::model::{Bytes, Change, Model, show};
use crate::rng::Rng;
use crate::setup::{check_clean, real_builder};
use crate::simulation::shape::value_of;
use crate::view;

/// Tables that the writers use.
const TABLES: [&str; 3] = ["north", "south", "west"];
/// Keys of each thread and table.
const KEYS: u64 = 300;
const COUNTERS: &str = "counters";

/// Options of the database that is worked on.
pub fn builder(seed: u64) -> Builder {
    let mut rng = Rng::of(&[seed, 77]);
    real_builder()
        .page_size(*rng.pick(&[4096, 8192, 16384]))
        .pool_bytes(*rng.pick(&[2 << 20, 4 << 20]))
        .huge_pages(false)
        .log_segment_bytes(*rng.pick(&[256 << 10, 1 << 20]))
        .log_buffer_bytes(*rng.pick(&[64 << 10, 1 << 20]))
        .checkpoint_log_bytes(*rng.pick(&[256 << 10, 1 << 20]))
        .syncs_in_flight(1 + rng.index(2))
}

/// The `number`-th commit of a thread (from 1).
pub fn commit_of(seed: u64, thread: u64, number: u64) -> (Vec<Change>, Durability) {
    let mut rng = Rng::of(&[seed, thread, number]);
    let durability = match rng.below(10) {
        0..=5 => Durability::Sync,
        6 | 7 => Durability::Buffered,
        _ => Durability::Relaxed,
    };
    let count = *rng.pick(&[1, 1, 3, 10, 60]);
    let mut changes = Vec::new();
    for _ in 0..count {
        let table = (*rng.pick(&TABLES)).to_owned();
        let key = format!("{thread:02}/{:05}", rng.below(KEYS)).into_bytes();
        if rng.chance(1, 3) {
            changes.push(Change::Delete { table, key });
        } else {
            let len = match rng.below(40) {
                0 => rng.index(60_000),
                1..=5 => rng.index(3000),
                _ => rng.index(200),
            };
            changes.push(Change::Put { table, key, value: value_of(rng.next(), len) });
        }
    }
    (changes, durability)
}

fn counter_key(thread: u64) -> Vec<u8> {
    format!("{thread:02}").into_bytes()
}

fn number_at(value: &[u8], index: usize) -> u64 {
    let bytes = value.get(index * 8..index * 8 + 8).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u64::from_le_bytes)
}

/// What a killed process promised, as far as the parent heard of it.
#[derive(Debug, Default, Clone)]
pub struct Heard {
    /// By thread: the number of its last commit acknowledged as `Sync` or `Buffered`.
    pub promised: BTreeMap<u64, u64>,
    /// Acknowledgements heard.
    pub acknowledged: u64,
    /// Whether the process opened the database.
    pub opened: bool,
}

/// The child's side: opens the database and writes until it is killed, or until each thread has made `most` commits.
/// It goes on with the numbers it finds. Prints `o` when open and `a THREAD NUMBER` for what is acknowledged.
///
/// # Errors
/// Whatever the database says.
pub fn work(dir: &Path, seed: u64, threads: u64, most: u64) -> Result<(), bedstone::Error> {
    let db = builder(seed).open_or_create(dir)?;
    let tables: Vec<Table> = TABLES.iter().map(|name| db.table(name)).collect::<Result<_, _>>()?;
    let counters = db.table(COUNTERS)?;
    let mut seen = Vec::new();
    for thread in 0..threads {
        let value = counters.get(counter_key(thread))?;
        seen.push(AtomicU64::new(value.map_or(0, |value| number_at(&value, thread as usize))));
    }
    println!("o");
    let (db, tables, counters, seen) = (&db, &tables[..], &counters, &seen[..]);
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || write_on(db, tables, counters, seen, seed, thread, most)))
            .collect();
        let checkpoints = Rng::of(&[seed, 3]).chance(1, 2);
        if checkpoints {
            while running.iter().any(|thread| !thread.is_finished()) {
                db.checkpoint()?;
                std::thread::yield_now();
            }
        }
        running.into_iter().try_for_each(|thread| thread.join().expect("a writer thread"))
    })
}

fn write_on(
    db: &Database,
    tables: &[Table],
    counters: &Table,
    seen: &[AtomicU64],
    seed: u64,
    thread: u64,
    most: u64,
) -> Result<(), bedstone::Error> {
    let first = seen[thread as usize].load(Ordering::SeqCst) + 1;
    for number in first..first + most {
        let (changes, durability) = commit_of(seed, thread, number);
        let mut batch = WriteBatch::new();
        for change in &changes {
            match change {
                Change::Put { table, key, value } => batch.put(&tables[table_index(table)], key, value)?,
                Change::Delete { table, key } => batch.delete(&tables[table_index(table)], key)?,
                _ => {}
            }
        }
        // Read from the database, not from memory of this process: what can be read may be relied on.
        let mut numbers = Vec::new();
        for other in 0..seen.len() as u64 {
            let value = counters.get(counter_key(other))?;
            let number = if other == thread {
                number
            } else {
                value.map_or(0, |value| number_at(&value, other as usize))
            };
            numbers.extend_from_slice(&number.to_le_bytes());
        }
        batch.put(counters, counter_key(thread), numbers)?;
        db.write_with(batch, durability)?;
        if durability != Durability::Relaxed {
            let mut out = std::io::stdout().lock();
            // One write of few bytes: a pipe takes it whole or not at all.
            let line = format!("a {thread} {number}\n");
            if out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn table_index(name: &str) -> usize {
    TABLES.iter().position(|table| *table == name).unwrap_or(0)
}

/// Starts a child that works: `program` is a binary that passes its arguments to [`child_main`].
///
/// # Errors
/// If it cannot be started.
pub fn start(program: &Path, dir: &Path, seed: u64, threads: u64, most: u64) -> std::io::Result<Child> {
    Command::new(program)
        .arg("child")
        .arg(dir)
        .args([seed, threads, most].map(|number| number.to_string()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

/// The child's entry: `child DIR SEED THREADS MOST`. Returns `None` if the arguments are not of that kind.
pub fn child_main(arguments: &[String]) -> Option<Result<(), String>> {
    let [word, dir, seed, threads, most] = arguments else { return None };
    if word != "child" {
        return None;
    }
    let numbers = (seed.parse(), threads.parse(), most.parse());
    let (Ok(seed), Ok(threads), Ok(most)) = numbers else { return Some(Err("these are no numbers".into())) };
    Some(work(Path::new(dir), seed, threads, most).map_err(|error| format!("{error} ({error:?})")))
}

/// Listens to the child until `enough` acknowledgements came (or its output ended), kills it, and listens to what was in
/// the pipe still. Returns what was heard, and whether the child had ended by itself.
///
/// # Errors
/// If reading or killing fails, or the child ended with an error of its own.
pub fn listen_and_kill(mut child: Child, enough: u64) -> Result<Heard, String> {
    let fail = |error: std::io::Error| error.to_string();
    let mut heard = Heard::default();
    let stdout = child.stdout.take().ok_or("the child has no output")?;
    let mut lines = BufReader::new(stdout);
    let mut line = String::new();
    let mut killed = enough == 0;
    if killed {
        child.kill().map_err(fail)?;
    }
    loop {
        line.clear();
        if lines.read_line(&mut line).map_err(fail)? == 0 {
            break;
        }
        if !line.ends_with('\n') {
            break;
        }
        let mut words = line.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some("o"), ..) => heard.opened = true,
            (Some("a"), Some(thread), Some(number)) => {
                let (Ok(thread), Ok(number)) = (thread.parse(), number.parse()) else {
                    return Err(format!("the child said {line:?}"));
                };
                heard.promised.insert(thread, number);
                heard.acknowledged += 1;
            }
            _ => return Err(format!("the child said {line:?}")),
        }
        if !killed && heard.acknowledged >= enough {
            child.kill().map_err(fail)?;
            killed = true;
        }
    }
    let output = child.wait_with_output().map_err(fail)?;
    if !killed && !output.status.success() {
        return Err(format!("the child failed: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(heard)
}

/// What is found after a child was killed, compared with what was promised.
///
/// # Errors
/// Says which promise was broken.
pub fn verify(
    db: &Database,
    seed: u64,
    threads: u64,
    promised: &BTreeMap<u64, u64>,
) -> Result<Vec<u64>, String> {
    let found = view::dump(db).map_err(|error| format!("reading all: {error}"))?;
    let counters = found.table(COUNTERS);
    let seen: Vec<Option<&Bytes>> = (0..threads).map(|thread| counters.get(&counter_key(thread))).collect();
    let numbers: Vec<u64> = seen
        .iter()
        .enumerate()
        .map(|(thread, value)| value.map_or(0, |value| number_at(value, thread)))
        .collect();
    for (thread, promise) in promised {
        if numbers[*thread as usize] < *promise {
            return Err(format!(
                "thread {thread}: commit {promise} was acknowledged, the last one found is {}",
                numbers[*thread as usize]
            ));
        }
    }
    for (thread, value) in seen.iter().enumerate() {
        for (other, found) in numbers.iter().enumerate() {
            let saw = value.map_or(0, |value| number_at(value, other));
            if saw > *found {
                return Err(format!(
                    "commit {} of thread {thread} survived and had seen commit {saw} of thread {other}, of which only {found} survived",
                    numbers[thread]
                ));
            }
        }
    }
    let mut expected = Model::default();
    expected.apply(&TABLES.map(|name| Change::Create(name.into())));
    for (thread, last) in numbers.iter().enumerate() {
        for number in 1..=*last {
            expected.apply(&commit_of(seed, thread as u64, number).0);
        }
    }
    for name in TABLES {
        let (want, got) = (expected.table(name), found.table(name));
        if want != got {
            let key = want.iter().find(|(key, value)| got.get(*key) != Some(value)).map(|(key, _)| key);
            let key = key.or_else(|| got.keys().find(|key| !want.contains_key(*key)));
            return Err(format!(
                "table {name}: not the state after commits {numbers:?}; differs at {}",
                key.map_or(String::new(), |key| show(key))
            ));
        }
    }
    check_clean(db)?;
    Ok(numbers)
}
