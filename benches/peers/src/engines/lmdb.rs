//! LMDB through heed: a copy-on-write B+-tree in a memory map.

use std::ops::Bound;
use std::path::Path;

use bedstone_benches::{Batch, Durability, Effective, Engine, Reader, Reads, Result, Settings};
use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions, PutFlags, RoTxn, WithoutTls};

use super::show;

type Table = Database<Bytes, Bytes>;

/// An environment with its unnamed database.
pub struct Lmdb {
    env: Env<WithoutTls>,
    table: Table,
    settings: Settings,
}

/// A read transaction held, or the environment to begin one for each call.
pub enum LmdbReader<'a> {
    /// One transaction for as long as the reader lives.
    Long(RoTxn<'a, WithoutTls>, Table),
    /// One for each call.
    PerCall(&'a Env<WithoutTls>, Table),
}

impl Engine for Lmdb {
    const NAME: &'static str = "lmdb";
    type Reader<'a> = LmdbReader<'a>;

    #[expect(unsafe_code, reason = "opening a memory map is unsafe by nature, and heed offers nothing else")]
    fn open(dir: &Path, settings: &Settings) -> Result<Self> {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(settings.max_bytes.next_multiple_of(1 << 20)).max_readers(1024);
        let mut flags = match settings.durability {
            Durability::Durable => EnvFlags::empty(),
            Durability::Relaxed => EnvFlags::NO_SYNC,
        };
        flags.set(EnvFlags::NO_READ_AHEAD, settings.random_reads_from_disk);
        // SAFETY: The directory was made by this process for this benchmark alone, so nobody else changes the mapped
        // file; it is opened once at a time. NO_SYNC risks the data in a power cut, which no benchmark outlives.
        let env = unsafe { options.flags(flags).open(dir)? };
        let mut txn = env.write_txn()?;
        let table = env.create_database(&mut txn, None)?;
        txn.commit()?;
        Ok(Self { env, table, settings: settings.clone() })
    }

    fn read<R>(&self, body: impl FnOnce(&mut LmdbReader<'_>) -> Result<R>) -> Result<R> {
        body(&mut match self.settings.reads {
            Reads::Long => LmdbReader::Long(self.env.read_txn()?, self.table),
            Reads::PerCall => LmdbReader::PerCall(&self.env, self.table),
        })
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let mut txn = self.env.write_txn()?;
        self.table.put(&mut txn, key, value)?;
        Ok(txn.commit()?)
    }

    fn put_batch(&self, batch: &Batch) -> Result<()> {
        let mut txn = self.env.write_txn()?;
        for (key, value) in batch.iter() {
            self.table.put(&mut txn, key, value)?;
        }
        Ok(txn.commit()?)
    }

    fn append_batch(&self, batch: &Batch) -> Result<()> {
        let mut txn = self.env.write_txn()?;
        for (key, value) in batch.iter() {
            self.table.put_with_flags(&mut txn, PutFlags::APPEND, key, value)?;
        }
        Ok(txn.commit()?)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        let mut txn = self.env.write_txn()?;
        self.table.delete(&mut txn, key)?;
        Ok(txn.commit()?)
    }

    fn settle(&self) -> Result<()> {
        Ok(self.env.force_sync()?)
    }

    fn effective(&self) -> Result<Effective> {
        let reads = match self.settings.reads {
            Reads::Long => "one long read transaction",
            Reads::PerCall => "a read transaction each call",
        };
        Ok(Effective {
            io: "reads by memory map, writes by pwrite through the page cache".into(),
            durability: match self.settings.durability {
                Durability::Durable => "MDB default: fdatasync of data, then of the meta page".into(),
                Durability::Relaxed => "MDB_NOSYNC: no sync".into(),
            },
            cache: "page cache only".into(),
            other: format!(
                "NOTLS{}, map of {} MiB, ascending by MDB_APPEND, {reads}",
                if self.settings.random_reads_from_disk { ", NORDAHEAD" } else { "" },
                self.settings.max_bytes >> 20
            ),
        })
    }

    fn close(self) -> Result<()> {
        self.env.prepare_for_closing().wait();
        Ok(())
    }
}

impl LmdbReader<'_> {
    fn with<R>(&mut self, body: impl FnOnce(&RoTxn<'_, WithoutTls>, Table) -> Result<R>) -> Result<R> {
        match self {
            LmdbReader::Long(txn, table) => body(txn, *table),
            LmdbReader::PerCall(env, table) => body(&env.read_txn()?, *table),
        }
    }
}

impl Reader for LmdbReader<'_> {
    fn get<R>(&mut self, key: &[u8], seen: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        self.with(|txn, table| Ok(table.get(txn, key)?.map(seen)))
    }

    fn multi_get(&mut self, keys: &[&[u8]], mut seen: impl FnMut(usize, &[u8])) -> Result<()> {
        self.with(|txn, table| {
            for (position, key) in keys.iter().enumerate() {
                if let Some(value) = table.get(txn, key)? {
                    seen(position, value);
                }
            }
            Ok(())
        })
    }

    fn scan(&mut self, seen: impl FnMut(&[u8], &[u8])) -> Result<()> {
        self.with(|txn, table| show(table.iter(txn)?, usize::MAX, seen))
    }

    fn seek_scan(&mut self, from: &[u8], limit: usize, seen: impl FnMut(&[u8], &[u8])) -> Result<()> {
        let range = (Bound::Included(from), Bound::Unbounded);
        self.with(|txn, table| show(table.range(txn, &range)?, limit, seen))
    }
}
