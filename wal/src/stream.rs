//! The log as one stream of bytes over its segments, read past the page cache through a window.

use std::sync::Arc;

use bedstone_io::{ALIGN, AlignedBuf, AlignedSliceMut, DirectFile, Disk, OpenMode};

use crate::error::WalError;
use crate::segment::{Catalogue, SEGMENT_HEADER_BYTES, SegmentInfo};

/// Bytes read at once.
const WINDOW_BYTES: usize = 1 << 20;

/// Why bytes of the stream are not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Gap {
    /// No segment goes on here, and none is later.
    LastSegmentEnds,
    /// No segment goes on here, though a later one exists.
    MissingSegment,
    /// The segment here has a bad header.
    BadSegmentHeader,
    /// The file is shorter than its header says.
    SegmentCut {
        /// Length by the header.
        expected: u64,
        /// Length.
        found: u64,
    },
}

/// Reads bytes of log by their position.
#[derive(Debug)]
pub(crate) struct Stream {
    disk: Arc<dyn Disk>,
    catalogue: Arc<Catalogue>,
    window: Option<Window>,
}

#[derive(Debug)]
struct Window {
    /// Index of the segment in the catalogue.
    segment: usize,
    file: Arc<dyn DirectFile>,
    buf: AlignedBuf,
    /// Offset in the file of the first valid byte of `buf`, a multiple of [`ALIGN`].
    offset: u64,
    /// Valid bytes of `buf`, a multiple of [`ALIGN`].
    len: usize,
}

impl Stream {
    pub(crate) fn new(disk: Arc<dyn Disk>, catalogue: Arc<Catalogue>) -> Self {
        Self { disk, catalogue, window: None }
    }

    /// Fills `out` with the bytes of log from `lsn` on, or says why they are not all there.
    pub(crate) fn read(&mut self, mut lsn: u64, mut out: &mut [u8]) -> Result<Option<Gap>, WalError> {
        while !out.is_empty() {
            let here = match self.slice_at(lsn)? {
                Ok(here) => here,
                Err(gap) => return Ok(Some(gap)),
            };
            let n = here.len().min(out.len());
            let (now, later) = out.split_at_mut(n);
            now.copy_from_slice(here.get(..n).unwrap_or_default());
            out = later;
            lsn += n as u64;
        }
        Ok(None)
    }

    /// The bytes of log from `lsn` to the end of the window that holds it; never empty.
    pub(crate) fn slice_at(&mut self, lsn: u64) -> Result<Result<&[u8], Gap>, WalError> {
        let catalogue = Arc::clone(&self.catalogue);
        let Some(index) = catalogue.holding(lsn) else {
            return Ok(Err(Self::gap_at(&catalogue, lsn)));
        };
        let Some(segment) = catalogue.segments.get(index) else {
            return Err(WalError::Internal { what: "a segment that was found is not in the catalogue" });
        };
        if lsn - segment.start.0 >= segment.present() {
            let expected = SEGMENT_HEADER_BYTES + segment.bytes;
            return Ok(Err(Gap::SegmentCut { expected, found: segment.file_len }));
        }
        let offset = segment.offset_of(lsn);
        let window = self.window_over(index, segment, offset)?;
        let from = (offset - window.offset) as usize;
        Ok(Ok(window.buf.get(from..window.len).unwrap_or_default()))
    }

    fn gap_at(catalogue: &Catalogue, lsn: u64) -> Gap {
        if catalogue.bad_for(lsn).is_some() {
            Gap::BadSegmentHeader
        } else if catalogue.segments.iter().any(|segment| segment.start.0 > lsn) {
            Gap::MissingSegment
        } else {
            Gap::LastSegmentEnds
        }
    }

    /// A window that holds the byte at `offset` of the segment's file.
    fn window_over(&mut self, index: usize, segment: &SegmentInfo, offset: u64) -> Result<&Window, WalError> {
        let held = self.window.as_ref().is_some_and(|window| {
            window.segment == index && (window.offset..window.offset + window.len as u64).contains(&offset)
        });
        if !held {
            let (file, mut buf) = match self.window.take() {
                Some(window) if window.segment == index => (window.file, window.buf),
                window => {
                    let file = self.disk.open_direct(&segment.path, OpenMode::Read)?;
                    (file, window.map_or_else(|| AlignedBuf::zeroed(WINDOW_BYTES), |window| window.buf))
                }
            };
            let begin = offset - offset % ALIGN as u64;
            let end = SEGMENT_HEADER_BYTES + segment.present();
            let len = (end - begin).min(buf.len() as u64) as usize;
            let target = buf.get_mut(..len).and_then(AlignedSliceMut::new);
            let Some(target) = target else {
                return Err(WalError::Internal { what: "a window of the log is not aligned" });
            };
            file.read_at(target, begin)?;
            self.window = Some(Window { segment: index, file, buf, offset: begin, len });
        }
        self.window.as_ref().ok_or(WalError::Internal { what: "the window of the log is not there" })
    }
}
