//! The page envelope: the first 32 bytes of every page, which the pool itself reads and checks. FORMAT.md has its
//! table. All integers are little-endian.

use std::fmt;
use std::mem::offset_of;

use bedstone_io::layout;
use bedstone_io::layout::Layout;
#[cfg(not(loom))]
use bedstone_io::layout::Numbers;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

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
    /// Checksum as stored: CRC-32C of everything behind it to the page's end, computed when the image is written out;
    /// zero in memory.
    pub checksum: u32,
    /// Kind byte as stored (see [`PageKind::from_byte`]).
    pub kind: u8,
    /// Height above the leaves; 0 for leaves and overflow pages.
    pub level: u8,
    /// Format version as stored.
    pub version: u16,
    /// Own page id.
    pub page: PageId,
    /// Tree it belongs to.
    pub table: u32,
    /// Highest LSN of a commit applied to it.
    pub max_lsn: u64,
    /// Position of its newest undo record; 0 = none.
    pub history: u64,
}

/// The envelope as it lies on the medium.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Envelope {
    checksum: U32,
    kind: u8,
    level: u8,
    version: U16,
    page: U32,
    table: U32,
    max_lsn: U64,
    history: U64,
}

const _: () = assert!(size_of::<Envelope>() == HEADER_BYTES);

/// Bytes in front of what a checksum covers, in pages and map blocks alike: the checksum itself, which comes first.
pub(crate) const CHECKSUM_BYTES: usize = size_of::<U32>();
const _: () = assert!(offset_of!(Envelope, checksum) == 0);

const MAX_LSN_AT: usize = offset_of!(Envelope, max_lsn);

pub(crate) const LAYOUT: Layout = layout!("Page envelope", Envelope {
    checksum => "checksum",
    kind => "kind",
    level => "level",
    version => "format version",
    page => "page id",
    table => "table id",
    max_lsn => "max LSN",
    history => "history",
});

#[cfg(not(loom))]
pub(crate) const KINDS: Numbers = Numbers {
    name: "Page kinds",
    entries: &[
        ("leaf", PageKind::Leaf as u64),
        ("inner node", PageKind::Inner as u64),
        ("overflow index", PageKind::OverflowIndex as u64),
        ("overflow data", PageKind::OverflowData as u64),
        ("map chunk", crate::map::CHUNK_KIND as u64),
        ("map directory", crate::map::DIRECTORY_KIND as u64),
    ],
};

impl PageHeader {
    /// Reads the envelope of `page`, which must hold at least [`HEADER_BYTES`].
    pub fn read(page: &[u8]) -> Self {
        let (stored, _) = Envelope::ref_from_prefix(page).expect("a page is longer than its envelope");
        Self {
            checksum: stored.checksum.get(),
            kind: stored.kind,
            level: stored.level,
            version: stored.version.get(),
            page: PageId(stored.page.get()),
            table: stored.table.get(),
            max_lsn: stored.max_lsn.get(),
            history: stored.history.get(),
        }
    }

    /// Writes the envelope into `page`, which must hold at least [`HEADER_BYTES`].
    pub fn write(&self, page: &mut [u8]) {
        let (stored, _) = Envelope::mut_from_prefix(page).expect("a page is longer than its envelope");
        *stored = Envelope {
            checksum: U32::new(self.checksum),
            kind: self.kind,
            level: self.level,
            version: U16::new(self.version),
            page: U32::new(self.page.0),
            table: U32::new(self.table),
            max_lsn: U64::new(self.max_lsn),
            history: U64::new(self.history),
        };
    }
}

/// Highest LSN of a commit applied to `page`.
#[inline]
pub fn max_lsn(page: &[u8]) -> u64 {
    let (lsn, _) = U64::ref_from_prefix(&page[MAX_LSN_AT..]).expect("a page is longer than its envelope");
    lsn.get()
}

/// Raises the page's max LSN to `lsn`.
#[inline]
pub fn raise_max_lsn(page: &mut [u8], lsn: u64) {
    let (stored, _) =
        U64::mut_from_prefix(&mut page[MAX_LSN_AT..]).expect("a page is longer than its envelope");
    if lsn > stored.get() {
        stored.set(lsn);
    }
}
