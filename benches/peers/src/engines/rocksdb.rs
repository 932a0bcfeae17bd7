//! RocksDB: a log-structured merge tree with a block cache of its own.

use std::path::Path;

use bedstone_benches::{Batch, Durability, Effective, Engine, Error, Reader, Result, Settings};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, Options, ReadOptions,
    WaitForCompactOptions, WriteBatch, WriteOptions,
};

/// The column family that every RocksDB store has.
const FAMILY: &str = "default";

/// A store with its one column family.
pub struct Rocksdb {
    db: DB,
    settings: Settings,
}

/// Reads see the newest writes; RocksDB asks no reader to hold anything.
pub struct RocksReader<'a> {
    db: &'a DB,
    options: ReadOptions,
}

impl Rocksdb {
    fn write_options(&self) -> WriteOptions {
        let mut options = WriteOptions::default();
        options.set_sync(self.settings.durability == Durability::Durable);
        options
    }
}

impl Engine for Rocksdb {
    const NAME: &'static str = "rocksdb";
    type Reader<'a> = RocksReader<'a>;

    fn open(dir: &Path, settings: &Settings) -> Result<Self> {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&Cache::new_hyper_clock_cache(settings.cache_bytes, 0));
        table.set_bloom_filter(10.0, false);
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&table);
        options.set_compression_type(DBCompressionType::None);
        options.increase_parallelism(2);
        let families = [ColumnFamilyDescriptor::new(FAMILY, options.clone())];
        Ok(Self { db: DB::open_cf_descriptors(&options, dir, families)?, settings: settings.clone() })
    }

    fn read<R>(&self, body: impl FnOnce(&mut RocksReader<'_>) -> Result<R>) -> Result<R> {
        body(&mut RocksReader { db: &self.db, options: ReadOptions::default() })
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.db.put_opt(key, value, &self.write_options())?)
    }

    fn put_batch(&self, batch: &Batch) -> Result<()> {
        let mut writes = WriteBatch::default();
        for (key, value) in batch.iter() {
            writes.put(key, value);
        }
        Ok(self.db.write_opt(writes, &self.write_options())?)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        Ok(self.db.delete_opt(key, &self.write_options())?)
    }

    fn settle(&self) -> Result<()> {
        self.db.flush()?;
        self.db.compact_range::<&[u8], &[u8]>(None, None);
        Ok(self.db.wait_for_compact(&WaitForCompactOptions::default())?)
    }

    fn effective(&self) -> Result<Effective> {
        Ok(Effective {
            io: "pread/pwrite through the page cache".into(),
            durability: match self.settings.durability {
                Durability::Durable => "WriteOptions::sync: log synced, shared by those who wait".into(),
                Durability::Relaxed => "log written, not synced".into(),
            },
            cache: format!("HyperClock {} MiB, and the page cache below", self.settings.cache_bytes >> 20),
            other: "no compression, 10-bit Bloom filters, 2 background threads; a new view each call".into(),
        })
    }

    fn close(self) -> Result<()> {
        self.db.cancel_all_background_work(true);
        Ok(())
    }
}

impl RocksReader<'_> {
    fn walk(&self, from: Option<&[u8]>, limit: usize, mut seen: impl FnMut(&[u8], &[u8])) -> Result<()> {
        let mut cursor = self.db.raw_iterator();
        match from {
            Some(key) => cursor.seek(key),
            None => cursor.seek_to_first(),
        }
        for _ in 0..limit {
            let Some((key, value)) = cursor.item() else { break };
            seen(key, value);
            cursor.next();
        }
        Ok(cursor.status()?)
    }
}

impl Reader for RocksReader<'_> {
    fn get<R>(&mut self, key: &[u8], seen: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(self.db.get_pinned_opt(key, &self.options)?.map(|value| seen(&value)))
    }

    fn multi_get(&mut self, keys: &[&[u8]], mut seen: impl FnMut(usize, &[u8])) -> Result<()> {
        let family = self.db.cf_handle(FAMILY).ok_or_else(|| Error::from("no default column family"))?;
        let values = self.db.batched_multi_get_cf_opt(family, keys.iter().copied(), false, &self.options);
        for (position, value) in values.into_iter().enumerate() {
            if let Some(value) = value? {
                seen(position, &value);
            }
        }
        Ok(())
    }

    fn scan(&mut self, seen: impl FnMut(&[u8], &[u8])) -> Result<()> {
        self.walk(None, usize::MAX, seen)
    }

    fn seek_scan(&mut self, from: &[u8], limit: usize, seen: impl FnMut(&[u8], &[u8])) -> Result<()> {
        self.walk(Some(from), limit, seen)
    }
}
