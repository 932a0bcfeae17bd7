//! The superblock: the root of everything in a data file, and the only thing in it that is ever overwritten.
//!
//! Two slots with the same contents, 64 KiB apart, so that neither one torn write nor one rotten erase block takes
//! both. A checkpoint writes slot 0, syncs, writes slot 1, syncs; at every moment at least one slot is whole, and
//! the newer of the whole ones counts. Newness is the pair (checkpoint, opening): a checkpoint raises the first,
//! opening the store for writing raises the second.
//!
//! | offset | size | field | meaning |
//! |---|---|---|---|
//! | 0 | 8 | magic | the bytes `BEDSTONE` |
//! | 8 | 2 | format version | [`FORMAT_VERSION`] |
//! | 10 | 1 | map height | levels of the page map's tree, see [`crate::map`] |
//! | 11 | 1 | reserved | zero |
//! | 12 | 4 | page size | bytes: a power of two from 4,096 to 65,536 |
//! | 16 | 16 | database id | random, the same for data file and log |
//! | 32 | 8 | checkpoint | number of the checkpoint described |
//! | 40 | 4 | opening | how often the store was opened for writing |
//! | 44 | 4 | next page id | every page id in use is below |
//! | 48 | 8 | replay LSN | recovery replays the log from here |
//! | 56 | 8 | log end | the log was durable at least to here; a log that ends earlier is damaged |
//! | 64 | 8 | map root | entry of the root block of the page map, see [`crate::map::Entry`]; 0 = no pages |
//! | 72 | 8 | file units | length of the file, in units of 4 KiB |
//! | 80 | 8 | live pages | pages in the map |
//! | 88 | 8 | map blocks | blocks the map itself consists of |
//! | 96 | 8 | created | wall-clock time of creation, milliseconds since 1970 |
//! | 104 | 3988 | reserved | zeros |
//! | 4092 | 4 | checksum | CRC-32C of bytes 0 to 4,092 |
//!
//! All integers are little-endian. Magic, format version and checksum keep their places in every version, so that
//! a file of another version is told apart from a damaged one.

use std::fmt;
use std::path::Path;

use bedstone_io::{AlignedBuf, DirectFile, IoError, crc32c};

use crate::header::FORMAT_VERSION;
use crate::map::{Entry, Root};
use crate::units::UNIT;
use crate::{PoolError, Result};

/// The first bytes of every Bedstone data file.
pub const MAGIC: [u8; 8] = *b"BEDSTONE";
/// Bytes of a slot.
pub const SLOT_BYTES: usize = 4096;
/// Where the two slots lie, in bytes from the file's beginning.
pub const SLOT_OFFSETS: [u64; 2] = [0, 64 * 1024];
/// The first unit that pages and map blocks may use; the units below belong to the slots.
pub const DATA_START_UNIT: u64 = 32;
/// Page sizes that a file may be created with, in bytes (powers of two between these two).
pub const PAGE_BYTES_MIN: usize = 4096;
/// See [`PAGE_BYTES_MIN`].
pub const PAGE_BYTES_MAX: usize = 65536;

const VERSION_AT: usize = 8;
const HEIGHT_AT: usize = 10;
const PAD_AT: usize = 11;
const PAGE_SIZE_AT: usize = 12;
const DATABASE_ID_AT: usize = 16;
const CHECKPOINT_AT: usize = 32;
const OPENING_AT: usize = 40;
const NEXT_PAGE_AT: usize = 44;
const REPLAY_LSN_AT: usize = 48;
const LOG_END_AT: usize = 56;
const MAP_ROOT_AT: usize = 64;
const FILE_UNITS_AT: usize = 72;
const LIVE_PAGES_AT: usize = 80;
const MAP_BLOCKS_AT: usize = 88;
const CREATED_AT: usize = 96;
const RESERVED_AT: usize = 104;
const CHECKSUM_AT: usize = SLOT_BYTES - 4;

/// Whether a file may be created with pages of so many bytes.
pub fn is_page_size(bytes: usize) -> bool {
    bytes.is_power_of_two() && (PAGE_BYTES_MIN..=PAGE_BYTES_MAX).contains(&bytes)
}

/// What a superblock says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Identity of the database, shared by data file and log.
    pub database_id: [u8; 16],
    /// Bytes of a page.
    pub page_size: u32,
    /// Number of the checkpoint described.
    pub checkpoint: u64,
    /// How often the store was opened for writing.
    pub opening: u32,
    /// Every page id in use is below this one.
    pub next_page_id: u32,
    /// Recovery replays the log from here.
    pub replay_lsn: u64,
    /// The log was durable at least to here when the checkpoint finished.
    pub log_end: u64,
    /// Where the page map begins.
    pub map_root: Root,
    /// Length of the file, in units of 4 KiB.
    pub file_units: u64,
    /// Pages in the map.
    pub live_pages: u64,
    /// Blocks of the map itself.
    pub map_blocks: u64,
    /// Wall-clock time of creation, milliseconds since 1970.
    pub created_unix_ms: u64,
}

/// Why a slot does not count.
#[derive(Debug)]
pub enum SlotFault {
    /// It could not be read.
    Io(IoError),
    /// It does not begin with [`MAGIC`].
    Magic {
        /// What it begins with.
        found: [u8; 8],
    },
    /// The checksum differs.
    Checksum {
        /// As stored in the slot.
        stored: u32,
        /// As computed from its bytes.
        computed: u32,
    },
    /// A whole superblock of another format version.
    Version {
        /// The version.
        found: u16,
    },
    /// The checksum is right, but a field has a value that is never written.
    Field {
        /// Which field, and its value.
        detail: String,
    },
}

impl fmt::Display for SlotFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Magic { found } => write!(f, "begins with {}, not with \"BEDSTONE\"", found.escape_ascii()),
            Self::Checksum { stored, computed } => {
                write!(f, "checksum {stored:#010x} is stored, {computed:#010x} was computed")
            }
            Self::Version { found } => write!(f, "format version {found}, this program reads {FORMAT_VERSION}"),
            Self::Field { detail } => f.write_str(detail),
        }
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

impl Superblock {
    /// The bytes of a slot, checksum included.
    pub fn encode(&self) -> AlignedBuf {
        let mut buf = AlignedBuf::zeroed(SLOT_BYTES);
        let mut put = |at: usize, bytes: &[u8]| buf[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC);
        put(VERSION_AT, &FORMAT_VERSION.to_le_bytes());
        put(HEIGHT_AT, &[self.map_root.height]);
        put(PAGE_SIZE_AT, &self.page_size.to_le_bytes());
        put(DATABASE_ID_AT, &self.database_id);
        put(CHECKPOINT_AT, &self.checkpoint.to_le_bytes());
        put(OPENING_AT, &self.opening.to_le_bytes());
        put(NEXT_PAGE_AT, &self.next_page_id.to_le_bytes());
        put(REPLAY_LSN_AT, &self.replay_lsn.to_le_bytes());
        put(LOG_END_AT, &self.log_end.to_le_bytes());
        put(MAP_ROOT_AT, &self.map_root.entry.raw().to_le_bytes());
        put(FILE_UNITS_AT, &self.file_units.to_le_bytes());
        put(LIVE_PAGES_AT, &self.live_pages.to_le_bytes());
        put(MAP_BLOCKS_AT, &self.map_blocks.to_le_bytes());
        put(CREATED_AT, &self.created_unix_ms.to_le_bytes());
        let checksum = crc32c(0, &buf[..CHECKSUM_AT]);
        buf[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        buf
    }

    /// Reads a slot.
    ///
    /// # Errors
    /// Every [`SlotFault`] but `Io`, for any bytes whatever.
    pub fn decode(slot: &[u8]) -> std::result::Result<Self, SlotFault> {
        let wrong = |detail: String| SlotFault::Field { detail };
        if slot.len() != SLOT_BYTES {
            return Err(wrong(format!("a slot of {} bytes instead of {SLOT_BYTES}", slot.len())));
        }
        let found = field(slot, 0);
        if found != MAGIC {
            return Err(SlotFault::Magic { found });
        }
        let stored = u32::from_le_bytes(field(slot, CHECKSUM_AT));
        let computed = crc32c(0, &slot[..CHECKSUM_AT]);
        if stored != computed {
            return Err(SlotFault::Checksum { stored, computed });
        }
        let found = u16::from_le_bytes(field(slot, VERSION_AT));
        if found != FORMAT_VERSION {
            return Err(SlotFault::Version { found });
        }
        let u32_at = |at| u32::from_le_bytes(field(slot, at));
        let u64_at = |at| u64::from_le_bytes(field(slot, at));
        let superblock = Self {
            database_id: field(slot, DATABASE_ID_AT),
            page_size: u32_at(PAGE_SIZE_AT),
            checkpoint: u64_at(CHECKPOINT_AT),
            opening: u32_at(OPENING_AT),
            next_page_id: u32_at(NEXT_PAGE_AT),
            replay_lsn: u64_at(REPLAY_LSN_AT),
            log_end: u64_at(LOG_END_AT),
            map_root: Root { entry: Entry::from_raw(u64_at(MAP_ROOT_AT)), height: slot[HEIGHT_AT] },
            file_units: u64_at(FILE_UNITS_AT),
            live_pages: u64_at(LIVE_PAGES_AT),
            map_blocks: u64_at(MAP_BLOCKS_AT),
            created_unix_ms: u64_at(CREATED_AT),
        };
        let page_size = superblock.page_size as usize;
        if !is_page_size(page_size) {
            return Err(wrong(format!("page size {page_size}")));
        }
        if superblock.replay_lsn > superblock.log_end {
            let Self { replay_lsn, log_end, .. } = superblock;
            return Err(wrong(format!("replay LSN {replay_lsn} lies behind the log's end {log_end}")));
        }
        let Root { entry, height } = superblock.map_root;
        let page_units = (page_size / UNIT) as u64;
        if !entry.is_free() && (entry.units() != page_units || entry.unit() < DATA_START_UNIT || height == 0) {
            return Err(wrong(format!("map root {entry:?} of height {height}")));
        }
        if slot[PAD_AT] != 0 || slot[RESERVED_AT..CHECKSUM_AT].iter().any(|&byte| byte != 0) {
            return Err(wrong("reserved bytes are not zero".to_owned()));
        }
        Ok(superblock)
    }

    /// Writes slot 0 or 1, without making it durable.
    ///
    /// # Errors
    /// What the medium answers. The slot may or may not have been written then.
    pub fn write_slot(&self, file: &dyn DirectFile, slot: usize) -> std::result::Result<(), IoError> {
        file.write_at(self.encode().as_aligned(), SLOT_OFFSETS[slot])
    }

    /// Writes one slot and makes it durable, then the other, so that one of them is whole at every moment.
    ///
    /// # Errors
    /// What the medium answers. From then on nothing may be assumed of which superblock is in force: nothing may be
    /// freed, and the store must be opened anew before it writes again.
    pub fn write_both(&self, file: &dyn DirectFile) -> std::result::Result<(), IoError> {
        for slot in 0..SLOT_OFFSETS.len() {
            self.write_slot(file, slot)?;
            file.sync_data()?;
        }
        Ok(())
    }

    fn newness(&self) -> (u64, u32) {
        (self.checkpoint, self.opening)
    }
}

/// Both slots as read.
#[derive(Debug)]
pub struct Slots {
    /// What each slot says, or why it does not count; at [`SLOT_OFFSETS`].
    pub slots: [std::result::Result<Superblock, SlotFault>; 2],
}

/// Reads both slots; what is wrong with one is its verdict.
pub fn read_both(file: &dyn DirectFile) -> Slots {
    Slots {
        slots: SLOT_OFFSETS.map(|offset| {
            let mut buf = AlignedBuf::zeroed(SLOT_BYTES);
            file.read_at(buf.as_aligned_mut(), offset).map_err(SlotFault::Io)?;
            Superblock::decode(&buf)
        }),
    }
}

impl Slots {
    /// The superblock in force: the newer of the valid ones, with the highest opening number of both.
    ///
    /// # Errors
    /// [`PoolError::NotADatabase`] if no slot begins like one, [`PoolError::UnsupportedVersion`] if a whole
    /// superblock of another version is there and none of this one, otherwise [`PoolError::Corrupt`] with both
    /// verdicts. `Corrupt` too if the two belong to different databases, or differ though equally new.
    pub fn best(&self, file: &Path) -> Result<Superblock> {
        match &self.slots {
            [Ok(first), Ok(second)] => {
                let detail = if first.database_id != second.database_id || first.page_size != second.page_size {
                    "the superblocks belong to different databases"
                } else if first.newness() == second.newness() && first != second {
                    "the superblocks differ, though of the same checkpoint and opening"
                } else {
                    let newer = if first.newness() >= second.newness() { first } else { second };
                    return Ok(Superblock { opening: first.opening.max(second.opening), ..newer.clone() });
                };
                Err(corrupt(file, format!("{detail} (offsets {} and {})", SLOT_OFFSETS[0], SLOT_OFFSETS[1])))
            }
            [Ok(valid), Err(_)] | [Err(_), Ok(valid)] => Ok(valid.clone()),
            [Err(first), Err(second)] => Err(neither(file, first, second)),
        }
    }

    /// Offset and fault of each slot that does not count, or that is older than the other one (which a crash
    /// between the two writes leaves behind; the next checkpoint mends both).
    pub fn faults(&self) -> Vec<(u64, String)> {
        let newest = self.slots.iter().flatten().map(Superblock::newness).max();
        let fault = |slot: &std::result::Result<Superblock, SlotFault>| match slot {
            Err(fault) => Some(fault.to_string()),
            Ok(superblock) if Some(superblock.newness()) != newest => Some(format!(
                "older than the other slot: checkpoint {}, opening {}",
                superblock.checkpoint, superblock.opening
            )),
            Ok(_) => None,
        };
        let with_offset = SLOT_OFFSETS.iter().zip(&self.slots);
        with_offset.filter_map(|(&offset, slot)| fault(slot).map(|fault| (offset, fault))).collect()
    }
}

fn corrupt(file: &Path, detail: String) -> PoolError {
    PoolError::Corrupt { file: file.to_path_buf(), offset: SLOT_OFFSETS[0], page: None, what: "superblock", detail }
}

fn neither(file: &Path, first: &SlotFault, second: &SlotFault) -> PoolError {
    let file_path = file.to_path_buf();
    match (first, second) {
        (SlotFault::Version { found }, _) | (_, SlotFault::Version { found }) => {
            PoolError::UnsupportedVersion { file: file_path, found: *found, supported: FORMAT_VERSION }
        }
        // A foreign file may be too short to have a second slot.
        (SlotFault::Magic { found }, SlotFault::Magic { .. } | SlotFault::Io(_)) => {
            PoolError::NotADatabase { file: file_path, found: *found }
        }
        _ => {
            let [a, b] = SLOT_OFFSETS;
            corrupt(file, format!("neither copy is valid: at offset {a}: {first}; at offset {b}: {second}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestFile;

    fn sample() -> Superblock {
        Superblock {
            database_id: *b"0123456789abcdef",
            page_size: 16384,
            checkpoint: 7,
            opening: 3,
            next_page_id: 1000,
            replay_lsn: 11,
            log_end: 12,
            map_root: Root { entry: Entry::new(40, 4, 0xabcd), height: 2 },
            file_units: 4096,
            live_pages: 900,
            map_blocks: 4,
            created_unix_ms: 1_700_000_000_000,
        }
    }

    #[test]
    fn survives_the_round_trip() {
        assert_eq!(Superblock::decode(&sample().encode()).unwrap(), sample());
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let mut slot = sample().encode();
        for bit in 0..SLOT_BYTES * 8 {
            slot[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::decode(&slot).is_err(), "bit {bit}");
            slot[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn impossible_fields_are_refused_behind_a_right_checksum() {
        let spoilt: [fn(&mut Superblock); 5] = [
            |superblock| superblock.page_size = 0,
            |superblock| superblock.page_size = 12288,
            |superblock| superblock.replay_lsn = 13,
            |superblock| superblock.map_root.entry = Entry::new(31, 4, 0),
            |superblock| superblock.map_root.height = 0,
        ];
        for spoil in spoilt {
            let mut superblock = sample();
            spoil(&mut superblock);
            assert!(matches!(Superblock::decode(&superblock.encode()), Err(SlotFault::Field { .. })));
        }
    }

    #[test]
    fn the_newer_valid_slot_counts() {
        let file = TestFile::with_len(1 << 20);
        sample().write_both(&*file).unwrap();
        assert_eq!(read_both(&*file).best(file.path()).unwrap(), sample());
        assert!(read_both(&*file).faults().is_empty());
        let newer = Superblock { checkpoint: 8, ..sample() };
        for slot in 0..2 {
            sample().write_both(&*file).unwrap();
            newer.write_slot(&*file, slot).unwrap();
            assert_eq!(read_both(&*file).best(file.path()).unwrap(), newer);
            assert_eq!(read_both(&*file).faults()[0].0, SLOT_OFFSETS[1 - slot]);
            // The newer one rots: the older one still opens the file.
            file.flip_bit(SLOT_OFFSETS[slot] + 50, 3);
            assert_eq!(read_both(&*file).best(file.path()).unwrap(), sample());
            assert_eq!(read_both(&*file).faults()[0].0, SLOT_OFFSETS[slot]);
        }
    }

    #[test]
    fn the_opening_number_never_falls() {
        let file = TestFile::with_len(1 << 20);
        Superblock { checkpoint: 8, opening: 3, ..sample() }.write_slot(&*file, 0).unwrap();
        Superblock { checkpoint: 7, opening: 4, ..sample() }.write_slot(&*file, 1).unwrap();
        let best = read_both(&*file).best(file.path()).unwrap();
        assert_eq!((best.checkpoint, best.opening), (8, 4));
    }

    #[test]
    fn hopeless_files_have_their_own_errors() {
        let best = |file: &TestFile| read_both(&**file).best(file.path()).unwrap_err();
        let foreign = TestFile::with_len(4096);
        assert!(matches!(best(&foreign), PoolError::NotADatabase { found: [0, ..], .. }));
        assert!(matches!(best(&TestFile::with_len(0)), PoolError::Corrupt { .. }));

        let file = TestFile::with_len(1 << 20);
        sample().write_both(&*file).unwrap();
        file.flip_bit(SLOT_OFFSETS[0] + 9, 0);
        file.flip_bit(SLOT_OFFSETS[1] + 4000, 0);
        let message = best(&file).to_string();
        assert!(message.contains("offset 0") && message.contains("offset 65536"), "{message}");

        let mut other = sample().encode();
        other[VERSION_AT] = 9;
        let checksum = crc32c(0, &other[..CHECKSUM_AT]);
        other[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        file.write_at(other.as_aligned(), SLOT_OFFSETS[1]).unwrap();
        assert!(matches!(best(&file), PoolError::UnsupportedVersion { found: 9, supported: FORMAT_VERSION, .. }));

        sample().write_slot(&*file, 0).unwrap();
        let stranger = Superblock { database_id: [0; 16], checkpoint: 99, ..sample() };
        stranger.write_slot(&*file, 1).unwrap();
        assert!(best(&file).to_string().contains("different databases"));
        Superblock { live_pages: 1, ..sample() }.write_slot(&*file, 1).unwrap();
        assert!(best(&file).to_string().contains("differ"));
    }
}
