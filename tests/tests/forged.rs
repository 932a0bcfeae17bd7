//! Data files that are wrong though every checksum is right: errors that say where, found by fuzzing or beside it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bedstone::fuzz::mend_data_file;
use bedstone::inspect::{Inspector, PageBody, SpaceUse};
use bedstone::{Error, Result};
use bedstone_crashtest::setup::{Config, DIR};
use bedstone_io::sim::SimDisk;
use bedstone_io::{Disk, OpenMode};

fn data() -> PathBuf {
    Path::new(DIR).join("data")
}

/// A database with one table, whose data file `forge` changes; all checksums are made right afterwards.
fn forged(forge: impl FnOnce(&Inspector, &mut [u8])) -> Arc<SimDisk> {
    let disk = SimDisk::new(1);
    let db = Config::small().builder(&disk).create(DIR).unwrap();
    let table = db.table("t").unwrap();
    table.put(b"key", b"value").unwrap();
    drop(table);
    db.close().unwrap();
    let disk = disk.reopen();
    let mut bytes = disk.copy_out(&data()).unwrap();
    forge(&Inspector::open_on(disk.clone(), DIR).unwrap(), &mut bytes);
    mend_data_file(&mut bytes, &*disk.open_direct(&data(), OpenMode::Read).unwrap());
    disk.copy_in(&data(), &bytes).unwrap();
    disk
}

fn open(disk: &Arc<SimDisk>) -> Result<()> {
    Config::small().builder(disk).open(DIR).map(drop)
}

/// The tools' way in took an image for at least as long as an envelope.
#[test]
fn an_image_of_no_length_is_shown_as_damaged() {
    let disk = forged(|inspector, bytes| {
        let map = inspector.space().into_iter().find(|(_, _, owner)| *owner == SpaceUse::PageMap).unwrap();
        let page = inspector.page_ids()[0];
        // Entries of eight bytes behind a header of 32; the length in units is the sixth byte of one.
        bytes[map.0 as usize + 32 + 8 * page as usize + 5] = 0;
    });
    let inspector = Inspector::open_on(disk.clone(), DIR).unwrap();
    assert!(!inspector.map_problems().is_empty());
    let page = inspector.page(inspector.page_ids()[0]).unwrap();
    assert_eq!((page.bytes, page.body), (0, PageBody::Unreadable));
    assert!(page.findings[0].contains("0 bytes"), "{:?}", page.findings);
    assert!(matches!(open(&disk), Err(Error::Corrupt { what: "page map", .. })));
}

/// The number after it does not exist: it was an overflow in one build, and in the other tables got numbers that others
/// have had.
#[test]
fn a_table_with_a_number_beyond_the_largest_is_damage() {
    let disk = forged(|inspector, bytes| {
        let leaf = inspector.page_ids().into_iter().map(|page| inspector.page(page).unwrap());
        let leaf = leaf.into_iter().find(|page| page.table == 0 && page.level == 0).unwrap();
        let image = &mut bytes[leaf.offset as usize..(leaf.offset + leaf.bytes) as usize];
        // The head of the only slot, and the key in its cell, behind the length of the value.
        image[64..68].fill(0xff);
        let cell = usize::from(u16::from_le_bytes([image[68], image[69]]));
        assert_eq!(image[cell + 2..cell + 6], [0, 0, 0, 1]);
        image[cell + 2..cell + 6].fill(0xff);
    });
    let error = open(&disk).unwrap_err();
    assert!(error.is_corruption() && error.to_string().contains("4294967295"), "{error:?}");
    let error = Inspector::open_on(disk, DIR).unwrap().tables().unwrap_err();
    assert!(error.is_corruption() && error.to_string().contains("4294967295"), "{error:?}");
}

/// It was called an internal error, which is one of the program.
#[test]
fn a_table_whose_root_is_not_there_is_damage() {
    let disk = forged(|inspector, bytes| {
        let leaf = inspector.page_ids().into_iter().map(|page| inspector.page(page).unwrap());
        let leaf = leaf.into_iter().find(|page| page.table == 0 && page.level == 0).unwrap();
        let image = &mut bytes[leaf.offset as usize..(leaf.offset + leaf.bytes) as usize];
        let cell = usize::from(u16::from_le_bytes([image[68], image[69]]));
        // The record begins behind the key; the root's number stands four bytes in.
        image[cell + 10..cell + 14].copy_from_slice(&77_u32.to_le_bytes());
    });
    let read = || -> Result<()> {
        let db = Config::small().builder(&disk).open(DIR)?;
        db.open_table("t")?.expect("the table has a record").get(b"key")?;
        Ok(())
    };
    let error = read().unwrap_err();
    assert!(error.is_corruption() && error.page() == Some(77), "{error:?}");
}
