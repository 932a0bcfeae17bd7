//! Anonymous memory of the pool: the frames themselves and the two arrays beside them (descriptors, translation
//! words). All of it is mapped once, aligned to 2 MiB, offered to the kernel for huge pages, left out of core dumps
//! and of forked children. Everything that is `unsafe` about raw memory is fenced in here.

use std::ptr::NonNull;

use crate::error::{PoolError, Result};
use crate::frame::FrameId;

/// Alignment of every mapping: one huge page.
const HUGE: usize = 2 << 20;

/// An anonymous, zeroed mapping, aligned to 2 MiB.
#[derive(Debug)]
struct Mapping {
    /// Aligned start of the usable bytes.
    start: NonNull<u8>,
    base: *mut libc::c_void,
    mapped: usize,
}

// SAFETY: the mapping is plain memory owned by this value; what may be done with its bytes from which thread is
// decided by the types built on it.
unsafe impl Send for Mapping {}
// SAFETY: as above; a shared `Mapping` gives out nothing but its address.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(bytes: usize, huge: bool) -> std::io::Result<Self> {
        let mapped = bytes + HUGE;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh anonymous mapping at an address the kernel chooses; nothing else is touched.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), mapped, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        let skip = base.addr().next_multiple_of(HUGE) - base.addr();
        // SAFETY: `skip` is below HUGE and `mapped` is `bytes + HUGE`, so start and all `bytes` lie in the mapping.
        let start = unsafe { base.cast::<u8>().add(skip) };
        // Advice may be refused (no huge pages configured, old kernel); the mapping works all the same.
        // SAFETY: the range lies within the mapping made above; none of these kinds of advice changes its bytes.
        unsafe {
            if huge {
                libc::madvise(start.cast(), bytes, libc::MADV_HUGEPAGE);
            }
            libc::madvise(start.cast(), bytes, libc::MADV_DONTFORK);
            libc::madvise(start.cast(), bytes, libc::MADV_DONTDUMP);
        }
        Ok(Self { start: NonNull::new(start).expect("mmap gave an address"), base, mapped })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range that mmap returned; no reference into it outlives its owner.
        unsafe { libc::munmap(self.base, self.mapped) };
    }
}

/// Types for which all-zero bytes are a valid value.
///
/// # Safety
/// The implementor promises just that.
pub(crate) unsafe trait Zeroed: Sync {}

// SAFETY: a zero atomic integer is a valid atomic integer.
#[cfg(not(loom))]
unsafe impl Zeroed for std::sync::atomic::AtomicU64 {}

/// A fixed array of shared values, zeroed at first, in a mapping of its own (pages never touched cost nothing).
#[derive(Debug)]
pub(crate) struct Array<T> {
    mapping: Mapping,
    len: usize,
    marker: std::marker::PhantomData<T>,
}

impl<T: Zeroed> Array<T> {
    pub(crate) fn new(len: usize, huge: bool) -> std::io::Result<Self> {
        let bytes = len.checked_mul(size_of::<T>()).ok_or(std::io::ErrorKind::OutOfMemory)?;
        Ok(Self { mapping: Mapping::new(bytes, huge)?, len, marker: std::marker::PhantomData })
    }
}

impl<T: Zeroed> std::ops::Deref for Array<T> {
    type Target = [T];
    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: the mapping holds `len` values of T from its (2 MiB aligned) start; it began as zeros, valid for T
        // by the promise of `Zeroed`; only shared references are ever made, so T's interior mutability governs.
        unsafe { std::slice::from_raw_parts(self.mapping.start.as_ptr().cast::<T>(), self.len) }
    }
}

/// The frames: page-sized pieces of one mapping. Who may read or write which frame when is the law of the pool
/// (see [`crate::frame`]); the methods here only turn that right into slices.
#[derive(Debug)]
pub(crate) struct Arena {
    mapping: Mapping,
    page_size: usize,
    frames: usize,
}

impl Arena {
    pub(crate) fn new(frames: usize, page_size: usize, huge: bool) -> Result<Self> {
        let bytes = frames * page_size;
        let mapping =
            Mapping::new(bytes, huge).map_err(|error| PoolError::Memory { bytes: bytes as u64, error })?;
        Ok(Self { mapping, page_size, frames })
    }

    pub(crate) fn frames(&self) -> usize {
        self.frames
    }

    #[inline]
    fn at(&self, frame: FrameId) -> *mut u8 {
        assert!((frame.0 as usize) < self.frames, "frame {frame:?} of {}", self.frames);
        // SAFETY: the frame number is below `frames`, so the offset lies within the mapping.
        unsafe { self.mapping.start.as_ptr().add(frame.0 as usize * self.page_size) }
    }

    /// The bytes of a frame, to read.
    ///
    /// # Safety
    /// For as long as the slice lives nobody may write the frame: the caller holds a pin, a latch, a reader epoch
    /// over an immutable page, or owns the frame alone.
    #[inline]
    pub(crate) unsafe fn bytes<'a>(&self, frame: FrameId) -> &'a [u8] {
        // SAFETY: `at` is in bounds for a whole page; the caller promises that no write happens meanwhile and that
        // the arena outlives 'a.
        unsafe { std::slice::from_raw_parts(self.at(frame), self.page_size) }
    }

    /// The bytes of a frame, to write.
    ///
    /// # Safety
    /// For as long as the slice lives the caller alone may touch the frame (it took it from the free list, or holds
    /// its X bit with no pins).
    #[inline]
    #[allow(clippy::mut_from_ref, reason = "exclusive access to the frame is the caller's promise")]
    pub(crate) unsafe fn bytes_mut<'a>(&self, frame: FrameId) -> &'a mut [u8] {
        // SAFETY: as in `bytes`, with exclusivity promised by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.at(frame), self.page_size) }
    }

    /// Starts fetching the first `lines` cache lines of a frame.
    #[inline]
    pub(crate) fn prefetch(&self, frame: FrameId, lines: usize) {
        let start = self.at(frame);
        for line in 0..lines {
            prefetch_line(start.wrapping_add(line * 64));
        }
    }
}

#[inline]
fn prefetch_line(address: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch is a hint: it reads nothing, faults on no address and changes no state Rust can see.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}

/// Starts fetching the cache lines of `bytes` (at most 8) into the processor's cache; a hint without effect on
/// other processors than x86-64.
#[inline]
pub fn prefetch(bytes: &[u8]) {
    for line in 0..bytes.len().div_ceil(64).min(8) {
        prefetch_line(bytes.as_ptr().wrapping_add(line * 64));
    }
}

/// Starts fetching the cache line that `value` begins in.
#[inline]
pub(crate) fn prefetch_value<T>(value: &T) {
    prefetch_line(std::ptr::from_ref(value).cast());
}
