//! What the log puts on the medium, as data; FORMAT.md has the same tables for people.

use bedstone_io::layout::{Layout, Numbers};

use crate::{Lsn, record, segment};

/// The structures of the log.
pub const LAYOUTS: &[Layout] = &[segment::LAYOUT, record::LAYOUT];

/// The constants of the log.
pub const NUMBERS: &[Numbers] = &[Numbers {
    name: "Constants of the log",
    entries: &[
        ("format version", segment::WAL_FORMAT_VERSION as u64),
        ("bytes before the log in a segment", segment::SEGMENT_HEADER_BYTES),
        ("bytes of a record's header", record::RECORD_HEADER_BYTES as u64),
        ("alignment of records, bytes", Lsn::ALIGN),
        ("longest payload, bytes", record::MAX_PAYLOAD as u64),
    ],
}];
