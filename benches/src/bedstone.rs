//! Bedstone behind the benchmarks' traits.

use std::ops::Bound;
use std::path::Path;

use bedstone::{Database, Table, WriteBatch};

use crate::data::Batch;
use crate::engine::{Durability, Effective, Engine, Reader, Result, Settings};

/// Name of the one table.
const TABLE: &str = "bench";

/// A database with one table.
#[derive(Debug)]
pub struct Bedstone {
    db: Database,
    table: Table,
    settings: Settings,
}

/// Reads go straight to the table; each sees the newest commit, so there is nothing to keep from call to call.
#[derive(Debug)]
pub struct BedstoneReader<'a> {
    table: &'a Table,
}

impl Bedstone {
    /// The mode of I/O in effect, in words.
    fn io(&self) -> String {
        let report = self.db.io_report();
        let cache = if report.direct { "O_DIRECT" } else { "buffered" };
        format!("{:?}, {cache}, {} ({})", report.mode, report.file_system, report.reason).replace('|', "/")
    }
}

impl Engine for Bedstone {
    const NAME: &'static str = "bedstone";
    type Reader<'a> = BedstoneReader<'a>;

    fn open(dir: &Path, settings: &Settings) -> Result<Self> {
        let durability = match settings.durability {
            Durability::Durable => bedstone::Durability::Sync,
            Durability::Relaxed => bedstone::Durability::Relaxed,
        };
        let db = Database::builder()
            .pool_bytes(settings.cache_bytes)
            .durability(durability)
            .open_or_create(dir)?;
        let table = db.table(TABLE)?;
        let engine = Self { db, table, settings: settings.clone() };
        let io = engine.io();
        if let Some(required) = &settings.require_io
            && !io.to_lowercase().contains(&required.to_lowercase())
        {
            return Err(format!("the I/O mode is {io:?}, required was {required:?}").into());
        }
        Ok(engine)
    }

    fn read<R>(&self, body: impl FnOnce(&mut BedstoneReader<'_>) -> Result<R>) -> Result<R> {
        body(&mut BedstoneReader { table: &self.table })
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.table.put(key, value)?)
    }

    fn put_batch(&self, batch: &Batch) -> Result<()> {
        let mut writes = WriteBatch::new();
        for (key, value) in batch.iter() {
            writes.put(&self.table, key, value)?;
        }
        Ok(self.db.write(writes)?)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.table.delete(key)?;
        Ok(())
    }

    fn settle(&self) -> Result<()> {
        self.db.checkpoint()?;
        Ok(())
    }

    fn effective(&self) -> Result<Effective> {
        let durability = match self.settings.durability {
            Durability::Durable => "Sync: fdatasync of the log, shared by those who wait",
            Durability::Relaxed => "Relaxed: log synced in the background",
        };
        Ok(Effective {
            io: self.io(),
            durability: durability.into(),
            cache: format!("pool {} MiB", self.settings.cache_bytes >> 20),
            other: format!("{}-byte pages, checksums on; a new view each call", self.db.page_size()),
        })
    }

    fn close(self) -> Result<()> {
        drop(self.table);
        Ok(self.db.close()?)
    }
}

impl Reader for BedstoneReader<'_> {
    #[inline]
    fn get<R>(&mut self, key: &[u8], seen: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(self.table.get(key)?.map(|value| seen(&value)))
    }

    fn multi_get(&mut self, keys: &[&[u8]], mut seen: impl FnMut(usize, &[u8])) -> Result<()> {
        for (position, value) in self.table.multi_get(keys)?.iter().enumerate() {
            if let Some(value) = value {
                seen(position, value);
            }
        }
        Ok(())
    }

    fn scan(&mut self, mut seen: impl FnMut(&[u8], &[u8])) -> Result<()> {
        let mut range = self.table.iter()?;
        range.for_each_ref(|key, value| {
            seen(key, value);
            true
        })?;
        Ok(())
    }

    fn seek_scan(&mut self, from: &[u8], limit: usize, mut seen: impl FnMut(&[u8], &[u8])) -> Result<()> {
        if limit == 0 {
            return Ok(());
        }
        let mut range = self.table.range::<&[u8]>((Bound::Included(from), Bound::Unbounded))?;
        let mut left = limit;
        range.for_each_ref(|key, value| {
            seen(key, value);
            left -= 1;
            left > 0
        })?;
        Ok(())
    }
}
