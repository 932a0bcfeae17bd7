//! The errors of the log.

use std::path::PathBuf;
use std::sync::Arc;

use bedstone_io::IoError;

use crate::lsn::Lsn;

/// What can go wrong with the log. No error of [`crate::Wal::reserve`] leaves anything changed; after an error of a
/// write or a sync the log has failed for good ([`WalError::Failed`]) and only opening the database anew helps.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalError {
    /// The medium refused an operation that nothing relied on yet.
    #[error(transparent)]
    Io(#[from] IoError),
    /// No room for another segment. Nothing has been done; it works again once there is room.
    #[error(
        "the log needs {needed} bytes and has {free} prepared in {}, and there is no space for another segment of \
         {segment_bytes} bytes; free some space and try again",
        dir.display()
    )]
    NoSpace {
        /// The directory of the segments.
        dir: PathBuf,
        /// Bytes of log asked for, with headers.
        needed: u64,
        /// Bytes of log that are prepared and promised to nobody.
        free: u64,
        /// Size of the segment that could not be made.
        segment_bytes: u64,
        /// What the system answered.
        source: IoError,
    },
    /// One record is longer than the log takes; the caller divides it.
    #[error("a record of {len} bytes is longer than the limit of {max} bytes (an eighth of the log buffer)")]
    RecordTooLarge {
        /// Length of the payload, in bytes.
        len: usize,
        /// The longest payload accepted, in bytes.
        max: usize,
    },
    /// A record was appended that the credit does not cover. Nothing has been done.
    #[error("a record takes {needed} bytes of log and the credit has {left} left; reserve more")]
    CreditTooSmall {
        /// Bytes of log the record takes.
        needed: u64,
        /// Bytes of log left in the credit.
        left: u64,
    },
    /// Bytes that had been durable are not what was written.
    #[error(
        "the log is damaged in {} at offset {offset} ({lsn}): {reason}; restore a backup, or salvage what lies before",
        file.display()
    )]
    Damaged {
        /// The segment file.
        file: PathBuf,
        /// Byte offset in the file.
        offset: u64,
        /// The position in the log.
        lsn: Lsn,
        /// What was expected and what was found.
        reason: String,
    },
    /// The log needs a segment that is not there.
    #[error(
        "the log segment that holds {lsn} is missing (expected as {}); restore it, or a backup",
        file.display()
    )]
    MissingSegment {
        /// The first position that no segment holds.
        lsn: Lsn,
        /// The name the segment would have.
        file: PathBuf,
    },
    /// A segment's header is not that of a segment.
    #[error("the header of log segment {} is not valid: {reason}; restore the file, or a backup", file.display())]
    BadSegmentHeader {
        /// The segment file.
        file: PathBuf,
        /// What was expected and what was found.
        reason: String,
    },
    /// A segment of another database lies among ours.
    #[error(
        "log segment {} belongs to another database ({found}, this one is {expected}); take it away",
        file.display()
    )]
    WrongDatabase {
        /// The segment file.
        file: PathBuf,
        /// This database's id in hexadecimal.
        expected: String,
        /// The id found, in hexadecimal.
        found: String,
    },
    /// A log was to be created where there is one with records in it.
    #[error("there is a log with records already ({}); it is not overwritten", file.display())]
    AlreadyExists {
        /// A segment that holds records.
        file: PathBuf,
    },
    /// The opening number is not larger than those in the log, so that old records could pass for new ones.
    #[error("opening number {given} is not larger than {found}, which the log holds already")]
    OpeningNotNewer {
        /// The number given.
        given: u32,
        /// The largest number found.
        found: u32,
    },
    /// A value of the configuration is out of bounds.
    #[error("configuration of the log: {what}")]
    Config {
        /// Which one, and its bounds.
        what: String,
    },
    /// The log failed earlier. Commits that were waiting are not known to be durable; opening again shows which are.
    #[error("the log has failed and takes no more commits; open the database again to recover ({0})")]
    Failed(#[source] Arc<WalError>),
    /// The log was shut down before the position was reached, so that nothing of its own will reach it any more.
    #[error("the log was shut down and makes nothing durable any more; open the database again")]
    ShutDown,
    /// The log's own bookkeeping is wrong: a defect of the program, never a matter of the medium.
    #[error("internal error of the log: {what}; please report it")]
    Internal {
        /// What does not hold.
        what: &'static str,
    },
}

impl WalError {
    /// The medium is full, and the same call may succeed once it is not.
    pub fn is_no_space(&self) -> bool {
        matches!(self, WalError::NoSpace { .. })
    }

    /// The log has failed for good and the database must be opened again.
    pub fn is_failed(&self) -> bool {
        matches!(self, WalError::Failed(_))
    }

    /// Bytes on the medium are not what they ought to be.
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            WalError::Damaged { .. }
                | WalError::MissingSegment { .. }
                | WalError::BadSegmentHeader { .. }
                | WalError::WrongDatabase { .. }
        )
    }
}
