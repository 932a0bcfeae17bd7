//! The blocks of the page map: a header, and entries to the block's end. FORMAT.md has their tables. All integers are
//! little-endian; kind, version and checksum lie where a page has them.

use bedstone_io::layout::{Layout, Tail};
use bedstone_io::{AlignedBuf, crc32c, layout};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Entry;
use crate::header::{CHECKSUM_BYTES, FORMAT_VERSION};

/// Kind byte of a chunk: a block of entries of pages.
pub const CHUNK_KIND: u8 = 5;
/// Kind byte of a directory: a block of entries of chunks or of directories.
pub const DIRECTORY_KIND: u8 = 6;
/// Bytes before the first entry.
pub(super) const HEADER_BYTES: usize = size_of::<BlockHeader>();

/// The header as it lies on the medium.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct BlockHeader {
    /// CRC-32C of everything behind it, entries included.
    checksum: U32,
    kind: u8,
    /// 0 for chunks, height above them for directories.
    level: u8,
    version: U16,
    /// Index of the block within its level.
    number: U32,
    /// CRC-32C of the database id.
    database: U32,
    /// The checkpoint that wrote the block.
    checkpoint: U64,
    reserved: U64,
}

pub(super) const LAYOUT: Layout = layout!("Map block", BlockHeader {
    checksum => "checksum",
    kind => "kind",
    level => "level",
    version => "format version",
    number => "number",
    database => "database",
    checkpoint => "checkpoint",
    reserved => "reserved",
})
.then(&[Tail::each("entries", size_of::<U64>())]);

/// Which block of the map it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockId {
    pub(super) level: u8,
    pub(super) number: u32,
    pub(super) id_fold: u32,
}

impl BlockId {
    fn kind(self) -> u8 {
        if self.level == 0 { CHUNK_KIND } else { DIRECTORY_KIND }
    }
}

/// The image of a block, sealed, and the low half of its checksum.
pub(super) fn encode(id: BlockId, checkpoint: u64, entries: &[u64]) -> (AlignedBuf, u16) {
    let mut buf = AlignedBuf::zeroed(HEADER_BYTES + size_of_val(entries));
    let header = BlockHeader {
        checksum: U32::ZERO,
        kind: id.kind(),
        level: id.level,
        version: U16::new(FORMAT_VERSION),
        number: U32::new(id.number),
        database: U32::new(id.id_fold),
        checkpoint: U64::new(checkpoint),
        reserved: U64::ZERO,
    };
    buf[..HEADER_BYTES].copy_from_slice(header.as_bytes());
    for (bytes, raw) in buf[HEADER_BYTES..].as_chunks_mut::<8>().0.iter_mut().zip(entries) {
        *bytes = raw.to_le_bytes();
    }
    let checksum = crc32c(0, &buf[CHECKSUM_BYTES..]);
    buf[..CHECKSUM_BYTES].copy_from_slice(&checksum.to_le_bytes());
    (buf, checksum as u16)
}

/// Verifies a block that `entry` refers to, and that may not be younger than `checkpoint`; what is wrong otherwise.
pub(super) fn verify(bytes: &[u8], id: BlockId, entry: Entry, checkpoint: u64) -> Result<(), String> {
    let Ok((header, _)) = BlockHeader::ref_from_prefix(bytes) else {
        return Err(format!("a block of {} bytes", bytes.len()));
    };
    let stored = header.checksum.get();
    let computed = crc32c(0, &bytes[CHECKSUM_BYTES..]);
    if stored != computed {
        return Err(format!("checksum {stored:#010x} is stored, {computed:#010x} was computed"));
    }
    if stored as u16 != entry.check() {
        let (found, expected) = (stored as u16, entry.check());
        return Err(format!("checksum ends with {found:#06x}, {expected:#06x} expected: a write was lost"));
    }
    let version = header.version.get();
    if version != FORMAT_VERSION {
        return Err(format!("format version {version}, this program reads {FORMAT_VERSION}"));
    }
    let found = BlockId { level: header.level, number: header.number.get(), id_fold: header.database.get() };
    if header.kind != id.kind() || found != id {
        return Err(format!(
            "kind {} and {found:?} found, kind {} and {id:?} expected",
            header.kind,
            id.kind()
        ));
    }
    let written = header.checkpoint.get();
    if written > checkpoint {
        return Err(format!(
            "written by checkpoint {written}, but the superblock is of checkpoint {checkpoint}"
        ));
    }
    if header.reserved != U64::ZERO {
        return Err("reserved bytes are not zero".to_owned());
    }
    Ok(())
}

/// The entries of a block that was verified.
pub(super) fn entries(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes[HEADER_BYTES..].as_chunks::<8>().0.iter().map(|raw| u64::from_le_bytes(*raw))
}

/// Makes a block of these entries (slot and raw value) in `bytes`, for fuzz targets; the low half of its checksum.
#[cfg(feature = "fuzzing")]
pub(crate) fn make(
    bytes: &mut [u8],
    database_id: &[u8; 16],
    level: u8,
    number: u32,
    entries: &[(usize, u64)],
) -> u16 {
    let mut raws = vec![0; (bytes.len() - HEADER_BYTES) / size_of::<u64>()];
    for &(slot, raw) in entries {
        let slot = slot % raws.len();
        raws[slot] = raw;
    }
    let id = BlockId { level, number, id_fold: crc32c(0, database_id) };
    let (image, check) = encode(id, 1, &raws);
    bytes.copy_from_slice(&image);
    check
}

/// The fuzz target of one block. Input: 1 if the checksum is to be made right, the checkpoint of the superblock, and the
/// block, filled up with zeros. It is verified as the block that it says it is; one that is accepted is, encoded again,
/// the same bytes.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz_target(data: &[u8]) {
    let mut input = bedstone_io::fuzz::Input::new(data);
    let mend = input.u8() & 1 == 1;
    let checkpoint = u64::from(input.u8());
    let mut bytes = bedstone_io::fuzz::fitted(input.rest(), 4096);
    let checksum = crc32c(0, &bytes[CHECKSUM_BYTES..]);
    if mend {
        bytes[..CHECKSUM_BYTES].copy_from_slice(&checksum.to_le_bytes());
    }
    let (header, _) = BlockHeader::ref_from_prefix(&bytes).expect("a block is longer than its header");
    let id = BlockId { level: header.level, number: header.number.get(), id_fold: header.database.get() };
    let written = header.checkpoint.get();
    let entry = Entry::new(32, 1, checksum as u16);
    if verify(&bytes, id, entry, checkpoint).is_ok() {
        assert!(written <= checkpoint);
        let (again, check) = encode(id, written, &entries(&bytes).collect::<Vec<_>>());
        assert!(again[..] == bytes, "a block that no writer writes was taken for one");
        assert_eq!(check, checksum as u16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_noticed() {
        for level in [0, 1] {
            let id = BlockId { level, number: 77, id_fold: 0xfeed_beef };
            let raws: Vec<u64> = (0..508).map(|slot| slot * 0x0101_0001).collect();
            let (mut image, check) = encode(id, 5, &raws);
            let entry = Entry::new(32, 1, check);
            verify(&image, id, entry, 5).unwrap();
            assert!(entries(&image).eq(raws));
            for bit in 0..image.len() * 8 {
                image[bit / 8] ^= 1 << (bit % 8);
                assert!(verify(&image, id, entry, 5).is_err(), "bit {bit}");
                image[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn a_whole_block_in_the_wrong_place_is_noticed() {
        let id = BlockId { level: 0, number: 1, id_fold: 2 };
        let (image, check) = encode(id, 5, &[0; 508]);
        let entry = Entry::new(32, 1, check);
        verify(&image, id, entry, 6).unwrap();
        for other in [BlockId { level: 1, ..id }, BlockId { number: 2, ..id }, BlockId { id_fold: 1, ..id }] {
            assert!(verify(&image, other, entry, 6).is_err());
        }
        assert!(verify(&image, id, entry, 4).unwrap_err().contains("checkpoint 5"));
        assert!(verify(&image, id, Entry::new(32, 1, !check), 6).unwrap_err().contains("lost"));
        assert!(verify(&image[..16], id, entry, 6).is_err());
    }
}
