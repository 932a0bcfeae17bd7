//! The map with blocks of every size through checkpoints that succeed, are given up, and are read back; and what is
//! left of maps with damaged or nonsensical blocks.

use std::collections::BTreeMap;
use std::path::Path;

use bedstone_io::AlignedBuf;
use proptest::prelude::*;

use super::block::BlockId;
use super::*;
use crate::superblock::DATA_START_UNIT;
use crate::testing::{NAME, TestStore, proptest_config};
use crate::units::Units;
use crate::{PoolError, Result};

const FILE_UNITS: u64 = 16 * 1024;

fn reload(store: &TestStore) -> Result<(Stable, Units)> {
    let mut units = Units::new(store.units.total());
    let stable = load(&*store.file, &store.superblock, &mut units)?;
    Ok((stable, units))
}

fn reload_lenient(store: &TestStore) -> (Stable, Vec<PoolError>) {
    let mut units = Units::new(store.units.total());
    let mut problems = Vec::new();
    let stable =
        load_lenient(&*store.file, &store.superblock, &mut units, &mut |problem| problems.push(problem))
            .unwrap();
    (stable, problems)
}

/// Asserts that the file, the map in memory and the books of units all say what `model` says.
fn check(store: &TestStore, model: &BTreeMap<PageId, Entry>) {
    let (loaded, units) = reload(store).unwrap();
    for stable in [&store.stable, &loaded] {
        assert!(stable.iter().eq(model.iter().map(|(&page, &entry)| (page, entry))));
        assert!(model.iter().all(|(&page, &entry)| stable.get(page) == entry));
        assert_eq!(stable.live_pages(), model.len() as u64);
        assert_eq!(stable.root(), store.superblock.map_root);
        assert_eq!(stable.map_blocks(), store.superblock.map_blocks);
        assert!(model.last_key_value().is_none_or(|(page, _)| u64::from(page.0) < stable.id_bound()));
    }
    assert!(loaded.blocks().eq(store.stable.blocks()));
    let images = model.len() as u64 + store.superblock.map_blocks;
    assert_eq!(units.used_units(), DATA_START_UNIT + images * store.page_units());
    for unit in 0..units.total() {
        assert_eq!(units.is_used(unit), store.units.is_used(unit), "unit {unit}");
    }
}

/// Where page ids are drawn from: a few near each place where the tree changes its form.
fn anchor(which: usize, fan: usize) -> u32 {
    [1, fan - 3, 5 * fan, fan * fan - 3, fan * fan + 2 * fan][which] as u32
}

#[derive(Debug, Clone)]
struct Round {
    /// Anchor, distance from it, and the check of the new image; `None` frees the page.
    changes: Vec<(usize, u32, Option<u16>)>,
    /// The checkpoint is first given up at this allocation (or at writing that block, if the flag is set).
    give_up: Option<(usize, bool)>,
    /// Goes on with the map as it is read back.
    reopen: bool,
}

fn round() -> impl Strategy<Value = Round> {
    let change =
        (prop_oneof![4 => 0..1_usize, 3 => 1..3_usize, 1 => 3..5_usize], 0..7_u32, any::<Option<u16>>());
    let give_up = proptest::option::of((0..6_usize, any::<bool>()));
    (proptest::collection::vec(change, 0..14), give_up, any::<bool>())
        .prop_map(|(changes, give_up, reopen)| Round { changes, give_up, reopen })
}

/// Prepares `delta`, fails at the given block, and gives the blocks back.
fn abandon(store: &mut TestStore, delta: &[(PageId, Entry)], at: usize, in_sink: bool) {
    let used = store.units.used_units();
    let page_units = store.page_units();
    let TestStore { file, units, stable, superblock } = store;
    let failure = || PoolError::Config("on order".to_owned());
    let (mut allocated, mut written) = (0, 0);
    let mut alloc = || {
        allocated += 1;
        let fails = allocated > at && !in_sink;
        if fails { Err(failure()) } else { Ok(units.alloc_run(page_units).unwrap()) }
    };
    let mut sink = |unit, image: AlignedBuf| {
        written += 1;
        file.write_at(image.as_aligned(), unit * UNIT as u64)?;
        if written > at { Err(failure()) } else { Ok(()) }
    };
    let new_blocks = match stable.prepare(delta, superblock.checkpoint + 1, &mut alloc, &mut sink) {
        Err(abandoned) => {
            assert!(matches!(abandoned.error, PoolError::Config(_)));
            abandoned.new_blocks
        }
        // Too small a change for the failure to be met: the checkpoint is given up all the same.
        Ok(update) => update.new_blocks().to_vec(),
    };
    for (start, n) in new_blocks {
        units.free(start, n).unwrap();
    }
    assert_eq!(units.used_units(), used);
}

proptest! {
    #![proptest_config(proptest_config(120))]
    #[test]
    fn agrees_with_an_ordered_map_at_every_block_size(
        size in 0..5_u32,
        rounds in proptest::collection::vec(round(), 1..7),
    ) {
        let mut store = TestStore::new(UNIT << size, FILE_UNITS);
        let fan = fan_out(UNIT << size);
        let mut model: BTreeMap<PageId, Entry> = BTreeMap::new();
        for round in rounds {
            let mut changed = BTreeMap::new();
            for (which, distance, image) in round.changes {
                changed.insert(PageId(anchor(which, fan) + distance), image);
            }
            let delta: Vec<(PageId, Entry)> = changed
                .into_iter()
                .rev()
                .map(|(page, image)| (page, image.map_or(Entry::FREE, |check| store.place(check))))
                .collect();
            if let Some((at, in_sink)) = round.give_up {
                abandon(&mut store, &delta, at, in_sink);
                let durable = reload(&store).unwrap().0;
                for stable in [&store.stable, &durable] {
                    prop_assert!(stable.iter().eq(model.iter().map(|(&page, &entry)| (page, entry))));
                }
            }
            let highest = delta.iter().map(|&(page, _)| page.0 + 1).max().unwrap_or(0);
            let next_page_id = store.superblock.next_page_id.max(highest);
            let at_most = store.stable.blocks_at_most(delta.len() as u64, next_page_id);
            let blocks = store.checkpoint(&delta) as u64;
            prop_assert!(blocks <= at_most, "{blocks} blocks, at most {at_most} were foretold");
            for (page, entry) in delta {
                if entry.is_free() {
                    model.remove(&page);
                } else {
                    model.insert(page, entry);
                }
            }
            check(&store, &model);
            if round.reopen {
                (store.stable, store.units) = reload(&store).unwrap();
            }
        }
        let all_free: Vec<_> = model.keys().map(|&page| (page, Entry::FREE)).collect();
        prop_assert_eq!(store.checkpoint(&all_free), 0);
        prop_assert_eq!(store.superblock.map_root, Root::EMPTY);
        check(&store, &BTreeMap::new());
    }

    /// Blocks whole by their checksums, with entries that make no sense.
    #[test]
    fn nonsense_behind_right_checksums_does_no_harm(
        height in 1..6_u8,
        next_page_id in 1..2_000_000_u32,
        level in 0..4_u8,
        number in 0..3_u32,
        raws in proptest::collection::vec((0..508_usize, nonsense()), 0..20),
    ) {
        let mut store = TestStore::new(UNIT, 64);
        let mut entries = vec![0; 508];
        for (slot, raw) in raws {
            entries[slot] = raw;
        }
        let id_fold = bedstone_io::crc32c(0, &store.superblock.database_id);
        // The root, and the first block below it.
        let (below, check) = block::encode(BlockId { level, number, id_fold }, 1, &entries);
        store.file.write_at(below.as_aligned(), 40 * UNIT as u64).unwrap();
        entries[0] = Entry::new(40, 1, check).raw();
        let (root, check) = block::encode(BlockId { level: height - 1, number: 0, id_fold }, 1, &entries);
        store.file.write_at(root.as_aligned(), 41 * UNIT as u64).unwrap();
        store.superblock.map_root = Root { entry: Entry::new(41, 1, check), height };
        store.superblock.next_page_id = next_page_id;
        let strict = reload(&store);
        let (stable, problems) = reload_lenient(&store);
        prop_assert_eq!(strict.is_err(), !problems.is_empty());
        prop_assert!(stable.iter().all(|(page, _)| page.0 < next_page_id));
        prop_assert!(stable.root().height <= height);
    }
}

/// Raw entries, some of which refer to blocks there are.
fn nonsense() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        (30..66_u64, 0..3_u64, any::<u16>()).prop_map(|(unit, units, check)| {
            unit | units << UNIT_BITS | u64::from(check) << (UNIT_BITS + UNITS_BITS)
        })
    ]
}

/// A map of `height` levels with 4 KiB blocks.
fn with_height(height: u8) -> TestStore {
    let mut store = TestStore::new(UNIT, 256);
    let fan = fan_out(UNIT) as u64;
    let delta: Vec<_> = (0..u32::from(height))
        .map(|level| (PageId(fan.pow(level) as u32 + 1), store.place(0x1234)))
        .collect();
    store.checkpoint(&delta);
    assert_eq!(store.superblock.map_root.height, height);
    store
}

#[test]
fn every_height_is_reached() {
    for height in 1..=4 {
        let mut store = with_height(height);
        let model: BTreeMap<PageId, Entry> = store.stable.iter().collect();
        assert_eq!(model.len(), usize::from(height));
        check(&store, &model);
        // A tree once high stays so, but its empty parts are not stored.
        let (&first, _) = model.first_key_value().unwrap();
        let rest: Vec<_> =
            model.keys().filter(|&&page| page != first).map(|&page| (page, Entry::FREE)).collect();
        store.checkpoint(&rest);
        assert_eq!(store.stable.map_blocks(), u64::from(height));
        check(&store, &model.into_iter().take(1).collect());
    }
}

#[test]
fn what_a_damaged_block_does_not_hide_is_still_found() {
    let store = with_height(3);
    let pages: Vec<_> = store.stable.iter().collect();
    let chunks: Vec<_> = store.stable.blocks().filter(|block| block.level == 0).collect();
    for (damaged, chunk) in chunks.iter().enumerate() {
        store.file.flip_bit(chunk.entry.offset() + 100, 0);
        let (stable, problems) = reload_lenient(&store);
        let mut left = pages.clone();
        left.remove(damaged);
        assert!(stable.iter().eq(left));
        // The block itself, and the superblock's counters that no longer agree.
        assert_eq!(problems.len(), 2, "{problems:?}");
        store.file.flip_bit(chunk.entry.offset() + 100, 0);
    }
    store.file.overwrite(store.superblock.map_root.entry.offset(), &[0; UNIT]);
    let (stable, problems) = reload_lenient(&store);
    assert_eq!((stable.iter().count(), stable.root(), problems.is_empty()), (0, Root::EMPTY, false));
}

#[test]
fn a_file_cut_short_is_noticed() {
    let store = with_height(3);
    for units in (0..=40).rev() {
        store.file.disk.truncate_file(Path::new(NAME), units * UNIT as u64).unwrap();
        let mut marks = Units::new(units);
        let error = load(&*store.file, &store.superblock, &mut marks).unwrap_err();
        assert!(error.to_string().contains("the superblock says 256"), "{error}");
        let mut problems = 0;
        let mut marks = Units::new(units);
        load_lenient(&*store.file, &store.superblock, &mut marks, &mut |_| problems += 1).unwrap();
        assert!(problems > 0);
    }
}

#[test]
fn the_last_page_id_has_a_place() {
    let mut store = TestStore::new(UNIT, 256);
    let page = PageId(u32::MAX - 1);
    let entry = store.place(5);
    store.checkpoint(&[(page, entry)]);
    let (loaded, units) = reload(&store).unwrap();
    assert_eq!((loaded.get(page), loaded.live_pages(), loaded.map_blocks()), (entry, 1, 4));
    assert!(loaded.iter().eq([(page, entry)]));
    assert_eq!(units.used_units(), store.units.used_units());
}

#[test]
fn failed_reads_are_errors_of_the_medium() {
    use bedstone_io::sim::{Fault, OpKind, Repeat};
    let store = with_height(2);
    store.file.disk.fail_nth(OpKind::Read, 2, Fault::Eio, Repeat::Once);
    assert!(matches!(reload(&store), Err(PoolError::Io(_))));
    reload(&store).unwrap();
}
