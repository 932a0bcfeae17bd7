//! What comes of a run.

use std::time::Duration;

/// A run in which every promise was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// What was done and how often, in the order in which to tell it: ("kills", 120).
    pub counts: Vec<(&'static str, u64)>,
    /// Anything else a reader should know: the way of I/O in effect, what could not be tried and why.
    pub notes: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

impl Kept {
    /// The count of this name; 0 if there is none.
    pub fn count(&self, name: &str) -> u64 {
        self.counts.iter().find(|(other, _)| *other == name).map_or(0, |(_, count)| *count)
    }
}

impl Kept {
    /// This run and another one of the same mode.
    #[must_use]
    pub fn plus(mut self, other: &Kept) -> Self {
        for (name, count) in &other.counts {
            match self.counts.iter_mut().find(|(mine, _)| mine == name) {
                Some((_, mine)) => *mine += count,
                None => self.counts.push((name, *count)),
            }
        }
        self.notes.extend(other.notes.iter().cloned());
        self.took += other.took;
        self
    }
}

/// A round that can be repeated by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Again {
    /// The seed that draws it; a run of some time goes from one seed to the next.
    pub seed: u64,
    /// Its number.
    pub round: u64,
}

/// Why a run ended otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The store broke a promise.
    #[error("a promise was broken: {what}")]
    Broken {
        /// Which one, where, and after what.
        what: String,
        /// What does it again, where a round can be repeated by itself.
        again: Option<Again>,
    },
    /// The run could not do its work, which says nothing about the store: what to do about it.
    #[error("could not run: {0}")]
    CannotRun(String),
}

impl Failure {
    /// A broken promise.
    pub fn broken(what: impl Into<String>) -> Self {
        Self::Broken { what: what.into(), again: None }
    }

    /// The same; this round of this seed does it again, if nothing is known yet that does.
    #[must_use]
    pub fn in_round(self, seed: u64, round: u64) -> Self {
        match self {
            Self::Broken { what, again } => {
                Self::Broken { what, again: again.or(Some(Again { seed, round })) }
            }
            cannot => cannot,
        }
    }

    /// The same, with more words behind what is said of a broken promise.
    #[must_use]
    pub fn and(self, words: &str) -> Self {
        match self {
            Self::Broken { what, again } => Self::Broken { what: format!("{what}\n  {words}"), again },
            cannot => cannot,
        }
    }
}

/// What a run gives.
pub type Verdict = Result<Kept, Failure>;
