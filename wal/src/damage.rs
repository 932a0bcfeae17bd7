//! Telling a torn tail from damage.
//!
//! A crash may leave any part of what was appended after the last sync: a hole may have whole records behind it. So
//! records behind the end prove nothing by being there. But every record states how far the log was durable when it
//! was appended, and that statement proves damage if it reaches past the end: those bytes had been on the medium.
//! The header alone makes the statement, under its own checksum, so it counts even where its payload is torn.
//! Two more witnesses: the superblock, which states how far the log reached when a checkpoint relied on it; and the
//! segments, which become part of the log one after the other, each durable before the next is begun.

use std::path::PathBuf;

use zerocopy::FromBytes;

use crate::error::WalError;
use crate::lsn::Lsn;
use crate::reader::{EndReason, LogEnd, LogReader};
use crate::record::{LSN_OFFSET, RECORD_HEADER_BYTES, RecordHeader};
use crate::segment::SEGMENT_HEADER_BYTES;
use crate::stream::Stream;

/// What a file with the name of a segment must be.
const WHOLE_AND_NAMED: &str = "a segment is whole and durable before it gets its name";

/// Whether the end of the log is what a crash leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndState {
    /// Nothing that was durable is missing, as far as can be told.
    Torn,
    /// Bytes that had been durable are missing or changed.
    Damaged {
        /// The segment file.
        file: PathBuf,
        /// Byte offset in the file.
        offset: u64,
        /// The position: the first that cannot be read as a record.
        lsn: Lsn,
        /// What was found there, and what proves that it had been durable.
        why: String,
    },
}

impl EndState {
    /// `Ok` for a torn tail, [`WalError::Damaged`] for damage.
    pub fn into_result(self) -> Result<(), WalError> {
        match self {
            EndState::Torn => Ok(()),
            EndState::Damaged { file, offset, lsn, why } => {
                Err(WalError::Damaged { file, offset, lsn, reason: why })
            }
        }
    }
}

/// Tells whether the log that `reader` has read to its end was cut by a crash or is damaged. `required` is the
/// position that the superblock says the log had reached ([`Lsn::ZERO`] if nothing is known). Reads the rest of the
/// last segment and all later ones.
///
/// [`WalError::Config`] if `reader` is not at the end of the log; [`WalError::Io`].
pub fn classify_end(reader: &LogReader, required: Lsn) -> Result<EndState, WalError> {
    let Some(end) = reader.end() else {
        return Err(WalError::Config {
            what: "the log must be read to its end before the end is judged".to_owned(),
        });
    };
    let damaged = |proof: String| {
        let goes_on = end.goes_on.iter().map(|next| format!(" (the record reaches into {})", next.display()));
        let why = format!("{}{}, though {proof}", end.reason, goes_on.collect::<String>());
        Ok(EndState::Damaged { file: end.segment.clone(), offset: end.offset, lsn: end.lsn, why })
    };
    match end.reason {
        EndReason::MissingSegment => return damaged("segments are made one after the other".to_owned()),
        EndReason::LastSegmentEnds => {
            let rule = "a segment's last bytes are used only after the next one is durable";
            return damaged(rule.to_owned());
        }
        EndReason::BadSegmentHeader => {
            // The record begins in one segment; what is damaged is the header of the next, or of one after that.
            let mut at = end.lsn.0;
            while let Some(segment) = reader.catalogue.holding(at).and_then(|i| reader.segments().get(i)) {
                at = segment.end().0;
            }
            return match reader.catalogue.bad_for(at) {
                Some((file, reason)) => {
                    let why = format!("{reason}, though {WHOLE_AND_NAMED}");
                    Ok(EndState::Damaged { file: file.clone(), offset: 0, lsn: end.lsn, why })
                }
                None => damaged(WHOLE_AND_NAMED.to_owned()),
            };
        }
        EndReason::SegmentCut { .. } => {
            let here = reader.segments().iter().filter(|segment| segment.end() > end.lsn);
            return match here.into_iter().find(|segment| segment.present() < segment.bytes) {
                Some(cut) => {
                    let (file, offset) = (cut.path.clone(), cut.file_len);
                    let why = format!("{}, though {WHOLE_AND_NAMED}", end.reason);
                    Ok(EndState::Damaged { file, offset, lsn: end.lsn, why })
                }
                None => damaged(WHOLE_AND_NAMED.to_owned()),
            };
        }
        EndReason::BadHeader => return damaged("its checksum matches".to_owned()),
        _ => {}
    }
    if end.lsn < required {
        return damaged(format!("the last checkpoint relied on the log up to {required}"));
    }
    if let Some(segment) = reader.segments().iter().find(|segment| segment.path == end.segment)
        && segment.present() < segment.bytes
    {
        return damaged(format!(
            "the file has only {} of its {} bytes",
            segment.file_len,
            SEGMENT_HEADER_BYTES + segment.bytes
        ));
    }
    match find_witness(reader, end)? {
        Some((witness, durable)) => {
            damaged(format!("the record at {witness} states that the log was durable up to {durable}"))
        }
        None => Ok(EndState::Torn),
    }
}

/// A valid record header behind the end whose durable LSN lies past the end.
fn find_witness(reader: &LogReader, end: &LogEnd) -> Result<Option<(Lsn, Lsn)>, WalError> {
    let mut scan = Stream::new(reader.disk.clone(), reader.catalogue.clone());
    let mut check = Stream::new(reader.disk.clone(), reader.catalogue.clone());
    let mut candidates = Vec::new();
    for segment in reader.segments() {
        let limit = segment.start.0 + segment.present();
        let mut lsn = end.lsn.0.max(segment.start.0);
        while lsn < limit {
            let Ok(bytes) = scan.slice_at(lsn)? else { break };
            own_positions(bytes, lsn, &mut candidates);
            lsn += bytes.len() as u64;
            for candidate in candidates.drain(..).filter(|&candidate| candidate > end.lsn.0) {
                let mut header = [0; RECORD_HEADER_BYTES];
                if check.read(candidate, &mut header)?.is_some() {
                    continue;
                }
                let Ok(header) = RecordHeader::read_from_bytes(&header) else { continue };
                if header.crc.get() == header.expected_crc(reader.seed)
                    && header.lsn.get() == candidate
                    && header.opening.get() >= end.opening
                    && header.durable.get() > end.lsn.0
                {
                    return Ok(Some((Lsn(candidate), Lsn(header.durable.get()))));
                }
            }
        }
    }
    Ok(None)
}

/// Adds to `found` the position of every record header in `bytes`, which begin at the aligned position `lsn`, whose
/// LSN field gives the header's own position.
pub(crate) fn own_positions(bytes: &[u8], lsn: u64, found: &mut Vec<u64>) {
    let (words, _) = bytes.as_chunks::<8>();
    for (at, word) in (lsn..).step_by(8).zip(words) {
        if u64::from_le_bytes(*word).checked_add(LSN_OFFSET) == Some(at) {
            found.push(at - LSN_OFFSET);
        }
    }
}
