//! The one door to the medium. Every byte that Bedstone puts on a disk or reads from one passes through the
//! traits of this crate: [`Disk`] (names, directories, locks), [`DirectFile`] (data pages, past the page
//! cache) and [`LogFile`] (appends through the page cache, made durable by `fdatasync`).
//!
//! Implementations: the [`real`] disk, which sends batches through io_uring or, where that is not to be had,
//! through plain system calls spread over threads, and a simulated disk (`sim`, behind the feature of the
//! same name) that loses, tears, reorders and fails on demand.
//!
//! Admission rule: only what both the log and the page store need to put bytes on a medium lives here.
#![deny(missing_docs)]

pub mod buf;
pub mod defect;
pub mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzz;
mod heap;
pub mod layout;
pub mod real;
#[cfg(feature = "sim")]
pub mod sim;
pub mod sync;
#[cfg(any(test, feature = "sim"))]
pub mod testing;
pub mod traits;

pub use buf::{ALIGN, AlignedBuf, AlignedSlice, AlignedSliceMut};
pub use error::{IoError, Op};
pub use real::{IoChoice, RealDisk, SetupError};
pub use traits::{DirectFile, Disk, IoMode, IoReport, LockFile, LogFile, OpenMode, ReadOp, WriteOp};

/// CRC-32C of `bytes`, continuing from `seed` (0 to begin).
pub fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(seed, bytes)
}
