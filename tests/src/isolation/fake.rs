//! Stores in memory to try the checker on: right ones, and ones with a fault on purpose.
//!
//! All is under one mutex. Each key has its versions, each with the number of its commit; a transaction sees the
//! commits up to the number at its beginning, and the first of two writers of a key to commit wins. A serializable one
//! is refused if a key it read, or any key in a range it read, has changed since (backward validation: Kung and
//! Robinson, "On Optimistic Methods for Concurrency Control", TODS 1981).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use super::history::{Element, Key};
use super::store::{Begin, Stop, Store, Tx};
use bedstone_crashtest::rng::Rng;

/// What is wrong with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Writers of the same key do not conflict.
    NoConflicts,
    /// Reads see what others have not committed yet.
    DirtyRead,
    /// When a transaction writes a key again, others see what it wrote first.
    IntermediateRead,
    /// Snapshots miss the newest commits of clients on the other site.
    LongFork,
    /// Snapshots are older than the beginning of their transaction.
    StaleSnapshot,
    /// Reads see the newest commit, not the snapshot.
    NoSnapshot,
    /// Serializable transactions are not validated.
    NoValidation,
    /// Only the keys that a range gave are validated, not those that came into it.
    ForgottenPhantom,
    /// Half of a commit is visible before the rest.
    HalfCommit,
    /// What is rolled back is there all the same.
    AbortedVisible,
    /// A transaction does not see its own writes.
    StaleOwnRead,
    /// Now and then a commit is acknowledged and forgotten.
    ForgottenCommit,
    /// A crash leaves half of the commit under way.
    TornCrash,
    /// A crash takes back the last commit that was acknowledged.
    NotDurable,
}

struct Version {
    commit: u64,
    site: u64,
    list: Vec<Element>,
}

struct State {
    rng: Rng,
    versions: BTreeMap<Key, Vec<Version>>,
    commits: u64,
    begun: u64,
    ops: u64,
    down_at: Option<u64>,
    /// Halves of commits, with the operation at which they are made.
    later: Vec<(u64, u64, BTreeMap<Key, Vec<Element>>)>,
    /// What transactions show that have not committed.
    dirty: BTreeMap<u64, BTreeMap<Key, Vec<Element>>>,
}

/// A store in memory.
pub struct Fake {
    fault: Fault,
    state: Mutex<State>,
}

/// A transaction of it.
pub struct FakeTx<'a> {
    store: &'a Fake,
    id: u64,
    serializable: bool,
    snapshot: u64,
    read: BTreeSet<Key>,
    ranges: Vec<Range<Key>>,
    writes: BTreeMap<Key, Vec<Element>>,
}

impl Fake {
    /// An empty store with this fault.
    pub fn new(fault: Fault, seed: u64) -> Self {
        let state = State {
            rng: Rng::of(&[seed, 44]),
            versions: BTreeMap::new(),
            commits: 0,
            begun: 0,
            ops: 0,
            down_at: None,
            later: Vec::new(),
            dirty: BTreeMap::new(),
        };
        Self { fault, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Every operation comes through here.
    fn enter(&self) -> Result<MutexGuard<'_, State>, Stop> {
        let mut state = self.state();
        state.ops += 1;
        let now = state.ops;
        if state.down_at.is_some_and(|at| now > at) {
            return Err(Stop::Down);
        }
        let (due, later) = std::mem::take(&mut state.later).into_iter().partition(|(at, ..)| *at <= now);
        state.later = later;
        let due: Vec<_> = due;
        for (_, site, writes) in due {
            state.install(writes, site);
        }
        Ok(state)
    }
}

impl State {
    fn install(&mut self, writes: BTreeMap<Key, Vec<Element>>, site: u64) {
        self.commits += 1;
        for (key, list) in writes {
            self.versions.entry(key).or_default().push(Version { commit: self.commits, site, list });
        }
    }
}

impl FakeTx<'_> {
    fn site(&self) -> u64 {
        self.id % 2
    }

    fn sees(&self, version: &Version) -> bool {
        // The other site's commits come late.
        let late = if self.store.fault == Fault::LongFork && version.site != self.site() { 3 } else { 0 };
        version.commit + late <= self.snapshot
    }

    fn look(&self, state: &State, key: Key) -> Vec<Element> {
        if let Some(own) = self.writes.get(&key).filter(|_| self.store.fault != Fault::StaleOwnRead) {
            return own.clone();
        }
        let dirty =
            state.dirty.iter().filter(|(id, _)| **id != self.id).find_map(|(_, writes)| writes.get(&key));
        if let Some(dirty) = dirty {
            return dirty.clone();
        }
        let versions = state.versions.get(&key).map_or(&[][..], |versions| &versions[..]);
        let newest = self.store.fault == Fault::NoSnapshot;
        let version = versions.iter().rev().find(|version| newest || self.sees(version));
        version.map_or(Vec::new(), |version| version.list.clone())
    }

    fn changed(&self, state: &State, key: Key) -> bool {
        let versions = state.versions.get(&key);
        versions.is_some_and(|versions| versions.iter().any(|version| !self.sees(version)))
            || state.later.iter().any(|(_, _, writes)| writes.contains_key(&key))
    }

    fn is_refused(&self, state: &State) -> bool {
        let fault = self.store.fault;
        if fault != Fault::NoConflicts && self.writes.keys().any(|key| self.changed(state, *key)) {
            return true;
        }
        // One that only reads happens at its snapshot.
        if !self.serializable || self.writes.is_empty() || fault == Fault::NoValidation {
            return false;
        }
        self.read.iter().any(|key| self.changed(state, *key))
            || (fault != Fault::ForgottenPhantom
                && self.ranges.iter().any(|range| {
                    state.versions.range(range.clone()).any(|(key, _)| self.changed(state, *key))
                }))
    }
}

impl Store for Fake {
    type Tx<'a> = FakeTx<'a>;

    fn begin(&self, Begin { serializable, .. }: Begin) -> Result<FakeTx<'_>, Stop> {
        let mut state = self.enter()?;
        state.begun += 1;
        let stale = if self.fault == Fault::StaleSnapshot { state.rng.below(3) } else { 0 };
        Ok(FakeTx {
            store: self,
            id: state.begun,
            serializable,
            snapshot: state.commits.saturating_sub(stale),
            read: BTreeSet::new(),
            ranges: Vec::new(),
            writes: BTreeMap::new(),
        })
    }

    fn crash(&self, after: u64, _: u64) {
        let mut state = self.state();
        if state.down_at.is_none() {
            state.down_at = Some(state.ops + after);
        }
    }

    fn reopen(&mut self) -> Result<(), String> {
        let mut state = self.state();
        state.down_at = None;
        state.dirty.clear();
        for (_, site, writes) in std::mem::take(&mut state.later) {
            state.install(writes, site);
        }
        if self.fault == Fault::NotDurable {
            let last = state.commits;
            for versions in state.versions.values_mut() {
                versions.retain(|version| version.commit != last);
            }
        }
        Ok(())
    }
}

impl Tx for FakeTx<'_> {
    fn get(&mut self, key: Key) -> Result<Vec<Element>, Stop> {
        let state = self.store.enter()?;
        self.read.insert(key);
        Ok(self.look(&state, key))
    }

    fn range(&mut self, keys: Range<Key>) -> Result<BTreeMap<Key, Vec<Element>>, Stop> {
        let state = self.store.enter()?;
        let own = self.writes.range(keys.clone()).map(|(key, _)| *key);
        let all: BTreeSet<Key> = state.versions.range(keys.clone()).map(|(key, _)| *key).chain(own).collect();
        let found: BTreeMap<Key, Vec<Element>> = all
            .into_iter()
            .map(|key| (key, self.look(&state, key)))
            .filter(|(_, list)| !list.is_empty())
            .collect();
        self.read.extend(found.keys());
        self.ranges.push(keys);
        Ok(found)
    }

    fn put(&mut self, key: Key, list: &[Element]) -> Result<(), Stop> {
        let mut state = self.store.enter()?;
        let before = self.writes.insert(key, list.to_vec());
        let shown = match self.store.fault {
            Fault::DirtyRead => Some(list.to_vec()),
            Fault::IntermediateRead => before,
            _ => None,
        };
        if let Some(shown) = shown {
            state.dirty.entry(self.id).or_default().insert(key, shown);
        }
        Ok(())
    }

    fn commit(mut self) -> Result<(), Stop> {
        let down = |state: &State| state.down_at.is_some_and(|at| state.ops >= at);
        let mut state = self.store.enter()?;
        state.dirty.remove(&self.id);
        if self.is_refused(&state) {
            return Err(Stop::Refused);
        }
        let site = self.site();
        let mut writes = std::mem::take(&mut self.writes);
        if writes.is_empty() {
            return Ok(());
        }
        let middle = writes.keys().copied().nth(writes.len() / 2).unwrap_or(0);
        let down = down(&state);
        match self.store.fault {
            // The crash comes in the middle of the commit.
            fault if down => {
                if fault == Fault::TornCrash {
                    writes.split_off(&middle);
                }
                if !writes.is_empty() && state.rng.chance(1, 2) {
                    state.install(writes, site);
                }
                return Err(Stop::Down);
            }
            Fault::ForgottenCommit if state.rng.chance(1, 20) => {}
            Fault::HalfCommit => {
                let rest = writes.split_off(&middle);
                if !writes.is_empty() {
                    state.install(writes, site);
                }
                let at = state.ops + state.rng.between(1, 6);
                state.later.push((at, site, rest));
            }
            _ => state.install(writes, site),
        }
        Ok(())
    }

    fn rollback(mut self) -> Result<(), Stop> {
        let mut state = self.store.enter()?;
        state.dirty.remove(&self.id);
        if self.store.fault == Fault::AbortedVisible && !self.is_refused(&state) {
            let (site, writes) = (self.site(), std::mem::take(&mut self.writes));
            state.install(writes, site);
        }
        Ok(())
    }
}

impl Drop for FakeTx<'_> {
    fn drop(&mut self) {
        self.store.state().dirty.remove(&self.id);
    }
}
