//! Rounds that do not depend on each other, on several threads.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::plan::Pace;
use crate::seeds::panic_text;
use crate::verdict::Failure;

/// Runs `round` for 0, 1, 2, ... on so many threads until `pace` has enough or one of them fails. A panic is a broken
/// promise. Returns how many rounds were done.
///
/// # Errors
/// A broken promise before anything else, of the lowest round that failed, with its number.
pub fn run_rounds(
    pace: &Pace<'_>,
    threads: usize,
    round: impl Fn(u64) -> Result<(), Failure> + Sync,
) -> Result<u64, Failure> {
    run_range(pace, threads, 0..u64::MAX, round)
}

/// The same for the rounds of a range; those before it were done. Returns how many were done with them.
pub(crate) fn run_range(
    pace: &Pace<'_>,
    threads: usize,
    range: Range<u64>,
    round: impl Fn(u64) -> Result<(), Failure> + Sync,
) -> Result<u64, Failure> {
    let (next, done) = (AtomicU64::new(range.start), AtomicU64::new(range.start));
    let enough = AtomicBool::new(!pace.goes_on(range.start));
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if !range.contains(&number) || !pace.has(number) {
                        break;
                    }
                    let outcome = catch_unwind(AssertUnwindSafe(|| round(number)));
                    let outcome = outcome.unwrap_or_else(|panic| {
                        Err(Failure::broken(format!("panic: {}", panic_text(&*panic))))
                    });
                    if let Err(failure) = outcome {
                        failures.lock().push((number, failure.in_round(pace.seed(), number)));
                        enough.store(true, Ordering::Relaxed);
                    } else if !pace.goes_on(done.fetch_add(1, Ordering::Relaxed) + 1) {
                        enough.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let cannot = |failure: &Failure| matches!(failure, Failure::CannotRun(_));
    match failures.into_inner().into_iter().min_by_key(|(number, failure)| (cannot(failure), *number)) {
        Some((_, failure)) => Err(failure),
        None => Ok(done.into_inner()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Plan, unwatched};

    #[test]
    fn every_round_is_done_once_and_a_panic_is_a_failure() {
        let pace = Pace::begin(&Plan::rounds(1, 50), "rounds", None, &unwatched);
        let seen = Mutex::new(Vec::new());
        let done = run_rounds(&pace, 3, |round| {
            seen.lock().push(round);
            Ok(())
        });
        assert_eq!(done, Ok(50));
        let mut seen = seen.into_inner();
        seen.sort_unstable();
        assert_eq!(seen, (0..50).collect::<Vec<_>>());

        let failed = run_rounds(&pace, 1, |round| {
            assert!(round < 7, "round {round} is too much");
            Ok(())
        });
        assert_eq!(failed, Err(Failure::broken("panic: round 7 is too much").in_round(1, 7)));
    }
}
