//! Values as readers get them.

use std::fmt;
use std::io::Read;
use std::ops::{Deref, Range};

use bedstone_bufpool::PagePin;

use crate::btree::OverflowReader;

/// Values of so many bytes are copied: that costs less than holding a page for them.
const SMALL: usize = 38;

/// A value. It points into the buffer pool where it can (the page it lies in stays as it is, and stays in
/// memory, until the value is dropped), and is a copy where it is small, was stored in pages of its own, or
/// where values already hold a quarter of the pool.
pub struct Value<'t>(Held<'t>);

enum Held<'t> {
    Small { len: u8, bytes: [u8; SMALL] },
    Pinned { pin: PagePin<'t>, start: u32, end: u32 },
    Owned(Vec<u8>),
}

impl<'t> Value<'t> {
    pub(crate) fn owned(bytes: Vec<u8>) -> Self {
        Self(Held::Owned(bytes))
    }

    fn small(bytes: &[u8]) -> Option<Self> {
        let mut copy = [0; SMALL];
        copy.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self(Held::Small { len: bytes.len() as u8, bytes: copy }))
    }

    /// The value at `range` of a page whose pin is given away.
    #[inline]
    pub(crate) fn in_page(mut pin: PagePin<'t>, range: Range<usize>) -> Self {
        if let Some(small) = Self::small(&pin[range.clone()]) {
            return small;
        }
        if pin.should_copy() {
            return Self::owned(pin[range].to_vec());
        }
        Self(Held::Pinned { pin, start: range.start as u32, end: range.end as u32 })
    }

    /// The value at `range` of a page that somebody else has pinned.
    #[inline]
    pub(crate) fn in_shared_page(pin: &PagePin<'t>, range: Range<usize>) -> Self {
        if let Some(small) = Self::small(&pin[range.clone()]) {
            return small;
        }
        let mut pin = pin.clone();
        if pin.should_copy() {
            return Self::owned(pin[range].to_vec());
        }
        Self(Held::Pinned { pin, start: range.start as u32, end: range.end as u32 })
    }

    /// The bytes, copied.
    pub fn to_vec(&self) -> Vec<u8> {
        self[..].to_vec()
    }

    /// The bytes, copied unless the value is a copy on the heap already; gives the page back.
    pub fn into_owned(self) -> Vec<u8> {
        match self.0 {
            Held::Owned(bytes) => bytes,
            _ => self.to_vec(),
        }
    }

    /// The value holds a page of the pool.
    pub fn is_pinned(&self) -> bool {
        matches!(self.0, Held::Pinned { .. })
    }
}

impl Deref for Value<'_> {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Held::Small { len, bytes } => &bytes[..usize::from(*len)],
            Held::Pinned { pin, start, end } => &pin[*start as usize..*end as usize],
            Held::Owned(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Value<'_> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self[..], f)
    }
}

impl PartialEq for Value<'_> {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl Eq for Value<'_> {}

impl PartialEq<[u8]> for Value<'_> {
    fn eq(&self, other: &[u8]) -> bool {
        self[..] == *other
    }
}

impl PartialEq<&[u8]> for Value<'_> {
    fn eq(&self, other: &&[u8]) -> bool {
        self[..] == **other
    }
}

impl<const N: usize> PartialEq<[u8; N]> for Value<'_> {
    fn eq(&self, other: &[u8; N]) -> bool {
        self[..] == other[..]
    }
}

impl<const N: usize> PartialEq<&[u8; N]> for Value<'_> {
    fn eq(&self, other: &&[u8; N]) -> bool {
        self[..] == other[..]
    }
}

impl PartialEq<Vec<u8>> for Value<'_> {
    fn eq(&self, other: &Vec<u8>) -> bool {
        self[..] == other[..]
    }
}

/// A value read piece by piece; memory is bounded whatever its length. It gives the value as it was when the
/// reader was made. A failed page read or checksum comes out as an I/O error that holds the [`crate::Error`].
pub struct ValueReader<'t>(Source<'t>);

enum Source<'t> {
    Bytes { value: Value<'t>, at: usize },
    Pages(OverflowReader<'t>),
}

impl<'t> ValueReader<'t> {
    pub(crate) fn bytes(value: Value<'t>) -> Self {
        Self(Source::Bytes { value, at: 0 })
    }

    pub(crate) fn pages(reader: OverflowReader<'t>) -> Self {
        Self(Source::Pages(reader))
    }

    /// Bytes of the whole value.
    pub fn len(&self) -> u64 {
        match &self.0 {
            Source::Bytes { value, .. } => value.len() as u64,
            Source::Pages(reader) => reader.len(),
        }
    }

    /// The value has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for ValueReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValueReader").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Read for ValueReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        match &mut self.0 {
            Source::Bytes { value, at } => {
                let left = &value[*at..];
                let n = left.len().min(buf.len());
                buf[..n].copy_from_slice(&left[..n]);
                *at += n;
                Ok(n)
            }
            Source::Pages(reader) => reader.read(buf).map_err(|e| {
                e.downcast::<bedstone_bufpool::PoolError>()
                    .map_or_else(|e| e, |e| std::io::Error::other(crate::Error::from(e)))
            }),
        }
    }
}
