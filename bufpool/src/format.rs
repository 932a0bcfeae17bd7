//! What the page store puts on the medium, as data; FORMAT.md has the same tables for people.

use bedstone_io::layout::{Layout, Numbers};

use crate::{header, map, superblock, units};

/// The structures of the data file.
pub const LAYOUTS: &[Layout] = &[header::LAYOUT, superblock::LAYOUT, map::BLOCK_LAYOUT, map::ENTRY_LAYOUT];

/// The codes and constants of the data file.
pub const NUMBERS: &[Numbers] = &[
    header::KINDS,
    Numbers {
        name: "Constants of the data file",
        entries: &[
            ("format version", header::FORMAT_VERSION as u64),
            ("bytes of a unit", units::UNIT as u64),
            ("smallest page, bytes", superblock::PAGE_BYTES_MIN as u64),
            ("largest page, bytes", superblock::PAGE_BYTES_MAX as u64),
            ("offset of superblock A", superblock::SLOT_OFFSETS[0]),
            ("offset of superblock B", superblock::SLOT_OFFSETS[1]),
            ("first unit for pages", superblock::DATA_START_UNIT),
            ("page id of the catalog's root", header::PageId::CATALOG_ROOT.0 as u64),
        ],
    },
];
