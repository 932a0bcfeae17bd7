//! Page images as they lie in the data file: sealing and verifying one, and reading a whole file of them without a
//! pool, for tools that look at a store that nobody has open, damaged ones included.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bedstone_io::defect::{self, Defect};
use bedstone_io::{AlignedBuf, DirectFile, Disk, OpenMode, crc32c};

use crate::header::{CHECKSUM_BYTES, FORMAT_VERSION, HEADER_BYTES, PageHeader, PageId, PageKind};
use crate::map::{self, Entry, Stable};
use crate::superblock::{self, DATA_START_UNIT, SLOT_OFFSETS, Slots, Superblock};
use crate::units::{UNIT, Units};
use crate::{PoolError, Result};

/// Why an image is not the one that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// The image is not as long as a page.
    Length {
        /// Bytes of a page, or of the image as the page map has it.
        expected: usize,
        /// Bytes there.
        found: usize,
    },
    /// Nothing but zeros: the space was allocated, but no image was ever written there.
    Zeroed,
    /// The checksum differs.
    Checksum {
        /// As stored in the image.
        stored: u32,
        /// As computed from its bytes.
        computed: u32,
    },
    /// A whole image, but not the one that the page map refers to: a write was lost, or went elsewhere.
    Stale {
        /// Low half of the checksum as the page map has it.
        map: u16,
        /// The image's.
        image: u16,
    },
    /// The image of another page.
    PageId {
        /// The page looked for.
        expected: PageId,
        /// The page that the image names.
        found: PageId,
    },
    /// Written by another version of the format.
    Version {
        /// The version.
        found: u16,
    },
    /// No kind of page.
    Kind {
        /// The kind byte.
        found: u8,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { expected, found } => write!(f, "the image has {found} bytes, {expected} expected"),
            Self::Zeroed => f.write_str("the image is all zeros"),
            Self::Checksum { stored, computed } => {
                write!(f, "checksum {stored:#010x} is stored, {computed:#010x} was computed")
            }
            Self::Stale { map, image } => {
                write!(f, "checksum ends with {image:#06x}, the page map has {map:#06x}: a write was lost")
            }
            Self::PageId { expected, found } => write!(f, "the image is of {found}, {expected} expected"),
            Self::Version { found } => {
                write!(f, "format version {found}, this program reads {FORMAT_VERSION}")
            }
            Self::Kind { found } => write!(f, "kind {found} is no kind of page"),
        }
    }
}

/// Computes the checksum of a page image and stores it in front of them. Its low half belongs into the page's
/// [`Entry`].
///
/// # Panics
/// If `bytes` is shorter than an envelope.
pub fn seal_image(bytes: &mut [u8]) -> u32 {
    let checksum = crc32c(0, &bytes[CHECKSUM_BYTES..]);
    bytes[..CHECKSUM_BYTES].copy_from_slice(&checksum.to_le_bytes());
    checksum
}

/// Verifies what was read for `page` from where `entry` says, and returns its envelope. The body is not looked at.
///
/// # Errors
/// The first thing that is wrong, from the checksum outwards.
pub fn verify_image(page: PageId, entry: Entry, bytes: &[u8]) -> std::result::Result<PageHeader, Finding> {
    match findings(page, entry, bytes).into_iter().next() {
        Some(finding) => Err(finding),
        None => Ok(PageHeader::read(bytes)),
    }
}

/// Everything that is wrong with an image, the most telling first.
fn findings(page: PageId, entry: Entry, bytes: &[u8]) -> Vec<Finding> {
    let mut found = Vec::new();
    if bytes.len() < HEADER_BYTES || bytes.len() != entry.len() {
        found.push(Finding::Length { expected: entry.len(), found: bytes.len() });
        return found;
    }
    let header = PageHeader::read(bytes);
    let computed = crc32c(0, &bytes[CHECKSUM_BYTES..]);
    // The rule: an image whose checksum differs from either of the two stored ones is not served.
    let compared = !defect::is(Defect::IgnoreChecksum);
    if compared && header.checksum != computed {
        let zeroed = bytes.iter().all(|&byte| byte == 0);
        found.push(if zeroed {
            Finding::Zeroed
        } else {
            Finding::Checksum { stored: header.checksum, computed }
        });
    }
    // Judged by the computed checksum, so that a flipped bit in the stored one is not taken for a lost write too.
    if compared && computed as u16 != entry.check() {
        found.push(Finding::Stale { map: entry.check(), image: computed as u16 });
    }
    if header.page != page {
        found.push(Finding::PageId { expected: page, found: header.page });
    }
    if header.version != FORMAT_VERSION {
        found.push(Finding::Version { found: header.version });
    }
    if PageKind::from_byte(header.kind).is_none() {
        found.push(Finding::Kind { found: header.kind });
    }
    found
}

/// The error that says of `page` in `file` what [`verify_image`] found.
pub fn corrupt(file: &Path, page: PageId, entry: Entry, finding: &Finding) -> PoolError {
    PoolError::Corrupt {
        file: file.to_path_buf(),
        offset: entry.offset(),
        page: Some(page),
        what: "page",
        detail: format!("{page}: {finding}"),
    }
}

/// Who a run of units belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The superblocks, or the space between them.
    Superblock,
    /// The image of a page.
    Page(PageId),
    /// A block of the page map.
    Map {
        /// 0 for a chunk, height above the chunks for a directory.
        level: u8,
        /// Index of the block within its level.
        number: u32,
    },
}

/// Units with one owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// First unit.
    pub start: u64,
    /// Number of units.
    pub units: u64,
    /// Whose they are.
    pub owner: Owner,
}

/// A page as it lies in the file, right or wrong.
#[derive(Debug)]
pub struct RawPage {
    /// Its bytes; zeros where the file ends too early or could not be read.
    pub bytes: Vec<u8>,
    /// Where it lies.
    pub entry: Entry,
    /// What is wrong with it, the most telling first; empty for a good image (the body is not looked at).
    pub findings: Vec<String>,
}

/// A data file read without a pool, by tools. It takes no lock: what it shows of a store that is being written is
/// the last checkpoint at the moment of opening, and pages may move away underneath.
#[derive(Debug)]
pub struct PageFile {
    file: Arc<dyn DirectFile>,
    path: PathBuf,
    slots: Slots,
    superblock: Superblock,
    stable: Stable,
    units: Units,
    problems: Vec<PoolError>,
}

impl PageFile {
    /// Opens the data file at `path` for reading. Damage to one superblock or to parts of the page map does not
    /// prevent that: see [`PageFile::slots`] and [`PageFile::map_problems`].
    ///
    /// # Errors
    /// [`PoolError::Io`] if there is no such file, the errors of [`Slots::best`] if no superblock counts, and
    /// [`PoolError::OutOfMemory`].
    pub fn open_read_only(disk: &dyn Disk, path: &Path) -> Result<Self> {
        let file = disk.open_direct(path, OpenMode::Read)?;
        let slots = superblock::read_both(&*file);
        let superblock = slots.best(path)?;
        let mut units = Units::new(file.len()? / UNIT as u64);
        let mut problems = Vec::new();
        let stable =
            map::load_lenient(&*file, &superblock, &mut units, &mut |problem| problems.push(problem))?;
        Ok(Self { file, path: path.to_path_buf(), slots, superblock, stable, units, problems })
    }

    /// The superblock in force.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Both superblocks' verdicts.
    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    /// What is wrong with the page map; pages behind a damaged block are missing here.
    pub fn map_problems(&self) -> &[PoolError] {
        &self.problems
    }

    /// Bytes of a page.
    pub fn page_size(&self) -> usize {
        self.superblock.page_size as usize
    }

    /// Pages in use.
    pub fn page_count(&self) -> u64 {
        self.stable.live_pages()
    }

    /// Every page in use and where it lies, ascending by page id.
    pub fn entries(&self) -> impl Iterator<Item = (PageId, Entry)> + '_ {
        self.stable.iter()
    }

    /// Where `page` lies; free if it is not in use.
    pub fn entry(&self, page: PageId) -> Entry {
        self.stable.get(page)
    }

    /// Units of the file.
    pub fn file_units(&self) -> u64 {
        self.units.total()
    }

    /// Units that nothing refers to.
    pub fn free_units(&self) -> u64 {
        self.units.free_units()
    }

    /// Reads a page and verifies its envelope and checksum.
    ///
    /// # Errors
    /// [`PoolError::Free`] if there is no such page, [`PoolError::Io`] if it cannot be read,
    /// [`PoolError::Corrupt`] if it is not the image that was written.
    pub fn read_page(&self, page: PageId) -> Result<(AlignedBuf, PageHeader)> {
        let entry = self.entry(page);
        if entry.is_free() {
            return Err(PoolError::Free(page));
        }
        if entry.len() != self.page_size() {
            let finding = Finding::Length { expected: self.page_size(), found: entry.len() };
            return Err(corrupt(&self.path, page, entry, &finding));
        }
        let mut buf = AlignedBuf::zeroed(self.page_size());
        self.file.read_at(buf.as_aligned_mut(), entry.offset())?;
        let header =
            verify_image(page, entry, &buf).map_err(|finding| corrupt(&self.path, page, entry, &finding))?;
        Ok((buf, header))
    }

    /// Reads a page whatever is wrong with it, unit by unit if need be.
    ///
    /// # Errors
    /// [`PoolError::Free`] if there is no such page.
    pub fn read_page_raw(&self, page: PageId) -> Result<RawPage> {
        let entry = self.entry(page);
        if entry.is_free() {
            return Err(PoolError::Free(page));
        }
        let mut bytes = Vec::with_capacity(entry.len());
        let mut found = Vec::new();
        for unit in entry.unit()..entry.end() {
            let mut buf = AlignedBuf::zeroed(UNIT);
            if let Err(error) = self.file.read_at(buf.as_aligned_mut(), unit * UNIT as u64) {
                found.push(error.to_string());
                buf = AlignedBuf::zeroed(UNIT);
            }
            bytes.extend_from_slice(&buf);
        }
        if entry.len() != self.page_size() {
            found.push(Finding::Length { expected: self.page_size(), found: entry.len() }.to_string());
        }
        found.extend(findings(page, entry, &bytes).iter().map(Finding::to_string));
        Ok(RawPage { bytes, entry, findings: found })
    }

    /// Whose every used unit is, ascending by first unit; what lies between the runs is free. Runs overlap only in
    /// a damaged file.
    pub fn usage(&self) -> Vec<Run> {
        let reserved = Run { start: 0, units: DATA_START_UNIT, owner: Owner::Superblock };
        let pages = self.entries().map(|(page, entry)| (entry, Owner::Page(page)));
        let blocks = self.stable.blocks();
        let blocks =
            blocks.map(|block| (block.entry, Owner::Map { level: block.level, number: block.number }));
        let runs = pages.chain(blocks).map(|(entry, owner)| {
            let (start, units) = entry.run();
            Run { start, units, owner }
        });
        let mut runs: Vec<Run> = std::iter::once(reserved).chain(runs).collect();
        runs.sort_unstable_by_key(|run| (run.start, run.units));
        runs
    }

    /// Offset and fault of every superblock that does not count.
    pub fn superblock_faults(&self) -> Vec<(u64, String)> {
        debug_assert_eq!(SLOT_OFFSETS.len(), self.slots.slots.len());
        self.slots.faults()
    }
}

#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod tests;
