//! Which 4 KiB units of the data file are in use.
//!
//! A bitmap, one bit per unit, and two summaries over it, so that a file of hundreds of gigabytes is searched
//! without reading the bitmap: free units per extent (1 MiB) and, per region (256 extents), free units and wholly
//! free extents. Nothing here is stored: the bitmap is rebuilt from the page map when a file is opened.
//!
//! A unit freed here is free at once. Holding it back until the checkpoint that no longer refers to it is durable
//! is the caller's duty.

/// Bytes of a unit, the smallest piece of the data file that is handed out.
pub const UNIT: usize = 4096;
/// Units of an extent (1 MiB), within which batches of images are laid side by side.
pub const EXTENT_UNITS: u64 = 256;
/// Units of the longest run that is handed out in one piece: the largest page image (64 KiB).
pub const MAX_RUN: u64 = 16;

const WORDS_PER_EXTENT: usize = (EXTENT_UNITS / 64) as usize;
const EXTENTS_PER_REGION: usize = 256;

/// A request that contradicts the bitmap. From a caller that keeps its own books right it can only come from a
/// damaged page map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnitsError {
    /// The run reaches beyond the file.
    #[error("units {start} to {start}+{units} lie beyond the file's {total} units")]
    OutOfBounds {
        /// First unit of the run.
        start: u64,
        /// Its length in units.
        units: u64,
        /// Units of the file.
        total: u64,
    },
    /// A unit that was to be marked as used is used already.
    #[error("unit {unit} is used twice")]
    AlreadyUsed {
        /// The first such unit.
        unit: u64,
    },
    /// A unit that was to be freed is free already.
    #[error("unit {unit} is freed but was not in use")]
    NotUsed {
        /// The first such unit.
        unit: u64,
    },
}

/// Free and wholly free space of 256 extents.
#[derive(Debug, Clone, Copy, Default)]
struct Region {
    free_units: u32,
    empty_extents: u16,
}

/// The units of a data file, used and free.
#[derive(Debug)]
pub struct Units {
    /// One bit per unit, 1 = used; always whole extents. Bits at and above `total` are 1 and counted nowhere.
    words: Vec<u64>,
    /// Free units per extent.
    extents: Vec<u16>,
    regions: Vec<Region>,
    total: u64,
    free: u64,
    /// For each run length (index n - 1): no extent below this one has room for such a run.
    first_fit: [usize; MAX_RUN as usize],
    /// Where the last batch ended, if it began in a wholly free extent.
    batch_end: Option<u64>,
}

impl Units {
    /// A file of `total` units, all free.
    pub fn new(total: u64) -> Self {
        let mut units = Self {
            words: Vec::new(),
            extents: Vec::new(),
            regions: Vec::new(),
            total: 0,
            free: 0,
            first_fit: [0; MAX_RUN as usize],
            batch_end: None,
        };
        units.grow(total);
        units
    }

    /// Units of the file.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Units free.
    pub fn free_units(&self) -> u64 {
        self.free
    }

    /// Units in use.
    pub fn used_units(&self) -> u64 {
        self.total - self.free
    }

    /// Extents (1 MiB) without any unit in use. Much free space but few of these means a scattered file.
    pub fn empty_extents(&self) -> u64 {
        self.regions.iter().map(|region| u64::from(region.empty_extents)).sum()
    }

    /// Lengthens the file to `total` units, the new ones free. A smaller `total` changes nothing.
    pub fn grow(&mut self, total: u64) {
        if total <= self.total {
            return;
        }
        let old = self.total;
        let extents = total.div_ceil(EXTENT_UNITS) as usize;
        self.words.resize(extents * WORDS_PER_EXTENT, u64::MAX);
        self.extents.resize(extents, 0);
        self.regions.resize(extents.div_ceil(EXTENTS_PER_REGION), Region::default());
        self.total = total;
        self.set(old, total - old, false);
    }

    /// Shortens the file to `total` units. A larger `total` changes nothing.
    ///
    /// # Errors
    /// [`UnitsError::AlreadyUsed`] names the first unit in use that would be cut off; nothing has changed then.
    pub fn shrink(&mut self, total: u64) -> Result<(), UnitsError> {
        if total >= self.total {
            return Ok(());
        }
        if let Some(unit) = self.find(total, self.total - total, true) {
            return Err(UnitsError::AlreadyUsed { unit });
        }
        self.set(total, self.total - total, true);
        let extents = total.div_ceil(EXTENT_UNITS) as usize;
        self.words.truncate(extents * WORDS_PER_EXTENT);
        self.extents.truncate(extents);
        self.regions.truncate(extents.div_ceil(EXTENTS_PER_REGION));
        self.total = total;
        self.batch_end = None;
        Ok(())
    }

    /// Free units at the end of the file, behind the last one in use.
    pub fn trailing_free(&self) -> u64 {
        let mut bits = self.words.len() as u64 * 64;
        for &word in self.words.iter().rev() {
            // Bits beyond the file are set; they must not hide the free ones before them.
            let beyond = bits.saturating_sub(self.total).min(64);
            let inside = if beyond == 64 { 0 } else { word & (u64::MAX >> beyond) };
            if inside != 0 {
                return self.total - (bits - u64::from(inside.leading_zeros()));
            }
            bits -= 64;
        }
        self.total
    }

    /// Whether `unit` is in use; units beyond the file count as used.
    pub fn is_used(&self, unit: u64) -> bool {
        unit >= self.total || self.words[(unit / 64) as usize] >> (unit % 64) & 1 == 1
    }

    /// Takes the lowest free run of `n` units (1 to [`MAX_RUN`]) and returns its first unit. A run whose length is
    /// a power of two begins at a multiple of it; no run crosses the border of an extent. `None`: no room.
    pub fn alloc_run(&mut self, n: u64) -> Option<u64> {
        let start = self.lowest_run(n)?;
        self.set(start, n, true);
        Some(start)
    }

    /// Takes room for up to `max_count` images of `n` units each, side by side, and returns its first unit and the
    /// number of images that fit there (at least 1). It goes on where the last batch ended, else takes the lowest
    /// wholly free extent (and the free space that follows), else the lowest hole. `None`: no room.
    pub fn alloc_many(&mut self, n: u64, max_count: u64) -> Option<(u64, u64)> {
        assert!((1..=MAX_RUN).contains(&n), "an image has 1 to {MAX_RUN} units, not {n}");
        if max_count == 0 {
            return None;
        }
        let fresh = self.batch_start(n).or_else(|| self.lowest_empty_extent());
        let start = match fresh {
            Some(start) => start,
            None => self.lowest_run(n)?,
        };
        let reach = max_count.saturating_mul(n).min(self.total - start);
        let available = self.find(start, reach, true).map_or(reach, |used| used - start);
        let count = available / n;
        self.set(start, count * n, true);
        self.batch_end = fresh.map(|_| start + count * n);
        Some((start, count))
    }

    /// Gives `n` units from `start` back. All or nothing.
    ///
    /// # Errors
    /// [`UnitsError::OutOfBounds`], and [`UnitsError::NotUsed`] for a unit that is free already.
    pub fn free(&mut self, start: u64, n: u64) -> Result<(), UnitsError> {
        self.check_bounds(start, n)?;
        if let Some(unit) = self.find(start, n, false) {
            return Err(UnitsError::NotUsed { unit });
        }
        self.set(start, n, false);
        Ok(())
    }

    /// Marks `n` units from `start` as used. All or nothing.
    ///
    /// # Errors
    /// [`UnitsError::OutOfBounds`], and [`UnitsError::AlreadyUsed`] for a unit that is used already.
    pub fn mark_used(&mut self, start: u64, n: u64) -> Result<(), UnitsError> {
        self.check_bounds(start, n)?;
        if let Some(unit) = self.find(start, n, true) {
            return Err(UnitsError::AlreadyUsed { unit });
        }
        self.set(start, n, true);
        Ok(())
    }

    fn check_bounds(&self, start: u64, n: u64) -> Result<(), UnitsError> {
        match start.checked_add(n) {
            Some(end) if end <= self.total => Ok(()),
            _ => Err(UnitsError::OutOfBounds { start, units: n, total: self.total }),
        }
    }

    /// The first unit of `start..start + n` that is used (or free, if `used` is false), a word at a time. The
    /// range lies within the file.
    fn find(&self, start: u64, n: u64, used: bool) -> Option<u64> {
        for (index, mask) in word_masks(start, n) {
            let word = if used { self.words[index] } else { !self.words[index] };
            if word & mask != 0 {
                return Some(index as u64 * 64 + u64::from((word & mask).trailing_zeros()));
            }
        }
        None
    }

    /// Sets or clears a range that lies within the file and is wholly in the other state, and keeps every summary.
    fn set(&mut self, start: u64, n: u64, used: bool) {
        for (index, mask) in word_masks(start, n) {
            let extent = index / WORDS_PER_EXTENT;
            let count = mask.count_ones();
            let region = &mut self.regions[extent / EXTENTS_PER_REGION];
            let was_empty = u64::from(self.extents[extent]) == EXTENT_UNITS;
            if used {
                self.words[index] |= mask;
                self.extents[extent] -= count as u16;
                region.free_units -= count;
                self.free -= u64::from(count);
            } else {
                self.words[index] &= !mask;
                self.extents[extent] += count as u16;
                region.free_units += count;
                self.free += u64::from(count);
            }
            let is_empty = u64::from(self.extents[extent]) == EXTENT_UNITS;
            region.empty_extents += u16::from(is_empty && !was_empty);
            region.empty_extents -= u16::from(was_empty && !is_empty);
        }
        if !used && n > 0 {
            let extent = (start / EXTENT_UNITS) as usize;
            for first in &mut self.first_fit {
                *first = (*first).min(extent);
            }
        }
    }

    /// Where the last batch ended, if an image of `n` units may begin and is free there.
    fn batch_start(&self, n: u64) -> Option<u64> {
        let start = self.batch_end?;
        let aligned = !n.is_power_of_two() || start.is_multiple_of(n);
        let inside = !start.is_multiple_of(EXTENT_UNITS) && start + n <= self.total;
        (aligned && inside && self.find(start, n, true).is_none()).then_some(start)
    }

    fn lowest_empty_extent(&self) -> Option<u64> {
        let region = self.regions.iter().position(|region| region.empty_extents > 0)?;
        let from = region * EXTENTS_PER_REGION;
        let within = self.extents[from..].iter().position(|&free| u64::from(free) == EXTENT_UNITS)?;
        Some((from + within) as u64 * EXTENT_UNITS)
    }

    /// The lowest free run of `n` units, without taking it.
    fn lowest_run(&mut self, n: u64) -> Option<u64> {
        assert!((1..=MAX_RUN).contains(&n), "a run has 1 to {MAX_RUN} units, not {n}");
        let slot = (n - 1) as usize;
        let mut extent = self.first_fit[slot];
        while extent < self.extents.len() {
            if extent.is_multiple_of(EXTENTS_PER_REGION)
                && u64::from(self.regions[extent / EXTENTS_PER_REGION].free_units) < n
            {
                extent += EXTENTS_PER_REGION;
                continue;
            }
            if u64::from(self.extents[extent]) >= n
                && let Some(start) = self.run_in_extent(extent, n)
            {
                self.first_fit[slot] = extent;
                return Some(start);
            }
            extent += 1;
        }
        self.first_fit[slot] = self.extents.len();
        None
    }

    fn run_in_extent(&self, extent: usize, n: u64) -> Option<u64> {
        let base = extent * WORDS_PER_EXTENT;
        // Bit i of `runs` says that the units i to i + n - 1 are free, found by doubling: a run of a + b units
        // begins where a run of a begins and, a units later, one of b.
        let mut runs: [u64; WORDS_PER_EXTENT] = std::array::from_fn(|word| !self.words[base + word]);
        let mut length = 1;
        while length < n {
            let step = length.min(n - length);
            runs = and_with_later(runs, step as u32);
            length += step;
        }
        let starts = if n.is_power_of_two() { aligned_starts(n) } else { u64::MAX };
        let word = runs.iter().position(|&word| word & starts != 0)?;
        let bit = u64::from((runs[word] & starts).trailing_zeros());
        Some((base + word) as u64 * 64 + bit)
    }
}

/// Bit i of the result is bit i of `bits` and bit i + `step` of `bits`; 0 < `step` < 64.
fn and_with_later(bits: [u64; WORDS_PER_EXTENT], step: u32) -> [u64; WORDS_PER_EXTENT] {
    std::array::from_fn(|word| {
        let next = bits.get(word + 1).copied().unwrap_or(0);
        bits[word] & (bits[word] >> step | next << (64 - step))
    })
}

/// Bits of a word at multiples of `n`, a power of two up to 16.
fn aligned_starts(n: u64) -> u64 {
    (0..64).step_by(n as usize).fold(0, |mask, bit| mask | 1 << bit)
}

/// The words that `start..start + n` touches, each with the mask of its bits in the range.
fn word_masks(start: u64, n: u64) -> impl Iterator<Item = (usize, u64)> {
    let end = start + n;
    let mut at = start;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let bit = at % 64;
        let bits = (64 - bit).min(end - at);
        let mask = (u64::MAX >> (64 - bits)) << bit;
        let index = (at / 64) as usize;
        at += bits;
        Some((index, mask))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::proptest_config;
    use proptest::prelude::*;

    #[test]
    fn runs_are_aligned_and_ascend() {
        let mut units = Units::new(600);
        units.mark_used(0, 33).unwrap();
        assert_eq!(units.alloc_run(4), Some(36));
        assert_eq!(units.alloc_run(1), Some(33));
        assert_eq!(units.alloc_run(3), Some(40));
        assert_eq!(units.alloc_run(2), Some(34));
        assert_eq!(units.alloc_run(16), Some(48));
        assert_eq!(units.free_units(), 600 - 33 - 26);
        assert_eq!(units.trailing_free(), 600 - 64);
    }

    #[test]
    fn batches_lie_side_by_side() {
        let mut units = Units::new(3 * EXTENT_UNITS);
        units.mark_used(0, 32).unwrap();
        assert_eq!(units.empty_extents(), 2);
        // The first extent is not empty, so the second one is taken, and the batch runs into the third.
        assert_eq!(units.alloc_many(4, 10), Some((EXTENT_UNITS, 10)));
        assert_eq!(units.alloc_many(4, 100), Some((EXTENT_UNITS + 40, 100)));
        assert_eq!(units.empty_extents(), 0);
        assert_eq!(units.alloc_many(4, 100), Some((EXTENT_UNITS + 440, 18)));
        // No empty extent is left: the holes, ascending.
        assert_eq!(units.alloc_many(4, 100), Some((32, 56)));
        assert_eq!(units.alloc_many(4, 1), None);
        assert_eq!(units.free_units(), 0);
        units.free(100, 4).unwrap();
        assert_eq!(units.alloc_many(4, 9), Some((100, 1)));
    }

    #[test]
    fn contradictions_are_errors_and_change_nothing() {
        let mut units = Units::new(100);
        units.mark_used(10, 10).unwrap();
        assert_eq!(units.mark_used(5, 6), Err(UnitsError::AlreadyUsed { unit: 10 }));
        assert_eq!(units.free(15, 6), Err(UnitsError::NotUsed { unit: 20 }));
        assert_eq!(
            units.free(u64::MAX, 2),
            Err(UnitsError::OutOfBounds { start: u64::MAX, units: 2, total: 100 })
        );
        assert_eq!(units.mark_used(99, 2), Err(UnitsError::OutOfBounds { start: 99, units: 2, total: 100 }));
        assert_eq!(units.shrink(19), Err(UnitsError::AlreadyUsed { unit: 19 }));
        assert_eq!(units.free_units(), 90);
        units.shrink(20).unwrap();
        assert_eq!((units.total(), units.free_units(), units.trailing_free()), (20, 10, 0));
        units.free(10, 10).unwrap();
        assert_eq!(units.free(10, 10), Err(UnitsError::NotUsed { unit: 10 }));
        units.grow(1000);
        assert_eq!((units.free_units(), units.trailing_free()), (1000, 1000));
        assert!(units.is_used(1000) && !units.is_used(999));
    }

    #[test]
    fn a_file_of_a_terabyte_is_searched_quickly() {
        let total = 1 << 28;
        let mut units = Units::new(total);
        units.mark_used(0, total - 16).unwrap();
        for _ in 0..1000 {
            let start = units.alloc_run(4).unwrap();
            assert!(start >= total - 16);
            units.free(start, 4).unwrap();
        }
    }

    /// The same store as plain flags.
    fn model_check(units: &Units, model: &[bool]) {
        assert_eq!(units.total(), model.len() as u64);
        assert_eq!(units.free_units(), model.iter().filter(|&&used| !used).count() as u64);
        let trailing = model.iter().rev().take_while(|&&used| !used).count() as u64;
        assert_eq!(units.trailing_free(), trailing);
        let empty = model.chunks_exact(EXTENT_UNITS as usize).filter(|chunk| !chunk.contains(&true)).count();
        assert_eq!(units.empty_extents(), empty as u64);
        for (unit, &used) in model.iter().enumerate() {
            assert_eq!(units.is_used(unit as u64), used, "unit {unit}");
        }
    }

    fn model_has_room(model: &[bool], n: usize) -> bool {
        (0..model.len().saturating_sub(n - 1)).any(|start| {
            let aligned = !n.is_power_of_two() || start.is_multiple_of(n);
            let one_extent = start / EXTENT_UNITS as usize == (start + n - 1) / EXTENT_UNITS as usize;
            aligned && one_extent && !model[start..start + n].contains(&true)
        })
    }

    #[derive(Debug, Clone)]
    enum Step {
        Run(u64),
        Many(u64, u64),
        Free(usize),
        Mark(u64, u64),
        FreeAny(u64, u64),
        Grow(u64),
        Shrink(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (1..=MAX_RUN).prop_map(Step::Run),
            6 => (1..=MAX_RUN, 1..80_u64).prop_map(|(n, max)| Step::Many(n, max)),
            8 => any::<usize>().prop_map(Step::Free),
            2 => (0..900_u64, 0..40_u64).prop_map(|(start, n)| Step::Mark(start, n)),
            2 => (0..900_u64, 0..40_u64).prop_map(|(start, n)| Step::FreeAny(start, n)),
            1 => (0..900_u64).prop_map(Step::Grow),
            1 => (0..900_u64).prop_map(Step::Shrink),
        ];
        proptest::collection::vec(step, 1..60)
    }

    proptest! {
        #![proptest_config(proptest_config(200))]
        #[test]
        fn agrees_with_plain_flags(total in 0..800_u64, steps in steps()) {
            let mut units = Units::new(total);
            let mut model = vec![false; total as usize];
            let mut taken: Vec<(u64, u64)> = Vec::new();
            for step in steps {
                match step {
                    Step::Run(n) => match units.alloc_run(n) {
                        Some(start) => {
                            let range = start as usize..(start + n) as usize;
                            prop_assert!(!model[range.clone()].contains(&true));
                            prop_assert!(!n.is_power_of_two() || start % n == 0);
                            model[range].fill(true);
                            taken.push((start, n));
                        }
                        None => prop_assert!(!model_has_room(&model, n as usize)),
                    },
                    Step::Many(n, max) => match units.alloc_many(n, max) {
                        Some((start, count)) => {
                            let range = start as usize..(start + count * n) as usize;
                            prop_assert!(count >= 1 && count <= max);
                            prop_assert!(!model[range.clone()].contains(&true));
                            prop_assert!(!n.is_power_of_two() || start % n == 0);
                            model[range].fill(true);
                            taken.extend((0..count).map(|image| (start + image * n, n)));
                        }
                        None => prop_assert!(!model_has_room(&model, n as usize)),
                    },
                    Step::Free(pick) if !taken.is_empty() => {
                        let (start, n) = taken.swap_remove(pick % taken.len());
                        // A freeing at random may have taken a part of the run already.
                        let whole = !model[start as usize..(start + n) as usize].contains(&false);
                        prop_assert_eq!(units.free(start, n).is_ok(), whole);
                        if whole {
                            model[start as usize..(start + n) as usize].fill(false);
                        }
                    }
                    Step::Free(_) => {}
                    Step::Mark(start, n) => {
                        let range = start as usize..(start + n) as usize;
                        let fits = model.get(range.clone()).is_some_and(|flags| !flags.contains(&true));
                        prop_assert_eq!(units.mark_used(start, n).is_ok(), fits);
                        if fits {
                            model[range].fill(true);
                        }
                    }
                    Step::FreeAny(start, n) => {
                        let range = start as usize..(start + n) as usize;
                        let fits = model.get(range.clone()).is_some_and(|flags| !flags.contains(&false));
                        prop_assert_eq!(units.free(start, n).is_ok(), fits);
                        if fits {
                            model[range].fill(false);
                        }
                    }
                    Step::Grow(total) => {
                        units.grow(total);
                        model.resize(model.len().max(total as usize), false);
                    }
                    Step::Shrink(total) if (total as usize) < model.len() => {
                        let fits = !model[total as usize..].contains(&true);
                        prop_assert_eq!(units.shrink(total).is_ok(), fits);
                        if fits {
                            model.truncate(total as usize);
                            taken.retain(|&(start, n)| start + n <= total);
                        }
                    }
                    Step::Shrink(_) => {}
                }
                model_check(&units, &model);
            }
        }
    }
}
