//! Key stripes: the locks that give the commits of one key one order.
//!
//! Every commit locks the stripes of the keys it writes before its record enters the log, and lets go of them
//! once its writes are in the trees. So two commits that share a key cannot both be between log and tree: the
//! order of their records in the log is the order in which their writes reach the tree, which is what makes
//! replay in log order give the state the readers saw.
//!
//! A commit takes its stripes in ascending order, so commits cannot wait for each other in a circle. Nothing
//! that is waited for while stripes are held (log space, log buffer, page reads, frames) ever waits for a
//! stripe. The one who must keep every writer out (dropping a table, closing) takes all of them in the same
//! order.

use crossbeam::utils::CachePadded;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Number of stripes, a power of two. With 512, two random keys share one in 0.2 % of cases.
pub(crate) const STRIPES: usize = 512;

/// The stripes of a database.
pub(crate) struct Stripes {
    // A serializable commit shares the stripes of what it only read.
    locks: Box<[CachePadded<RwLock<()>>]>,
}

/// A held stripe.
pub(crate) type StripeGuard<'a> = RwLockWriteGuard<'a, ()>;

/// The held stripes of a set.
pub(crate) struct StripesHeld<'a> {
    _written: Vec<RwLockWriteGuard<'a, ()>>,
    _read: Vec<RwLockReadGuard<'a, ()>>,
}

/// The stripes of a set of keys: one bit each.
#[derive(Debug, Clone, Default)]
pub(crate) struct StripeSet([u64; STRIPES / 64]);

impl StripeSet {
    /// Adds the stripe of a key.
    pub(crate) fn add(&mut self, table: u32, key: &[u8]) {
        let i = stripe_of(table, key);
        self.0[i / 64] |= 1 << (i % 64);
    }

    fn has(&self, i: usize) -> bool {
        self.0[i / 64] >> (i % 64) & 1 == 1
    }

    fn union(&self, other: &StripeSet) -> StripeSet {
        StripeSet(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }

    /// Adds every stripe.
    pub(crate) fn add_all(&mut self) {
        self.0.fill(u64::MAX);
    }

    /// It has every stripe: whoever holds it is alone.
    pub(crate) fn is_full(&self) -> bool {
        self.0.iter().all(|&word| word == u64::MAX)
    }

    fn indexes(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().flat_map(|(word, &bits)| {
            (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| word * 64 + bit)
        })
    }
}

/// The stripe of a key. CRC-32C is one instruction for eight bytes and spreads well enough for locks.
fn stripe_of(table: u32, key: &[u8]) -> usize {
    bedstone_io::crc32c(table, key) as usize % STRIPES
}

impl Stripes {
    pub(crate) fn new() -> Self {
        Self { locks: (0..STRIPES).map(|_| CachePadded::new(RwLock::new(()))).collect() }
    }

    /// Locks the stripe of one key.
    pub(crate) fn lock(&self, table: u32, key: &[u8]) -> StripeGuard<'_> {
        self.locks[stripe_of(table, key)].write()
    }

    /// Locks two sets of stripes in one ascending order: `written` against everybody, the rest of `read` against those
    /// who write.
    pub(crate) fn lock_sets(&self, written: &StripeSet, read: &StripeSet) -> StripesHeld<'_> {
        let mut held = StripesHeld { _written: Vec::new(), _read: Vec::new() };
        for i in written.union(read).indexes() {
            match written.has(i) {
                true => held._written.push(self.locks[i].write()),
                false => held._read.push(self.locks[i].read()),
            }
        }
        held
    }

    /// Locks a set of stripes in ascending order.
    #[cfg(test)]
    pub(crate) fn lock_set(&self, set: &StripeSet) -> Vec<StripeGuard<'_>> {
        set.indexes().map(|i| self.locks[i].write()).collect()
    }

    /// Locks every stripe: no commit is between its append and its last write while this is held.
    pub(crate) fn lock_all(&self) -> Vec<StripeGuard<'_>> {
        self.locks.iter().map(|lock| lock.write()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_locks_each_of_its_stripes_once_and_in_order() {
        let mut set = StripeSet::default();
        for i in 0..200u32 {
            set.add(3, &i.to_le_bytes());
            set.add(3, &i.to_le_bytes());
        }
        let indexes: Vec<usize> = set.indexes().collect();
        assert!(indexes.is_sorted_by(|a, b| a < b));
        assert!(indexes.len() > 100 && indexes.len() <= 200);
        let stripes = Stripes::new();
        let held = stripes.lock_set(&set);
        assert_eq!(held.len(), indexes.len());
        for i in 0..STRIPES {
            assert_eq!(stripes.locks[i].is_locked(), indexes.contains(&i));
        }
    }

    #[test]
    fn commits_over_overlapping_sets_do_not_deadlock() {
        let stripes = Stripes::new();
        let inside = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for t in 0..4u32 {
                let (stripes, inside) = (&stripes, &inside);
                scope.spawn(move || {
                    for round in 0..300u32 {
                        let mut set = StripeSet::default();
                        for k in 0..8 {
                            set.add(1, &(t * 31 + round * 7 + k * 13).to_le_bytes());
                        }
                        set.add(1, b"shared by all");
                        let _held = stripes.lock_set(&set);
                        assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        if round % 50 == 0 {
                            drop(_held);
                            drop(stripes.lock_all());
                        }
                    }
                });
            }
        });
    }
}
