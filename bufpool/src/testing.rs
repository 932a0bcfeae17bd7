//! A data file on a simulated disk, for the tests of what is stored in it.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use bedstone_io::sim::SimDisk;
use bedstone_io::{DirectFile, Disk, OpenMode};

/// The name of the file on its disk.
pub(crate) const NAME: &str = "/data";

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
