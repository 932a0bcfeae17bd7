//! The translation table: one atomic word per page id says where the page's newest version is. One load gives the
//! frame: no hash table, no pointer swizzling.
//!
//! ```text
//! 63     structure lock (inner nodes only; readers mask it)
//! 62..60 0 free | 1 leaf or overflow page in a frame | 2 inner node in a frame | 3 on disk | 4 being read in
//! 59..0  frame number, or location on disk: unit (40 bits) | low 16 bits of the image's checksum << 40
//! ```

use bedstone_io::sync::{AtomicU64, Ordering};

use crate::frame::FrameId;
use crate::header::PageId;

pub(crate) const LOCK: u64 = 1 << 63;
const TAG_SHIFT: u32 = 60;
const PAYLOAD: u64 = (1 << TAG_SHIFT) - 1;
const UNIT_BITS: u32 = 40;

/// Where a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Free,
    /// A leaf or overflow page in a frame.
    Leaf(FrameId),
    /// An inner node in a frame.
    Inner(FrameId),
    Disk(Location),
    Loading,
}

/// Where an image lies in the data file, with the 16 bits of its checksum that the map remembers. 0 is nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location(pub(crate) u64);

impl Location {
    pub(crate) fn new(unit: u64, check: u16) -> Self {
        debug_assert!(unit < 1 << UNIT_BITS);
        Self(unit | u64::from(check) << UNIT_BITS)
    }
    pub(crate) fn unit(self) -> u64 {
        self.0 & ((1 << UNIT_BITS) - 1)
    }
    pub(crate) fn check(self) -> u16 {
        (self.0 >> UNIT_BITS) as u16
    }
}

impl Place {
    /// The page is neither in memory nor, as far as this opening of the store knows, on disk: a change of it was abandoned
    /// half-way, which has failed the store. (Location 0 is that of the first superblock.)
    pub(crate) const LOST: Self = Self::Disk(Location(0));

    #[inline]
    pub(crate) fn of(word: u64) -> Self {
        let payload = word & PAYLOAD;
        match (word & !LOCK) >> TAG_SHIFT {
            0 => Self::Free,
            1 => Self::Leaf(FrameId(payload as u32)),
            2 => Self::Inner(FrameId(payload as u32)),
            3 => Self::Disk(Location(payload)),
            _ => Self::Loading,
        }
    }

    pub(crate) fn word(self) -> u64 {
        match self {
            Self::Free => 0,
            Self::Leaf(frame) => 1 << TAG_SHIFT | u64::from(frame.0),
            Self::Inner(frame) => 2 << TAG_SHIFT | u64::from(frame.0),
            Self::Disk(location) => 3 << TAG_SHIFT | location.0,
            Self::Loading => 4 << TAG_SHIFT,
        }
    }
}

#[cfg(not(loom))]
type Words = crate::arena::Array<AtomicU64>;
#[cfg(loom)]
type Words = Vec<AtomicU64>;

/// The words of all pages.
#[derive(Debug)]
pub(crate) struct Table {
    words: Words,
}

impl Table {
    /// Room for `pages` page ids. Address space is reserved at once, memory is used as ids are.
    pub(crate) fn new(pages: usize) -> std::io::Result<Self> {
        #[cfg(not(loom))]
        let words = Words::new(pages, true)?;
        #[cfg(loom)]
        let words = (0..pages).map(|_| AtomicU64::new(0)).collect();
        Ok(Self { words })
    }

    /// How many page ids there is room for.
    pub(crate) fn capacity(&self) -> usize {
        self.words.len()
    }

    /// The word of a page. Ids beyond the capacity read as page 0, which is always free.
    #[inline]
    pub(crate) fn word(&self, page: PageId) -> &AtomicU64 {
        self.words.get(page.0 as usize).unwrap_or(&self.words[0])
    }

    pub(crate) fn place(&self, page: PageId) -> Place {
        Place::of(self.word(page).load(Ordering::Acquire))
    }
}
