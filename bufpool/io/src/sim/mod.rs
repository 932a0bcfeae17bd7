//! The simulated disk, for tests: it loses, tears, reorders and fails on demand, and repeats itself by seed.
//!
//! # What is modelled
//!
//! **Bytes.** Every write is volatile until a sync of its file has returned. A buffered write goes to the page cache,
//! a direct one to the device's cache (after what is dirty in the page cache); both are seen by every later read.
//! A direct read first hands what is dirty in the page cache to the device, as the kernel does. A sync covers all
//! writes to the file that returned before it, through whichever handle.
//!
//! **Power cuts** ([`SimDisk::power_cut`], [`SimDisk::set_cut_after`], [`SimDisk::set_cut_at`]). Of what no sync covered, all survives, none, or
//! ([`CutMode::Random`]) each write for itself: whole, not at all, or torn, some of its 512-byte sectors written and
//! others not. Later writes may survive where earlier ones do not. All handles are dead afterwards.
//!
//! **Lengths.** A sync makes the length durable. Without one the length after a cut is that of some moment since the
//! last sync (lengths are metadata, and journals keep their order), whatever became of the bytes: bytes may be
//! there without the length, hence gone, and the length without the bytes, which then read as zeros.
//!
//! **Names.** Creating, renaming and removing are volatile until the directory is synced; a sync of the file itself
//! promises nothing about its name. Without it each change survives a random cut for itself, but a rename is atomic: the
//! file has the old name or the new one, and a file it replaces is there until then. A rename between
//! directories is made durable by a sync of the new name's directory. A new directory is a name in its parent.
//!
//! **Failed syncs** behave as on Linux (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020): what
//! the sync should have covered counts as clean. Buffered reads still see it while it stays in the page cache
//! ([`SimDisk::drop_cache`] takes it away), direct reads see what had reached the device, no later sync brings it to the
//! medium, and every cut loses it, [`CutMode::Keep`] included. Lengths may still become durable. Likewise a failed sync
//! of a directory.
//!
//! **The end of a process.** [`SimDisk::reopen`] without a cut keeps both caches and frees locks, as `kill -9` does.
//!
//! **Faults** ([`SimDisk::fail_nth`]). The n-th operation of a kind fails, does half of its work, or lies.
//!
//! **Space** ([`SimDisk::set_capacity`]). Each file takes its length in whole blocks. A write that would grow its file
//! beyond the room does as much as fits, then fails with ENOSPC; allocating for direct files does nothing then.
//! Writes below a file's length always find room.
//!
//! **Rot** ([`SimDisk::flip_bit`], [`SimDisk::swap`], [`SimDisk::restore_file`] and others).
//!
//! **Batches** are carried out in a random order, each operation with its own result, and other threads' operations
//! may come between.
//!
//! **Time** is a counter moved by operations and by [`SimDisk::advance`]. Nothing ever waits.
//!
//! # Severer than a real system
//!
//! Unsynced writes survive or not by themselves even if they share a sector or a page. A real kernel writes whole
//! pages in their newest state, so there a later write into a page takes earlier ones along; after a failed sync
//! it may even bring lost bytes back that share a page with new ones. No sound program relies on either.
//!
//! # What is not modelled
//!
//! A sector is written whole or not at all, and a torn write leaves its neighbours alone. A file that grew without its
//! bytes reads as zeros there, never as an earlier file's contents (ext4 in ordered mode and XFS keep that promise).
//! Once a sync returned, its bytes stay, unless [`Fault::LyingSync`] or the rot helpers say otherwise. Holes
//! take as much space as data. Errors of background write-back are not reported at a later sync of another handle.
//! Operations take effect one at a time, in the order in which they got the medium's lock: bytes of two
//! concurrent writes are never mixed.
//!
//! # Determinism
//!
//! All choices come from one generator. A medium that is used by one thread, and is asked the same in the same order
//! with the same seed, gives the same answers and the same surviving bytes (except for the process id in lock files).

mod cut;
mod disk;
mod fault;
mod file;
mod image;
mod node;
mod rng;
mod rot;
mod state;
mod trace;
mod tree;

#[cfg(test)]
mod tests;

pub use cut::CutMode;
pub use disk::SimDisk;
pub use fault::{Fault, OpKind, Repeat};
pub use rot::Snapshot;
pub use state::SimStats;
pub use trace::{Phase, TraceDisk, TraceEvent};
