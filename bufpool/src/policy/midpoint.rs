//! InnoDB's midpoint LRU: a young list of five eighths of the pool and an old list of three eighths. A new page enters
//! at the head of the old list; it becomes young when a touch is found on it and some time has passed since it came
//! (MySQL 8.4 Reference Manual, 17.8.3.3 "Making the Buffer Pool Scan Resistant").
//!
//! InnoDB measures that time in milliseconds and moves pages on the hit itself. Here a hit only sets a bit, and time
//! is counted in pages admitted: an eighth of the pool. What moves, moves when the evictor comes by.

use std::collections::HashMap;

use super::{List, Policy};
use crate::Access;
use crate::header::PageId;

/// The old list's share of the pool, in eighths.
const OLD_EIGHTHS: usize = 3;

/// A page of the old list.
#[derive(Debug, Clone, Copy)]
struct Newcomer {
    /// How many pages had been admitted when it came.
    since: u64,
    /// Brought in by a scan: the next touch found on it makes it an ordinary newcomer.
    scanned: bool,
}

#[derive(Debug, Clone, Copy)]
enum Origin {
    Old(Newcomer),
    Young,
}

/// The state of the midpoint policy.
#[derive(Debug)]
pub struct Midpoint {
    young: List<()>,
    old: List<Newcomer>,
    offered: HashMap<PageId, Origin>,
    admissions: u64,
    frames: usize,
}

impl Midpoint {
    /// For a pool of `frames` frames.
    pub fn new(frames: usize) -> Self {
        Self { young: List::new(), old: List::new(), offered: HashMap::new(), admissions: 0, frames }
    }

    fn is_resident(&self, page: PageId) -> bool {
        self.young.contains(page) || self.old.contains(page) || self.offered.contains_key(&page)
    }

    /// Moves pages from the young list's tail over the midpoint while the old list is shorter than its share;
    /// those touched go round once more. `passes` bounds that, for bits that are set again meanwhile.
    fn balance(&mut self, passes: &mut usize, touched: &mut dyn FnMut(PageId) -> bool) {
        let total = self.young.len() + self.old.len();
        let old_target = (total * OLD_EIGHTHS).div_ceil(8);
        while self.old.len() < old_target {
            let Some((page, ())) = self.young.pop_tail() else { return };
            if *passes > 0 && touched(page) {
                *passes -= 1;
                self.young.push_head(page, ());
            } else {
                // It has been here for long: the next touch makes it young again.
                self.old.push_head(page, Newcomer { since: 0, scanned: false });
            }
        }
    }

    fn victim(
        &mut self,
        passes: &mut usize,
        touched: &mut dyn FnMut(PageId) -> bool,
    ) -> Option<(PageId, Origin)> {
        let delay = (self.frames / 8) as u64;
        loop {
            self.balance(passes, touched);
            let Some((page, newcomer)) = self.old.pop_tail() else {
                return self.young.pop_tail().map(|(page, ())| (page, Origin::Young));
            };
            if *passes == 0 || !touched(page) {
                return Some((page, Origin::Old(newcomer)));
            }
            *passes -= 1;
            if newcomer.scanned || self.admissions - newcomer.since < delay {
                self.old.push_head(page, Newcomer { scanned: false, ..newcomer });
            } else {
                self.young.push_head(page, ());
            }
        }
    }
}

impl Policy for Midpoint {
    fn admitted(&mut self, page: PageId, access: Access) {
        if self.is_resident(page) {
            return;
        }
        self.admissions += 1;
        self.old.push_head(page, Newcomer { since: self.admissions, scanned: access == Access::Scan });
    }

    fn removed(&mut self, page: PageId) {
        self.young.remove(page);
        self.old.remove(page);
        self.offered.remove(&page);
    }

    fn victims(&mut self, want: usize, touched: &mut dyn FnMut(PageId) -> bool, out: &mut Vec<PageId>) {
        let mut passes = 3 * (self.young.len() + self.old.len());
        for _ in 0..want {
            let Some((page, origin)) = self.victim(&mut passes, touched) else { return };
            self.offered.insert(page, origin);
            out.push(page);
        }
    }

    fn evicted(&mut self, page: PageId) {
        self.offered.remove(&page);
    }

    fn kept(&mut self, page: PageId) {
        match self.offered.remove(&page) {
            Some(Origin::Old(newcomer)) => self.old.push_head(page, newcomer),
            Some(Origin::Young) => self.young.push_head(page, ()),
            None => {}
        }
    }

    fn len(&self) -> usize {
        self.young.len() + self.old.len() + self.offered.len()
    }

    fn resize(&mut self, frames: usize) {
        self.frames = frames;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn victims(policy: &mut Midpoint, want: usize, touched: &[u32]) -> Vec<u32> {
        let mut bits = touched.to_vec();
        let mut out = Vec::new();
        let mut take =
            |page: PageId| bits.iter().position(|&id| id == page.0).map(|at| bits.remove(at)).is_some();
        policy.victims(want, &mut take, &mut out);
        out.into_iter().map(|page| page.0).collect()
    }

    #[test]
    fn a_page_touched_after_the_delay_becomes_young() {
        let mut policy = Midpoint::new(8);
        for id in 1..=8 {
            policy.admitted(PageId(id), Access::Point);
        }
        assert_eq!(victims(&mut policy, 1, &[1]), [2]);
        assert!(policy.young.contains(PageId(1)));
        policy.evicted(PageId(2));
        // A scan passes through the old list only.
        for id in 100..200 {
            policy.admitted(PageId(id), Access::Scan);
            let gone = victims(&mut policy, 1, &[]);
            assert!(gone != [1]);
            policy.evicted(PageId(gone[0]));
        }
    }

    #[test]
    fn a_page_touched_before_the_delay_stays_old() {
        let mut policy = Midpoint::new(80);
        for id in 1..=5 {
            policy.admitted(PageId(id), Access::Point);
        }
        assert_eq!(victims(&mut policy, 1, &[1]), [2]);
        assert!(policy.old.contains(PageId(1)));
    }
}
