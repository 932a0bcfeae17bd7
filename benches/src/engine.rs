//! What an engine must offer to be measured.

use std::path::Path;

use crate::data::Batch;

/// Any failure of an engine or of a check of its answers.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Result with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What a commit promises when it returns. Equal on all sides of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Survives a power cut: an fdatasync (or its like) happened, the commit's own or one shared with others.
    Durable,
    /// Nothing is waited for; the engine syncs when it sees fit, or never.
    Relaxed,
}

/// How a reader gets its view of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// One view (read transaction, snapshot) for as long as the reader lives.
    Long,
    /// A new view for every call, as programs do that must see the newest data.
    PerCall,
}

/// How an engine is opened.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Promise of every commit.
    pub durability: Durability,
    /// Way of reading.
    pub reads: Reads,
    /// Budget in bytes for the engine's own cache, where it has one.
    pub cache_bytes: usize,
    /// Upper bound in bytes of what will be stored, for engines that must know it beforehand.
    pub max_bytes: usize,
    /// Threads that will use the engine at once, for engines whose cache is per connection.
    pub threads: usize,
    /// The data will be read at random and does not fit into memory: no read-ahead, where an engine can be told.
    pub random_reads_from_disk: bool,
    /// Text that the effective I/O mode must contain, or opening fails. Looked at by engines that choose among
    /// several ways of I/O when they open: a measurement of the fallback must not pass for the real thing.
    pub require_io: Option<String>,
}

/// What is in effect once an engine is open, as it goes into the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// How data pages travel between the disk and memory.
    pub io: String,
    /// What a commit does before it returns.
    pub durability: String,
    /// Size and kind of the cache.
    pub cache: String,
    /// Further settings that matter.
    pub other: String,
}

/// A view of the data, used by one thread.
///
/// Values are shown to a closure and need not outlive it, so an engine that lends its own memory pays for no copy.
pub trait Reader {
    /// Shows the value of `key` to `seen` and hands back what it made of it; `None` if there is no such key.
    fn get<R>(&mut self, key: &[u8], seen: impl FnOnce(&[u8]) -> R) -> Result<Option<R>>;

    /// Shows every value found, with the position of its key in `keys`, in any order.
    fn multi_get(&mut self, keys: &[&[u8]], mut seen: impl FnMut(usize, &[u8])) -> Result<()> {
        for (position, key) in keys.iter().enumerate() {
            self.get(key, |value| seen(position, value))?;
        }
        Ok(())
    }

    /// Shows every entry in ascending order of keys.
    fn scan(&mut self, seen: impl FnMut(&[u8], &[u8])) -> Result<()>;

    /// Shows up to `limit` entries from the first key not below `from` on, ascending.
    fn seek_scan(&mut self, from: &[u8], limit: usize, seen: impl FnMut(&[u8], &[u8])) -> Result<()>;
}

/// A storage engine. One store, one table of byte strings; used by many threads at once.
pub trait Engine: Sized + Send + Sync + 'static {
    /// The engine's name in tables.
    const NAME: &'static str;

    /// The view that [`Engine::read`] lends.
    type Reader<'a>: Reader;

    /// Opens the store in the directory `dir`, which exists; makes it if the directory is empty.
    fn open(dir: &Path, settings: &Settings) -> Result<Self>;

    /// Lends a reader to `body`. Opening and closing it is not part of any measurement.
    fn read<R>(&self, body: impl FnOnce(&mut Self::Reader<'_>) -> Result<R>) -> Result<R>;

    /// Stores one entry in a transaction of its own.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()>;

    /// Stores all entries in one transaction.
    fn put_batch(&self, batch: &Batch) -> Result<()>;

    /// The same where every key of the batch lies above all keys stored, ascending: the place for an engine's way
    /// of appending.
    fn append_batch(&self, batch: &Batch) -> Result<()> {
        self.put_batch(batch)
    }

    /// Removes one key in a transaction of its own. A key that is not there is no error.
    fn delete(&self, key: &[u8]) -> Result<()>;

    /// Brings the store to rest: buffers flushed, compactions and checkpoints done, so that what follows is measured
    /// without the debts of what came before.
    fn settle(&self) -> Result<()>;

    /// What is in effect.
    fn effective(&self) -> Result<Effective>;

    /// Closes the store and reports what goes wrong in doing so.
    fn close(self) -> Result<()>;

    /// Bytes that the store in `dir` occupies: allocated blocks, not lengths, so holes in sparse files do not count.
    fn disk_bytes(dir: &Path) -> Result<u64> {
        crate::proc::allocated_bytes(dir)
    }
}
