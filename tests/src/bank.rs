//! A bank: many threads move money between few accounts, others add it all up in snapshots. The sum never changes: not
//! in any snapshot, not in any transaction, and not after the process was killed.
//!
//! Every transfer also counts itself under its thread, in the same transaction. So after a kill every transfer that
//! was acknowledged as durable must be counted, whatever else survived.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bedstone::{Builder, Database, Durability, Error, Snapshot, Table, Transaction, UpdateOptions};

use bedstone_crashtest::rng::{Rng, mix};
use bedstone_crashtest::seeds::panic_text;
use bedstone_crashtest::setup::{assert_mode, check_clean, real_builder, temp_dir};
use bedstone_crashtest::{self as crash, Acks, Failure, Numbers, Workload, kill, unwatched};

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Decides what each thread does, though not how they meet.
    pub seed: u64,
    /// Threads that move money.
    pub threads: u64,
    /// Threads that add it up.
    pub readers: u64,
    /// Accounts; the fewer, the more conflicts.
    pub accounts: u64,
    /// Transfers of each thread.
    pub transfers: u64,
}

/// What was done.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Transfers that committed.
    pub transfers: u64,
    /// Times that a transaction was refused and run again.
    pub conflicts: u64,
    /// Snapshots that were added up.
    pub sums: u64,
    /// Children killed.
    pub kills: u64,
    /// Transfers that children acknowledged as durable.
    pub acknowledged: u64,
    /// The way of I/O.
    pub mode: String,
}

/// What each account has at the beginning.
const EACH: u64 = 1000;

fn builder(seed: u64) -> Builder {
    let mut rng = Rng::of(&[seed, 50]);
    real_builder()
        .page_size(*rng.pick(&[4096, 8192]))
        .pool_bytes(16 << 20)
        .huge_pages(false)
        .log_segment_bytes(1 << 20)
        .log_buffer_bytes(*rng.pick(&[64 << 10, 1 << 20]))
        .checkpoint_log_bytes(*rng.pick(&[256 << 10, 2 << 20]))
        .syncs_in_flight(1 + rng.index(2))
}

/// An open bank.
struct Bank<'p> {
    plan: &'p Plan,
    db: Database,
    accounts: Table,
    counts: Table,
    stop: AtomicBool,
    runs: AtomicU64,
    transfers: AtomicU64,
    sums: AtomicU64,
}

fn text(error: Error) -> String {
    format!("{error} ({error:?})")
}

fn key_of(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// The balance, then filler that changes its length with it, so that leaves split and merge.
fn value_of(balance: u64) -> Vec<u8> {
    let mut value = balance.to_le_bytes().to_vec();
    value.resize(8 + (mix(balance) % 600) as usize, b'$');
    value
}

fn balance_in(value: &[u8]) -> Result<u64, Error> {
    let balance = value.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    // Only values that were written here can come back.
    Ok(balance.filter(|balance| value_of(*balance) == value).expect("a balance as it was written"))
}

impl<'p> Bank<'p> {
    /// Opens the bank; where there is none yet, founds it.
    fn open(plan: &'p Plan, dir: &Path) -> Result<Self, Error> {
        Self::over(plan, builder(plan.seed).open_or_create(dir)?)
    }

    fn over(plan: &'p Plan, db: Database) -> Result<Self, Error> {
        let (accounts, counts) = (db.table("accounts")?, db.table("counts")?);
        db.update(|tx| {
            // In one commit: a bank that is half founded has lost money.
            if tx.first(&accounts)?.is_none() {
                for account in 0..plan.accounts {
                    tx.put(&accounts, key_of(account), value_of(EACH))?;
                }
            }
            Ok(())
        })?;
        Ok(Self {
            plan,
            db,
            accounts,
            counts,
            stop: AtomicBool::new(false),
            runs: AtomicU64::new(0),
            transfers: AtomicU64::new(0),
            sums: AtomicU64::new(0),
        })
    }

    fn total(&self) -> u64 {
        self.plan.accounts * EACH
    }

    /// Moves some money from one account to another, or all of it: an account with nothing is not there.
    fn transfer(&self, tx: &mut Transaction, thread: u64, rng: &mut Rng) -> Result<u64, Error> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        let from = rng.below(self.plan.accounts);
        let to = (from + 1 + rng.below(self.plan.accounts - 1)) % self.plan.accounts;
        let get = |tx: &Transaction, account| -> Result<u64, Error> {
            tx.get(&self.accounts, key_of(account))?.map_or(Ok(0), |value| balance_in(&value))
        };
        let (has, other) = (get(tx, from)?, get(tx, to)?);
        let amount = if rng.chance(1, 6) { has } else { rng.below(has + 1) };
        tx.put(&self.accounts, key_of(to), value_of(other + amount))?;
        if rng.chance(1, 8) {
            // A transaction that has done half of its work and thinks better of it.
            let savepoint = tx.savepoint();
            tx.delete_range(&self.accounts, key_of(from)..key_of(from + 3))?;
            tx.rollback_to(&savepoint)?;
        }
        match has - amount {
            0 => {
                tx.delete(&self.accounts, key_of(from))?;
            }
            left => tx.put(&self.accounts, key_of(from), value_of(left))?,
        }
        // An account that got nothing may not stand there with nothing.
        if other + amount == 0 {
            tx.delete(&self.accounts, key_of(to))?;
        }
        if rng.chance(1, 40) {
            let sum = self.sum_of(tx.iter(&self.accounts)?)?;
            assert_eq!(sum, self.total(), "the sum in a transaction that has moved money itself");
        }
        let count = match tx.get(&self.counts, key_of(thread))? {
            Some(value) => balance_in(&value)? + 1,
            None => 1,
        };
        tx.put(&self.counts, key_of(thread), value_of(count))?;
        Ok(count)
    }

    fn sum_of(&self, mut range: bedstone::SnapshotRange<'_>) -> Result<u64, Error> {
        let mut sum = 0;
        while let Some((_, value)) = range.next_ref()? {
            sum += balance_in(value)?;
        }
        Ok(sum)
    }

    /// The sum in a snapshot, and the transfers of each thread in the same one.
    fn add_up(&self, snapshot: &Snapshot, backwards: bool) -> Result<(u64, BTreeMap<u64, u64>), Error> {
        let sum = if backwards {
            let mut sum = 0;
            for entry in snapshot.iter(&self.accounts)?.rev() {
                sum += balance_in(entry?.value())?;
            }
            sum
        } else {
            self.sum_of(snapshot.iter(&self.accounts)?)?
        };
        let mut counts = BTreeMap::new();
        let mut range = snapshot.iter(&self.counts)?;
        while let Some((key, value)) = range.next_ref()? {
            let thread = key.first_chunk().map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes));
            counts.insert(thread, balance_in(value)?);
        }
        Ok((sum, counts))
    }

    fn write(&self, thread: u64, heard: &(impl Fn(u64, u64) -> bool + Sync)) -> Result<(), String> {
        let mut rng = Rng::of(&[self.plan.seed, 51, thread]);
        for _ in 0..self.plan.transfers {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let durability = *rng.pick(&[Durability::Sync, Durability::Sync, Durability::Relaxed]);
            let mut options = UpdateOptions::new().attempts(u32::MAX).durability(durability);
            if rng.chance(1, 4) {
                options = options.serializable();
            }
            let seed = rng.next();
            // The same choices at each attempt.
            let count = self
                .db
                .update_with(options, |tx| self.transfer(tx, thread, &mut Rng::new(seed)))
                .map_err(|error| format!("a transfer of thread {thread}: {}", text(error)))?;
            self.transfers.fetch_add(1, Ordering::Relaxed);
            if durability == Durability::Sync && !heard(thread, count) {
                break;
            }
        }
        Ok(())
    }

    fn read(&self, reader: u64, writing: impl Fn() -> bool) -> Result<(), String> {
        let mut last = BTreeMap::new();
        let mut more = true;
        while more && !self.stop.load(Ordering::Relaxed) {
            // Once more after the last transfer.
            more = writing();
            let snapshot = self.db.begin_read().map_err(text)?;
            let (sum, counts) = self.add_up(&snapshot, !reader.is_multiple_of(2)).map_err(text)?;
            if sum != self.total() {
                return Err(format!("a snapshot has {sum} instead of {}", self.total()));
            }
            if let Some((thread, count)) =
                last.iter().find(|(thread, count)| counts.get(thread) < Some(count))
            {
                return Err(format!(
                    "thread {thread} had made {count} transfers, a later snapshot has {counts:?}"
                ));
            }
            // The snapshot does not change under its reader.
            let again = self.add_up(&snapshot, reader.is_multiple_of(2)).map_err(text)?;
            if again != (sum, counts.clone()) {
                return Err(format!("a snapshot has {counts:?}, and then {again:?}"));
            }
            last = counts;
            self.sums.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// All threads, until each has made its transfers. `heard` is told of each durable transfer and says whether to go
    /// on.
    fn work(&self, heard: impl Fn(u64, u64) -> bool + Sync) -> Result<(), String> {
        let left = AtomicU64::new(self.plan.threads);
        let (heard, left) = (&heard, &left);
        let mut failures = Vec::new();
        std::thread::scope(|scope| {
            let writers = (0..self.plan.threads).map(|thread| {
                scope.spawn(move || {
                    let guard = OnDrop { bank: self, left: Some(left) };
                    let outcome = self.write(thread, heard);
                    guard.end(outcome)
                })
            });
            let writers: Vec<_> = writers.collect();
            let readers = (0..self.plan.readers).map(|reader| {
                scope.spawn(move || {
                    let guard = OnDrop { bank: self, left: None };
                    let outcome = self.read(reader, || left.load(Ordering::Relaxed) > 0);
                    guard.end(outcome)
                })
            });
            let readers: Vec<_> = readers.collect();
            for thread in writers.into_iter().chain(readers) {
                let outcome = thread.join().map_err(|panic| panic_text(&*panic)).flatten();
                failures.extend(outcome.err());
            }
        });
        if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
    }

    /// The books after the end: the sum, what was promised, the database's own check. Returns the transfers of each
    /// thread.
    fn verify(&self, promised: &Numbers) -> Result<Numbers, String> {
        let snapshot = self.db.begin_read().map_err(text)?;
        let (sum, counts) = self.add_up(&snapshot, false).map_err(text)?;
        if sum != self.total() {
            return Err(format!("the bank has {sum} instead of {}", self.total()));
        }
        for (thread, promise) in promised {
            let count = counts.get(thread).copied().unwrap_or(0);
            if count < *promise {
                return Err(format!("thread {thread} was told of {promise} transfers and {count} are there"));
            }
        }
        drop(snapshot);
        check_clean(&self.db)?;
        Ok(counts)
    }
}

/// Ends a thread: one writer less, and everybody stops if it failed or panicked.
struct OnDrop<'a> {
    bank: &'a Bank<'a>,
    left: Option<&'a AtomicU64>,
}

impl OnDrop<'_> {
    fn end(self, outcome: Result<(), String>) -> Result<(), String> {
        if outcome.is_err() {
            self.bank.stop.store(true, Ordering::Relaxed);
        }
        outcome
    }
}

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        if let Some(left) = self.left {
            left.fetch_sub(1, Ordering::Relaxed);
        }
        if std::thread::panicking() {
            self.bank.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// All transfers in this process, then the books, and once more after opening again.
///
/// # Errors
/// Says what was wrong.
pub fn run(plan: &Plan) -> Result<Report, String> {
    let dir = temp_dir();
    let place = dir.path().join("bank");
    let bank = Bank::open(plan, &place).map_err(text)?;
    let mode = assert_mode(&bank.db);
    bank.work(|_, _| true)?;
    let transfers: u64 = bank.verify(&Numbers::new())?.values().sum();
    let made = bank.transfers.load(Ordering::Relaxed);
    if transfers != made {
        return Err(format!("{made} transfers were made and {transfers} are counted"));
    }
    let runs = bank.runs.load(Ordering::Relaxed);
    let report = Report {
        transfers,
        conflicts: runs - made,
        sums: bank.sums.load(Ordering::Relaxed),
        mode,
        ..Report::default()
    };
    let Bank { db, accounts, counts, .. } = bank;
    drop((accounts, counts));
    db.close().map_err(text)?;
    let found: u64 = Bank::open(plan, &place).map_err(text)?.verify(&Numbers::new())?.values().sum();
    if found != transfers {
        return Err(format!("{transfers} transfers were made, after opening again there are {found}"));
    }
    Ok(report)
}

/// A bank as a workload of the crash tests: its streams are the threads that move money, and its numbers the transfers
/// that each has counted.
impl Workload for Plan {
    fn options(&self) -> Builder {
        builder(self.seed)
    }

    fn work(&self, db: &Database, acks: &Acks<'_>) -> bedstone::Result<()> {
        let bank = Bank::over(self, db.clone())?;
        if let Err(what) = bank.work(|thread, number| acks.commit(thread, number, Durability::Sync)) {
            panic!("{what}");
        }
        Ok(())
    }

    fn verify(&self, db: &Database, promised: &Numbers) -> Result<Numbers, String> {
        Bank::over(self, db.clone()).map_err(text)?.verify(promised)
    }
}

/// Kills so many processes that do transfers without end, and looks into the books after each.
///
/// # Errors
/// Says what was wrong, after which of them.
pub fn run_killed(
    plan: &Plan,
    generations: u64,
    program: &dyn Fn() -> Result<Command, Failure>,
) -> Result<Report, String> {
    let dir = temp_dir();
    let rounds = crash::Plan::rounds(plan.seed, generations);
    let place = dir.path().join("bank");
    let kept = match kill::run(&rounds, plan, &place, program, &unwatched) {
        Ok(kept) => kept,
        // Left to be looked at.
        Err(failure) => return Err(format!("{plan:?}: {failure} (in {})", dir.keep().display())),
    };
    Ok(Report {
        kills: kept.count("kills"),
        acknowledged: kept.count("acknowledged commits"),
        mode: kept.notes.join("; "),
        transfers: Bank::open(plan, &place).map_err(text)?.verify(&Numbers::new())?.values().sum(),
        ..Report::default()
    })
}
