//! Many threads on a small pool with checkpoints all the while: no torn page, no page that goes back in time, no unit used
//! twice, and what a checkpoint made durable is whole.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::crash::Random;
use super::*;

/// Writers raise each page's value; a page's value is written under a lock of its own here, so the order is known.
fn stress(frames: usize, pages: usize, policy: PolicyKind, seed: u64, rounds: u64) {
    let disk = formatted(seed, 4096);
    let config = config(frames, 4096, Background::Threads, policy);
    let pool = open(&disk, &config).unwrap();
    let slots: Vec<Mutex<(PageId, u64)>> =
        (0..pages).map(|_| Mutex::new((create(&pool, 0).unwrap(), 0))).collect();
    let floor: Vec<AtomicU64> = (0..pages).map(|_| AtomicU64::new(0)).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (pool, slots, floor, stop) = (&pool, &slots, &floor, &stop);
        for thread in 0..2_u64 {
            scope.spawn(move || {
                let mut random = Random(seed * 100 + thread);
                for _ in 0..rounds {
                    let at = random.below(slots.len() as u64) as usize;
                    let mut slot = slots[at].lock();
                    if random.below(50) == 0 {
                        let (id, value) = *slot;
                        assert_eq!(free(pool, id).unwrap(), value);
                        *slot = (create(pool, value).unwrap(), value);
                    } else {
                        let (id, value) = *slot;
                        assert_eq!(change(pool, id, value + 1).unwrap(), value, "seed {seed}: {id}");
                        slot.1 = value + 1;
                        floor[at].fetch_max(value + 1, Ordering::SeqCst);
                    }
                }
            });
        }
        for thread in 0..2_u64 {
            scope.spawn(move || {
                let mut random = Random(seed * 1000 + thread);
                let mut held = std::collections::VecDeque::new();
                while !stop.load(Ordering::Relaxed) {
                    let at = random.below(slots.len() as u64) as usize;
                    let Some(id) = slots[at].try_lock().map(|slot| slot.0) else { continue };
                    let least = floor[at].load(Ordering::SeqCst);
                    match pin(pool, id) {
                        Ok(mut pin) => {
                            // The page may have been freed and given out again; then it is another slot's.
                            let value = value_of(&pin, id);
                            if slots[at].try_lock().is_some_and(|slot| slot.0 == id) {
                                assert!(
                                    value >= least,
                                    "seed {seed}: {id} went back from {least} to {value}"
                                );
                            }
                            if random.below(8) == 0 && !pin.should_copy() {
                                held.push_back((pin, value));
                            }
                        }
                        Err(PoolError::Free(_)) => {}
                        Err(error) => panic!("seed {seed}: {error}"),
                    }
                    if held.len() > 4 {
                        let (pin, value) = held.pop_front().unwrap();
                        let id = pin.page_id();
                        assert_eq!(value_of(&pin, id), value, "seed {seed}: a pinned page changed");
                    }
                    if random.below(64) == 0 {
                        let some: Vec<PageId> = slots
                            .iter()
                            .skip(at)
                            .take(16)
                            .filter_map(|slot| slot.try_lock().map(|slot| slot.0))
                            .collect();
                        match pool.fault_many(&some, Access::Scan) {
                            Ok(()) | Err(PoolError::Free(_)) => {}
                            Err(error) => panic!("seed {seed}: {error}"),
                        }
                        pool.prefetch(&some);
                    }
                }
            });
        }
        let checkpointer = scope.spawn(move || {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                checkpoint(pool).unwrap();
                count += 1;
                std::thread::sleep(Duration::from_micros(200));
            }
            count
        });
        scope.spawn(move || {
            // The writers are the first two threads; when every page count stands still they are done.
            let total = || slots.iter().map(|slot| slot.lock().1).sum::<u64>();
            let mut last = 0;
            loop {
                std::thread::sleep(Duration::from_millis(50));
                let now = total();
                if now == last && now > 0 {
                    break;
                }
                last = now;
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(checkpointer.join().unwrap() > 0);
    });
    checkpoint(&pool).unwrap();
    assert_settled(&pool, seed);
    drop(pool);
    let disk = disk.reopen();
    let pool = open(&disk, &config).unwrap();
    for slot in &slots {
        let (id, value) = *slot.lock();
        assert_eq!(value_of(&pin(&pool, id).unwrap(), id), value, "seed {seed}: {id} after opening again");
    }
    assert_eq!(pool.live_pages().len(), slots.len(), "seed {seed}");
}

#[test]
fn more_pages_than_frames() {
    stress(64, 300, PolicyKind::S3Fifo, 1, 20_000);
    stress(80, 300, PolicyKind::Midpoint, 2, 20_000);
}

#[test]
fn everything_resident() {
    stress(512, 40, PolicyKind::S3Fifo, 3, 40_000);
}
