//! Running many seeds on all cores, and what to say of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Runs `run` for every seed in `seeds` on `threads` threads. Panics count as failures of their seed.
///
/// Returns the failures, by seed; after `most` of them no more seeds are begun.
pub fn run_seeds(
    seeds: std::ops::Range<u64>,
    threads: usize,
    most: usize,
    run: impl Fn(u64) -> Result<(), String> + Sync,
) -> Vec<(u64, String)> {
    let next = AtomicU64::new(seeds.start);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let outcome = catch_unwind(AssertUnwindSafe(|| run(seed)));
                    let failure = match outcome {
                        Ok(Ok(())) => continue,
                        Ok(Err(what)) => what,
                        Err(panic) => format!("panic: {}", panic_text(&*panic)),
                    };
                    let mut failures = failures.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    failures.push((seed, failure));
                    if failures.len() >= most {
                        next.store(seeds.end, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    failures.sort();
    failures
}

/// What a panic said.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "of an unknown kind".into())
}

/// Threads to use: as many as there are cores.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
