//! The log, open for appending.

use std::marker::PhantomData;
use std::sync::Arc;

use bedstone_io::Disk;

use crate::config::{Durability, WalConfig};
use crate::error::WalError;
use crate::lsn::Lsn;
use crate::reader::LogEnd;
use crate::segment::SegmentInfo;
use crate::stats::WalStats;

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Its position.
    pub lsn: Lsn,
    /// The position after it: what to wait for.
    pub end: Lsn,
}

/// The right to append into prepared space; what is left of it is given back when it is dropped.
#[derive(Debug)]
pub struct SpaceCredit<'a> {
    left: u64,
    _log: PhantomData<&'a Wal>,
}

impl SpaceCredit<'_> {
    /// Bytes of log left, headers and padding included.
    pub fn left(&self) -> u64 {
        self.left
    }
}

/// The log, open for appending.
#[derive(Debug)]
pub struct Wal {}

#[expect(unused_variables, missing_docs, clippy::missing_errors_doc, reason = "signatures only")]
impl Wal {
    pub fn create(disk: &dyn Disk, cfg: &WalConfig, start: Lsn) -> Result<(), WalError> {
        unimplemented!()
    }
    pub fn open(disk: Arc<dyn Disk>, cfg: WalConfig, end: &LogEnd) -> Result<Wal, WalError> {
        unimplemented!()
    }
    pub fn reserve(&self, payload_bytes: u64, records: u64) -> Result<SpaceCredit<'_>, WalError> {
        unimplemented!()
    }
    pub fn append(
        &self,
        credit: &mut SpaceCredit<'_>,
        kind: u8,
        parts: &[&[u8]],
        on_lsn: &mut dyn FnMut(Lsn),
    ) -> Result<Appended, WalError> {
        unimplemented!()
    }
    pub fn try_append(
        &self,
        credit: &mut SpaceCredit<'_>,
        kind: u8,
        parts: &[&[u8]],
        on_lsn: &mut dyn FnMut(Lsn),
    ) -> Result<Option<Appended>, WalError> {
        unimplemented!()
    }
    pub fn make_room(&self) -> Result<(), WalError> {
        unimplemented!()
    }
    pub fn wait(&self, upto: Lsn, durability: Durability) -> Result<(), WalError> {
        unimplemented!()
    }
    pub fn sync(&self) -> Result<Lsn, WalError> {
        unimplemented!()
    }
    pub fn tail(&self) -> Lsn {
        unimplemented!()
    }
    pub fn written_lsn(&self) -> Lsn {
        unimplemented!()
    }
    pub fn durable_lsn(&self) -> Lsn {
        unimplemented!()
    }
    pub fn recycle_below(&self, lsn: Lsn) -> Result<(), WalError> {
        unimplemented!()
    }
    pub fn failed(&self) -> Option<Arc<WalError>> {
        unimplemented!()
    }
    pub fn stats(&self) -> WalStats {
        unimplemented!()
    }
    pub fn segments(&self) -> Vec<SegmentInfo> {
        unimplemented!()
    }
    pub fn max_payload(&self) -> usize {
        unimplemented!()
    }
    pub fn step(&self) {}
    pub fn close(self) -> Result<(), WalError> {
        unimplemented!()
    }
}
