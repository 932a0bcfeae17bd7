//! Changing a leaf in place.
//!
//! Invariants that every function keeps: slots end before the heap begins; the heap consists of the fences,
//! the cells, and as many bytes of garbage as the header says; slots are in the order of their keys. A
//! function that would break them panics before it has changed anything: callers ask [`Leaf::fits`] and
//! [`Leaf::fits_update`] first.

use super::cell::{CellValue, StoredValue};
use super::layout::{CELL_HEADER_BYTES, KeyParts, NodeHeader, SLOT_BYTES, SLOTS_START, Slot, small};
use super::leaf::{Fit, Leaf};
use super::leaf_build::{write_cell, write_empty};
use super::limits::limits;
use super::split::Change;
use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, IntoBytes};

/// A leaf open for changing.
pub(crate) struct LeafMut<'a> {
    page: &'a mut [u8],
}

impl<'a> LeafMut<'a> {
    /// The leaf in `page`, which must be well-formed (see [`Leaf::new`]).
    pub(crate) fn new(page: &'a mut [u8]) -> Self {
        Self { page }
    }

    /// Makes `page` (its envelope is already there) an empty leaf between the fences; `None` is the end of
    /// all keys.
    pub(crate) fn init(page: &'a mut [u8], lower: &[u8], upper: Option<&[u8]>) -> Self {
        write_empty(page, lower, upper);
        Self { page }
    }

    /// The leaf as it is now.
    #[inline]
    pub(crate) fn view(&self) -> Leaf<'_> {
        Leaf::new(self.page)
    }

    /// Makes `change`, which must fit (see [`SplitPlan`](super::SplitPlan) for one that does not).
    pub(crate) fn apply(&mut self, change: &Change<'_>, scratch: &mut Vec<u8>) {
        match *change {
            #[cfg(test)]
            Change::None => {}
            Change::Insert { at, key, value } => self.insert(at, key, value, scratch),
            Change::Update { at, value } => self.update(at, value, scratch),
        }
    }

    /// Inserts `key`, which the leaf covers and does not have, at the index `at` that [`Leaf::search`] gave.
    /// Squeezes the garbage out first if that is needed; `scratch` is working space. Panics when
    /// [`Leaf::fits`] says no.
    pub(crate) fn insert(&mut self, at: usize, key: &[u8], value: CellValue<'_>, scratch: &mut Vec<u8>) {
        let leaf = self.view();
        debug_assert!(leaf.covers(key), "the fences cover the key");
        debug_assert_eq!(leaf.search(key), Err(at), "the index is where the key belongs");
        assert!(at <= leaf.count(), "index {at} of {}", leaf.count());
        let longest = limits(self.page.len());
        assert!(
            key.len() <= longest.max_key && key.len() + value.stored_len() <= longest.max_inline_cell,
            "a cell of {} + {} bytes is too long",
            key.len(),
            value.stored_len()
        );
        match leaf.fits(key.len(), &value) {
            Fit::InPlace => {}
            Fit::AfterCompaction => self.compact(scratch),
            Fit::No => panic!("the leaf has no room for the key"),
        }
        let (count, heap, prefix_len) = {
            let leaf = self.view();
            (leaf.count(), leaf.header.heap_start(self.page.len()), leaf.prefix_len())
        };
        let stored = value.stored();
        let mut new_heap = heap;
        let slot = write_cell(self.page, &mut new_heap, KeyParts(&[], &key[prefix_len..]), &stored);
        let place = SLOTS_START + at * SLOT_BYTES;
        let end = SLOTS_START + count * SLOT_BYTES;
        assert!(end + SLOT_BYTES <= new_heap, "slots end before the heap");
        self.page.copy_within(place..end, place + SLOT_BYTES);
        self.page[place..place + SLOT_BYTES].copy_from_slice(slot.as_bytes());
        let heap_bytes = small(self.page.len() - new_heap);
        let header = NodeHeader::of_mut(self.page);
        header.count = small(count + 1);
        header.heap_bytes = heap_bytes;
        header.run =
            if continues_run(header, at) { U16::new(header.run.get().saturating_add(1)) } else { U16::ZERO };
        header.last_insert = small(at);
        count_overflow(header, stored.is_reference(), false);
    }

    /// Replaces the value at `at`. Room for the new value is found before the old one goes; the rest as for
    /// [`Self::insert`], and [`Leaf::fits_update`] says whether it fits.
    pub(crate) fn update(&mut self, at: usize, value: CellValue<'_>, scratch: &mut Vec<u8>) {
        let leaf = self.view();
        let key_len = leaf.key_len(at);
        assert!(
            key_len + value.stored_len() <= limits(self.page.len()).max_inline_cell,
            "a cell of {key_len} + {} bytes is too long",
            value.stored_len()
        );
        let fit = leaf.fits_update(at, &value);
        assert!(fit != Fit::No, "the leaf has no room for the value");
        let (old_place, old_is_reference) = leaf.value_place(at);
        let old_len = leaf.cell_len(at);
        let suffix_len = leaf.suffix(at).len();
        let free = leaf.free_bytes();
        let stored = value.stored();
        let new_len = CELL_HEADER_BYTES + suffix_len + stored.bytes().len();

        if new_len <= old_len {
            let cell = old_place.end - old_len;
            self.page[cell..cell + CELL_HEADER_BYTES].copy_from_slice(&stored.length_field().to_le_bytes());
            let start = old_place.start;
            self.page[start..start + stored.bytes().len()].copy_from_slice(stored.bytes());
            self.add_garbage(old_len - new_len);
        } else if new_len <= free {
            scratch.clear();
            scratch.extend_from_slice(leaf.suffix(at));
            self.move_cell(at, scratch, &stored);
            self.add_garbage(old_len);
        } else {
            // The new cell may need the room of the old one, so the compaction leaves that out.
            self.rebuild(scratch, Some(at));
            let old = Leaf::new(scratch);
            self.move_cell(at, old.suffix(at), &stored);
        }
        count_overflow(NodeHeader::of_mut(self.page), stored.is_reference(), old_is_reference);
    }

    /// Writes a new cell for the slot `at`; the old one is the caller's to account for.
    fn move_cell(&mut self, at: usize, suffix: &[u8], value: &StoredValue<'_>) {
        let (mut heap, slots_end) = {
            let leaf = self.view();
            (leaf.header.heap_start(self.page.len()), leaf.slots_end())
        };
        let slot = write_cell(self.page, &mut heap, KeyParts(&[], suffix), value);
        assert!(slots_end <= heap, "slots end before the heap");
        let place = SLOTS_START + at * SLOT_BYTES;
        self.page[place..place + SLOT_BYTES].copy_from_slice(slot.as_bytes());
        NodeHeader::of_mut(self.page).heap_bytes = small(self.page.len() - heap);
    }

    fn add_garbage(&mut self, bytes: usize) {
        let header = NodeHeader::of_mut(self.page);
        header.garbage = small(usize::from(header.garbage.get()) + bytes);
    }

    /// Removes the key at `at`.
    pub(crate) fn remove(&mut self, at: usize) {
        let leaf = self.view();
        let cell_len = leaf.cell_len(at);
        let (_, is_reference) = leaf.value_place(at);
        let count = leaf.count();
        let lowest = usize::from(leaf.slots[at].off.get()) == leaf.header.heap_start(self.page.len());
        let place = SLOTS_START + at * SLOT_BYTES;
        let end = SLOTS_START + count * SLOT_BYTES;
        self.page.copy_within(place + SLOT_BYTES..end, place);
        let header = NodeHeader::of_mut(self.page);
        header.count = small(count - 1);
        header.run = U16::ZERO;
        count_overflow(header, false, is_reference);
        if count == 1 {
            header.heap_bytes = small(header.fence_bytes());
            header.garbage = small(0);
        } else if lowest {
            header.heap_bytes = small(usize::from(header.heap_bytes.get()) - cell_len);
        } else {
            self.add_garbage(cell_len);
        }
    }

    /// Squeezes the garbage out of the heap, lays the cells down in key order, and clears the free space.
    /// `scratch` is working space (it holds the old page afterwards).
    pub(crate) fn compact(&mut self, scratch: &mut Vec<u8>) {
        self.rebuild(scratch, None);
    }

    /// Compacts; the cell of the slot `without` is left out, and its slot must be written anew before the
    /// leaf is used.
    fn rebuild(&mut self, scratch: &mut Vec<u8>, without: Option<usize>) {
        scratch.clear();
        scratch.extend_from_slice(self.page);
        let old = Leaf::new(scratch);
        let overflow_cells = old.header.overflow_cells;
        let hints = (old.header.last_insert, old.header.run);
        let (mut heap, _) = write_empty(self.page, old.lower(), old.upper());
        for i in 0..old.count() {
            let slot_place = SLOTS_START + i * SLOT_BYTES;
            let slot = Slot::mut_from_bytes(&mut self.page[slot_place..slot_place + SLOT_BYTES])
                .expect("the range has the slot's size");
            if without == Some(i) {
                slot.off = small(0);
                continue;
            }
            let len = old.cell_len(i);
            let start = usize::from(old.slots[i].off.get());
            heap = heap.checked_sub(len).expect("a compacted leaf is no longer than it was");
            slot.off = small(heap);
            self.page[heap..heap + len].copy_from_slice(&scratch[start..start + len]);
        }
        let slots_end = old.slots_end();
        assert!(slots_end <= heap, "slots end before the heap");
        self.page[slots_end..heap].fill(0);
        let heap_bytes = small(self.page.len() - heap);
        let header = NodeHeader::of_mut(self.page);
        header.count = small(old.count());
        header.heap_bytes = heap_bytes;
        header.overflow_cells = overflow_cells;
        (header.last_insert, header.run) = hints;
    }
}

/// Whether a key inserted at `at` comes right behind the one inserted last.
pub(super) fn continues_run(header: &NodeHeader, at: usize) -> bool {
    at == usize::from(header.last_insert.get()) + 1
}

/// Counts a reference to overflow pages that came or went.
fn count_overflow(header: &mut NodeHeader, came: bool, went: bool) {
    header.overflow_cells =
        small(usize::from(header.overflow_cells.get()) + usize::from(came) - usize::from(went));
}
