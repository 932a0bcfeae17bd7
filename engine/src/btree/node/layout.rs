//! Fixed layouts shared by leaves and inner nodes, and the few functions over keys that all of them need.
//! FORMAT.md has the tables. All integers are little-endian.

#[cfg(test)]
use super::cell::VALUE_IS_REFERENCE;
use bedstone_bufpool::HEADER_BYTES;
#[cfg(test)]
use bedstone_io::layout::{Field, Layout, Tail};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of the node header.
pub(super) const NODE_HEADER_BYTES: usize = 32;
/// Offset of the first slot (leaf) or head (inner node).
pub(super) const SLOTS_START: usize = HEADER_BYTES + NODE_HEADER_BYTES;
/// Flag: the node is responsible for all keys from its lower fence on.
pub(super) const FLAG_NO_UPPER: u16 = 1;

/// Bytes of a leaf's slot.
pub(super) const SLOT_BYTES: usize = 8;
/// Bytes of a cell before its suffix: the length of the value.
pub(super) const CELL_HEADER_BYTES: usize = 2;
/// What a leaf's cell costs beside the suffix and the value.
pub(super) const CELL_OVERHEAD: usize = SLOT_BYTES + CELL_HEADER_BYTES;
/// What a separator costs beside its suffix: head, slot, and the page id of one child.
pub(super) const SEPARATOR_OVERHEAD: usize = 4 + 4 + 4;
/// Bytes of a page id in an inner node.
pub(super) const CHILD_BYTES: usize = 4;

/// The node header, behind the envelope.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct NodeHeader {
    /// Leaf: cells; inner node: separators (one less than children).
    pub(super) count: U16,
    /// Page length less the heap's start.
    pub(super) heap_bytes: U16,
    /// Bytes of the heap that nothing refers to any more.
    pub(super) garbage: U16,
    /// Bytes cut from every key.
    pub(super) prefix_len: U16,
    /// The lower fence.
    pub(super) lower: Place,
    /// The upper fence; empty if there is none.
    pub(super) upper: Place,
    /// Only [`FLAG_NO_UPPER`] is used.
    pub(super) flags: U16,
    /// Leaf: cells whose value lies in overflow pages; inner node: 0.
    pub(super) overflow_cells: U16,
    /// Inner node: bytes that all suffixes share, skipped by the heads; leaf: 0.
    pub(super) common_len: U16,
    /// Leaf: index of the newest key, a hint for splits.
    pub(super) last_insert: U16,
    /// Leaf: how many inserts in a row came right behind the one before, a hint for splits.
    pub(super) run: U16,
    pub(super) reserved: [u8; 6],
}

/// Where a run of bytes lies in the page: a fence, or the suffix of a separator. The end of a 64 KiB page has no 16-bit offset, so an empty run lies
/// at 0.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Place {
    pub(super) off: U16,
    pub(super) len: U16,
}

/// The slot of a leaf's cell.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Slot {
    /// [`head_of`] the suffix.
    pub(super) head: U32,
    /// Offset of the cell in the page.
    pub(super) off: U16,
    /// Length of the suffix.
    pub(super) klen: U16,
}

#[cfg(test)]
pub(crate) const LAYOUTS: &[Layout] = &[
    bedstone_io::layout!("Node header", NodeHeader {
        count => "count",
        heap_bytes => "heap bytes",
        garbage => "garbage",
        prefix_len => "prefix length",
        lower => "lower fence",
        upper => "upper fence",
        flags => "flags",
        overflow_cells => "overflow cells",
        common_len => "common length",
        last_insert => "last insert",
        run => "run",
        reserved => "reserved",
    })
    .at(HEADER_BYTES),
    bedstone_io::layout!("Place", Place { off => "offset", len => "length" }),
    Layout::new("Leaf", 0, &[]).at(SLOTS_START).then(&[
        Tail::each("slots", size_of::<Slot>()),
        Tail::any("free"),
        Tail::any("heap"),
    ]),
    bedstone_io::layout!("Leaf slot", Slot { head => "head", off => "offset", klen => "suffix length" }),
    Layout::new(
        "Cell",
        CELL_HEADER_BYTES,
        &[Field { name: "value length", offset: 0, size: CELL_HEADER_BYTES }],
    )
    .then(&[Tail::any("suffix"), Tail::any("value")]),
    Layout::of_bits(
        "Value length",
        u16::BITS as usize,
        &[
            Field { name: "length", offset: 0, size: VALUE_IS_REFERENCE.trailing_zeros() as usize },
            Field {
                name: "is a reference",
                offset: VALUE_IS_REFERENCE.trailing_zeros() as usize,
                size: VALUE_IS_REFERENCE.count_ones() as usize,
            },
        ],
    ),
    Layout::new("Inner node", 0, &[]).at(SLOTS_START).then(&[
        Tail::each("heads", size_of::<U32>()),
        Tail::each("separators", size_of::<Place>()),
        Tail::each("children", CHILD_BYTES),
        Tail::any("free"),
        Tail::any("heap"),
    ]),
];

const _: () = assert!(size_of::<NodeHeader>() == NODE_HEADER_BYTES);
const _: () = assert!(size_of::<Slot>() == SLOT_BYTES);
const _: () = assert!(size_of::<Place>() == 4);

impl NodeHeader {
    /// The header of `page`, which must be longer than [`SLOTS_START`].
    #[inline]
    pub(super) fn of(page: &[u8]) -> &Self {
        Self::ref_from_bytes(&page[HEADER_BYTES..SLOTS_START]).expect("the range has the header's size")
    }

    /// The header of `page` for changing.
    #[inline]
    pub(super) fn of_mut(page: &mut [u8]) -> &mut Self {
        Self::mut_from_bytes(&mut page[HEADER_BYTES..SLOTS_START]).expect("the range has the header's size")
    }

    /// Whether there is no upper fence.
    #[inline]
    pub(super) fn no_upper(&self) -> bool {
        self.flags.get() & FLAG_NO_UPPER != 0
    }

    /// First byte of the heap in a page of `page_len` bytes.
    #[inline]
    pub(super) fn heap_start(&self, page_len: usize) -> usize {
        page_len - usize::from(self.heap_bytes.get())
    }

    /// Bytes of both fences.
    pub(super) fn fence_bytes(&self) -> usize {
        usize::from(self.lower.len.get()) + usize::from(self.upper.len.get())
    }
}

impl Place {
    /// The bytes of `page` that the place names.
    #[inline]
    pub(super) fn of(self, page: &[u8]) -> &[u8] {
        let off = usize::from(self.off.get());
        &page[off..off + usize::from(self.len.get())]
    }
}

/// A number that fits 16 bits because it counts bytes within a page, or slots.
#[inline]
pub(super) fn small(n: usize) -> U16 {
    U16::new(u16::try_from(n).expect("lengths and offsets within a page fit 16 bits"))
}

/// The first four bytes of `suffix` as a number that sorts as the bytes do; a shorter suffix is filled up
/// with zeros, so equal heads do not mean equal keys.
#[inline]
pub(super) fn head_of(suffix: &[u8]) -> u32 {
    match suffix.first_chunk::<4>() {
        Some(first) => u32::from_be_bytes(*first),
        None => {
            let mut padded = [0; 4];
            padded[..suffix.len()].copy_from_slice(suffix);
            u32::from_be_bytes(padded)
        }
    }
}

/// Length of the longest common prefix of `a` and `b`.
pub(super) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    const WORD: usize = 8;
    let words =
        a.as_chunks::<WORD>().0.iter().zip(b.as_chunks::<WORD>().0).take_while(|(a, b)| a == b).count();
    let start = words * WORD;
    start + a[start..].iter().zip(&b[start..]).take_while(|(a, b)| a == b).count()
}

/// Length of the prefix that a node between these fences cuts from its keys.
pub(super) fn fence_prefix(lower: &[u8], upper: Option<&[u8]>) -> usize {
    upper.map_or(0, |upper| common_prefix(lower, upper))
}

/// Writes `bytes` below `*heap` into `page`, moves `*heap` down to it, and says where it lies.
pub(super) fn push_down(page: &mut [u8], heap: &mut usize, bytes: &[u8]) -> Place {
    if bytes.is_empty() {
        return Place { off: U16::ZERO, len: U16::ZERO };
    }
    let start = heap.checked_sub(bytes.len()).expect("the heap has room");
    page[start..*heap].copy_from_slice(bytes);
    *heap = start;
    Place { off: small(start), len: small(bytes.len()) }
}

/// A key in two pieces, as it comes from a node: the prefix and the suffix.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyParts<'a>(pub(super) &'a [u8], pub(super) &'a [u8]);

impl<'a> KeyParts<'a> {
    /// Length of the whole key.
    pub(super) fn len(self) -> usize {
        self.0.len() + self.1.len()
    }

    /// The key without its first `n` bytes, which must be no more than it has.
    pub(super) fn skip(self, n: usize) -> Self {
        match n.checked_sub(self.0.len()) {
            None => Self(&self.0[n..], self.1),
            Some(rest) => Self(&[], &self.1[rest..]),
        }
    }

    /// Writes the key to the beginning of `out`.
    pub(super) fn copy_to(self, out: &mut [u8]) {
        let (first, second) = out[..self.len()].split_at_mut(self.0.len());
        first.copy_from_slice(self.0);
        second.copy_from_slice(self.1);
    }

    /// [`head_of`] the key.
    pub(super) fn head(self) -> u32 {
        if self.0.is_empty() {
            return head_of(self.1);
        }
        let mut first = [0; 4];
        for (to, from) in first.iter_mut().zip(self.0.iter().chain(self.1)) {
            *to = *from;
        }
        u32::from_be_bytes(first)
    }

    /// The key in one piece.
    pub(super) fn to_vec(self) -> Vec<u8> {
        [self.0, self.1].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn heads_sort_as_keys(a in prop::collection::vec(any::<u8>(), 0..8), b in prop::collection::vec(any::<u8>(), 0..8)) {
            if head_of(&a) < head_of(&b) {
                prop_assert!(a < b);
            }
            let n = common_prefix(&a, &b);
            prop_assert_eq!(&a[..n], &b[..n]);
            prop_assert!(n == a.len() || n == b.len() || a[n] != b[n]);
        }

        #[test]
        fn parts_are_the_key(key in prop::collection::vec(any::<u8>(), 0..12), at in 0usize..12, skip in 0usize..12) {
            let at = at.min(key.len());
            let skip = skip.min(key.len());
            let parts = KeyParts(&key[..at], &key[at..]).skip(skip);
            prop_assert_eq!(parts.to_vec(), &key[skip..]);
            prop_assert_eq!(parts.head(), head_of(&key[skip..]));
        }
    }

    #[test]
    fn long_common_prefixes() {
        let a = vec![7; 100];
        for n in 0..100 {
            let mut b = a.clone();
            b[n] = 8;
            assert_eq!(common_prefix(&a, &b), n);
            assert_eq!(common_prefix(&a[..n], &b), n);
        }
    }
}
