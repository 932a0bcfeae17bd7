//! Splitting a leaf, together with the change that did not fit.
//!
//! The halves gain a fence each, so a half can be too long although it has fewer keys: a page that ascending
//! inserts filled to the last byte has no room for the upper fence it gets. Therefore the sizes of both
//! halves, fences and new prefixes included, are computed before a cut is chosen. That some cut fits is
//! proved at [`super::limits()`].

use super::cell::{CellValue, StoredValue};
use super::layout::{CELL_OVERHEAD, KeyParts, common_prefix, fence_prefix};
use super::leaf::Leaf;
use super::leaf_build::LeafBuilder;
use super::leaf_mut::continues_run;

/// A change to a leaf.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change<'k> {
    /// A new key; `at` is its index as [`Leaf::search`] gave it.
    Insert { at: usize, key: &'k [u8], value: CellValue<'k> },
    /// A new value for the key at `at`.
    Update { at: usize, value: CellValue<'k> },
    /// Nothing.
    #[cfg(test)]
    None,
}

/// Inserts in a row, each right behind the one before, after which keys are taken to ascend. Random inserts
/// do that once in about as many splits as the count of keys to the power of this.
const RUN: u16 = 4;

/// How far from the middle, as a fraction of the leaf's bytes, a cut may lie for the sake of a shorter
/// separator.
const WINDOW: usize = 16;

/// Where a leaf is to be cut, and what the halves will be.
pub(crate) struct SplitPlan<'a> {
    entries: Entries<'a>,
    /// Entries of the left half.
    cut: usize,
    separator: Vec<u8>,
}

impl<'a> SplitPlan<'a> {
    /// Plans the split of `leaf` with `change` made; the leaf has at least two keys after it. The cut lies
    /// near the middle of the bytes, where the separator is shortest. But ascending keys would then leave
    /// every leaf half empty. So when the change is an insert at the end of the rightmost leaf, or goes on
    /// with a run of ascending inserts elsewhere (many sequences, each with a prefix of its own), the left
    /// half stays full; and for an insert at the beginning of the leftmost leaf, the right half. A run in the
    /// middle of a leaf is first parted from the keys behind it.
    pub(crate) fn of(leaf: Leaf<'a>, change: Change<'a>) -> Self {
        let entries = Entries { leaf, change };
        let sums = entries.sums();
        let cut = entries.choose(&sums).expect("the limits of keys and cells make sure that some cut fits");
        let separator = entries.separator(cut).to_vec();
        Self { entries, cut, separator }
    }

    /// The key between the halves: the right half's lower fence and the left half's upper one. The shortest
    /// that is greater than all keys of the left half and no greater than those of the right one.
    pub(crate) fn separator(&self) -> &[u8] {
        &self.separator
    }

    /// Keys of the left half; the keys from this index on (counted after the change) are in the right one.
    #[cfg(test)]
    pub(crate) fn left_count(&self) -> usize {
        self.cut
    }

    /// Writes the left half into `page`, whose envelope is already there.
    pub(crate) fn build_left(&self, page: &mut [u8]) {
        self.build(page, self.entries.leaf.lower(), Some(&self.separator), 0..self.cut);
    }

    /// Writes the right half into `page`, whose envelope is already there.
    pub(crate) fn build_right(&self, page: &mut [u8]) {
        self.build(page, &self.separator, self.entries.leaf.upper(), self.cut..self.entries.len());
    }

    fn build(&self, page: &mut [u8], lower: &[u8], upper: Option<&[u8]>, range: std::ops::Range<usize>) {
        assert_eq!(page.len(), self.entries.leaf.page.len(), "all pages of a tree are of one size");
        let mut builder = LeafBuilder::new(page, lower, upper);
        let prefix = self.entries.leaf.prefix();
        for i in range {
            builder.push(KeyParts(prefix, self.entries.suffix(i)), &self.entries.stored(i));
        }
        builder.finish();
    }
}

/// The keys of a leaf after a change.
#[derive(Clone, Copy)]
struct Entries<'a> {
    leaf: Leaf<'a>,
    change: Change<'a>,
}

/// What the entry at an index is.
enum Entry<'a> {
    /// The cell at this index of the old leaf.
    Old(usize),
    /// The old leaf's key at this index with a new value.
    Updated(usize, CellValue<'a>),
    /// The new key.
    New(&'a [u8], CellValue<'a>),
}

impl<'a> Entries<'a> {
    fn len(&self) -> usize {
        self.leaf.count() + usize::from(matches!(self.change, Change::Insert { .. }))
    }

    #[inline]
    fn entry(&self, i: usize) -> Entry<'a> {
        match self.change {
            Change::Insert { at, key, value } if at == i => Entry::New(key, value),
            Change::Insert { at, .. } if at < i => Entry::Old(i - 1),
            Change::Update { at, value } if at == i => Entry::Updated(i, value),
            _ => Entry::Old(i),
        }
    }

    /// The key without the old leaf's prefix.
    fn suffix(&self, i: usize) -> &'a [u8] {
        match self.entry(i) {
            Entry::Old(i) | Entry::Updated(i, _) => self.leaf.suffix(i),
            Entry::New(key, _) => &key[self.leaf.prefix_len()..],
        }
    }

    fn stored(&self, i: usize) -> StoredValue<'a> {
        match self.entry(i) {
            Entry::Old(i) => self.leaf.stored_value(i),
            Entry::Updated(_, value) | Entry::New(_, value) => value.stored(),
        }
    }

    /// What an entry costs when the old leaf's prefix is cut from it.
    fn cost(&self, i: usize) -> usize {
        let value = match self.entry(i) {
            Entry::Old(i) => self.leaf.value_range(i).len(),
            Entry::Updated(_, value) | Entry::New(_, value) => value.stored_len(),
        };
        CELL_OVERHEAD + self.suffix(i).len() + value
    }

    /// `sums()[i]` is what the entries before `i` cost.
    fn sums(&self) -> Vec<usize> {
        let mut sums = Vec::with_capacity(self.len() + 1);
        let mut sum = 0;
        sums.push(0);
        for i in 0..self.len() {
            sum += self.cost(i);
            sums.push(sum);
        }
        sums
    }

    /// The shortest key that separates the entries before `cut` from the others.
    fn separator(&self, cut: usize) -> KeyParts<'a> {
        let right = self.suffix(cut);
        KeyParts(self.leaf.prefix(), &right[..common_prefix(self.suffix(cut - 1), right) + 1])
    }

    /// Whether both halves have room, and the length of the separator.
    fn try_cut(&self, cut: usize, sums: &[usize]) -> Option<usize> {
        let separator = self.separator(cut);
        let separator_len = separator.len();
        let old_prefix = self.leaf.prefix_len();
        let (lower, upper) = (self.leaf.lower(), self.leaf.upper());
        // The old fences have the old prefix in common with the separator, so only what follows it need be
        // compared.
        let gain = |fence: &[u8]| fence_prefix(&fence[old_prefix..], Some(separator.1));
        let (all, before, count) = (sums[self.len()], sums[cut], self.len());
        let left = before - cut * gain(lower) + lower.len() + separator_len;
        let right = all - before - (count - cut) * upper.map_or(0, gain)
            + upper.map_or(0, <[u8]>::len)
            + separator_len;
        let capacity = self.leaf.capacity();
        (left <= capacity && right <= capacity).then_some(separator_len)
    }

    fn choose(&self, sums: &[usize]) -> Option<usize> {
        let count = self.len();
        assert!(count >= 2, "a leaf of {count} keys cannot be split");
        let fits = |cut: &usize| self.try_cut(*cut, sums).is_some();
        if let Change::Insert { at, .. } = self.change {
            if at + 1 == count && self.leaf.upper().is_none() {
                return (1..count).rev().find(fits);
            }
            if at == 0 && self.leaf.lower().is_empty() {
                return (1..count).find(fits);
            }
            let header = self.leaf.header;
            if header.run.get() >= RUN && continues_run(header, at) {
                let cuts = if at + 1 == count { at.saturating_sub(1)..count } else { at..at + 2 };
                if let Some(cut) = cuts.rev().filter(|cut| (1..count).contains(cut)).find(fits) {
                    return Some(cut);
                }
            }
        }
        let (all, half) = (sums[count], sums[count] / 2);
        let distance = |cut: usize| sums[cut].abs_diff(half);
        // The first cut at or past the middle, or the one before it, whichever is nearer.
        let after = sums.partition_point(|&sum| sum < half).clamp(1, count - 1);
        let middle = if after > 1 && distance(after - 1) < distance(after) { after - 1 } else { after };
        let near = |cut: &usize| distance(*cut) <= distance(middle).max(all / WINDOW);
        let below = (1..middle).rev().take_while(near);
        let above = (middle..count).take_while(near);
        above
            .chain(below)
            .filter_map(|cut| Some((self.try_cut(cut, sums)?, distance(cut), cut)))
            .min()
            .map(|(.., cut)| cut)
            .or_else(|| (1..count).filter(fits).min_by_key(|&cut| distance(cut)))
    }
}
