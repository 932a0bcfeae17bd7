//! Many threads commit at once: who is told what, and when.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use bedstone_io::sim::{CutMode, Fault, OpKind, Phase, Repeat, SimDisk, TraceDisk};
use bedstone_io::{Disk, Op};
use parking_lot::Mutex;

use super::{Rng, SEGMENT, append, config, create, payload, read};
use crate::{Background, Durability, Lsn, WalConfig};

fn threaded(syncs_in_flight: usize, buffer_bytes: usize) -> WalConfig {
    WalConfig { syncs_in_flight, buffer_bytes, background: Background::Threads, ..config(1) }
}

/// What the medium has for certain, by watching the calls from outside: a sync covers a file's writes that had
/// returned before it began.
#[derive(Default)]
struct Observer {
    /// Per segment: end of the contiguous written prefix; the same at the begin of the syncs under way, by thread.
    state: Mutex<Vec<(u64, u64)>>,
}

impl Observer {
    fn segment(path: &std::path::Path) -> Option<usize> {
        let start: u64 = path.to_str()?.strip_prefix("/db/redo/")?.strip_suffix(".log")?.parse().ok()?;
        Some((start / SEGMENT) as usize)
    }

    fn wrote(&self, segment: usize, end: u64) {
        let mut state = self.state.lock();
        if state.len() <= segment {
            state.resize(segment + 1, (0, 0));
        }
        state[segment].0 = state[segment].0.max(end);
    }

    /// Everything below is on the medium.
    fn durable(&self) -> u64 {
        let state = self.state.lock();
        let mut total = 0;
        for (_, synced) in state.iter() {
            total += synced;
            if *synced < SEGMENT {
                break;
            }
        }
        total
    }
}

#[test]
fn nobody_is_acknowledged_before_a_sync_that_covers_him() {
    for (syncs, buffer) in [(1, 1 << 20), (2, 1 << 20), (1, 16 * 1024), (2, 16 * 1024)] {
        let trace = TraceDisk::new(SimDisk::new(1));
        let observer = Arc::new(Observer::default());
        let watching = Arc::clone(&observer);
        thread_local! {
            static BEGAN: std::cell::Cell<(usize, u64)> = const { std::cell::Cell::new((0, 0)) };
        }
        trace.on_op(move |phase, event| {
            let Some(segment) = Observer::segment(&event.path) else { return };
            match (event.op, phase) {
                (Op::Write, Phase::After) if event.ok && event.offset >= 4096 => {
                    // The zeros up to the end of the page count here too, so the bound is a page too generous for
                    // a page; the positions tested below are exact because a later write never ends earlier.
                    watching.wrote(segment, event.offset - 4096 + event.len);
                }
                (Op::Sync, Phase::Before) => {
                    let written = watching.state.lock().get(segment).map_or(0, |entry| entry.0);
                    BEGAN.set((segment, written));
                    // Others get the chance to append and write while the sync is under way.
                    thread::yield_now();
                }
                (Op::Sync, Phase::After) if event.ok => {
                    let (segment, written) = BEGAN.get();
                    let mut state = watching.state.lock();
                    if let Some(entry) = state.get_mut(segment) {
                        entry.1 = entry.1.max(written);
                    }
                }
                _ => {}
            }
        });
        let disk: Arc<dyn Disk> = trace.clone();
        let wal = create(&disk, threaded(syncs, buffer));
        thread::scope(|scope| {
            for thread in 0..64 {
                let (wal, observer) = (&wal, &observer);
                scope.spawn(move || {
                    let mut rng = Rng(thread);
                    for number in 0..20 {
                        let len = rng.below(wal.max_payload() as u64 / 4) as usize;
                        let appended = append(wal, thread as u8, &payload(number, len)).unwrap();
                        wal.wait(appended.end, Durability::Sync).unwrap();
                        let durable = observer.durable();
                        assert!(durable >= appended.end.0, "{durable} < {}", appended.end);
                    }
                });
            }
        });
        let stats = wal.stats();
        assert_eq!((stats.records, stats.durable), (64 * 20, wal.tail()));
        assert!(stats.commits_per_sync.iter().sum::<u64>() <= stats.syncs);
        assert!(stats.syncs < 64 * 20, "commits share syncs: {stats:?}");
        wal.close().unwrap();
        assert_eq!(read(&disk, Lsn::ZERO).unwrap().0.len(), 64 * 20);
    }
}

#[test]
fn each_threads_commits_survive_as_a_prefix_whenever_the_power_goes() {
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let shared: Arc<dyn Disk> = disk.clone();
        let mut rng = Rng(seed);
        let wal = create(&shared, threaded(1 + (seed % 2) as usize, (16 * 1024) << (seed % 3)));
        let mode = [CutMode::Keep, CutMode::Drop, CutMode::Random][rng.below(3) as usize];
        disk.set_cut_after(1 + rng.below(200), mode);
        let acknowledged: Vec<AtomicU64> = (0..8).map(|_| AtomicU64::new(0)).collect();
        thread::scope(|scope| {
            for (thread, mine) in acknowledged.iter().enumerate() {
                let wal = &wal;
                scope.spawn(move || {
                    for number in 0..100_u64 {
                        let mut bytes = number.to_le_bytes().to_vec();
                        bytes.extend(payload(number, 300 + thread));
                        let durable = append(wal, thread as u8, &bytes)
                            .and_then(|appended| wal.wait(appended.end, Durability::Sync));
                        match durable {
                            Ok(()) => mine.store(number + 1, Ordering::Relaxed),
                            Err(_) => return,
                        }
                    }
                });
            }
        });
        drop(wal);
        disk.cancel_cut();
        disk.power_cut(mode);
        let after: Arc<dyn Disk> = disk.reopen();
        let (records, reader) = read(&after, Lsn::ZERO).unwrap();
        assert!(super::is_torn(&reader, Lsn::ZERO), "seed {seed}");
        let mut next = [0_u64; 8];
        for record in &records {
            let counter = &mut next[record.kind as usize];
            assert_eq!(record.payload[..8], counter.to_le_bytes(), "seed {seed}");
            *counter += 1;
        }
        for (found, acknowledged) in next.iter().zip(&acknowledged) {
            assert!(
                *found >= acknowledged.load(Ordering::Relaxed),
                "seed {seed}: {next:?} of {acknowledged:?}"
            );
        }
    }
}

#[test]
fn a_failure_reaches_everybody_and_nobody_hangs() {
    for seed in 0..60 {
        let disk = SimDisk::new(seed);
        let shared: Arc<dyn Disk> = disk.clone();
        let mut rng = Rng(seed);
        let wal = create(&shared, threaded(1 + (seed % 2) as usize, 16 * 1024));
        let kind = if rng.below(2) == 0 { OpKind::Sync } else { OpKind::Write };
        disk.fail_nth(kind, 1 + rng.below(60), Fault::Eio, Repeat::Once);
        let refused = AtomicU64::new(0);
        thread::scope(|scope| {
            for thread in 0..16_u64 {
                let (wal, refused) = (&wal, &refused);
                scope.spawn(move || {
                    let mut rng = Rng(seed * 100 + thread);
                    loop {
                        let bytes = payload(thread, rng.below(1500) as usize);
                        let durability = match rng.below(4) {
                            0 => Durability::Buffered,
                            1 => Durability::Relaxed,
                            _ => Durability::Sync,
                        };
                        let outcome =
                            append(wal, 1, &bytes).and_then(|appended| wal.wait(appended.end, durability));
                        if let Err(error) = outcome {
                            assert!(error.is_failed(), "{error}");
                            refused.fetch_add(1, Ordering::Relaxed);
                            return;
                        }
                        if wal.tail().0 > 40 * SEGMENT {
                            return;
                        }
                    }
                });
            }
        });
        let failed = wal.failed().is_some();
        assert_eq!(failed, refused.load(Ordering::Relaxed) > 0, "seed {seed}");
    }
}

#[test]
fn nobody_hangs_where_nobody_syncs() {
    let trace = TraceDisk::new(SimDisk::new(1));
    trace.on_op(|phase, event| {
        if event.op == Op::Write && phase == Phase::Before {
            thread::yield_now();
        }
    });
    let disk: Arc<dyn Disk> = trace.clone();
    let wal = create(&disk, threaded(1, 16 * 1024));
    thread::scope(|scope| {
        for thread in 0..32 {
            let wal = &wal;
            scope.spawn(move || {
                for number in 0..60 {
                    let appended = append(wal, 1, &payload(number, 1800)).unwrap();
                    if thread % 2 == 0 {
                        wal.wait(appended.end, Durability::Buffered).unwrap();
                    }
                }
            });
        }
    });
    assert!(wal.stats().buffer_full > 0);
    assert_eq!(wal.stats().records, 32 * 60);
}

#[test]
fn a_panic_in_the_medium_fails_the_log_instead_of_hanging_it() {
    let trace = TraceDisk::new(SimDisk::new(1));
    let disk: Arc<dyn Disk> = trace.clone();
    let wal = create(&disk, threaded(2, 16 * 1024));
    let struck = Arc::new(AtomicBool::new(false));
    let armed = Arc::clone(&struck);
    trace.on_op(move |phase, event| {
        // Of a committer, not of the thread that makes segments.
        let commit = event.op == Op::Sync && event.is_on(".log");
        if commit && phase == Phase::Before && !armed.swap(true, Ordering::Relaxed) {
            panic!("as asked");
        }
    });
    let panicked = AtomicU64::new(0);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let wal = &wal;
                scope.spawn(move || {
                    for number in 0..50 {
                        let Ok(appended) = append(wal, thread, &payload(number, 500)) else { return };
                        if wal.wait(appended.end, Durability::Sync).is_err() {
                            return;
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            panicked.fetch_add(u64::from(thread.join().is_err()), Ordering::Relaxed);
        }
    });
    assert!(struck.load(Ordering::Relaxed));
    assert!(wal.failed().is_some());
    assert!(panicked.into_inner() <= 1);
}
