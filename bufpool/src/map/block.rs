//! The blocks of the page map.
//!
//! | offset | size | field | meaning |
//! |---|---|---|---|
//! | 0 | 4 | checksum | CRC-32C of bytes 4 to the block's end |
//! | 4 | 1 | kind | [`CHUNK_KIND`] or [`DIRECTORY_KIND`] |
//! | 5 | 1 | level | 0 for chunks, height above them for directories |
//! | 6 | 2 | format version | [`FORMAT_VERSION`] |
//! | 8 | 4 | number | index of the block within its level |
//! | 12 | 4 | database | CRC-32C of the database id |
//! | 16 | 8 | checkpoint | the checkpoint that wrote the block |
//! | 24 | 8 | reserved | zero |
//! | 32 | 8 each | entries | to the block's end |
//!
//! All integers are little-endian. Kind, version and checksum lie where a page has them.

use bedstone_io::{AlignedBuf, crc32c};

use super::Entry;
use crate::header::FORMAT_VERSION;

/// Kind byte of a chunk: a block of entries of pages.
pub const CHUNK_KIND: u8 = 5;
/// Kind byte of a directory: a block of entries of chunks or of directories.
pub const DIRECTORY_KIND: u8 = 6;
/// Bytes before the first entry.
pub(super) const HEADER_BYTES: usize = 32;

const KIND_AT: usize = 4;
const LEVEL_AT: usize = 5;
const VERSION_AT: usize = 6;
const NUMBER_AT: usize = 8;
const DATABASE_AT: usize = 12;
const CHECKPOINT_AT: usize = 16;
const RESERVED_AT: usize = 24;

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
    buf[KIND_AT] = id.kind();
    buf[LEVEL_AT] = id.level;
    buf[VERSION_AT..NUMBER_AT].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    buf[NUMBER_AT..DATABASE_AT].copy_from_slice(&id.number.to_le_bytes());
    buf[DATABASE_AT..CHECKPOINT_AT].copy_from_slice(&id.id_fold.to_le_bytes());
    buf[CHECKPOINT_AT..RESERVED_AT].copy_from_slice(&checkpoint.to_le_bytes());
    for (bytes, raw) in buf[HEADER_BYTES..].chunks_exact_mut(8).zip(entries) {
        bytes.copy_from_slice(&raw.to_le_bytes());
    }
    let checksum = crc32c(0, &buf[4..]);
    buf[..4].copy_from_slice(&checksum.to_le_bytes());
    (buf, checksum as u16)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// Verifies a block that `entry` refers to, and that may not be younger than `checkpoint`; what is wrong otherwise.
pub(super) fn verify(bytes: &[u8], id: BlockId, entry: Entry, checkpoint: u64) -> Result<(), String> {
    if bytes.len() < HEADER_BYTES {
        return Err(format!("a block of {} bytes", bytes.len()));
    }
    let stored = u32::from_le_bytes(field(bytes, 0));
    let computed = crc32c(0, &bytes[4..]);
    if stored != computed {
        return Err(format!("checksum {stored:#010x} is stored, {computed:#010x} was computed"));
    }
    if stored as u16 != entry.check() {
        let (found, expected) = (stored as u16, entry.check());
        return Err(format!("checksum ends with {found:#06x}, {expected:#06x} expected: a write was lost"));
    }
    let version = u16::from_le_bytes(field(bytes, VERSION_AT));
    if version != FORMAT_VERSION {
        return Err(format!("format version {version}, this program reads {FORMAT_VERSION}"));
    }
    let found = BlockId {
        level: bytes[LEVEL_AT],
        number: u32::from_le_bytes(field(bytes, NUMBER_AT)),
        id_fold: u32::from_le_bytes(field(bytes, DATABASE_AT)),
    };
    if bytes[KIND_AT] != id.kind() || found != id {
        return Err(format!("kind {} and {found:?} found, kind {} and {id:?} expected", bytes[KIND_AT], id.kind()));
    }
    let written = u64::from_le_bytes(field(bytes, CHECKPOINT_AT));
    if written > checkpoint {
        return Err(format!("written by checkpoint {written}, but the superblock is of checkpoint {checkpoint}"));
    }
    if field::<8>(bytes, RESERVED_AT) != [0; 8] {
        return Err("reserved bytes are not zero".to_owned());
    }
    Ok(())
}

/// The entries of a block that was verified.
pub(super) fn entries(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes[HEADER_BYTES..].chunks_exact(8).map(|raw| u64::from_le_bytes(field(raw, 0)))
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
