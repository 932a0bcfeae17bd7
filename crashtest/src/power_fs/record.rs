//! What a disk was told, in order, and what may be on it when the power goes.
//!
//! A disk answers a write when its cache has it, and a flush when the medium has every write that was answered before the
//! flush came. So a record has four kinds of events: a write comes, a write is answered, a flush comes, a flush is answered.
//! They are numbered as they happen; a *position* is a number of events, and the power goes between two of them.
//!
//! With the power gone at a position, invariants:
//! 1. A write that comes later is not there.
//! 2. A write that was answered before a flush came, which was answered before the position, is there.
//! 3. Any other write is there, absent, or torn at the unit the disk writes as one, whatever became of the others.
//! 4. Where writes overlap, the one that came later lies above.

use crate::rng::Rng;

use super::image::Image;

/// What never happened yet.
const NEVER: u64 = u64::MAX;
/// Writes from one prepared image to the next.
const STRIDE: usize = 256;

struct Write {
    offset: u64,
    bytes: Box<[u8]>,
    came: u64,
    answered: u64,
}

struct Flush {
    came: u64,
    answered: u64,
}

/// A record in the making.
pub(super) struct Record {
    base: Image,
    writes: Vec<Write>,
    flushes: Vec<Flush>,
    position: u64,
    bytes: u64,
}

impl Record {
    /// Begins with a disk whose every byte is on the medium.
    pub(super) fn new(base: Image) -> Self {
        Self { base, writes: Vec::new(), flushes: Vec::new(), position: 0, bytes: 0 }
    }

    /// Events so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Bytes of all writes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A write comes; its number.
    pub(super) fn write_comes(&mut self, offset: u64, bytes: &[u8]) -> usize {
        let came = self.event();
        self.bytes += bytes.len() as u64;
        self.writes.push(Write { offset, bytes: bytes.into(), came, answered: NEVER });
        self.writes.len() - 1
    }

    /// The write of this number is about to be answered.
    pub(super) fn write_answered(&mut self, number: usize) {
        self.writes[number].answered = self.event();
    }

    /// A flush comes; its number.
    pub(super) fn flush_comes(&mut self) -> usize {
        let came = self.event();
        self.flushes.push(Flush { came, answered: NEVER });
        self.flushes.len() - 1
    }

    /// The flush of this number is about to be answered.
    pub(super) fn flush_answered(&mut self, number: usize) {
        self.flushes[number].answered = self.event();
    }

    fn event(&mut self) -> u64 {
        self.position += 1;
        self.position - 1
    }

    /// Ends the record.
    pub(super) fn end(self) -> History {
        let mut prepared = Vec::new();
        let (mut image, mut answered) = (self.base, 0);
        for (number, write) in self.writes.iter().enumerate() {
            if number % STRIDE == 0 {
                prepared.push(Prepared { image: image.clone(), writes: number, answered });
            }
            image.write(write.offset, &write.bytes);
            answered = answered.max(write.answered);
        }
        if prepared.is_empty() {
            prepared.push(Prepared { image, writes: 0, answered });
        }
        History { prepared, writes: self.writes, flushes: self.flushes, end: self.position }
    }
}

/// The disk with its first so many writes, of which the last was answered at an event.
struct Prepared {
    image: Image,
    writes: usize,
    answered: u64,
}

/// A whole record.
pub(super) struct History {
    prepared: Vec<Prepared>,
    writes: Vec<Write>,
    flushes: Vec<Flush>,
    end: u64,
}

/// What becomes of the writes that no flush has covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// All are there.
    Kept,
    /// None is.
    Dropped,
    /// So many of eight are, by chance.
    Some(u64),
    /// A third each is there, absent, and torn.
    Torn,
}

impl Fate {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        match rng.below(10) {
            0 => Self::Kept,
            1..=3 => Self::Dropped,
            4..=6 => Self::Some(*rng.pick(&[1, 4, 7])),
            _ => Self::Torn,
        }
    }
}

/// A disk after the power has gone.
pub(super) struct Crashed {
    pub(super) image: Image,
    pub(super) facts: Facts,
}

/// What became of the writes before the cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) flushed: usize,
    pub(super) kept: usize,
    pub(super) dropped: usize,
    pub(super) torn: usize,
}

impl std::fmt::Display for Facts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { flushed, kept, dropped, torn } = self;
        write!(f, "{flushed} writes flushed; of those after them {kept} kept, {dropped} dropped, {torn} torn")
    }
}

impl History {
    /// The position after the last event.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn writes(&self) -> usize {
        self.writes.len()
    }

    pub(super) fn flushes(&self) -> usize {
        self.flushes.len()
    }

    /// A position worth a cut: anywhere, or at the edge of a flush.
    pub(super) fn draw(&self, rng: &mut Rng) -> u64 {
        if self.flushes.is_empty() || rng.chance(1, 2) {
            return rng.between(0, self.end);
        }
        let flush = rng.pick(&self.flushes);
        let edge = *rng.pick(&[flush.came, flush.answered, flush.answered.saturating_add(1)]);
        edge.min(self.end)
    }

    /// The disk when the power goes at `position`. What is torn is torn at multiples of `unit` bytes; the first
    /// `whole` bytes of the disk are never torn.
    pub(super) fn crash(&self, position: u64, fate: Fate, unit: usize, whole: u64, rng: &mut Rng) -> Crashed {
        // Writes answered before this event are on the medium.
        let covered = self.flushes.iter().filter(|flush| flush.answered < position).map(|flush| flush.came);
        let covered = covered.max().unwrap_or(0);
        let from = self.prepared.iter().rev().find(|prepared| prepared.answered < covered);
        let from = from.unwrap_or(&self.prepared[0]);
        let mut image = from.image.clone();
        let mut facts = Facts { flushed: from.writes, ..Facts::default() };
        for write in self.writes[from.writes..].iter().take_while(|write| write.came < position) {
            if write.answered < covered {
                image.write(write.offset, &write.bytes);
                facts.flushed += 1;
                continue;
            }
            let outcome = match fate {
                Fate::Kept => 0,
                Fate::Dropped => 1,
                Fate::Some(of_eight) => u64::from(!rng.chance(of_eight, 8)),
                Fate::Torn => rng.below(3),
            };
            let tearable = write.bytes.len() > unit && write.offset >= whole;
            match outcome {
                1 => facts.dropped += 1,
                2 if tearable => {
                    tear(&mut image, write, unit, rng);
                    facts.torn += 1;
                }
                _ => {
                    image.write(write.offset, &write.bytes);
                    facts.kept += 1;
                }
            }
        }
        Crashed { image, facts }
    }
}

/// Some units of a write get there: those up to one of them, or any.
fn tear(image: &mut Image, write: &Write, unit: usize, rng: &mut Rng) {
    let units = write.bytes.len().div_ceil(unit);
    let front = rng.chance(1, 2).then(|| rng.between(1, units as u64 - 1));
    for (number, bytes) in write.bytes.chunks(unit).enumerate() {
        let there = front.map_or_else(|| rng.chance(1, 2), |front| (number as u64) < front);
        if there {
            image.write(write.offset + (number * unit) as u64, bytes);
        }
    }
}

#[cfg(test)]
mod tests;
