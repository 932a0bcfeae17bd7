//! The generator behind every choice a test makes.

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014): one word of state,
/// every seed good. The same seed and the same calls give the same choices.
#[derive(Debug, Clone)]
pub struct Rng {
    state: u64,
    /// Bytes that decide the choices for as long as there are any, the last one first: see [`Rng::from_bytes`].
    bytes: Vec<u8>,
}

/// The finalizer of SplitMix64: spreads a number over all 64 bits.
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Rng {
    /// A generator that begins at `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: seed, bytes: Vec::new() }
    }

    /// A generator whose choices are those of `bytes`, one after the other, as many of them for each as it takes; when
    /// they are used up, it goes on as one of a seed. So a fuzzer that changes a byte changes a choice.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self { state: bytes.len() as u64, bytes: bytes.iter().rev().copied().collect() }
    }

    /// The choice among `n` that the bytes make, while there are any.
    fn byte_choice(&mut self, n: u64) -> Option<u64> {
        if self.bytes.is_empty() {
            return None;
        }
        let mut choice = 0;
        let mut reach = 1_u64;
        while reach < n {
            choice = choice << 8 | u64::from(self.bytes.pop().unwrap_or(0));
            reach = reach.saturating_mul(256);
        }
        Some(choice % n)
    }

    /// A generator whose choices depend on all these numbers.
    pub fn of(parts: &[u64]) -> Self {
        let begin = 0x9e37_79b9_7f4a_7c15;
        Self::new(parts.iter().fold(begin, |state, part| mix(state ^ mix(part.wrapping_add(1)))))
    }

    /// The next 64 bits.
    #[expect(clippy::should_implement_trait, reason = "a generator is no iterator: it never ends")]
    pub fn next(&mut self) -> u64 {
        if let Some(choice) = self.byte_choice(1 << 16) {
            return mix(choice);
        }
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A number below `n`; 0 if `n` is 0. The bias of the remainder is far below what a test could notice.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            return 0;
        }
        match self.byte_choice(n) {
            Some(choice) => choice,
            None => self.next() % n,
        }
    }

    /// An index below `n`.
    pub fn index(&mut self, n: usize) -> usize {
        self.below(n as u64) as usize
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True in `num` of `den` cases.
    pub fn chance(&mut self, num: u64, den: u64) -> bool {
        self.below(den) < num
    }

    /// One of these.
    ///
    /// # Panics
    /// If there is none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.index(from.len())]
    }

    /// Fills with random bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }

    /// So many random bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes);
        bytes
    }

    /// Puts them into a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.index(i + 1));
        }
    }
}
