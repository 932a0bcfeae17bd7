//! Tickets: commits that are waited for later, by blocking or as futures.

use super::*;
use crate::{CommitTicket, Durability, Error, WriteBatch};
use bedstone_io::Op;
use bedstone_io::sim::{CutMode, Fault, OpKind, Phase, Repeat, TraceDisk};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

/// Counts how often it is called, and unparks a thread.
struct Signal {
    thread: Thread,
    calls: AtomicU64,
}

impl Signal {
    fn new() -> Arc<Self> {
        Arc::new(Self { thread: thread::current(), calls: AtomicU64::new(0) })
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.thread.unpark();
    }
}

/// The smallest executor there is. It polls only when it was woken.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let signal = Signal::new();
    let waker = Waker::from(signal.clone());
    let mut seen = 0;
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        while signal.calls() == seen {
            thread::park();
        }
        seen = signal.calls();
    }
}

fn poll(ticket: &mut CommitTicket, signal: &Arc<Signal>) -> Poll<Result<crate::CommitInfo, Error>> {
    Pin::new(ticket).poll(&mut Context::from_waker(&Waker::from(signal.clone())))
}

/// The log's threads do nothing of themselves within a test: relaxed commits have an hour.
fn threaded(disk: &Arc<SimDisk>) -> Builder {
    small(disk).background(Background::Threads).relaxed_delay(Duration::from_secs(3600))
}

#[test]
fn a_ticket_may_be_taken_anywhere() {
    fn anywhere<T: Send + Sync + Unpin + 'static>() {}
    anywhere::<CommitTicket>();
}

#[test]
fn a_commit_is_visible_at_once_and_durable_later() {
    let disk = SimDisk::new(71);
    let db = create(&disk);
    let table = db.table("t").unwrap();
    let first = table.put_ticket(b"a", b"1").unwrap();
    let mut batch = WriteBatch::new();
    batch.put(&table, b"b", b"2").unwrap();
    batch.put(&table, b"c", b"3").unwrap();
    let mut second = db.write_ticket(batch).unwrap();
    assert_eq!(table.iter().unwrap().count(), 3);
    assert!(first.lsn() > 0 && first.lsn() < second.lsn());
    assert!(!first.is_durable() && !second.is_durable() && db.durable_lsn() <= first.lsn());
    let signal = Signal::new();
    assert!(poll(&mut second, &signal).is_pending());
    let lost = reopen(&disk.fork_cut(CutMode::Drop, 1));
    assert_eq!(lost.open_table("t").unwrap().map_or(0, |t| t.iter().unwrap().count()), 0);

    // Waiting for the first takes the second along: it is in the buffer, too.
    let lsn = first.lsn();
    assert_eq!(first.wait().unwrap().lsn, lsn);
    assert_eq!(signal.calls(), 1);
    assert!(second.is_durable() && db.durable_lsn() > second.lsn());
    let lsn = second.lsn();
    assert_eq!(block_on(second).unwrap().lsn, lsn);

    let third = table.put_ticket(b"d", b"4").unwrap();
    db.step().unwrap();
    assert!(third.is_durable(), "asked for when the ticket was made");
    let kept = reopen(&disk.fork_cut(CutMode::Drop, 1));
    assert_eq!(kept.table("t").unwrap().iter().unwrap().count(), 4);

    let nothing = db.write_ticket(WriteBatch::new()).unwrap();
    assert!(nothing.lsn() == 0 && nothing.is_durable());
    assert_eq!(block_on(nothing).unwrap().lsn, 0);
}

#[test]
fn a_position_may_be_waited_for() {
    let disk = SimDisk::new(72);
    let db = create(&disk);
    let table = db.table("t").unwrap();
    let commits: Vec<u64> =
        (0..20).map(|i| table.put_with(key(i), value(i, 200), Durability::Relaxed).unwrap().lsn).collect();
    assert!(db.durable_lsn() <= commits[0]);
    db.wait_durable(0).unwrap();
    for (i, &lsn) in commits.iter().enumerate() {
        db.wait_durable(lsn).unwrap();
        assert!(db.durable_lsn() > lsn);
        let after = reopen(&disk.fork_cut(CutMode::Drop, lsn));
        assert!(after.table("t").unwrap().contains(key(i as u64)).unwrap());
    }
    let tail = db.stats().wal.tail.0;
    for lsn in [tail, tail + 1, u64::MAX] {
        let error = db.wait_durable(lsn).unwrap_err();
        assert!(matches!(error, Error::BadOption { option: "lsn", .. }), "{error}");
        assert!(error.to_string().contains("Database::sync"), "{error}");
    }
}

#[test]
fn tickets_are_futures_that_need_no_runtime() {
    let disk = SimDisk::new(73);
    let db = threaded(&disk).create(DIR).unwrap();
    let table = db.table("t").unwrap();
    thread::scope(|scope| {
        for t in 0..8 {
            let (db, table) = (&db, &table);
            scope.spawn(move || {
                for i in 0..30 {
                    let tickets: Vec<_> = (0..4)
                        .map(|j| table.put_ticket(key(t * 1000 + i * 4 + j), value(i, 50)).unwrap())
                        .collect();
                    let last = tickets.last().unwrap().lsn();
                    match (t + i) % 3 {
                        0 => {
                            let lsns = block_on(async {
                                let mut lsns = Vec::new();
                                for ticket in tickets {
                                    lsns.push(ticket.await.unwrap().lsn);
                                }
                                lsns
                            });
                            assert!(lsns.is_sorted());
                        }
                        1 => {
                            tickets.into_iter().for_each(|ticket| assert!(ticket.wait().unwrap().lsn <= last))
                        }
                        _ => db.wait_durable(last).unwrap(),
                    }
                    assert!(db.durable_lsn() > last);
                }
            });
        }
    });
    let after = reopen(&disk.fork_cut(CutMode::Drop, 1));
    assert_eq!(after.table("t").unwrap().iter().unwrap().count(), 8 * 30 * 4);
    assert_clean(&after);
}

#[test]
fn a_ticket_may_move_to_another_thread_and_another_waker() {
    let disk = SimDisk::new(74);
    let db = create(&disk);
    let mut ticket = db.table("t").unwrap().put_ticket(b"k", b"v").unwrap();
    let here = Signal::new();
    for _ in 0..3 {
        assert!(poll(&mut ticket, &here).is_pending());
    }
    let (polled, go) = mpsc::channel();
    thread::scope(|scope| {
        let there = scope.spawn(move || {
            let signal = Signal::new();
            assert!(poll(&mut ticket, &signal).is_pending());
            polled.send(()).unwrap();
            while signal.calls() == 0 {
                thread::park();
            }
            let outcome = poll(&mut ticket, &signal);
            assert!(matches!(outcome, Poll::Ready(Ok(commit)) if commit.lsn == ticket.lsn()), "{outcome:?}");
        });
        go.recv().unwrap();
        db.step().unwrap();
        there.join().unwrap();
    });
    assert_eq!(here.calls(), 1);
}

#[test]
fn a_failed_log_reaches_everybody_who_waits() {
    let disk = SimDisk::new(75);
    let db = create(&disk);
    let table = db.table("t").unwrap();
    let good = table.put_with(b"good", b"1", Durability::Sync).unwrap().lsn;
    let (mut polled, waits) = (table.put_ticket(b"x", b"1").unwrap(), table.put_ticket(b"y", b"1").unwrap());
    let (later, lsn) = (table.put_ticket(b"z", b"1").unwrap(), polled.lsn());
    let signal = Signal::new();
    assert!(poll(&mut polled, &signal).is_pending());
    disk.fail_nth_on(".log", OpKind::Sync, 1, Fault::Eio, Repeat::Once);
    assert!(matches!(waits.wait(), Err(Error::NotKnownDurable(_))));
    assert_eq!(signal.calls(), 1);
    assert!(matches!(poll(&mut polled, &signal), Poll::Ready(Err(Error::NotKnownDurable(_)))));
    assert!(matches!(block_on(later), Err(Error::NotKnownDurable(_))));
    assert!(matches!(db.wait_durable(lsn), Err(Error::NotKnownDurable(_))));
    assert!(!polled.is_durable());
    db.wait_durable(good).unwrap();
    assert!(matches!(table.put_ticket(b"more", b"1"), Err(Error::ReadOnlyFailed(_))));
    assert!(db.stats().read_only_because.is_some());
}

#[test]
fn a_failure_in_the_background_wakes_the_future() {
    for kind in [OpKind::Sync, OpKind::Write] {
        let disk = SimDisk::new(76);
        let db = threaded(&disk).create(DIR).unwrap();
        let table = db.table("t").unwrap();
        table.put(b"good", b"1").unwrap();
        disk.fail_nth_on(".log", kind, 1, Fault::Eio, Repeat::Once);
        let ticket = table.put_ticket(b"bad", b"1").unwrap();
        assert!(matches!(block_on(ticket), Err(Error::NotKnownDurable(_))));
        assert!(matches!(table.put(b"more", b"1"), Err(Error::ReadOnlyFailed(_))));
    }
}

#[test]
fn a_ticket_may_be_dropped() {
    let disk = SimDisk::new(77);
    let db = create(&disk);
    let table = db.table("t").unwrap();
    drop(table.put_ticket(b"unpolled", b"1").unwrap());
    let mut ticket = table.put_ticket(b"polled", b"1").unwrap();
    let signal = Signal::new();
    assert!(poll(&mut ticket, &signal).is_pending());
    drop(ticket);
    db.step().unwrap();
    assert_eq!((signal.calls(), Arc::strong_count(&signal)), (1, 1), "in vain, but nothing is left");
    let after = reopen(&disk.fork_cut(CutMode::Drop, 1));
    assert_eq!(after.table("t").unwrap().iter().unwrap().count(), 2);
}

#[test]
fn closing_ends_every_wait() {
    let disk = SimDisk::new(78);
    let db = create(&disk);
    let table = db.table("t").unwrap();
    let mut ticket = table.put_ticket(b"a", b"1").unwrap();
    let signal = Signal::new();
    assert!(poll(&mut ticket, &signal).is_pending());
    db.close().unwrap();
    assert_eq!(signal.calls(), 1);
    assert!(matches!(poll(&mut ticket, &signal), Poll::Ready(Ok(_))), "closing made it durable");
    ticket.wait().unwrap();

    // The log is made durable even if the checkpoint fails; and if that fails too, nobody knows.
    for log_fails in [false, true] {
        let disk = disk.fork(2);
        let db = reopen(&disk);
        let table = db.table("t").unwrap();
        let mut tickets: Vec<_> = (0..3).map(|i| table.put_ticket(key(i), b"1").unwrap()).collect();
        let lsn = tickets[0].lsn();
        let signal = Signal::new();
        assert!(poll(&mut tickets[0], &signal).is_pending());
        disk.fail_nth_on("data", OpKind::Write, 1, Fault::Eio, Repeat::Forever);
        if log_fails {
            disk.fail_nth(OpKind::Sync, 1, Fault::Eio, Repeat::Forever);
        }
        db.clone().close().unwrap_err();
        assert_eq!(signal.calls(), 1);
        let ops = disk.ops();
        let as_known = |e: Result<(), Error>| match e {
            Ok(()) => !log_fails,
            Err(e) => log_fails && matches!(e, Error::NotKnownDurable(_)),
        };
        let Poll::Ready(first) = poll(&mut tickets[0], &signal) else { panic!("it has ended") };
        assert!(as_known(first.map(drop)));
        assert!(as_known(block_on(tickets.pop().unwrap()).map(drop)));
        assert!(as_known(tickets.pop().unwrap().wait().map(drop)));
        assert!(as_known(db.wait_durable(lsn)));
        assert_eq!(disk.ops(), ops, "the files may be somebody else's now");
    }
}

/// A task as simple executors have them: kept by its waker, and with it all that it owns.
struct Task {
    ticket: Mutex<Option<CommitTicket>>,
    alone: Mutex<mpsc::Receiver<()>>,
    gone: mpsc::Sender<()>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.alone.lock().unwrap().recv().unwrap();
        drop(self.ticket.lock().unwrap().take());
        self.gone.send(()).unwrap();
    }
}

#[test]
fn the_last_handle_may_go_with_a_waker() {
    let disk = SimDisk::new(79);
    let trace = TraceDisk::new(disk.clone());
    // The log cannot get on before the task is in place.
    let gate = Arc::new(Mutex::new(()));
    let passed = gate.clone();
    trace.on_op(move |phase, event| {
        if phase == Phase::Before && event.op == Op::Sync && event.is_on(".log") {
            drop(passed.lock().unwrap());
        }
    });
    let db = threaded(&disk).disk(trace).create(DIR).unwrap();
    let table = db.table("t").unwrap();
    let ((release, alone), (gone, end)) = (mpsc::channel(), mpsc::channel());
    let task = Arc::new(Task { ticket: Mutex::new(None), alone: Mutex::new(alone), gone });
    let held = gate.lock().unwrap();
    let mut ticket = table.put_ticket(b"k", b"v").unwrap();
    let waker = Waker::from(task.clone());
    assert!(Pin::new(&mut ticket).poll(&mut Context::from_waker(&waker)).is_pending());
    *task.ticket.lock().unwrap() = Some(ticket);
    drop((waker, task, held));
    drop((table, db));
    release.send(()).unwrap();
    end.recv().unwrap();
    let db = reopen(&disk);
    assert!(db.table("t").unwrap().contains(b"k").unwrap());
    assert_clean(&db);
}

/// Whenever the power goes: what is there is a prefix of the commits, and everything that a ticket called
/// durable is in it.
#[test]
fn what_survives_a_crash_is_a_prefix() {
    for seed in 0..60_u64 {
        let disk = SimDisk::new(seed);
        let db = create(&disk);
        let table = db.table("t").unwrap();
        db.sync().unwrap();
        let mode = [CutMode::Random, CutMode::Drop, CutMode::Keep][seed as usize % 3];
        disk.set_cut_after(1 + seed / 3 * 2, mode);
        let (mut tickets, mut durable, mut made) = (Vec::new(), 0, 0);
        for i in 0..200 {
            let ticket = if i % 3 == 0 {
                let mut batch = WriteBatch::new();
                batch.put(&table, key(i), value(i, 300)).unwrap();
                batch.put(&table, key(1000 + i), value(i, 40)).unwrap();
                db.write_ticket(batch)
            } else {
                table.put_ticket(key(i), value(i, 700))
            };
            let Ok(ticket) = ticket else { break };
            made = i + 1;
            tickets.push(ticket);
            match (i + seed) % 11 {
                0 => drop(db.step()),
                5 => drop(db.wait_durable(tickets[tickets.len() / 2].lsn())),
                9 if i % 2 == 0 => drop(db.checkpoint()),
                _ => {}
            }
            durable = tickets.iter().take_while(|ticket| ticket.is_durable()).count() as u64;
            assert!(tickets[durable as usize..].iter().all(|ticket| !ticket.is_durable()), "seed {seed}");
        }
        drop((tickets, table, db));
        disk.cancel_cut();
        disk.power_cut(mode);
        let disk = disk.reopen();
        let db = reopen(&disk);
        let table = db.table("t").unwrap();
        let found = (0..200).take_while(|&i| table.contains(key(i)).unwrap()).count() as u64;
        assert!((durable..=made + 1).contains(&found), "seed {seed}: {durable} <= {found} <= {made}");
        let second = (0..found).filter(|i| i % 3 == 0).count() as u64;
        assert_eq!(
            table.iter().unwrap().count() as u64,
            found + second,
            "seed {seed}: a prefix, of whole batches"
        );
        assert_clean(&db);
    }
}
