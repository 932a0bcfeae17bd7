//! The page envelope: the first 32 bytes of every page, which the pool itself reads and checks.
//!
//! | offset | size | field | meaning |
//! |---|---|---|---|
//! | 0 | 4 | checksum | CRC-32C of bytes 4 to the page's end; computed when the image is written out, zero in memory |
//! | 4 | 1 | kind | [`PageKind`] |
//! | 5 | 1 | level | 0 for leaves and overflow pages, height above the leaves for inner nodes |
//! | 6 | 2 | format version | [`FORMAT_VERSION`] |
//! | 8 | 4 | page id | the page's own number |
//! | 12 | 4 | table id | the tree it belongs to |
//! | 16 | 8 | max LSN | highest LSN of a commit applied to the page |
//! | 24 | 8 | history | position of the newest undo record of the page; 0 = none |
//!
//! All integers are little-endian.

use std::fmt;

/// Bytes of the envelope.
pub const HEADER_BYTES: usize = 32;
/// Version of the page format; 0 marks files of development builds.
pub const FORMAT_VERSION: u16 = 0;

/// Number of a page; never changes while the page lives. 0 is no page.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageId(pub u32);

impl PageId {
    /// No page.
    pub const NONE: PageId = PageId(0);
    /// The root of the catalog, the first page of every database.
    pub const CATALOG_ROOT: PageId = PageId(1);
}

impl fmt::Debug for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {}", self.0)
    }
}

impl fmt::Display for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What a page holds. The pool treats inner nodes (immutable once published, read under a reader epoch) unlike
/// all others (pinned by readers, latched by writers).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum PageKind {
    /// A leaf of a B+-tree.
    Leaf = 1,
    /// An inner node of a B+-tree.
    Inner = 2,
    /// An index page of an overflow value: the ids of its data pages.
    OverflowIndex = 3,
    /// A data page of an overflow value.
    OverflowData = 4,
}

impl PageKind {
    /// The kind stored as `byte`, if there is one.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Leaf,
            2 => Self::Inner,
            3 => Self::OverflowIndex,
            4 => Self::OverflowData,
            _ => return None,
        })
    }
}

/// The envelope of a page, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageHeader {
    /// Checksum as stored.
    pub checksum: u32,
    /// Kind byte as stored (see [`PageKind::from_byte`]).
    pub kind: u8,
    /// Height above the leaves.
    pub level: u8,
    /// Format version as stored.
    pub version: u16,
    /// Own page id.
    pub page: PageId,
    /// Tree it belongs to.
    pub table: u32,
    /// Highest LSN of a commit applied to it.
    pub max_lsn: u64,
    /// Position of its newest undo record.
    pub history: u64,
}

fn field<const N: usize>(page: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&page[at..at + N]);
    out
}

impl PageHeader {
    /// Reads the envelope of `page`, which must hold at least [`HEADER_BYTES`].
    pub fn read(page: &[u8]) -> Self {
        Self {
            checksum: u32::from_le_bytes(field(page, 0)),
            kind: page[4],
            level: page[5],
            version: u16::from_le_bytes(field(page, 6)),
            page: PageId(u32::from_le_bytes(field(page, 8))),
            table: u32::from_le_bytes(field(page, 12)),
            max_lsn: u64::from_le_bytes(field(page, 16)),
            history: u64::from_le_bytes(field(page, 24)),
        }
    }

    /// Writes the envelope into `page`.
    pub fn write(&self, page: &mut [u8]) {
        page[0..4].copy_from_slice(&self.checksum.to_le_bytes());
        page[4] = self.kind;
        page[5] = self.level;
        page[6..8].copy_from_slice(&self.version.to_le_bytes());
        page[8..12].copy_from_slice(&self.page.0.to_le_bytes());
        page[12..16].copy_from_slice(&self.table.to_le_bytes());
        page[16..24].copy_from_slice(&self.max_lsn.to_le_bytes());
        page[24..32].copy_from_slice(&self.history.to_le_bytes());
    }
}

/// Highest LSN of a commit applied to `page`.
#[inline]
pub fn max_lsn(page: &[u8]) -> u64 {
    u64::from_le_bytes(field(page, 16))
}

/// Raises the page's max LSN to `lsn`.
#[inline]
pub fn raise_max_lsn(page: &mut [u8], lsn: u64) {
    if lsn > max_lsn(page) {
        page[16..24].copy_from_slice(&lsn.to_le_bytes());
    }
}
