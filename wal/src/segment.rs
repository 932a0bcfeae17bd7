//! Segment files: their format, their names, and what a directory holds of them.
//!
//! A segment is a file of 4096 bytes of header and a fixed number of bytes of log; the byte of log at position `l` of
//! a segment that begins at `start` lies at file offset `4096 + (l - start)`. FORMAT.md has the header's table.
//!
//! Names: `<start, 20 decimal digits>.log` is a segment, `.new` one being made, `.spare` one out of use that may be
//! taken into use again. A file gets the name `.log` only after its header and its whole length are durable, so a
//! `.log` file with a bad header is damage and never what a crash leaves. Readers trust the header, not the digits:
//! a segment taken into use again has its new header for a moment under its old name. Only of files whose headers agree
//! the digits tell which is the segment.

use std::mem::{offset_of, size_of};
use std::path::{Path, PathBuf};

use bedstone_io::layout::{Layout, Tail};
use bedstone_io::{AlignedBuf, Disk, OpenMode, crc32c, layout};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::error::WalError;
use crate::lsn::Lsn;
use crate::space::own_blocks;

/// Bytes of a segment file before the log bytes.
pub const SEGMENT_HEADER_BYTES: u64 = 4096;

/// Version of the format of segments and records. 0 marks files of development builds.
pub const WAL_FORMAT_VERSION: u32 = 0;

/// The first bytes of every segment.
pub const SEGMENT_MAGIC: [u8; 8] = *b"BEDSTLOG";

pub(crate) const CHECKED_BYTES: usize = offset_of!(SegmentHeader, crc);

/// A segment file as its header describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentInfo {
    /// The file.
    pub path: PathBuf,
    /// The position of its first byte of log.
    pub start: Lsn,
    /// How many bytes of log it holds.
    pub bytes: u64,
    /// The opening in which it was made or taken into use again.
    pub opening: u32,
    /// Length of the file, in bytes.
    pub file_len: u64,
}

impl SegmentInfo {
    /// The position after its last byte of log.
    pub fn end(&self) -> Lsn {
        self.start.plus(self.bytes)
    }

    /// The bytes of log that the file is long enough to hold: fewer than `bytes` only if it was cut.
    pub(crate) fn present(&self) -> u64 {
        let present = self.file_len.saturating_sub(SEGMENT_HEADER_BYTES);
        (present - present % SEGMENT_HEADER_BYTES).min(self.bytes)
    }

    /// Its file has the name of another segment, or of none.
    fn is_misnamed(&self) -> bool {
        start_by_name(&self.path) != Some(self.start.0)
    }

    /// No record in the file belongs where it lies.
    fn is_unwritten(&self, disk: &dyn Disk) -> Result<bool, WalError> {
        let mut written = self.present() < self.bytes;
        if !written {
            let (start, end) = (self.start.0, self.end().0);
            own_blocks(disk, &self.path, start, start, end, &mut |_| {
                written = true;
                Ok(())
            })?;
        }
        Ok(!written)
    }

    /// The file offset of the byte of log at `lsn`, which lies in this segment or at its end.
    pub(crate) fn offset_of(&self, lsn: u64) -> u64 {
        SEGMENT_HEADER_BYTES + (lsn - self.start.0)
    }
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct SegmentHeader {
    magic: [u8; 8],
    version: U32,
    /// The opening in which the segment was made or taken into use again.
    opening: U32,
    database_id: [u8; 16],
    /// LSN of the first byte of log.
    start: U64,
    /// Bytes of log in this segment.
    bytes: U64,
    reserved: [u8; 12],
    /// CRC-32C of everything before it.
    crc: U32,
}

/// Zeros between the header and the log.
const PADDING: usize = SEGMENT_HEADER_BYTES as usize - size_of::<SegmentHeader>();

pub(crate) const LAYOUT: Layout = layout!("Log segment", SegmentHeader {
    magic => "magic",
    version => "format version",
    opening => "opening",
    database_id => "database id",
    start => "start",
    bytes => "bytes",
    reserved => "reserved",
    crc => "checksum",
})
.then(&[Tail::between("zeros", PADDING, PADDING), Tail::any("log")]);

const _: () = assert!(size_of::<SegmentHeader>() == CHECKED_BYTES + size_of::<u32>());

impl SegmentHeader {
    fn expected_crc(&self) -> u32 {
        crc32c(0, self.as_bytes().get(..CHECKED_BYTES).unwrap_or_default())
    }
}

/// The header block of a segment, [`SEGMENT_HEADER_BYTES`] long.
pub(crate) fn encode_header(database_id: [u8; 16], opening: u32, start: u64, bytes: u64) -> Vec<u8> {
    let mut header = SegmentHeader {
        magic: SEGMENT_MAGIC,
        version: U32::new(WAL_FORMAT_VERSION),
        opening: U32::new(opening),
        database_id,
        start: U64::new(start),
        bytes: U64::new(bytes),
        reserved: [0; 12],
        crc: U32::ZERO,
    };
    header.crc = U32::new(header.expected_crc());
    let mut block = header.as_bytes().to_vec();
    block.resize(SEGMENT_HEADER_BYTES as usize, 0);
    block
}

/// A header that passed every check but that of the database id.
pub(crate) struct Parsed {
    pub(crate) database_id: [u8; 16],
    pub(crate) opening: u32,
    pub(crate) start: u64,
    pub(crate) bytes: u64,
}

pub(crate) fn parse_header(block: &[u8]) -> Result<Parsed, String> {
    let Ok((header, rest)) = SegmentHeader::read_from_prefix(block) else {
        return Err(format!("{} bytes are too few for a header", block.len()));
    };
    if header.magic != SEGMENT_MAGIC {
        return Err(format!("expected the magic {SEGMENT_MAGIC:02x?}, found {:02x?}", header.magic));
    }
    let expected = header.expected_crc();
    if header.crc.get() != expected {
        return Err(format!("expected the checksum {expected:08x}, found {:08x}", header.crc.get()));
    }
    if header.version.get() != WAL_FORMAT_VERSION {
        return Err(format!(
            "format version {}; this program reads version {WAL_FORMAT_VERSION}",
            header.version.get()
        ));
    }
    if header.reserved != [0; 12] || rest.iter().any(|&byte| byte != 0) {
        return Err("reserved bytes are not zero".to_owned());
    }
    let (start, bytes) = (header.start.get(), header.bytes.get());
    if !Lsn(start).is_aligned()
        || bytes == 0
        || !bytes.is_multiple_of(SEGMENT_HEADER_BYTES)
        || start.checked_add(bytes).and_then(|end| end.checked_add(SEGMENT_HEADER_BYTES)).is_none()
    {
        return Err(format!("impossible bounds: {bytes} bytes from {}", Lsn(start)));
    }
    Ok(Parsed { database_id: header.database_id, opening: header.opening.get(), start, bytes })
}

/// The name of the segment that begins at `start`.
pub(crate) fn segment_path(dir: &Path, start: u64) -> PathBuf {
    dir.join(format!("{start:020}.log"))
}

/// The name of a segment that is being made.
pub(crate) fn unfinished_path(dir: &Path, start: u64) -> PathBuf {
    dir.join(format!("{start:020}.new"))
}

/// The name of a segment that was put out of use.
pub(crate) fn spare_path(dir: &Path, start: u64) -> PathBuf {
    dir.join(format!("{start:020}.spare"))
}

/// The position that a file name promises, if it is the name of a segment.
pub(crate) fn start_by_name(path: &Path) -> Option<u64> {
    let digits = path.file_stem()?.to_str()?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// What a directory holds.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    /// Segments with valid headers, by position.
    pub(crate) segments: Vec<SegmentInfo>,
    /// Files named like segments whose headers are not valid, with the reason.
    pub(crate) bad: Vec<(PathBuf, String)>,
    /// Segments out of use.
    pub(crate) spares: Vec<PathBuf>,
    /// Segments that were being made, the leftovers of recycling among them.
    pub(crate) unfinished: Vec<PathBuf>,
}

impl Catalogue {
    /// Reads the header of every segment in `dir`, past the page cache.
    ///
    /// [`WalError::WrongDatabase`] if one belongs to another database, [`WalError::BadSegmentHeader`] if two claim
    /// the same bytes of log.
    pub(crate) fn scan(disk: &dyn Disk, dir: &Path, database_id: [u8; 16]) -> Result<Self, WalError> {
        let mut found = Self::default();
        let mut names = disk.list(dir)?;
        names.sort_unstable();
        for name in names {
            let path = dir.join(&name);
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("log") => found.add(disk, path, database_id)?,
                Some("spare") => found.spares.push(path),
                Some("new") => found.unfinished.push(path),
                _ => {}
            }
        }
        found.segments.sort_by_key(|segment| (segment.start, segment.is_misnamed()));
        found.put_leftovers_aside(disk)?;
        for pair in found.segments.windows(2) {
            if let [one, next] = pair
                && one.end() > next.start
            {
                return Err(WalError::BadSegmentHeader {
                    file: next.path.clone(),
                    reason: format!(
                        "it begins at {}, where {} still goes on",
                        next.start,
                        one.path.display()
                    ),
                });
            }
        }
        Ok(found)
    }

    /// A segment is recycled by writing its new header and then giving it its new name. If that failed, the file keeps its
    /// old name under a header that another file got later. The file with the right name is the segment, even if its own
    /// header is damaged by now. If none has the name, no such file was ever written to, and any will do.
    fn put_leftovers_aside(&mut self, disk: &dyn Disk) -> Result<(), WalError> {
        let mut taken = None;
        let damaged: Vec<u64> = self.bad.iter().filter_map(|(path, _)| start_by_name(path)).collect();
        for segment in std::mem::take(&mut self.segments) {
            let another = taken == Some(segment.start) || damaged.contains(&segment.start.0);
            if another && segment.is_misnamed() && segment.is_unwritten(disk)? {
                self.unfinished.push(segment.path);
            } else {
                taken = Some(segment.start);
                self.segments.push(segment);
            }
        }
        Ok(())
    }

    fn add(&mut self, disk: &dyn Disk, path: PathBuf, database_id: [u8; 16]) -> Result<(), WalError> {
        let file = disk.open_direct(&path, OpenMode::Read)?;
        let file_len = file.len()?;
        if file_len < SEGMENT_HEADER_BYTES {
            self.bad.push((path, format!("the file has only {file_len} bytes")));
            return Ok(());
        }
        let mut block = AlignedBuf::zeroed(SEGMENT_HEADER_BYTES as usize);
        file.read_at(block.as_aligned_mut(), 0)?;
        match parse_header(&block) {
            Ok(header) if header.database_id != database_id => Err(WalError::WrongDatabase {
                file: path,
                expected: hex(&database_id),
                found: hex(&header.database_id),
            }),
            Ok(header) => {
                self.segments.push(SegmentInfo {
                    path,
                    start: Lsn(header.start),
                    bytes: header.bytes,
                    opening: header.opening,
                    file_len,
                });
                Ok(())
            }
            Err(reason) => {
                self.bad.push((path, reason));
                Ok(())
            }
        }
    }

    /// The index of the segment that holds the byte of log at `lsn`.
    pub(crate) fn holding(&self, lsn: u64) -> Option<usize> {
        let after = self.segments.partition_point(|segment| segment.start.0 <= lsn);
        let index = after.checked_sub(1)?;
        (self.segments.get(index)?.end().0 > lsn).then_some(index)
    }

    /// The index of the segment in which a log that ends at `lsn` goes on: the one that holds the byte at `lsn`, or
    /// else, where a segment was lost, the one that ends there.
    pub(crate) fn ending_at(&self, lsn: u64) -> Option<usize> {
        self.holding(lsn).or_else(|| lsn.checked_sub(1).and_then(|before| self.holding(before)))
    }

    /// The file with a bad header that, by its name, ought to hold `lsn`.
    pub(crate) fn bad_for(&self, lsn: u64) -> Option<&(PathBuf, String)> {
        let good = self.segments.iter().map(|segment| segment.start.0).filter(|&start| start <= lsn).max();
        self.bad
            .iter()
            .filter_map(|bad| Some((start_by_name(&bad.0)?, bad)))
            .filter(|&(start, _)| start <= lsn && good.is_none_or(|good| good < start))
            .max_by_key(|&(start, _)| start)
            .map(|(_, bad)| bad)
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_lies_as_the_table_says() {
        let block = encode_header(*b"0123456789abcdef", 0x0102, 0x0304 * 8, 0x10_0000);
        let mut expected = vec![0; 4096];
        expected[..8].copy_from_slice(b"BEDSTLOG");
        expected[8..12].copy_from_slice(&WAL_FORMAT_VERSION.to_le_bytes());
        expected[12..14].copy_from_slice(&[2, 1]);
        expected[16..32].copy_from_slice(b"0123456789abcdef");
        expected[32..34].copy_from_slice(&[0x20, 0x18]);
        expected[42] = 0x10;
        let crc = crc32c(0, &expected[..60]);
        expected[60..64].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(block, expected);
        let parsed = parse_header(&block).unwrap();
        assert_eq!((parsed.start, parsed.bytes, parsed.opening), (0x0304 * 8, 0x10_0000, 0x0102));
    }

    #[test]
    fn no_bit_of_a_header_may_differ_and_no_length_panics() {
        let block = encode_header([7; 16], 1, 0, 65536);
        for byte in (0..64).chain([64, 4095]) {
            for bit in 0..8 {
                let mut bad = block.clone();
                bad[byte] ^= 1 << bit;
                assert!(parse_header(&bad).is_err(), "bit {bit} of byte {byte}");
            }
        }
        for len in 0..64 {
            assert!(parse_header(&block[..len]).is_err());
        }
        for (start, bytes) in [(4, 4096), (0, 0), (0, 100), (u64::MAX - 4095, 4096), (8, u64::MAX - 4095)] {
            assert!(parse_header(&encode_header([7; 16], 1, start, bytes)).is_err(), "{start} {bytes}");
        }
    }

    #[test]
    fn names() {
        let dir = Path::new("d");
        assert_eq!(segment_path(dir, 42), Path::new("d/00000000000000000042.log"));
        assert_eq!(start_by_name(&segment_path(dir, u64::MAX)), Some(u64::MAX));
        for name in ["42.log", "x0000000000000000042.log", "99999999999999999999.log", ""] {
            assert_eq!(start_by_name(Path::new(name)), None, "{name}");
        }
    }
}
