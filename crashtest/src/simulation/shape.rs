//! Shapes of keys and values that a seed draws: each run has one shape, so that over many runs every corner of the
//! trees is visited for long enough to break it.

use bedstone::Limits;

use crate::model::Bytes;
use crate::rng::{Rng, mix};

/// How keys are made of key numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyShape {
    /// Eight bytes, big-endian: ascending numbers are ascending keys.
    Number,
    /// Decimal digits behind a long common beginning.
    Decimal,
    /// A path of few distinct parts: many common beginnings of different lengths, one key often a prefix of another.
    Path,
    /// 0 to 40 random bytes, the empty key included.
    Random,
    /// Up to the longest key there may be, different only near the end or near the beginning.
    Long,
}

/// How long values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueShape {
    /// 0 to 64 bytes.
    Small,
    /// Up to what a leaf holds inside, often within a byte of the limit.
    Inline,
    /// Anything up to several pages, now and then many.
    Mixed,
}

/// The keys and values of one run.
#[derive(Debug, Clone)]
pub struct Shape {
    keys: KeyShape,
    values: ValueShape,
    universe: u64,
    salt: u64,
    limits: Limits,
    page_size: usize,
    next_ascending: u64,
}

impl Shape {
    /// Draws a shape for a database with these limits.
    pub fn draw(rng: &mut Rng, limits: Limits, page_size: usize) -> Self {
        let keys = *rng.pick(&[
            KeyShape::Number,
            KeyShape::Decimal,
            KeyShape::Path,
            KeyShape::Random,
            KeyShape::Long,
        ]);
        let values =
            *rng.pick(&[ValueShape::Small, ValueShape::Small, ValueShape::Inline, ValueShape::Mixed]);
        let universe = *rng.pick(&[30, 200, 1000, 5000]);
        Self { keys, values, universe, salt: rng.next(), limits, page_size, next_ascending: 0 }
    }

    /// A key: mostly any of the run's, sometimes one of a few hot ones, sometimes the next in ascending order.
    pub fn key(&mut self, rng: &mut Rng) -> Vec<u8> {
        let number = match rng.below(8) {
            0 => rng.below(self.universe.min(12)),
            1 | 2 => {
                self.next_ascending = (self.next_ascending + 1) % self.universe;
                self.next_ascending
            }
            _ => rng.below(self.universe),
        };
        self.numbered(number)
    }

    /// So many keys that follow each other: what fills and empties leaves.
    pub fn neighbours(&mut self, rng: &mut Rng, count: u64) -> Vec<Vec<u8>> {
        let first = rng.below(self.universe);
        (first..first + count).map(|number| self.numbered(number % self.universe)).collect()
    }

    fn numbered(&self, number: u64) -> Vec<u8> {
        let random = mix(number ^ self.salt);
        match self.keys {
            KeyShape::Number => number.to_be_bytes().to_vec(),
            KeyShape::Decimal => format!("a common beginning of many bytes/{number:08}").into_bytes(),
            KeyShape::Path => {
                let mut key = String::new();
                for level in 0..1 + random % 5 {
                    key.push_str(
                        ["eu/", "europe/", "e", "asia/x/", "ab"][(random >> (8 * level)) as usize % 5],
                    );
                }
                if random.is_multiple_of(3) {
                    key.into_bytes()
                } else {
                    format!("{key}{number}").into_bytes()
                }
            }
            KeyShape::Random => Rng::new(random).bytes((random % 41) as usize),
            KeyShape::Long => {
                let max = self.limits.max_key_bytes;
                let len = match random % 4 {
                    0 => max,
                    1 => max - (random >> 8) as usize % 16,
                    _ => 8 + (random >> 8) as usize % (max - 8),
                };
                let mut key = vec![b'k'; len];
                let at = if random & 0x8000_0000 == 0 { len - 8 } else { 0 };
                key[at..at + 8].copy_from_slice(&number.to_be_bytes());
                key
            }
        }
    }

    /// A value for `key`.
    pub fn value(&mut self, rng: &mut Rng, key: &[u8]) -> Bytes {
        let inline = self.limits.max_inline_bytes.saturating_sub(key.len());
        let len = match (self.values, rng.below(10)) {
            (_, 0) => 0,
            (ValueShape::Small, _) => rng.index(65),
            (_, 1..=3) => rng.index(65),
            (_, 4) => (inline + rng.index(3)).saturating_sub(1),
            (ValueShape::Mixed, 5 | 6) => rng.index(self.page_size * 4),
            (ValueShape::Mixed, 7) => (self.page_size * rng.index(5) + rng.index(80)).saturating_sub(40),
            (ValueShape::Mixed, 8) if rng.chance(1, 8) => rng.index(self.page_size * 40),
            _ => rng.index(inline + 1),
        };
        value_of(rng.next(), len)
    }

    /// A value too long for a leaf.
    pub fn long_value(&mut self, rng: &mut Rng) -> Bytes {
        let pages = *rng.pick(&[1, 2, 3, 5, 20]);
        let len = self.limits.max_inline_bytes + 1 + rng.index(self.page_size * pages);
        value_of(rng.next(), len)
    }

    /// A bound or a prefix: a key, a beginning of one, or something close to one.
    pub fn bound(&mut self, rng: &mut Rng) -> Vec<u8> {
        let mut key = self.key(rng);
        match rng.below(4) {
            0 => key.truncate(rng.index(key.len() + 1)),
            1 => key.push(rng.next() as u8),
            _ => {}
        }
        key
    }
}

/// `len` bytes that depend on `tag` alone, so that parts of two values never look alike.
pub fn value_of(tag: u64, len: usize) -> Bytes {
    Rng::new(tag).bytes(len).into()
}
