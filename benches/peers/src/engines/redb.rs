//! redb: a copy-on-write B+-tree in one file, with a cache of its own.

use std::path::Path;

use bedstone_benches::{Batch, Durability, Effective, Engine, Reader, Reads, Result, Settings};
use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

type Table = ReadOnlyTable<&'static [u8], &'static [u8]>;

const TABLE: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("bench");

/// A database with one table.
pub struct Redb {
    db: Database,
    settings: Settings,
}

/// A table of a read transaction held, or the database to begin one for each call.
pub enum RedbReader<'a> {
    /// One transaction for as long as the reader lives.
    Long(Table),
    /// One for each call.
    PerCall(&'a Database),
}

impl Redb {
    fn begin(&self) -> Result<WriteTransaction> {
        let mut txn = self.db.begin_write()?;
        txn.set_durability(match self.settings.durability {
            Durability::Durable => redb::Durability::Immediate,
            Durability::Relaxed => redb::Durability::None,
        })?;
        Ok(txn)
    }
}

impl Engine for Redb {
    const NAME: &'static str = "redb";
    type Reader<'a> = RedbReader<'a>;

    fn open(dir: &Path, settings: &Settings) -> Result<Self> {
        let db = Database::builder().set_cache_size(settings.cache_bytes).create(dir.join("data.redb"))?;
        let engine = Self { db, settings: settings.clone() };
        let txn = engine.begin()?;
        txn.open_table(TABLE)?;
        txn.commit()?;
        Ok(engine)
    }

    fn read<R>(&self, body: impl FnOnce(&mut RedbReader<'_>) -> Result<R>) -> Result<R> {
        body(&mut match self.settings.reads {
            Reads::Long => RedbReader::Long(self.db.begin_read()?.open_table(TABLE)?),
            Reads::PerCall => RedbReader::PerCall(&self.db),
        })
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let txn = self.begin()?;
        txn.open_table(TABLE)?.insert(key, value)?;
        Ok(txn.commit()?)
    }

    fn put_batch(&self, batch: &Batch) -> Result<()> {
        let txn = self.begin()?;
        {
            let mut table = txn.open_table(TABLE)?;
            for (key, value) in batch.iter() {
                table.insert(key, value)?;
            }
        }
        Ok(txn.commit()?)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        let txn = self.begin()?;
        txn.open_table(TABLE)?.remove(key)?;
        Ok(txn.commit()?)
    }

    fn settle(&self) -> Result<()> {
        // A durable commit also makes all commits before it durable, and frees what they had to keep.
        for _ in 0..2 {
            let mut txn = self.db.begin_write()?;
            txn.set_durability(redb::Durability::Immediate)?;
            txn.commit()?;
        }
        Ok(())
    }

    fn effective(&self) -> Result<Effective> {
        let reads = match self.settings.reads {
            Reads::Long => "one long read transaction",
            Reads::PerCall => "a read transaction each call",
        };
        Ok(Effective {
            io: "pread/pwrite through the page cache".into(),
            durability: match self.settings.durability {
                Durability::Durable => "Durability::Immediate".into(),
                Durability::Relaxed => "Durability::None: no sync".into(),
            },
            cache: format!("{} MiB, and the page cache below", self.settings.cache_bytes >> 20),
            other: reads.into(),
        })
    }

    fn close(self) -> Result<()> {
        drop(self.db);
        Ok(())
    }
}

impl RedbReader<'_> {
    fn with<R>(&mut self, body: impl FnOnce(&Table) -> Result<R>) -> Result<R> {
        match self {
            RedbReader::Long(table) => body(table),
            RedbReader::PerCall(db) => body(&db.begin_read()?.open_table(TABLE)?),
        }
    }
}

impl Reader for RedbReader<'_> {
    fn get<R>(&mut self, key: &[u8], seen: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        self.with(|table| Ok(table.get(key)?.map(|value| seen(value.value()))))
    }

    fn scan(&mut self, mut seen: impl FnMut(&[u8], &[u8])) -> Result<()> {
        self.with(|table| {
            for entry in table.iter()? {
                let (key, value) = entry?;
                seen(key.value(), value.value());
            }
            Ok(())
        })
    }

    fn seek_scan(&mut self, from: &[u8], limit: usize, mut seen: impl FnMut(&[u8], &[u8])) -> Result<()> {
        self.with(|table| {
            for entry in table.range(from..)?.take(limit) {
                let (key, value) = entry?;
                seen(key.value(), value.value());
            }
            Ok(())
        })
    }
}
