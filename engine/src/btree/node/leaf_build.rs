//! Building a leaf from keys in ascending order.

use super::cell::StoredValue;
use super::layout::{
    CELL_HEADER_BYTES, FLAG_NO_UPPER, KeyParts, NodeHeader, Place, SLOT_BYTES, SLOTS_START, Slot,
    fence_prefix, push_down, small,
};
use super::limits::PAGE_BYTES;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32};

/// Writes the node header and the fences of an empty node into `page`, and returns where the heap begins and
/// what is cut from every key. The envelope stays as it is.
pub(super) fn write_empty(page: &mut [u8], lower: &[u8], upper: Option<&[u8]>) -> (usize, usize) {
    assert!(
        PAGE_BYTES.contains(&page.len()) && page.len().is_power_of_two(),
        "a page of {} bytes",
        page.len()
    );
    let mut heap = page.len();
    let prefix_len = fence_prefix(lower, upper);
    let header = NodeHeader {
        count: U16::ZERO,
        heap_bytes: U16::ZERO,
        garbage: U16::ZERO,
        prefix_len: small(prefix_len),
        lower: push_down(page, &mut heap, lower),
        upper: upper
            .map_or(Place { off: U16::ZERO, len: U16::ZERO }, |upper| push_down(page, &mut heap, upper)),
        flags: U16::new(if upper.is_none() { FLAG_NO_UPPER } else { 0 }),
        overflow_cells: U16::ZERO,
        common_len: U16::ZERO,
        last_insert: U16::ZERO,
        run: U16::ZERO,
        reserved: [0; 6],
    };
    *NodeHeader::of_mut(page) = NodeHeader { heap_bytes: small(page.len() - heap), ..header };
    (heap, prefix_len)
}

/// Writes a cell below `*heap`, moves `*heap` down to it, and returns its slot.
pub(super) fn write_cell(
    page: &mut [u8],
    heap: &mut usize,
    suffix: KeyParts<'_>,
    value: &StoredValue<'_>,
) -> Slot {
    let bytes = value.bytes();
    let suffix_len = suffix.len();
    let start = heap.checked_sub(CELL_HEADER_BYTES + suffix_len + bytes.len()).expect("the heap has room");
    let (field, rest) = page[start..*heap].split_at_mut(CELL_HEADER_BYTES);
    field.copy_from_slice(&value.length_field().to_le_bytes());
    suffix.copy_to(rest);
    rest[suffix_len..].copy_from_slice(bytes);
    *heap = start;
    Slot { head: U32::new(suffix.head()), off: small(start), klen: small(suffix_len) }
}

/// A leaf being filled.
pub(super) struct LeafBuilder<'p> {
    page: &'p mut [u8],
    heap: usize,
    prefix_len: usize,
    count: usize,
    overflow_cells: usize,
}

impl<'p> LeafBuilder<'p> {
    /// An empty leaf between these fences.
    pub(super) fn new(page: &'p mut [u8], lower: &[u8], upper: Option<&[u8]>) -> Self {
        let (heap, prefix_len) = write_empty(page, lower, upper);
        Self { page, heap, prefix_len, count: 0, overflow_cells: 0 }
    }

    /// Adds a key greater than all before. Panics when the page is full: sizes are computed before anything
    /// is built.
    pub(super) fn push(&mut self, key: KeyParts<'_>, value: &StoredValue<'_>) {
        let slot = write_cell(self.page, &mut self.heap, key.skip(self.prefix_len), value);
        let at = SLOTS_START + self.count * SLOT_BYTES;
        assert!(at + SLOT_BYTES <= self.heap, "a leaf's size is computed before it is built");
        self.page[at..at + SLOT_BYTES].copy_from_slice(slot.as_bytes());
        self.count += 1;
        self.overflow_cells += usize::from(value.is_reference());
    }

    /// Completes the header.
    pub(super) fn finish(self) {
        let heap_bytes = small(self.page.len() - self.heap);
        let header = NodeHeader::of_mut(self.page);
        header.heap_bytes = heap_bytes;
        header.count = small(self.count);
        header.overflow_cells = small(self.overflow_cells);
    }
}
