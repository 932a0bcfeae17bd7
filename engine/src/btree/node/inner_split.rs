//! Splitting an inner node, together with the change that did not fit.
//!
//! The separator at the cut moves up: it becomes the fence between the halves, and is in neither of them. As
//! with leaves, the halves' sizes are computed with their new fences and prefixes before a cut is chosen.

use super::inner::arrays_end;
use super::inner_build::{InnerChange, InnerPlan, build_inner};
use super::layout::{SEPARATOR_OVERHEAD, common_prefix};

/// How far from the middle, as a fraction of the separators, a cut may lie for the sake of a shorter
/// separator.
const WINDOW: usize = 16;

/// Where an inner node is to be cut, and what the halves will be.
pub(crate) struct InnerSplit<'a> {
    plan: InnerPlan<'a>,
    /// Index of the separator that moves up.
    cut: usize,
    separator: Vec<u8>,
}

impl<'a> InnerSplit<'a> {
    /// Plans the split of a node with its change made; there are at least two separators after it. The cut
    /// lies near the middle, where the separator is shortest; but when the change adds the last child of the
    /// rightmost node (keys probably ascend), the left half stays full.
    pub(crate) fn of(plan: InnerPlan<'a>) -> Self {
        let cut = choose(&plan).expect("the limit of keys makes sure that some cut fits");
        Self { plan, cut, separator: plan.separator(cut).to_vec() }
    }

    /// The key between the halves, which moves up to their parent.
    pub(crate) fn separator(&self) -> &[u8] {
        &self.separator
    }

    /// Children of the left half; the children from this index on (counted after the change) are in the right
    /// one.
    #[cfg(test)]
    pub(crate) fn left_children(&self) -> usize {
        self.cut + 1
    }

    /// Writes the left half into `page`, whose envelope is already there.
    pub(crate) fn build_left(&self, page: &mut [u8]) {
        let plan = &self.plan;
        let lower = plan.old.lower();
        build_inner(page, lower, Some(&self.separator), self.cut, |i| plan.separator(i), |i| plan.child(i));
    }

    /// Writes the right half into `page`, whose envelope is already there.
    pub(crate) fn build_right(&self, page: &mut [u8]) {
        let plan = &self.plan;
        let first = self.cut + 1;
        let count = plan.count() - first;
        let upper = plan.old.upper();
        build_inner(
            page,
            &self.separator,
            upper,
            count,
            |i| plan.separator(first + i),
            |i| plan.child(first + i),
        );
    }
}

fn choose(plan: &InnerPlan<'_>) -> Option<usize> {
    let count = plan.count();
    assert!(count >= 2, "an inner node of {count} separators need not be split");
    let old = plan.old;
    let prefix_len = old.prefix_len();
    let mut sums = Vec::with_capacity(count + 1);
    sums.push(0);
    for i in 0..count {
        sums.push(sums[i] + SEPARATOR_OVERHEAD + plan.separator(i).len() - prefix_len);
    }
    // Whether both halves fit when the separator `cut` moves up, and its length.
    let try_cut = |cut: usize| {
        let separator = plan.separator(cut);
        let rest = separator.skip(prefix_len).to_vec();
        let gain = |fence: &[u8]| common_prefix(&fence[prefix_len..], &rest);
        let (lower, upper) = (old.lower(), old.upper());
        let left = sums[cut] - cut * gain(lower) + lower.len() + separator.len();
        let right_count = count - cut - 1;
        let right = sums[count] - sums[cut + 1] - right_count * upper.map_or(0, gain)
            + separator.len()
            + upper.map_or(0, <[u8]>::len);
        let room = old.page.len() - arrays_end(0);
        (left <= room && right <= room).then_some(separator.len())
    };
    let fits = |cut: &usize| try_cut(*cut).is_some();
    // Each half keeps a separator, so that the tree does not grow in height for nothing.
    let cuts = if count > 2 { 1..count - 1 } else { 0..count };
    if let InnerChange::Split { child, .. } = plan.change
        && child + 1 == count
        && old.upper().is_none()
    {
        return cuts.rev().find(fits);
    }
    let half = sums[count] / 2;
    let distance = |cut: usize| sums[cut].abs_diff(half);
    let middle = cuts.clone().min_by_key(|&cut| distance(cut))?;
    let near = |cut: &usize| distance(*cut) <= distance(middle).max(sums[count] / WINDOW);
    cuts.clone()
        .filter(near)
        .filter_map(|cut| Some((try_cut(cut)?, distance(cut), cut)))
        .min()
        .map(|(.., cut)| cut)
        .or_else(|| cuts.filter(fits).min_by_key(|&cut| distance(cut)))
}
