//! History: the old values that snapshots still need.
//!
//! Each table has a few unlogged trees, its *generations*, in the same pool. Their keys are the keys of the table;
//! the value of a key is the list of its old versions ([`record`]). They are worthless after a crash, and nothing of
//! them is recovered ([`super::temp_tree`]).
//!
//! # Writing
//!
//! A commit that keeps history adds a version for each of its keys, under the stripes of its keys, after its
//! beginning and before its record is appended: what can fail fails before the log knows of the commit. If it is
//! given up after that, what it added says that the keys had the values that they still have.
//!
//! Whenever the list of a key is written, the versions are left out that no live snapshot sees. So a key has about as
//! many versions as there are live snapshots that differ about it, however often it was written: a snapshot that is
//! held for long costs one version of each key changed since, and finds it by one descent.
//!
//! # Reading
//!
//! A snapshot reads the leaf first and the history afterwards. If the leaf's highest LSN is below the snapshot's
//! `low_lsn`, the leaf is the answer. Else the history is: the oldest version replaced by a commit that the snapshot
//! does not see. If there is none, the leaf is right after all. A commit that changes the leaf after it was read puts
//! the old value, the one that was read, into the history first; and one that had changed it before had put it there
//! before. So the order of the two reads is what makes them agree.
//!
//! # Generations
//!
//! New versions go to the newest generation. It is closed, and another begun, when it is large, or when the list of
//! a key would grow too long for the pages that a commit can set aside. A generation closed at the csn `k` holds
//! nothing of commits from `k` on: the mark is taken under the lock under which the newest generation is looked up,
//! and a commit has its csn before it looks. Once the horizon has passed `k`, nobody can ask for anything in it, and
//! it is dropped as a whole. Nobody reads it either: a snapshot that could, because it looked the generations up
//! before it was closed, began before `k`, and would hold the horizon back.
//!
//! # Marks
//!
//! A large load into an empty table, or behind its last key, would fill the history with "was absent". It sets a
//! mark instead: before this commit no key from here on existed. It must hold all stripes, so that nobody inserts
//! such keys meanwhile. A mark counts as a version of every key from there on.

mod record;
mod scan;

pub(crate) use record::Old;
#[cfg(feature = "fuzzing")]
pub(crate) use record::{push, versions};
pub(crate) use scan::{HistoryScan, Way};

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::btree::{Found, NewValue, Op, OverflowReader, PreparedOverflow, SourceError, Tree, Write};
use crate::catalog::TableState;
use crate::error::{Error, Result};
use crate::shared::Shared;
use crate::txn::slots::ApplySlot;
use crate::txn::temp_tree::TempTree;
use crate::txn::versions::{InFlight, MUCH, View};

/// Keys whose old values are put aside in one go.
const CHUNK: usize = 256;
/// Lists with pages of their own that are built before they are put into the tree: each takes a sixteenth of the pool
/// at most.
const LONG_LISTS: usize = 3;

/// The history of a table.
#[derive(Debug, Default)]
pub(crate) struct History {
    parts: RwLock<Parts>,
}

#[derive(Debug, Default)]
struct Parts {
    /// The oldest first; only the last may be open.
    generations: Vec<Arc<Generation>>,
    /// Ascending by csn.
    marks: Vec<Mark>,
}

#[derive(Debug)]
struct Generation {
    temp: TempTree,
    bytes: AtomicU64,
    /// It holds no versions replaced from this csn on; `u64::MAX` while it is open.
    closed_at: AtomicU64,
}

impl Generation {
    fn is_open(&self) -> bool {
        self.closed_at.load(Ordering::Relaxed) == u64::MAX
    }

    /// The caller holds the lock of the history's parts for writing.
    fn close(&self, shared: &Shared) {
        self.closed_at.store(shared.versions.mark(), Ordering::Relaxed);
    }
}

/// Whether old values could be put aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Kept {
    Yes,
    /// Not before [`Shared::prepare_history`], which needs the stripes released; nothing that counts was done.
    NotReady {
        /// The newest generation must not be used for these keys any more.
        next: bool,
    },
}

/// Before commit `csn` no key from `from` on existed.
#[derive(Debug, Clone)]
struct Mark {
    csn: u64,
    from: Vec<u8>,
}

/// What the history says about a key and a snapshot.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Nothing: what the leaf has, or has not, is what the snapshot sees.
    AsInLeaf,
    /// This.
    Was(Old),
}

impl History {
    /// Nothing has ever been put aside, or all of it is gone.
    pub(crate) fn is_empty(&self) -> bool {
        let parts = self.parts.read();
        parts.generations.is_empty() && parts.marks.is_empty()
    }

    /// The tree of the newest generation.
    #[cfg(test)]
    pub(crate) fn newest_tree(&self) -> Option<Tree> {
        self.newest().map(|generation| generation.temp.tree())
    }

    /// Bytes of versions held.
    pub(crate) fn bytes(&self) -> u64 {
        self.parts.read().generations.iter().map(|g| g.bytes.load(Ordering::Relaxed)).sum()
    }

    /// Bytes of versions in which a snapshot may find something.
    pub(crate) fn bytes_for(&self, view: &View) -> u64 {
        let parts = self.parts.read();
        let relevant = parts.generations.iter().filter(|g| g.closed_at.load(Ordering::Relaxed) > view.low());
        relevant.map(|g| g.bytes.load(Ordering::Relaxed)).sum()
    }

    /// The generations in which a snapshot may find something, the oldest first.
    fn relevant(&self, view: &View) -> Vec<Tree> {
        let low = view.low();
        let parts = self.parts.read();
        let open = |g: &&Arc<Generation>| g.closed_at.load(Ordering::Relaxed) > low;
        parts.generations.iter().filter(open).map(|g| g.temp.tree()).collect()
    }

    /// The marks that a snapshot does not see: the commit and the first key.
    fn marks(&self, view: &View) -> Vec<(u64, Vec<u8>)> {
        let parts = self.parts.read();
        let unseen = parts.marks.iter().filter(|mark| !view.sees(mark.csn));
        unseen.map(|mark| (mark.csn, mark.from.clone())).collect()
    }

    /// Takes everything out, for the table was dropped.
    pub(crate) fn take(&self, shared: &Shared) {
        *self.parts.write() = Parts::default();
        shared.want_upkeep();
    }

    /// Drops what lies behind the horizon.
    pub(crate) fn purge(&self, shared: &Shared) {
        if self.is_empty() {
            return;
        }
        let mut parts = self.parts.write();
        if let [generation] = &parts.generations[..]
            && generation.bytes.load(Ordering::Relaxed) > MUCH
            && generation.is_open()
        {
            generation.close(shared);
        }
        let horizon = shared.versions.horizon();
        parts.marks.retain(|mark| mark.csn >= horizon);
        let passed = |g: &Arc<Generation>| g.closed_at.load(Ordering::Relaxed) < horizon;
        let count = parts.generations.iter().take_while(|g| passed(g)).count();
        parts.generations.drain(..count);
        drop(parts);
        if count > 0 {
            shared.want_upkeep();
        }
    }

    /// The generation that new versions go to, if there is one.
    fn newest(&self) -> Option<Arc<Generation>> {
        self.parts.read().generations.last().filter(|generation| generation.is_open()).cloned()
    }
}

impl Shared {
    /// Puts aside what the keys of a commit have now. `keys` ascend strictly; their stripes are held, and the caller
    /// owns `slot`. `urgent` as in [`Shared::log_room`]: a commit of deletes must not be stopped by what it has to put
    /// aside, and no other may use up for that what is kept back for deletes.
    pub(crate) fn keep_old(
        &self,
        table: &TableState,
        commit: &InFlight<'_>,
        keys: &[&[u8]],
        slot: &ApplySlot<'_>,
        urgent: bool,
    ) -> Result<Kept> {
        for keys in keys.chunks(CHUNK) {
            let Some(generation) = table.history.newest() else { return Ok(Kept::NotReady { next: false }) };
            let olds = self.old_values(table, commit, keys)?;
            let kept = self.add_versions(&generation, commit.csn, keys, &olds, slot, urgent)?;
            if kept != Kept::Yes {
                return Ok(kept);
            }
        }
        Ok(Kept::Yes)
    }

    /// Sees that there is a generation for new versions; with `next`, another one than now; `urgent` as in
    /// [`Shared::keep_old`]. No stripe may be held: a new tree is a change of the catalog.
    pub(crate) fn prepare_history(&self, table: &TableState, next: bool, urgent: bool) -> Result<()> {
        let before = table.history.newest();
        if before.is_some() && !next {
            return Ok(());
        }
        let temp = self.create_temp(urgent)?;
        let fresh =
            Arc::new(Generation { temp, bytes: AtomicU64::new(0), closed_at: AtomicU64::new(u64::MAX) });
        let mut parts = table.history.parts.write();
        match (parts.generations.last().filter(|generation| generation.is_open()), before) {
            // Somebody else was faster.
            (Some(_), None) => {}
            (Some(newest), Some(before)) if !Arc::ptr_eq(newest, &before) => {}
            (newest, _) => {
                if let Some(newest) = newest {
                    newest.close(self);
                }
                parts.generations.push(fresh);
                return Ok(());
            }
        }
        drop(parts);
        drop(fresh);
        self.want_upkeep();
        Ok(())
    }

    /// As [`Shared::keep_old`] for a commit that holds all stripes and whose keys in this table are all new and come
    /// after all others, if that is so: sets a mark and says `true`.
    pub(crate) fn mark_new(&self, table: &TableState, commit: &InFlight<'_>, first: &[u8]) -> Result<bool> {
        let behind = self.last_key(table)?.is_none_or(|last| &last[..] < first);
        if behind {
            table.history.parts.write().marks.push(Mark { csn: commit.csn, from: first.to_vec() });
        }
        Ok(behind)
    }

    /// The last key of a table.
    pub(crate) fn last_key(&self, table: &TableState) -> Result<Option<Vec<u8>>> {
        let mut scan = table.tree.scan(&self.pool, Bound::Unbounded, Bound::Unbounded);
        let last = scan.next_back().map_err(|e| self.pool_error(e))?;
        Ok(last.map(|entry| entry.key.to_vec()))
    }

    fn old_values(&self, table: &TableState, commit: &InFlight<'_>, keys: &[&[u8]]) -> Result<Vec<Old>> {
        let mut olds = vec![Old::Absent; keys.len()];
        // The pages that the commit frees stay readable for those who begin while it is in flight; whoever began
        // before it has a ticket of its own.
        let mut ticket = None;
        let read = table.tree.multi_get(&self.pool, keys, |i, found| match found {
            None => {}
            Some(Found::Inline { pin, range }) => olds[i] = Old::Inline(pin[range].to_vec()),
            Some(Found::Overflow { value, .. }) => {
                ticket.get_or_insert_with(|| Arc::new(self.pool.owned_ticket()));
                olds[i] = Old::Long(value);
            }
        });
        read.map_err(|e| self.pool_error(e))?;
        ticket.into_iter().for_each(|ticket| commit.hold(ticket));
        Ok(olds)
    }

    fn add_versions(
        &self,
        generation: &Generation,
        csn: u64,
        keys: &[&[u8]],
        olds: &[Old],
        slot: &ApplySlot<'_>,
        urgent: bool,
    ) -> Result<Kept> {
        let tree = generation.temp.tree();
        let mut lists = self.lists(tree, keys)?;
        let live = self.versions.live_views();
        let mut added = 0i64;
        for ((key, list), old) in keys.iter().zip(&mut lists).zip(olds) {
            let before = list.len();
            if let Some(live) = &live
                && before > 0
            {
                *list = record::pruned(list, live);
            }
            let first = list.is_empty();
            record::push(list, csn, old);
            added += (key.len() + list.len()) as i64 - if before > 0 { key.len() + before } else { 0 } as i64;
            // One version is never too long for the pages that may be set aside while stripes are held.
            if !first && self.gate.needs_pass(self.pool.page_size(), list.len() as u64) {
                return Ok(Kept::NotReady { next: true });
            }
        }
        let mut ops = Vec::with_capacity(keys.len());
        let mut long = 0;
        for (key, list) in keys.iter().zip(&lists) {
            let value = if key.len() + list.len() <= self.limits.max_inline_bytes {
                NewValue::Inline(list)
            } else {
                let (mut source, len) = (&list[..], list.len() as u64);
                let mut reserve = self.page_room(0, urgent)?;
                match PreparedOverflow::build_from(
                    &self.pool,
                    tree.table,
                    len,
                    &mut source,
                    None,
                    &mut reserve,
                ) {
                    Ok(prepared) => NewValue::Overflow(prepared),
                    Err(SourceError::Pool(e)) => return Err(self.pool_error(e)),
                    Err(e) => return Err(Error::Internal(e.to_string())),
                }
            };
            long += usize::from(matches!(value, NewValue::Overflow(_)));
            ops.push(Op { key, write: Write::Put(value), lsn: 0 });
            if long == LONG_LISTS {
                // Their pages hold frames until they are in the tree.
                generation.temp.apply_owning(self, &mut ops, slot, urgent)?;
                ops.clear();
                long = 0;
            }
        }
        generation.temp.apply_owning(self, &mut ops, slot, urgent)?;
        // Less than nothing if more was left out than added: the sums wrap, and come out right.
        generation.bytes.fetch_add(added as u64, Ordering::Relaxed);
        self.versions.held_bytes.fetch_add(added as u64, Ordering::Relaxed);
        Ok(Kept::Yes)
    }

    /// The lists that keys have in a generation; empty where there is none.
    fn lists(&self, tree: Tree, keys: &[&[u8]]) -> Result<Vec<Vec<u8>>> {
        let mut lists = vec![Vec::new(); keys.len()];
        let mut long = Vec::new();
        tree.multi_get(&self.pool, keys, |i, found| match found {
            None => {}
            Some(Found::Inline { pin, range }) => lists[i] = pin[range].to_vec(),
            Some(Found::Overflow { value, ticket }) => long.push((i, value, ticket)),
        })
        .map_err(|e| self.pool_error(e))?;
        for (i, value, ticket) in long {
            lists[i] = OverflowReader::new(tree, &self.pool, value, ticket)
                .and_then(|mut reader| reader.read_all())
                .map_err(|e| self.pool_error(e))?;
        }
        Ok(lists)
    }

    /// What the history says about `key`, for a snapshot. The leaf must have been read before.
    pub(crate) fn history_of(&self, table: &TableState, view: &View, key: &[u8]) -> Result<Answer> {
        if table.history.is_empty() {
            return Ok(Answer::AsInLeaf);
        }
        let mut seen: Option<(u64, Old)> = None;
        for tree in table.history.relevant(view) {
            let list = self.lists(tree, &[key])?.pop().unwrap_or_default();
            if let Some(version) = record::seen_by(&list, view) {
                let old = version.old().ok_or_else(bad_list)?;
                seen = Some((version.csn, old));
                break;
            }
        }
        let mark =
            table.history.marks(view).into_iter().filter(|(_, from)| key >= &from[..]).map(|m| m.0).min();
        Ok(match (seen, mark) {
            (Some((csn, old)), Some(mark)) => Answer::Was(if mark < csn { Old::Absent } else { old }),
            (Some((_, old)), None) => Answer::Was(old),
            (None, Some(_)) => Answer::Was(Old::Absent),
            (None, None) => Answer::AsInLeaf,
        })
    }
}

fn bad_list() -> Error {
    Error::Internal("a list of old versions makes no sense".into())
}
