use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::PoolError;
use crate::superblock::{DATA_START_UNIT, Superblock};
use crate::testing::TestFile;
use crate::units::Units;

const ID: [u8; 16] = *b"a map to be sure";
const PAGE_SIZE: usize = 4096;
const FAN: u32 = 508;

/// A data file of whose pages only the places matter, with the books that a page store keeps.
struct Store {
    file: TestFile,
    units: Units,
    stable: Stable,
    superblock: Superblock,
}

fn no_space() -> PoolError {
    PoolError::NoSpace { file: "data".into(), wanted: 1 }
}

impl Store {
    fn new(file_units: u64) -> Self {
        let mut units = Units::new(file_units);
        units.mark_used(0, DATA_START_UNIT).unwrap();
        let superblock = Superblock {
            database_id: ID,
            page_size: PAGE_SIZE as u32,
            checkpoint: 0,
            opening: 0,
            next_page_id: u32::MAX,
            replay_lsn: 0,
            log_end: 0,
            map_root: Root::EMPTY,
            file_units,
            live_pages: 0,
            map_blocks: 0,
            created_unix_ms: 0,
        };
        let file = TestFile::with_len(file_units * UNIT as u64);
        Self { file, units, stable: Stable::new(PAGE_SIZE, &ID), superblock }
    }

    fn image(&mut self, check: u16) -> Entry {
        Entry::new(self.units.alloc_run(1).unwrap(), 1, check)
    }

    fn prepare(&mut self, delta: &[(PageId, Entry)], blocks: u64) -> Result<MapUpdate, MapAbandoned> {
        let Self { file, units, stable, superblock } = self;
        let mut left = blocks;
        let mut alloc = || {
            left = left.checked_sub(1).ok_or_else(no_space)?;
            units.alloc_run(1).ok_or_else(no_space)
        };
        stable.prepare(delta, superblock.checkpoint + 1, &mut alloc, &mut |unit, image| {
            Ok(file.write_at(image.as_aligned(), unit * UNIT as u64)?)
        })
    }

    fn free(&mut self, runs: &[(u64, u64)]) {
        for &(start, units) in runs {
            self.units.free(start, units).unwrap();
        }
    }

    fn checkpoint(&mut self, delta: &[(PageId, Entry)]) {
        let update = self.prepare(delta, u64::MAX).unwrap();
        self.superblock.checkpoint += 1;
        self.superblock.map_root = update.root();
        self.superblock.live_pages = update.live_pages();
        self.superblock.map_blocks = update.map_blocks();
        let released = self.stable.apply(update);
        self.free(&released);
        assert_eq!(self.stable.root(), self.superblock.map_root);
        assert_eq!(self.stable.map_blocks(), self.superblock.map_blocks);
        assert_eq!(self.stable.live_pages(), self.superblock.live_pages);
    }

    fn load(&self) -> Result<(Stable, Units), PoolError> {
        let mut units = Units::new(self.units.total());
        let stable = load(&*self.file, &self.superblock, &mut units)?;
        Ok((stable, units))
    }

    /// What was loaded must be what is in memory, down to each used unit.
    fn check_loaded(&self) {
        let (stable, units) = self.load().unwrap();
        assert!(stable.iter().eq(self.stable.iter()));
        assert!(stable.blocks().eq(self.stable.blocks()));
        for unit in 0..self.units.total() {
            assert_eq!(units.is_used(unit), self.units.is_used(unit), "unit {unit}");
        }
    }
}

fn expect_corrupt(result: Result<(Stable, Units), PoolError>, part: &str) {
    match result {
        Err(error @ PoolError::Corrupt { .. }) => assert!(error.to_string().contains(part), "{error}"),
        other => panic!("{part} expected, got {:?}", other.map(|(stable, _)| stable)),
    }
}

#[test]
fn entries_pack_into_eight_bytes() {
    let entry = Entry::new((1 << 40) - 1, 16, 0xabcd);
    assert_eq!((entry.unit(), entry.units(), entry.check()), ((1 << 40) - 1, 16, 0xabcd));
    assert_eq!((entry.offset(), entry.len()), (((1 << 40) - 1) * 4096, 65536));
    assert_eq!(Entry::from_raw(entry.raw()), entry);
    assert!(Entry::FREE.is_free() && !entry.is_free());
}

#[test]
fn levels_reach_every_page_id() {
    for (page_size, levels) in [(4096, 4), (8192, 4), (16384, 3), (32768, 3), (65536, 3)] {
        let fan = fan_out(page_size) as u64;
        assert_eq!(height_for((1_u64 << 32).div_ceil(fan), fan), levels, "pages of {page_size} bytes");
    }
    assert_eq!((height_for(0, 508), height_for(1, 508), height_for(2, 508)), (0, 1, 2));
    assert_eq!((height_for(508, 508), height_for(509, 508)), (2, 3));
}

#[test]
fn the_tree_grows_at_its_top_and_empties() {
    let mut store = Store::new(1000);
    let mut pages = Vec::new();
    for (page, height) in [(1, 1), (FAN, 2), (FAN * FAN, 3), (FAN * FAN * FAN, 4), (2, 4)] {
        let entry = store.image(page as u16);
        store.checkpoint(&[(PageId(page), entry)]);
        assert_eq!(store.superblock.map_root.height, height);
        pages.push(PageId(page));
        store.check_loaded();
        assert_eq!(store.stable.get(PageId(page)), entry);
        assert_eq!(store.stable.get(PageId(page + 1)), Entry::FREE);
    }
    let frees: Vec<_> = pages.into_iter().map(|page| (page, Entry::FREE)).collect();
    store.checkpoint(&frees[..4]);
    store.check_loaded();
    store.checkpoint(&frees);
    assert_eq!(store.superblock.map_root, Root::EMPTY);
    assert_eq!(store.units.used_units(), DATA_START_UNIT);
    store.check_loaded();
    let entry = store.image(5);
    store.checkpoint(&[(PageId(3), entry)]);
    store.check_loaded();
}

#[test]
fn only_changed_blocks_are_rewritten() {
    let mut store = Store::new(20_000);
    let all: Vec<_> = (1..10_000).map(|page| (PageId(page), store.image(page as u16))).collect();
    store.checkpoint(&all);
    assert_eq!(store.stable.map_blocks(), 21);
    let moved = store.image(0);
    let update = store.prepare(&[all[0], (PageId(7), moved), all[9_000]], u64::MAX).unwrap();
    assert_eq!(update.new_blocks().len(), 2);
    assert_eq!(update.released().len(), 3);
    let released = update.released().to_vec();
    assert!(released.contains(&all[6].1.run()));
    assert_eq!(store.stable.apply(update), released);
    // Nothing changed: nothing is written.
    let update = store.prepare(&[all[0], (PageId(20_000), Entry::FREE)], 0).unwrap();
    assert!(update.released().is_empty() && update.root() == store.stable.root());
}

#[test]
fn a_failure_half_way_changes_nothing() {
    let mut store = Store::new(4000);
    let delta: Vec<_> = [1, FAN, 3 * FAN].map(|page| (PageId(page), store.image(9))).into();
    store.checkpoint(&delta);
    let before = store.units.used_units();
    let changes: Vec<_> = [2, FAN, 5 * FAN, FAN * FAN].map(|page| (PageId(page), store.image(8))).into();
    let with_images = store.units.used_units();
    let needed = store.prepare(&changes, u64::MAX).unwrap();
    let blocks = needed.new_blocks().len() as u64;
    store.free(needed.new_blocks());
    assert_eq!(blocks, 7);
    for room in 0..blocks {
        let abandoned = store.prepare(&changes, room).unwrap_err();
        assert!(matches!(abandoned.error, PoolError::NoSpace { .. }));
        assert_eq!(abandoned.new_blocks.len() as u64, room);
        store.free(&abandoned.new_blocks);
        assert_eq!(store.units.used_units(), with_images);
    }
    let images: Vec<_> = changes.iter().map(|(_, entry)| entry.run()).collect();
    store.free(&images);
    assert_eq!(store.units.used_units(), before);
    store.check_loaded();
}

/// Three levels: a root directory, two directories, two chunks.
fn tall_store() -> (Store, Vec<MapBlock>) {
    let mut store = Store::new(200);
    let delta: Vec<_> = [1, 2, FAN * FAN].map(|page| (PageId(page), store.image(page as u16))).into();
    store.checkpoint(&delta);
    let blocks: Vec<_> = store.stable.blocks().collect();
    assert_eq!(blocks.len(), 5);
    (store, blocks)
}

#[test]
fn a_flipped_bit_in_any_block_is_noticed() {
    let (store, blocks) = tall_store();
    for block in blocks {
        // Every bit of the header, and some of every entry; the block's own tests try every bit.
        for bit in (0..32 * 8).chain((32 * 8..PAGE_SIZE as u64 * 8).step_by(97)) {
            store.file.flip_bit(block.entry.offset() + bit / 8, (bit % 8) as u32);
            expect_corrupt(store.load(), "checksum");
            store.file.flip_bit(block.entry.offset() + bit / 8, (bit % 8) as u32);
        }
    }
    store.check_loaded();
}

#[test]
fn lost_and_misdirected_writes_of_blocks_are_noticed() {
    let (mut store, blocks) = tall_store();
    let image = |store: &Store, block: &MapBlock| store.file.copy(block.entry.offset(), PAGE_SIZE);
    // Two chunks change places.
    let (first, second) = (image(&store, &blocks[0]), image(&store, &blocks[1]));
    store.file.overwrite(blocks[0].entry.offset(), &second);
    store.file.overwrite(blocks[1].entry.offset(), &first);
    expect_corrupt(store.load(), "a write was lost");
    store.file.overwrite(blocks[0].entry.offset(), &first);
    store.file.overwrite(blocks[1].entry.offset(), &second);
    store.check_loaded();
    // A new chunk is written where an older one lay, but never arrives.
    let moved = store.image(77);
    store.checkpoint(&[(PageId(2), moved)]);
    let chunk = store.stable.blocks().next().unwrap();
    store.file.overwrite(chunk.entry.offset(), &first);
    expect_corrupt(store.load(), "a write was lost");
}

#[test]
fn maps_that_no_store_writes_are_refused() {
    let spoilt = |delta: &[(PageId, Entry)], spoil: fn(&mut Store)| {
        let mut store = Store::new(100);
        store.checkpoint(delta);
        spoil(&mut store);
        store.load()
    };
    let none: fn(&mut Store) = |_| ();
    let good = Entry::new(90, 1, 1);
    expect_corrupt(spoilt(&[(PageId(1), good), (PageId(2), good)], none), "unit 90 is used twice");
    expect_corrupt(spoilt(&[(PageId(1), Entry::new(100, 1, 1))], none), "beyond");
    expect_corrupt(spoilt(&[(PageId(1), Entry::new((1 << 40) - 1, 1, 1))], none), "beyond");
    expect_corrupt(spoilt(&[(PageId(1), Entry::new(31, 1, 1))], none), "superblocks' area");
    expect_corrupt(spoilt(&[(PageId(1), Entry::new(90, 2, 1))], none), "2 units long instead of 1");
    expect_corrupt(spoilt(&[(PageId(1), Entry::from_raw(90))], none), "0 units long instead of 1");
    expect_corrupt(spoilt(&[(PageId(0), good)], none), "page id 0");
    expect_corrupt(spoilt(&[(PageId(5), good)], |store| store.superblock.next_page_id = 5), "page id 5");
    expect_corrupt(
        spoilt(&[(PageId(5000), good)], |store| store.superblock.next_page_id = 5),
        "lies beyond page id 5",
    );
    expect_corrupt(spoilt(&[(PageId(5), good)], |store| store.superblock.map_root.height = 5), "5 levels");
    expect_corrupt(spoilt(&[(PageId(5), good)], |store| store.superblock.map_root.height = 2), "expected");
    expect_corrupt(
        spoilt(&[(PageId(5), good)], |store| store.superblock.live_pages = 2),
        "the superblock says",
    );
    expect_corrupt(
        spoilt(&[(PageId(5), good)], |store| store.superblock.map_root = Root::EMPTY),
        "the superblock says",
    );
    expect_corrupt(
        spoilt(&[(PageId(5), good)], |store| store.superblock.file_units = 101),
        "the file has 100 units",
    );
    expect_corrupt(
        spoilt(&[(PageId(5), good)], |store| store.superblock.checkpoint = 0),
        "written by checkpoint 1",
    );
    expect_corrupt(spoilt(&[(PageId(5), good)], |store| store.superblock.database_id = [0; 16]), "expected");
    let empty = |store: &mut Store| {
        let id = block::BlockId { level: 1, number: 0, id_fold: store.stable.id_fold };
        let (image, check) = block::encode(id, 1, &[0; FAN as usize]);
        let entry = Entry::new(50, 1, check);
        store.file.overwrite(entry.offset(), &image);
        store.superblock.map_root = Root { entry, height: 2 };
        (store.superblock.live_pages, store.superblock.map_blocks) = (0, 0);
    };
    expect_corrupt(spoilt(&[(PageId(5), good)], empty), "no entry in use");
}

#[test]
fn a_tool_sees_what_is_left_of_a_damaged_map() {
    let (store, blocks) = tall_store();
    store.file.flip_bit(blocks[1].entry.offset() + 100, 0);
    let mut problems = Vec::new();
    let mut units = Units::new(200);
    let lenient =
        load_lenient(&*store.file, &store.superblock, &mut units, &mut |problem| problems.push(problem));
    let pages: Vec<_> = lenient.unwrap().iter().map(|(page, _)| page.0).collect();
    assert_eq!(pages, [1, 2]);
    assert_eq!(problems.len(), 2, "the block, and the count of pages: {problems:?}");
}

proptest! {
    #![proptest_config(crate::testing::proptest_config(40))]

    #[test]
    fn agrees_with_an_ordered_map(
        checkpoints in proptest::collection::vec(
            proptest::collection::vec((0..6_u32, 1..40_u32, any::<bool>(), any::<u16>()), 0..30),
            1..12,
        ),
    ) {
        let mut store = Store::new(3000);
        let mut model: BTreeMap<PageId, Entry> = BTreeMap::new();
        // Page ids in clusters that lie in different chunks and directories.
        let bases = [0, FAN - 20, 7 * FAN, FAN * FAN - 20, 2 * FAN * FAN - 20, 3 * FAN * FAN];
        for changes in checkpoints {
            let mut delta: BTreeMap<PageId, Entry> = BTreeMap::new();
            for (base, step, in_use, check) in changes {
                let page = PageId(bases[base as usize] + step);
                if delta.contains_key(&page) {
                    continue;
                }
                delta.insert(page, if in_use { store.image(check) } else { Entry::FREE });
            }
            let delta: Vec<_> = delta.into_iter().rev().collect();
            let bound = store.stable.blocks_at_most(delta.len() as u64, u32::MAX);
            let update = store.prepare(&delta, bound).unwrap();
            store.free(update.new_blocks());
            store.checkpoint(&delta);
            for (page, entry) in delta {
                if entry.is_free() { model.remove(&page) } else { model.insert(page, entry) };
            }
            prop_assert!(store.stable.iter().eq(model.iter().map(|(&page, &entry)| (page, entry))));
            // Exactly what the map refers to is in use.
            let runs = model.values().map(|entry| entry.run());
            let blocks = store.stable.blocks().map(|block| block.entry.run());
            let used: BTreeSet<u64> = runs.chain(blocks).map(|(start, _)| start).collect();
            prop_assert_eq!(store.units.used_units(), DATA_START_UNIT + used.len() as u64);
            store.check_loaded();
        }
    }
}
