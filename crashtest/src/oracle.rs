//! What may survive. Commits are in one of three sets: acknowledged, in flight (an error was returned or none at
//! all, so they may be there or not), and never sent.

use bedstone::Durability;

use crate::model::{Change, Model};

/// How a run of the store ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was closed, and that succeeded.
    Closed,
    /// The process ended; the kernel and its page cache went on.
    Killed,
    /// The power went.
    PowerCut,
}

/// What the store owes for a commit that is not durable by promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    /// It must survive the end of the process.
    Process,
    /// If it survives, so does everything before it.
    Order,
    /// No answer came.
    InFlight,
}

/// Keeps account of what was sent and answered, and judges what survived.
#[derive(Debug, Clone, Default)]
pub struct Oracle {
    /// The state that must survive everything.
    durable: Model,
    /// Later commits, in commit order.
    pending: Vec<(Vec<Change>, Promise)>,
    /// The state that reads must show.
    now: Model,
}

impl Oracle {
    /// The state that reads must show at this moment.
    pub fn now(&self) -> &Model {
        &self.now
    }

    /// Commits that may still be lost.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The commit was acknowledged with this durability.
    pub fn acknowledged(&mut self, commit: Vec<Change>, durability: Durability) {
        self.now.apply(&commit);
        let promise = match durability {
            Durability::Buffered => Promise::Process,
            _ => Promise::Order,
        };
        self.pending.push((commit, promise));
        if durability == Durability::Sync {
            self.synced();
        }
    }

    /// The commit was sent, and nobody knows what became of it. Nothing can be committed after it until the store
    /// has been opened again.
    pub fn in_flight(&mut self, commit: Vec<Change>) {
        self.pending.push((commit, Promise::InFlight));
    }

    /// Everything acknowledged so far was made durable. What is in flight may have been, too.
    pub fn synced(&mut self) {
        for (commit, promise) in std::mem::take(&mut self.pending) {
            match promise {
                Promise::InFlight => self.pending.push((commit, promise)),
                _ => self.durable.apply(&commit),
            }
        }
    }

    /// Judges what was found after the store had ended in this way, and goes on from there. Returns how many
    /// commits were lost.
    ///
    /// # Errors
    /// Says what is wrong if what was found is no prefix of the commits, or lacks one that was promised.
    pub fn settle(&mut self, found: Model, ending: Ending) -> Result<usize, String> {
        let least = match ending {
            Ending::PowerCut => 0,
            Ending::Killed => self.after_last(|promise| promise == Promise::Process),
            Ending::Closed => self.after_last(|promise| promise != Promise::InFlight),
        };
        let mut state = self.durable.clone();
        let mut first_difference = None;
        for kept in 0..=self.pending.len() {
            if kept > 0 {
                state.apply(&self.pending[kept - 1].0);
            }
            if kept < least {
                continue;
            }
            match state.difference(&found) {
                None => {
                    let lost = self.pending.len() - kept;
                    self.pending.clear();
                    self.durable = found.clone();
                    self.now = found;
                    return Ok(lost);
                }
                Some(difference) => first_difference = first_difference.or(Some(difference)),
            }
        }
        Err(format!(
            "what survived ({ending:?}) is no prefix of the commits that contains every promised one; {least} to {} of \
             {} pending commits were tried; against the least: {}; against all: {}",
            self.pending.len(),
            self.pending.len(),
            first_difference.unwrap_or_default(),
            state.difference(&found).unwrap_or_default(),
        ))
    }

    fn after_last(&self, is: impl Fn(Promise) -> bool) -> usize {
        self.pending.iter().rposition(|(_, promise)| is(*promise)).map_or(0, |at| at + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: &str) -> Vec<Change> {
        vec![Change::Put { table: "t".into(), key: key.into(), value: value.as_bytes().into() }]
    }

    fn oracle() -> Oracle {
        let mut oracle = Oracle::default();
        oracle.acknowledged(vec![Change::Create("t".into())], Durability::Sync);
        oracle.acknowledged(put("a", "1"), Durability::Sync);
        oracle.acknowledged(put("b", "2"), Durability::Buffered);
        oracle.acknowledged(put("c", "3"), Durability::Relaxed);
        oracle.in_flight(put("d", "4"));
        oracle
    }

    fn state(keys: &[(&str, &str)]) -> Model {
        let mut model = Model::default();
        model.apply(&[Change::Create("t".into())]);
        for (key, value) in keys {
            model.apply(&put(key, value));
        }
        model
    }

    #[test]
    fn a_power_cut_may_leave_any_prefix_that_has_the_synced_commits() {
        let all = [("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")];
        for kept in 0..=4 {
            let verdict = oracle().settle(state(&all[..kept]), Ending::PowerCut);
            assert_eq!(verdict.ok(), (kept >= 1).then_some(4 - kept));
        }
        assert!(oracle().settle(state(&[("a", "1"), ("c", "3")]), Ending::PowerCut).is_err());
        assert!(oracle().settle(state(&[("a", "1"), ("b", "9")]), Ending::PowerCut).is_err());
        assert!(oracle().settle(state(&[("a", "1"), ("x", "9")]), Ending::PowerCut).is_err());
    }

    /// A checkpoint goes on that had begun before the commit failed.
    #[test]
    fn a_sync_leaves_open_what_becomes_of_a_commit_in_flight() {
        let all = [("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")];
        for kept in 0..=4 {
            let mut oracle = oracle();
            oracle.synced();
            assert_eq!(oracle.settle(state(&all[..kept]), Ending::PowerCut).is_ok(), kept >= 3);
        }
    }

    #[test]
    fn a_kill_spares_what_the_kernel_had() {
        assert!(oracle().settle(state(&[("a", "1")]), Ending::Killed).is_err());
        assert_eq!(oracle().settle(state(&[("a", "1"), ("b", "2")]), Ending::Killed), Ok(2));
    }

    #[test]
    fn a_clean_close_loses_nothing() {
        assert!(oracle().settle(state(&[("a", "1"), ("b", "2")]), Ending::Closed).is_err());
        assert_eq!(oracle().settle(state(&[("a", "1"), ("b", "2"), ("c", "3")]), Ending::Closed), Ok(1));
    }
}
