//! Which bytes of a store's files something still needs: damage of them is never harmless.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bedstone::inspect::{Inspector, SpaceUse};
use bedstone_io::sim::SimDisk;

use super::victim::{LOG_BEGINS, SEGMENT_HEADER, start};
use crate::setup::DIR;

/// A file, and what of it is needed as a whole.
#[derive(Debug)]
struct File {
    path: PathBuf,
    bytes: Vec<u8>,
    pieces: Vec<(Range<u64>, String)>,
}

/// Images of pages and blocks of the page map; the log from where replay begins. Not the superblocks: of the two each
/// makes up for the other.
#[derive(Debug)]
pub(super) struct Needed(Vec<File>);

impl Needed {
    /// What the store on `disk`, which nobody has open, needs of its files.
    pub(super) fn of(disk: &Arc<SimDisk>) -> bedstone::Result<Self> {
        let file = |path: PathBuf| Ok(File { bytes: disk.copy_out(&path)?, path, pieces: Vec::new() });
        let mut files = disk.files().into_iter().map(file).collect::<bedstone::Result<Vec<_>>>()?;
        let store = Inspector::open_on(disk.clone(), DIR)?;
        let data = files.iter_mut().filter(|file| file.path.ends_with("data"));
        for file in data {
            let areas = store.space().into_iter();
            let owned = areas.filter(|(.., owner)| matches!(owner, SpaceUse::Page(_) | SpaceUse::PageMap));
            file.pieces = owned.map(|(at, len, owner)| (at..at + len, format!("{owner:?}"))).collect();
        }
        let mut log = store.log(None)?;
        while let Some(record) = log.next_entry()? {
            files.iter_mut().for_each(|file| file.add_record(record.lsn, record.end));
        }
        Ok(Self(files))
    }

    /// The first needed piece that is not on `disk` as it was, in words. A segment says itself which it is, so it may have
    /// another one's name.
    pub(super) fn hurt(&self, disk: &SimDisk) -> Option<String> {
        self.0.iter().find_map(|file| {
            let (bytes, what) = file.lacks(&disk.copy_out(&file.path).unwrap_or_default())?;
            let elsewhere = disk.files().into_iter().filter_map(|path| disk.copy_out(&path).ok());
            let renamed = elsewhere.into_iter().any(|bytes| file.lacks(&bytes).is_none());
            (!renamed).then(|| format!("{what} in bytes {bytes:?} of {}", file.path.display()))
        })
    }

    /// Where the image begins in which the byte at `offset` of the data file lies.
    pub(super) fn image(&self, data: &Path, offset: u64) -> Option<u64> {
        let pieces = &self.0.iter().find(|file| file.path == data)?.pieces;
        pieces.iter().map(|(bytes, _)| bytes).find(|bytes| bytes.contains(&offset)).map(|bytes| bytes.start)
    }
}

impl File {
    /// The first needed piece that is not among `bytes` as it was.
    fn lacks(&self, bytes: &[u8]) -> Option<&(Range<u64>, String)> {
        let range = |piece: &Range<u64>| piece.start as usize..piece.end as usize;
        self.pieces.iter().find(|(piece, _)| self.bytes.get(range(piece)) != bytes.get(range(piece)))
    }

    /// What of a record lies here, if this is a segment; it may go on in the next one.
    fn add_record(&mut self, lsn: u64, end: u64) {
        let Some(start) = start(&self.path) else { return };
        let here = start..start + (self.bytes.len() as u64).saturating_sub(LOG_BEGINS);
        let (from, to) = (lsn.max(here.start), end.min(here.end));
        if from >= to {
            return;
        }
        if self.pieces.is_empty() {
            self.pieces.push((0..SEGMENT_HEADER, "the header of a segment".into()));
        }
        let offset = |lsn: u64| lsn - start + LOG_BEGINS;
        self.pieces.push((offset(from)..offset(to), format!("the record at {lsn}")));
    }
}
