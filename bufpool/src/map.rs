//! The page map: in which run of units each page's image lies.
//!
//! On disk the map is a tree of blocks, each as long as a page. The blocks of level 0 (chunks) hold one [`Entry`]
//! per page id, ascending; the blocks of the levels above (directories) hold one entry per block of the level
//! below. The superblock holds the entry of the topmost block and the number of levels ([`Root`]). With 4 KiB
//! blocks four levels reach every 32-bit page id, with 16 KiB blocks three.
//!
//! Blocks are never overwritten: [`Stable::prepare`] writes the changed chunks, and the directories above them, to
//! new places, and [`Stable::apply`] takes the result over once the superblock that names it is durable. So the
//! durable map follows only from the last durable map and the changes handed over, and a checkpoint that fails
//! half-way leaves both as they were. A block without any entry in use is not stored.
//!
//! Every entry holds 16 bits of the checksum of what it refers to: if a write was acknowledged but never reached
//! the medium, an older image with a valid checksum of its own lies there, and only these bits tell.

mod block;
mod load;
mod update;

use std::fmt;

use bedstone_io::layout::{Field, Layout};

use crate::header::PageId;
use crate::units::UNIT;

pub use block::{CHUNK_KIND, DIRECTORY_KIND};
#[cfg(feature = "fuzzing")]
pub(crate) use block::{fuzz_target as block_target, make as mend_map_block};
pub use load::load;
pub(crate) use load::load_lenient;
pub use update::{MapAbandoned, MapUpdate};

const UNIT_BITS: u32 = 40;
const UNITS_BITS: u32 = 8;
const CHECK_BITS: u32 = u64::BITS - UNIT_BITS - UNITS_BITS;

pub(crate) const BLOCK_LAYOUT: Layout = block::LAYOUT;

pub(crate) const ENTRY_LAYOUT: Layout = Layout::of_bits(
    "Map entry",
    u64::BITS as usize,
    &[
        Field { name: "unit", offset: 0, size: UNIT_BITS as usize },
        Field { name: "units", offset: UNIT_BITS as usize, size: UNITS_BITS as usize },
        Field { name: "check", offset: (UNIT_BITS + UNITS_BITS) as usize, size: CHECK_BITS as usize },
    ],
);

/// Where an image lies, in 8 bytes: bits 0 to 39 its first unit, 40 to 47 its length in units, 48 to 63 the low
/// half of its checksum. All zero: there is none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Entry(u64);

impl Entry {
    /// No image: the page id is free.
    pub const FREE: Self = Self(0);

    /// The entry of an image of `units` units from `unit`; `check` is the low half of its checksum.
    ///
    /// # Panics
    /// If `unit` or `units` exceed their 40 and 8 bits, or `units` is 0.
    pub fn new(unit: u64, units: u64, check: u16) -> Self {
        assert!(unit < 1 << UNIT_BITS, "unit {unit} exceeds {UNIT_BITS} bits");
        assert!(units > 0 && units < 1 << UNITS_BITS, "an image of {units} units");
        Self(unit | units << UNIT_BITS | u64::from(check) << (UNIT_BITS + UNITS_BITS))
    }

    /// The entry stored as `raw`; any value is one, possibly one that refers to nothing sensible.
    pub fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The entry as stored.
    pub fn raw(self) -> u64 {
        self.0
    }

    /// There is no image.
    pub fn is_free(self) -> bool {
        self.0 == 0
    }

    /// First unit of the image.
    pub fn unit(self) -> u64 {
        self.0 & ((1 << UNIT_BITS) - 1)
    }

    /// Length of the image in units.
    pub fn units(self) -> u64 {
        self.0 >> UNIT_BITS & ((1 << UNITS_BITS) - 1)
    }

    /// Low half of the image's checksum.
    pub fn check(self) -> u16 {
        (self.0 >> (UNIT_BITS + UNITS_BITS)) as u16
    }

    /// Where the image begins, in bytes.
    pub fn offset(self) -> u64 {
        self.unit() * UNIT as u64
    }

    /// Length of the image in bytes.
    pub fn len(self) -> usize {
        self.units() as usize * UNIT
    }

    /// The image has no bytes: true for a free entry (and for a damaged one).
    pub fn is_empty(self) -> bool {
        self.units() == 0
    }

    /// The unit behind the image.
    pub fn end(self) -> u64 {
        self.unit() + self.units()
    }

    /// First unit and number of units, as free-space books take them.
    pub fn run(self) -> (u64, u64) {
        (self.unit(), self.units())
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_free() {
            return f.write_str("free");
        }
        write!(f, "units {}+{}, check {:#06x}", self.unit(), self.units(), self.check())
    }
}

/// Where the map begins: the entry of its topmost block, and how many levels it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Root {
    /// Entry of the topmost block.
    pub entry: Entry,
    /// Levels, chunks included; 0 only for the empty map.
    pub height: u8,
}

impl Root {
    /// A map without pages.
    pub const EMPTY: Self = Self { entry: Entry::FREE, height: 0 };
}

/// Where a block of the map itself lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapBlock {
    /// 0 for chunks, height above them for directories.
    pub level: u8,
    /// Index of the block within its level.
    pub number: u32,
    /// Its place.
    pub entry: Entry,
}

/// Entries of one chunk, while any of them is in use.
#[derive(Debug, Clone, Default)]
struct Chunk {
    entries: Option<Box<[u64]>>,
    live: u32,
}

/// The map of the last durable checkpoint, whole in memory. Only the checkpointer (and opening) looks at it.
#[derive(Debug)]
pub struct Stable {
    page_size: usize,
    /// Checksum of the database id, repeated in every block, so that a block of another database is noticed.
    id_fold: u32,
    chunks: Vec<Chunk>,
    /// `places[level][number]`: the entry of that block. `places[0]` is as long as `chunks`, each level above by the
    /// fan-out shorter, the topmost one long; empty for the empty map.
    places: Vec<Vec<u64>>,
    live: u64,
}

/// Entries of a block of `page_size` bytes.
fn fan_out(page_size: usize) -> usize {
    (page_size - block::HEADER_BYTES) / size_of::<u64>()
}

/// Levels that a map of `chunks` chunks needs.
fn height_for(chunks: u64, fan: u64) -> usize {
    let (mut height, mut reach) = (usize::from(chunks > 0), 1_u64);
    while reach < chunks {
        reach = reach.saturating_mul(fan);
        height += 1;
    }
    height
}

impl Stable {
    /// The empty map of a database with this page size and id.
    pub fn new(page_size: usize, database_id: &[u8; 16]) -> Self {
        let id_fold = bedstone_io::crc32c(0, database_id);
        Self { page_size, id_fold, chunks: Vec::new(), places: Vec::new(), live: 0 }
    }

    /// Where `page` lies; free for a page id never used.
    pub fn get(&self, page: PageId) -> Entry {
        let (chunk, slot) = self.locate(page);
        let entries = self.chunks.get(chunk).and_then(|chunk| chunk.entries.as_ref());
        Entry(entries.map_or(0, |entries| entries[slot]))
    }

    /// Every page in use and its entry, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (PageId, Entry)> + '_ {
        let fan = self.fan();
        self.chunks.iter().enumerate().flat_map(move |(number, chunk)| {
            let entries = chunk.entries.iter().flat_map(|entries| entries.iter().enumerate());
            let live = entries.filter(|&(_, &raw)| raw != 0);
            live.map(move |(slot, &raw)| (PageId((number * fan + slot) as u32), Entry(raw)))
        })
    }

    /// Pages in use.
    pub fn live_pages(&self) -> u64 {
        self.live
    }

    /// Every page id in use is below this.
    pub fn id_bound(&self) -> u64 {
        self.chunks.len() as u64 * self.fan() as u64
    }

    /// Blocks of the map itself, ascending by level.
    pub fn blocks(&self) -> impl Iterator<Item = MapBlock> + '_ {
        self.places.iter().enumerate().flat_map(|(level, places)| {
            let stored = places.iter().enumerate().filter(|&(_, &raw)| raw != 0);
            stored.map(move |(number, &raw)| MapBlock {
                level: level as u8,
                number: number as u32,
                entry: Entry(raw),
            })
        })
    }

    /// How many blocks the map itself consists of.
    pub fn map_blocks(&self) -> u64 {
        self.blocks().count() as u64
    }

    /// What a superblock says of this map.
    pub fn root(&self) -> Root {
        let entry = Entry(self.places.last().and_then(|top| top.first()).copied().unwrap_or(0));
        if entry.is_free() { Root::EMPTY } else { Root { entry, height: self.places.len() as u8 } }
    }

    /// At most so many new blocks does [`Stable::prepare`] ask for when `changes` pages with ids below
    /// `next_page_id` have changed.
    pub fn blocks_at_most(&self, changes: u64, next_page_id: u32) -> u64 {
        let fan = self.fan() as u64;
        let chunks = self.id_bound().max(u64::from(next_page_id)).div_ceil(fan);
        let height = height_for(chunks, fan).max(self.places.len());
        let (mut changed, mut blocks, mut total) = (changes, chunks, 0);
        for _ in 0..height {
            changed = changed.min(blocks);
            total += changed;
            blocks = blocks.div_ceil(fan);
        }
        total
    }

    fn fan(&self) -> usize {
        fan_out(self.page_size)
    }

    fn page_units(&self) -> u64 {
        (self.page_size / UNIT) as u64
    }

    fn locate(&self, page: PageId) -> (usize, usize) {
        (page.0 as usize / self.fan(), page.0 as usize % self.fan())
    }

    /// Enters one page.
    fn set(&mut self, page: PageId, entry: Entry) {
        let fan = self.fan();
        let (number, slot) = self.locate(page);
        if number >= self.chunks.len() {
            if entry.is_free() {
                return;
            }
            self.chunks.resize_with(number + 1, Chunk::default);
        }
        let chunk = &mut self.chunks[number];
        let entries = chunk.entries.get_or_insert_with(|| vec![0; fan].into_boxed_slice());
        let old = std::mem::replace(&mut entries[slot], entry.raw());
        chunk.live += u32::from(old == 0 && !entry.is_free());
        chunk.live -= u32::from(old != 0 && entry.is_free());
        self.live += u64::from(old == 0 && !entry.is_free());
        self.live -= u64::from(old != 0 && entry.is_free());
        if chunk.live == 0 {
            chunk.entries = None;
        }
    }

    /// Brings the levels of `places` to `height` and to the lengths that follow from the number of chunks.
    fn fit_places(&mut self, height: usize) {
        let fan = self.fan();
        self.places.resize_with(height.max(self.places.len()), Vec::new);
        let mut length = self.chunks.len();
        for places in &mut self.places {
            places.resize(length, 0);
            length = length.div_ceil(fan);
        }
    }
}

#[cfg(test)]
mod checkpoint_tests;
#[cfg(test)]
mod tests;
