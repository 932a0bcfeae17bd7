//! SQLite in WAL mode, used as a key-value store: one table without row ids, prepared statements, one connection for
//! writing and one for each reading thread.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bedstone_benches::{Batch, Durability, Effective, Engine, Reader, Reads, Result, Settings};
use rusqlite::{Connection, OptionalExtension, Statement};

const PUT: &str = "INSERT INTO bench (k, v) VALUES (?1, ?2) ON CONFLICT (k) DO UPDATE SET v = excluded.v";

/// The database's file and its connections.
pub struct Sqlite {
    path: PathBuf,
    /// SQLite has one writer at a time: waiting for a lock of our own is fairer to it than its sleeping and trying.
    writer: Mutex<Connection>,
    /// Connections of readers that have ended, kept with their caches for those that come.
    idle: Mutex<Vec<Connection>>,
    settings: Settings,
}

/// A connection with its prepared statements.
pub struct SqliteReader<'a> {
    get: Statement<'a>,
    scan: Statement<'a>,
    seek: Statement<'a>,
}

impl Sqlite {
    fn connect(path: &Path, settings: &Settings, cache_kib: i64) -> Result<Connection> {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        let synchronous = if settings.durability == Durability::Durable { "FULL" } else { "OFF" };
        connection.pragma_update(None, "synchronous", synchronous)?;
        connection.pragma_update(None, "cache_size", -cache_kib)?;
        Ok(connection)
    }

    /// Each connection has a cache of its own, so the readers share the budget. The writer, which does not work at
    /// the same time in any workload, has all of it.
    fn reader_kib(settings: &Settings) -> i64 {
        (settings.cache_bytes / settings.threads.max(1) / 1024).max(1024) as i64
    }

    fn writer_kib(settings: &Settings) -> i64 {
        (settings.cache_bytes / 1024) as i64
    }

    fn writer(&self) -> MutexGuard<'_, Connection> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine for Sqlite {
    const NAME: &'static str = "sqlite";
    type Reader<'a> = SqliteReader<'a>;

    fn open(dir: &Path, settings: &Settings) -> Result<Self> {
        let path = dir.join("bench.sqlite");
        let connection = Self::connect(&path, settings, Self::writer_kib(settings))?;
        connection.execute(
            "CREATE TABLE IF NOT EXISTS bench (k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID",
            [],
        )?;
        Ok(Self { path, writer: Mutex::new(connection), idle: Mutex::default(), settings: settings.clone() })
    }

    fn read<R>(&self, body: impl FnOnce(&mut SqliteReader<'_>) -> Result<R>) -> Result<R> {
        let idle = self.idle().pop();
        let connect = || Self::connect(&self.path, &self.settings, Self::reader_kib(&self.settings));
        let connection = idle.map_or_else(connect, Ok)?;
        let long = self.settings.reads == Reads::Long;
        if long {
            connection.execute_batch("BEGIN")?;
        }
        let result = body(&mut SqliteReader {
            get: connection.prepare("SELECT v FROM bench WHERE k = ?1")?,
            scan: connection.prepare("SELECT k, v FROM bench ORDER BY k")?,
            seek: connection.prepare("SELECT k, v FROM bench WHERE k >= ?1 ORDER BY k LIMIT ?2")?,
        });
        if long {
            connection.execute_batch("COMMIT")?;
        }
        self.idle().push(connection);
        result
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.writer().prepare_cached(PUT)?.execute((key, value))?;
        Ok(())
    }

    fn put_batch(&self, batch: &Batch) -> Result<()> {
        let mut writer = self.writer();
        let txn = writer.transaction()?;
        {
            let mut put = txn.prepare_cached(PUT)?;
            for (key, value) in batch.iter() {
                put.execute((key, value))?;
            }
        }
        Ok(txn.commit()?)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.writer().prepare_cached("DELETE FROM bench WHERE k = ?1")?.execute([key])?;
        Ok(())
    }

    fn settle(&self) -> Result<()> {
        self.writer().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(())
    }

    fn effective(&self) -> Result<Effective> {
        let writer = self.writer();
        let journal: String = writer.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
        let synchronous: i64 = writer.query_row("PRAGMA synchronous", [], |row| row.get(0))?;
        let expected = if self.settings.durability == Durability::Durable { 2 } else { 0 };
        if journal != "wal" || synchronous != expected {
            return Err(format!("journal_mode is {journal}, synchronous is {synchronous}").into());
        }
        Ok(Effective {
            io: "pread/pwrite through the page cache".into(),
            durability: match self.settings.durability {
                Durability::Durable => "WAL, synchronous=FULL".into(),
                Durability::Relaxed => "WAL, synchronous=OFF".into(),
            },
            cache: format!(
                "{} MiB for the writer, {} MiB for each reader, and the page cache below",
                Self::writer_kib(&self.settings) >> 10,
                Self::reader_kib(&self.settings) >> 10
            ),
            other: "WITHOUT ROWID, prepared statements, one writing connection".into(),
        })
    }

    fn close(self) -> Result<()> {
        for connection in self.idle.into_inner().unwrap_or_else(PoisonError::into_inner) {
            connection.close().map_err(|(_, error)| error)?;
        }
        let writer = self.writer.into_inner().unwrap_or_else(PoisonError::into_inner);
        writer.flush_prepared_statement_cache();
        Ok(writer.close().map_err(|(_, error)| error)?)
    }
}

fn show(rows: &mut rusqlite::Rows<'_>, mut seen: impl FnMut(&[u8], &[u8])) -> Result<()> {
    while let Some(row) = rows.next()? {
        seen(row.get_ref(0)?.as_blob()?, row.get_ref(1)?.as_blob()?);
    }
    Ok(())
}

impl Reader for SqliteReader<'_> {
    fn get<R>(&mut self, key: &[u8], seen: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        let row = self.get.query_row([key], |row| Ok(seen(row.get_ref(0)?.as_blob()?)));
        Ok(row.optional()?)
    }

    fn scan(&mut self, seen: impl FnMut(&[u8], &[u8])) -> Result<()> {
        show(&mut self.scan.query([])?, seen)
    }

    fn seek_scan(&mut self, from: &[u8], limit: usize, seen: impl FnMut(&[u8], &[u8])) -> Result<()> {
        show(&mut self.seek.query((from, i64::try_from(limit)?))?, seen)
    }
}
