//! A data file on a simulated disk, and checkpoints of it without a pool, for the tests of what is stored in it.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use bedstone_io::sim::SimDisk;
use bedstone_io::{AlignedBuf, DirectFile, Disk, OpenMode};
use proptest::test_runner::{Config, RngSeed};

use crate::header::{FORMAT_VERSION, PageHeader, PageId, PageKind};
use crate::map::{Entry, Root, Stable};
use crate::page_file::seal_image;
use crate::superblock::{DATA_START_UNIT, Superblock};
use crate::units::{UNIT, Units};

/// The name of the file on its disk.
pub(crate) const NAME: &str = "/data";

/// So many cases of a property, the same ones in every run.
pub(crate) fn proptest_config(cases: u32) -> Config {
    Config { cases, failure_persistence: None, rng_seed: RngSeed::Fixed(0x5eed), ..Config::default() }
}

/// An open data file and the disk that it lies on.
#[derive(Debug)]
pub(crate) struct TestFile {
    pub(crate) disk: Arc<SimDisk>,
    file: Arc<dyn DirectFile>,
}

impl TestFile {
    /// A file of `len` bytes, all zeros.
    pub(crate) fn with_len(len: u64) -> Self {
        let disk = SimDisk::new(1);
        let file = disk.open_direct(Path::new(NAME), OpenMode::CreateNew).unwrap();
        file.allocate(len).unwrap();
        Self { disk, file }
    }

    pub(crate) fn flip_bit(&self, offset: u64, bit: u32) {
        self.disk.flip_bit(Path::new(NAME), offset, bit).unwrap();
    }

    pub(crate) fn overwrite(&self, offset: u64, bytes: &[u8]) {
        self.disk.overwrite(Path::new(NAME), offset, bytes).unwrap();
    }

    pub(crate) fn copy(&self, offset: u64, len: usize) -> Vec<u8> {
        self.disk.copy_out(Path::new(NAME)).unwrap()[offset as usize..][..len].to_vec()
    }
}

impl Deref for TestFile {
    type Target = dyn DirectFile;

    fn deref(&self) -> &Self::Target {
        &*self.file
    }
}

/// The sealed image of a leaf whose body follows from `value`.
pub(crate) fn leaf_image(page: PageId, page_size: usize, value: u8) -> AlignedBuf {
    let mut image = AlignedBuf::zeroed(page_size);
    image.fill(value);
    let kind = PageKind::Leaf as u8;
    let header = PageHeader {
        checksum: 0,
        kind,
        level: 0,
        version: FORMAT_VERSION,
        page,
        table: 9,
        max_lsn: 4,
        history: 0,
    };
    header.write(&mut image);
    seal_image(&mut image);
    image
}

/// A store that is kept as a checkpointer keeps it: fresh places for images and map blocks, both superblocks
/// written, and only then what is outdated released.
#[derive(Debug)]
pub(crate) struct TestStore {
    pub(crate) file: TestFile,
    pub(crate) units: Units,
    pub(crate) stable: Stable,
    pub(crate) superblock: Superblock,
}

impl TestStore {
    /// An empty store in a file of `total` units.
    pub(crate) fn new(page_size: usize, total: u64) -> Self {
        let file = TestFile::with_len(total * UNIT as u64);
        let mut units = Units::new(total);
        units.mark_used(0, DATA_START_UNIT).unwrap();
        let database_id = *b"0123456789abcdef";
        let superblock = Superblock {
            database_id,
            page_size: page_size as u32,
            checkpoint: 1,
            opening: 1,
            next_page_id: 1,
            replay_lsn: 0,
            log_end: 0,
            map_root: Root::EMPTY,
            file_units: total,
            live_pages: 0,
            map_blocks: 0,
            created_unix_ms: 0,
        };
        superblock.write_both(&*file, 0).unwrap();
        Self { file, units, stable: Stable::new(page_size, &database_id), superblock }
    }

    pub(crate) fn page_size(&self) -> usize {
        self.superblock.page_size as usize
    }

    pub(crate) fn page_units(&self) -> u64 {
        (self.page_size() / UNIT) as u64
    }

    /// A fresh place for an image, without writing it.
    pub(crate) fn place(&mut self, check: u16) -> Entry {
        let units = self.page_units();
        Entry::new(self.units.alloc_run(units).expect("the test's file is large enough"), units, check)
    }

    /// Writes [`leaf_image`] to a fresh place.
    pub(crate) fn write_leaf(&mut self, page: PageId, value: u8) -> Entry {
        let image = leaf_image(page, self.page_size(), value);
        let entry = self.place(PageHeader::read(&image).checksum as u16);
        self.file.write_at(image.as_aligned(), entry.offset()).unwrap();
        entry
    }

    /// Makes `delta` durable and returns how many map blocks that took.
    pub(crate) fn checkpoint(&mut self, delta: &[(PageId, Entry)]) -> usize {
        let Self { file, units, stable, superblock } = self;
        let block_units = u64::from(superblock.page_size) / UNIT as u64;
        let checkpoint = superblock.checkpoint + 1;
        let mut alloc = || Ok(units.alloc_run(block_units).expect("the test's file is large enough"));
        let mut sink = |unit, image: AlignedBuf| {
            file.write_at(image.as_aligned(), unit * UNIT as u64)?;
            Ok(())
        };
        let update = stable.prepare(delta, checkpoint, &mut alloc, &mut sink).unwrap();
        let highest = delta.iter().map(|&(page, _)| page.0).max().unwrap_or(0);
        superblock.checkpoint = checkpoint;
        superblock.next_page_id = superblock.next_page_id.max(highest + 1);
        superblock.map_root = update.root();
        superblock.live_pages = update.live_pages();
        superblock.map_blocks = update.map_blocks();
        superblock.write_both(&**file, 0).unwrap();
        let blocks = update.new_blocks().len();
        for (start, n) in stable.apply(update) {
            units.free(start, n).unwrap();
        }
        blocks
    }
}
