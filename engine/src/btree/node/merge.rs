//! Merging two neighbouring leaves.
//!
//! The merged leaf's fences lie further apart, so its prefix may be shorter and its keys longer than before:
//! the size is computed with the new prefix.

use super::layout::fence_prefix;
use super::leaf::Leaf;
use super::leaf_build::LeafBuilder;

/// Live bytes that the merged leaf would have (see [`Leaf::live_bytes`]); `right` is the right neighbour of
/// `left`.
pub(crate) fn merged_bytes(left: Leaf<'_>, right: Leaf<'_>) -> usize {
    assert_eq!(left.upper(), Some(right.lower()), "the leaves are neighbours");
    let prefix = fence_prefix(left.lower(), right.upper());
    let cells = |leaf: Leaf<'_>| {
        leaf.live_bytes() - leaf.header.fence_bytes() + leaf.count() * (leaf.prefix_len() - prefix)
    };
    cells(left) + cells(right) + left.lower().len() + right.upper().map_or(0, <[u8]>::len)
}

/// Whether both leaves fit into one page. A merged leaf that is nearly full is soon split again; callers that
/// care compare [`merged_bytes`] with a part of [`Leaf::capacity`].
pub(crate) fn merge_fits(left: Leaf<'_>, right: Leaf<'_>) -> bool {
    merged_bytes(left, right) <= left.capacity()
}

/// Writes the merged leaf into `page`, whose envelope is already there. Panics unless [`merge_fits`].
pub(crate) fn build_merged(left: Leaf<'_>, right: Leaf<'_>, page: &mut [u8]) {
    assert!(merge_fits(left, right), "the merged leaf has room");
    let mut builder = LeafBuilder::new(page, left.lower(), right.upper());
    for leaf in [left, right] {
        for i in 0..leaf.count() {
            builder.push(leaf.key_parts(i), &leaf.stored_value(i));
        }
    }
    builder.finish();
}
