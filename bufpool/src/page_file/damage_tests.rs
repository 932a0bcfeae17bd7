//! Files with pages of every size, healthy and damaged in every way, down to random bytes.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::map::Root;
use crate::testing::{NAME, TestStore, leaf_image, proptest_config};

const FILE_UNITS: u64 = 256;
const PAGES: u32 = 10;
const PAGE_SIZES: [usize; 5] = [4096, 8192, 16384, 32768, 65536];

/// A file with the pages 1 to [`PAGES`], of which page 3 was written twice and page 5 freed again.
fn store(page_size: usize) -> TestStore {
    let mut store = TestStore::new(page_size, FILE_UNITS);
    let all: Vec<_> = (1..=PAGES).map(|id| (PageId(id), store.write_leaf(PageId(id), id as u8))).collect();
    store.checkpoint(&all);
    let moved = store.write_leaf(PageId(3), 77);
    store.checkpoint(&[(PageId(3), moved), (PageId(5), Entry::FREE)]);
    store
}

fn open(store: &TestStore) -> Result<PageFile> {
    PageFile::open_read_only(&*store.file.disk, Path::new(NAME))
}

/// Asserts that reading `page` fails with this finding in front, at the right place.
fn assert_corrupt(file: &PageFile, page: PageId, expected: &str) {
    match file.read_page(page).unwrap_err() {
        PoolError::Corrupt { file: path, offset, page: Some(named), what: "page", detail } => {
            assert_eq!((path.as_path(), offset, named), (Path::new(NAME), file.entry(page).offset(), page));
            assert!(detail.contains(expected), "{detail}, not {expected}");
        }
        other => panic!("{other}"),
    }
    let raw = file.read_page_raw(page).unwrap();
    assert!(raw.findings[0].contains(expected), "{:?}, not {expected}", raw.findings);
}

#[test]
fn a_healthy_file_is_read_whole() {
    for page_size in PAGE_SIZES {
        let store = store(page_size);
        let file = open(&store).unwrap();
        assert_eq!(file.superblock(), &store.superblock);
        assert!(file.slots().slots.iter().all(|slot| slot.as_ref().unwrap() == &store.superblock));
        assert!(file.map_problems().is_empty() && file.superblock_faults().is_empty());
        assert_eq!((file.page_size(), file.page_count()), (page_size, u64::from(PAGES) - 1));
        assert!(file.entries().eq(store.stable.iter()));
        for (page, entry) in file.entries() {
            let (bytes, header) = file.read_page(page).unwrap();
            let value = if page.0 == 3 { 77 } else { page.0 as u8 };
            assert_eq!(bytes[..], leaf_image(page, page_size, value)[..]);
            assert_eq!((header.page, header.kind, header.max_lsn), (page, PageKind::Leaf as u8, 4));
            let raw = file.read_page_raw(page).unwrap();
            assert_eq!((raw.bytes.as_slice(), raw.entry), (&bytes[..], entry));
            assert!(raw.findings.is_empty());
        }
        for absent in [0, 5, PAGES + 1, u32::MAX].map(PageId) {
            assert!(file.entry(absent).is_free());
            assert!(matches!(file.read_page(absent), Err(PoolError::Free(page)) if page == absent));
            assert!(matches!(file.read_page_raw(absent), Err(PoolError::Free(page)) if page == absent));
        }
    }
}

#[test]
fn every_used_unit_has_one_owner() {
    for page_size in PAGE_SIZES {
        let store = store(page_size);
        let file = open(&store).unwrap();
        let usage = file.usage();
        assert!(usage.windows(2).all(|pair| pair[0].start + pair[0].units <= pair[1].start));
        let used: u64 = usage.iter().map(|run| run.units).sum();
        assert_eq!((used, file.file_units()), (FILE_UNITS - file.free_units(), FILE_UNITS));
        for unit in 0..FILE_UNITS {
            let owned = usage.iter().any(|run| (run.start..run.start + run.units).contains(&unit));
            assert_eq!(owned, store.units.is_used(unit), "unit {unit}");
        }
        let pages = usage.iter().filter(|run| matches!(run.owner, Owner::Page(_))).count();
        assert_eq!(pages as u64, file.page_count());
        assert_eq!(usage[0], Run { start: 0, units: DATA_START_UNIT, owner: Owner::Superblock });
        assert!(usage.iter().any(|run| run.owner == Owner::Map { level: 0, number: 0 }));
    }
}

#[test]
fn a_flipped_bit_anywhere_in_the_file_is_noticed() {
    for page_size in PAGE_SIZES {
        let store = store(page_size);
        let file = open(&store).unwrap();
        let page = PageId(2);
        let bits = page_size as u64 * 8;
        let header = HEADER_BYTES as u64 * 8;
        for bit in (0..header).chain((header..bits).step_by(page_size / 64 + 1)).chain(bits - 64..bits) {
            let offset = file.entry(page).offset() + bit / 8;
            store.file.flip_bit(offset, (bit % 8) as u32);
            assert_corrupt(&file, page, "was computed");
            store.file.flip_bit(offset, (bit % 8) as u32);
        }
        file.read_page(page).unwrap();
    }
}

#[test]
fn writes_that_were_lost_or_torn_are_noticed() {
    for page_size in PAGE_SIZES {
        let store = store(page_size);
        let file = open(&store).unwrap();
        let (page, offset) = (PageId(3), file.entry(PageId(3)).offset());
        let (older, newer) = (leaf_image(page, page_size, 3), leaf_image(page, page_size, 77));
        // The older image is whole; only the page map can tell.
        store.file.overwrite(offset, &older);
        assert_corrupt(&file, page, "a write was lost");
        assert_eq!(file.read_page_raw(page).unwrap().findings.len(), 1);
        store.file.overwrite(offset, &newer[..page_size / 2]);
        assert_corrupt(&file, page, "was computed");
        store.file.overwrite(offset, &vec![0; page_size]);
        assert_corrupt(&file, page, "all zeros");
    }
}

#[test]
fn a_damaged_superblock_is_reported_and_two_are_an_error() {
    let store = store(4096);
    for slot in [0, 1] {
        store.file.flip_bit(SLOT_OFFSETS[slot] + 60, 1);
        let file = open(&store).unwrap();
        assert_eq!(file.superblock(), &store.superblock);
        let faults = file.superblock_faults();
        assert_eq!((faults.len(), faults[0].0), (1, SLOT_OFFSETS[slot]));
        assert!(faults[0].1.contains("checksum"));
        file.read_page(PageId(1)).unwrap();
        store.file.flip_bit(SLOT_OFFSETS[slot] + 60, 1);
    }
    // A crash between the two writes.
    let older = Superblock { opening: 0, ..store.superblock.clone() };
    older.write_slot(&*store.file, 1).unwrap();
    assert!(open(&store).unwrap().superblock_faults()[0].1.contains("older"));

    for offset in SLOT_OFFSETS {
        store.file.flip_bit(offset + 60, 1);
    }
    let message = open(&store).unwrap_err().to_string();
    assert!(message.contains("offset 0") && message.contains("offset 65536"), "{message}");
    for offset in SLOT_OFFSETS {
        store.file.overwrite(offset, &[0; UNIT]);
    }
    assert!(matches!(open(&store), Err(PoolError::NotADatabase { .. })));
    let missing = PageFile::open_read_only(&*store.file.disk, Path::new("/absent"));
    assert!(matches!(missing, Err(PoolError::Io(error)) if error.is_not_found()));
}

#[test]
fn a_damaged_map_hides_only_what_is_behind_it() {
    let mut store = store(4096);
    let far = PageId(600);
    let entry = store.write_leaf(far, 1);
    store.checkpoint(&[(far, entry)]);
    let first = store.stable.blocks().find(|block| (block.level, block.number) == (0, 0)).unwrap();
    store.file.flip_bit(first.entry.offset() + 2000, 4);
    let file = open(&store).unwrap();
    assert!(
        matches!(file.map_problems()[0], PoolError::Corrupt { offset, .. } if offset == first.entry.offset())
    );
    assert!(file.entries().eq([(far, entry)]));
    file.read_page(far).unwrap();
    assert!(matches!(file.read_page(PageId(1)), Err(PoolError::Free(_))));
}

#[test]
fn a_file_cut_short_is_read_as_far_as_it_goes() {
    let mut store = store(8192);
    // The last page lies behind the map.
    let last = store.write_leaf(PageId(PAGES), 1);
    store.checkpoint(&[(PageId(PAGES), last)]);
    let pages: Vec<_> = store.stable.iter().collect();
    let map_end = store.stable.blocks().map(|block| block.entry.end()).max().unwrap();
    assert!(map_end * UNIT as u64 <= last.offset() || map_end < FILE_UNITS);
    let odd = [1, 100, 4095, 4097, 65536 + 4000, 131_072 + 77];
    let mut lengths: Vec<_> = (0..FILE_UNITS).map(|units| units * UNIT as u64).chain(odd).collect();
    lengths.sort_unstable_by_key(|&length| std::cmp::Reverse(length));
    for length in lengths {
        store.file.disk.truncate_file(Path::new(NAME), length).unwrap();
        let file = match open(&store) {
            Ok(file) => file,
            Err(error) => {
                assert!(length < UNIT as u64, "{length}: {error}");
                continue;
            }
        };
        assert!(!file.map_problems().is_empty(), "length {length}");
        if length < map_end * UNIT as u64 {
            continue;
        }
        assert!(file.entries().eq(pages.iter().copied()));
        for &(page, entry) in &pages {
            let whole = entry.end() * UNIT as u64 <= length;
            let raw = file.read_page_raw(page).unwrap();
            assert_eq!(
                (file.read_page(page).is_ok(), raw.findings.is_empty()),
                (whole, whole),
                "{page}, {length}"
            );
            assert_eq!(raw.bytes.len(), 8192);
        }
    }
}

/// Calls everything there is, whatever it answers.
fn exercise(store: &TestStore) {
    let Ok(file) = open(store) else { return };
    assert_eq!(file.entries().count() as u64, file.page_count());
    assert!(file.usage().len() as u64 > file.page_count());
    assert!(file.free_units() <= file.file_units());
    for problem in file.map_problems() {
        assert!(!problem.to_string().is_empty());
    }
    for (page, entry) in file.entries() {
        let raw = file.read_page_raw(page).unwrap();
        assert_eq!(raw.bytes.len(), entry.len());
        assert_eq!(file.read_page(page).is_ok(), raw.findings.is_empty(), "{page}: {:?}", raw.findings);
    }
    assert!(file.superblock_faults().len() <= 2);
}

prop_compose! {
    /// A superblock of which some fields make no sense.
    fn odd_superblock(right: Superblock)(
        which in 0..8_u32,
        wide in prop_oneof![any::<u64>(), 0..300_u64],
        height in 0..7_u8,
        shift in 12..18_u32,
    ) -> Superblock {
        let mut odd = right.clone();
        match which {
            0 => odd.page_size = 1 << shift,
            1 => odd.map_root.height = height,
            2 => odd.map_root = Root { entry: Entry::from_raw(wide), height },
            3 => odd.next_page_id = wide as u32,
            4 => odd.file_units = wide,
            5 => (odd.live_pages, odd.map_blocks) = (wide, wide),
            6 => odd.database_id = [wide as u8; 16],
            _ => odd.checkpoint = wide,
        }
        odd
    }
}

proptest! {
    #![proptest_config(proptest_config(150))]

    #[test]
    fn random_images_never_verify(
        page in any::<u32>(),
        raw in any::<u64>(),
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        padded in any::<bool>(),
    ) {
        let mut bytes = bytes;
        if padded {
            bytes.resize(UNIT, 0);
        }
        let entry = if padded { Entry::new(40, 1, raw as u16) } else { Entry::from_raw(raw) };
        let finding = verify_image(PageId(page), entry, &bytes).unwrap_err();
        let error = corrupt(Path::new(NAME), PageId(page), entry, &finding);
        prop_assert!(error.to_string().contains(&finding.to_string()));
    }

    #[test]
    fn random_files_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..10_000), magic in any::<bool>()) {
        let mut bytes = bytes;
        if magic {
            bytes.splice(..bytes.len().min(8), superblock::MAGIC);
        }
        let store = TestStore::new(UNIT, DATA_START_UNIT);
        store.file.disk.copy_in(Path::new(NAME), &bytes).unwrap();
        prop_assert!(open(&store).is_err());
    }

    #[test]
    fn damage_anywhere_does_no_harm(
        size in 0..3_usize,
        damage in proptest::collection::vec(
            // The first superblock is spared, so that most files still open.
            (1..FILE_UNITS, 0..4000_u64, proptest::collection::vec(any::<u8>(), 1..90)),
            0..40,
        ),
    ) {
        let store = store(PAGE_SIZES[size]);
        for (unit, offset, bytes) in damage {
            store.file.overwrite(unit * UNIT as u64 + offset, &bytes);
        }
        exercise(&store);
    }

    #[test]
    fn odd_superblocks_do_no_harm(odd in odd_superblock(store(UNIT).superblock)) {
        let store = store(UNIT);
        odd.write_both(&*store.file, 0).unwrap();
        exercise(&store);
    }

    /// Chunks whole by their checksums, with entries that make no sense.
    #[test]
    fn odd_entries_do_no_harm(
        size in 0..3_usize,
        odd in proptest::collection::btree_map(1..1200_u32, any::<u64>(), 1..20),
        near in proptest::collection::btree_map(1..1200_u32, (28..260_u64, 1..6_u64, any::<u16>()), 0..20),
    ) {
        let mut store = TestStore::new(PAGE_SIZES[size], FILE_UNITS);
        let odd = odd.into_iter().map(|(id, raw)| (PageId(id), Entry::from_raw(raw)));
        let near = near.into_iter();
        let near = near.map(|(id, (unit, units, check))| (PageId(id), Entry::new(unit, units, check)));
        let delta: BTreeMap<_, _> = odd.chain(near).collect();
        store.checkpoint(&delta.into_iter().collect::<Vec<_>>());
        exercise(&store);
    }
}
