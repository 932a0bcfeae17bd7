//! Wakers: who is called, when, and that nobody is forgotten.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak, mpsc};
use std::task::{Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use bedstone_io::sim::{CutMode, Fault, OpKind, Phase, Repeat, SimDisk, TraceDisk};
use bedstone_io::{Disk, Op};
use parking_lot::Mutex;

use super::{Rng, append, commit, config, create, payload, read};
use crate::{Background, Durability, Lsn, Wal, WalConfig, WalError};

/// Counts its calls.
#[derive(Default)]
struct Count(AtomicU64);

impl Count {
    fn new() -> (Arc<Self>, Waker) {
        let count = Arc::new(Self::default());
        (Arc::clone(&count), Waker::from(count))
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Unparks a thread.
struct Parked {
    thread: Thread,
    called: AtomicBool,
}

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.called.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

/// Blocks on nothing but a waker.
fn until_durable(wal: &Wal, upto: Lsn) -> Result<(), WalError> {
    loop {
        let parked = Arc::new(Parked { thread: thread::current(), called: AtomicBool::new(false) });
        if wal.notify_durable(upto, &Waker::from(Arc::clone(&parked)))? {
            return Ok(());
        }
        while !parked.called.load(Ordering::SeqCst) {
            thread::park();
        }
    }
}

/// With threads that do nothing of themselves within a test: relaxed commits have an hour.
fn threaded() -> WalConfig {
    let relaxed_delay = Duration::from_secs(3600);
    WalConfig { background: Background::Threads, buffer_bytes: 16 * 1024, relaxed_delay, ..config(1) }
}

#[test]
fn a_waker_is_called_when_its_position_is_durable_and_not_before() {
    let disk: Arc<dyn Disk> = SimDisk::new(1);
    let wal = create(&disk, config(1));
    let first = append(&wal, 1, b"first").unwrap();
    let ((early, early_waker), (late, late_waker), (other, other_waker)) =
        (Count::new(), Count::new(), Count::new());
    for _ in 0..3 {
        assert!(!wal.notify_durable(first.end, &early_waker).unwrap());
    }
    assert!(!wal.notify_durable(first.end, &other_waker).unwrap());
    // What is durable here is the end of a record, so a position within it is reached with it.
    assert!(!wal.notify_durable(first.lsn.plus(1), &other_waker).unwrap());
    wal.wait(first.end, Durability::Buffered).unwrap();
    wal.step();
    assert_eq!((early.get(), other.get()), (0, 0), "nobody asked for a sync");
    wal.wait(first.end, Durability::Sync).unwrap();
    assert_eq!((early.get(), other.get()), (1, 2), "kept once for each position");
    assert_eq!(wal.stats().synced_commits, 3, "a thread, and two positions");
    assert!(wal.notify_durable(first.end, &early_waker).unwrap());

    let second = append(&wal, 1, b"second").unwrap();
    assert!(!wal.notify_durable(second.end, &late_waker).unwrap());
    wal.request_sync();
    wal.request_sync();
    assert_eq!((wal.durable_lsn(), late.get()), (first.end, 0));
    wal.step();
    assert_eq!((wal.durable_lsn(), late.get()), (second.end, 1));
    let syncs = wal.stats().syncs;
    wal.request_sync();
    wal.step();
    assert_eq!(wal.stats().syncs, syncs, "there was nothing to sync");
    assert_eq!(early.get(), 1);
    assert!(matches!(wal.notify_durable(second.end.plus(1), &late_waker), Err(WalError::Config { .. })));
    // The log holds none of them any more.
    drop((early_waker, late_waker, other_waker));
    assert_eq!([early, late, other].map(|count| Arc::strong_count(&count)), [1; 3]);
}

/// At every moment of the work at which another thread could come in between two steps, wakers are handed over for
/// positions old and new. Each is called exactly once or told that it need not be.
#[test]
fn no_moment_loses_a_wake_up() {
    for failing in [None, Some(OpKind::Write), Some(OpKind::Sync)] {
        let disk = SimDisk::new(3);
        let trace = TraceDisk::new(disk.clone());
        let place: Arc<OnceLock<Weak<Wal>>> = Arc::default();
        let kept = Arc::new(Mutex::new(Vec::<(Lsn, Arc<Count>)>::new()));
        let (seen, keep) = (Arc::clone(&place), Arc::clone(&kept));
        trace.on_op(move |_, _| {
            let Some(wal) = seen.get().and_then(Weak::upgrade) else { return };
            let (durable, tail) = (wal.durable_lsn(), wal.tail());
            for upto in [durable, Lsn(durable.0.midpoint(tail.0)), tail] {
                let (count, waker) = Count::new();
                match wal.notify_durable(upto, &waker) {
                    Ok(true) => assert!(wal.durable_lsn() >= upto),
                    Ok(false) => keep.lock().push((upto, count)),
                    Err(error) => assert!(error.is_failed() && wal.durable_lsn() < upto),
                }
            }
        });
        let shared: Arc<dyn Disk> = trace.clone();
        let wal = Arc::new(create(&shared, config(1)));
        place.set(Arc::downgrade(&wal)).unwrap();
        if let Some(kind) = failing {
            disk.fail_nth(kind, 20, Fault::Eio, Repeat::Once);
        }
        for number in 0..40 {
            for record in 0..3 {
                let _ = append(&wal, 1, &payload(number * 3 + record, 700));
            }
            match number % 3 {
                0 => drop(wal.sync()),
                1 => wal.request_sync(),
                _ => drop(wal.wait(wal.tail(), Durability::Buffered)),
            }
            wal.step();
        }
        let _ = wal.sync();
        assert_eq!(wal.failed().is_some(), failing.is_some());
        let kept = kept.lock();
        assert!(kept.len() > 50, "{}", kept.len());
        for (upto, count) in kept.iter() {
            assert_eq!((count.get(), Arc::strong_count(count)), (1, 1), "{failing:?} {upto}");
        }
    }
}

/// One thread hands wakers over while another makes durable what they wait for, as close together as it gets.
#[test]
fn handing_over_races_with_the_sync() {
    let disk: Arc<dyn Disk> = SimDisk::new(4);
    let wal = create(&disk, config(1));
    let (mut kept, appended) = (Vec::new(), AtomicU64::new(0));
    thread::scope(|scope| {
        let syncing = scope.spawn(|| {
            while appended.load(Ordering::SeqCst) < 20_000 {
                wal.sync().unwrap();
            }
        });
        while appended.fetch_add(1, Ordering::SeqCst) < 20_000 {
            let record = append(&wal, 1, b"").unwrap();
            let (count, waker) = Count::new();
            // Again and again, until it is about to be durable or is.
            for _ in 0..20 {
                if wal.notify_durable(record.end, &waker).unwrap() {
                    break;
                }
            }
            kept.push((count, waker));
        }
        syncing.join().unwrap();
    });
    wal.sync().unwrap();
    for (count, _) in &kept {
        assert!(count.get() <= 1, "called once at most, since none is kept after it was durable");
        assert_eq!(Arc::strong_count(count), 2, "the log has forgotten it, so it was called if it was kept");
    }
}

#[test]
fn a_failure_and_the_end_call_everybody() {
    for (cfg, fails) in [(config(1), true), (config(1), false), (threaded(), true), (threaded(), false)] {
        let disk = SimDisk::new(2);
        let shared: Arc<dyn Disk> = disk.clone();
        let wal = create(&shared, cfg);
        let good = commit(&wal, b"good");
        let bad = append(&wal, 1, b"bad").unwrap();
        let wakers: Vec<_> = (0..10).map(|_| Count::new()).collect();
        for (_, waker) in &wakers {
            assert!(!wal.notify_durable(bad.end, waker).unwrap());
        }
        if fails {
            disk.fail_nth(OpKind::Sync, 1, Fault::Eio, Repeat::Once);
            thread::scope(|scope| {
                let waiting = scope.spawn(|| until_durable(&wal, bad.end));
                wal.sync().unwrap_err();
                assert!(waiting.join().unwrap().unwrap_err().is_failed());
            });
            assert!(wal.notify_durable(bad.end, &wakers[0].1).unwrap_err().is_failed());
            wal.request_sync();
            wal.step();
        }
        wal.shutdown();
        for (count, _) in &wakers {
            assert_eq!((count.get(), Arc::strong_count(count)), (1, 2));
        }
        assert!(wal.notify_durable(good.end, &wakers[0].1).unwrap());
        let error = wal.notify_durable(bad.end, &wakers[0].1).unwrap_err();
        assert_eq!((error.is_failed(), matches!(error, WalError::ShutDown)), (fails, !fails), "{error}");
        if !fails {
            wal.sync().unwrap();
            assert!(wal.notify_durable(bad.end, &wakers[0].1).unwrap());
        }
        wal.shutdown();
        wal.request_sync();
        assert!(wakers.iter().all(|(count, _)| count.get() == 1));
    }
}

#[test]
fn closing_makes_durable_what_was_asked_for() {
    for cfg in [config(1), threaded()] {
        let disk = SimDisk::new(5);
        let shared: Arc<dyn Disk> = disk.clone();
        let wal = create(&shared, cfg);
        let appended = append(&wal, 1, b"asked for").unwrap();
        let (count, waker) = Count::new();
        let durable = wal.notify_durable(appended.end, &waker).unwrap();
        assert!(!durable);
        wal.request_sync();
        wal.close().unwrap();
        assert_eq!(count.get(), 1);
        let after: Arc<dyn Disk> = disk.fork_cut(CutMode::Drop, 1);
        assert_eq!(read(&after, Lsn::ZERO).unwrap().0.len(), 1);
    }
}

#[test]
fn the_logs_thread_syncs_when_asked() {
    let disk: Arc<dyn Disk> = SimDisk::new(6);
    let wal = create(&disk, threaded());
    for number in 0..50 {
        let appended = append(&wal, 1, &payload(number, 300)).unwrap();
        if number % 2 == 0 {
            // Has left the mark already and given it an hour.
            wal.wait(appended.end, Durability::Relaxed).unwrap();
        }
        wal.request_sync();
        until_durable(&wal, appended.end).unwrap();
        assert!(wal.durable_lsn() >= appended.end);
    }
}

#[test]
fn many_threads_wait_and_are_called() {
    for seed in 0..12 {
        let disk = SimDisk::new(seed);
        let trace = TraceDisk::new(disk.clone());
        trace.on_op(|phase, event| {
            if event.op == Op::Sync && phase == Phase::Before {
                // Others get the chance to append while the sync is under way.
                thread::yield_now();
            }
        });
        let shared: Arc<dyn Disk> = trace.clone();
        let wal = create(&shared, WalConfig { syncs_in_flight: 1 + (seed % 2) as usize, ..threaded() });
        let fails = seed % 3 == 2;
        if fails {
            let kind = if seed % 2 == 0 { OpKind::Sync } else { OpKind::Write };
            disk.fail_nth(kind, 1 + Rng(seed).below(40), Fault::Eio, Repeat::Once);
        }
        let acknowledged = Mutex::new(Vec::new());
        let refused = AtomicU64::new(0);
        thread::scope(|scope| {
            for thread in 0..64_u64 {
                let (wal, acknowledged, refused) = (&wal, &acknowledged, &refused);
                scope.spawn(move || {
                    let mut rng = Rng(seed * 1000 + thread);
                    let (idle, idle_waker) = Count::new();
                    let mut handed_over = 0;
                    for number in 0..20 {
                        let outcome = append(wal, thread as u8, &payload(number, rng.below(500) as usize))
                            .and_then(|appended| {
                                match rng.below(4) {
                                    0 => wal.wait(appended.end, Durability::Sync)?,
                                    1 => {
                                        wal.wait(appended.end, Durability::Relaxed)?;
                                        wal.request_sync();
                                        wal.wait(appended.end, Durability::Sync)?;
                                    }
                                    2 => {
                                        // A task that loses interest.
                                        let waits = !wal.notify_durable(appended.end, &idle_waker)?;
                                        handed_over += u64::from(waits);
                                        wal.request_sync();
                                        return Ok(());
                                    }
                                    _ => {
                                        wal.request_sync();
                                        until_durable(wal, appended.end)?;
                                    }
                                }
                                assert!(wal.durable_lsn() >= appended.end);
                                acknowledged.lock().push(appended.lsn);
                                Ok(())
                            });
                        if let Err(error) = outcome {
                            assert!(error.is_failed(), "{error}");
                            refused.fetch_add(1, Ordering::Relaxed);
                            break;
                        }
                    }
                    (idle, handed_over)
                });
            }
        });
        assert_eq!(wal.failed().is_some(), fails && refused.into_inner() > 0, "seed {seed}");
        let after: Arc<dyn Disk> = disk.fork_cut(CutMode::Drop, seed);
        let found: Vec<Lsn> = read(&after, Lsn::ZERO).unwrap().0.iter().map(|record| record.lsn).collect();
        let acknowledged = acknowledged.into_inner();
        assert!(acknowledged.iter().all(|lsn| found.binary_search(lsn).is_ok()), "seed {seed}");
        wal.shutdown();
    }
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("as asked");
    }
}

#[test]
fn a_waker_that_panics_harms_nobody() {
    for cfg in [config(1), threaded()] {
        let disk: Arc<dyn Disk> = SimDisk::new(7);
        let wal = create(&disk, cfg);
        for round in 0..3 {
            let appended = append(&wal, 1, &payload(round, 100)).unwrap();
            let (count, waker) = Count::new();
            assert!(!wal.notify_durable(appended.end, &Waker::from(Arc::new(Panics))).unwrap());
            assert!(!wal.notify_durable(appended.end, &waker).unwrap());
            thread::scope(|scope| {
                // Two after the one that panics.
                let waiting = scope.spawn(|| until_durable(&wal, appended.end));
                wal.sync().unwrap();
                waiting.join().unwrap().unwrap();
            });
            if round == 2 {
                wal.shutdown();
                assert_eq!(count.get(), 1);
            }
        }
        assert!(wal.failed().is_none());
    }
}

/// A task that keeps the log open and is kept by its waker alone.
struct Last {
    wal: Mutex<Option<Arc<Wal>>>,
    alone: Mutex<mpsc::Receiver<()>>,
    gone: mpsc::Sender<()>,
}

impl Wake for Last {
    fn wake(self: Arc<Self>) {
        self.alone.lock().recv().unwrap();
        let wal = self.wal.lock().take();
        assert_eq!(wal.as_ref().map(Arc::strong_count), Some(1));
        drop(wal);
        self.gone.send(()).unwrap();
    }
}

#[test]
fn the_log_may_be_dropped_by_a_waker() {
    let disk: Arc<dyn Disk> = SimDisk::new(8);
    let wal = Arc::new(create(&disk, threaded()));
    let appended = append(&wal, 1, b"x").unwrap();
    let ((release, alone), (gone, end)) = (mpsc::channel(), mpsc::channel());
    let last = Last { wal: Mutex::new(Some(Arc::clone(&wal))), alone: Mutex::new(alone), gone };
    assert!(!wal.notify_durable(appended.end, &Waker::from(Arc::new(last))).unwrap());
    wal.sync().unwrap();
    drop(wal);
    release.send(()).unwrap();
    end.recv().unwrap();
    assert_eq!(read(&disk, Lsn::ZERO).unwrap().0.len(), 1);
}
