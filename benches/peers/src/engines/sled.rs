//! sled 0.34: a lock-free tree over a log-structured page store.

use std::fs::File;
use std::path::Path;

use bedstone_benches::{Batch, Durability, Effective, Engine, Reader, Result, Settings};
use sled::{Config, Db, Mode};

use super::show;

/// A store with its default tree.
///
/// On Linux sled's `flush` ends with `sync_file_range`, which, as its manual page says, writes back neither metadata
/// nor the disk's own cache: it promises less than fdatasync. With `FSYNC` each durable commit is followed by an
/// fdatasync of sled's file, so that it promises what the others promise; without, sled is as its users have it.
pub struct Sled<const FSYNC: bool> {
    db: Db,
    file: File,
    settings: Settings,
}

/// Reads see the newest writes; sled has no read transactions to hold.
pub struct SledReader<'a> {
    db: &'a Db,
}

impl<const FSYNC: bool> Sled<FSYNC> {
    fn flush(&self) -> Result<()> {
        if self.settings.durability == Durability::Durable {
            self.db.flush()?;
            if FSYNC {
                self.file.sync_data()?;
            }
        }
        Ok(())
    }
}

impl<const FSYNC: bool> Engine for Sled<FSYNC> {
    const NAME: &'static str = if FSYNC { "sled" } else { "sled-flush-only" };
    type Reader<'a> = SledReader<'a>;

    fn open(dir: &Path, settings: &Settings) -> Result<Self> {
        let path = dir.join("sled");
        let db = Config::new()
            .path(&path)
            .cache_capacity(settings.cache_bytes as u64)
            .mode(Mode::HighThroughput)
            .use_compression(false)
            .open()?;
        Ok(Self { db, file: File::open(path.join("db"))?, settings: settings.clone() })
    }

    fn read<R>(&self, body: impl FnOnce(&mut SledReader<'_>) -> Result<R>) -> Result<R> {
        body(&mut SledReader { db: &self.db })
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.db.insert(key, value)?;
        self.flush()
    }

    fn put_batch(&self, batch: &Batch) -> Result<()> {
        let mut writes = sled::Batch::default();
        for (key, value) in batch.iter() {
            writes.insert(key, value);
        }
        self.db.apply_batch(writes)?;
        self.flush()
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.db.remove(key)?;
        self.flush()
    }

    fn settle(&self) -> Result<()> {
        self.db.flush()?;
        Ok(())
    }

    fn effective(&self) -> Result<Effective> {
        Ok(Effective {
            io: "pread/pwrite through the page cache".into(),
            durability: match self.settings.durability {
                Durability::Durable if FSYNC => "flush(), then fdatasync of its file".into(),
                Durability::Durable => "flush(): sync_file_range, **weaker than the others**".into(),
                Durability::Relaxed => "flushed every 500 ms in the background".into(),
            },
            cache: format!("{} MiB, and the page cache below", self.settings.cache_bytes >> 20),
            other: "HighThroughput, no compression; no views over several calls".into(),
        })
    }

    fn close(self) -> Result<()> {
        self.db.flush()?;
        Ok(())
    }
}

impl Reader for SledReader<'_> {
    fn get<R>(&mut self, key: &[u8], seen: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(self.db.get(key)?.map(|value| seen(&value)))
    }

    fn scan(&mut self, seen: impl FnMut(&[u8], &[u8])) -> Result<()> {
        show(self.db.iter(), usize::MAX, seen)
    }

    fn seek_scan(&mut self, from: &[u8], limit: usize, seen: impl FnMut(&[u8], &[u8])) -> Result<()> {
        show(self.db.range(from..), limit, seen)
    }
}
