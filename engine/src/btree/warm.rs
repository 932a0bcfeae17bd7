//! Bringing the leaves of a batch into memory before it is committed.

use super::descend::{Obstacle, Retry, Step, Target};
use super::node::Leaf;
use super::{Result, Tree};
use bedstone_bufpool::{Access, PageId, Pool};

/// Keys whose leaves are fetched together.
const GROUP: usize = 32;

impl Tree {
    /// Reads the leaves responsible for `keys`, which ascend, into memory, but no more than `max_pages` of
    /// them: in a pool too small for all, the first would be pushed out again. Gives how many different
    /// leaves the keys fall into (beyond `max_pages`: at most how many). Keys that fall into the leaf of the
    /// one before cost one comparison.
    ///
    /// # Errors
    /// Those of reading pages.
    pub(crate) fn warm(&self, pool: &Pool, keys: &[&[u8]], max_pages: usize) -> Result<usize> {
        let mut leaves = 0;
        let mut at = 0;
        let mut dense = true;
        let mut retry = Retry::default();
        while at < keys.len() {
            if leaves >= max_pages {
                return Ok(leaves + (keys.len() - at));
            }
            let group = if dense { 1 } else { GROUP.min(keys.len() - at) };
            let mut absent: Vec<PageId> = Vec::new();
            let mut busy = false;
            let mut passed = 0;
            {
                let guard = pool.guard();
                let mut last = None;
                for key in &keys[at..at + group] {
                    match self.descend(&guard, Target::Key(key), 0)? {
                        Step::At(place) => {
                            if last.replace(place.page) != Some(place.page) && absent.is_empty() && !busy {
                                leaves += 1;
                            }
                            if group == 1
                                && let Some(pin) = guard.pin(place.page, place.word, Access::Point)
                                && place.parent_unchanged(&guard)
                            {
                                let leaf: Leaf<'_> = self.leaf(place.page, &pin)?;
                                passed = match leaf.upper() {
                                    None => keys.len() - at,
                                    Some(upper) => count_below(&keys[at..], upper),
                                };
                            }
                        }
                        step => match retry.obstacle(&guard, &step)? {
                            Obstacle::Absent(page) => absent.push(page),
                            Obstacle::Busy => busy = true,
                        },
                    }
                }
            }
            if !absent.is_empty() {
                absent.sort_unstable();
                absent.dedup();
                pool.fault_many(&absent, Access::Point)?;
                continue;
            }
            if busy {
                retry.again(pool)?;
                continue;
            }
            retry = Retry::default();
            let done = passed.max(group);
            dense = done >= 4 || !dense && group < GROUP;
            at += done;
        }
        Ok(leaves)
    }
}

/// How many of `keys`, the first of which is below `upper`, are below it.
fn count_below(keys: &[&[u8]], upper: &[u8]) -> usize {
    let mut end = 1;
    while end < keys.len() && keys[end] < upper {
        end = (end * 2).min(keys.len());
        if keys[end - 1] >= upper {
            return keys[..end].partition_point(|key| *key < upper).max(1);
        }
    }
    end
}
