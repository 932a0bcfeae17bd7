//! Power cuts: what may survive, and cuts planned for an operation to come.

use super::fault::Armed;
use super::rng::Rng;

/// What a power cut does with everything that no sync covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutMode {
    /// All of it survives (what a failed sync lost stays lost).
    Keep,
    /// None of it survives.
    Drop,
    /// Each write survives whole, in part (by sector) or not at all, whatever became of the others; the length of a
    /// file is that of some moment since its last sync; each change of a name survives or not, a rename as one.
    Random,
}

/// When a planned cut strikes, seen from the operation it strikes at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// The operation has no effect.
    Before,
    /// A write is torn, a sync reached some of what it covers; other operations have no effect.
    During,
    /// The operation had its full effect, but the caller never learns.
    After,
}

impl Moment {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        match rng.below(3) {
            0 => Moment::Before,
            1 => Moment::During,
            _ => Moment::After,
        }
    }
}

/// A cut that waits for its operation.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) at: At,
    pub(super) mode: CutMode,
}

/// The operation that a cut waits for.
#[derive(Debug, Clone)]
pub(super) enum At {
    /// The one that [`super::SimDisk::ops`] counts so.
    Count(u64),
    /// The one of a kind, counted as for a fault.
    Kind(Armed),
}

/// How much survives in one file at one cut. Drawn once for each file, because independent coins alone would almost
/// never lose nearly all or nearly nothing of a long list of writes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keep {
    quarters: u64,
}

impl Keep {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        Self { quarters: rng.below(5) }
    }

    pub(super) fn survives(self, rng: &mut Rng) -> bool {
        rng.chance(self.quarters, 4)
    }
}

/// The parts of a write of `len` bytes at `offset` that reach the medium when it is torn at multiples of `sector`:
/// ranges counted from the beginning of the write. A beginning, an end, or any subset of its sectors; possibly
/// none, possibly all.
pub(super) fn torn(offset: u64, len: u64, sector: u64, rng: &mut Rng) -> Vec<(u64, u64)> {
    let first = offset / sector;
    let count = (offset + len).div_ceil(sector) - first;
    let split = rng.below(count + 1);
    let shape = rng.below(4);
    (0..count)
        .filter(|&i| match shape {
            0 => i < split,
            1 => i >= split,
            _ => rng.chance(1, 2),
        })
        .map(|i| {
            let start = ((first + i) * sector).max(offset);
            let end = ((first + i + 1) * sector).min(offset + len);
            (start - offset, end - offset)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torn_parts_end_at_sectors_of_the_file() {
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            for (start, end) in torn(700, 3000, 512, &mut rng) {
                assert!(start < end && end <= 3000, "seed {seed}");
                assert!(start == 0 || (700 + start) % 512 == 0, "seed {seed}");
                assert!(end == 3000 || (700 + end) % 512 == 0, "seed {seed}");
            }
        }
    }

    #[test]
    fn every_shape_of_tearing_appears() {
        let mut shapes = std::collections::BTreeSet::new();
        for seed in 0..400 {
            let parts = torn(0, 4 * 512, 512, &mut Rng::new(seed));
            shapes.insert(parts.iter().map(|part| part.0 / 512).collect::<Vec<_>>());
        }
        assert_eq!(shapes.len(), 16);
    }
}
