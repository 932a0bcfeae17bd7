//! Reading a leaf.
//!
//! Slots are 8 bytes: head, offset of the cell, length of the suffix. A cell is the value's length (16 bits,
//! of which the highest says that the value is a reference to overflow pages), the suffix, and the value.

use super::cell::{CellValue, OverflowRef, StoredValue, VALUE_IS_REFERENCE};
use super::layout::{
    CELL_HEADER_BYTES, CELL_OVERHEAD, KeyParts, NodeHeader, SLOT_BYTES, SLOTS_START, Slot, head_of,
};
use super::search;
use bedstone_bufpool::HEADER_BYTES;
use std::cmp::Ordering;
use std::ops::Range;
use zerocopy::FromBytes;

/// Whether a change finds room in a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    /// In the free space between slots and heap, or in the place of the old value.
    InPlace,
    /// Once the garbage is squeezed out, which [`super::LeafMut`] does on its own.
    AfterCompaction,
    /// Not at all: the leaf must be split.
    No,
}

/// A leaf of a tree.
#[derive(Clone, Copy)]
pub(crate) struct Leaf<'a> {
    pub(super) page: &'a [u8],
    pub(super) header: &'a NodeHeader,
    pub(super) slots: &'a [Slot],
}

impl<'a> Leaf<'a> {
    /// The leaf in `page`, a whole page (envelope included) that was built by this module or came through
    /// [`super::verify()`]; other bytes may make this and every other function panic.
    #[inline]
    pub(crate) fn new(page: &'a [u8]) -> Self {
        let (header, rest) =
            NodeHeader::ref_from_prefix(&page[HEADER_BYTES..]).expect("a page holds a node header");
        let (slots, _) = <[Slot]>::ref_from_prefix_with_elems(rest, usize::from(header.count.get()))
            .expect("a page holds its slots");
        Self { page, header, slots }
    }

    /// Number of keys.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.slots.len()
    }

    /// The lower fence, inclusive; empty in the leftmost leaf.
    pub(crate) fn lower(&self) -> &'a [u8] {
        self.header.lower.of(self.page)
    }

    /// The upper fence, exclusive; `None` in the rightmost leaf.
    pub(crate) fn upper(&self) -> Option<&'a [u8]> {
        if self.header.no_upper() { None } else { Some(self.header.upper.of(self.page)) }
    }

    /// Length of the prefix.
    #[inline]
    pub(crate) fn prefix_len(&self) -> usize {
        usize::from(self.header.prefix_len.get())
    }

    /// The bytes that all keys of the leaf begin with and that its cells leave out.
    pub(crate) fn prefix(&self) -> &'a [u8] {
        &self.lower()[..self.prefix_len()]
    }

    /// Whether the leaf is responsible for `key`.
    pub(crate) fn covers(&self, key: &[u8]) -> bool {
        self.lower() <= key && self.upper().is_none_or(|upper| key < upper)
    }

    /// Finds `key`, for which the leaf must be responsible (see [`Self::covers`]; for other keys the answer
    /// is meaningless): its index, or the index at which it would be inserted. Touches the header, slots, and
    /// in general one cell.
    #[inline]
    pub(crate) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        // A key between the fences begins with the prefix, so there is no need to compare it.
        self.search_suffix(key.get(self.prefix_len()..).unwrap_or_default())
    }

    /// The index of the cell that [`Self::search`] for `key` would look at, if it would look at any: found by
    /// slots only, so that the cell can be prefetched in between.
    pub(crate) fn candidate(&self, key: &[u8]) -> Option<usize> {
        let head = head_of(key.get(self.prefix_len()..).unwrap_or_default());
        let at = self.slots.partition_point(|slot| slot.head.get() < head);
        self.slots.get(at).is_some_and(|slot| slot.head.get() == head).then_some(at)
    }

    /// Index of the first key that is not less than `key`, which may be any key.
    pub(crate) fn lower_bound(&self, key: &[u8]) -> usize {
        let prefix = self.prefix();
        let (start, suffix) = key.split_at(prefix.len().min(key.len()));
        match start.cmp(prefix) {
            Ordering::Less => 0,
            Ordering::Greater => self.count(),
            Ordering::Equal => self.search_suffix(suffix).unwrap_or_else(|at| at),
        }
    }

    #[inline]
    fn search_suffix(&self, suffix: &[u8]) -> Result<usize, usize> {
        let head = head_of(suffix);
        if self.header.no_upper()
            && let Some(last) = self.slots.last()
        {
            // Ascending keys all go to the end of the rightmost leaf.
            let order = last.head.get().cmp(&head);
            if order.is_lt() || (order.is_eq() && self.suffix(self.count() - 1) < suffix) {
                return Err(self.count());
            }
        }
        search::find(self.slots, head, |slot| slot.head.get(), |i| self.suffix(i).cmp(suffix))
    }

    /// The key at `i` without the prefix.
    #[inline]
    pub(crate) fn suffix(&self, i: usize) -> &'a [u8] {
        let slot = &self.slots[i];
        let start = usize::from(slot.off.get()) + CELL_HEADER_BYTES;
        &self.page[start..start + usize::from(slot.klen.get())]
    }

    /// Length of the key at `i`.
    pub(crate) fn key_len(&self, i: usize) -> usize {
        self.prefix_len() + usize::from(self.slots[i].klen.get())
    }

    /// Writes the key at `i` to `out`, which is emptied first.
    #[cfg(test)]
    pub(crate) fn key_to(&self, i: usize, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(self.prefix());
        out.extend_from_slice(self.suffix(i));
    }

    /// The value at `i`.
    #[inline]
    pub(crate) fn value(&self, i: usize) -> CellValue<'a> {
        let (range, is_reference) = self.value_place(i);
        let bytes = &self.page[range];
        if is_reference {
            CellValue::Overflow(OverflowRef::decode(bytes).expect("a reference has a fixed length"))
        } else {
            CellValue::Inline(bytes)
        }
    }

    /// Where the value at `i` (or the reference to it) stands in the page.
    #[inline]
    pub(crate) fn value_range(&self, i: usize) -> Range<usize> {
        self.value_place(i).0
    }

    /// Place of the value, and whether it is a reference.
    #[inline]
    pub(super) fn value_place(&self, i: usize) -> (Range<usize>, bool) {
        let slot = &self.slots[i];
        let off = usize::from(slot.off.get());
        let field = u16::from_le_bytes([self.page[off], self.page[off + 1]]);
        let start = off + CELL_HEADER_BYTES + usize::from(slot.klen.get());
        (start..start + usize::from(field & !VALUE_IS_REFERENCE), field & VALUE_IS_REFERENCE != 0)
    }

    /// The value at `i` as the cell stores it.
    pub(super) fn stored_value(&self, i: usize) -> StoredValue<'a> {
        self.value(i).stored()
    }

    /// The key at `i` as prefix and suffix.
    pub(super) fn key_parts(&self, i: usize) -> KeyParts<'a> {
        KeyParts(self.prefix(), self.suffix(i))
    }

    /// Bytes of the cell at `i`, without its slot.
    pub(super) fn cell_len(&self, i: usize) -> usize {
        self.value_place(i).0.end - usize::from(self.slots[i].off.get())
    }

    /// Where the slots end.
    #[inline]
    pub(super) fn slots_end(&self) -> usize {
        SLOTS_START + self.count() * SLOT_BYTES
    }

    /// Contiguous free bytes between slots and heap.
    #[inline]
    pub(crate) fn free_bytes(&self) -> usize {
        self.header
            .heap_start(self.page.len())
            .checked_sub(self.slots_end())
            .expect("slots end before the heap")
    }

    /// Bytes that are free once the garbage is squeezed out.
    #[inline]
    pub(crate) fn usable_bytes(&self) -> usize {
        self.free_bytes() + usize::from(self.header.garbage.get())
    }

    /// Bytes in use: slots, cells and fences.
    pub(crate) fn live_bytes(&self) -> usize {
        self.capacity() - self.usable_bytes()
    }

    /// Bytes that slots, cells and fences of a leaf of this page size may take; [`Self::live_bytes`] of a
    /// full leaf.
    pub(crate) fn capacity(&self) -> usize {
        self.page.len() - SLOTS_START
    }

    /// Whether some value of the leaf lies in overflow pages.
    #[inline]
    pub(crate) fn has_overflow(&self) -> bool {
        self.header.overflow_cells.get() != 0
    }

    /// Whether a key of `key_len` bytes (that the leaf covers and does not have) finds room with `value`.
    #[inline]
    pub(crate) fn fits(&self, key_len: usize, value: &CellValue<'_>) -> Fit {
        let suffix_len = key_len.checked_sub(self.prefix_len()).expect("the leaf covers the key");
        let need = CELL_OVERHEAD + suffix_len + value.stored_len();
        if need <= self.free_bytes() {
            Fit::InPlace
        } else if need <= self.usable_bytes() {
            Fit::AfterCompaction
        } else {
            Fit::No
        }
    }

    /// Whether `value` finds room in place of the value at `i`.
    #[inline]
    pub(crate) fn fits_update(&self, i: usize, value: &CellValue<'_>) -> Fit {
        let old = self.cell_len(i);
        let new = CELL_HEADER_BYTES + usize::from(self.slots[i].klen.get()) + value.stored_len();
        if new <= old || new <= self.free_bytes() {
            Fit::InPlace
        } else if new <= self.usable_bytes() + old {
            Fit::AfterCompaction
        } else {
            Fit::No
        }
    }

    /// The slots, for prefetching.
    #[cfg(test)]
    pub(crate) fn slots_bytes(&self) -> &'a [u8] {
        &self.page[SLOTS_START..self.slots_end()]
    }

    /// The cell at `i`, for prefetching; reading its length would already touch it, so the value's part is a
    /// guess that ends with the page.
    pub(crate) fn cell_bytes(&self, i: usize) -> &'a [u8] {
        const GUESS: usize = 256;
        let off = usize::from(self.slots[i].off.get());
        &self.page[off..(off + GUESS).min(self.page.len())]
    }
}
