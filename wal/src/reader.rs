//! Reading records in order, past the page cache, to the end of the log.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bedstone_io::defect::{self, Defect};
use bedstone_io::{Disk, crc32c};
use zerocopy::{FromBytes, IntoBytes};

use crate::error::WalError;
use crate::lsn::Lsn;
use crate::record::{MAX_PAYLOAD, RECORD_HEADER_BYTES, RecordHeader, crc_seed, padding, record_bytes};
use crate::segment::{Catalogue, SegmentInfo, segment_path};
use crate::stream::{Gap, Stream};

/// One record, as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where it begins.
    pub lsn: Lsn,
    /// Where it ends: the position of the next one.
    pub end: Lsn,
    /// Its kind.
    pub kind: u8,
    /// The opening that appended it.
    pub opening: u32,
    /// The durable LSN when it was appended.
    pub durable_lsn: Lsn,
    /// The payload.
    pub payload: &'a [u8],
}

/// Why the log ends where it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndReason {
    /// Space that was prepared and never written.
    ZeroTail,
    /// The header's checksum does not match.
    BadChecksum {
        /// The checksum of what was read.
        expected: u32,
        /// The checksum that was stored.
        found: u32,
    },
    /// The header is valid, the payload's checksum does not match.
    BadPayloadChecksum {
        /// The checksum that was stored.
        expected: u32,
        /// The checksum of what was read.
        found: u32,
    },
    /// A valid record of another position: what a recycled segment held before.
    WrongLsn {
        /// The position it gives.
        found: Lsn,
    },
    /// A valid record of an earlier opening than the record before it.
    OlderOpening {
        /// Its opening.
        found: u32,
        /// The newest opening read.
        newest: u32,
    },
    /// A valid header with a length, or with reserved bytes, that no writer produces.
    BadHeader,
    /// The last segment ends before the record does.
    LastSegmentEnds,
    /// The segment that ought to follow is missing while a later one exists.
    MissingSegment,
    /// The segment that ought to follow has a bad header.
    BadSegmentHeader,
    /// The file is shorter than its header says.
    SegmentCut {
        /// Its length by its header, in bytes.
        expected: u64,
        /// Its length.
        found: u64,
    },
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EndReason::ZeroTail => f.write_str("found zeros"),
            EndReason::BadChecksum { expected, found } => {
                write!(f, "expected the header's checksum {expected:08x}, found {found:08x}")
            }
            EndReason::BadPayloadChecksum { expected, found } => {
                write!(f, "expected the payload's checksum {expected:08x}, found {found:08x}")
            }
            EndReason::WrongLsn { found } => write!(f, "found a record that belongs at {found}"),
            EndReason::OlderOpening { found, newest } => {
                write!(f, "found a record of opening {found} after one of opening {newest}")
            }
            EndReason::BadHeader => f.write_str("found a length or reserved bytes that are not possible"),
            EndReason::LastSegmentEnds => f.write_str("the last segment ends and no other follows"),
            EndReason::MissingSegment => f.write_str("the next segment is missing and a later one exists"),
            EndReason::BadSegmentHeader => f.write_str("the next segment has a bad header"),
            EndReason::SegmentCut { expected, found } => {
                write!(f, "the file has {found} bytes where its header says {expected}")
            }
        }
    }
}

impl From<Gap> for EndReason {
    fn from(gap: Gap) -> Self {
        match gap {
            Gap::LastSegmentEnds => EndReason::LastSegmentEnds,
            Gap::MissingSegment => EndReason::MissingSegment,
            Gap::BadSegmentHeader => EndReason::BadSegmentHeader,
            Gap::SegmentCut { expected, found } => EndReason::SegmentCut { expected, found },
        }
    }
}

/// Where the log ends.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogEnd {
    /// Where reading began: the replay LSN.
    pub from: Lsn,
    /// The end of the last valid record.
    pub lsn: Lsn,
    /// The segment file in which the end lies.
    pub segment: PathBuf,
    /// The byte offset of the end in that file.
    pub offset: u64,
    /// The newest opening among the records read; 0 if there were none.
    pub opening: u32,
    /// Why the log ends there.
    pub reason: EndReason,
    /// The next segment's file, where the record that is wrong reaches into it.
    pub goes_on: Vec<PathBuf>,
}

/// Reads records in order. Its memory is one record and a window of 1 MiB.
#[derive(Debug)]
pub struct LogReader {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) seed: u32,
    stream: Stream,
    from: Lsn,
    position: Lsn,
    newest_opening: u32,
    payload: Vec<u8>,
    end: Option<LogEnd>,
}

impl LogReader {
    /// Prepares to read the log in `dir` from `from` on, which must be the position of a record or the end of the
    /// log.
    ///
    /// [`WalError::MissingSegment`] or [`WalError::BadSegmentHeader`] if no segment holds `from`;
    /// [`WalError::WrongDatabase`] if a segment is not of `database_id`; [`WalError::Io`].
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, database_id: [u8; 16], from: Lsn) -> Result<Self, WalError> {
        if !from.is_aligned() {
            return Err(WalError::Config { what: format!("no record begins at {from}") });
        }
        let catalogue = Catalogue::scan(&*disk, dir, database_id)?;
        if catalogue.holding(from.0).is_none() {
            if let Some((file, reason)) = catalogue.bad_for(from.0) {
                return Err(WalError::BadSegmentHeader { file: file.clone(), reason: reason.clone() });
            }
            return Err(WalError::MissingSegment { lsn: from, file: segment_path(dir, from.0) });
        }
        let catalogue = Arc::new(catalogue);
        Ok(Self {
            stream: Stream::new(Arc::clone(&disk), Arc::clone(&catalogue)),
            disk,
            catalogue,
            seed: crc_seed(&database_id),
            from,
            position: from,
            newest_opening: 0,
            payload: Vec::new(),
            end: None,
        })
    }

    /// The next record, or `None` at the end of the log; then [`LogReader::end`] tells where and why.
    ///
    /// [`WalError::Io`] if the medium could not be read; the same record is tried again by the next call.
    #[expect(
        clippy::should_implement_trait,
        reason = "the record borrows the reader, which an iterator cannot"
    )]
    pub fn next(&mut self) -> Result<Option<Record<'_>>, WalError> {
        if self.end.is_some() {
            return Ok(None);
        }
        match self.read_record()? {
            Ok(header) => {
                let lsn = self.position;
                let len = header.len.get() as usize;
                let end = lsn.plus(record_bytes(len));
                self.position = end;
                self.newest_opening = header.opening.get();
                Ok(Some(Record {
                    lsn,
                    end,
                    kind: header.kind,
                    opening: header.opening.get(),
                    durable_lsn: Lsn(header.durable.get()),
                    payload: self.payload.get(..len).unwrap_or_default(),
                }))
            }
            Err(reason) => {
                self.end = Some(self.end_here(reason)?);
                Ok(None)
            }
        }
    }

    /// Where and why the log ends; `None` until [`LogReader::next`] has returned `None`.
    pub fn end(&self) -> Option<&LogEnd> {
        self.end.as_ref()
    }

    /// Where the next record would begin.
    pub fn position(&self) -> Lsn {
        self.position
    }

    /// All segments of the directory, in the order of their positions, older and later ones too.
    pub fn segments(&self) -> &[SegmentInfo] {
        &self.catalogue.segments
    }

    /// Reads the record at the present position; its payload and padding go to `self.payload`.
    fn read_record(&mut self) -> Result<Result<RecordHeader, EndReason>, WalError> {
        let lsn = self.position.0;
        let mut bytes = [0; RECORD_HEADER_BYTES];
        if let Some(gap) = self.stream.read(lsn, &mut bytes)? {
            return Ok(Err(gap.into()));
        }
        let header = match self.check_header(&bytes) {
            Ok(header) => header,
            Err(reason) => return Ok(Err(reason)),
        };
        let len = header.len.get() as usize;
        self.payload.resize(len + padding(len), 0);
        if let Some(gap) = self.stream.read(lsn + RECORD_HEADER_BYTES as u64, &mut self.payload)? {
            return Ok(Err(gap.into()));
        }
        let (expected, found) = (header.payload_crc.get(), crc32c(0, &self.payload));
        // The rule, here and for the header: only what has its checksum is a record.
        if expected != found && !defect::is(Defect::IgnoreLogChecksum) {
            return Ok(Err(EndReason::BadPayloadChecksum { expected, found }));
        }
        Ok(Ok(header))
    }

    fn check_header(&self, bytes: &[u8]) -> Result<RecordHeader, EndReason> {
        let header = RecordHeader::read_from_bytes(bytes).map_err(|_| EndReason::BadHeader)?;
        if header.is_zero() {
            return Err(EndReason::ZeroTail);
        }
        let (expected, found) = (header.expected_crc(self.seed), header.crc.get());
        if expected != found && !defect::is(Defect::IgnoreLogChecksum) {
            return Err(EndReason::BadChecksum { expected, found });
        }
        if header.lsn.get() != self.position.0 {
            return Err(EndReason::WrongLsn { found: Lsn(header.lsn.get()) });
        }
        if header.opening.get() < self.newest_opening {
            return Err(EndReason::OlderOpening { found: header.opening.get(), newest: self.newest_opening });
        }
        if header.len.get() as usize > MAX_PAYLOAD || header.reserved.as_bytes() != [0; 7] {
            return Err(EndReason::BadHeader);
        }
        Ok(header)
    }

    fn end_here(&self, reason: EndReason) -> Result<LogEnd, WalError> {
        let index = self.catalogue.ending_at(self.position.0);
        let Some(segment) = index.and_then(|index| self.catalogue.segments.get(index)) else {
            return Err(WalError::Internal { what: "the log ends in no segment" });
        };
        let payload = match reason {
            EndReason::BadPayloadChecksum { .. } => self.payload.len() as u64,
            _ => 0,
        };
        let looked_at = self.position.plus(RECORD_HEADER_BYTES as u64 + payload);
        let later = self.catalogue.segments.iter().filter(|later| later.start.0 >= segment.end().0);
        let goes_on = later.take_while(|later| later.start < looked_at).map(|later| later.path.clone());
        Ok(LogEnd {
            from: self.from,
            lsn: self.position,
            segment: segment.path.clone(),
            offset: segment.offset_of(self.position.0),
            opening: self.newest_opening,
            reason,
            goes_on: goes_on.collect(),
        })
    }
}
