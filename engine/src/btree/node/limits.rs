//! How long keys and cells may be, so that no split can ever fail.

use super::cell::OverflowRef;
use super::layout::{CELL_OVERHEAD, SLOTS_START};

/// Longest value, in bytes (1 GiB).
pub(crate) const MAX_VALUE_BYTES: u64 = 1 << 30;
/// Smallest and largest page, in bytes; pages are powers of two.
pub(super) const PAGE_BYTES: std::ops::RangeInclusive<usize> = 4096..=65536;

/// The longest keys and cells of a page size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Longest key, in bytes.
    pub(crate) max_key: usize,
    /// Key and value together, in bytes, that may lie in a leaf; a longer value goes to overflow pages.
    pub(crate) max_inline_cell: usize,
}

/// The limits for pages of `page_size` bytes (4 KiB to 64 KiB).
///
/// **A leaf.** Let `U` be the page less envelope and node header, `K` the longest key (so no fence is longer),
/// `C` what the largest cell costs, slot included, and `l` and `u` the lengths of the fences. The cells of a leaf
/// cost `S` with `S + l + u <= U`; a pending insert or update raises that to `T <= S + C`. Cut before the cell
/// `i`, with a separator of `s <= K` bytes, and `P(i)` for the cost of the cells before `i`, the halves need
///
/// ```text
/// left:  P(i) + l + s         right:  T - P(i) + s + u
/// ```
///
/// or less, if their prefixes are longer than the old one. Take the largest `i` for which the left half would fit
/// with `s = K`. One cell more would not fit, so `P(i) > U - l - K - C`, and the right half needs less than
///
/// ```text
/// (U - l - u + C) - (U - l - K - C) + K + u  =  2C + 2K
/// ```
///
/// So some cut fits if `2C + 2K <= U`. Neither half is empty: a single cell with two fences needs `C + 2K`, which is
/// less. (If all cells would fit to the left, the cut before the last one does it.)
///
/// The largest key needs room for a reference to overflow pages beside it: `C = overhead + K + 16`. So
/// `4K + 2 * (overhead + 16) <= U`.
///
/// **An inner node.** A separator costs 12 bytes and its suffix, and the one in the middle moves up. The same
/// argument gives that the right half needs less than `(12 + K) + 2K + 4 <= U`, which is weaker.
pub(crate) const fn limits(page_size: usize) -> Limits {
    let usable = page_size - SLOTS_START;
    let max_key = (usable - 2 * (CELL_OVERHEAD + OverflowRef::BYTES)) / 4;
    Limits { max_key, max_inline_cell: max_key + OverflowRef::BYTES }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_of_the_proof_hold() {
        for page_size in [4096, 8192, 16384, 32768, 65536] {
            let Limits { max_key, max_inline_cell } = limits(page_size);
            let usable = page_size - SLOTS_START;
            let cell = CELL_OVERHEAD + max_inline_cell;
            assert!(2 * cell + 2 * max_key <= usable);
            assert!(2 * (cell + 1) + 2 * (max_key + 1) > usable, "no byte is given away");
            assert!(3 * max_key + 16 <= usable);
            assert!(max_inline_cell < 0x8000, "a length of a value leaves bit 15 free");
        }
        assert_eq!(limits(4096), Limits { max_key: 995, max_inline_cell: 1011 });
        assert_eq!(limits(16384), Limits { max_key: 4067, max_inline_cell: 4083 });
    }
}
