//! Reading the files of a database page by page and record by record without recovering it: what the dump tools
//! stand on. Nothing is written and no lock is taken, so the database should be closed: in one that is open the
//! pages of the last checkpoint are still whole, but they may be replaced while they are looked at.

mod dump;
mod log;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bedstone_bufpool::page_file::{Owner, PageFile};
use bedstone_bufpool::superblock::SLOT_OFFSETS;
use bedstone_bufpool::{HEADER_BYTES, PageHeader, PageId, PageKind, UNIT};
use bedstone_io::{Disk, crc32c};

use crate::btree::node::{CellValue, Inner, Leaf, OverflowData, OverflowIndex, verify};
use crate::db::TableInfo;
use crate::error::Result;
use crate::options::real_disk;

pub use dump::{
    CellDump, CellValueDump, LogBody, LogEndDump, LogEntry, LogOp, PageBody, PageDump, SpaceUse,
    SuperblockDump,
};
pub use log::LogDump;

/// The files of a database, opened for reading only.
#[derive(Debug)]
pub struct Inspector {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    file: PageFile,
}

impl Inspector {
    /// Opens the files of the database in directory `path`.
    ///
    /// # Errors
    /// What is wrong with the data file when neither superblock can be used, or an I/O error. Lesser damage does
    /// not prevent it: it shows in what the other methods say.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_on(real_disk(None, true)?, path)
    }

    /// Opens them on the medium given.
    ///
    /// # Errors
    /// As [`Inspector::open`].
    pub fn open_on(disk: Arc<dyn Disk>, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let file = PageFile::open_read_only(&*disk, &path.join("data"))?;
        Ok(Self { disk, path, file })
    }

    /// Both copies of the superblock.
    pub fn superblocks(&self) -> Vec<SuperblockDump> {
        let slots = self.file.slots().slots.iter().zip(SLOT_OFFSETS);
        let dump = slots.map(|(slot, offset)| match slot {
            Ok(block) => SuperblockDump {
                offset,
                problem: None,
                checkpoint: block.checkpoint,
                opening: block.opening,
                replay_lsn: block.replay_lsn,
                log_end: block.log_end,
                next_page_id: block.next_page_id,
                page_size: block.page_size,
            },
            Err(fault) => SuperblockDump {
                offset,
                problem: Some(fault.to_string()),
                checkpoint: 0,
                opening: 0,
                replay_lsn: 0,
                log_end: 0,
                next_page_id: 0,
                page_size: 0,
            },
        });
        dump.collect()
    }

    /// What is wrong with the page map; pages behind a damaged block are missing from [`Inspector::page_ids`].
    pub fn map_problems(&self) -> Vec<String> {
        self.file.map_problems().iter().map(ToString::to_string).collect()
    }

    /// Number of the database, which its files carry.
    pub fn database_id(&self) -> [u8; 16] {
        self.file.superblock().database_id
    }

    /// Bytes of a page.
    pub fn page_size(&self) -> usize {
        self.file.page_size()
    }

    /// Ids of all pages of the last checkpoint, ascending.
    pub fn page_ids(&self) -> Vec<u32> {
        self.file.entries().map(|(page, _)| page.0).collect()
    }

    /// A page taken apart; what is wrong with it is among its findings.
    ///
    /// # Errors
    /// There is no such page in the last checkpoint.
    pub fn page(&self, page: u32) -> Result<PageDump> {
        let raw = self.file.read_page_raw(PageId(page))?;
        let bytes = &raw.bytes[..];
        // A damaged map may give an image any length, none at all included; that is among the findings.
        let header = PageHeader::read(if bytes.len() < HEADER_BYTES { &[0; HEADER_BYTES] } else { bytes });
        let mut findings = raw.findings;
        let body = if findings.is_empty() {
            match verify(&header, bytes) {
                Ok(()) => body(&header, bytes),
                Err(what) => {
                    findings.push(what);
                    PageBody::Unreadable
                }
            }
        } else {
            PageBody::Unreadable
        };
        Ok(PageDump {
            page,
            offset: raw.entry.offset(),
            bytes: bytes.len() as u64,
            kind: header.kind,
            level: header.level,
            table: header.table,
            max_lsn: header.max_lsn,
            checksum: header.checksum,
            computed_checksum: crc32c(0, bytes.get(4..).unwrap_or_default()),
            findings,
            body,
        })
    }

    /// The bytes of a page as they lie on the medium.
    ///
    /// # Errors
    /// There is no such page in the last checkpoint.
    pub fn page_bytes(&self, page: u32) -> Result<Vec<u8>> {
        Ok(self.file.read_page_raw(PageId(page))?.bytes)
    }

    /// The tables as of the last checkpoint, by name.
    ///
    /// # Errors
    /// A page of the catalog is damaged or cannot be read.
    pub fn tables(&self) -> Result<Vec<TableInfo>> {
        let mut tables = Vec::new();
        let mut pages = vec![PageId::CATALOG_ROOT];
        // A database without a checkpoint has no catalog in its pages yet.
        pages.retain(|&page| !self.file.entry(page).is_free());
        let mut met = HashSet::new();
        while let Some(page) = pages.pop() {
            // Levels fall on the way down, but ways that meet again would be more than anybody can go.
            if !met.insert(page) {
                return Err(self.damaged(page, "two pages lead to it".into()));
            }
            let (bytes, header) = self.file.read_page(page)?;
            if let Err(what) = verify(&header, &bytes) {
                return Err(self.damaged(page, what));
            }
            match PageKind::from_byte(header.kind) {
                Some(PageKind::Inner) => {
                    let inner = Inner::new(&bytes);
                    for child in inner.child_ids(0..inner.count() + 1) {
                        let below = self.file.read_page(child)?.1;
                        if below.level + 1 != header.level {
                            return Err(self.damaged(
                                child,
                                format!("level {} below level {}", below.level, header.level),
                            ));
                        }
                        pages.push(child);
                    }
                }
                Some(PageKind::Leaf) => {
                    for cell in Leaf::new(&bytes).cells() {
                        let Some(CellValue::Inline(value)) = cell.value else {
                            return Err(self.damaged(page, "a catalog record in overflow pages".into()));
                        };
                        let info = crate::catalog::table_info(&cell.key, value)
                            .map_err(|what| self.damaged(page, what))?;
                        tables.extend(info);
                    }
                }
                _ => return Err(self.damaged(page, "not a page of a tree".into())),
            }
        }
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(tables)
    }

    fn damaged(&self, page: PageId, detail: String) -> crate::Error {
        crate::Error::Corrupt {
            file: self.path.join("data"),
            offset: self.file.entry(page).offset(),
            page: Some(page.0),
            what: "catalog page",
            detail,
        }
    }

    /// Whom the data file's space belongs to: byte offset, bytes and owner of every area, ascending.
    pub fn space(&self) -> Vec<(u64, u64, SpaceUse)> {
        let unit = UNIT as u64;
        let mut areas = Vec::new();
        let mut at = 0;
        for run in self.file.usage() {
            if run.start > at {
                areas.push((at * unit, (run.start - at) * unit, SpaceUse::Free));
            }
            let owner = match run.owner {
                Owner::Superblock => SpaceUse::Superblocks,
                Owner::Page(page) => SpaceUse::Page(page.0),
                Owner::Map { .. } => SpaceUse::PageMap,
            };
            areas.push((run.start * unit, run.units * unit, owner));
            at = at.max(run.start + run.units);
        }
        if self.file.file_units() > at {
            areas.push((at * unit, (self.file.file_units() - at) * unit, SpaceUse::Free));
        }
        areas
    }

    /// The log from `from` on, by default from where replay would begin. `from` must be the LSN of a record.
    ///
    /// # Errors
    /// No segment holds the position, a segment belongs to another database, or an I/O error.
    pub fn log(&self, from: Option<u64>) -> Result<LogDump> {
        let block = self.file.superblock();
        let from = from.unwrap_or(block.replay_lsn);
        LogDump::open(self.disk.clone(), &self.path.join("redo"), block.database_id, from, block.log_end)
    }
}

/// The body of a page that passed every check.
fn body(header: &PageHeader, bytes: &[u8]) -> PageBody {
    match PageKind::from_byte(header.kind) {
        Some(PageKind::Leaf) => {
            let leaf = Leaf::new(bytes);
            let cells = leaf.cells().map(|cell| CellDump {
                key: cell.key,
                value: match cell.value {
                    Some(CellValue::Overflow(long)) => {
                        CellValueDump::Overflow { len: long.len, index_page: long.index.0 }
                    }
                    Some(CellValue::Inline(value)) => CellValueDump::Inline(value.to_vec()),
                    None => CellValueDump::Inline(Vec::new()),
                },
            });
            PageBody::Leaf {
                lower: leaf.lower().to_vec(),
                upper: leaf.upper().map(<[u8]>::to_vec),
                prefix: leaf.prefix().to_vec(),
                free_bytes: leaf.capacity() - leaf.live_bytes(),
                cells: cells.collect(),
            }
        }
        Some(PageKind::Inner) => {
            let inner = Inner::new(bytes);
            PageBody::Inner {
                lower: inner.lower().to_vec(),
                upper: inner.upper().map(<[u8]>::to_vec),
                children: (0..=inner.count()).map(|at| (inner.child_lower(at), inner.child(at).0)).collect(),
            }
        }
        Some(PageKind::OverflowIndex) => {
            let index = OverflowIndex::new(bytes);
            PageBody::OverflowIndex { pages: index.ids().map(|page| page.0).collect(), level: index.level() }
        }
        Some(PageKind::OverflowData) => {
            PageBody::OverflowData { bytes: OverflowData::new(bytes).bytes().to_vec() }
        }
        None => PageBody::Unreadable,
    }
}
