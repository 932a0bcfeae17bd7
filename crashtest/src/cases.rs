//! Runs that are lists of cases: numbered trials, each for itself, on as many threads as wanted. With fewer rounds than
//! there are cases a sample is tried that is spread evenly over all of them; with time left after the last one, the cases
//! of the next seed follow.

use std::panic::{AssertUnwindSafe, catch_unwind};

use parking_lot::Mutex;

use crate::plan::{Limit, Pace, Plan, Progress};
use crate::rounds::run_range;
use crate::seeds::panic_text;
use crate::verdict::{Failure, Kept, Verdict};

/// Everything there is to try with one seed.
pub(crate) trait Cases: Sync {
    /// How many there are: at least one.
    fn len(&self) -> u64;

    /// What a case is, in words.
    fn name(&self, case: u64) -> String;

    /// Runs a case, and counts what it met. Runs of the same case are the same.
    ///
    /// # Errors
    /// Says which promise was broken.
    fn run(&self, case: u64, tally: &mut Tally) -> Result<(), String>;
}

/// Some of the cases of a seed, under the numbers that they have among all.
struct Picked<C> {
    all: C,
    numbers: Vec<u64>,
}

/// Counts by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally(Vec<(&'static str, u64)>);

impl Tally {
    fn new(names: &[&'static str]) -> Self {
        Self(names.iter().map(|name| (*name, 0)).collect())
    }

    pub(crate) fn counts(&self) -> &[(&'static str, u64)] {
        &self.0
    }

    pub(crate) fn add(&mut self, name: &'static str, count: u64) {
        match self.0.iter_mut().find(|(other, _)| *other == name) {
            Some((_, sum)) => *sum += count,
            None => self.0.push((name, count)),
        }
    }
}

/// What a mode of this kind is called.
pub(crate) struct Mode {
    /// The command's name for it.
    pub(crate) name: &'static str,
    /// What its cases are, in the plural; also the name of their count, which comes first.
    pub(crate) what: &'static str,
    /// The other counts, in the order in which to tell them.
    pub(crate) counts: &'static [&'static str],
}

/// Tries the cases that `draw` gives for the plan's seed, and those of the following seeds if the plan is one of time.
pub(crate) fn run_all<C: Cases>(
    mode: &Mode,
    plan: &Plan,
    watch: &(dyn Fn(&Progress) + Sync),
    draw: impl Fn(u64) -> Result<C, String>,
) -> Verdict {
    run_picked(mode, plan, watch, draw, |_, _| true)
}

/// The same with those cases only that `pick` wants.
pub(crate) fn run_picked<C: Cases>(
    mode: &Mode,
    plan: &Plan,
    watch: &(dyn Fn(&Progress) + Sync),
    draw: impl Fn(u64) -> Result<C, String>,
    pick: impl Fn(&C, u64) -> bool,
) -> Verdict {
    let draw = |seed| {
        let all = draw(seed)?;
        let numbers: Vec<u64> = (0..all.len()).filter(|case| pick(&all, *case)).collect();
        assert!(!numbers.is_empty(), "there is nothing to try");
        Ok(Picked { all, numbers })
    };
    let mut cases = drawn(mode, plan.seed, &draw)?;
    let all = matches!(plan.limit, Limit::Rounds(_)).then(|| cases.numbers.len() as u64);
    let pace = Pace::begin(plan, mode.what, all, watch);
    let tally = Mutex::new(Tally::new(mode.counts));
    let (mut seed, mut done) = (plan.seed, 0);
    loop {
        let len = cases.numbers.len() as u64;
        let range = done..done + len;
        let until = range.end;
        done = run_range(&pace, plan.threads, range.clone(), |round| {
            let at = scattered(round - range.start, len, seed) as usize;
            try_one(&cases.all, seed, cases.numbers[at], &tally)
        })?;
        if done < until || !pace.goes_on(done) {
            let mut counts = vec![(mode.what, done)];
            counts.extend(tally.into_inner().0);
            return Ok(Kept { counts, notes: Vec::new(), took: pace.elapsed() });
        }
        seed = seed.wrapping_add(1);
        cases = drawn(mode, seed, &draw)?;
    }
}

/// Runs one case of a seed.
pub(crate) fn replay<C: Cases>(
    mode: &Mode,
    seed: u64,
    case: u64,
    draw: impl Fn(u64) -> Result<C, String>,
) -> Result<(), Failure> {
    let cases = drawn(mode, seed, &draw)?;
    if case >= cases.len() {
        let last = cases.len() - 1;
        return Err(Failure::CannotRun(format!(
            "seed {seed} has the rounds 0 to {last}, and none of number {case}"
        )));
    }
    try_one(&cases, seed, case, &Mutex::new(Tally::default()))
}

fn drawn<T>(mode: &Mode, seed: u64, draw: &impl Fn(u64) -> Result<T, String>) -> Result<T, Failure> {
    unpanicked(|| draw(seed))
        .map_err(|what| Failure::broken(format!("seed {seed}, before any round of {}: {what}", mode.name)))
}

fn try_one<C: Cases>(cases: &C, seed: u64, case: u64, sum: &Mutex<Tally>) -> Result<(), Failure> {
    let mut tally = Tally::default();
    let outcome = unpanicked(|| cases.run(case, &mut tally));
    let mut sum = sum.lock();
    for (name, count) in tally.0 {
        sum.add(name, count);
    }
    outcome.map_err(|what| Failure::broken(format!("{}: {what}", cases.name(case))).in_round(seed, case))
}

/// A panic is a failure like others: nothing that a medium does is a reason for one.
fn unpanicked<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(format!("panic: {}", panic_text(&*panic))))
}

/// The place of `at` in an order of the numbers below `len` in which every beginning is spread evenly over all of them:
/// steps of the golden section.
fn scattered(at: u64, len: u64, seed: u64) -> u64 {
    let mut step = (len as f64 * 0.618_033_988_749_895) as u64;
    while common_divisor(step, len) != 1 {
        step += 1;
    }
    ((u128::from(at) * u128::from(step) + u128::from(seed)) % u128::from(len)) as u64
}

fn common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::unwatched;

    #[test]
    fn a_scattered_order_has_each_number_once() {
        for len in [1, 2, 3, 10, 97, 1000] {
            let all: std::collections::BTreeSet<u64> = (0..len).map(|at| scattered(at, len, 7)).collect();
            assert_eq!(all, (0..len).collect());
        }
    }

    struct Ten(u64);

    impl Cases for Ten {
        fn len(&self) -> u64 {
            10
        }

        fn name(&self, case: u64) -> String {
            format!("the {case}")
        }

        fn run(&self, case: u64, tally: &mut Tally) -> Result<(), String> {
            tally.add("odd", case % 2);
            match (self.0, case) {
                (5, 3) => Err("three of five".into()),
                (6, 4) => panic!("four of six"),
                _ => Ok(()),
            }
        }
    }

    const MODE: Mode = Mode { name: "ten", what: "numbers", counts: &["odd"] };

    #[test]
    fn everything_is_tried_once_and_a_failure_says_how_to_see_it_again() {
        let run = |seed, rounds| {
            let plan = Plan { threads: 3, ..Plan::rounds(seed, rounds) };
            run_all(&MODE, &plan, &unwatched, |seed| Ok(Ten(seed)))
        };
        assert_eq!(run(1, 1000).unwrap().counts, [("numbers", 10), ("odd", 5)]);
        assert_eq!(run(1, 4).unwrap().count("numbers"), 4);
        for (seed, case, what) in [(5, 3, "three of five"), (6, 4, "panic: four of six")] {
            let expected = Failure::broken(format!("the {case}: {what}")).in_round(seed, case);
            assert_eq!(run(seed, 1000), Err(expected));
            assert!(replay(&MODE, seed, case, |seed| Ok(Ten(seed))).is_err());
            assert_eq!(replay(&MODE, seed, 7, |seed| Ok(Ten(seed))), Ok(()));
        }
        assert!(replay(&MODE, 1, 10, |seed| Ok(Ten(seed))).is_err());
    }
}
