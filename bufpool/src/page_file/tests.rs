use bedstone_io::ALIGN;

use super::*;
use crate::map::Root;
use crate::testing::{NAME, TestFile};

const PAGE_SIZE: usize = 8192;

fn image(page: u32, fill: u8) -> AlignedBuf {
    let mut buf = AlignedBuf::zeroed(PAGE_SIZE);
    buf.fill(fill);
    let kind = PageKind::Leaf as u8;
    let header = PageHeader {
        checksum: 0,
        kind,
        level: 0,
        version: FORMAT_VERSION,
        page: PageId(page),
        table: 1,
        max_lsn: 5,
        history: 0,
    };
    header.write(&mut buf);
    buf
}

/// A file of the pages 1 to `pages`.
fn store(pages: u32) -> (TestFile, Stable) {
    let file = TestFile::with_len(1 << 20);
    let mut units = Units::new((1 << 20) / UNIT as u64);
    units.mark_used(0, DATA_START_UNIT).unwrap();
    let mut delta = Vec::new();
    for page in 1..=pages {
        let mut buf = image(page, page as u8);
        let checksum = seal_image(&mut buf);
        let entry = Entry::new(units.alloc_run(2).unwrap(), 2, checksum as u16);
        file.write_at(buf.as_aligned(), entry.offset()).unwrap();
        delta.push((PageId(page), entry));
    }
    let mut stable = Stable::new(PAGE_SIZE, &[7; 16]);
    let mut alloc = || Ok(units.alloc_run(2).unwrap());
    let mut sink = |unit: u64, buf: AlignedBuf| Ok(file.write_at(buf.as_aligned(), unit * UNIT as u64)?);
    let update = stable.prepare(&delta, 1, &mut alloc, &mut sink).unwrap();
    let superblock = Superblock {
        database_id: [7; 16],
        page_size: PAGE_SIZE as u32,
        checkpoint: 1,
        opening: 1,
        next_page_id: pages + 1,
        replay_lsn: 1,
        log_end: 1,
        map_root: update.root(),
        file_units: units.total(),
        live_pages: update.live_pages(),
        map_blocks: update.map_blocks(),
        created_unix_ms: 1,
    };
    stable.apply(update);
    superblock.write_both(&*file, 0).unwrap();
    (file, stable)
}

fn open(file: &TestFile) -> Result<PageFile> {
    PageFile::open_read_only(&*file.disk, Path::new(NAME))
}

#[test]
fn every_flipped_bit_of_an_image_is_noticed() {
    let mut buf = image(9, 1);
    let checksum = seal_image(&mut buf);
    let entry = Entry::new(40, 2, checksum as u16);
    assert_eq!(verify_image(PageId(9), entry, &buf).unwrap().checksum, checksum);
    for bit in 0..PAGE_SIZE * 8 {
        buf[bit / 8] ^= 1 << (bit % 8);
        let finding = verify_image(PageId(9), entry, &buf).unwrap_err();
        assert!(matches!(finding, Finding::Checksum { .. }), "bit {bit}");
        buf[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn whole_images_in_the_wrong_place_are_noticed() {
    let mut buf = image(9, 1);
    let check = seal_image(&mut buf) as u16;
    let entry = Entry::new(40, 2, check);
    let verify = |page, entry, bytes: &[u8]| verify_image(PageId(page), entry, bytes).unwrap_err();
    assert_eq!(verify(9, Entry::new(40, 2, !check), &buf), Finding::Stale { map: !check, image: check });
    assert_eq!(verify(8, entry, &buf), Finding::PageId { expected: PageId(8), found: PageId(9) });
    assert_eq!(verify(9, Entry::new(40, 1, check), &buf), Finding::Length { expected: 4096, found: 8192 });
    assert_eq!(verify(9, entry, &[]), Finding::Length { expected: 8192, found: 0 });
    assert_eq!(verify(9, entry, &[0; PAGE_SIZE]), Finding::Zeroed);
    assert_eq!(verify(9, Entry::FREE, &[]), Finding::Length { expected: 0, found: 0 });
    buf[4] = 9;
    let entry = Entry::new(40, 2, seal_image(&mut buf) as u16);
    assert_eq!(verify(9, entry, &buf), Finding::Kind { found: 9 });
    buf[6] = 3;
    let entry = Entry::new(40, 2, seal_image(&mut buf) as u16);
    assert_eq!(verify(9, entry, &buf), Finding::Version { found: 3 });
}

#[test]
fn a_good_file_shows_everything() {
    let (file, _) = store(20);
    let pages = open(&file).unwrap();
    assert!(pages.map_problems().is_empty() && pages.superblock_faults().is_empty());
    assert_eq!((pages.page_count(), pages.page_size()), (20, PAGE_SIZE));
    for (page, entry) in pages.entries() {
        let (bytes, header) = pages.read_page(page).unwrap();
        assert_eq!((header.page, bytes[PAGE_SIZE - 1]), (page, page.0 as u8));
        let raw = pages.read_page_raw(page).unwrap();
        assert!(raw.findings.is_empty() && raw.bytes[..] == bytes[..] && raw.entry == entry);
    }
    assert!(matches!(pages.read_page(PageId(21)), Err(PoolError::Free(PageId(21)))));
    assert!(matches!(pages.read_page_raw(PageId(0)), Err(PoolError::Free(_))));
    let usage = pages.usage();
    assert_eq!(usage[0].owner, Owner::Superblock);
    assert_eq!(usage.last().unwrap().owner, Owner::Map { level: 0, number: 0 });
    let used: u64 = usage.iter().map(|run| run.units).sum();
    assert_eq!(used + pages.free_units(), pages.file_units());
}

#[test]
fn a_lost_write_and_swapped_pages_are_noticed() {
    let (file, stable) = store(3);
    let [first, second, third] = [1, 2, 3].map(|page| stable.get(PageId(page)));
    // An older version of page 1, whole in itself, lies where the new one should.
    let mut old = image(1, 99);
    seal_image(&mut old);
    file.overwrite(first.offset(), &old);
    file.disk.swap(Path::new(NAME), second.offset(), third.offset(), PAGE_SIZE as u64).unwrap();
    let pages = open(&file).unwrap();
    for page in 1..=3 {
        let error = pages.read_page(PageId(page)).unwrap_err();
        assert!(matches!(error, PoolError::Corrupt { page: Some(found), .. } if found == PageId(page)));
        assert!(error.to_string().contains("a write was lost"), "{error}");
    }
    assert_eq!(pages.read_page_raw(PageId(1)).unwrap().findings.len(), 1);
    assert_eq!(pages.read_page_raw(PageId(2)).unwrap().findings.len(), 2);
}

#[test]
fn a_page_beyond_the_files_end_is_shown_as_far_as_it_goes() {
    let (file, stable) = store(3);
    file.truncate(stable.get(PageId(3)).offset() + ALIGN as u64).unwrap();
    let pages = open(&file).unwrap();
    assert!(!pages.map_problems().is_empty());
    assert_eq!(pages.page_count(), 0, "the chunk lay behind the pages");
    assert!(pages.read_page_raw(PageId(3)).is_err());
}

#[test]
fn opening_any_bytes_never_panics() {
    let (file, stable) = store(3);
    let snapshot = file.disk.snapshot();
    let chunk = stable.blocks().next().unwrap().entry;
    let places = [(0, 4096), (65536, 4096), (chunk.offset(), 8192), (stable.get(PageId(2)).offset(), 8192)];
    let mut seed = 0x5eed_u64;
    for round in 0..200 {
        for (offset, len) in places {
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            if seed >> 62 == 0 {
                file.flip_bit(offset + (seed >> 20) % len, (seed >> 40) as u32 % 8);
            } else if seed >> 61 == 7 {
                file.overwrite(offset, &vec![seed as u8; len as usize]);
            }
        }
        match open(&file) {
            Ok(pages) => {
                for id in 0..5 {
                    let good = pages.read_page(PageId(id)).is_ok();
                    let raw = pages.read_page_raw(PageId(id)).map(|raw| raw.findings);
                    assert!(!good || raw.unwrap().is_empty(), "round {round}, page {id}");
                }
                let _ = pages.usage();
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        file.disk.restore(&snapshot);
    }
}

#[test]
fn an_empty_store_opens() {
    let (file, _) = store(0);
    let pages = open(&file).unwrap();
    assert_eq!((pages.page_count(), pages.superblock().map_root), (0, Root::EMPTY));
    assert_eq!(pages.free_units(), pages.file_units() - DATA_START_UNIT);
}
