//! Helpers of the node formats' tests.

use super::{CellValue, Inner, Leaf, OverflowRef, verify};
use bedstone_bufpool::{FORMAT_VERSION, PageHeader, PageId, PageKind};

/// All page sizes.
pub(super) const PAGE_SIZES: [usize; 5] = [4096, 8192, 16384, 32768, 65536];

/// A page with an envelope and a body of zeros.
pub(super) fn page(size: usize, kind: PageKind, level: u8) -> Vec<u8> {
    let mut page = vec![0; size];
    let header = PageHeader {
        checksum: 0,
        kind: kind as u8,
        level,
        version: FORMAT_VERSION,
        page: PageId(7),
        table: 1,
        max_lsn: 0,
        history: 0,
    };
    header.write(&mut page);
    page
}

/// Panics with the reason if the page is not well-formed.
pub(super) fn check(page: &[u8]) {
    if let Err(why) = verify(&PageHeader::read(page), page) {
        panic!("{why}");
    }
}

/// A value of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Inline(Vec<u8>),
    Overflow(OverflowRef),
}

impl Value {
    pub(super) fn cell(&self) -> CellValue<'_> {
        match self {
            Self::Inline(bytes) => CellValue::Inline(bytes),
            Self::Overflow(reference) => CellValue::Overflow(*reference),
        }
    }
}

/// All keys and values of a leaf.
pub(super) fn leaf_content(leaf: Leaf<'_>) -> Vec<(Vec<u8>, Value)> {
    let mut key = Vec::new();
    (0..leaf.count())
        .map(|i| {
            leaf.key_to(i, &mut key);
            assert_eq!(key.len(), leaf.key_len(i));
            let value = match leaf.value(i) {
                CellValue::Inline(bytes) => Value::Inline(bytes.to_vec()),
                CellValue::Overflow(reference) => Value::Overflow(reference),
            };
            (key.clone(), value)
        })
        .collect()
}

/// All separators and children of an inner node.
pub(super) fn inner_content(node: Inner<'_>) -> (Vec<Vec<u8>>, Vec<PageId>) {
    let mut separator = Vec::new();
    let separators = (0..node.count())
        .map(|i| {
            node.separator_to(i, &mut separator);
            separator.clone()
        })
        .collect();
    (separators, node.child_ids(0..node.count() + 1).collect())
}

/// SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014). Names its seed when a
/// test fails.
pub(super) struct Rng {
    state: u64,
    seed: u64,
}

impl Drop for Rng {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("random numbers from the seed {}", self.seed);
        }
    }
}

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed, seed }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// A key of at most `max` bytes: often a prefix of another one, often with bytes 0x00 and 0xff, sometimes
    /// very long.
    pub(super) fn key(&mut self, max: usize) -> Vec<u8> {
        const ALPHABET: [u8; 5] = [0, 1, b'a', 0xfe, 0xff];
        let mut key = match self.below(4) {
            0 => Vec::new(),
            1 => b"tenant/7/".to_vec(),
            2 => b"tenant/71/city/".to_vec(),
            _ => vec![ALPHABET[self.below(5)]; self.below(40)],
        };
        match self.below(8) {
            0 => key.extend_from_slice(&self.next().to_be_bytes()),
            1 => key.extend(std::iter::repeat_n(ALPHABET[self.below(5)], self.below(max + 1))),
            2 => key.extend(std::iter::repeat_n(b'x', max)),
            _ => (0..self.below(7)).for_each(|_| key.push(ALPHABET[self.below(5)])),
        }
        key.truncate(max);
        key
    }

    /// A value that fits into a cell beside a key of `key_len` bytes.
    pub(super) fn value(&mut self, key_len: usize, max_cell: usize) -> Value {
        let most = max_cell - key_len;
        match self.below(10) {
            0 => Value::Overflow(OverflowRef {
                len: 1 + self.next() % super::MAX_VALUE_BYTES,
                index: PageId(1 + self.below(1000) as u32),
                crc: self.next() as u32,
            }),
            1 => Value::Inline(vec![self.next() as u8; most]),
            2 => Value::Inline(Vec::new()),
            3 => Value::Inline(vec![self.next() as u8; self.below(most + 1)]),
            _ => Value::Inline(vec![self.next() as u8; self.below(most.min(200) + 1)]),
        }
    }
}
