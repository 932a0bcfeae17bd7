//! Every interleaving of two commits, two snapshots and the dropping of old values, with the real [`Versions`] and a
//! history and leaves in their simplest form. Rules that are left out must be missed by some interleaving.

use super::*;
use crate::txn::versions::{Held, InFlight, Live, Versions, View};
use std::collections::HashSet;

/// A rule that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Nothing,
    /// A snapshot does not wait for commits that leave history out.
    Wait,
    /// The history is read before the leaf.
    ReadOrder,
    /// What lies below the next csn is dropped, not what lies below the horizon.
    Horizon,
    /// The old value is put aside after the leaf was changed.
    WriteOrder,
    /// Commits in flight do not count for a snapshot's `low_lsn`.
    Floor,
}

/// Which keys the commits write: all both, or one each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keys {
    Same,
    Own,
}

/// Who does the next step: a commit, a snapshot, or the purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Actor {
    Commit(usize),
    Snapshot(usize),
    Purge,
}

const ACTORS: [Actor; 5] =
    [Actor::Commit(0), Actor::Commit(1), Actor::Snapshot(0), Actor::Snapshot(1), Actor::Purge];

/// A generation: closed at this csn, and its versions: csn, key, old value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Generation {
    closed_at: Option<u64>,
    versions: Vec<(u64, usize, u64)>,
}

#[derive(Default)]
struct Commit<'v> {
    at: usize,
    flight: Option<InFlight<'v>>,
    csn: u64,
    generation: usize,
}

#[derive(Default)]
struct Snapshot {
    at: usize,
    live: Option<(Arc<Live>, u64)>,
    view: Option<Arc<View>>,
    /// Commits that were over when it was announced, and that had begun when it was taken.
    over: Vec<usize>,
    begun: Vec<usize>,
    leaf: (u64, u64),
    history: Option<Option<u64>>,
}

struct World<'v> {
    versions: &'v Versions,
    held: Held,
    broken: Broken,
    keys: Keys,
    /// The log's tail.
    tail: u64,
    /// Value and LSN of the leaf of each key. A value is 0 or the number of its commit, from 1.
    leaves: [(u64, u64); 2],
    /// The dropped ones are empty and `None`.
    generations: Vec<Option<Generation>>,
    commits: [Commit<'v>; 2],
    snapshots: [Snapshot; 2],
    purge: usize,
    wrong: Option<String>,
}

impl World<'_> {
    fn written(&self, commit: usize) -> usize {
        if self.keys == Keys::Own { commit } else { 0 }
    }

    fn read(&self, snapshot: usize) -> usize {
        if self.keys == Keys::Own { snapshot } else { 0 }
    }

    /// Does the next step of an actor; `false` if it has to wait or is done.
    fn step(&mut self, actor: Actor) -> bool {
        match actor {
            Actor::Commit(i) => self.commit(i),
            Actor::Snapshot(i) => self.snapshot(i),
            Actor::Purge => self.purge(),
        }
    }

    fn commit(&mut self, i: usize) -> bool {
        let key = self.written(i);
        let stripe_taken = self.keys == Keys::Same && (1..5).contains(&self.commits[1 - i].at);
        let tail = self.tail;
        let commit = &mut self.commits[i];
        let keep_first = self.broken != Broken::WriteOrder;
        let step = match (commit.at, keep_first) {
            (at @ 0..=4, true) => at,
            (at @ 0..=4, false) => [0, 1, 3, 2, 4][at],
            _ => return false,
        };
        match step {
            0 if stripe_taken => return false,
            0 => {
                let floor = if self.broken == Broken::Floor { u64::MAX } else { tail };
                let flight = self.versions.begin_commit(true, None, || floor);
                (commit.csn, commit.flight) = (flight.csn, Some(flight));
            }
            1 | 2 if !commit.flight.as_ref().unwrap().keeps => {}
            1 => {
                let newest = self.generations.last().unwrap().as_ref();
                if newest.is_none_or(|newest| newest.closed_at.is_some()) {
                    self.generations.push(Some(Generation::default()));
                }
                commit.generation = self.generations.len() - 1;
            }
            2 => {
                let old = self.leaves[key].0;
                // Under a broken rule it may have been dropped under the commit.
                if let Some(generation) = &mut self.generations[commit.generation] {
                    generation.versions.push((commit.csn, key, old));
                }
            }
            // The record is appended and the leaf changed.
            3 => (self.leaves[key], self.tail) = ((i as u64 + 1, tail), tail + 1),
            _ => commit.flight = None,
        }
        commit.at += 1;
        // To have fewer states, the second one looks the generation up and writes into it at once.
        if step == 1 && i == 1 && keep_first { self.commit(i) } else { true }
    }

    fn snapshot(&mut self, i: usize) -> bool {
        let key = self.read(i);
        let leaf = self.leaves[key];
        let leaf_first = self.broken != Broken::ReadOrder;
        let commits = |from: usize| (0..2).filter(|&c| self.commits[c].at >= from).collect::<Vec<_>>();
        let snapshot = &self.snapshots[i];
        match (snapshot.at, leaf_first) {
            (0, _) => {
                let over = commits(5);
                let live = Some(self.versions.announce(self.held.clone()));
                self.snapshots[i] = Snapshot { live, over, ..Snapshot::default() };
                // To have fewer states, the second one is taken at once if it need not wait.
                if i == 1 {
                    self.snapshots[i].at = 1;
                    self.snapshot(i);
                    return true;
                }
            }
            (1, _) => {
                let begun = commits(1);
                let (live, announced) = snapshot.live.as_ref().unwrap();
                let heedless = self.broken == Broken::Wait;
                let Some(view) = self.versions.try_take(live, *announced, self.tail, heedless) else {
                    return false;
                };
                (self.snapshots[i].view, self.snapshots[i].begun) = (Some(view), begun);
            }
            (2, true) | (3, false) => self.snapshots[i].leaf = leaf,
            (3, true) | (2, false) => {
                let view = snapshot.view.as_ref().unwrap();
                let mut found = None;
                for generation in self.generations.iter().flatten() {
                    if generation.closed_at.is_none_or(|at| at > view.low()) {
                        let mut versions = generation.versions.iter();
                        let unseen = versions.find(|(csn, k, _)| *k == key && !view.sees(*csn));
                        found = found.or(unseen.map(|(.., old)| *old));
                    }
                }
                self.snapshots[i].history = Some(found);
            }
            (4, _) => {
                self.versions.end_snapshot(&self.snapshots[i].live.as_ref().unwrap().0);
                // What it read does not matter any more.
                self.snapshots[i] = Snapshot { at: 4, ..Snapshot::default() };
            }
            _ => return false,
        }
        self.snapshots[i].at += 1;
        let snapshot = &self.snapshots[i];
        if snapshot.at == 4 {
            if self.wrong.is_none() {
                self.wrong = self.judge(i).err();
            }
            // What it has read does not matter any more, only what it holds.
            let (live, view) = (self.snapshots[i].live.take(), self.snapshots[i].view.take());
            self.snapshots[i] = Snapshot { at: 4, live, view, ..Snapshot::default() };
        }
        true
    }

    /// What it sees contains what was over before it and nothing that began after it, and is what it has read.
    fn judge(&self, i: usize) -> std::result::Result<(), String> {
        let snapshot = &self.snapshots[i];
        let view = snapshot.view.as_ref().unwrap();
        let key = self.read(i);
        let sees = |c: usize| self.commits[c].at > 0 && view.sees(self.commits[c].csn);
        for c in 0..2 {
            if !sees(c) && snapshot.over.contains(&c) {
                return Err(format!("snapshot {i} misses commit {c}"));
            }
            if sees(c) && !snapshot.begun.contains(&c) {
                return Err(format!("snapshot {i} sees commit {c}"));
            }
        }
        let newest =
            (0..2).filter(|&c| self.written(c) == key && sees(c)).max_by_key(|&c| self.commits[c].csn);
        let expected = newest.map_or(0, |c| c as u64 + 1);
        let (value, lsn) = snapshot.leaf;
        let found = match snapshot.history.unwrap() {
            _ if lsn < view.low_lsn => value,
            Some(old) => old,
            None => value,
        };
        match found == expected {
            true => Ok(()),
            false => Err(format!("snapshot {i} with {view:?} reads {found}, not {expected}")),
        }
    }

    fn purge(&mut self) -> bool {
        match self.purge {
            0 => {
                if let Some(newest) = self.generations.last_mut().unwrap() {
                    newest.closed_at = Some(self.versions.mark());
                }
            }
            1 => {
                let limit = match self.broken {
                    Broken::Horizon => self.versions.mark(),
                    _ => self.versions.horizon(),
                };
                for generation in &mut self.generations {
                    if generation.as_ref().is_some_and(|g| g.closed_at.is_some_and(|at| at < limit)) {
                        *generation = None;
                    }
                }
            }
            _ => return false,
        }
        self.purge += 1;
        true
    }

    /// Everything on which the rest depends.
    fn summary(&self) -> String {
        let commits = self.commits.each_ref().map(|c| (c.at, c.csn, c.generation));
        let snapshots = self.snapshots.each_ref().map(|s| {
            let announced = s.live.as_ref().map(|(_, announced)| *announced);
            (s.at, announced, &s.view, &s.over, &s.begun, s.leaf, s.history)
        });
        let keeps = self.commits.each_ref().map(|c| c.flight.as_ref().map(|f| f.keeps));
        format!(
            "{commits:?} {keeps:?} {snapshots:?} {:?} {:?} {} {} {}",
            self.leaves,
            self.generations,
            self.tail,
            self.purge,
            self.versions.horizon()
        )
    }
}

/// Goes through all interleavings, without repeating what follows the same state. Gives the number of states, or of
/// what went wrong.
fn explore(held: &Held, keys: Keys, broken: Broken) -> std::result::Result<usize, String> {
    let mut seen = HashSet::new();
    let mut open: Vec<Vec<Actor>> = vec![Vec::new()];
    while let Some(path) = open.pop() {
        let versions = Versions::new();
        let mut world = World {
            versions: &versions,
            held: held.clone(),
            broken,
            keys,
            tail: 10,
            leaves: [(0, 1); 2],
            generations: vec![Some(Generation::default())],
            commits: Default::default(),
            snapshots: Default::default(),
            purge: 0,
            wrong: None,
        };
        if !path.iter().all(|&actor| world.step(actor)) {
            // The last one has to wait.
            continue;
        }
        if let Some(wrong) = world.wrong {
            return Err(format!("{wrong}: {path:?}"));
        }
        if !seen.insert(world.summary()) {
            continue;
        }
        let mut stuck = true;
        for actor in ACTORS {
            let done = match actor {
                Actor::Commit(i) => world.commits[i].at == 5,
                Actor::Snapshot(i) => world.snapshots[i].at == 5,
                Actor::Purge => world.purge == 2,
            };
            stuck &= done;
            if !done {
                let mut longer = path.clone();
                longer.push(actor);
                open.push(longer);
            }
        }
        if stuck {
            assert!(versions.live().is_empty());
        }
    }
    Ok(seen.len())
}

fn held() -> (Database, Held) {
    let disk = SimDisk::new(1);
    let db = create(&disk);
    let held = Arc::new(db.shared().pool.owned_ticket());
    (db, held)
}

#[test]
fn every_interleaving_of_two_commits_and_two_snapshots() {
    let (_db, held) = held();
    for keys in [Keys::Same, Keys::Own] {
        let states = explore(&held, keys, Broken::Nothing).unwrap();
        assert!(states > 3_000, "{states}");
    }
}

#[test]
fn every_rule_of_versions_is_needed() {
    let (_db, held) = held();
    let outcomes = [Broken::Wait, Broken::ReadOrder, Broken::Horizon, Broken::WriteOrder, Broken::Floor]
        .map(|broken| (broken, [Keys::Same, Keys::Own].map(|keys| explore(&held, keys, broken))));
    for (broken, outcomes) in outcomes {
        assert!(outcomes.iter().any(|outcome| outcome.is_err()), "{broken:?} was not missed: {outcomes:?}");
    }
}
