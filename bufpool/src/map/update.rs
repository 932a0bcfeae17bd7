//! From one durable map to the next: copy-on-write of the changed chunks and of the directories above them.

use bedstone_io::AlignedBuf;

use super::block::{self, BlockId};
use super::{Entry, Root, Stable, height_for};
use crate::header::PageId;
use crate::{PoolError, Result};

/// Changes written out but not yet in force.
#[derive(Debug)]
#[must_use = "apply it once the superblock is durable, or give its new blocks back"]
pub struct MapUpdate {
    /// Changed pages, ascending.
    changes: Vec<(PageId, Entry)>,
    /// Per level, the blocks whose place changed, ascending.
    places: Vec<Vec<(usize, u64)>>,
    new_blocks: Vec<(u64, u64)>,
    released: Vec<(u64, u64)>,
    root: Root,
    live_pages: u64,
    map_blocks: u64,
}

impl MapUpdate {
    /// What the superblock has to say of the new map.
    pub fn root(&self) -> Root {
        self.root
    }

    /// Pages in use in the new map.
    pub fn live_pages(&self) -> u64 {
        self.live_pages
    }

    /// Blocks of which the new map itself consists.
    pub fn map_blocks(&self) -> u64 {
        self.map_blocks
    }

    /// Units (start, number) taken for new blocks of the map; to be freed if the checkpoint is given up.
    pub fn new_blocks(&self) -> &[(u64, u64)] {
        &self.new_blocks
    }

    /// Units (start, number) that only the old map refers to: images of pages that moved or were freed, and
    /// replaced blocks of the map.
    pub fn released(&self) -> &[(u64, u64)] {
        &self.released
    }
}

/// [`Stable::prepare`] failed; the durable map is as it was.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct MapAbandoned {
    /// The error of `alloc` or `sink`.
    pub error: PoolError,
    /// Units (start, number) taken for blocks that nothing refers to; to be freed.
    pub new_blocks: Vec<(u64, u64)>,
}

/// A map update being built.
struct Builder<'a> {
    stable: &'a Stable,
    checkpoint: u64,
    alloc: &'a mut dyn FnMut() -> Result<u64>,
    sink: &'a mut dyn FnMut(u64, AlignedBuf) -> Result<()>,
    update: MapUpdate,
}

impl Stable {
    /// Writes the map that results from this one and `delta` (any order, at most one entry per page; an entry equal
    /// to the present one changes nothing). `alloc` gives the first unit of a block of the page's size; `sink` takes
    /// the unit and the sealed image of a block and writes it, or keeps it for a batch. All blocks must be durable
    /// before a superblock names [`MapUpdate::root`]. `checkpoint` is that superblock's number.
    ///
    /// The images that `delta` itself names are the caller's: written by it and allocated by it.
    ///
    /// # Errors
    /// The first error of `alloc` or `sink`, with the units to give back. `self` does not change in any case.
    pub fn prepare(
        &self,
        delta: &[(PageId, Entry)],
        checkpoint: u64,
        alloc: &mut dyn FnMut() -> Result<u64>,
        sink: &mut dyn FnMut(u64, AlignedBuf) -> Result<()>,
    ) -> std::result::Result<MapUpdate, MapAbandoned> {
        let changed = delta.iter().copied().filter(|&(page, entry)| self.get(page) != entry);
        let mut changes: Vec<_> = changed.collect();
        changes.sort_unstable_by_key(|&(page, _)| page);
        let (root, live_pages, map_blocks) = (self.root(), self.live_pages(), self.map_blocks());
        let update = MapUpdate {
            changes,
            places: Vec::new(),
            new_blocks: Vec::new(),
            released: Vec::new(),
            root,
            live_pages,
            map_blocks,
        };
        let mut builder = Builder { stable: self, checkpoint, alloc, sink, update };
        match builder.build() {
            Ok(()) => Ok(builder.update),
            Err(error) => Err(MapAbandoned { error, new_blocks: builder.update.new_blocks }),
        }
    }

    /// Takes `update`, which [`Stable::prepare`] of this map made, over and returns the units (start, number) that
    /// are free from now on. To be called when the superblock that names it is durable in both slots.
    pub fn apply(&mut self, update: MapUpdate) -> Vec<(u64, u64)> {
        for &(page, entry) in &update.changes {
            self.set(page, entry);
        }
        self.fit_places(update.places.len());
        for (level, places) in update.places.iter().enumerate() {
            for &(number, raw) in places {
                // A block beyond the last one is one that held nothing before either.
                if let Some(place) = self.places[level].get_mut(number) {
                    *place = raw;
                }
            }
        }
        update.released
    }
}

impl Builder<'_> {
    fn build(&mut self) -> Result<()> {
        if self.update.changes.is_empty() {
            return Ok(());
        }
        let fan = self.stable.fan();
        self.write_chunks()?;
        let highest = self.update.changes.last().map_or(0, |&(page, _)| self.stable.locate(page).0);
        let chunks = self.stable.chunks.len().max(highest + 1);
        let old_height = self.stable.places.len();
        let height = height_for(chunks as u64, fan as u64).max(old_height);
        for level in 1..height {
            // The tree grows at its top: what was the root becomes the first child of a new level.
            let grown = (level >= old_height).then_some(0);
            let below = self.update.places[level - 1].iter().map(|&(number, _)| number / fan);
            let mut numbers: Vec<usize> = grown.into_iter().chain(below).collect();
            numbers.dedup();
            self.write_directories(level, &numbers)?;
        }
        let top = self.update.places[height - 1].first();
        let entry = Entry(top.map_or(self.stable.root().entry.raw(), |&(_, raw)| raw));
        self.update.root = if entry.is_free() { Root::EMPTY } else { Root { entry, height: height as u8 } };
        Ok(())
    }

    fn write_chunks(&mut self) -> Result<()> {
        let fan = self.stable.fan();
        let changes = std::mem::take(&mut self.update.changes);
        let mut places = Vec::new();
        let mut result = Ok(());
        for group in changes.chunk_by(|a, b| a.0.0 as usize / fan == b.0.0 as usize / fan) {
            let number = group[0].0.0 as usize / fan;
            let old = self.stable.chunks.get(number).and_then(|chunk| chunk.entries.as_deref());
            let mut entries = old.map_or_else(|| vec![0; fan], <[u64]>::to_vec);
            for &(page, entry) in group {
                let replaced = Entry(std::mem::replace(&mut entries[page.0 as usize % fan], entry.raw()));
                self.update.live_pages += u64::from(!entry.is_free());
                if !replaced.is_free() {
                    self.update.live_pages -= 1;
                    self.update.released.push(replaced.run());
                }
            }
            match self.write_block(0, number, &entries) {
                Ok(entry) => places.push((number, entry.raw())),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        self.update.changes = changes;
        self.update.places.push(places);
        result
    }

    fn write_directories(&mut self, level: usize, numbers: &[usize]) -> Result<()> {
        let fan = self.stable.fan();
        let old = self.stable.places.get(level - 1).map_or(&[][..], Vec::as_slice);
        let mut places = Vec::with_capacity(numbers.len());
        for &number in numbers {
            let (from, to) = (number * fan, (number + 1) * fan);
            let mut entries = vec![0; fan];
            let kept = &old[from.min(old.len())..to.min(old.len())];
            entries[..kept.len()].copy_from_slice(kept);
            let below = &self.update.places[level - 1];
            let first = below.partition_point(|&(child, _)| child < from);
            for &(child, raw) in below[first..].iter().take_while(|&&(child, _)| child < to) {
                entries[child - from] = raw;
            }
            places.push((number, self.write_block(level, number, &entries)?.raw()));
        }
        self.update.places.push(places);
        Ok(())
    }

    /// Writes a block to a new place, or drops it if it holds nothing, and releases the old one.
    fn write_block(&mut self, level: usize, number: usize, entries: &[u64]) -> Result<Entry> {
        let old = self.stable.places.get(level).and_then(|places| places.get(number));
        let old = Entry(old.copied().unwrap_or(0));
        if !old.is_free() {
            self.update.map_blocks -= 1;
            self.update.released.push(old.run());
        }
        if entries.iter().all(|&raw| raw == 0) {
            return Ok(Entry::FREE);
        }
        let unit = (self.alloc)()?;
        let units = self.stable.page_units();
        self.update.new_blocks.push((unit, units));
        self.update.map_blocks += 1;
        let id = BlockId { level: level as u8, number: number as u32, id_fold: self.stable.id_fold };
        let (image, check) = block::encode(id, self.checkpoint, entries);
        (self.sink)(unit, image)?;
        Ok(Entry::new(unit, units, check))
    }
}
