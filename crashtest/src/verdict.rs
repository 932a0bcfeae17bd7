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

/// Why a run ended otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The store broke a promise: what, where, and after what.
    #[error("a promise was broken: {0}")]
    Broken(String),
    /// The run could not do its work, which says nothing about the store: what to do about it.
    #[error("could not run: {0}")]
    CannotRun(String),
}

/// What a run gives.
pub type Verdict = Result<Kept, Failure>;
