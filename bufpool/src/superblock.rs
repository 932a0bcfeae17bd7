//! The superblock: the root of everything in a data file, and the only thing in it that is ever overwritten.
//!
//! Two slots with the same contents, 64 KiB apart, so that neither one torn write nor one rotten erase block takes
//! both. A checkpoint writes one slot, syncs, writes the other, syncs: first the one that can be spared, so at every
//! moment at least one slot is whole, and the newer of the whole ones counts. Newness is the pair (checkpoint, opening): a checkpoint raises the first,
//! opening the store for writing raises the second.
//!
//! FORMAT.md has the table of a slot. All integers are little-endian. Magic, format version and checksum keep their
//! places in every version, so that a file of another version is told apart from a damaged one.

use std::fmt;
use std::mem::offset_of;
use std::path::Path;

use bedstone_io::defect::{self, Defect};
use bedstone_io::layout::Layout;
use bedstone_io::{AlignedBuf, DirectFile, IoError, crc32c, layout};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

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

/// A slot as it lies on the medium; [`Superblock`] says what the fields mean.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Slot {
    magic: [u8; 8],
    version: U16,
    map_height: u8,
    pad: u8,
    page_size: U32,
    database_id: [u8; 16],
    checkpoint: U64,
    opening: U32,
    next_page_id: U32,
    replay_lsn: U64,
    log_end: U64,
    map_root: U64,
    file_units: U64,
    live_pages: U64,
    map_blocks: U64,
    created: U64,
    reserved: [u8; 3988],
    checksum: U32,
}

const _: () = assert!(size_of::<Slot>() == SLOT_BYTES);

/// Bytes that the checksum covers: all in front of it.
const CHECKED_BYTES: usize = offset_of!(Slot, checksum);
const _: () = assert!(CHECKED_BYTES + size_of::<U32>() == SLOT_BYTES);

pub(crate) const LAYOUT: Layout = layout!("Superblock", Slot {
    magic => "magic",
    version => "format version",
    map_height => "map height",
    pad => "padding",
    page_size => "page size",
    database_id => "database id",
    checkpoint => "checkpoint",
    opening => "opening",
    next_page_id => "next page id",
    replay_lsn => "replay LSN",
    log_end => "log end",
    map_root => "map root",
    file_units => "file units",
    live_pages => "live pages",
    map_blocks => "map blocks",
    created => "created",
    reserved => "reserved",
    checksum => "checksum",
});

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
            Self::Version { found } => {
                write!(f, "format version {found}, this program reads {FORMAT_VERSION}")
            }
            Self::Field { detail } => f.write_str(detail),
        }
    }
}

impl Superblock {
    /// The bytes of a slot, checksum included.
    pub fn encode(&self) -> AlignedBuf {
        let mut slot = Slot {
            magic: MAGIC,
            version: U16::new(FORMAT_VERSION),
            map_height: self.map_root.height,
            pad: 0,
            page_size: U32::new(self.page_size),
            database_id: self.database_id,
            checkpoint: U64::new(self.checkpoint),
            opening: U32::new(self.opening),
            next_page_id: U32::new(self.next_page_id),
            replay_lsn: U64::new(self.replay_lsn),
            log_end: U64::new(self.log_end),
            map_root: U64::new(self.map_root.entry.raw()),
            file_units: U64::new(self.file_units),
            live_pages: U64::new(self.live_pages),
            map_blocks: U64::new(self.map_blocks),
            created: U64::new(self.created_unix_ms),
            reserved: [0; 3988],
            checksum: U32::ZERO,
        };
        slot.checksum = U32::new(crc32c(0, &slot.as_bytes()[..CHECKED_BYTES]));
        let mut buf = AlignedBuf::zeroed(SLOT_BYTES);
        buf.copy_from_slice(slot.as_bytes());
        buf
    }

    /// Reads a slot.
    ///
    /// # Errors
    /// Every [`SlotFault`] but `Io`, for any bytes whatever.
    pub fn decode(bytes: &[u8]) -> std::result::Result<Self, SlotFault> {
        let wrong = |detail: String| SlotFault::Field { detail };
        let Ok(slot) = Slot::ref_from_bytes(bytes) else {
            return Err(wrong(format!("a slot of {} bytes instead of {SLOT_BYTES}", bytes.len())));
        };
        if slot.magic != MAGIC {
            return Err(SlotFault::Magic { found: slot.magic });
        }
        let stored = slot.checksum.get();
        let computed = crc32c(0, &bytes[..CHECKED_BYTES]);
        if stored != computed {
            return Err(SlotFault::Checksum { stored, computed });
        }
        let found = slot.version.get();
        if found != FORMAT_VERSION {
            return Err(SlotFault::Version { found });
        }
        let superblock = Self {
            database_id: slot.database_id,
            page_size: slot.page_size.get(),
            checkpoint: slot.checkpoint.get(),
            opening: slot.opening.get(),
            next_page_id: slot.next_page_id.get(),
            replay_lsn: slot.replay_lsn.get(),
            log_end: slot.log_end.get(),
            map_root: Root { entry: Entry::from_raw(slot.map_root.get()), height: slot.map_height },
            file_units: slot.file_units.get(),
            live_pages: slot.live_pages.get(),
            map_blocks: slot.map_blocks.get(),
            created_unix_ms: slot.created.get(),
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
        if !entry.is_free() && (entry.units() != page_units || entry.unit() < DATA_START_UNIT || height == 0)
        {
            return Err(wrong(format!("map root {entry:?} of height {height}")));
        }
        if slot.pad != 0 || slot.reserved.iter().any(|&byte| byte != 0) {
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

    /// Writes slot `first` and makes it durable, then the other, so that one of them is whole at every moment: provided
    /// that the other one was before, see [`Slots::expendable`].
    ///
    /// # Errors
    /// What the medium answers. From then on nothing may be assumed of which superblock is in force: nothing may be
    /// freed, and the store must be opened anew before it writes again.
    pub fn write_both(&self, file: &dyn DirectFile, first: usize) -> std::result::Result<(), IoError> {
        for slot in [first, 1 - first] {
            self.write_slot(file, slot)?;
            // The rule: a copy is written over only while the other one is whole and durable.
            if slot == first && defect::is(Defect::SuperblocksAtOnce) {
                continue;
            }
            file.sync_data()?;
        }
        Ok(())
    }

    /// The superblock of the next opening of `file`.
    ///
    /// # Errors
    /// [`PoolError::Corrupt`] if the opening's number, or that of the checkpoints to come, has no successor.
    pub fn next_opening(&self, file: &Path) -> Result<Self> {
        match self.opening.checked_add(1) {
            Some(opening) if self.checkpoint < u64::MAX / 2 => Ok(Self { opening, ..self.clone() }),
            _ => Err(corrupt(
                file,
                format!("checkpoint {} or opening {} has no successor", self.checkpoint, self.opening),
            )),
        }
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
                let detail = if first.database_id != second.database_id || first.page_size != second.page_size
                {
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

    /// The slot to write first: the one that does not count, or the older one. A crash may have left only one good
    /// slot, which must not be touched before the other one is whole and durable.
    pub fn expendable(&self) -> usize {
        match &self.slots {
            [Ok(first), Ok(second)] => usize::from(first.newness() > second.newness()),
            [Ok(_), Err(_)] => 1,
            [Err(_), _] => 0,
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
    PoolError::Corrupt {
        file: file.to_path_buf(),
        offset: SLOT_OFFSETS[0],
        page: None,
        what: "superblock",
        detail,
    }
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

/// Makes magic and checksum of a slot right, for fuzz targets.
#[cfg(feature = "fuzzing")]
pub(crate) fn mend_slot(slot: &mut [u8]) {
    slot[..MAGIC.len()].copy_from_slice(&MAGIC);
    let checksum = crc32c(0, &slot[..CHECKED_BYTES]);
    slot[CHECKED_BYTES..].copy_from_slice(&checksum.to_le_bytes());
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
        sample().write_both(&*file, 0).unwrap();
        assert_eq!(read_both(&*file).best(file.path()).unwrap(), sample());
        assert!(read_both(&*file).faults().is_empty());
        let newer = Superblock { checkpoint: 8, ..sample() };
        for slot in 0..2 {
            sample().write_both(&*file, 0).unwrap();
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

    /// The numbers end somewhere: that is an error, and nothing wraps to one that was used before.
    #[test]
    fn numbers_without_a_successor_are_refused() {
        let next = |checkpoint, opening| {
            Superblock { checkpoint, opening, ..sample() }.next_opening(Path::new("data"))
        };
        assert_eq!(next(7, u32::MAX - 1).unwrap().opening, u32::MAX);
        assert_eq!(
            next(u64::MAX / 2 - 1, 3).unwrap(),
            Superblock { checkpoint: u64::MAX / 2 - 1, opening: 4, ..sample() }
        );
        for (checkpoint, opening) in [(7, u32::MAX), (u64::MAX, 3), (u64::MAX / 2, u32::MAX)] {
            let error = next(checkpoint, opening).unwrap_err();
            assert!(
                matches!(error, PoolError::Corrupt { .. }) && error.to_string().contains("successor"),
                "{error}"
            );
        }
    }

    #[test]
    fn hopeless_files_have_their_own_errors() {
        let best = |file: &TestFile| read_both(&**file).best(file.path()).unwrap_err();
        let foreign = TestFile::with_len(4096);
        assert!(matches!(best(&foreign), PoolError::NotADatabase { found: [0, ..], .. }));
        assert!(matches!(best(&TestFile::with_len(0)), PoolError::Corrupt { .. }));

        let file = TestFile::with_len(1 << 20);
        sample().write_both(&*file, 0).unwrap();
        file.flip_bit(SLOT_OFFSETS[0] + 9, 0);
        file.flip_bit(SLOT_OFFSETS[1] + 4000, 0);
        let message = best(&file).to_string();
        assert!(message.contains("offset 0") && message.contains("offset 65536"), "{message}");

        let mut other = sample().encode();
        other[offset_of!(Slot, version)] = 9;
        let checksum = crc32c(0, &other[..CHECKED_BYTES]);
        other[CHECKED_BYTES..].copy_from_slice(&checksum.to_le_bytes());
        file.write_at(other.as_aligned(), SLOT_OFFSETS[1]).unwrap();
        assert!(matches!(
            best(&file),
            PoolError::UnsupportedVersion { found: 9, supported: FORMAT_VERSION, .. }
        ));

        sample().write_slot(&*file, 0).unwrap();
        let stranger = Superblock { database_id: [0; 16], checkpoint: 99, ..sample() };
        stranger.write_slot(&*file, 1).unwrap();
        assert!(best(&file).to_string().contains("different databases"));
        Superblock { live_pages: 1, ..sample() }.write_slot(&*file, 1).unwrap();
        assert!(best(&file).to_string().contains("differ"));
    }
}
