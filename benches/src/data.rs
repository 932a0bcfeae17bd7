//! Keys, values and batches, all derived from one seed, so that a key costs a few nanoseconds to make and no array
//! of keys competes with the engines for the processor's caches.

/// Length of every key in bytes.
pub const KEY_LEN: usize = 24;

/// One key.
pub type Key = [u8; KEY_LEN];

/// Finalizer of SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014): a bijection
/// of 64-bit words whose output looks random.
pub fn mix(word: u64) -> u64 {
    let mut z = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// SplitMix64: a stream of random words from a seed.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// A stream that depends on `seed` alone.
    pub fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    /// The next word.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`, which is not zero. The bias of the multiplication is below 2^-32 for the bounds used
    /// here.
    pub fn below(&mut self, bound: u64) -> u64 {
        u64::try_from((u128::from(self.word()) * u128::from(bound)) >> 64)
            .expect("the product is below 2^128")
    }

    /// A number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Order in which a data set's keys grow with their index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyOrder {
    /// 24 random bytes: neighbouring indexes lie anywhere.
    Random,
    /// The index as 8 big-endian bytes, then 16 random ones, like identifiers that begin with a time.
    Ascending,
}

/// An endless table of entries, each found by its index.
#[derive(Debug, Clone, Copy)]
pub struct DataSet {
    seed: u64,
    order: KeyOrder,
    value_len: usize,
}

impl DataSet {
    /// The table of `seed`, with values of `value_len` bytes (at least 1).
    pub fn new(seed: u64, order: KeyOrder, value_len: usize) -> Self {
        Self { seed: mix(seed), order, value_len: value_len.max(1) }
    }

    /// Length of every value in bytes.
    pub fn value_len(&self) -> usize {
        self.value_len
    }

    /// The key of entry `index`. Different indexes have different keys: the first eight bytes are a bijection.
    pub fn key(&self, index: u64) -> Key {
        let a = mix(self.seed ^ index);
        let b = mix(a ^ 0x5bd1_e995_9d1b_58d5);
        let c = mix(b ^ 0x27d4_eb2f_1656_67c5);
        let mut key = [0; KEY_LEN];
        match self.order {
            KeyOrder::Random => key[..8].copy_from_slice(&a.to_be_bytes()),
            KeyOrder::Ascending => key[..8].copy_from_slice(&index.to_be_bytes()),
        }
        key[8..16].copy_from_slice(&b.to_be_bytes());
        key[16..].copy_from_slice(&c.to_be_bytes());
        key
    }

    /// First byte of the value of entry `index`.
    pub fn first_byte(&self, index: u64) -> u8 {
        self.value_word(index, 0).to_le_bytes()[0]
    }

    /// Appends the value of entry `index` to `out`: bytes without pattern, so that no compression makes one engine's
    /// data smaller than another's.
    pub fn push_value(&self, index: u64, out: &mut Vec<u8>) {
        let end = out.len() + self.value_len;
        for word in 0.. {
            let bytes = self.value_word(index, word).to_le_bytes();
            let rest = end - out.len();
            if rest <= bytes.len() {
                out.extend_from_slice(&bytes[..rest]);
                return;
            }
            out.extend_from_slice(&bytes);
        }
    }

    fn value_word(&self, index: u64, word: u64) -> u64 {
        mix(mix(self.seed.rotate_left(32) ^ index).wrapping_add(word))
    }

    /// The entries of `indexes` in that order.
    pub fn batch(&self, indexes: impl IntoIterator<Item = u64>) -> Batch {
        let mut bytes = Vec::new();
        for index in indexes {
            bytes.extend_from_slice(&self.key(index));
            self.push_value(index, &mut bytes);
        }
        Batch { bytes, record_len: KEY_LEN + self.value_len }
    }
}

/// Entries made beforehand, so that making them is in no measurement.
#[derive(Debug, Clone)]
pub struct Batch {
    bytes: Vec<u8>,
    record_len: usize,
}

impl Batch {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.record_len
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Keys with their values.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.bytes.chunks_exact(self.record_len).map(|record| record.split_at(KEY_LEN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn keys_are_distinct_and_ascending_ones_ascend() {
        let random = DataSet::new(7, KeyOrder::Random, 150);
        let keys: BTreeSet<Key> = (0..10_000).map(|i| random.key(i)).collect();
        assert_eq!(keys.len(), 10_000);
        let ascending = DataSet::new(7, KeyOrder::Ascending, 150);
        assert!((1..10_000).all(|i| ascending.key(i - 1) < ascending.key(i)));
    }

    #[test]
    fn a_batch_holds_the_entries_asked_for() {
        for value_len in [1, 7, 8, 9, 150] {
            let data = DataSet::new(3, KeyOrder::Random, value_len);
            let batch = data.batch(10..20);
            assert_eq!(batch.len(), 10);
            for (index, (key, value)) in (10..20).zip(batch.iter()) {
                assert_eq!(key, data.key(index));
                assert_eq!(value.len(), value_len);
                assert_eq!(value[0], data.first_byte(index));
            }
        }
    }
}
