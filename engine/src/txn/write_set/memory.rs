//! Writes in memory, ordered by table and key.
//!
//! The bytes lie one behind the other in blocks, each entry as key, tag and value, so what goes into a temporary
//! tree (tag and value) is one slice. An index of small entries in ascending order, cut into chunks, says where.
//! Most transactions write a few keys: for them this is one block and one chunk, a handful of allocations in all
//! instead of several for each key. Keys in ascending order are appended without a search and fill their chunks.

use std::cmp::Ordering;
use std::ops::Bound;

/// Entries of a chunk at most.
const CHUNK: usize = 512;
/// Entries that the first chunk has room for at first.
const FIRST_CHUNK: usize = 12;
/// Bytes of the first block; each further one is as large as all before it together, within reason.
const FIRST_BLOCK: usize = 2 << 10;
const LARGEST_BLOCK: usize = 1 << 20;
/// Bytes of overwritten entries that are never worth giving back.
const DEAD_ALLOWED: usize = 64 << 10;

/// In front of what a key was set to.
pub(super) const PUT: u8 = 1;
/// The key was deleted; nothing follows.
pub(super) const DELETE: u8 = 0;

/// Takes tag and value apart; `None` is a delete.
pub(crate) fn untag(stored: &[u8]) -> Option<&[u8]> {
    match stored {
        [PUT, value @ ..] => Some(value),
        _ => None,
    }
}

/// Where a write's bytes lie.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// The first bytes of the key, which decide most comparisons.
    head: u64,
    table: u32,
    block: u32,
    at: u32,
    key_len: u32,
    /// Tag and value.
    stored_len: u32,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.key_len as usize + self.stored_len as usize
    }
}

/// A place between or at entries. Good until the next change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    chunk: usize,
    at: usize,
}

/// The writes.
#[derive(Debug, Default)]
pub(super) struct Memory {
    blocks: Vec<Vec<u8>>,
    /// The block that is being filled.
    open: usize,
    /// Ascending, none of them empty.
    chunks: Vec<Vec<Entry>>,
    len: usize,
    /// Bytes of entries, and of those that were overwritten and still take room.
    live: usize,
    dead: usize,
    /// Bytes allocated.
    held: usize,
}

impl Memory {
    /// Number of keys.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory taken.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Sets what was written to a key, whatever it was before.
    pub(super) fn set(&mut self, table: u32, key: &[u8], value: Option<&[u8]>) {
        self.put(table, key, value, true);
    }

    /// `replace`: even if something was written to the key already.
    fn put(&mut self, table: u32, key: &[u8], value: Option<&[u8]>, replace: bool) {
        let (tag, value) = value.map_or((DELETE, &[][..]), |value| (PUT, value));
        let stored_len = value.len() + 1;
        let (place, found) = self.search(table, key);
        if !found {
            let entry = self.store(table, key, tag, value);
            return self.insert(place, entry);
        }
        if !replace {
            return;
        }
        let old = self.chunks[place.chunk][place.at];
        let entry = if stored_len <= old.stored_len as usize {
            let start = old.at as usize + key.len();
            let stored = &mut self.blocks[old.block as usize][start..start + stored_len];
            stored[0] = tag;
            stored[1..].copy_from_slice(value);
            Entry { stored_len: stored_len as u32, ..old }
        } else {
            self.store(table, key, tag, value)
        };
        self.chunks[place.chunk][place.at] = entry;
        if entry.block == old.block && entry.at == old.at {
            self.dead += old.bytes() - entry.bytes();
            self.live -= old.bytes() - entry.bytes();
        } else {
            self.bury(old);
        }
    }

    /// Forgets what was written to a key.
    pub(super) fn remove(&mut self, table: u32, key: &[u8]) {
        let (place, found) = self.search(table, key);
        if !found {
            return;
        }
        let old = self.chunks[place.chunk].remove(place.at);
        if self.chunks[place.chunk].is_empty() {
            self.held -= self.chunks.remove(place.chunk).capacity() * size_of::<Entry>();
        }
        self.len -= 1;
        self.bury(old);
    }

    fn bury(&mut self, old: Entry) {
        self.live -= old.bytes();
        self.dead += old.bytes();
        if self.dead > DEAD_ALLOWED && self.dead > self.live {
            self.compact();
        }
    }

    /// Moves everything together, without what was overwritten.
    fn compact(&mut self) {
        let old = std::mem::take(self);
        for chunk in &old.chunks {
            for entry in chunk {
                self.set(entry.table, old.key_of(entry), untag(old.stored_of(entry)));
            }
        }
    }

    /// What was written to a key, if anything: `Some(None)` is a delete.
    pub(super) fn get(&self, table: u32, key: &[u8]) -> Option<Option<&[u8]>> {
        let (place, found) = self.search(table, key);
        found.then(|| self.value(place))
    }

    /// Where a key is or belongs, and whether it is there.
    fn search(&self, table: u32, key: &[u8]) -> (Place, bool) {
        let head = key_head(key);
        let order = |e: &Entry| {
            (e.table, e.head).cmp(&(table, head)).then_with(|| match e.key_len as usize == key.len() {
                // The head was the whole key.
                true if key.len() <= 8 => Ordering::Equal,
                _ => self.key_of(e).cmp(key),
            })
        };
        let Some(last) = self.chunks.last() else { return (Place { chunk: 0, at: 0 }, false) };
        // Ascending keys.
        if last.last().is_some_and(|e| order(e) == Ordering::Less) {
            return (Place { chunk: self.chunks.len() - 1, at: last.len() }, false);
        }
        let chunk = match self.chunks.len() {
            1 => 0,
            _ => self.chunks.partition_point(|c| order(&c[0]) != Ordering::Greater).saturating_sub(1),
        };
        match self.chunks[chunk].binary_search_by(order) {
            Ok(at) => (Place { chunk, at }, true),
            Err(at) => (Place { chunk, at }, false),
        }
    }

    fn insert(&mut self, place: Place, entry: Entry) {
        self.len += 1;
        let chunks = self.chunks.len();
        let Some(chunk) = self.chunks.get_mut(place.chunk) else {
            let mut chunk = Vec::with_capacity(FIRST_CHUNK);
            chunk.push(entry);
            return self.push_chunk(0, chunk);
        };
        if chunk.len() < CHUNK {
            let before = chunk.capacity();
            chunk.insert(place.at, entry);
            self.held += (chunk.capacity() - before) * size_of::<Entry>();
            return;
        }
        let last = place.chunk + 1 == chunks;
        if last && place.at == CHUNK {
            let mut chunk = Vec::with_capacity(CHUNK);
            chunk.push(entry);
            return self.push_chunk(chunks, chunk);
        }
        let mut right = Vec::with_capacity(CHUNK);
        right.extend(chunk.drain(CHUNK / 2..));
        match place.at.checked_sub(CHUNK / 2) {
            Some(at) if at > 0 => right.insert(at, entry),
            _ => chunk.insert(place.at, entry),
        }
        self.push_chunk(place.chunk + 1, right);
    }

    fn push_chunk(&mut self, at: usize, chunk: Vec<Entry>) {
        let before = self.chunks.capacity();
        self.held += chunk.capacity() * size_of::<Entry>();
        self.chunks.insert(at, chunk);
        self.held += (self.chunks.capacity() - before) * size_of::<Vec<Entry>>();
    }

    /// Puts the bytes of an entry away.
    fn store(&mut self, table: u32, key: &[u8], tag: u8, value: &[u8]) -> Entry {
        let bytes = key.len() + 1 + value.len();
        let fits = |block: &Vec<u8>| block.capacity() - block.len() >= bytes;
        let block = match self.blocks.get(self.open) {
            Some(open) if fits(open) => self.open,
            _ => {
                let usual = self.held.clamp(FIRST_BLOCK, LARGEST_BLOCK);
                let before = self.blocks.capacity();
                let index = self.blocks.len();
                // A block of its own leaves the one that is being filled as it is.
                let own = bytes > usual / 4;
                let block: Vec<u8> = Vec::with_capacity(if own { bytes } else { usual });
                self.held += block.capacity();
                self.blocks.push(block);
                self.held += (self.blocks.capacity() - before) * size_of::<Vec<u8>>();
                if !own {
                    self.open = index;
                }
                index
            }
        };
        self.live += bytes;
        let into = &mut self.blocks[block];
        let at = into.len() as u32;
        into.extend_from_slice(key);
        into.push(tag);
        into.extend_from_slice(value);
        let (block, key_len, stored_len) = (block as u32, key.len() as u32, value.len() as u32 + 1);
        Entry { head: key_head(key), table, block, at, key_len, stored_len }
    }

    fn key_of(&self, entry: &Entry) -> &[u8] {
        let start = entry.at as usize;
        &self.blocks[entry.block as usize][start..start + entry.key_len as usize]
    }

    fn stored_of(&self, entry: &Entry) -> &[u8] {
        let start = entry.at as usize + entry.key_len as usize;
        &self.blocks[entry.block as usize][start..start + entry.stored_len as usize]
    }

    /// The key at a place that [`Memory::forward`] or [`Memory::backward`] gave.
    pub(super) fn key(&self, place: Place) -> &[u8] {
        self.key_of(&self.chunks[place.chunk][place.at])
    }

    /// Tag and value at a place.
    pub(super) fn stored(&self, place: Place) -> &[u8] {
        self.stored_of(&self.chunks[place.chunk][place.at])
    }

    /// What was written at a place.
    pub(super) fn value(&self, place: Place) -> Option<&[u8]> {
        untag(self.stored(place))
    }

    pub(super) fn table(&self, place: Place) -> u32 {
        self.chunks[place.chunk][place.at].table
    }

    /// From the first entry within the bounds to behind the last.
    pub(super) fn span(&self, table: u32, lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> (Place, Place) {
        let begin = match lower {
            Bound::Unbounded => self.search(table, &[]).0,
            Bound::Included(key) => self.search(table, key).0,
            Bound::Excluded(key) => self.behind(table, key),
        };
        let end = match upper {
            Bound::Unbounded => self.table_end(table),
            Bound::Included(key) => self.behind(table, key),
            Bound::Excluded(key) => self.search(table, key).0,
        };
        let begin = self.entered(begin);
        (begin, self.entered(end).max(begin))
    }

    /// Every entry in order.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = Place> {
        let of =
            |(chunk, entries): (usize, &Vec<Entry>)| (0..entries.len()).map(move |at| Place { chunk, at });
        self.chunks.iter().enumerate().flat_map(of)
    }

    /// From the first entry of all to behind the last.
    pub(super) fn whole(&self) -> (Place, Place) {
        (Place { chunk: 0, at: 0 }, Place { chunk: self.chunks.len(), at: 0 })
    }

    /// Behind the last entry of a table. The numbers of tables end below the greatest that can be written.
    fn table_end(&self, table: u32) -> Place {
        self.search(table + 1, &[]).0
    }

    fn behind(&self, table: u32, key: &[u8]) -> Place {
        let (place, found) = self.search(table, key);
        Place { at: place.at + usize::from(found), ..place }
    }

    /// The place of the entry behind `from` and the place behind that; `None` at `end`.
    #[inline]
    pub(super) fn forward(&self, from: Place, end: Place) -> Option<(Place, Place)> {
        let from = self.entered(from);
        if from == self.entered(end) {
            return None;
        }
        Some((from, Place { at: from.at + 1, ..from }))
    }

    /// The place of the entry before `from`, which is also where to go on; `None` at `begin`.
    #[inline]
    pub(super) fn backward(&self, from: Place, begin: Place) -> Option<Place> {
        if self.entered(from) == self.entered(begin) {
            return None;
        }
        match from.at.checked_sub(1) {
            Some(at) => Some(Place { at, ..from }),
            None => {
                let chunk = from.chunk.checked_sub(1)?;
                Some(Place { chunk, at: self.chunks[chunk].len() - 1 })
            }
        }
    }

    /// The end of a chunk is the beginning of the next one.
    fn entered(&self, place: Place) -> Place {
        match self.chunks.get(place.chunk) {
            Some(chunk) if place.at == chunk.len() => Place { chunk: place.chunk + 1, at: 0 },
            _ => place,
        }
    }

    /// The tables of all entries, ascending.
    pub(super) fn tables(&self) -> impl Iterator<Item = u32> {
        let (mut at, end) = self.whole();
        std::iter::from_fn(move || {
            let (entry, _) = self.forward(at, end)?;
            let table = self.table(entry);
            at = self.table_end(table);
            Some(table)
        })
    }

    /// Takes over everything that was written after what is here.
    pub(super) fn absorb(&mut self, mut later: Memory) {
        // The few are copied to the many.
        let later_counts = self.len < later.len;
        if later_counts {
            std::mem::swap(self, &mut later);
        }
        let (mut at, end) = later.whole();
        while let Some((entry, next)) = later.forward(at, end) {
            at = next;
            let (table, key, value) = (later.table(entry), later.key(entry), later.value(entry));
            self.put(table, key, value, !later_counts);
        }
    }
}

/// The first eight bytes of a key as a number that orders like them.
fn key_head(key: &[u8]) -> u64 {
    let mut head = [0; 8];
    let n = key.len().min(8);
    head[..n].copy_from_slice(&key[..n]);
    u64::from_be_bytes(head)
}
