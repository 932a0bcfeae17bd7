//! Binary search over heads.
//!
//! The heads decide nearly everything: only keys whose first four bytes after the prefix equal the sought
//! key's are compared in full. Both ends of that run of equal heads are found among the heads (never by
//! walking), so that a node whose heads are all equal still costs a logarithm of full comparisons.

use std::cmp::Ordering;

/// Where a run of equal heads begins, given `less(i)` = the head of slot `i` sorts before the sought one.
/// `slice::partition_point` compiles to a loop without branches that depend on the data.
#[inline]
fn first_not_less<T>(slots: &[T], mut less: impl FnMut(&T) -> bool) -> usize {
    slots.partition_point(|slot| less(slot))
}

/// Finds the key with the given `head` among `slots`, which are sorted. `head_at` reads a slot's head;
/// `compare` compares the full key of the slot at an index with the sought key. Returns the key's index, or
/// where it would stand.
#[inline]
pub(super) fn find<T>(
    slots: &[T],
    head: u32,
    head_at: impl Fn(&T) -> u32,
    compare: impl Fn(usize) -> Ordering,
) -> Result<usize, usize> {
    let first = first_not_less(slots, |slot| head_at(slot) < head);
    let equal = |i: usize| slots.get(i).is_some_and(|slot| head_at(slot) == head);
    if !equal(first) {
        return Err(first);
    }
    if !equal(first + 1) {
        return match compare(first) {
            Ordering::Equal => Ok(first),
            Ordering::Less => Err(first + 1),
            Ordering::Greater => Err(first),
        };
    }
    let (mut low, mut high) = (first, first + first_not_less(&slots[first..], |slot| head_at(slot) <= head));
    while low < high {
        let middle = low + (high - low) / 2;
        match compare(middle) {
            Ordering::Equal => return Ok(middle),
            Ordering::Less => low = middle + 1,
            Ordering::Greater => high = middle,
        }
    }
    Err(low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Keys as (head, rest), with runs of equal heads of all lengths.
    #[test]
    fn finds_what_a_plain_search_finds() {
        for run in 1..20u32 {
            for count in 0..60u32 {
                let keys: Vec<(u32, u32)> = (0..count).map(|n| (2 * (n / run), 2 * (n % run))).collect();
                for head in 0..=2 * count / run + 1 {
                    for rest in 0..=2 * run {
                        let found = find(&keys, head, |key| key.0, |i| keys[i].1.cmp(&rest));
                        assert_eq!(found, keys.binary_search(&(head, rest)), "{run} {count} {head} {rest}");
                    }
                }
            }
        }
    }

    #[test]
    fn equal_heads_cost_a_logarithm_of_comparisons() {
        let keys: Vec<u32> = (0..1000).collect();
        for sought in 0..1000 {
            let compared = Cell::new(0);
            let compare = |i: usize| {
                compared.set(compared.get() + 1);
                keys[i].cmp(&sought)
            };
            assert_eq!(find(&keys, 7, |_| 7, compare), Ok(sought as usize));
            assert!(compared.get() <= 10, "{} comparisons", compared.get());
        }
    }
}
