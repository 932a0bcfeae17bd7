//! The page store of Bedstone: a data file of pages, and the pool of frames through which they are seen.
//!
//! Pages travel by direct I/O between the file and the pool's own memory, so nothing is cached twice. Page bodies are
//! opaque here; a B+-tree on top decides what they mean. Three laws hold it together:
//!
//! 1. **A pinned frame never changes** ([`frame`](self)). Whoever wants to change a page that somebody has pinned
//!    moves to a copy; readers, writers and checkpoints keep out of each other's way by it.
//! 2. **A block that the last durable checkpoint refers to is never overwritten.** Images go to fresh places and the
//!    switch is one superblock write: no torn pages, no page images in the log, eviction whenever one likes.
//! 3. **A failed sync, write or checksum is never smoothed over.** It reaches the caller with file, offset and page.
//!
//! The way in: [`Pool::guard`] for readers, [`Guard::latch`] and [`Guard::lock_inner`] with [`Pool::reserve`] and
//! [`Pool::announce`] for writers, [`Pool::begin_checkpoint`] for the checkpointer. All `unsafe` of the crate is in the
//! modules `arena` (raw memory), `guard` and `write` (the right to a slice of it, from the law above), `load` and
//! `flush` (the same for I/O).

mod announce;
mod arena;
mod check;
mod checkpoint;
mod checkpoint_epoch;
mod epoch;
mod error;
mod evict;
mod flush;
pub mod format;
mod frame;
mod free;
mod guard;
pub mod header;
mod load;
pub mod map;
pub mod page_file;
pub mod policy;
mod pool;
mod reserve;
mod space;
pub mod superblock;
mod table;
mod threads;
pub mod units;
mod write;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use announce::Announcement;
pub use arena::prefetch;
pub use check::SpaceReport;
pub use checkpoint::{Checkpoint, CheckpointParams};
pub use error::{PoolError, Result};
pub use free::Ticket;
pub use guard::{Guard, PagePin, PageState, Word};
pub use header::{FORMAT_VERSION, HEADER_BYTES, PageHeader, PageId, PageKind, max_lsn, raise_max_lsn};
pub use pool::{
    Access, Background, FRAMES_MIN, FormatParams, PAGE_SIZE_MAX, PAGE_SIZE_MIN, PolicyKind, Pool, PoolConfig, PoolStats,
    VerifyPage,
};
pub use reserve::Reserve;
pub use superblock::Superblock;
pub use units::UNIT;
pub use write::{InnerLock, LeafLatch, NewPage, PageMut};
