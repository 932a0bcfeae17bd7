//! Which pages leave the pool when room is needed.
//!
//! A hit takes no lock and calls nothing here: it sets a reference bit in the page's frame. The evictor, which asks
//! for victims in batches under a mutex of its own, looks at the bits through the `touched` callback and clears
//! them. So that the bit means "used again", the touch by the very operation that brought the page in must not set
//! it, nor may touches by scans.
//!
//! The caller owns the truth about frames; a policy owns an opinion. A page offered as a victim stays offered, and
//! is not offered again, until the caller says what became of it.

mod midpoint;
mod s3fifo;
#[cfg(test)]
mod simulation;

use lru::LruCache;

pub use midpoint::Midpoint;
pub use s3fifo::S3Fifo;

use crate::header::PageId;
use crate::{Access, PolicyKind};

/// A replacement policy. No method blocks or fails; pages never admitted are ignored.
pub trait Policy: Send {
    /// `page` became resident: read in, or created.
    fn admitted(&mut self, page: PageId, access: Access);

    /// `page` was freed: nothing of it is remembered.
    fn removed(&mut self, page: PageId);

    /// Appends up to `want` pages to `out`, the best victim first. `touched` reads and clears the reference bit of
    /// a resident page. Each page stays offered until [`Policy::evicted`], [`Policy::kept`] or [`Policy::removed`]
    /// is called for it, which may be much later, after it was written out.
    fn victims(&mut self, want: usize, touched: &mut dyn FnMut(PageId) -> bool, out: &mut Vec<PageId>);

    /// The offered `page` left the pool.
    fn evicted(&mut self, page: PageId);

    /// The offered `page` stays, because it is pinned, say. It will come up again.
    fn kept(&mut self, page: PageId);

    /// Pages admitted and not yet gone, offered ones included.
    fn len(&self) -> usize;

    /// No page is resident.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pool has `frames` frames from now on.
    fn resize(&mut self, frames: usize);
}

/// A policy of the given kind for a pool of `frames` frames.
pub fn new(kind: PolicyKind, frames: usize) -> Box<dyn Policy> {
    match kind {
        PolicyKind::S3Fifo => Box::new(S3Fifo::new(frames)),
        PolicyKind::Midpoint => Box::new(Midpoint::new(frames)),
    }
}

/// A list of pages with something to remember of each: new ones go to the head, victims come from the tail, and any
/// page can be taken out. The order changes by nothing else.
#[derive(Debug)]
struct List<T>(LruCache<PageId, T>);

impl<T> List<T> {
    fn new() -> Self {
        Self(LruCache::unbounded())
    }

    fn push_head(&mut self, page: PageId, item: T) {
        self.0.push(page, item);
    }

    fn pop_tail(&mut self) -> Option<(PageId, T)> {
        self.0.pop_lru()
    }

    fn remove(&mut self, page: PageId) -> Option<T> {
        self.0.pop(&page)
    }

    fn contains(&self, page: PageId) -> bool {
        self.0.contains(&page)
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::proptest_config;
    use proptest::prelude::*;
    use std::collections::{HashMap, HashSet};

    fn both(frames: usize) -> [Box<dyn Policy>; 2] {
        [new(PolicyKind::S3Fifo, frames), new(PolicyKind::Midpoint, frames)]
    }

    #[test]
    fn every_page_comes_up_even_if_all_were_touched() {
        for mut policy in both(100) {
            for id in 1..=100 {
                policy.admitted(PageId(id), Access::Point);
            }
            let mut bits: HashSet<PageId> = (1..=100).map(PageId).collect();
            let mut out = Vec::new();
            policy.victims(100, &mut |page| bits.remove(&page), &mut out);
            assert_eq!(out.len(), 100);
            policy.victims(1, &mut |_| false, &mut out);
            assert_eq!(out.len(), 100, "offered pages are not offered again");
        }
    }

    #[test]
    fn pages_touched_without_end_do_not_hang_the_evictor() {
        for mut policy in both(100) {
            for id in 1..=100 {
                policy.admitted(PageId(id), Access::Point);
            }
            let mut out = Vec::new();
            policy.victims(10, &mut |_| true, &mut out);
            assert!(out.len() <= 10);
            // A pool whose pages are all in use must find room all the same.
            for _ in 0..3 {
                policy.victims(10, &mut |_| true, &mut out);
            }
            assert!(!out.is_empty());
        }
    }

    #[test]
    fn kept_pages_come_up_again() {
        for mut policy in both(10) {
            for id in 1..=10 {
                policy.admitted(PageId(id), Access::Point);
            }
            let mut out = Vec::new();
            policy.victims(10, &mut |_| false, &mut out);
            for &page in &out {
                policy.kept(page);
            }
            let mut again = Vec::new();
            policy.victims(10, &mut |_| false, &mut again);
            let set = |pages: &[PageId]| pages.iter().copied().collect::<HashSet<_>>();
            assert_eq!(set(&out), set(&again));
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Admit(u32, bool),
        Remove(u32),
        Touch(u32),
        Victims(usize),
        Settle(bool),
        Resize(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (1..60_u32, any::<bool>()).prop_map(|(id, scan)| Step::Admit(id, scan)),
            1 => (1..60_u32).prop_map(Step::Remove),
            4 => (1..60_u32).prop_map(Step::Touch),
            3 => (0..12_usize).prop_map(Step::Victims),
            4 => any::<bool>().prop_map(Step::Settle),
            1 => (0..60_usize).prop_map(Step::Resize),
        ]
    }

    proptest! {
        #![proptest_config(proptest_config(300))]
        #[test]
        fn books_stay_right(steps in proptest::collection::vec(step(), 1..200)) {
            for mut policy in both(20) {
                // Resident pages, with whether they are offered, and reference bits.
                let mut resident: HashMap<PageId, bool> = HashMap::new();
                let mut bits: HashSet<PageId> = HashSet::new();
                for step in &steps {
                    match *step {
                        Step::Admit(id, scan) => {
                            policy.admitted(PageId(id), if scan { Access::Scan } else { Access::Point });
                            resident.entry(PageId(id)).or_insert(false);
                        }
                        Step::Remove(id) => {
                            policy.removed(PageId(id));
                            resident.remove(&PageId(id));
                            bits.remove(&PageId(id));
                        }
                        Step::Touch(id) => {
                            if resident.contains_key(&PageId(id)) {
                                bits.insert(PageId(id));
                            }
                        }
                        Step::Victims(want) => {
                            let mut out = Vec::new();
                            policy.victims(want, &mut |page| bits.remove(&page), &mut out);
                            let left = resident.values().filter(|&&offered| !offered).count();
                            prop_assert!(out.len() == want.min(left), "{} of {want}, {left} left", out.len());
                            for page in out {
                                let offered = resident.get_mut(&page);
                                prop_assert!(offered.is_some(), "{page} is not resident");
                                let offered = offered.unwrap();
                                prop_assert!(!*offered, "{page} is offered twice");
                                *offered = true;
                            }
                        }
                        Step::Settle(evict) => {
                            let offered = resident.iter().filter(|&(_, &offered)| offered).map(|(&page, _)| page);
                            if let Some(page) = offered.min() {
                                if evict {
                                    policy.evicted(page);
                                    resident.remove(&page);
                                    bits.remove(&page);
                                } else {
                                    policy.kept(page);
                                    resident.insert(page, false);
                                }
                            }
                        }
                        Step::Resize(frames) => policy.resize(frames),
                    }
                    prop_assert_eq!(policy.len(), resident.len());
                    prop_assert_eq!(policy.is_empty(), resident.is_empty());
                }
            }
        }
    }
}
