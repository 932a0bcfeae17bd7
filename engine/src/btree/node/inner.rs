//! Reading an inner node.
//!
//! ```text
//! | node header | heads u32[n] | (offset u16, length u16)[n] | child page ids u32[n + 1] | free | <- heap |
//! ```
//!
//! The heap holds separators and fences. Child `i` is responsible for the keys from separator `i - 1` (inclusive)
//! to separator `i` (exclusive). `n` may be 0. An inner node never changes once it is published, so the arrays are
//! packed one behind the other; a changed node is built anew by [`super::InnerPlan`].
//!
//! The nodes along the tree's right edge have no upper fence and so no prefix, and the root has neither
//! fence. If their separators begin alike all the same, all heads would be equal. So the heads are taken
//! after the *common* part, the bytes that all stored suffixes share; they are those of the first separator,
//! and nothing is cut for their sake: were they cut, a new separator that does not begin with them could make
//! a node too long for any split.

use super::layout::{CHILD_BYTES, KeyParts, NodeHeader, Place, SEPARATOR_OVERHEAD, SLOTS_START, head_of};
use super::search;
use bedstone_bufpool::{HEADER_BYTES, PageId};
use std::cmp::Ordering;
use std::ops::Range;
use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

/// An inner node of a tree.
#[derive(Clone, Copy)]
pub(crate) struct Inner<'a> {
    pub(super) page: &'a [u8],
    pub(super) header: &'a NodeHeader,
    pub(super) heads: &'a [U32],
    pub(super) slots: &'a [Place],
    pub(super) children: &'a [U32],
}

/// Where the arrays of a node with `count` separators end.
pub(super) fn arrays_end(count: usize) -> usize {
    SLOTS_START + count * SEPARATOR_OVERHEAD + CHILD_BYTES
}

impl<'a> Inner<'a> {
    /// The inner node in `page`, a whole page (envelope included) that was built by this module or came
    /// through [`super::verify()`]; other bytes may make this and every other function panic.
    #[inline]
    pub(crate) fn new(page: &'a [u8]) -> Self {
        const FITS: &str = "a page holds its arrays";
        let (header, rest) =
            NodeHeader::ref_from_prefix(&page[HEADER_BYTES..]).expect("a page holds a node header");
        let count = usize::from(header.count.get());
        let (heads, rest) = <[U32]>::ref_from_prefix_with_elems(rest, count).expect(FITS);
        let (slots, rest) = <[Place]>::ref_from_prefix_with_elems(rest, count).expect(FITS);
        let (children, _) = <[U32]>::ref_from_prefix_with_elems(rest, count + 1).expect(FITS);
        Self { page, header, heads, slots, children }
    }

    /// Number of separators; there is one child more.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.heads.len()
    }

    /// Height above the leaves, at least 1.
    pub(crate) fn level(&self) -> u8 {
        self.page[5]
    }

    /// The child at `i`.
    #[inline]
    pub(crate) fn child(&self, i: usize) -> PageId {
        PageId(self.children[i].get())
    }

    /// The children in `range`, left to right.
    pub(crate) fn child_ids(
        &self,
        range: Range<usize>,
    ) -> impl DoubleEndedIterator<Item = PageId> + ExactSizeIterator + use<'a> {
        self.children[range].iter().map(|id| PageId(id.get()))
    }

    /// The lower fence, inclusive; empty in the leftmost node of a level.
    pub(crate) fn lower(&self) -> &'a [u8] {
        self.header.lower.of(self.page)
    }

    /// The upper fence, exclusive; `None` in the rightmost node of a level.
    pub(crate) fn upper(&self) -> Option<&'a [u8]> {
        if self.header.no_upper() { None } else { Some(self.header.upper.of(self.page)) }
    }

    /// Length of the prefix.
    #[inline]
    pub(crate) fn prefix_len(&self) -> usize {
        usize::from(self.header.prefix_len.get())
    }

    /// The bytes that all keys of the node begin with and that its separators leave out.
    pub(crate) fn prefix(&self) -> &'a [u8] {
        &self.lower()[..self.prefix_len()]
    }

    /// Whether the node is responsible for `key`.
    pub(crate) fn covers(&self, key: &[u8]) -> bool {
        self.lower() <= key && self.upper().is_none_or(|upper| key < upper)
    }

    /// Index of the child responsible for `key`, for which the node must be responsible (see
    /// [`Self::covers`]; for other keys the answer is some child).
    #[inline]
    pub(crate) fn search(&self, key: &[u8]) -> usize {
        self.find(key).map_or_else(|at| at, |at| at + 1)
    }

    /// Index of the child responsible for the keys just below `key`; the node is responsible for some key
    /// less than `key`, which may be its upper fence.
    pub(crate) fn search_below(&self, key: &[u8]) -> usize {
        self.find(key).unwrap_or_else(|at| at)
    }

    /// The separator equal to `key`, or the number of separators less than it.
    #[inline]
    fn find(&self, key: &[u8]) -> Result<usize, usize> {
        let mut suffix = key.get(self.prefix_len()..).unwrap_or_default();
        let common_len = usize::from(self.header.common_len.get());
        if common_len > 0 {
            let common = &self.suffix(0)[..common_len];
            let (start, rest) = suffix.split_at(common_len.min(suffix.len()));
            match start.cmp(common) {
                Ordering::Less => return Err(0),
                Ordering::Greater => return Err(self.count()),
                Ordering::Equal => suffix = rest,
            }
        }
        search::find(
            self.heads,
            head_of(suffix),
            |head| head.get(),
            |i| self.suffix(i)[common_len..].cmp(suffix),
        )
    }

    /// The separator at `i` without the prefix.
    #[inline]
    pub(super) fn suffix(&self, i: usize) -> &'a [u8] {
        self.slots[i].of(self.page)
    }

    /// The separator at `i` in two pieces.
    pub(super) fn separator_parts(&self, i: usize) -> KeyParts<'a> {
        KeyParts(self.prefix(), self.suffix(i))
    }

    /// Writes the separator at `i` (the upper end of child `i`, the lower of child `i + 1`) to `out`, which
    /// is emptied first.
    pub(crate) fn separator_to(&self, i: usize, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(self.prefix());
        out.extend_from_slice(self.suffix(i));
    }

    /// The lower fence of child `i`.
    pub(crate) fn child_lower(&self, i: usize) -> Vec<u8> {
        if i == 0 { self.lower().to_vec() } else { self.separator_parts(i - 1).to_vec() }
    }

    /// The upper fence of child `i`; `None` for the end of all keys.
    pub(crate) fn child_upper(&self, i: usize) -> Option<Vec<u8>> {
        if i == self.count() {
            self.upper().map(<[u8]>::to_vec)
        } else {
            Some(self.separator_parts(i).to_vec())
        }
    }

    /// Bytes in use: arrays, separators and fences.
    pub(crate) fn live_bytes(&self) -> usize {
        arrays_end(self.count()) - SLOTS_START + self.separator_bytes() + self.header.fence_bytes()
    }

    /// Bytes that a node of this page size may use; [`Self::live_bytes`] of a full one.
    pub(crate) fn capacity(&self) -> usize {
        self.page.len() - SLOTS_START
    }

    /// Bytes of all stored suffixes.
    pub(super) fn separator_bytes(&self) -> usize {
        let header = self.header;
        (usize::from(header.heap_bytes.get()) - usize::from(header.garbage.get())) - header.fence_bytes()
    }

    /// The heads, for prefetching.
    #[cfg(test)]
    pub(crate) fn heads_bytes(&self) -> &'a [u8] {
        &self.page[SLOTS_START..SLOTS_START + self.count() * 4]
    }
}
