//! Iterating over a typed table.

use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;

use super::access::Walk;
use super::{CodecError, Key, Value, key};
use crate::error::{Error, Result, shown};
use crate::table::Table;

/// The entries of a range of a typed table, ascending, or descending from the back. An entry that cannot be decoded is
/// [`Error::Decode`], and the next call goes on behind it; after any other error it gives errors for ever.
pub struct TypedRange<'t, K, V> {
    table: &'t Table,
    walk: Walk<'t>,
    types: PhantomData<fn() -> (K, V)>,
}

impl<'t, K: Key, V: Value> TypedRange<'t, K, V> {
    pub(super) fn new(table: &'t Table, walk: Walk<'t>) -> Self {
        Self { table, walk, types: PhantomData }
    }
}

/// The error of a key or value of `table` that cannot be decoded.
#[cold]
pub(super) fn decode_error(table: &Table, which: &str, key: &[u8], e: &CodecError) -> Error {
    Error::Decode { table: table.name(), what: format!("{which}{}: {e}", shown(Some(key))) }
}

fn decode_entry<K: Key, V: Value>(table: &Table, (key, value): (&[u8], &[u8])) -> Result<(K, V::Owned)> {
    let decoded = key::decode(key).map_err(|e| decode_error(table, "", key, &e))?;
    let value = V::decode(value).map_err(|e| decode_error(table, "the value of ", key, &e))?;
    Ok((decoded, value))
}

impl<K, V> fmt::Debug for TypedRange<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedRange").field("table", self.table).finish_non_exhaustive()
    }
}

impl<K: Key, V: Value> Iterator for TypedRange<'_, K, V> {
    type Item = Result<(K, V::Owned)>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = match &mut self.walk {
            Walk::Now(range) => range.next_ref(),
            Walk::Then(range) => range.next_ref(),
        };
        entry.transpose().map(|entry| decode_entry::<K, V>(self.table, entry?))
    }
}

impl<K: Key, V: Value> DoubleEndedIterator for TypedRange<'_, K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let entry = match &mut self.walk {
            Walk::Now(range) => range.next_back_ref(),
            Walk::Then(range) => range.next_back_ref(),
        };
        entry.transpose().map(|entry| decode_entry::<K, V>(self.table, entry?))
    }
}

impl<K: Key, V: Value> FusedIterator for TypedRange<'_, K, V> {}
