//! The value of a leaf's cell: the bytes themselves, or where they lie.

use bedstone_bufpool::PageId;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bit of a cell's value length: the value is an [`OverflowRef`].
pub(super) const VALUE_IS_REFERENCE: u16 = 0x8000;

/// A value as a leaf holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CellValue<'a> {
    /// The value itself.
    Inline(&'a [u8]),
    /// The value lies in overflow pages.
    Overflow(OverflowRef),
}

/// Names a value in overflow pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OverflowRef {
    /// Length of the value in bytes, at most [`super::MAX_VALUE_BYTES`].
    pub(crate) len: u64,
    /// The root of its index pages.
    pub(crate) index: PageId,
    /// CRC-32C of the value, or 0; the node formats carry it and do not look at it.
    pub(crate) crc: u32,
}

/// An [`OverflowRef`] as stored.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct StoredRef {
    len: U64,
    index: U32,
    crc: U32,
}

#[cfg(test)]
pub(crate) const LAYOUT: bedstone_io::layout::Layout = bedstone_io::layout!("Overflow reference", StoredRef { len => "length", index => "index page", crc => "checksum" });

impl OverflowRef {
    /// Bytes of a stored reference.
    pub(crate) const BYTES: usize = size_of::<StoredRef>();

    /// The reference stored in `bytes`, which must be [`Self::BYTES`] long.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let stored = StoredRef::ref_from_bytes(bytes).ok()?;
        Some(Self { len: stored.len.get(), index: PageId(stored.index.get()), crc: stored.crc.get() })
    }

    pub(crate) fn encode(self) -> [u8; Self::BYTES] {
        zerocopy::transmute!(StoredRef {
            len: U64::new(self.len),
            index: U32::new(self.index.0),
            crc: U32::new(self.crc)
        })
    }
}

impl<'a> CellValue<'a> {
    /// Bytes that the value takes in the leaf.
    #[inline]
    pub(crate) fn stored_len(&self) -> usize {
        match self {
            Self::Inline(bytes) => bytes.len(),
            Self::Overflow(_) => OverflowRef::BYTES,
        }
    }

    /// Length of the value itself.
    pub(crate) fn value_len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Overflow(reference) => reference.len,
        }
    }

    /// The value as a cell stores it.
    pub(super) fn stored(&self) -> StoredValue<'a> {
        match *self {
            Self::Inline(bytes) => StoredValue::Bytes(bytes),
            Self::Overflow(reference) => StoredValue::Reference(reference.encode()),
        }
    }
}

/// The bytes of a value as they stand in a cell.
#[derive(Clone, Copy, Debug)]
pub(super) enum StoredValue<'a> {
    Bytes(&'a [u8]),
    Reference([u8; OverflowRef::BYTES]),
}

impl StoredValue<'_> {
    pub(super) fn is_reference(&self) -> bool {
        matches!(self, Self::Reference(_))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Reference(bytes) => bytes,
        }
    }

    /// The cell's field for the value's length.
    pub(super) fn length_field(&self) -> u16 {
        match self {
            Self::Bytes(bytes) => {
                let len = u16::try_from(bytes.len()).expect("an inline value is shorter than a quarter page");
                assert!(len & VALUE_IS_REFERENCE == 0, "an inline value is shorter than a quarter page");
                len
            }
            Self::Reference(_) => VALUE_IS_REFERENCE | OverflowRef::BYTES as u16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_survive() {
        let reference = OverflowRef { len: 0x1234_5678, index: PageId(0xfeed), crc: 0xdead_beef };
        let CellValue::Overflow(_) = CellValue::Overflow(reference) else { unreachable!() };
        assert_eq!(OverflowRef::decode(&reference.encode()), Some(reference));
        assert_eq!(OverflowRef::decode(&[0; 15]), None);
        assert_eq!(CellValue::Overflow(reference).stored().length_field(), 0x8010);
    }
}
