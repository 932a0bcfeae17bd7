//! The standard library's ordered map behind a lock: no disk, no transactions, no promise. It shows what the bare
//! data structure costs, and gives the workloads something to be tested on.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::data::Batch;
use crate::engine::{Effective, Engine, Reader, Result, Settings};

type Map = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// A map in memory.
#[derive(Debug, Default)]
pub struct StdMap {
    map: RwLock<Map>,
}

/// The map, locked for reading.
#[derive(Debug)]
pub struct StdReader<'a>(RwLockReadGuard<'a, Map>);

impl StdMap {
    fn write(&self) -> RwLockWriteGuard<'_, Map> {
        self.map.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine for StdMap {
    const NAME: &'static str = "btreemap";
    type Reader<'a> = StdReader<'a>;

    fn open(_dir: &Path, _settings: &Settings) -> Result<Self> {
        Ok(Self::default())
    }

    fn read<R>(&self, body: impl FnOnce(&mut StdReader<'_>) -> Result<R>) -> Result<R> {
        body(&mut StdReader(self.map.read().unwrap_or_else(PoisonError::into_inner)))
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.write().insert(key.into(), value.into());
        Ok(())
    }

    fn put_batch(&self, batch: &Batch) -> Result<()> {
        let mut map = self.write();
        for (key, value) in batch.iter() {
            map.insert(key.into(), value.into());
        }
        Ok(())
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.write().remove(key);
        Ok(())
    }

    fn settle(&self) -> Result<()> {
        Ok(())
    }

    fn effective(&self) -> Result<Effective> {
        Ok(Effective {
            io: "none".into(),
            durability: "none".into(),
            cache: "all in memory".into(),
            other: "one lock around the map".into(),
        })
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}

impl Reader for StdReader<'_> {
    fn get<R>(&mut self, key: &[u8], seen: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(self.0.get(key).map(|value| seen(value)))
    }

    fn scan(&mut self, mut seen: impl FnMut(&[u8], &[u8])) -> Result<()> {
        self.0.iter().for_each(|(key, value)| seen(key, value));
        Ok(())
    }

    fn seek_scan(&mut self, from: &[u8], limit: usize, mut seen: impl FnMut(&[u8], &[u8])) -> Result<()> {
        let range = (Bound::Included(from), Bound::Unbounded);
        self.0.range::<[u8], _>(range).take(limit).for_each(|(key, value)| seen(key, value));
        Ok(())
    }
}
