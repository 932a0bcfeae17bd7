//! One transaction that is larger than memory: that it commits with memory bounded, that a snapshot taken before it goes
//! on seeing what was, and that it is there wholly or not at all when its process is killed at any moment.
//!
//! The database is always in a *state* of which everything is known: in state 0 it is empty, and in state `s` it holds
//! every key whose number plus `s` is no multiple of 8, with a value that names key and state. A transaction
//! leads from one state to the next one, and writes the number of the new state into a table of its own.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bedstone::{Builder, Database, Result, Snapshot, Table};

use crate::larger::{KEY, VALUE, key, resident_peak, value};
use bedstone_crashtest::rng::Rng;
use bedstone_crashtest::setup::{check_clean, real_builder};

/// One of so many keys is absent in each state.
const ABSENT: u64 = 8;
/// How often a transaction says how far it is.
const REPORTS: u64 = 64;
/// Writes that every transaction takes back by a savepoint.
const TAKEN_BACK: u64 = 1000;

/// What to run.
#[derive(Debug, Clone)]
pub struct Large {
    /// Bytes of keys and values of one transaction.
    pub data_bytes: u64,
    /// Bytes of the pool.
    pub pool_bytes: usize,
    /// Bytes of memory for what a transaction has written.
    pub transaction_memory: usize,
    /// Transactions, one after the other: the first one fills an empty table, the others change every entry of it.
    pub transactions: u64,
    /// What the keys follow from.
    pub seed: u64,
}

/// One transaction.
#[derive(Debug, Clone, Copy)]
pub struct One {
    /// Keys written.
    pub puts: u64,
    /// Keys deleted.
    pub deletes: u64,
    /// Time of writing them.
    pub writing: Duration,
    /// Time of the commit.
    pub commit: Duration,
    /// Bytes of the data file afterwards.
    pub file_bytes: u64,
}

/// What was seen.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The transactions.
    pub each: Vec<One>,
    /// Time to read everything and compare, the check included.
    pub verify: Duration,
    /// Most memory that the process had resident, in bytes.
    pub resident_peak: u64,
    /// The I/O mode in effect.
    pub io: String,
}

impl Large {
    fn entries(&self) -> u64 {
        self.data_bytes / (KEY + VALUE) as u64
    }

    fn builder(&self) -> Builder {
        real_builder().pool_bytes(self.pool_bytes).transaction_memory(self.transaction_memory)
    }

    /// Bytes that the process may have resident: the pool, the transaction's memory, and 64 MiB for everything else, the
    /// log buffer included.
    pub fn resident_limit(&self) -> u64 {
        (self.pool_bytes + self.transaction_memory) as u64 + (64 << 20)
    }
}

fn is_there(i: u64, state: u64) -> bool {
    state > 0 && !(i + state).is_multiple_of(ABSENT)
}

struct Tables {
    data: Table,
    state: Table,
}

impl Tables {
    fn of(db: &Database) -> Result<Self> {
        Ok(Self { data: db.table("data")?, state: db.table("state")? })
    }

    fn state(&self) -> Result<u64> {
        Ok(number(self.state.get("number")?.as_deref()))
    }
}

fn number(value: Option<&[u8]>) -> u64 {
    value.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// Leads to the next state in one transaction. `tell` hears how far it is.
fn transaction(
    plan: &Large,
    db: &Database,
    tables: &Tables,
    tell: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<One> {
    let entries = plan.entries();
    let next = tables.state()? + 1;
    let started = Instant::now();
    let mut tx = db.begin_write()?;
    tx.put(&tables.state, "number", next.to_le_bytes())?;
    let (mut puts, mut deletes) = (0, 0);
    for i in 0..entries {
        let key = key(plan.seed, i);
        if is_there(i, next) {
            tx.put(&tables.data, key, value(i, next))?;
            puts += 1;
        } else if tx.delete(&tables.data, key)? {
            deletes += 1;
        }
        if i == entries / 2 {
            let place = tx.savepoint();
            for wrong in 0..TAKEN_BACK.min(entries) {
                tx.put(&tables.data, crate::larger::key(plan.seed, wrong), b"to be taken back")?;
            }
            tx.rollback_to(&place)?;
        }
        if i.is_multiple_of(entries / REPORTS + 1) {
            tell(&format!("w {i}"))?;
        }
    }
    let writing = started.elapsed();
    tell("c")?;
    let started = Instant::now();
    tx.commit()?;
    let commit = started.elapsed();
    tell("d")?;
    Ok(One { puts, deletes, writing, commit, file_bytes: db.stats().pool.file_bytes })
}

/// Everything is as it is in one state, which is returned.
fn verify(plan: &Large, db: &Database) -> std::result::Result<u64, String> {
    let text = |e: bedstone::Error| format!("{e} ({e:?})");
    let tables = Tables::of(db).map_err(text)?;
    let state = tables.state().map_err(text)?;
    let mut expected = (0..plan.entries()).filter(|i| is_there(*i, state));
    let mut range = tables.data.iter().map_err(text)?;
    loop {
        match (range.next_ref().map_err(text)?, expected.next()) {
            (None, None) => break,
            (Some((k, v)), Some(i)) if k == key(plan.seed, i) && v == value(i, state) => {}
            (found, want) => {
                return Err(format!(
                    "state {state}: entry {want:?} was expected, found is key {:?}",
                    found.map(|(key, _)| bedstone_crashtest::model::show(key))
                ));
            }
        }
    }
    drop(range);
    check_clean(db)?;
    Ok(state)
}

/// A snapshot sees a state, as far as a thousand random keys tell.
fn sees(plan: &Large, tables: &Tables, snapshot: &Snapshot, state: u64) -> Result<()> {
    let mut rng = Rng::of(&[plan.seed, state]);
    assert_eq!(number(snapshot.get(&tables.state, "number")?.as_deref()), state);
    for _ in 0..1000 {
        let i = rng.below(plan.entries());
        let found = snapshot.get(&tables.data, key(plan.seed, i))?;
        let want = is_there(i, state).then(|| value(i, state));
        assert_eq!(found.as_deref(), want.as_ref().map(|v| &v[..]), "entry {i}, seed {}", plan.seed);
    }
    Ok(())
}

/// Runs the transactions in `dir`, each beside a snapshot taken before it, and checks everything.
///
/// # Errors
/// Whatever the database answers.
///
/// # Panics
/// If an answer is wrong.
pub fn run(plan: &Large, dir: &Path, say: &mut dyn FnMut(&str)) -> Result<Outcome> {
    let db = plan.builder().create(dir)?;
    let tables = Tables::of(&db)?;
    let mut each = Vec::new();
    for state in 0..plan.transactions {
        let before = db.begin_read()?;
        let one = transaction(plan, &db, &tables, &mut |_| Ok(()))?;
        say(&format!(
            "{} puts and {} deletes written in {:.1?}, committed in {:.1?}",
            one.puts, one.deletes, one.writing, one.commit
        ));
        sees(plan, &tables, &before, state)?;
        let after = db.begin_read()?;
        sees(plan, &tables, &after, state + 1)?;
        each.push(one);
    }
    // What the check holds in memory is no part of a transaction.
    let resident_peak = resident_peak();
    let started = Instant::now();
    assert_eq!(verify(plan, &db), Ok(plan.transactions));
    let verify = started.elapsed();
    let io = db.stats().io;
    db.close()?;
    Ok(Outcome { each, verify, resident_peak, io })
}

/// When a child is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// While it writes into its transaction.
    Writing,
    /// From the call of commit on, at some instant of the time that a commit takes.
    Committing,
    /// When its commit was acknowledged.
    Acknowledged,
    /// While the next process recovers from such a kill.
    Recovering,
}

/// What became of one transaction whose process was killed.
#[derive(Debug, Clone, Copy)]
pub struct Killed {
    /// When it was killed.
    pub moment: Moment,
    /// The commit had been acknowledged.
    pub acknowledged: bool,
    /// All of it was found; else nothing.
    pub found: bool,
    /// Time of opening afterwards.
    pub recovery: Duration,
}

/// The child's entry: `child DIR DATA-BYTES POOL-BYTES TRANSACTION-BYTES SEED` makes one transaction. Returns `None` if
/// the arguments are not of that kind.
pub fn child_main(arguments: &[String]) -> Option<std::result::Result<(), String>> {
    let [word, dir, numbers @ ..] = arguments else { return None };
    if word != "child" {
        return None;
    }
    let numbers: std::result::Result<Vec<u64>, _> = numbers.iter().map(|n| n.parse()).collect();
    let Ok([data_bytes, pool, memory, seed]) = numbers.as_deref() else {
        return Some(Err("these are no four numbers".into()));
    };
    let (pool_bytes, transaction_memory) = (*pool as usize, *memory as usize);
    let plan =
        Large { data_bytes: *data_bytes, pool_bytes, transaction_memory, transactions: 1, seed: *seed };
    Some(child(&plan, Path::new(dir)).map_err(|e| format!("{e} ({e:?})")))
}

fn child(plan: &Large, dir: &Path) -> Result<()> {
    let mut tell = |line: &str| {
        // One write of few bytes: a pipe takes it whole or not at all. If nobody listens, nobody is misled.
        let _ = std::io::stdout().lock().write_all(format!("{line}\n").as_bytes());
        Ok(())
    };
    let db = plan.builder().open_or_create(dir)?;
    let tables = Tables::of(&db)?;
    tell("o")?;
    transaction(plan, &db, &tables, &mut tell)?;
    db.close()
}

/// A child and what it says.
struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    committing: bool,
    acknowledged: bool,
}

impl Running {
    fn start(plan: &Large, program: &Path, dir: &Path) -> std::io::Result<Self> {
        let numbers = [plan.data_bytes, plan.pool_bytes as u64, plan.transaction_memory as u64, plan.seed];
        let mut child = Command::new(program)
            .arg("child")
            .arg(dir)
            .args(numbers.map(|number| number.to_string()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Ok(Self { child, lines, committing: false, acknowledged: false })
    }

    /// Its next line; `None` when it has ended.
    fn hear(&mut self) -> Option<String> {
        let line = self.lines.next()?.ok()?;
        self.committing |= line == "c";
        self.acknowledged |= line == "d";
        Some(line)
    }

    /// Listens until it says a line that begins so, `count` times. `false` if it ended before.
    fn hear_until(&mut self, word: &str, count: u64) -> bool {
        let mut left = count;
        while left > 0 {
            let Some(line) = self.hear() else { return false };
            left -= u64::from(line.starts_with(word));
        }
        true
    }

    /// Kills it, and listens to what was in the pipe still.
    fn kill(&mut self) -> std::io::Result<()> {
        self.child.kill()?;
        while self.hear().is_some() {}
        self.child.wait().map(drop)
    }
}

/// Makes two transactions undisturbed, then `kills` more in children that are killed, and verifies after each that all of
/// it is there or nothing, as it was promised. `program` passes its arguments to [`child_main`].
///
/// # Errors
/// Says which promise was broken, or what else went wrong.
pub fn kill(
    plan: &Large,
    program: &Path,
    dir: &Path,
    kills: u64,
    say: &mut dyn FnMut(&str),
) -> std::result::Result<Vec<Killed>, String> {
    let place: PathBuf = dir.join("killed");
    let fail = |e: std::io::Error| e.to_string();
    let mut rng = Rng::of(&[plan.seed, 9]);

    // The second one, which overwrites, tells how long one takes.
    let (mut writing, mut commit) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..2 {
        let mut child = Running::start(plan, program, &place).map_err(fail)?;
        let began = Instant::now();
        let mut went_well = child.hear_until("c", 1);
        writing = began.elapsed();
        let began = Instant::now();
        went_well &= child.hear_until("d", 1);
        commit = began.elapsed();
        if !went_well || !child.child.wait().map_err(fail)?.success() {
            return Err("an undisturbed child failed".into());
        }
    }
    say(&format!(
        "one transaction undisturbed: opened and written in {writing:.1?}, committed in {commit:.1?}"
    ));

    let mut seen = Vec::new();
    let mut state = 2;
    for number in 1..=kills {
        let moment = match rng.below(8) {
            0 | 1 => Moment::Writing,
            2..=4 => Moment::Committing,
            5 => Moment::Acknowledged,
            _ => Moment::Recovering,
        };
        let mut child = Running::start(plan, program, &place).map_err(fail)?;
        let alive = match moment {
            Moment::Writing => child.hear_until("w", 1 + rng.below(REPORTS - 1)),
            Moment::Acknowledged => child.hear_until("d", 1),
            Moment::Committing | Moment::Recovering => {
                let alive = child.hear_until("c", 1);
                // Somewhere in the time that the undisturbed one took.
                std::thread::sleep(part(commit, &mut rng));
                alive
            }
        };
        if !alive {
            return Err(format!("kill {number}: the child failed"));
        }
        child.kill().map_err(fail)?;
        let mut least = state + u64::from(child.acknowledged);
        let mut most = state + u64::from(child.committing);
        if moment == Moment::Recovering {
            let mut other = Running::start(plan, program, &place).map_err(fail)?;
            std::thread::sleep(part(commit, &mut rng).min(part(writing, &mut rng)));
            other.kill().map_err(fail)?;
            // It may have been quick.
            least += u64::from(other.acknowledged);
            most += u64::from(other.committing);
        }
        let started = Instant::now();
        let db = plan.builder().open(&place).map_err(|e| format!("kill {number}: opening: {e} ({e:?})"))?;
        let recovery = started.elapsed();
        let found = verify(plan, &db).map_err(|e| format!("kill {number} ({moment:?}): {e}"))?;
        db.close().map_err(|e| format!("closing: {e}"))?;
        if found < least || found > most {
            return Err(format!(
                "kill {number} ({moment:?}): found is state {found}, and {least}..={most} was to be expected"
            ));
        }
        let killed = Killed { moment, acknowledged: child.acknowledged, found: found > state, recovery };
        say(&format!(
            "kill {number:>3}: {:<12} acknowledged: {:<5} found: {:<7} opened in {recovery:.2?}",
            format!("{moment:?}"),
            killed.acknowledged,
            if killed.found { "all" } else { "nothing" },
        ));
        state = found;
        seen.push(killed);
    }
    Ok(seen)
}

/// A random part of a time.
fn part(of: Duration, rng: &mut Rng) -> Duration {
    of * rng.below(1100) as u32 / 1000
}
