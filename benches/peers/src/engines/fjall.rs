//! fjall: a log-structured merge tree in Rust, with a block cache of its own.

use std::path::Path;

use bedstone_benches::{Batch, Durability, Effective, Engine, Reader, Result, Settings};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::show;

/// A database with one keyspace.
pub struct Fjall {
    db: Database,
    keyspace: Keyspace,
    settings: Settings,
}

/// Reads see the newest writes; fjall asks no reader to hold anything.
pub struct FjallReader<'a> {
    keyspace: &'a Keyspace,
}

impl Fjall {
    /// What comes after each commit.
    fn persist(&self) -> Result<()> {
        if self.settings.durability == Durability::Durable {
            self.db.persist(PersistMode::SyncData)?;
        }
        Ok(())
    }
}

impl Engine for Fjall {
    const NAME: &'static str = "fjall";
    type Reader<'a> = FjallReader<'a>;

    fn open(dir: &Path, settings: &Settings) -> Result<Self> {
        let db = Database::builder(dir).cache_size(settings.cache_bytes as u64).worker_threads(2).open()?;
        let keyspace =
            db.keyspace("bench", || KeyspaceCreateOptions::default().expect_point_read_hits(false))?;
        Ok(Self { db, keyspace, settings: settings.clone() })
    }

    fn read<R>(&self, body: impl FnOnce(&mut FjallReader<'_>) -> Result<R>) -> Result<R> {
        body(&mut FjallReader { keyspace: &self.keyspace })
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.keyspace.insert(key, value)?;
        self.persist()
    }

    fn put_batch(&self, batch: &Batch) -> Result<()> {
        let mut writes = self.db.batch();
        for (key, value) in batch.iter() {
            writes.insert(&self.keyspace, key, value);
        }
        writes.commit()?;
        self.persist()
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.keyspace.remove(key)?;
        self.persist()
    }

    fn settle(&self) -> Result<()> {
        self.keyspace.rotate_memtable_and_wait()?;
        self.keyspace.major_compact()?;
        Ok(self.db.persist(PersistMode::SyncAll)?)
    }

    fn effective(&self) -> Result<Effective> {
        Ok(Effective {
            io: "pread/write through the page cache".into(),
            durability: match self.settings.durability {
                Durability::Durable => "persist(SyncData) after each commit".into(),
                Durability::Relaxed => "journal handed to the kernel, not synced".into(),
            },
            cache: format!("{} MiB, and the page cache below", self.settings.cache_bytes >> 20),
            other: "no compression, 2 workers; a new view each call".into(),
        })
    }

    fn close(self) -> Result<()> {
        drop((self.keyspace, self.db));
        Ok(())
    }
}

impl Reader for FjallReader<'_> {
    fn get<R>(&mut self, key: &[u8], seen: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(self.keyspace.get(key)?.map(|value| seen(&value)))
    }

    fn scan(&mut self, seen: impl FnMut(&[u8], &[u8])) -> Result<()> {
        show(self.keyspace.iter().map(|entry| entry.into_inner()), usize::MAX, seen)
    }

    fn seek_scan(&mut self, from: &[u8], limit: usize, seen: impl FnMut(&[u8], &[u8])) -> Result<()> {
        show(self.keyspace.range(from..).map(|entry| entry.into_inner()), limit, seen)
    }
}
