//! Checking a page that came from disk, once, before any view is made of it.
//!
//! Its checksum held, so what is found here is a fault of the program or of memory, or a forged file; but the
//! views and the functions that change leaves rely on what is checked here, so nothing is taken on trust.
//! After [`verify`] no accessor can panic: all places lie within the heap, no two overlap (so that a change
//! to one cell leaves the others alone), keys ascend between the fences, heads agree with keys, and the sums
//! in the header are right (so that a compaction finds room).

use super::cell::{OverflowRef, VALUE_IS_REFERENCE};
use super::inner::{Inner, arrays_end};
use super::layout::{
    CELL_HEADER_BYTES, FLAG_NO_UPPER, NodeHeader, Place, SLOT_BYTES, SLOTS_START, fence_prefix, head_of,
};
use super::leaf::Leaf;
use super::limits::{Limits, MAX_VALUE_BYTES, PAGE_BYTES, limits};
use super::overflow::{OverflowData, OverflowIndex};
use bedstone_bufpool::{PageHeader, PageId, PageKind};

/// Checks the structure of `page`, whose envelope is `header`. The error says what is wrong and where in the
/// page.
pub(crate) fn verify(header: &PageHeader, page: &[u8]) -> Result<(), String> {
    if !PAGE_BYTES.contains(&page.len()) || !page.len().is_power_of_two() {
        return Err(format!("a page of {} bytes", page.len()));
    }
    let kind = PageKind::from_byte(header.kind).ok_or_else(|| format!("page kind {}", header.kind))?;
    if (kind == PageKind::Inner) != (header.level > 0) {
        return Err(format!("level {} of a page of kind {kind:?}", header.level));
    }
    match kind {
        PageKind::Leaf => verify_leaf(page),
        PageKind::Inner => verify_inner(page, header.page),
        PageKind::OverflowIndex => OverflowIndex::verify(page),
        PageKind::OverflowData => OverflowData::verify(page),
    }
}

/// The heap of a node, with a bit for each byte that something refers to.
struct Heap<'a> {
    page: &'a [u8],
    start: usize,
    used: [u64; *PAGE_BYTES.end() / 64],
    used_bytes: usize,
}

impl<'a> Heap<'a> {
    /// The heap of a node whose arrays end at `arrays_end`.
    fn new(page: &'a [u8], header: &NodeHeader, arrays_end: usize) -> Result<Self, String> {
        let start = page.len().checked_sub(usize::from(header.heap_bytes.get()));
        match start.filter(|&start| arrays_end <= start) {
            Some(start) => Ok(Self { page, start, used: [0; *PAGE_BYTES.end() / 64], used_bytes: 0 }),
            None => Err(format!(
                "the heap of {} bytes and the arrays, which end at {arrays_end}, overlap",
                header.heap_bytes.get()
            )),
        }
    }

    /// The bytes at `off`, if they lie in the heap and nothing else lies there.
    fn take(&mut self, off: usize, len: usize, what: impl Fn() -> String) -> Result<&'a [u8], String> {
        let bytes = self
            .page
            .get(off..off + len)
            .filter(|_| off >= self.start)
            .ok_or_else(|| format!("{} at {off}, {len} bytes, lies outside of the heap", what()))?;
        let (mut at, end) = (off, off + len);
        while at < end {
            let (word, bit) = (at / 64, at % 64);
            let bits = (64 - bit).min(end - at);
            let mask = (u64::MAX >> (64 - bits)) << bit;
            if self.used[word] & mask != 0 {
                return Err(format!("{} at {off}, {len} bytes, overlaps something else", what()));
            }
            self.used[word] |= mask;
            at += bits;
        }
        self.used_bytes += len;
        Ok(bytes)
    }

    fn fence(&mut self, place: Place, max_key: usize, what: &str) -> Result<&'a [u8], String> {
        let (off, len) = (usize::from(place.off.get()), usize::from(place.len.get()));
        if len > max_key {
            return Err(format!("the {what} fence has {len} bytes, the longest key {max_key}"));
        }
        match (off, len) {
            (0, 0) => Ok(&[]),
            (_, 0) => Err(format!("the {what} fence is empty, but lies at {off}")),
            _ => self.take(off, len, || format!("the {what} fence")),
        }
    }

    /// Checks the header's sums once everything has been taken.
    fn finish(&self, header: &NodeHeader) -> Result<(), String> {
        let (all, garbage) = (usize::from(header.heap_bytes.get()), usize::from(header.garbage.get()));
        if self.used_bytes + garbage == all {
            Ok(())
        } else {
            Err(format!("of {all} bytes of heap {} are used and {garbage} garbage", self.used_bytes))
        }
    }
}

/// Checks what leaves and inner nodes have in common and returns the fences.
fn fences<'a>(
    heap: &mut Heap<'a>,
    header: &NodeHeader,
    max_key: usize,
) -> Result<(&'a [u8], Option<&'a [u8]>), String> {
    let flags = header.flags.get();
    if flags & !FLAG_NO_UPPER != 0 || header.reserved != [0; 6] {
        return Err(format!("unknown flags {flags:#x} or reserved bytes that are not zero"));
    }
    let lower = heap.fence(header.lower, max_key, "lower")?;
    let upper = heap.fence(header.upper, max_key, "upper")?;
    let upper = if header.no_upper() {
        if !upper.is_empty() {
            return Err("an upper fence in a node that has none".into());
        }
        None
    } else {
        Some(upper)
    };
    if upper.is_some_and(|upper| lower >= upper) {
        return Err("the lower fence is not less than the upper one".into());
    }
    let (prefix, expected) = (usize::from(header.prefix_len.get()), fence_prefix(lower, upper));
    if prefix != expected {
        return Err(format!("a prefix of {prefix} bytes between fences that share {expected}"));
    }
    Ok((lower, upper))
}

/// Checks that keys come in ascending order between the fences; all are given without the node's prefix.
struct Order<'a> {
    last: &'a [u8],
    last_head: u32,
    upper: Option<&'a [u8]>,
    first: bool,
    /// Whether the first key may be the lower fence.
    inclusive: bool,
}

impl<'a> Order<'a> {
    fn new(lower: &'a [u8], upper: Option<&'a [u8]>, prefix: usize, inclusive: bool) -> Self {
        let lower = &lower[prefix..];
        Self {
            last: lower,
            last_head: head_of(lower),
            upper: upper.map(|key| &key[prefix..]),
            first: true,
            inclusive,
        }
    }

    #[inline]
    fn next(&mut self, i: usize, suffix: &'a [u8], head: u32) -> Result<(), String> {
        let ascends = self.last_head < head
            || (self.last_head == head
                && (self.last < suffix || (self.first && self.inclusive && self.last == suffix)));
        if !ascends {
            let before = if self.first { "the lower fence" } else { "the one before" };
            return Err(format!("key {i} and {before} are out of order"));
        }
        (self.last, self.last_head, self.first) = (suffix, head, false);
        Ok(())
    }

    fn finish(&self) -> Result<(), String> {
        if !self.first && self.upper.is_some_and(|upper| self.last >= upper) {
            return Err("the last key is not less than the upper fence".into());
        }
        Ok(())
    }
}

fn verify_leaf(page: &[u8]) -> Result<(), String> {
    let header = NodeHeader::of(page);
    let count = usize::from(header.count.get());
    let Limits { max_key, max_inline_cell } = limits(page.len());
    let mut heap = Heap::new(page, header, SLOTS_START + count * SLOT_BYTES)?;
    if header.common_len.get() != 0 {
        return Err("a common part of heads in a leaf".into());
    }
    let (lower, upper) = fences(&mut heap, header, max_key)?;
    // The slots end before the heap, so the view can be made.
    let leaf = Leaf::new(page);
    let prefix = leaf.prefix_len();
    let mut order = Order::new(lower, upper, prefix, true);
    let mut overflow_cells = 0;
    for (i, slot) in leaf.slots.iter().enumerate() {
        let (off, klen) = (usize::from(slot.off.get()), usize::from(slot.klen.get()));
        let Some(field) = page.get(off..off + CELL_HEADER_BYTES) else {
            return Err(format!("cell {i} at {off} lies outside of the heap"));
        };
        let field = u16::from_le_bytes([field[0], field[1]]);
        let vlen = usize::from(field & !VALUE_IS_REFERENCE);
        let cell = heap.take(off, CELL_HEADER_BYTES + klen + vlen, || format!("cell {i}"))?;
        if prefix + klen > max_key || prefix + klen + vlen > max_inline_cell {
            return Err(format!(
                "cell {i} at {off}: {klen} + {vlen} bytes and a prefix of {prefix} are too long"
            ));
        }
        let (suffix, value) = cell[CELL_HEADER_BYTES..].split_at(klen);
        let head = head_of(suffix);
        if head != slot.head.get() {
            return Err(format!("slot {i} has the head {:#x}, its key {head:#x}", slot.head.get()));
        }
        order.next(i, suffix, head)?;
        if field & VALUE_IS_REFERENCE != 0 {
            overflow_cells += 1;
            match OverflowRef::decode(value) {
                Some(value) if value.index != PageId::NONE && (1..=MAX_VALUE_BYTES).contains(&value.len) => {}
                other => return Err(format!("cell {i} at {off}: no reference to overflow pages: {other:?}")),
            }
        }
    }
    order.finish()?;
    if overflow_cells != usize::from(header.overflow_cells.get()) {
        return Err(format!(
            "{overflow_cells} overflow cells, the header says {}",
            header.overflow_cells.get()
        ));
    }
    heap.finish(header)
}

fn verify_inner(page: &[u8], own: PageId) -> Result<(), String> {
    let header = NodeHeader::of(page);
    let count = usize::from(header.count.get());
    let max_key = limits(page.len()).max_key;
    let mut heap = Heap::new(page, header, arrays_end(count))?;
    if header.overflow_cells.get() != 0 {
        return Err("overflow cells in an inner node".into());
    }
    let (lower, upper) = fences(&mut heap, header, max_key)?;
    let node = Inner::new(page);
    let (prefix, common_len) = (node.prefix_len(), usize::from(header.common_len.get()));
    if common_len > 0 && count < 2 {
        return Err(format!("a common part of {common_len} bytes in a node of {count} separators"));
    }
    let mut order = Order::new(lower, upper, prefix, false);
    let mut first: &[u8] = &[];
    for (i, (place, head)) in node.slots.iter().zip(node.heads).enumerate() {
        let (off, len) = (usize::from(place.off.get()), usize::from(place.len.get()));
        let suffix = heap.take(off, len, || format!("separator {i}"))?;
        if prefix + len > max_key {
            return Err(format!("separator {i} at {off}: {len} bytes and a prefix of {prefix} are too long"));
        }
        if i == 0 {
            first = suffix;
        }
        if suffix.len() < common_len || suffix[..common_len] != first[..common_len] {
            return Err(format!("separator {i} at {off} does not begin with the {common_len} common bytes"));
        }
        let expected = head_of(&suffix[common_len..]);
        if expected != head.get() {
            return Err(format!("separator {i} has the head {expected:#x}, its array {:#x}", head.get()));
        }
        order.next(i, suffix, head_of(suffix))?;
    }
    order.finish()?;
    if let Some(at) = node.child_ids(0..count + 1).position(|id| id == PageId::NONE || id == own) {
        return Err(format!("child {at} is {}", node.child(at)));
    }
    heap.finish(header)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{PAGE_SIZES, Rng, Value, check, inner_content, leaf_content, page};
    use super::super::{
        CellValue, Change, Fit, InnerChange, InnerPlan, InnerSplit, LeafMut, SplitPlan, build_root_with_child,
    };
    use super::*;

    fn full_leaf(rng: &mut Rng, size: usize) -> Vec<u8> {
        let Limits { max_key, max_inline_cell } = limits(size);
        let mut page = page(size, PageKind::Leaf, 0);
        let fences = [(&b""[..], None), (b"tenant/7", Some(&b"tenant/8"[..]))][rng.below(2)];
        let mut leaf = LeafMut::init(&mut page, fences.0, fences.1);
        let mut scratch = Vec::new();
        for _ in 0..rng.below(60) {
            let key = rng.key(max_key.min(60));
            let value = rng.value(key.len(), max_inline_cell.min(300));
            if !leaf.view().covers(&key) {
                continue;
            }
            match leaf.view().search(&key) {
                Ok(at) if rng.below(2) == 0 => leaf.remove(at),
                Ok(at) if leaf.view().fits_update(at, &value.cell()) != Fit::No => {
                    leaf.update(at, value.cell(), &mut scratch);
                }
                Err(at) if leaf.view().fits(key.len(), &value.cell()) != Fit::No => {
                    leaf.insert(at, &key, value.cell(), &mut scratch);
                }
                _ => {}
            }
        }
        check(&page);
        page
    }

    fn full_inner(rng: &mut Rng, size: usize) -> Vec<u8> {
        let mut node = page(size, PageKind::Inner, 1);
        build_root_with_child(&mut node, PageId(100));
        for n in 0..rng.below(40) {
            let mut separator = b"common".to_vec();
            separator.extend(rng.key(40));
            let old = Inner::new(&node);
            let child = old.search(&separator);
            if old.search_below(&separator) != child {
                continue;
            }
            let change = match rng.below(4) {
                0 if old.count() > 0 => InnerChange::Merge { child: rng.below(old.count()) },
                _ => InnerChange::Split { child, separator: &separator, right: PageId(200 + n as u32) },
            };
            let plan = InnerPlan::new(old, change);
            if plan.fits() {
                let mut new = page(size, PageKind::Inner, 1);
                plan.build(&mut new);
                node = new;
            }
        }
        check(&node);
        node
    }

    /// Calls everything on a page that was let through.
    fn use_leaf(rng: &mut Rng, bytes: &[u8]) {
        let leaf = Leaf::new(bytes);
        let content = leaf_content(leaf);
        assert_eq!(leaf.cells().count(), content.len());
        let _ = (leaf.info(), leaf.has_overflow(), leaf.slots_bytes(), leaf.live_bytes());
        for (i, (key, _)) in content.iter().enumerate() {
            assert!(leaf.covers(key));
            assert_eq!(leaf.search(key), Ok(i));
            let _ = (leaf.cell_bytes(i), leaf.value_range(i));
        }
        for key in [&b""[..], b"\xff\xff", b"tenant/7/x", b"tenant"] {
            let _ = (leaf.search(key), leaf.lower_bound(key));
        }
        if content.len() >= 2 {
            let plan = SplitPlan::of(leaf, Change::None);
            plan.build_left(&mut page(bytes.len(), PageKind::Leaf, 0));
            plan.build_right(&mut page(bytes.len(), PageKind::Leaf, 0));
        }
        let mut copy = bytes.to_vec();
        let mut changed = LeafMut::new(&mut copy);
        let mut scratch = Vec::new();
        for (i, _) in content.iter().enumerate() {
            let value = Value::Inline(vec![3; rng.below(30)]);
            if changed.view().fits_update(i, &value.cell()) != Fit::No
                && changed.view().key_len(i) + 30 <= limits(bytes.len()).max_inline_cell
            {
                changed.update(i, value.cell(), &mut scratch);
            }
        }
        changed.compact(&mut scratch);
        while changed.view().count() > 0 {
            changed.remove(rng.below(changed.view().count()));
        }
        check(&copy);
    }

    fn use_inner(bytes: &[u8]) {
        let node = Inner::new(bytes);
        let (separators, children) = inner_content(node);
        assert_eq!(separators.len() + 1, children.len());
        let _ = (node.info(), node.cells().count(), node.live_bytes(), node.heads_bytes(), node.level());
        for (i, separator) in separators.iter().enumerate() {
            assert_eq!((node.search(separator), node.search_below(separator)), (i + 1, i));
        }
        for key in [&b""[..], b"\xff\xff", b"common", b"commo"] {
            let _ = (node.search(key), node.search_below(key), node.covers(key));
        }
        let plan = InnerPlan::new(node, InnerChange::Remove { first: 0, count: node.count() / 2 });
        plan.build(&mut page(bytes.len(), PageKind::Inner, 1));
        if node.count() >= 3 {
            let split = InnerSplit::of(InnerPlan::new(node, InnerChange::None));
            split.build_left(&mut page(bytes.len(), PageKind::Inner, 1));
            split.build_right(&mut page(bytes.len(), PageKind::Inner, 1));
        }
    }

    /// Damages pages at random, mostly where structure is; either the page is refused, or all functions work
    /// on it.
    #[test]
    fn damage_is_refused_or_harmless() {
        let (mut refused, mut harmless) = (0, 0);
        for seed in 0..6000 {
            let mut rng = Rng::new(seed);
            let size = PAGE_SIZES[rng.below(if seed % 16 == 0 { 5 } else { 1 })];
            let is_leaf = rng.below(2) == 0;
            let mut bytes = if is_leaf { full_leaf(&mut rng, size) } else { full_inner(&mut rng, size) };
            for _ in 0..1 + rng.below(3) {
                let at = match rng.below(4) {
                    0 => 32 + rng.below(32),
                    1 => 64 + rng.below(400),
                    2 => size - 1 - rng.below(600),
                    _ => 32 + rng.below(size - 32),
                };
                match rng.below(3) {
                    0 => bytes[at] = rng.next() as u8,
                    1 => bytes[at] = 0,
                    _ => bytes[at] ^= 1 << rng.below(8),
                }
            }
            if verify(&PageHeader::read(&bytes), &bytes).is_err() {
                refused += 1;
                continue;
            }
            harmless += 1;
            let used = std::panic::catch_unwind(|| {
                if is_leaf { use_leaf(&mut Rng::new(seed), &bytes) } else { use_inner(&bytes) }
            });
            assert!(used.is_ok(), "seed {seed}");
        }
        assert!(refused > 1000 && harmless > 1000, "{refused} {harmless}");
    }

    #[test]
    fn noise_is_refused() {
        let mut rng = Rng::new(1);
        for kind in [PageKind::Leaf, PageKind::Inner, PageKind::OverflowIndex, PageKind::OverflowData] {
            for _ in 0..200 {
                let mut bytes = page(4096, kind, u8::from(kind == PageKind::Inner));
                bytes[32..].iter_mut().for_each(|byte| *byte = rng.next() as u8);
                assert!(verify(&PageHeader::read(&bytes), &bytes).is_err());
            }
        }
        let zeros = page(4096, PageKind::Inner, 1);
        assert!(verify(&PageHeader::read(&zeros), &zeros).is_err(), "a child's id is 0");
        let leaf = page(4096, PageKind::Leaf, 1);
        assert!(verify(&PageHeader::read(&leaf), &leaf).is_err(), "a leaf above level 0");
        assert!(verify(&PageHeader::read(&leaf), &leaf[..100]).is_err(), "a short page");
    }

    /// Two slots that name one cell: refused although everything else agrees, because a change through one
    /// would be a change of the other.
    #[test]
    fn overlapping_cells_are_refused() {
        let mut bytes = page(4096, PageKind::Leaf, 0);
        let mut leaf = LeafMut::init(&mut bytes, b"", None);
        let mut scratch = Vec::new();
        leaf.insert(0, b"a", CellValue::Inline(b"12345678"), &mut scratch);
        leaf.insert(1, b"b", CellValue::Inline(b"12345678"), &mut scratch);
        let (first, second) = (SLOTS_START, SLOTS_START + SLOT_BYTES);
        bytes.copy_within(second..second + SLOT_BYTES, first);
        let why = verify(&PageHeader::read(&bytes), &bytes).unwrap_err();
        assert!(why.contains("overlaps") || why.contains("order"), "{why}");
    }
}
