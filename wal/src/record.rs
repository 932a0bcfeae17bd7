//! The format of a record: a header, the payload, and zeros up to a multiple of 8. FORMAT.md has the table.
//!
//! All numbers are little-endian. The payload has a checksum of its own, which the header's checksum covers: thus
//! the work that grows with the payload is done before the log's mutex is taken, and the work under it is constant.
//! The LSN makes a record that was left behind in a recycled segment differ from one that belongs there; the opening
//! number does the same for a record beyond a place where recovery once cut the log; the durable LSN lets a later
//! record bear witness that an earlier place had been on the medium, so that damage is told from a torn tail.

use std::mem::{offset_of, size_of};

use bedstone_io::layout::{Layout, Tail};
use bedstone_io::{crc32c, layout};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::lsn::Lsn;

/// Bytes of a record before its payload.
pub const RECORD_HEADER_BYTES: usize = 40;

/// No record has a longer payload, whatever the size of the buffer; a reader takes more for damage.
pub const MAX_PAYLOAD: usize = 64 << 20;

/// A record's header as it lies on the medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct RecordHeader {
    /// CRC-32C of the header behind it, continued from the CRC-32C of the database id.
    pub(crate) crc: U32,
    /// Length of the payload in bytes, without padding.
    pub(crate) len: U32,
    /// The record's own position in the log.
    pub(crate) lsn: U64,
    /// The durable LSN when the record was appended.
    pub(crate) durable: U64,
    /// CRC-32C of payload and padding.
    pub(crate) payload_crc: U32,
    /// The opening that appended the record.
    pub(crate) opening: U32,
    /// Opaque to the log.
    pub(crate) kind: u8,
    pub(crate) reserved: [u8; 7],
}

pub(crate) const LAYOUT: Layout = layout!("Log record", RecordHeader {
    crc => "checksum",
    len => "payload length",
    lsn => "LSN",
    durable => "durable LSN",
    payload_crc => "payload checksum",
    opening => "opening",
    kind => "kind",
    reserved => "reserved",
})
.then(&[Tail::any("payload"), Tail::between("padding", 0, Lsn::ALIGN as usize - 1)]);

const _: () = assert!(size_of::<RecordHeader>() == RECORD_HEADER_BYTES);

/// Where in a header the record's own LSN stands.
pub(crate) const LSN_OFFSET: u64 = offset_of!(RecordHeader, lsn) as u64;

/// The CRC that every header's CRC continues from.
pub(crate) fn crc_seed(database_id: &[u8; 16]) -> u32 {
    crc32c(0, database_id)
}

/// Bytes of zeros after a payload of `len` bytes.
pub(crate) fn padding(len: usize) -> usize {
    len.next_multiple_of(Lsn::ALIGN as usize) - len
}

/// Bytes of log that a record with a payload of `len` bytes takes.
pub fn record_bytes(len: usize) -> u64 {
    (RECORD_HEADER_BYTES + len.next_multiple_of(Lsn::ALIGN as usize)) as u64
}

/// The most that `records` records with `payload_bytes` of payload together can take, however it is divided.
pub(crate) fn worst_case(payload_bytes: u64, records: u64) -> u64 {
    payload_bytes.saturating_add(records.saturating_mul(RECORD_HEADER_BYTES as u64 + Lsn::ALIGN - 1))
}

/// CRC-32C of the concatenation of `parts` and its padding.
pub(crate) fn payload_crc(parts: &[&[u8]], len: usize) -> u32 {
    let crc = parts.iter().fold(0, |crc, part| crc32c(crc, part));
    crc32c(crc, &[0; Lsn::ALIGN as usize][..padding(len)])
}

impl RecordHeader {
    /// A header with its checksum. `len` has been compared with [`MAX_PAYLOAD`].
    pub(crate) fn new(
        seed: u32,
        lsn: Lsn,
        durable: Lsn,
        opening: u32,
        kind: u8,
        len: u32,
        payload_crc: u32,
    ) -> Self {
        let mut header = Self {
            crc: U32::ZERO,
            len: U32::new(len),
            lsn: U64::new(lsn.0),
            durable: U64::new(durable.0),
            payload_crc: U32::new(payload_crc),
            opening: U32::new(opening),
            kind,
            reserved: [0; 7],
        };
        header.crc = U32::new(header.expected_crc(seed));
        header
    }

    /// The checksum that this header ought to carry.
    pub(crate) fn expected_crc(&self, seed: u32) -> u32 {
        let bytes = self.as_bytes();
        crc32c(seed, bytes.get(size_of::<u32>()..).unwrap_or_default())
    }

    /// Whether not one bit is set: space that was prepared and never written.
    pub(crate) fn is_zero(&self) -> bool {
        self.as_bytes().iter().all(|&byte| byte == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_lies_as_the_table_says() {
        let seed = crc_seed(b"0123456789abcdef");
        let header = RecordHeader::new(seed, Lsn(0x0102), Lsn(0x0304), 0x0506, 7, 0x0809, 0x0a0b_0c0d);
        let bytes = header.as_bytes();
        assert_eq!(bytes[..4], crc32c(crc32c(0, b"0123456789abcdef"), &bytes[4..40]).to_le_bytes());
        let mut expected = [0; 40];
        expected[..4].copy_from_slice(&bytes[..4]);
        expected[4..8].copy_from_slice(&[9, 8, 0, 0]);
        expected[8..10].copy_from_slice(&[2, 1]);
        expected[16..18].copy_from_slice(&[4, 3]);
        expected[24..28].copy_from_slice(&[0x0d, 0x0c, 0x0b, 0x0a]);
        expected[28..30].copy_from_slice(&[6, 5]);
        expected[32] = 7;
        assert_eq!(bytes, expected);
    }

    #[test]
    fn lengths_and_checksums_count_the_padding() {
        assert_eq!([0, 1, 8, 9].map(record_bytes), [40, 48, 48, 56]);
        assert_eq!([0, 1, 7, 8, 9].map(padding), [0, 7, 1, 0, 7]);
        assert_eq!(payload_crc(&[b"ab", b"", b"c"], 3), crc32c(0, b"abc\0\0\0\0\0"));
        assert!(worst_case(17, 3) >= record_bytes(1) + record_bytes(1) + record_bytes(15));
        assert_eq!(worst_case(u64::MAX, 9), u64::MAX);
    }
}
