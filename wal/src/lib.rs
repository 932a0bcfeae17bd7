//! Bedstone's redo log: a stream of records in preallocated segment files, appended through the page cache, made
//! durable by `fdatasync` for many commits at once, and read back past the page cache.
//!
//! Record bodies are opaque here. The words: an [`Lsn`] is a byte position in the stream; the **tail** is the end of
//! what was appended to the log buffer; **written** is the end of what the kernel has; **durable** is the end of what
//! is on the medium for certain; a **segment** is a file that holds a fixed stretch of the stream; a **credit**
//! ([`SpaceCredit`]) is a right to append into prepared space, so that a full disk is met before anything happened.
//!
//! What always holds:
//! 1. durable <= written <= tail <= end of the prepared segments.
//! 2. The credits given out never exceed the prepared space beyond the tail.
//! 3. A wait for [`Durability::Sync`] returns `Ok` only after an `fdatasync` that began when every byte up to its
//!    LSN had been written, and after every sync that began earlier has succeeded.
//! 4. After one failed write or sync no wait that was not satisfied before ever returns `Ok`.
//! 5. What survives a crash is a prefix of the stream.

#![forbid(unsafe_code)]

mod background;
mod buffer;
mod config;
mod damage;
mod error;
pub mod format;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzz;
mod group;
mod lsn;
mod notify;
mod open;
mod reader;
mod record;
mod segment;
mod shared;
mod space;
mod stats;
mod stream;
mod supply;
mod waiter;
mod wal;

#[cfg(test)]
mod tests;

pub use config::{Background, Durability, WalConfig};
pub use damage::{EndState, classify_end};
pub use error::WalError;
pub use lsn::Lsn;
pub use reader::{EndReason, LogEnd, LogReader, Record};
pub use record::{MAX_PAYLOAD, RECORD_HEADER_BYTES, record_bytes};
pub use segment::{SEGMENT_HEADER_BYTES, SEGMENT_MAGIC, SegmentInfo, WAL_FORMAT_VERSION};
pub use stats::{GROUP_CLASSES, WalStats};
pub use wal::{Appended, SpaceCredit, Wal};
