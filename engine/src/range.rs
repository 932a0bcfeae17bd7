//! Iterating over a table in key order, from either end.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::iter::FusedIterator;
use std::ops::Deref;
use std::sync::Arc;

use crate::btree::{OverflowReader, OverflowRef, Scan, node::CellValue};
use crate::error::{Error, Result};
use crate::table::Table;
use crate::value::Value;

/// Keys of so many bytes lie in the [`Key`] itself.
const INLINE: usize = 64;

/// A key given out by an iterator. Keys of up to 64 bytes lie in it, longer ones on the heap.
#[derive(Clone)]
pub struct Key(KeyBytes);

#[derive(Clone)]
enum KeyBytes {
    Inline { len: u8, bytes: [u8; INLINE] },
    Heap(Box<[u8]>),
}

impl Key {
    #[inline]
    pub(crate) fn new(key: &[u8]) -> Self {
        let mut bytes = [0; INLINE];
        match bytes.get_mut(..key.len()) {
            Some(place) => {
                place.copy_from_slice(key);
                Self(KeyBytes::Inline { len: key.len() as u8, bytes })
            }
            None => Self(KeyBytes::Heap(key.into())),
        }
    }
}

impl Deref for Key {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            KeyBytes::Inline { len, bytes } => &bytes[..usize::from(*len)],
            KeyBytes::Heap(bytes) => bytes,
        }
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

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self[..].cmp(&other[..])
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self[..].hash(state);
    }
}

/// A key and its value.
#[derive(Debug)]
pub struct Entry<'t> {
    key: Key,
    value: Value<'t>,
}

impl<'t> Entry<'t> {
    pub(crate) fn new(key: Key, value: Value<'t>) -> Self {
        Self { key, value }
    }

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

/// The smallest string greater than all that begin with `prefix`: the last byte that can be raised is. `None` if none
/// can.
pub(crate) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    prefix.iter().rposition(|&b| b != u8::MAX).map(|i| {
        let mut end = prefix[..=i].to_vec();
        end[i] += 1;
        end
    })
}

/// The entries of a range in ascending order, or descending from the back. Each leaf is seen as it is at the
/// moment the iterator reaches it: entries written behind the iterator's position while it runs may or may
/// not be seen, an entry that is there all the time is seen exactly once. After an error it gives errors for
/// ever.
pub struct Range<'t> {
    table: &'t Table,
    scan: Scan<'t>,
    /// The value given last, if it was in pages of its own.
    long: Vec<u8>,
    over: bool,
    failed: Option<Arc<Error>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Front,
    Back,
}

/// What the scan found, without what would keep it borrowed.
enum Next {
    InPage,
    Long(OverflowRef),
    End,
}

impl<'t> Range<'t> {
    pub(crate) fn new(table: &'t Table, scan: Scan<'t>) -> Self {
        Self { table, scan, long: Vec::new(), over: false, failed: None }
    }

    /// The next entry without pinning or allocating anything for it: both slices live until the next call.
    /// The way to read much, fast.
    pub fn next_ref(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        self.side_ref(Side::Front)
    }

    /// The same from the back.
    pub fn next_back_ref(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        self.side_ref(Side::Back)
    }

    /// Calls `f` with every entry left, in order, until it returns `false`. Faster than `next_ref`.
    pub fn for_each_ref(&mut self, mut f: impl FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        self.check()?;
        loop {
            let (mut go_on, mut long) = (true, None);
            let ended = self.scan.for_each(|key, value| match value {
                CellValue::Inline(value) => {
                    go_on = f(key, value);
                    go_on
                }
                CellValue::Overflow(value) => {
                    long = Some(value);
                    false
                }
            });
            match ended {
                Err(e) => return Err(self.fail(e)),
                Ok(true) => {
                    self.over = true;
                    return Ok(());
                }
                Ok(false) => {}
            }
            let (true, Some(long)) = (go_on, long) else { return Ok(()) };
            self.long = self.read_long(Side::Front, long)?;
            if !f(self.scan.front_key(), &self.long) {
                return Ok(());
            }
        }
    }

    fn side_ref(&mut self, side: Side) -> Result<Option<(&[u8], &[u8])>> {
        match self.advance(side)? {
            Next::End => Ok(None),
            Next::Long(long) => {
                self.long = self.read_long(side, long)?;
                Ok(Some((self.key(side), &self.long)))
            }
            Next::InPage => {
                let place = match side {
                    Side::Front => self.scan.front_pin(),
                    Side::Back => self.scan.back_pin(),
                };
                Ok(place.map(|(pin, range)| (self.key(side), &pin[range])))
            }
        }
    }

    fn side_entry(&mut self, side: Side) -> Result<Option<Entry<'t>>> {
        let value = match self.advance(side)? {
            Next::End => return Ok(None),
            Next::Long(long) => Value::owned(self.read_long(side, long)?),
            Next::InPage => {
                let place = match side {
                    Side::Front => self.scan.front_pin(),
                    Side::Back => self.scan.back_pin(),
                };
                let Some((pin, range)) = place else { return Ok(None) };
                Value::in_shared_page(pin, range)
            }
        };
        Ok(Some(Entry { key: Key::new(self.key(side)), value }))
    }

    #[inline]
    fn check(&self) -> Result<()> {
        match &self.failed {
            Some(e) => Err(Error::IteratorFailed(e.clone())),
            None => self.table.readable(),
        }
    }

    #[inline]
    fn advance(&mut self, side: Side) -> Result<Next> {
        self.check()?;
        if self.over {
            return Ok(Next::End);
        }
        let next = match side {
            Side::Front => self.scan.next(),
            Side::Back => self.scan.next_back(),
        };
        let next = next.map(|entry| match entry.map(|e| e.value) {
            None => Next::End,
            Some(CellValue::Inline(_)) => Next::InPage,
            Some(CellValue::Overflow(long)) => Next::Long(long),
        });
        match next {
            Ok(next) => {
                self.over = matches!(next, Next::End);
                Ok(next)
            }
            Err(e) => Err(self.fail(e)),
        }
    }

    fn key(&self, side: Side) -> &[u8] {
        match side {
            Side::Front => self.scan.front_key(),
            Side::Back => self.scan.back_key(),
        }
    }

    fn read_long(&mut self, side: Side, long: OverflowRef) -> Result<Vec<u8>> {
        let reader: bedstone_bufpool::Result<OverflowReader<'t>> = match side {
            Side::Front => self.scan.front_reader(long),
            Side::Back => self.scan.back_reader(long),
        };
        reader.and_then(|mut reader| reader.read_all()).map_err(|e| self.fail(e))
    }

    /// The iterator has met an error and does not go past it.
    #[cold]
    fn fail(&mut self, e: bedstone_bufpool::PoolError) -> Error {
        self.failed = Some(Arc::new(self.table.reading_error(&e)));
        self.table.reading_error(&e)
    }
}

impl fmt::Debug for Range<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Range").field("table", self.table).field("over", &self.over).finish_non_exhaustive()
    }
}

impl<'t> Iterator for Range<'t> {
    type Item = Result<Entry<'t>>;
    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.side_entry(Side::Front).transpose()
    }
}

impl DoubleEndedIterator for Range<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        self.side_entry(Side::Back).transpose()
    }
}

impl FusedIterator for Range<'_> {}
