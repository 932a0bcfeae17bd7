//! Reads the page map of a file, level by level from the top, many blocks in flight at once, and believes nothing:
//! every block is verified, every run must lie within the file and belong to one owner only.

use bedstone_io::{AlignedBuf, DirectFile, ReadOp};

use super::block::{self, BlockId};
use super::{Entry, Stable, fan_out, height_for};
use crate::header::PageId;
use crate::superblock::{DATA_START_UNIT, Superblock};
use crate::units::{UNIT, Units};
use crate::{PoolError, Result};

/// Blocks read in one batch.
const BATCH: usize = 64;

/// Reads the map that `superblock` names. `units` must be as long as the file and wholly free; afterwards the
/// superblocks' area, every page image and every block of the map are marked in it.
///
/// # Errors
/// [`PoolError::Io`] if a block cannot be read, [`PoolError::Corrupt`] with the place of the first thing that is
/// wrong, [`PoolError::OutOfMemory`] if there is no room for the map.
pub fn load(file: &dyn DirectFile, superblock: &Superblock, units: &mut Units) -> Result<Stable> {
    Loader::new(file, superblock, units, &mut Err)?.run()
}

/// The same for tools that look at damaged files: what is wrong goes to `problem`, and loading goes on without
/// that block. Entries that cannot be right stay in the map. `units` is then only as right as the file.
pub(crate) fn load_lenient(
    file: &dyn DirectFile,
    superblock: &Superblock,
    units: &mut Units,
    problem: &mut dyn FnMut(PoolError),
) -> Result<Stable> {
    let mut note = |error| {
        problem(error);
        Ok(())
    };
    Loader::new(file, superblock, units, &mut note)?.run()
}

struct Loader<'a> {
    file: &'a dyn DirectFile,
    superblock: &'a Superblock,
    units: &'a mut Units,
    /// Told everything that is wrong; its error ends the loading.
    problem: &'a mut dyn FnMut(PoolError) -> Result<()>,
    stable: Stable,
}

impl<'a> Loader<'a> {
    fn new(
        file: &'a dyn DirectFile,
        superblock: &'a Superblock,
        units: &'a mut Units,
        problem: &'a mut dyn FnMut(PoolError) -> Result<()>,
    ) -> Result<Self> {
        let stable = Stable::new(superblock.page_size as usize, &superblock.database_id);
        let mut loader = Self { file, superblock, units, problem, stable };
        let total = loader.units.total();
        if total < superblock.file_units || total < DATA_START_UNIT {
            let expected = superblock.file_units;
            let detail = format!("the file has {total} units of 4 KiB, the superblock says {expected}");
            loader.report(total * UNIT as u64, None, detail)?;
        }
        let reserved = DATA_START_UNIT.min(total);
        if let Err(error) = loader.units.mark_used(0, reserved) {
            loader.report(0, None, error.to_string())?;
        }
        Ok(loader)
    }

    fn report(&mut self, offset: u64, page: Option<PageId>, detail: String) -> Result<()> {
        let file = self.file.path().to_path_buf();
        (self.problem)(PoolError::Corrupt { file, offset, page, what: "page map", detail })
    }

    fn run(mut self) -> Result<Stable> {
        let fan = fan_out(self.stable.page_size);
        let root = self.superblock.map_root;
        let height_max = height_for((1_u64 << 32).div_ceil(fan as u64), fan as u64);
        if usize::from(root.height) > height_max {
            self.report(0, None, format!("a map of {} levels, {height_max} at most", root.height))?;
            return Ok(self.stable);
        }
        if !root.entry.is_free() {
            self.load_levels(usize::from(root.height))?;
        }
        let found = (self.stable.live_pages(), self.stable.map_blocks());
        let expected = (self.superblock.live_pages, self.superblock.map_blocks);
        if found != expected {
            let detail = format!("(pages, map blocks) are {found:?}, the superblock says {expected:?}");
            self.report(0, None, detail)?;
        }
        Ok(self.stable)
    }

    fn load_levels(&mut self, height: usize) -> Result<()> {
        let mut level_blocks = vec![(0_u32, self.superblock.map_root.entry)];
        let mut places: Vec<Vec<(u32, Entry)>> = vec![Vec::new(); height];
        for level in (0..height).rev() {
            let mut below = Vec::new();
            for batch in level_blocks.chunks(BATCH) {
                self.load_batch(level as u8, batch, &mut below, &mut places[level])?;
            }
            level_blocks = below;
        }
        // Blocks whose content was lost still have their place, so the levels reach as far as their blocks do.
        let chunks = places[0].last().map_or(0, |&(number, _)| number as usize + 1);
        self.reserve_chunks(chunks)?;
        self.stable.fit_places(height);
        for (level, blocks) in places.into_iter().enumerate() {
            for (number, entry) in blocks {
                if let Some(place) = self.stable.places[level].get_mut(number as usize) {
                    *place = entry.raw();
                }
            }
        }
        Ok(())
    }

    fn reserve_chunks(&mut self, chunks: usize) -> Result<()> {
        let have = self.stable.chunks.len();
        if chunks > have {
            let bytes = (chunks * size_of::<super::Chunk>()) as u64;
            let reserved = self.stable.chunks.try_reserve(chunks - have);
            reserved.map_err(|_| PoolError::OutOfMemory { what: "the page map", bytes })?;
            self.stable.chunks.resize_with(chunks, super::Chunk::default);
        }
        Ok(())
    }

    /// Reads blocks of one level; notes the places of the valid ones, and the blocks of the next level in `below`.
    fn load_batch(
        &mut self,
        level: u8,
        blocks: &[(u32, Entry)],
        below: &mut Vec<(u32, Entry)>,
        places: &mut Vec<(u32, Entry)>,
    ) -> Result<()> {
        let mut wanted = Vec::with_capacity(blocks.len());
        for &(number, entry) in blocks {
            match self.claim(entry) {
                Ok(()) => wanted.push((number, entry)),
                Err(detail) => {
                    let detail = format!("block {number} of level {level} ({entry:?}): {detail}");
                    self.report(entry.offset(), None, detail)?;
                }
            }
        }
        let mut bufs: Vec<AlignedBuf> =
            wanted.iter().map(|_| AlignedBuf::zeroed(self.stable.page_size)).collect();
        let mut ops: Vec<ReadOp<'_>> = wanted
            .iter()
            .zip(&mut bufs)
            .map(|((_, entry), buf)| ReadOp {
                buf: buf.as_aligned_mut(),
                offset: entry.offset(),
                result: Ok(()),
            })
            .collect();
        self.file.read_batch(&mut ops);
        for ((number, entry), op) in wanted.into_iter().zip(ops) {
            if let Err(error) = op.result {
                (self.problem)(PoolError::Io(error))?;
                continue;
            }
            let id = BlockId { level, number, id_fold: self.stable.id_fold };
            if let Err(detail) = block::verify(&op.buf, id, entry, self.superblock.checkpoint) {
                let detail = format!("block {number} of level {level}: {detail}");
                self.report(entry.offset(), None, detail)?;
                continue;
            }
            if block::entries(&op.buf).all(|raw| raw == 0) {
                // Such a block is not stored. Taken for one, its units would be in use and belong to nobody.
                let detail = format!("block {number} of level {level} has no entry in use");
                self.report(entry.offset(), None, detail)?;
            }
            places.push((number, entry));
            if level == 0 {
                self.take_chunk(number, entry, &op.buf)?;
            } else {
                self.take_directory(level, number, entry, &op.buf, below)?;
            }
        }
        Ok(())
    }

    /// Marks a run as used, if an image of a page's size may lie there.
    fn claim(&mut self, entry: Entry) -> std::result::Result<(), String> {
        let page_units = self.stable.page_units();
        if entry.units() != page_units {
            return Err(format!("{} units long instead of {page_units}", entry.units()));
        }
        if entry.unit() < DATA_START_UNIT {
            return Err("lies in the superblocks' area".to_owned());
        }
        self.units.mark_used(entry.unit(), entry.units()).map_err(|error| error.to_string())
    }

    fn take_chunk(&mut self, number: u32, place: Entry, bytes: &[u8]) -> Result<()> {
        let first = u64::from(number) * fan_out(bytes.len()) as u64;
        self.reserve_chunks(number as usize + 1)?;
        for (slot, raw) in block::entries(bytes).enumerate().filter(|&(_, raw)| raw != 0) {
            let (id, entry) = (first + slot as u64, Entry(raw));
            if id == 0 || id >= u64::from(self.superblock.next_page_id) {
                let next = self.superblock.next_page_id;
                self.report(place.offset(), None, format!("page id {id} is in use, the next one is {next}"))?;
                continue;
            }
            let page = PageId(id as u32);
            if let Err(detail) = self.claim(entry) {
                self.report(place.offset(), Some(page), format!("{page} ({entry:?}): {detail}"))?;
            }
            self.stable.set(page, entry);
        }
        Ok(())
    }

    fn take_directory(
        &mut self,
        level: u8,
        number: u32,
        place: Entry,
        bytes: &[u8],
        below: &mut Vec<(u32, Entry)>,
    ) -> Result<()> {
        let fan = fan_out(bytes.len()) as u64;
        let first = u64::from(number) * fan;
        let pages_per_child = fan.pow(u32::from(level));
        for (slot, raw) in block::entries(bytes).enumerate().filter(|&(_, raw)| raw != 0) {
            let child = first + slot as u64;
            if child * pages_per_child >= u64::from(self.superblock.next_page_id) {
                let next = self.superblock.next_page_id;
                let detail = format!("block {child} of level {} lies beyond page id {next}", level - 1);
                self.report(place.offset(), None, detail)?;
                continue;
            }
            below.push((child as u32, Entry(raw)));
        }
        Ok(())
    }
}
