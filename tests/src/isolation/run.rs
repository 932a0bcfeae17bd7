//! Runs clients against a store and records what they did.
//!
//! [`interleaved`] runs all clients on one thread, one step of one of them at a time, as the seed says: the same seed
//! gives the same history wherever the store itself is deterministic. [`threaded`] gives each client a thread; there
//! the seed decides what each does, though not how they meet.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use super::check::{Options, Report, check};
use super::history::{End, History, Key, Op, Txn};
use super::store::{Begin, Stop, Store, Tx};
use bedstone_crashtest::rng::Rng;
use bedstone_crashtest::seeds::panic_text;

/// Who asks to be serializable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Nobody.
    Never,
    /// All.
    Always,
    /// Every other one, about.
    Some,
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Decides what can be decided.
    pub seed: u64,
    /// Clients at once.
    pub clients: u64,
    /// Transactions of each in each phase.
    pub txns: u64,
    /// Most operations of a transaction.
    pub ops: u64,
    /// Keys in use at a time.
    pub width: u64,
    /// After so many transactions the lowest key goes out of use and one that was never there comes in.
    pub stride: u64,
    /// Who asks to be serializable.
    pub ask: Ask,
    /// Times the power fails.
    pub crashes: u32,
}

impl Plan {
    /// Draws a small one: few keys, so that conflicts are many.
    pub fn draw(seed: u64, ask: Ask) -> Self {
        let mut rng = Rng::of(&[seed, 40]);
        let clients = rng.between(2, 8);
        Self {
            seed,
            clients,
            txns: rng.between(40, 120) / clients,
            ops: rng.between(2, 7),
            width: rng.between(2, 8),
            stride: *rng.pick(&[3, 6, 12, 40]),
            ask,
            crashes: 0,
        }
    }
}

/// What all clients share.
struct Shared<'a> {
    plan: &'a Plan,
    phase: u32,
    clock: &'a AtomicU64,
    begun: &'a AtomicU64,
}

impl Shared<'_> {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }
}

struct Client {
    number: u64,
    rng: Rng,
    appended: u64,
    left: u64,
    open: Option<Open>,
    down: bool,
    done: Vec<Txn>,
}

struct Open {
    record: Txn,
    ops_left: u64,
    base: Key,
    reads_only: bool,
    gives_up: bool,
}

impl Client {
    fn is_finished(&self) -> bool {
        self.down || (self.left == 0 && self.open.is_none())
    }

    /// One step: begins a transaction, does one operation of it, or ends it.
    fn step<'s, S: Store>(
        &mut self,
        store: &'s S,
        tx: &mut Option<S::Tx<'s>>,
        shared: &Shared<'_>,
    ) -> Result<(), String> {
        let Some(open) = &mut self.open else {
            return self.begin(store, tx, shared);
        };
        let running = tx.as_mut().ok_or("a client lost its transaction")?;
        if open.ops_left > 0 {
            open.ops_left -= 1;
            let outcome = operate(open, &mut self.rng, running, shared.plan, &mut self.appended, self.number);
            return match outcome {
                Ok(()) => Ok(()),
                Err(stop) => {
                    // Given up without a commit: it has no effect, whatever stopped it.
                    drop(tx.take());
                    self.end(stop_of(stop)?.0, shared);
                    Ok(())
                }
            };
        }
        let gives_up = open.gives_up;
        let Some(tx) = tx.take() else { return Err("a client lost its transaction".into()) };
        let (end, down) = if gives_up {
            match tx.rollback() {
                Ok(()) => (End::Aborted, false),
                Err(stop) => (End::Aborted, stop_of(stop)?.0),
            }
        } else {
            match tx.commit() {
                Ok(()) => (End::Committed, false),
                Err(stop) => {
                    let (down, end) = stop_of(stop)?;
                    (end, down)
                }
            }
        };
        if let Some(open) = &mut self.open {
            open.record.end = end;
        }
        self.end(down, shared);
        Ok(())
    }

    fn begin<'s, S: Store>(
        &mut self,
        store: &'s S,
        tx: &mut Option<S::Tx<'s>>,
        shared: &Shared<'_>,
    ) -> Result<(), String> {
        let rng = &mut self.rng;
        let serializable = match shared.plan.ask {
            Ask::Never => false,
            Ask::Always => true,
            Ask::Some => rng.chance(1, 2),
        };
        let begun = shared.begun.fetch_add(1, Ordering::Relaxed);
        let record = Txn {
            client: self.number,
            phase: shared.phase,
            began: shared.tick(),
            ended: 0,
            end: End::Aborted,
            serializable,
            ops: Vec::new(),
        };
        self.left = self.left.saturating_sub(1);
        let base = begun / shared.plan.stride;
        if rng.chance(1, 8) {
            let key = base + rng.below(shared.plan.width);
            let element = self.appended * (shared.plan.clients + 1) + self.number + 1;
            self.appended += 1;
            let append = Op::Append { key, element };
            let (end, down, ops) = match store.append_at_once(key, element) {
                Ok(list) => (End::Committed, false, vec![Op::Read { key, list }, append]),
                Err(stop) => {
                    let (down, end) = stop_of(stop)?;
                    (end, down, vec![append])
                }
            };
            self.down = down;
            self.done.push(Txn { ended: shared.tick(), end, ops, ..record });
            return Ok(());
        }
        let reads_only = rng.chance(1, 4);
        match store.begin(Begin { serializable, reads_only }) {
            Ok(begun_tx) => *tx = Some(begun_tx),
            Err(stop) => {
                self.down = stop_of(stop)?.0;
                return Ok(());
            }
        }
        self.open = Some(Open {
            record,
            ops_left: rng.between(1, shared.plan.ops),
            base,
            reads_only,
            gives_up: rng.chance(1, 12),
        });
        Ok(())
    }

    fn idle<S: Store>(&self, store: &S) -> Result<(), String> {
        match store.idle() {
            Err(Stop::Broken(what)) => Err(what),
            // Whoever asks next hears of it.
            _ => Ok(()),
        }
    }

    fn end(&mut self, down: bool, shared: &Shared<'_>) {
        self.down |= down;
        if let Some(mut open) = self.open.take() {
            open.record.ended = shared.tick();
            self.done.push(open.record);
        }
    }
}

/// Whether the store is down, and how a commit ended that says so.
fn stop_of(stop: Stop) -> Result<(bool, End), String> {
    match stop {
        Stop::Refused => Ok((false, End::Aborted)),
        Stop::Down => Ok((true, End::Unknown)),
        Stop::Broken(what) => Err(what),
    }
}

fn operate(
    open: &mut Open,
    rng: &mut Rng,
    tx: &mut impl Tx,
    plan: &Plan,
    appended: &mut u64,
    client: u64,
) -> Result<(), Stop> {
    // The lower keys of the window are used more: the uppermost are often not there yet.
    let offset = rng.below(plan.width).min(rng.below(plan.width));
    let key = open.base + offset;
    let ops = &mut open.record.ops;
    match rng.below(20) {
        0..=4 => {
            let low = open.base + rng.below(plan.width);
            let high = low + 1 + rng.below(plan.width);
            let found = tx.range(low..high)?;
            ops.push(Op::Range { low, high, found });
        }
        5..=11 if !open.reads_only => {
            let mut list = tx.get(key)?;
            ops.push(Op::Read { key, list: list.clone() });
            let element = *appended * (plan.clients + 1) + client + 1;
            *appended += 1;
            list.push(element);
            // Recorded before it is done: the store may fall in between.
            ops.push(Op::Append { key, element });
            tx.put(key, &list)?;
        }
        _ => {
            let list = tx.get(key)?;
            ops.push(Op::Read { key, list });
        }
    }
    Ok(())
}

/// Runs a plan on one thread.
///
/// # Errors
/// If the store did something that no store may do, beyond what a history shows.
pub fn interleaved<S: Store>(plan: &Plan, store: &mut S) -> Result<History, String> {
    run(plan, store, |store, clients, shared, crash| {
        let mut rng = Rng::of(&[plan.seed, 41, u64::from(shared.phase)]);
        let mut handles: Vec<Option<S::Tx<'_>>> = clients.iter().map(|_| None).collect();
        let mut steps = 0;
        let crash_at = rng.below(plan.clients * plan.txns * plan.ops / 2 + 1);
        loop {
            let running: Vec<usize> = clients
                .iter()
                .enumerate()
                .filter(|(_, client)| !client.is_finished())
                .map(|(at, _)| at)
                .collect();
            if running.is_empty() {
                return Ok(());
            }
            if crash && steps == crash_at {
                store.crash(rng.below(20), rng.next());
            }
            steps += 1;
            let at = *rng.pick(&running);
            clients[at].step(store, &mut handles[at], shared)?;
            if rng.chance(1, 40) {
                clients[at].idle(store)?;
            }
        }
    })
}

/// Runs a plan with a thread for each client.
///
/// # Errors
/// As [`interleaved`].
pub fn threaded<S: Store>(plan: &Plan, store: &mut S) -> Result<History, String> {
    run(plan, store, |store, clients, shared, crash| {
        let failures = std::thread::scope(|scope| {
            let threads: Vec<_> = clients
                .iter_mut()
                .map(|client| {
                    scope.spawn(move || -> Result<(), String> {
                        let mut rng = Rng::of(&[plan.seed, 42, u64::from(shared.phase), client.number]);
                        let mut handle = None;
                        let crash_at = rng.below(plan.txns * plan.ops / 2 + 1);
                        let mut steps = 0;
                        while !client.is_finished() {
                            if crash && client.number == 0 && steps == crash_at {
                                store.crash(rng.below(20), rng.next());
                            }
                            steps += 1;
                            client.step(store, &mut handle, shared)?;
                            if rng.chance(1, 40) {
                                client.idle(store)?;
                            }
                            if rng.chance(1, 3) {
                                std::thread::yield_now();
                            }
                        }
                        Ok(())
                    })
                })
                .collect();
            threads
                .into_iter()
                .filter_map(|thread| thread.join().map_err(|panic| panic_text(&*panic)).flatten().err())
                .collect::<Vec<String>>()
        });
        if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
    })
}

fn run<S: Store>(
    plan: &Plan,
    store: &mut S,
    phase_of: impl Fn(&S, &mut [Client], &Shared<'_>, bool) -> Result<(), String>,
) -> Result<History, String> {
    let (clock, begun) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut clients: Vec<Client> = (0..plan.clients)
        .map(|number| Client {
            number,
            rng: Rng::of(&[plan.seed, 43, number]),
            appended: 0,
            left: 0,
            open: None,
            down: false,
            done: Vec::new(),
        })
        .collect();
    let mut txns: Vec<Txn> = Vec::new();
    for phase in 0..=plan.crashes {
        let shared = Shared { plan, phase, clock: &clock, begun: &begun };
        for client in &mut clients {
            client.left = plan.txns;
            client.down = false;
        }
        let crash = phase < plan.crashes;
        phase_of(store, &mut clients, &shared, crash)?;
        for client in &mut clients {
            // Those that the crash met in the middle of a transaction never asked for the commit.
            client.end(true, &shared);
        }
        if crash {
            store.crash(0, plan.seed);
            let after = shared.tick();
            for txn in clients.iter_mut().flat_map(|client| &mut client.done) {
                if txn.end == End::Unknown {
                    txn.ended = after;
                }
            }
            txns.extend(clients.iter_mut().flat_map(|client| std::mem::take(&mut client.done)));
            store.reopen().map_err(|what| format!("opening after crash {}: {what}", phase + 1))?;
            let after = Shared { phase: phase + 1, ..shared };
            txns.push(read_all(plan, store, &after)?);
        } else {
            txns.extend(clients.iter_mut().flat_map(|client| std::mem::take(&mut client.done)));
            if let Some(txn) = txns.iter().find(|txn| txn.end == End::Unknown && txn.phase == phase) {
                return Err(format!("the store went down by itself at the commit of {txn}"));
            }
            txns.push(read_all(plan, store, &shared)?);
        }
    }
    Ok(History::new(txns))
}

/// One more transaction, which reads every key there is: so no append stays unseen.
fn read_all<S: Store>(plan: &Plan, store: &S, shared: &Shared<'_>) -> Result<Txn, String> {
    let broken = |stop: Stop| format!("the transaction that reads all keys: {stop:?}");
    let began = shared.tick();
    let high = shared.begun.load(Ordering::Relaxed) / plan.stride + 2 * plan.width + 1;
    let mut tx = store.begin(Begin { serializable: false, reads_only: true }).map_err(broken)?;
    let found = tx.range(0..high).map_err(broken)?;
    tx.commit().map_err(broken)?;
    Ok(Txn {
        client: plan.clients,
        phase: shared.phase,
        began,
        ended: shared.tick(),
        end: End::Committed,
        serializable: false,
        ops: vec![Op::Range { low: 0, high, found }],
    })
}

/// What a run of many histories saw.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Transactions that committed.
    pub committed: u64,
    /// Transactions that were refused or rolled back.
    pub aborted: u64,
    /// Transactions whose commit a crash met.
    pub unknown: u64,
    /// Histories with write skew, where that was allowed.
    pub skewed: u64,
}

impl Counts {
    /// Adds a history.
    pub fn add(&mut self, history: &History, report: &Report) {
        for txn in &history.txns {
            match txn.end {
                End::Committed => self.committed += 1,
                End::Aborted => self.aborted += 1,
                End::Unknown => self.unknown += 1,
            }
        }
        self.skewed += u64::from(!report.allowed.is_empty());
    }
}

/// Judges a history. What is wrong is written to a file below the system's temporary directory, with the history, so
/// that
/// `isolation --check FILE` can judge it again.
///
/// # Errors
/// The findings, with the seed and the name of the file.
pub fn judge(name: &str, plan: &Plan, history: &History, options: &Options) -> Result<Report, String> {
    let report = check(history, options);
    if report.is_clean() {
        return Ok(report);
    }
    let path: PathBuf = std::env::temp_dir().join(format!(
        "bedstone-isolation-{name}-{}-{}.txt",
        plan.seed,
        std::process::id()
    ));
    let mut text = String::new();
    for line in format!("{name}, {plan:?}, {options:?}\n{report}").lines() {
        text += &format!("# {line}\n");
    }
    text += &history.to_string();
    let kept = match std::fs::write(&path, text) {
        Ok(()) => format!("the history is in {}", path.display()),
        Err(error) => format!("the history could not be kept in {}: {error}", path.display()),
    };
    Err(format!("{name}, seed {}, {plan:?}: {kept}\n{report}", plan.seed))
}
