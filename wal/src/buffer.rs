//! The log buffer: two halves, one filled by appends while the other is written.

use zerocopy::IntoBytes;

use crate::lsn::Lsn;
use crate::record::{RecordHeader, padding};

/// Writes end at multiples of this, filled up with zeros.
///
/// A page of the page cache that a write covers from its beginning to its end need not be read from the medium
/// first, which matters in recycled segments. And no byte behind the tail that an earlier life of the database left
/// in the page cache can reach the medium together with the tail.
pub(crate) const WRITE_ALIGN: usize = 4096;

/// The records that are appended and not yet written.
#[derive(Debug)]
pub(crate) struct LogBuffer {
    filling: Vec<u8>,
    /// Position of the first byte of `filling`.
    start: u64,
    /// The other half, while nobody writes it.
    idle: Vec<u8>,
    /// Most bytes of a half.
    half: usize,
}

impl LogBuffer {
    /// A buffer of `bytes` in all, for records from `start` on.
    pub(crate) fn new(bytes: usize, start: u64) -> Self {
        let half = bytes / 2;
        let room = half + WRITE_ALIGN;
        Self { filling: Vec::with_capacity(room), start, idle: Vec::with_capacity(room), half }
    }

    /// Position of the first byte that nobody has begun to write.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// The position after the last record.
    pub(crate) fn tail(&self) -> u64 {
        self.start + self.filling.len() as u64
    }

    /// Whether a record of `bytes` in all finds room.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        self.filling.len() as u64 + bytes <= self.half as u64
    }

    /// Adds a record; there is room for it.
    pub(crate) fn push(&mut self, header: &RecordHeader, parts: &[&[u8]], len: usize) {
        self.filling.extend_from_slice(header.as_bytes());
        for part in parts {
            self.filling.extend_from_slice(part);
        }
        self.filling.extend_from_slice(&[0; Lsn::ALIGN as usize][..padding(len)]);
    }

    /// Takes all records out, to be written from the position returned; appends go on in the other half. Only by the
    /// one thread that may write.
    pub(crate) fn take(&mut self) -> (u64, Vec<u8>) {
        let start = self.start;
        self.start = self.tail();
        let next = std::mem::take(&mut self.idle);
        (start, std::mem::replace(&mut self.filling, next))
    }

    /// Gives the memory of [`LogBuffer::take`] back.
    pub(crate) fn give_back(&mut self, mut written: Vec<u8>) {
        written.clear();
        self.idle = written;
    }
}

/// Fills `bytes`, which belong at the position `at` counted from a multiple of [`WRITE_ALIGN`], up with zeros to the
/// next multiple.
pub(crate) fn pad_to_page(bytes: &mut Vec<u8>, at: u64) {
    let end = at + bytes.len() as u64;
    let zeros = end.next_multiple_of(WRITE_ALIGN as u64) - end;
    bytes.resize(bytes.len() + zeros as usize, 0);
}
