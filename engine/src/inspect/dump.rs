//! What the dump tools are given: superblocks, pages and log records taken apart into plain values.

/// One of the two copies of the superblock.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SuperblockDump {
    /// Byte offset in the data file.
    pub offset: u64,
    /// What is wrong with it; `None` when it is valid.
    pub problem: Option<String>,
    /// Number of the checkpoint.
    pub checkpoint: u64,
    /// Number of the opening.
    pub opening: u32,
    /// Where replay begins.
    pub replay_lsn: u64,
    /// Where the log ended when the checkpoint's epoch was closed.
    pub log_end: u64,
    /// The lowest page id never used.
    pub next_page_id: u32,
    /// Bytes of a page.
    pub page_size: u32,
}

/// A page, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PageDump {
    /// Its number.
    pub page: u32,
    /// Byte offset of its image in the data file.
    pub offset: u64,
    /// Bytes of the image.
    pub bytes: u64,
    /// Kind byte of its envelope.
    pub kind: u8,
    /// Height above the leaves.
    pub level: u8,
    /// Table it belongs to; 0 is the catalog.
    pub table: u32,
    /// Highest LSN of a commit applied to it.
    pub max_lsn: u64,
    /// Checksum as stored.
    pub checksum: u32,
    /// Checksum of the bytes as they are; the same in a page that is whole.
    pub computed_checksum: u32,
    /// Everything wrong with it; empty when all is well.
    pub findings: Vec<String>,
    /// What is in it.
    pub body: PageBody,
}

/// The content of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PageBody {
    /// A leaf.
    Leaf {
        /// Lower fence, inclusive.
        lower: Vec<u8>,
        /// Upper fence, exclusive; `None` is infinite.
        upper: Option<Vec<u8>>,
        /// Bytes cut from the front of every key.
        prefix: Vec<u8>,
        /// Bytes free, garbage included.
        free_bytes: usize,
        /// The entries in key order.
        cells: Vec<CellDump>,
    },
    /// An inner node.
    Inner {
        /// Lower fence, inclusive.
        lower: Vec<u8>,
        /// Upper fence, exclusive; `None` is infinite.
        upper: Option<Vec<u8>>,
        /// The first child, then every other with the separator before it.
        children: Vec<(Vec<u8>, u32)>,
    },
    /// An index page of a long value.
    OverflowIndex {
        /// Ids of the pages below it.
        pages: Vec<u32>,
        /// 0 when those are data pages, else index pages.
        level: u8,
    },
    /// A data page of a long value.
    OverflowData {
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// The content cannot be trusted, see the findings.
    Unreadable,
}

/// An entry of a leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CellDump {
    /// The whole key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: CellValueDump,
}

/// A value as a leaf holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CellValueDump {
    /// The bytes.
    Inline(Vec<u8>),
    /// In pages of its own.
    Overflow {
        /// Bytes of the value.
        len: u64,
        /// Its topmost index page.
        index_page: u32,
    },
}

/// Whom an area of the data file belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpaceUse {
    /// The superblocks and what lies between them.
    Superblocks,
    /// Blocks of the page map.
    PageMap,
    /// The image of a page.
    Page(u32),
    /// Nobody's.
    Free,
}

/// A record of the log, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogEntry {
    /// Where it begins.
    pub lsn: u64,
    /// Where the next one begins.
    pub end: u64,
    /// Kind byte.
    pub kind: u8,
    /// Opening that wrote it.
    pub opening: u32,
    /// How far the log was known to be durable when it was appended.
    pub durable_lsn: u64,
    /// Bytes of its payload.
    pub payload_bytes: u64,
    /// What is in it.
    pub body: LogBody,
}

/// The content of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogBody {
    /// A whole commit.
    Writes {
        /// When it was made, in milliseconds since 1970.
        unix_ms: u64,
        /// Its writes.
        ops: Vec<LogOp>,
    },
    /// A piece of a commit too large for one record.
    Fragment {
        /// LSN of the commit's first fragment.
        transaction: u64,
        /// Bytes of the commit's writes in it.
        bytes: u64,
    },
    /// The commit of a transaction written in fragments.
    Commit {
        /// When it was made, in milliseconds since 1970.
        unix_ms: u64,
        /// LSN of its first fragment.
        transaction: u64,
        /// Number of its fragments.
        fragments: u32,
        /// Bytes of its writes.
        bytes: u64,
    },
    /// A table was made.
    CreateTable {
        /// When it was made, in milliseconds since 1970.
        unix_ms: u64,
        /// Its number.
        table: u32,
        /// Its name.
        name: String,
    },
    /// A table was dropped.
    DropTable {
        /// When it was made, in milliseconds since 1970.
        unix_ms: u64,
        /// Its number.
        table: u32,
    },
    /// A table was given another name.
    RenameTable {
        /// When it was made, in milliseconds since 1970.
        unix_ms: u64,
        /// Its number.
        table: u32,
        /// Its new name.
        name: String,
    },
    /// The checksum is right but the content cannot be understood.
    Unreadable {
        /// Why not.
        detail: String,
    },
}

/// One write in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogOp {
    /// Number of the table.
    pub table: u32,
    /// The key.
    pub key: Vec<u8>,
    /// The value; `None` is a delete.
    pub value: Option<Vec<u8>>,
}

/// Where and why the log ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogEndDump {
    /// The position.
    pub lsn: u64,
    /// Why, in words.
    pub reason: String,
    /// The end is damage, not the tail a crash leaves: what proves it.
    pub damage: Option<String>,
}
