//! Values as readers get them.

use std::fmt;
use std::io::Read;
use std::marker::PhantomData;
use std::ops::Deref;

/// A value. It points into the buffer pool where it can (the page it lies in stays as it is, and stays in memory,
/// until the value is dropped), and is a copy where it is small, was stored in pages of its own, or where values
/// already hold a quarter of the pool.
pub struct Value<'t>(Vec<u8>, PhantomData<&'t ()>);

impl Value<'_> {
    /// The bytes, copied.
    pub fn to_vec(&self) -> Vec<u8> {
        self[..].to_vec()
    }

    /// The bytes, copied unless the value is a copy already; gives the page back.
    pub fn into_owned(self) -> Vec<u8> {
        self.to_vec()
    }

    /// The value holds a page of the pool.
    pub fn is_pinned(&self) -> bool {
        false
    }
}

impl Deref for Value<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
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

/// A value read piece by piece; memory is bounded whatever its length.
pub struct ValueReader<'t>(PhantomData<&'t ()>);

impl ValueReader<'_> {
    /// Bytes of the whole value.
    pub fn len(&self) -> u64 {
        0
    }

    /// The value has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Read for ValueReader<'_> {
    fn read(&mut self, _buf: &mut [u8]) -> std::io::Result<usize> {
        Ok(0)
    }
}
