//! Iterating over a table in key order, from either end.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use crate::error::Result;
use crate::value::Value;

/// A key given out by an iterator. Short keys lie in it, longer ones on the heap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Vec<u8>);

impl Deref for Key {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self[..], f)
    }
}

/// A key and its value.
#[derive(Debug)]
pub struct Entry<'t> {
    pub(crate) key: Key,
    pub(crate) value: Value<'t>,
}

impl<'t> Entry<'t> {
    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The value.
    pub fn value(&self) -> &Value<'t> {
        &self.value
    }

    /// Key and value apart.
    pub fn into_parts(self) -> (Key, Value<'t>) {
        (self.key, self.value)
    }
}

/// The entries of a range in ascending order, or descending from the back. Each leaf is seen as it is at the
/// moment the iterator reaches it: entries written behind the iterator's position while it runs may or may not be
/// seen, an entry that is there all the time is seen exactly once. After an error it gives errors for ever.
pub struct Range<'t>(PhantomData<&'t ()>);

impl<'t> Range<'t> {
    /// The next entry without pinning or allocating anything for it: both slices live until the next call. The way
    /// to read much, fast.
    pub fn next_ref(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        Ok(None)
    }

    /// The same from the back.
    pub fn next_back_ref(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        Ok(None)
    }

    /// Calls `f` with every entry left, in order, until it returns `false`. Faster than `next_ref`.
    pub fn for_each_ref(&mut self, f: impl FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        let _ = f;
        Ok(())
    }
}

impl<'t> Iterator for Range<'t> {
    type Item = Result<Entry<'t>>;
    fn next(&mut self) -> Option<Self::Item> {
        None
    }
}

impl DoubleEndedIterator for Range<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        None
    }
}

impl std::iter::FusedIterator for Range<'_> {}
