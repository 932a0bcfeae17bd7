//! canopydb: a B+-tree with a write-ahead log and checkpoints, and a cache of its own.

use std::path::Path;

use bedstone_benches::{Batch, Durability, Effective, Engine, Error, Reader, Reads, Result, Settings};
use canopydb::{Database, DbOptions, EnvOptions, ReadTransaction, Tree};

use super::show;

const TREE: &[u8] = b"bench";

/// A database with one tree.
pub struct Canopydb {
    db: Database,
    settings: Settings,
}

/// A tree of a read transaction held, or the database to begin one for each call.
pub enum CanopyReader<'a> {
    /// One transaction for as long as the reader lives.
    Long(Tree<'a>),
    /// One for each call.
    PerCall(&'a Database),
}

fn tree(txn: &ReadTransaction) -> Result<Tree<'_>> {
    txn.get_tree(TREE)?.ok_or_else(|| Error::from("the tree is not there"))
}

impl Canopydb {
    fn sync(&self) -> bool {
        self.settings.durability == Durability::Durable
    }
}

impl Engine for Canopydb {
    const NAME: &'static str = "canopydb";
    type Reader<'a> = CanopyReader<'a>;

    fn open(dir: &Path, settings: &Settings) -> Result<Self> {
        let mut env = EnvOptions::new(dir);
        env.page_cache_size = settings.cache_bytes;
        let mut options = DbOptions::new();
        options.default_commit_sync = settings.durability == Durability::Durable;
        let db = Database::with_options(env, options)?;
        let txn = db.begin_write()?;
        txn.get_or_create_tree(TREE)?;
        txn.commit()?;
        Ok(Self { db, settings: settings.clone() })
    }

    fn read<R>(&self, body: impl FnOnce(&mut CanopyReader<'_>) -> Result<R>) -> Result<R> {
        match self.settings.reads {
            Reads::Long => {
                let txn = self.db.begin_read()?;
                body(&mut CanopyReader::Long(tree(&txn)?))
            }
            Reads::PerCall => body(&mut CanopyReader::PerCall(&self.db)),
        }
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        // Its optimistic transactions, which may overlap, gave no higher rate here: they share no syncs either.
        let txn = self.db.begin_write()?;
        txn.get_or_create_tree(TREE)?.insert(key, value)?;
        txn.commit_with(self.sync())?;
        Ok(())
    }

    fn put_batch(&self, batch: &Batch) -> Result<()> {
        let txn = self.db.begin_write()?;
        {
            let mut tree = txn.get_or_create_tree(TREE)?;
            for (key, value) in batch.iter() {
                tree.insert(key, value)?;
            }
        }
        txn.commit_with(self.sync())?;
        Ok(())
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        let txn = self.db.begin_write()?;
        txn.get_or_create_tree(TREE)?.delete(key)?;
        txn.commit_with(self.sync())?;
        Ok(())
    }

    fn settle(&self) -> Result<()> {
        Ok(self.db.checkpoint()?)
    }

    fn effective(&self) -> Result<Effective> {
        let reads = match self.settings.reads {
            Reads::Long => "one long read transaction",
            Reads::PerCall => "a read transaction each call",
        };
        Ok(Effective {
            io: "pread/pwrite through the page cache".into(),
            durability: match self.settings.durability {
                Durability::Durable => "commit_with(sync): log synced".into(),
                Durability::Relaxed => "log written, not synced".into(),
            },
            cache: format!("{} MiB, and the page cache below", self.settings.cache_bytes >> 20),
            other: format!("page checksums off, {reads}"),
        })
    }

    fn close(self) -> Result<()> {
        drop(self.db);
        Ok(())
    }
}

impl CanopyReader<'_> {
    fn with<R>(&mut self, body: impl FnOnce(&Tree<'_>) -> Result<R>) -> Result<R> {
        match self {
            CanopyReader::Long(tree) => body(tree),
            CanopyReader::PerCall(db) => body(&tree(&db.begin_read()?)?),
        }
    }
}

impl Reader for CanopyReader<'_> {
    fn get<R>(&mut self, key: &[u8], seen: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        self.with(|tree| Ok(tree.get(key)?.map(|value| seen(value.as_ref()))))
    }

    fn scan(&mut self, seen: impl FnMut(&[u8], &[u8])) -> Result<()> {
        self.with(|tree| show(tree.iter()?, usize::MAX, seen))
    }

    fn seek_scan(&mut self, from: &[u8], limit: usize, seen: impl FnMut(&[u8], &[u8])) -> Result<()> {
        self.with(|tree| show(tree.range(from..)?, limit, seen))
    }
}
