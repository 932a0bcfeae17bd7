//! Memory from the allocator at a chosen alignment. This module exists because `Vec<u8>` promises no
//! alignment beyond one byte; all `unsafe` needed to own such memory is in here.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

use crate::buf::{ALIGN, AlignedSlice, AlignedSliceMut};

/// An owned buffer, aligned to [`ALIGN`], its length a multiple of it; zeroed when made.
pub struct AlignedBuf {
    /// Owned memory of `len` initialized bytes; no allocation stands behind it while `len` is 0.
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the buffer owns its memory alone and hands it out only under the borrow rules of `&self` and `&mut
// self`, as a `Vec<u8>` does.
unsafe impl Send for AlignedBuf {}
// SAFETY: through `&AlignedBuf` the bytes can only be read.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// `len` bytes of zeros; `len` is rounded up to a multiple of [`ALIGN`]. Ends the process as every failed
    /// allocation of Rust does; see [`AlignedBuf::try_zeroed`].
    ///
    /// # Panics
    /// If `len` is more than an address space can hold.
    pub fn zeroed(len: usize) -> Self {
        let layout = layout_of(len).expect("the length of an aligned buffer exceeds the address space");
        Self::allocate(layout).unwrap_or_else(|| handle_alloc_error(layout))
    }

    /// The same, or `None` if the memory is not to be had.
    pub fn try_zeroed(len: usize) -> Option<Self> {
        Self::allocate(layout_of(len)?)
    }

    /// A copy of `bytes`, filled up with zeros to a multiple of [`ALIGN`].
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buf = Self::zeroed(bytes.len());
        buf[..bytes.len()].copy_from_slice(bytes);
        buf
    }

    fn allocate(layout: Layout) -> Option<Self> {
        let len = layout.size();
        if len == 0 {
            return Some(Self { start: NonNull::new(ptr::without_provenance_mut(ALIGN))?, len });
        }
        // SAFETY: the layout's size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Self { start, len })
    }

    /// The whole buffer, for a write.
    pub fn as_aligned(&self) -> AlignedSlice<'_> {
        AlignedSlice::of_owner(self)
    }

    /// The whole buffer, for a read.
    pub fn as_aligned_mut(&mut self) -> AlignedSliceMut<'_> {
        AlignedSliceMut::of_owner(self)
    }
}

/// The layout of a buffer for `len` bytes, or `None` if no allocation can be that large.
fn layout_of(len: usize) -> Option<Layout> {
    Layout::from_size_align(len.checked_next_multiple_of(ALIGN)?, ALIGN).ok()
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        if self.len != 0 {
            let layout =
                Layout::from_size_align(self.len, ALIGN).expect("it was a valid layout when allocated");
            // SAFETY: `start` came from `alloc_zeroed` with this very layout, and nobody else frees it.
            unsafe { dealloc(self.start.as_ptr(), layout) }
        }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes from `start` are owned and initialized (zeroed when allocated); for `len` 0 any
        // non-null aligned address will do.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` is the only way to the bytes while this borrow lives.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Clone for AlignedBuf {
    fn clone(&self) -> Self {
        Self::copy_of(self)
    }
}

impl Default for AlignedBuf {
    fn default() -> Self {
        Self::zeroed(0)
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuf").field("len", &self.len).finish_non_exhaustive()
    }
}
