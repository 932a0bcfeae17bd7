//! What a run is asked to do, and how it tells how far it has come.

use std::time::{Duration, Instant};

use bedstone::Durability;

/// When a run has done enough. It always does at least one round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// After so many rounds; what a round is, each mode says.
    Rounds(u64),
    /// At the end of the round in which this time is over.
    Time(Duration),
}

/// What every mode is told.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Decides every choice: the same plan makes the same choices. Threads and processes of a real system still meet
    /// by chance.
    pub seed: u64,
    /// When it is enough.
    pub limit: Limit,
    /// Writer threads, in modes that have more than one; 0 counts as 1.
    pub threads: usize,
    /// The durability of every commit; drawn for each commit if `None`.
    pub durability: Option<Durability>,
}

impl Plan {
    /// A plan of so many rounds with one thread and every durability.
    pub fn rounds(seed: u64, rounds: u64) -> Self {
        Self { seed, limit: Limit::Rounds(rounds), threads: 1, durability: None }
    }
}

/// How far a run has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Rounds done.
    pub done: u64,
    /// Rounds there will be, where that is known.
    pub of: Option<u64>,
    /// What the rounds are, in the plural: "kills", "power cuts".
    pub what: &'static str,
}

/// Counts rounds, tells of them, and knows when it is enough.
pub struct Pace<'w> {
    seed: u64,
    began: Instant,
    limit: Limit,
    of: Option<u64>,
    what: &'static str,
    watch: &'w (dyn Fn(&Progress) + Sync),
}

impl<'w> Pace<'w> {
    /// A run that begins now. `all` is the number of rounds after which everything has been tried, for modes that end by
    /// themselves; `watch` is told of every round.
    pub fn begin(
        plan: &Plan,
        what: &'static str,
        all: Option<u64>,
        watch: &'w (dyn Fn(&Progress) + Sync),
    ) -> Self {
        let of = match (plan.limit, all) {
            (Limit::Rounds(rounds), Some(all)) => Some(rounds.max(1).min(all)),
            (Limit::Rounds(rounds), None) => Some(rounds.max(1)),
            (Limit::Time(_), all) => all,
        };
        Self { seed: plan.seed, began: Instant::now(), limit: plan.limit, of, what, watch }
    }

    /// Tells that so many rounds are done; whether there is to be another one.
    pub fn goes_on(&self, done: u64) -> bool {
        (self.watch)(&Progress { done, of: self.of, what: self.what });
        if done == 0 {
            return true;
        }
        let in_time = match self.limit {
            Limit::Rounds(_) => true,
            Limit::Time(time) => self.began.elapsed() < time,
        };
        in_time && self.of.is_none_or(|of| done < of)
    }

    /// The plan's seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Whether there is a round of this number, counted from 0.
    pub fn has(&self, round: u64) -> bool {
        self.of.is_none_or(|of| round < of)
    }

    /// Time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

/// A watcher that looks away.
pub fn unwatched(_: &Progress) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_does_one_round_at_least_and_no_more_than_there_are() {
        let rounds = |plan: &Plan, all| {
            let pace = Pace::begin(plan, "rounds", all, &unwatched);
            (0..100).take_while(|done| pace.goes_on(*done)).count()
        };
        assert_eq!(rounds(&Plan::rounds(1, 0), None), 1);
        assert_eq!(rounds(&Plan::rounds(1, 7), None), 7);
        assert_eq!(rounds(&Plan::rounds(1, 7), Some(3)), 3);
        let at_once = Plan { limit: Limit::Time(Duration::ZERO), ..Plan::rounds(1, 0) };
        assert_eq!(rounds(&at_once, None), 1);
    }
}
