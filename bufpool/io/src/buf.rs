//! Aligned memory as types: a plain slice cannot reach a direct file.
//!
//! Some file systems (btrfs, tmpfs) accept misaligned direct I/O and quietly go through the page cache,
//! others (ext4, XFS) refuse it with EINVAL. With alignment in the type the mistake does not compile
//! anywhere, and it is found on the developer's tmpfs as well as on the user's ext4.

use std::ops::{Deref, DerefMut, Range};

pub use crate::heap::AlignedBuf;

/// Alignment, in bytes, of every buffer, file offset and length of direct I/O. Satisfies every file system
/// seen (512 on most, 4096 on disks with 4 KiB sectors).
pub const ALIGN: usize = 4096;

/// Borrowed bytes that may go to a direct file: address and length are multiples of [`ALIGN`].
#[derive(Debug, Clone, Copy)]
pub struct AlignedSlice<'a>(&'a [u8]);

/// Borrowed bytes that may be filled from a direct file: address and length are multiples of [`ALIGN`].
#[derive(Debug)]
pub struct AlignedSliceMut<'a>(&'a mut [u8]);

fn is_aligned(bytes: &[u8]) -> bool {
    bytes.as_ptr().addr().is_multiple_of(ALIGN) && bytes.len().is_multiple_of(ALIGN)
}

fn is_aligned_range(range: &Range<usize>, len: usize) -> bool {
    range.start <= range.end
        && range.end <= len
        && range.start.is_multiple_of(ALIGN)
        && range.end.is_multiple_of(ALIGN)
}

impl<'a> AlignedSlice<'a> {
    /// `bytes` as direct I/O takes them, or `None` if they are not aligned.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        is_aligned(bytes).then_some(Self(bytes))
    }

    /// Wraps the bytes of an [`AlignedBuf`], which are aligned by construction.
    pub(crate) fn of_owner(bytes: &'a AlignedBuf) -> Self {
        debug_assert!(is_aligned(bytes));
        Self(bytes)
    }

    /// The bytes, for as long as they are borrowed.
    pub fn into_inner(self) -> &'a [u8] {
        self.0
    }

    /// Part of it, or `None` if the range is not aligned to [`ALIGN`] or reaches beyond the end.
    pub fn get(self, range: Range<usize>) -> Option<Self> {
        is_aligned_range(&range, self.0.len()).then(|| Self(&self.0[range]))
    }

    /// Part of it.
    ///
    /// # Panics
    /// If the range is not aligned to [`ALIGN`] or reaches beyond the end.
    #[track_caller]
    pub fn slice(self, range: Range<usize>) -> Self {
        let len = self.0.len();
        self.get(range.clone()).unwrap_or_else(|| panic!("range {range:?} of {len} aligned bytes"))
    }

    /// Pieces of `size` bytes, the last one perhaps shorter.
    ///
    /// # Panics
    /// If `size` is 0 or not a multiple of [`ALIGN`].
    #[track_caller]
    pub fn chunks(
        self,
        size: usize,
    ) -> impl DoubleEndedIterator<Item = AlignedSlice<'a>> + ExactSizeIterator {
        assert!(size.is_multiple_of(ALIGN), "chunks of {size} bytes are not aligned");
        self.0.chunks(size).map(AlignedSlice)
    }
}

impl<'a> AlignedSliceMut<'a> {
    /// `bytes` as direct I/O takes them, or `None` if they are not aligned.
    pub fn new(bytes: &'a mut [u8]) -> Option<Self> {
        is_aligned(bytes).then_some(Self(bytes))
    }

    /// Wraps the bytes of an [`AlignedBuf`], which are aligned by construction.
    pub(crate) fn of_owner(bytes: &'a mut AlignedBuf) -> Self {
        debug_assert!(is_aligned(bytes));
        Self(bytes)
    }

    /// The bytes, for as long as they are borrowed.
    pub fn into_inner(self) -> &'a mut [u8] {
        self.0
    }

    /// The same bytes lent for a shorter time.
    pub fn reborrow(&mut self) -> AlignedSliceMut<'_> {
        AlignedSliceMut(self.0)
    }

    /// The same bytes, for a write.
    pub fn as_aligned(&self) -> AlignedSlice<'_> {
        AlignedSlice(self.0)
    }

    /// Part of it, or `None` if the range is not aligned to [`ALIGN`] or reaches beyond the end.
    pub fn get(self, range: Range<usize>) -> Option<Self> {
        is_aligned_range(&range, self.0.len()).then(|| Self(&mut self.0[range]))
    }

    /// Part of it.
    ///
    /// # Panics
    /// If the range is not aligned to [`ALIGN`] or reaches beyond the end.
    #[track_caller]
    pub fn slice(self, range: Range<usize>) -> Self {
        let len = self.0.len();
        self.get(range.clone()).unwrap_or_else(|| panic!("range {range:?} of {len} aligned bytes"))
    }

    /// Two parts, `mid` bytes and the rest, for as long as the whole is borrowed.
    ///
    /// # Panics
    /// If `mid` is not a multiple of [`ALIGN`] or lies beyond the end.
    #[track_caller]
    pub fn split_at(self, mid: usize) -> (Self, Self) {
        assert!(mid.is_multiple_of(ALIGN), "a split at byte {mid} is not aligned");
        let (left, right) = self.0.split_at_mut(mid);
        (Self(left), Self(right))
    }

    /// The same for a shorter time.
    ///
    /// # Panics
    /// If `mid` is not a multiple of [`ALIGN`] or lies beyond the end.
    #[track_caller]
    pub fn split_at_mut(&mut self, mid: usize) -> (AlignedSliceMut<'_>, AlignedSliceMut<'_>) {
        self.reborrow().split_at(mid)
    }

    /// Pieces of `size` bytes, the last one perhaps shorter.
    ///
    /// # Panics
    /// If `size` is 0 or not a multiple of [`ALIGN`].
    #[track_caller]
    pub fn chunks(
        self,
        size: usize,
    ) -> impl DoubleEndedIterator<Item = AlignedSliceMut<'a>> + ExactSizeIterator {
        assert!(size.is_multiple_of(ALIGN), "chunks of {size} bytes are not aligned");
        self.0.chunks_mut(size).map(AlignedSliceMut)
    }
}

impl Deref for AlignedSlice<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.0
    }
}

impl Deref for AlignedSliceMut<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.0
    }
}

impl DerefMut for AlignedSliceMut<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_zeroed_aligned_and_rounded_up() {
        for (asked, got) in [(0, 0), (1, ALIGN), (ALIGN, ALIGN), (ALIGN + 1, 2 * ALIGN)] {
            let buf = AlignedBuf::zeroed(asked);
            assert_eq!(buf.len(), got);
            assert!(buf.as_ptr().addr().is_multiple_of(ALIGN));
            assert!(buf.iter().all(|&b| b == 0));
        }
        assert!(AlignedBuf::try_zeroed(usize::MAX).is_none());
        assert!(AlignedBuf::try_zeroed(isize::MAX as usize - ALIGN).is_none());
        let copy = AlignedBuf::copy_of(b"abc").clone();
        assert_eq!(&copy[..4], b"abc\0");
    }

    #[test]
    fn misaligned_bytes_do_not_become_aligned_slices() {
        let mut buf = AlignedBuf::zeroed(2 * ALIGN);
        assert!(AlignedSlice::new(&buf[1..ALIGN + 1]).is_none());
        assert!(AlignedSlice::new(&buf[..ALIGN - 1]).is_none());
        assert!(AlignedSlice::new(&buf[ALIGN..]).is_some());
        assert!(AlignedSliceMut::new(&mut buf[512..ALIGN + 512]).is_none());
        assert!(AlignedSliceMut::new(&mut buf[..ALIGN]).is_some());
        let whole = buf.as_aligned();
        assert!(whole.get(512..ALIGN).is_none());
        assert!(whole.get(0..3 * ALIGN).is_none());
        assert!(whole.get(2 * ALIGN..2 * ALIGN).is_some());
        #[expect(clippy::reversed_empty_ranges, reason = "such a range is what is tried here")]
        let reversed = ALIGN..0;
        assert!(whole.get(reversed).is_none());
    }

    #[test]
    fn parts_are_the_bytes_they_name() {
        let mut buf = AlignedBuf::zeroed(4 * ALIGN);
        for (i, mut part) in buf.as_aligned_mut().chunks(ALIGN).enumerate() {
            part.fill(i as u8);
        }
        let whole = buf.as_aligned();
        assert_eq!(whole.chunks(2 * ALIGN).len(), 2);
        assert!(whole.slice(2 * ALIGN..3 * ALIGN).iter().all(|&b| b == 2));
        let mut whole = buf.as_aligned_mut();
        let (mut left, right) = whole.split_at_mut(ALIGN);
        left.copy_from_slice(&right[2 * ALIGN..]);
        assert_eq!(whole.as_aligned()[0], 3);
        assert_eq!(whole.slice(0..ALIGN).len(), ALIGN);
    }

    #[test]
    #[should_panic(expected = "not aligned")]
    fn a_split_between_the_blocks_panics() {
        AlignedBuf::zeroed(2 * ALIGN).as_aligned_mut().split_at_mut(512);
    }
}
