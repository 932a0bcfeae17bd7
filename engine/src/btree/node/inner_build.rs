//! Building inner nodes: a new one, a changed copy of an old one, two merged ones.
//!
//! Each split of a leaf copies its parent, so the common changes are copies of whole arrays: the heap stays
//! where it is, a new separator goes below it, and a removed one stays as garbage. Only when that finds no
//! room are the separators laid down anew.

use super::inner::{Inner, arrays_end};
use super::layout::{
    CHILD_BYTES, KeyParts, NodeHeader, Place, SEPARATOR_OVERHEAD, SLOTS_START, common_prefix, fence_prefix,
    head_of, small,
};
use super::leaf_build::write_empty;
use bedstone_bufpool::{HEADER_BYTES, PageId};
use std::ops::Range;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, IntoBytes};

/// A change to an inner node.
#[derive(Debug, Clone, Copy)]
pub(crate) enum InnerChange<'a> {
    /// Nothing.
    None,
    /// The child at `child` was split: `separator` and the page `right` follow it.
    Split { child: usize, separator: &'a [u8], right: PageId },
    /// The child after `child` was merged into it: that child and the separator between them go.
    Merge { child: usize },
    /// `count` children from `first` on go; at least one stays. The child before them (if there is none, the
    /// one behind them) becomes responsible for their keys.
    Remove { first: usize, count: usize },
}

/// A changed inner node, to be built.
#[derive(Clone, Copy)]
pub(crate) struct InnerPlan<'a> {
    pub(super) old: Inner<'a>,
    pub(super) change: InnerChange<'a>,
}

impl<'a> InnerPlan<'a> {
    /// `old` with `change` made. Panics when the change names a child that is not there, or a separator that
    /// does not belong between its neighbours (the latter in builds with debug assertions).
    pub(crate) fn new(old: Inner<'a>, change: InnerChange<'a>) -> Self {
        let children = old.count() + 1;
        match change {
            InnerChange::None => {}
            InnerChange::Split { child, separator, .. } => {
                assert!(child < children, "child {child} of {children}");
                assert!(separator.len() >= old.prefix_len(), "the node covers the separator");
                debug_assert!(old.covers(separator), "the node covers the separator");
                debug_assert_eq!(
                    old.search(separator),
                    child,
                    "the separator lies in the child that was split"
                );
                debug_assert_ne!(old.search_below(separator), child + 1);
            }
            InnerChange::Merge { child } => assert!(child + 1 < children, "child {child} of {children}"),
            InnerChange::Remove { first, count } => {
                assert!(count < children && first + count <= children, "{count} of {children} from {first}");
            }
        }
        Self { old, change }
    }

    /// Separators after the change.
    pub(crate) fn count(&self) -> usize {
        match self.change {
            InnerChange::Split { .. } => self.old.count() + 1,
            _ => self.old.count() - self.removed_separators().len(),
        }
    }

    fn removed_separators(&self) -> Range<usize> {
        match self.change {
            InnerChange::None | InnerChange::Split { .. } => 0..0,
            InnerChange::Merge { child } => child..child + 1,
            InnerChange::Remove { first, count } => {
                let start = first.saturating_sub(1);
                start..start + count
            }
        }
    }

    fn removed_children(&self) -> Range<usize> {
        match self.change {
            InnerChange::None | InnerChange::Split { .. } => 0..0,
            InnerChange::Merge { child } => child + 1..child + 2,
            InnerChange::Remove { first, count } => first..first + count,
        }
    }

    /// The separator at `i` after the change.
    pub(super) fn separator(&self, i: usize) -> KeyParts<'a> {
        let old = match self.change {
            InnerChange::Split { child, separator, .. } if i == child => return KeyParts(&[], separator),
            InnerChange::Split { child, .. } if i > child => i - 1,
            _ => skip_range(i, self.removed_separators()),
        };
        self.old.separator_parts(old)
    }

    /// The child at `i` after the change.
    pub(super) fn child(&self, i: usize) -> PageId {
        let old = match self.change {
            InnerChange::Split { child, right, .. } if i == child + 1 => return right,
            InnerChange::Split { child, .. } if i > child + 1 => i - 1,
            _ => skip_range(i, self.removed_children()),
        };
        self.old.child(old)
    }

    /// Bytes of the suffix of a separator that the change adds.
    fn added_bytes(&self) -> usize {
        match self.change {
            InnerChange::Split { separator, .. } => separator.len() - self.old.prefix_len(),
            _ => 0,
        }
    }

    fn removed_bytes(&self) -> usize {
        self.removed_separators().map(|i| self.old.suffix(i).len()).sum()
    }

    /// Whether the changed node fits into a page; if not, see [`InnerSplit`](super::InnerSplit).
    pub(crate) fn fits(&self) -> bool {
        let separators = self.old.separator_bytes() + self.added_bytes() - self.removed_bytes();
        arrays_end(self.count()) + separators + self.old.header.fence_bytes() <= self.old.page.len()
    }

    /// Writes the changed node into `page`, whose envelope is already there. Panics unless it
    /// [fits](Self::fits).
    pub(crate) fn build(&self, page: &mut [u8]) {
        assert_eq!(page.len(), self.old.page.len(), "all pages of a tree are of one size");
        assert!(self.fits(), "the changed node has room");
        let heap = self.old.header.heap_start(page.len());
        if arrays_end(self.count()) + self.added_bytes() <= heap {
            self.copy_arrays(page, heap);
        } else {
            let (lower, upper) = (self.old.lower(), self.old.upper());
            build_inner(page, lower, upper, self.count(), |i| self.separator(i), |i| self.child(i));
        }
    }

    /// Builds the node with the old one's heap.
    fn copy_arrays(&self, page: &mut [u8], heap: usize) {
        let count = self.count();
        let prefix_len = self.old.prefix_len();
        page[HEADER_BYTES..SLOTS_START].copy_from_slice(self.old.header.as_bytes());
        page[heap..].copy_from_slice(&self.old.page[heap..]);
        let common_len = common_suffix_bytes(count, prefix_len, |i| self.separator(i));
        let mut new_heap = heap;
        let (mut new_head, mut new_slot, mut new_child) = ([0; 4], [0; 4], [0; 4]);
        let (mut separator_at, mut child_at, mut added) =
            (self.removed_separators(), self.removed_children(), 0);
        if let InnerChange::Split { child, separator, right } = self.change {
            let suffix = &separator[prefix_len..];
            let place = super::layout::push_down(page, &mut new_heap, suffix);
            new_head = U32::new(head_of(&suffix[common_len..])).as_bytes().try_into().expect("four bytes");
            new_slot = place.as_bytes().try_into().expect("four bytes");
            new_child = right.0.to_le_bytes();
            (separator_at, child_at, added) = (child..child, child + 1..child + 1, 4);
        }
        let (heads, rest) = page[SLOTS_START..arrays_end(count)].split_at_mut(count * 4);
        let (slots, children) = rest.split_at_mut(count * 4);
        splice(heads, self.old.heads.as_bytes(), separator_at.clone(), &new_head[..added]);
        splice(slots, self.old.slots.as_bytes(), separator_at, &new_slot[..added]);
        splice(children, self.old.children.as_bytes(), child_at, &new_child[..added]);
        if common_len != usize::from(self.old.header.common_len.get()) {
            let heads = <[U32]>::mut_from_bytes(heads).expect("whole heads");
            for (i, head) in heads.iter_mut().enumerate() {
                head.set(self.separator(i).skip(prefix_len + common_len).head());
            }
        }
        let heap_bytes = small(page.len() - new_heap);
        let garbage = small(usize::from(self.old.header.garbage.get()) + self.removed_bytes());
        let header = NodeHeader::of_mut(page);
        header.count = small(count);
        header.heap_bytes = heap_bytes;
        header.garbage = garbage;
        header.common_len = small(common_len);
    }
}

/// The index that `i` had before `removed` went.
fn skip_range(i: usize, removed: Range<usize>) -> usize {
    if i < removed.start { i } else { i + removed.len() }
}

/// Copies the four-byte elements of `from` to `to`, with `added` in place of the elements `range`.
fn splice(to: &mut [u8], from: &[u8], range: Range<usize>, added: &[u8]) {
    let (start, end) = (range.start * 4, range.end * 4);
    to[..start].copy_from_slice(&from[..start]);
    to[start..start + added.len()].copy_from_slice(added);
    to[start + added.len()..].copy_from_slice(&from[end..]);
}

/// Bytes that all separators share after the prefix; they are sorted, so the first and the last decide. With
/// a single one there is nothing to tell apart, and none are skipped.
fn common_suffix_bytes<'k>(
    count: usize,
    prefix_len: usize,
    separator: impl Fn(usize) -> KeyParts<'k>,
) -> usize {
    if count < 2 {
        return 0;
    }
    let suffix = |i| separator(i).skip(prefix_len).to_vec();
    common_prefix(&suffix(0), &suffix(count - 1))
}

/// Writes an inner node into `page` (its envelope is already there): `count` separators in ascending order
/// between the fences, and one child more. Panics when they do not fit.
pub(super) fn build_inner<'k>(
    page: &mut [u8],
    lower: &[u8],
    upper: Option<&[u8]>,
    count: usize,
    separator: impl Fn(usize) -> KeyParts<'k>,
    child: impl Fn(usize) -> PageId,
) {
    let (mut heap, prefix_len) = write_empty(page, lower, upper);
    let common_len = common_suffix_bytes(count, prefix_len, &separator);
    let end = arrays_end(count);
    assert!(end <= heap, "an inner node's size is computed before it is built");
    let (head_at, slot_at) = (SLOTS_START, SLOTS_START + count * 4);
    let child_at = slot_at + count * 4;
    for i in 0..count {
        let suffix = separator(i).skip(prefix_len);
        let start = heap.checked_sub(suffix.len()).filter(|&start| end <= start);
        let start = start.expect("an inner node's size is computed before it is built");
        suffix.copy_to(&mut page[start..heap]);
        heap = start;
        let place = Place { off: small(start), len: small(suffix.len()) };
        let head = U32::new(suffix.skip(common_len).head());
        page[head_at + i * 4..head_at + i * 4 + 4].copy_from_slice(head.as_bytes());
        page[slot_at + i * 4..slot_at + i * 4 + 4].copy_from_slice(place.as_bytes());
    }
    for i in 0..=count {
        let at = child_at + i * CHILD_BYTES;
        page[at..at + CHILD_BYTES].copy_from_slice(&child(i).0.to_le_bytes());
    }
    let heap_bytes = small(page.len() - heap);
    let header = NodeHeader::of_mut(page);
    header.count = small(count);
    header.heap_bytes = heap_bytes;
    header.common_len = small(common_len);
}

/// Writes the root of a tree with a single child into `page`.
pub(crate) fn build_root_with_child(page: &mut [u8], child: PageId) {
    build_inner(page, &[], None, 0, |_| KeyParts(&[], &[]), |_| child);
}

/// Writes the root of a tree that has grown by a level into `page`: its two children and the separator
/// between them.
pub(crate) fn build_root_with_two(page: &mut [u8], left: PageId, separator: &[u8], right: PageId) {
    build_inner(page, &[], None, 1, |_| KeyParts(&[], separator), |i| if i == 0 { left } else { right });
}

/// Whether two neighbouring inner nodes of a level fit into one page, with the separator between them.
pub(crate) fn inner_merge_fits(left: Inner<'_>, right: Inner<'_>) -> bool {
    assert_eq!(left.upper(), Some(right.lower()), "the nodes are neighbours");
    let prefix = fence_prefix(left.lower(), right.upper());
    let separators = |node: Inner<'_>| node.separator_bytes() + node.count() * (node.prefix_len() - prefix);
    let between = right.lower().len() - prefix;
    let fences = left.lower().len() + right.upper().map_or(0, <[u8]>::len);
    let count = left.count() + 1 + right.count();
    arrays_end(count) + separators(left) + between + separators(right) + fences <= left.page.len()
}

/// Writes the merged node into `page`, whose envelope is already there. Panics unless [`inner_merge_fits`].
pub(crate) fn build_inner_merged(left: Inner<'_>, right: Inner<'_>, page: &mut [u8]) {
    assert!(inner_merge_fits(left, right), "the merged node has room");
    let n = left.count();
    let separator = |i: usize| match i.checked_sub(n + 1) {
        Some(i) => right.separator_parts(i),
        None if i == n => KeyParts(&[], right.lower()),
        None => left.separator_parts(i),
    };
    let child = |i: usize| match i.checked_sub(n + 1) {
        Some(i) => right.child(i),
        None => left.child(i),
    };
    build_inner(page, left.lower(), right.upper(), n + 1 + right.count(), separator, child);
}

const _: () = assert!(SEPARATOR_OVERHEAD == 4 + size_of::<Place>() + CHILD_BYTES);
