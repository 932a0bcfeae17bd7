//! The bytes of the B+-tree's pages: pure functions over page images, without pool, latch or I/O.
//!
//! A page begins with the envelope of [`bedstone_bufpool::header`] (32 bytes). Leaves and inner nodes go on
//! with a common node header of 32 bytes, an array of fixed-size slots that grows up, and a heap that grows
//! down from the page's end:
//!
//! ```text
//! 0          32            64                                                        page length
//! | envelope | node header | slots: one a key, in key order -> |  free  | <- heap: cells, fences |
//! ```
//!
//! * **Fences.** Every node names the range of keys it is responsible for: `lower <= key < upper`. The
//!   rightmost node of a level has no upper fence.
//! * **Prefix.** What both fences have in common, all keys between them have in common too, so it is stored
//!   once (in the fences) and cut from every key; the rest of a key is its *suffix*. Without an upper fence
//!   nothing is cut.
//! * **Heads.** Beside each slot lie the first four bytes of the suffix as a number that sorts as the bytes
//!   do, so that a binary search touches slots only, and of the cells just the one that is the answer.
//!
//! Layout and techniques follow Graefe, "Modern B-Tree Techniques" (2011), and the node layout of LeanStore,
//! described in "B-Trees Are Back: Engineering Fast and Pageable Node Layouts" (SIGMOD 2025).
//!
//! [`Leaf`] and [`Inner`] are views over pages known to be well-formed: built here, or checked by [`verify()`]
//! after they were read. On other bytes they may panic, but nothing worse. All sums of space are checked, in
//! release builds as well.

mod cell;
#[cfg(feature = "fuzzing")]
mod fuzz;
mod inner;
mod inner_build;
mod inner_split;
mod inspect;
mod layout;
mod leaf;
mod leaf_build;
mod leaf_mut;
mod limits;
mod merge;
#[cfg(test)]
mod model;
mod overflow;
mod search;
mod split;
#[cfg(test)]
mod testing;
mod verify;

pub(crate) use cell::{CellValue, OverflowRef};
#[cfg(feature = "fuzzing")]
pub(crate) use fuzz::page as fuzz_page;
pub(crate) use inner::Inner;
pub(crate) use inner_build::{
    InnerChange, InnerPlan, build_inner_merged, build_root_with_child, build_root_with_two, inner_merge_fits,
};
pub(crate) use inner_split::InnerSplit;
pub(crate) use leaf::{Fit, Leaf};
pub(crate) use leaf_mut::LeafMut;
pub(crate) use limits::{MAX_VALUE_BYTES, limits};
pub(crate) use merge::{build_merged, merge_fits, merged_bytes};
pub(crate) use overflow::{
    OverflowData, OverflowIndex, OverflowShape, build_overflow_data, build_overflow_index, overflow_shape,
};
pub(crate) use split::{Change, SplitPlan};
pub(crate) use verify::verify;
#[cfg(test)]
pub(crate) use {
    cell::LAYOUT as REFERENCE_LAYOUT, layout::LAYOUTS as NODE_LAYOUTS, overflow::LAYOUTS as OVERFLOW_LAYOUTS,
};
