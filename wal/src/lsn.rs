//! Positions in the log.

use std::fmt;

/// A position in the log: the number of bytes of log before it, over the whole life of the database. Every record
/// begins at a multiple of [`Lsn::ALIGN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Records begin and end at multiples of this many bytes.
    pub const ALIGN: u64 = 8;
    /// The beginning of every log that was not told to begin elsewhere.
    pub const ZERO: Lsn = Lsn(0);
    /// Beyond every record.
    pub const MAX: Lsn = Lsn(u64::MAX);

    /// The position `bytes` further on; the end of the number range is a position no log reaches.
    #[must_use]
    pub fn plus(self, bytes: u64) -> Lsn {
        Lsn(self.0.saturating_add(bytes))
    }

    /// How many bytes of log lie between `earlier` and `self`; 0 if `earlier` is not earlier.
    pub fn since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Whether a record may begin here.
    pub fn is_aligned(self) -> bool {
        self.0.is_multiple_of(Self::ALIGN)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lsn {}", self.0)
    }
}
