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

#![cfg_attr(loom, allow(dead_code))]

// What the protocols between threads live in. The model checker compiles these modules and no others:
// RUSTFLAGS="--cfg loom" cargo test -p bedstone-bufpool --lib --release model
mod checkpoint_epoch;
mod dirty;
mod epoch;
mod frame;
pub mod header;
mod preserved;
mod table;
mod threads;

#[cfg(all(test, loom))]
mod model;

// Everything else: memory, files, and the pool made of it all.
#[cfg(not(loom))]
mod announce;
#[cfg(not(loom))]
mod arena;
#[cfg(not(loom))]
mod check;
#[cfg(not(loom))]
mod checkpoint;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
mod evict;
#[cfg(not(loom))]
mod flush;
#[cfg(not(loom))]
pub mod format;
#[cfg(not(loom))]
mod free;
#[cfg(all(feature = "fuzzing", not(loom)))]
#[doc(hidden)]
pub mod fuzz;
#[cfg(not(loom))]
mod guard;
#[cfg(not(loom))]
mod load;
#[cfg(not(loom))]
pub mod map;
#[cfg(not(loom))]
pub mod page_file;
#[cfg(not(loom))]
pub mod policy;
#[cfg(not(loom))]
mod pool;
#[cfg(not(loom))]
mod reserve;
#[cfg(not(loom))]
mod space;
#[cfg(not(loom))]
pub mod superblock;
#[cfg(not(loom))]
pub mod units;
#[cfg(not(loom))]
mod write;

#[cfg(all(test, not(loom)))]
mod testing;
#[cfg(all(test, not(loom)))]
mod tests;

pub use header::{FORMAT_VERSION, HEADER_BYTES, PageHeader, PageId, PageKind, max_lsn, raise_max_lsn};
#[cfg(not(loom))]
pub use {
    announce::Announcement,
    arena::prefetch,
    check::SpaceReport,
    checkpoint::{Checkpoint, CheckpointParams, Pause},
    error::{PoolError, Result},
    free::{OwnedTicket, Ticket},
    guard::{Guard, PagePin, PageState, Word},
    pool::{
        Access, Background, FRAMES_MIN, FormatParams, PAGE_SIZE_MAX, PAGE_SIZE_MIN, PolicyKind, Pool,
        PoolConfig, PoolStats, VerifyPage,
    },
    reserve::Reserve,
    superblock::Superblock,
    units::UNIT,
    write::{InnerLock, LeafLatch, NewPage, PageMut},
};
