//! Versions: which commits a snapshot sees.
//!
//! Every commit that changes tables gets a number, its *csn*, before it changes anything, and is *in flight* until
//! its last write is in the trees. A snapshot is the set of the commits that were over at one instant: those below
//! `high` that were not in flight. Beginning and ending a commit and taking a snapshot all happen under one mutex
//! that is held for some tens of nanoseconds, so every question of "which came first" has one answer, and of two
//! snapshots one has all commits of the other.
//!
//! A commit holds the stripes of its keys from before its beginning until after its end ([`super::stripes`]). Hence:
//!
//! * Of two commits that write the same key, the one with the lower csn is over before the other begins. So the
//!   versions of a key are visible up to one of them and invisible from the next one on, in every snapshot.
//! * A commit that depends on another one (it saw it in a snapshot, or overwrites it) begins after the end of that
//!   one: whoever sees the first sees the second.
//!
//! # History, kept or left out
//!
//! Trees hold only the newest value of a key. A commit that *keeps history* puts the old value of each key aside
//! ([`super::history`]) after its beginning and before it changes a leaf. One that is small may leave that out if
//! no snapshot is live when it begins. Why no snapshot ever misses what was left out: let a commit begin at the
//! instant `b` and end at `e`, and let a snapshot announce itself at `a` and be taken at `t > a` (all of these are
//! moments under the mutex). If `a < b`, the commit finds the snapshot among the live ones and keeps history. If
//! `b < a`, the snapshot is not taken while the commit is in flight, so `e < t`: the commit is visible to it, and
//! so is every earlier version's end. In both cases nothing that the snapshot needs was left out.
//!
//! The wait is for the application of small commits only. Those that begin after `a` keep history, so it ends. Large
//! commits always keep history and are never waited for: the snapshot just does not see them.
//!
//! # LSNs
//!
//! Leaves carry the highest LSN applied to them and no csn. `low_lsn` of a snapshot is a position such that every
//! commit below it is visible: the smallest of the log's tail at that instant and, for each commit in flight, the
//! tail when it began, which is not above its own LSN. So a leaf whose highest LSN is below `low_lsn` is, as a whole,
//! what the snapshot sees. Commits at or above it may be visible or not; for these the history is asked.
//!
//! # Commits that come to nothing
//!
//! A commit may be given up after it has put old values aside: because there was no room for all of them, or because
//! the key it was to delete is not there. What it has put aside is what the keys still had when it ended, so it
//! misleads no reader. It would mislead a validation, even that of the same transaction when it tries again: nothing
//! was changed. So the numbers of such commits are remembered until they are behind the horizon, and count as visible
//! for validations ([`Versions::for_validation`]).
//!
//! # The horizon
//!
//! Every commit below it is visible to all live snapshots and to all that can be taken from now on. What the history
//! holds of such commits nobody can ask for any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bedstone_bufpool::OwnedTicket;
use parking_lot::{Condvar, Mutex};

/// Most keys of a commit that may leave history out: that many are applied in a millisecond or so.
pub(crate) const ELIDES_MAX: usize = 1024;

/// Bytes of old values that are worth dropping.
pub(crate) const MUCH: u64 = 4 << 20;

/// What a snapshot sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    /// No commit from here on is visible.
    high: u64,
    /// Commits below `high` that are not visible either, ascending.
    excluded: Box<[u64]>,
    /// For a validation: commits that are not among those seen, but have changed nothing.
    void: Box<[u64]>,
    /// Every commit whose LSN is below this one is visible.
    pub(crate) low_lsn: u64,
}

impl View {
    /// The commit with this number is visible.
    #[inline]
    pub(crate) fn sees(&self, csn: u64) -> bool {
        (csn < self.high && !self.excluded.contains(&csn)) || self.void.contains(&csn)
    }

    /// All commits below this one are visible.
    pub(crate) fn low(&self) -> u64 {
        self.excluded.first().copied().unwrap_or(self.high)
    }

    /// The log position by which users name the snapshot: what it sees is at least all commits below it.
    pub(crate) fn lsn(&self) -> u64 {
        self.low_lsn
    }
}

/// What is known of a snapshot for [`crate::Database::snapshots`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Label {
    /// What the caller called it.
    pub(crate) name: String,
    /// It belongs to a write transaction.
    pub(crate) writes: bool,
    /// When it began, on the disk's clock.
    pub(crate) begun: Duration,
    /// When it stops holding anything, on the same clock.
    pub(crate) deadline: Option<Duration>,
}

/// Keeps the pages of long values readable that were freed after it was taken.
pub(crate) type Held = Arc<OwnedTicket>;

/// A live snapshot.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) id: u64,
    pub(crate) label: Label,
    /// Old values in pages of their own stay readable while these are held.
    pub(crate) stamps: Mutex<Vec<Held>>,
    /// Its deadline has passed and it was given up: it may read nothing any more.
    expired: AtomicBool,
}

impl Live {
    #[inline]
    pub(crate) fn is_expired(&self) -> bool {
        self.expired.load(Ordering::Acquire)
    }
}

/// A commit in flight.
#[derive(Debug)]
struct Flight {
    csn: u64,
    keeps: bool,
    /// The log's tail when it began.
    floor: u64,
    /// What keeps the long values readable that it replaces.
    held: Vec<Held>,
}

#[derive(Debug)]
struct State {
    /// The csn of the next commit.
    next: u64,
    /// Ascending by csn.
    in_flight: Vec<Flight>,
    /// By id. `None`: announced and not taken yet.
    live: BTreeMap<u64, (Arc<Live>, Option<Arc<View>>)>,
    next_id: u64,
    /// Commits that kept history and changed nothing; those that all snapshots see are forgotten.
    void: BTreeSet<u64>,
    /// A commit was left half-applied: there are no consistent states to take any more.
    broken: bool,
}

/// The commits in flight and the live snapshots of a database.
#[derive(Debug)]
pub(crate) struct Versions {
    /// Bytes of old values kept in all tables, roughly.
    pub(crate) held_bytes: AtomicU64,
    state: Mutex<State>,
    /// A commit that leaves history out has ended.
    ended: Condvar,
}

/// A commit in flight. Dropping it ends it: its writes are in the trees, or it never changed a leaf.
#[derive(Debug)]
pub(crate) struct InFlight<'v> {
    versions: &'v Versions,
    pub(crate) csn: u64,
    /// It has to put the old values aside.
    pub(crate) keeps: bool,
    abandoned: bool,
    void: bool,
}

/// A snapshot could not be taken: a commit was left half-applied.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Broken;

impl State {
    /// Notes a snapshot, so that the commits that begin from now on keep history. Gives the csn of the first of them.
    fn announce(&mut self, label: Label, held: Held) -> (Arc<Live>, u64) {
        let id = self.next_id;
        self.next_id += 1;
        let (stamps, expired) = (Mutex::new(vec![held]), AtomicBool::new(false));
        let live = Arc::new(Live { id, label, stamps, expired });
        self.live.insert(id, (live.clone(), None));
        (live, self.next)
    }

    /// A commit that began before a snapshot was announced leaves history out.
    fn must_wait(&self, announced: u64) -> bool {
        self.in_flight.iter().any(|flight| !flight.keeps && flight.csn < announced)
    }

    /// Takes an announced snapshot.
    fn take(&mut self, live: &Arc<Live>, tail: u64) -> Arc<View> {
        let mut low_lsn = tail;
        let mut excluded = Vec::with_capacity(self.in_flight.len());
        for flight in &self.in_flight {
            excluded.push(flight.csn);
            low_lsn = low_lsn.min(flight.floor);
            live.stamps.lock().extend(flight.held.iter().cloned());
        }
        let (high, void) = (self.next, Box::default());
        let view = Arc::new(View { high, excluded: excluded.into(), void, low_lsn });
        self.live.insert(live.id, (live.clone(), Some(view.clone())));
        view
    }

    fn horizon(&self) -> u64 {
        let mut horizon = self.in_flight.first().map_or(self.next, |flight| flight.csn);
        // One that has not been taken yet will see all that is over by now, and not be taken before the rest is over
        // or excluded from it.
        for view in self.live.values().filter_map(|(_, view)| view.as_ref()) {
            horizon = horizon.min(view.low());
        }
        horizon
    }

    fn for_validation(&self, view: &View) -> View {
        View { void: self.void.range(view.low()..).copied().collect(), ..view.clone() }
    }
}

impl Versions {
    pub(crate) fn new() -> Self {
        let state = State {
            next: 1,
            in_flight: Vec::new(),
            live: BTreeMap::new(),
            next_id: 1,
            void: BTreeSet::new(),
            broken: false,
        };
        Self { held_bytes: AtomicU64::new(0), state: Mutex::new(state), ended: Condvar::new() }
    }

    /// So many old values are kept that dropping some is worth the work.
    pub(crate) fn holds_much(&self) -> bool {
        self.held_bytes.load(Ordering::Relaxed) > MUCH
    }

    /// Begins a commit whose stripes are held and which has appended nothing yet. `tail` gives the log's tail. A
    /// commit that `may_elide` leaves history out if no snapshot is live but, for a transaction, its `own`, in which
    /// nothing will be read any more.
    pub(crate) fn begin_commit(
        &self,
        may_elide: bool,
        own: Option<&Live>,
        tail: impl FnOnce() -> u64,
    ) -> InFlight<'_> {
        let mut state = self.state.lock();
        let csn = state.next;
        state.next += 1;
        let keeps = !may_elide || state.live.keys().any(|&id| own.is_none_or(|own| own.id != id));
        state.in_flight.push(Flight { csn, keeps, floor: tail(), held: Vec::new() });
        InFlight { versions: self, csn, keeps, abandoned: false, void: false }
    }

    /// Takes a snapshot. `hold` and `tail` are called under the mutex: they get the pool's stamp for long values,
    /// and the log's tail.
    pub(crate) fn begin_snapshot(
        &self,
        label: Label,
        hold: impl FnOnce() -> Held,
        tail: impl FnOnce() -> u64,
    ) -> Result<(Arc<Live>, Arc<View>), Broken> {
        let mut state = self.state.lock();
        let (live, announced) = state.announce(label, hold());
        while !state.broken && state.must_wait(announced) {
            self.ended.wait(&mut state);
        }
        if state.broken {
            state.live.remove(&live.id);
            return Err(Broken);
        }
        let view = state.take(&live, tail());
        Ok((live, view))
    }

    /// The first half of [`Versions::begin_snapshot`], up to the wait.
    #[cfg(test)]
    pub(crate) fn announce(&self, held: Held) -> (Arc<Live>, u64) {
        self.state.lock().announce(Label::default(), held)
    }

    /// The second half; `None` if it had to wait, and is not `heedless` of that.
    #[cfg(test)]
    pub(crate) fn try_take(
        &self,
        live: &Arc<Live>,
        announced: u64,
        tail: u64,
        heedless: bool,
    ) -> Option<Arc<View>> {
        let mut state = self.state.lock();
        (heedless || !state.must_wait(announced)).then(|| state.take(live, tail))
    }

    /// A snapshot is no longer used. `true` if the horizon may have moved.
    pub(crate) fn end_snapshot(&self, live: &Live) -> bool {
        let mut state = self.state.lock();
        let oldest = state.live.keys().next() == Some(&live.id);
        state.live.remove(&live.id).is_some() && oldest
    }

    /// Gives up the snapshots whose deadline has passed. `true` if there were any.
    pub(crate) fn expire(&self, now: Duration) -> bool {
        let mut state = self.state.lock();
        let before = state.live.len();
        state.live.retain(|_, (live, view)| {
            let over = view.is_some() && live.label.deadline.is_some_and(|deadline| deadline <= now);
            if over {
                live.expired.store(true, Ordering::Release);
                live.stamps.lock().clear();
            }
            !over
        });
        state.live.len() < before
    }

    /// The earliest deadline of a live snapshot.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.state.lock().live.values().filter_map(|(live, _)| live.label.deadline).min()
    }

    /// What the live snapshots see; `None` while one of them has not been taken yet.
    pub(crate) fn live_views(&self) -> Option<Vec<Arc<View>>> {
        let state = self.state.lock();
        let mut views: Vec<Arc<View>> =
            state.live.values().map(|(_, view)| view.clone()).collect::<Option<_>>()?;
        if !state.void.is_empty() {
            // What validations ask for must be kept as well.
            views.extend(views.clone().iter().map(|view| Arc::new(state.for_validation(view))));
        }
        Some(views)
    }

    /// The view by which the transaction with this one is validated: commits that changed nothing count as seen.
    pub(crate) fn for_validation(&self, view: &View) -> View {
        self.state.lock().for_validation(view)
    }

    /// The live snapshots, the oldest first.
    pub(crate) fn live(&self) -> Vec<(Arc<Live>, Arc<View>)> {
        let state = self.state.lock();
        state.live.values().filter_map(|(live, view)| Some((live.clone(), view.clone()?))).collect()
    }

    /// The horizon; see the module.
    pub(crate) fn horizon(&self) -> u64 {
        self.state.lock().horizon()
    }

    /// A number between those of the commits begun so far and those to come.
    pub(crate) fn mark(&self) -> u64 {
        let mut state = self.state.lock();
        state.next += 1;
        state.next - 1
    }
}

impl InFlight<'_> {
    /// Keeps what long values need alive for snapshots that are taken while the commit is in flight.
    pub(crate) fn hold(&self, held: Held) {
        let mut state = self.versions.state.lock();
        if let Some(flight) = state.in_flight.iter_mut().find(|flight| flight.csn == self.csn) {
            flight.held.push(held);
        }
    }

    /// The commit ends, and has changed nothing.
    pub(crate) fn give_up(mut self) {
        self.void = true;
    }

    /// The commit is in the log, and its writes are not all in the trees and never will be.
    pub(crate) fn abandon(mut self) {
        self.abandoned = true;
        self.versions.state.lock().broken = true;
        self.versions.ended.notify_all();
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if self.abandoned {
            return;
        }
        let mut held = Vec::new();
        {
            let mut state = self.versions.state.lock();
            if let Some(at) = state.in_flight.iter().position(|flight| flight.csn == self.csn) {
                held = state.in_flight.remove(at).held;
            }
            if self.void && self.keeps {
                state.void.insert(self.csn);
                let horizon = state.horizon();
                state.void = state.void.split_off(&horizon);
            }
        }
        if !self.keeps {
            self.versions.ended.notify_all();
        }
        drop(held);
    }
}
