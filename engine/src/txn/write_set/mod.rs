//! What a transaction has written and not committed yet.
//!
//! # Layers
//!
//! The writes lie in layers: one at the bottom, and one for each savepoint that something was written after. A
//! write goes into the topmost layer; of several layers that have a key the topmost one counts. Rolling back to a
//! savepoint drops the layers above it; releasing one lets them sink into the layer below.
//!
//! # Memory, and what does not fit
//!
//! A layer keeps its writes in [`memory`]. When all layers together take more than the budget, the largest ones
//! move into temporary trees ([`super::temp_tree`]), one for each table, until half of the budget is free. A layer
//! may have both: what is in its memory is newer than what is in its trees. In a tree the value has a tag in front
//! (a delete is a tag alone), but a value too long for a leaf lies in pages of its own as it is: it can only be a
//! put.
//!
//! While writes are moved they stay in memory as well until all of them are in the trees. So an error (a full disk,
//! most likely) loses nothing and leaves nothing half-done: the set says the same as before, and moving may be
//! tried again.
//!
//! Layers with trees are not merged when a savepoint is released, they just stay one on the other. That is bounded
//! by the number of times the budget was used up.

mod memory;
mod scan;

use std::borrow::Cow;
use std::ops::Bound;

use crate::btree::{BuildPass, Found, NewValue, Op, OverflowReader, PreparedOverflow, SourceError, Write};
use crate::checkpoint::Building;
use crate::error::{Error, Result};
use crate::shared::Shared;
use crate::txn::temp_tree::TempTree;
#[cfg(feature = "fuzzing")]
pub(crate) use memory::untag as untag_for_fuzzing;
use memory::{DELETE, Memory, PUT, untag};
use scan::reading_error;
pub(crate) use scan::{Side, WriteScan};

/// Writes moved into a tree at once at most, and their bytes.
const BATCH: usize = 4096;
const BATCH_BYTES: usize = 1 << 20;

/// Names a savepoint of one write set. Later ones are greater; none is given out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SavepointId(u64);

/// The savepoint was released, or taken back with an earlier one, or never was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UnknownSavepoint;

/// A write with the number of its table: key, and value or `None` for a delete.
pub(crate) type InTable<'s> = (u32, &'s [u8], Option<&'s [u8]>);

#[derive(Debug)]
struct Savepoint {
    id: SavepointId,
    /// Layers that were there before it.
    layers: usize,
}

/// The writes between two savepoints.
#[derive(Debug, Default)]
struct Layer {
    memory: Memory,
    /// Older than the memory; by table.
    trees: Vec<(u32, TempTree)>,
    /// Writes moved into the trees.
    moved: usize,
}

impl Layer {
    fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.moved == 0
    }

    fn tree(&self, table: u32) -> Option<&TempTree> {
        let at = self.trees.binary_search_by_key(&table, |(t, _)| *t).ok()?;
        Some(&self.trees[at].1)
    }

    /// The tree for a table.
    fn make_tree(&mut self, shared: &Shared, table: u32) -> Result<&TempTree> {
        let at = match self.trees.binary_search_by_key(&table, |(t, _)| *t) {
            Ok(at) => at,
            Err(at) => {
                let tree = shared.with_relief(|| shared.create_temp(false))?;
                self.trees.insert(at, (table, tree));
                at
            }
        };
        Ok(&self.trees[at].1)
    }

    /// Moves everything in memory into the trees.
    fn move_out(&mut self, shared: &Shared) -> Result<()> {
        let memory = std::mem::take(&mut self.memory);
        let outcome = memory.tables().try_for_each(|table| self.move_table(shared, &memory, table));
        match outcome {
            Ok(()) => {
                self.moved += memory.len();
            }
            // What is in the trees already is in memory as well, and the same.
            Err(_) => self.memory = memory,
        }
        outcome
    }

    fn move_table(&mut self, shared: &Shared, memory: &Memory, table: u32) -> Result<()> {
        let tree = self.make_tree(shared, table)?;
        let (mut at, end) = memory.span(table, Bound::Unbounded, Bound::Unbounded);
        loop {
            let mut batch = Vec::new();
            let mut bytes = 0;
            while batch.len() < BATCH
                && bytes < BATCH_BYTES
                && let Some((entry, next)) = memory.forward(at, end)
            {
                at = next;
                let (key, stored) = (memory.key(entry), memory.stored(entry));
                bytes += key.len() + stored.len();
                batch.push(match is_long(shared, key, stored.len()) {
                    true => Moving::Long(key, untag(stored).unwrap_or_default()),
                    false => Moving::InLeaf(key, stored),
                });
            }
            if batch.is_empty() {
                return Ok(());
            }
            move_batch(shared, tree, &batch)?;
        }
    }

    /// Where the writes of one table are, the newest first.
    fn places(&self, table: u32, lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> [Option<scan::Layer<'_>>; 2] {
        let span = self.memory.span(table, lower, upper);
        let memory = (span.0 != span.1).then_some(scan::Layer::Memory(&self.memory, span));
        [memory, self.tree(table).map(|tree| scan::Layer::Tree(tree.tree()))]
    }
}

/// The writes of a transaction. Dropped, it gives its trees back with the next upkeep; [`WriteSet::clear`] does so
/// at once.
#[derive(Debug)]
pub(crate) struct WriteSet {
    /// Bytes of memory.
    budget: usize,
    base: Layer,
    above: Vec<Layer>,
    /// Ascending, in ids and layers.
    savepoints: Vec<Savepoint>,
    next_savepoint: u64,
    /// Memory that all layers take.
    held: usize,
}

impl WriteSet {
    /// An empty set that may take about so many bytes of memory. Nothing is allocated before the first write.
    pub(crate) fn new(budget: usize) -> Self {
        let (base, above, savepoints) = (Layer::default(), Vec::new(), Vec::new());
        Self { budget, base, above, savepoints, next_savepoint: 1, held: 0 }
    }

    /// Writes a key: a value, or `None` to delete it. Key and value are within the limits. Nothing may be held:
    /// writes may have to be moved out of memory first.
    ///
    /// # Errors
    /// [`Error::PoolExhausted`] if the writes of very many savepoints do not fit into memory. Where memory has run out: those of [`Shared::create_temp`] and [`TempTree::apply_owning`], and
    /// [`Error::InsideReader`] if the write is made by a reader that a long value is built from. The set is as it
    /// was before.
    #[inline]
    pub(crate) fn put(
        &mut self,
        shared: &Shared,
        table: u32,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<()> {
        let bytes = key.len() + 1 + value.map_or(0, <[u8]>::len);
        if self.held + bytes > self.budget {
            if bytes > self.budget {
                return self.put_past_memory(shared, table, key, value);
            }
            self.move_out(shared, (self.budget / 2).min(self.budget - bytes))?;
        }
        let memory = &mut self.writable_layer().memory;
        let before = memory.held();
        memory.set(table, key, value);
        let after = memory.held();
        self.held = self.held - before + after;
        Ok(())
    }

    /// A write that alone is too large to be kept in memory.
    #[cold]
    fn put_past_memory(
        &mut self,
        shared: &Shared,
        table: u32,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<()> {
        let room = self.check_layers(shared);
        let layer = self.writable_layer();
        if layer.trees.is_empty() {
            room?;
        }
        let tagged: Vec<u8>;
        let moving = match value {
            Some(value) if is_long(shared, key, value.len() + 1) => Moving::Long(key, value),
            Some(value) => {
                tagged = [&[PUT], value].concat();
                Moving::InLeaf(key, &tagged)
            }
            None => Moving::InLeaf(key, &[DELETE]),
        };
        move_batch(shared, layer.make_tree(shared, table)?, &[moving])?;
        layer.moved += 1;
        // It would count as newer.
        let before = layer.memory.held();
        layer.memory.remove(table, key);
        let after = layer.memory.held();
        self.held = self.held - before + after;
        Ok(())
    }

    /// One more layer may move out: a walk through the writes pins a page of every tree in each direction, and these
    /// must be few beside the pool.
    fn check_layers(&self, shared: &Shared) -> Result<()> {
        let (frames, moved) =
            (shared.pool_frames, self.newest_first().filter(|l| !l.trees.is_empty()).count());
        if moved >= frames / 4 {
            return Err(Error::PoolExhausted { frames, pinned: moved });
        }
        Ok(())
    }

    /// Moves the largest layers out until the others take no more than so many bytes.
    #[cold]
    fn move_out(&mut self, shared: &Shared, most: usize) -> Result<()> {
        while self.held > most {
            let room = self.check_layers(shared);
            let held = |layer: &Layer| layer.memory.held();
            let largest = self.above.iter_mut().chain([&mut self.base]).max_by_key(|layer| held(layer));
            let Some(largest) = largest.filter(|layer| held(layer) > 0) else { break };
            if largest.trees.is_empty() {
                room?;
            }
            let given_back = held(largest);
            largest.move_out(shared)?;
            self.held -= given_back;
        }
        Ok(())
    }

    /// What was written to a key: `None` if nothing was, `Some(None)` if it was deleted.
    ///
    /// # Errors
    /// Those of reading pages.
    pub(crate) fn get<'w>(
        &'w self,
        shared: &Shared,
        table: u32,
        key: &[u8],
    ) -> Result<Option<Option<Cow<'w, [u8]>>>> {
        for layer in self.newest_first() {
            if let Some(written) = layer.memory.get(table, key) {
                return Ok(Some(written.map(Cow::Borrowed)));
            }
            let Some(tree) = layer.tree(table) else { continue };
            shared.readable()?;
            let tree = tree.tree();
            let found = tree.get(&shared.pool, key).map_err(|e| reading_error(shared, e))?;
            match found {
                None => {}
                Some(Found::Inline { pin, range }) => {
                    return Ok(Some(untag(&pin[range]).map(|value| Cow::Owned(value.to_vec()))));
                }
                Some(Found::Overflow { value, ticket }) => {
                    let value = OverflowReader::new(tree, &shared.pool, value, ticket)
                        .and_then(|mut reader| reader.read_all())
                        .map_err(|e| reading_error(shared, e))?;
                    return Ok(Some(Some(Cow::Owned(value))));
                }
            }
        }
        Ok(None)
    }

    /// The writes of one table within bounds, in the order of keys, of each key only the last.
    pub(crate) fn scan<'w>(
        &'w self,
        shared: &'w Shared,
        table: u32,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
    ) -> WriteScan<'w> {
        let places =
            self.newest_first().flat_map(|layer| layer.places(table, lower, upper)).flatten().collect();
        WriteScan::new(shared, places, lower, upper)
    }

    /// All writes in the order of tables and keys, if all are in the memory of one layer: so after
    /// [`WriteSet::release_all`], unless some were moved out of memory.
    pub(crate) fn in_memory(&self) -> Option<impl Iterator<Item = InTable<'_>>> {
        let memory = &self.base.memory;
        let alone = self.above.is_empty() && self.base.trees.is_empty();
        alone
            .then(|| memory.iter().map(|place| (memory.table(place), memory.key(place), memory.value(place))))
    }

    /// Remembers what is written now.
    pub(crate) fn savepoint(&mut self) -> SavepointId {
        let id = SavepointId(self.next_savepoint);
        self.next_savepoint += 1;
        // An empty layer on top will be the one above the savepoint.
        let layers = self.layers() - usize::from(self.top().is_empty());
        self.savepoints.push(Savepoint { id, layers });
        id
    }

    /// Forgets what was written after a savepoint, and the savepoints after it. The savepoint stays.
    ///
    /// # Errors
    /// There is no such savepoint; nothing is changed.
    pub(crate) fn rollback_to(
        &mut self,
        shared: &Shared,
        id: SavepointId,
    ) -> std::result::Result<(), UnknownSavepoint> {
        let at = self.find(id)?;
        self.savepoints.truncate(at + 1);
        let keep = self.savepoints[at].layers;
        while self.layers() > keep.max(1) {
            let Some(layer) = self.above.pop() else { break };
            self.discard(shared, layer);
        }
        if keep == 0 {
            let base = std::mem::take(&mut self.base);
            self.discard(shared, base);
        }
        Ok(())
    }

    /// Forgets a savepoint and those after it; what was written stays.
    ///
    /// # Errors
    /// There is no such savepoint; nothing is changed.
    pub(crate) fn release(&mut self, id: SavepointId) -> std::result::Result<(), UnknownSavepoint> {
        let at = self.find(id)?;
        self.savepoints.truncate(at);
        self.sink();
        Ok(())
    }

    /// Forgets all savepoints: before the writes are committed.
    pub(crate) fn release_all(&mut self) {
        self.savepoints.clear();
        self.sink();
    }

    /// Forgets everything and gives the trees back.
    pub(crate) fn clear(&mut self, shared: &Shared) {
        let base = std::mem::take(&mut self.base);
        for layer in std::mem::take(&mut self.above).into_iter().chain([base]) {
            self.discard(shared, layer);
        }
        self.savepoints.clear();
    }

    /// Nothing is written.
    pub(crate) fn is_empty(&self) -> bool {
        self.newest_first().all(Layer::is_empty)
    }

    /// Number of writes held. A key counts once for each layer that has it, and again when it was written after its
    /// layer's writes were moved out: so this is exact for a set that has one layer and is not spilled, and not
    /// less than the number of keys otherwise.
    pub(crate) fn len(&self) -> usize {
        self.newest_first().map(|l| l.memory.len() + l.moved).sum()
    }

    /// Bytes of memory that the writes take, with everything that belongs to them.
    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        self.held
    }

    /// Some writes were moved out of memory.
    #[cfg(test)]
    pub(crate) fn is_spilled(&self) -> bool {
        self.newest_first().any(|layer| !layer.trees.is_empty())
    }

    /// The numbers of the tables written to, ascending. After a full disk one may be among them that nothing was
    /// written to.
    #[cfg(test)]
    pub(crate) fn tables(&self) -> Vec<u32> {
        let mut tables: Vec<u32> = Vec::new();
        for layer in self.newest_first() {
            tables.extend(layer.memory.tables());
            tables.extend(layer.trees.iter().map(|(table, _)| *table));
        }
        tables.sort_unstable();
        tables.dedup();
        tables
    }

    fn newest_first(&self) -> impl Iterator<Item = &Layer> {
        self.above.iter().rev().chain([&self.base])
    }

    fn layers(&self) -> usize {
        1 + self.above.len()
    }

    fn top(&self) -> &Layer {
        self.above.last().unwrap_or(&self.base)
    }

    /// The layer that writes go into.
    #[inline]
    fn writable_layer(&mut self) -> &mut Layer {
        if self.savepoints.last().is_some_and(|savepoint| savepoint.layers == self.layers()) {
            self.above.push(Layer::default());
        }
        self.above.last_mut().unwrap_or(&mut self.base)
    }

    fn find(&self, id: SavepointId) -> std::result::Result<usize, UnknownSavepoint> {
        self.savepoints.binary_search_by_key(&id, |s| s.id).map_err(|_| UnknownSavepoint)
    }

    fn discard(&mut self, shared: &Shared, layer: Layer) {
        self.held -= layer.memory.held();
        for (_, tree) in layer.trees {
            shared.drop_temp(tree);
        }
    }

    /// Merges the layers above the last savepoint as far as they lie in memory.
    fn sink(&mut self) {
        let bottom = self.savepoints.last().map_or(0, |savepoint| savepoint.layers);
        if self.above.len() <= bottom {
            return;
        }
        for layer in self.above.split_off(bottom) {
            let below = self.above.last_mut().unwrap_or(&mut self.base);
            if below.is_empty() {
                self.held -= below.memory.held();
                *below = layer;
            } else if layer.trees.is_empty() {
                let before = below.memory.held() + layer.memory.held();
                below.memory.absorb(layer.memory);
                let after = below.memory.held();
                self.held = self.held - before + after;
            } else {
                self.above.push(layer);
            }
        }
    }
}

/// A write on its way into a tree.
enum Moving<'m> {
    /// Tag and value.
    InLeaf(&'m [u8], &'m [u8]),
    /// The value, which gets pages of its own.
    Long(&'m [u8], &'m [u8]),
}

/// Key and tagged value do not fit into a leaf.
fn is_long(shared: &Shared, key: &[u8], stored_len: usize) -> bool {
    key.len() + stored_len > shared.limits.max_inline_bytes
}

/// Puts writes, which ascend, into a tree. Where the disk is full, a checkpoint may help; the second attempt repeats
/// what the first has done.
fn move_batch(shared: &Shared, tree: &TempTree, batch: &[Moving<'_>]) -> Result<()> {
    shared.with_relief(|| {
        // The gate before everything that another builder may want.
        let pass = shared.enter_gate(batch.iter().any(|m| matches!(m, Moving::Long(..))))?;
        let _building = pass.as_ref().map(|_| Building::begin());
        let slot = shared.slots.claim();
        shared.writable()?;
        let mut ops = Vec::with_capacity(batch.len());
        for moving in batch {
            let (key, value) = match *moving {
                Moving::InLeaf(key, stored) => (key, NewValue::Inline(stored)),
                Moving::Long(key, value) => {
                    (key, NewValue::Overflow(build(shared, tree, value, pass.as_ref())?))
                }
            };
            ops.push(Op { key, write: Write::Put(value), lsn: 0 });
        }
        tree.apply_owning(shared, &mut ops, &slot, false)
    })
}

/// Builds a value in pages of its own. They are published, so that no frames are held for it.
fn build<'p>(
    shared: &'p Shared,
    tree: &TempTree,
    mut value: &[u8],
    pass: Option<&BuildPass<'p>>,
) -> Result<PreparedOverflow<'p>> {
    let (table, len) = (tree.tree().table, value.len() as u64);
    match PreparedOverflow::build(&shared.pool, table, len, &mut value, pass) {
        Ok(mut built) => {
            built.publish_early();
            Ok(built)
        }
        Err(SourceError::Pool(e)) => Err(shared.pool_error(e)),
        Err(e) => Err(Error::Internal(e.to_string())),
    }
}
