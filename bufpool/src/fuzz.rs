//! Fuzz targets of the page store: superblocks, page images, blocks of the page map, and whole maps.

use std::path::Path;

use bedstone_io::fuzz::{Input, fitted};
use bedstone_io::sim::SimDisk;
use bedstone_io::{DirectFile, Disk, OpenMode, crc32c};

use crate::header::{CHECKSUM_BYTES, FORMAT_VERSION, PageHeader, PageId};
use crate::map::{self, Entry, Root, block_target, mend_map_block};
use crate::page_file::{seal_image, verify_image};
use crate::superblock::{DATA_START_UNIT, SLOT_BYTES, SLOT_OFFSETS, Superblock, mend_slot};
use crate::units::{UNIT, Units};

/// One slot. Input: 1 if magic and checksum are to be made right, then the slot, filled up with zeros. What is taken
/// for a superblock is, encoded again, the same slot.
pub fn superblock(data: &[u8]) {
    let mut input = Input::new(data);
    let mend = input.u8() & 1 == 1;
    if !mend {
        let _ = Superblock::decode(input.rest());
    }
    let mut slot = fitted(input.rest(), SLOT_BYTES);
    if mend {
        mend_slot(&mut slot);
    }
    if let Ok(superblock) = Superblock::decode(&slot) {
        assert!(superblock.encode()[..] == slot, "a superblock that no writer writes was taken for one");
    }
}

/// The envelope of an image. Input: 1 if the checksum is to be made right, the page looked for, and the image, filled up
/// with zeros. An envelope that is accepted is, written again, the same bytes.
pub fn page_envelope(data: &[u8]) {
    let mut input = Input::new(data);
    let mend = input.u8() & 1 == 1;
    let page = PageId(input.u32());
    let mut image = fitted(input.rest(), UNIT);
    let check = if mend { seal_image(&mut image) } else { crc32c(0, &image[CHECKSUM_BYTES..]) };
    let entry = Entry::new(DATA_START_UNIT, 1, check as u16);
    if let Ok(header) = verify_image(page, entry, &image) {
        assert_eq!((header.page, header.version), (page, FORMAT_VERSION));
        let mut again = image.clone();
        header.write(&mut again);
        assert!(again == image, "an envelope that no writer writes was taken for one");
        assert_eq!(PageHeader::read(&again), header);
    }
}

/// One block of the map.
pub fn map_block(data: &[u8]) {
    block_target(data);
}

/// Units of the file that [`page_map`] makes.
const FILE_UNITS: u64 = 96;

/// A whole map. Input: what the superblock says, and blocks of any content, each where the input says or behind the one
/// before, with right checksums. Loading it strictly gives a map whose pages all lie in the file, each unit used once,
/// or an error; loading it leniently gives a map, and the same one without a problem where the strict way had none.
pub fn page_map(data: &[u8]) {
    let mut input = Input::new(data);
    let disk = SimDisk::new(1);
    let mut bytes = vec![0; FILE_UNITS as usize * UNIT];
    let mut superblock = Superblock {
        database_id: *b"0123456789abcdef",
        page_size: UNIT as u32,
        checkpoint: 3,
        opening: 1,
        // Ids beyond this would be no other case, but cost time: the map in memory reaches up to the highest id.
        next_page_id: input.u32() % (1 << 22),
        replay_lsn: 0,
        log_end: 0,
        map_root: Root::EMPTY,
        file_units: FILE_UNITS,
        live_pages: u64::from(input.u16()),
        map_blocks: u64::from(input.u8()),
        created_unix_ms: 0,
    };
    let mut unit = DATA_START_UNIT;
    let mut entries = Vec::new();
    for _ in 0..1 + input.u8() % 6 {
        let (flags, number) = (input.u8(), input.u32());
        if flags & 8 != 0 {
            unit = u64::from(input.u8()) % FILE_UNITS;
        }
        let block = &mut bytes[unit as usize * UNIT..][..UNIT];
        let mut body = Vec::new();
        for _ in 0..input.u8() % 16 {
            // A page, a block made before, or anything.
            let what = input.u8();
            let slot = input.u16();
            let raw = match what & 3 {
                0 => input.u64(),
                1 => u64::from(input.u8()) | u64::from(what >> 4) << 40 | 7 << 48,
                _ => entries.get(usize::from(what >> 2)).copied().map_or(0, Entry::raw),
            };
            body.push((usize::from(slot), raw));
        }
        let level = flags & 7;
        let check = mend_map_block(block, &superblock.database_id, level, number, &body);
        let entry = Entry::new(unit, 1, check);
        entries.push(entry);
        superblock.map_root = Root { entry, height: level + 1 };
        unit = (unit + 1) % FILE_UNITS;
    }
    let path = Path::new("/data");
    disk.copy_in(path, &bytes).expect("the simulated disk has room");
    let file = disk.open_direct(path, OpenMode::Read).expect("the file is there");

    let mut units = Units::new(FILE_UNITS);
    let strict = map::load(&*file, &superblock, &mut units);
    let mut problems = 0;
    let mut lenient_units = Units::new(FILE_UNITS);
    let lenient = map::load_lenient(&*file, &superblock, &mut lenient_units, &mut |_| problems += 1)
        .expect("a lenient loading ends");
    let Ok(stable) = strict else {
        assert!(problems > 0, "the strict loading found something that the lenient one did not");
        return;
    };
    assert_eq!(problems, 0, "the lenient loading found something that the strict one did not");
    assert!(stable.iter().eq(lenient.iter()));
    assert_eq!((stable.live_pages(), stable.map_blocks()), (superblock.live_pages, superblock.map_blocks));
    let used = DATA_START_UNIT + stable.live_pages() + stable.map_blocks();
    assert_eq!(units.used_units(), used, "every unit has one owner");
    for (page, entry) in stable.iter() {
        assert!(page != PageId::NONE && page.0 < superblock.next_page_id, "{page}");
        assert!(entry.unit() >= DATA_START_UNIT && entry.end() <= FILE_UNITS && entry.units() == 1);
    }
}

/// Makes every checksum of a damaged data file right, as a forger would: of the images that the file had as `whole`, of
/// the blocks of its map, in the map's entries, and of both superblocks.
pub fn mend_data_file(bytes: &mut [u8], whole: &dyn DirectFile) {
    let Ok(superblock) = crate::superblock::read_both(whole).best(whole.path()) else { return };
    let mut units = Units::new(superblock.file_units);
    let Ok(stable) = map::load(whole, &superblock, &mut units) else { return };
    let page_size = superblock.page_size as usize;
    // From the pages up: what refers to an image has part of its checksum.
    let pages: Vec<(Entry, Entry)> =
        stable.iter().map(|(_, entry)| (entry, mended(bytes, page_size, entry, &[]))).collect();
    let mut below = pages;
    let mut blocks: Vec<_> = stable.blocks().collect();
    blocks.sort_by_key(|block| block.level);
    for block in blocks {
        let entry = mended(bytes, page_size, block.entry, &below);
        below.push((block.entry, entry));
    }
    for offset in SLOT_OFFSETS {
        if let Some(slot) = bytes.get_mut(offset as usize..offset as usize + SLOT_BYTES) {
            replace_entries(slot, &below);
            mend_slot(slot);
        }
    }
}

/// Seals the image at `entry` once it names the new checksums of others; its own new entry.
fn mended(bytes: &mut [u8], page_size: usize, entry: Entry, others: &[(Entry, Entry)]) -> Entry {
    let at = entry.offset() as usize;
    let Some(image) = bytes.get_mut(at..at + page_size) else { return entry };
    replace_entries(image, others);
    Entry::new(entry.unit(), entry.units(), seal_image(image) as u16)
}

fn replace_entries(image: &mut [u8], entries: &[(Entry, Entry)]) {
    for word in image.as_chunks_mut::<8>().0 {
        let raw = u64::from_le_bytes(*word);
        if raw != 0
            && let Some((_, new)) = entries.iter().find(|(old, _)| old.raw() == raw)
        {
            *word = new.raw().to_le_bytes();
        }
    }
}

/// Whether a unit of a data file looks whole whatever it was before: its checksum is right, or it is a superblock
/// with a right one.
pub fn is_sealed(unit: &[u8]) -> bool {
    let Some((stored, rest)) = unit.split_first_chunk::<CHECKSUM_BYTES>() else { return false };
    u32::from_le_bytes(*stored) == crc32c(0, rest) || Superblock::decode(unit).is_ok()
}
