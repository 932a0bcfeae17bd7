//! S3-FIFO: a small queue that new pages pass through, a main queue for those that proved useful, and a list of the
//! ids of pages that left the small queue ("FIFO Queues are All You Need for Cache Eviction", Yang et al., SOSP
//! 2023).
//!
//! Most pages of a scan are used once: they cross the small queue, a tenth of the pool, and leave without touching
//! the rest. A page used again while it was in the small queue, or asked for again soon after it left, goes to the
//! main queue, where it gets another round for each round in which it is used.

use std::collections::HashMap;

use super::{List, Policy};
use crate::Access;
use crate::header::PageId;

/// The small queue's share of the pool is one part in this many.
const SMALL_PART: usize = 10;

/// A page of the small queue.
#[derive(Debug, Clone, Copy)]
struct Newcomer {
    /// Brought in by a scan: the next touch found on it only makes it an ordinary newcomer.
    scanned: bool,
}

#[derive(Debug, Clone, Copy)]
enum Origin {
    Small(Newcomer),
    Main,
}

/// The state of the S3-FIFO policy.
#[derive(Debug)]
pub struct S3Fifo {
    small: List<Newcomer>,
    main: List<()>,
    /// Ids of pages that left from the small queue, no more of them than the main queue may hold.
    ghost: List<()>,
    offered: HashMap<PageId, Origin>,
    small_target: usize,
    ghost_max: usize,
}

impl S3Fifo {
    /// For a pool of `frames` frames.
    pub fn new(frames: usize) -> Self {
        let mut policy = Self {
            small: List::new(),
            main: List::new(),
            ghost: List::new(),
            offered: HashMap::new(),
            small_target: 0,
            ghost_max: 0,
        };
        policy.resize(frames);
        policy
    }

    fn is_resident(&self, page: PageId) -> bool {
        self.small.contains(page) || self.main.contains(page) || self.offered.contains_key(&page)
    }

    fn trim_ghost(&mut self) {
        while self.ghost.len() > self.ghost_max {
            self.ghost.pop_tail();
        }
    }

    /// One victim. A page that is passed over loses its reference bit, so each comes up after two rounds at most;
    /// `passes` counts down the pages that may still be passed over, for bits that are set again meanwhile.
    fn victim(
        &mut self,
        passes: &mut usize,
        touched: &mut dyn FnMut(PageId) -> bool,
    ) -> Option<(PageId, Origin)> {
        loop {
            let from_small = self.small.len() > self.small_target || self.main.len() == 0;
            if from_small && let Some((page, newcomer)) = self.small.pop_tail() {
                if *passes == 0 || !touched(page) {
                    return Some((page, Origin::Small(newcomer)));
                }
                if newcomer.scanned {
                    self.small.push_head(page, Newcomer { scanned: false });
                } else {
                    self.main.push_head(page, ());
                }
            } else {
                let (page, ()) = self.main.pop_tail()?;
                if *passes == 0 || !touched(page) {
                    return Some((page, Origin::Main));
                }
                self.main.push_head(page, ());
            }
            *passes -= 1;
        }
    }
}

impl Policy for S3Fifo {
    fn admitted(&mut self, page: PageId, access: Access) {
        if self.is_resident(page) {
            return;
        }
        let seen_before = self.ghost.remove(page).is_some();
        match (seen_before, access) {
            (true, Access::Point) => self.main.push_head(page, ()),
            // A scan that comes by again says less than a look-up does: the page is a newcomer, but a full one.
            (true, Access::Scan) | (false, Access::Point) => {
                self.small.push_head(page, Newcomer { scanned: false });
            }
            (false, Access::Scan) => self.small.push_head(page, Newcomer { scanned: true }),
        }
    }

    fn removed(&mut self, page: PageId) {
        self.small.remove(page);
        self.main.remove(page);
        self.ghost.remove(page);
        self.offered.remove(&page);
    }

    fn victims(&mut self, want: usize, touched: &mut dyn FnMut(PageId) -> bool, out: &mut Vec<PageId>) {
        let mut passes = 3 * (self.small.len() + self.main.len());
        for _ in 0..want {
            let Some((page, origin)) = self.victim(&mut passes, touched) else { return };
            self.offered.insert(page, origin);
            out.push(page);
        }
    }

    fn evicted(&mut self, page: PageId) {
        if let Some(Origin::Small(_)) = self.offered.remove(&page) {
            self.ghost.push_head(page, ());
            self.trim_ghost();
        }
    }

    fn kept(&mut self, page: PageId) {
        match self.offered.remove(&page) {
            Some(Origin::Small(newcomer)) => self.small.push_head(page, newcomer),
            Some(Origin::Main) => self.main.push_head(page, ()),
            None => {}
        }
    }

    fn len(&self) -> usize {
        self.small.len() + self.main.len() + self.offered.len()
    }

    fn resize(&mut self, frames: usize) {
        self.small_target = frames / SMALL_PART;
        self.ghost_max = frames - self.small_target;
        self.trim_ghost();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn victims(policy: &mut S3Fifo, want: usize, touched: &[u32]) -> Vec<u32> {
        let mut bits = touched.to_vec();
        let mut out = Vec::new();
        let mut take =
            |page: PageId| bits.iter().position(|&id| id == page.0).map(|at| bits.remove(at)).is_some();
        policy.victims(want, &mut take, &mut out);
        out.into_iter().map(|page| page.0).collect()
    }

    #[test]
    fn a_page_used_again_survives_a_scan() {
        let mut policy = S3Fifo::new(20);
        for id in 1..=20 {
            policy.admitted(PageId(id), Access::Point);
        }
        assert_eq!(victims(&mut policy, 3, &[1, 3]), [2, 4, 5]);
        for id in [2, 4, 5] {
            policy.evicted(PageId(id));
        }
        for id in 100..200 {
            policy.admitted(PageId(id), Access::Scan);
            let gone = victims(&mut policy, 1, &[]);
            assert!(gone != [1] && gone != [3]);
            policy.evicted(PageId(gone[0]));
        }
    }

    #[test]
    fn the_ghost_brings_a_page_to_the_main_queue() {
        let mut policy = S3Fifo::new(10);
        for id in [1, 2] {
            policy.admitted(PageId(id), Access::Point);
        }
        assert_eq!(victims(&mut policy, 2, &[]), [1, 2]);
        policy.evicted(PageId(1));
        policy.evicted(PageId(2));
        policy.removed(PageId(2));
        for id in [1, 2] {
            policy.admitted(PageId(id), Access::Point);
        }
        assert!(policy.main.contains(PageId(1)));
        assert!(policy.small.contains(PageId(2)), "a freed page is a stranger");
    }

    #[test]
    fn the_first_touch_of_a_scanned_page_does_not_promote_it() {
        let mut policy = S3Fifo::new(10);
        policy.admitted(PageId(1), Access::Scan);
        policy.admitted(PageId(2), Access::Scan);
        assert_eq!(victims(&mut policy, 1, &[1]), [2]);
        assert!(policy.small.contains(PageId(1)));
        // Two more, so that the small queue is still above its share when the page has left it.
        policy.admitted(PageId(3), Access::Scan);
        policy.admitted(PageId(4), Access::Scan);
        assert_eq!(victims(&mut policy, 1, &[1]), [3]);
        assert!(policy.main.contains(PageId(1)));
    }

    #[test]
    fn the_ghost_is_bounded() {
        let mut policy = S3Fifo::new(10);
        for id in 1..=100 {
            policy.admitted(PageId(id), Access::Point);
            victims(&mut policy, 1, &[]);
            policy.evicted(PageId(id));
        }
        assert_eq!(policy.ghost.len(), 9);
        policy.resize(0);
        assert_eq!(policy.ghost.len(), 0);
    }
}
