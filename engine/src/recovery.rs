//! Recovery: from the newest superblock and the log after it to the state that was last acknowledged, or a
//! later one.
//!
//! The pool opens on the pages of the last checkpoint; replay repeats the log from that checkpoint's C. A
//! record is in those pages already, or in part, or not at all; since it says what a key's value is
//! afterwards and nothing about how it came about, repeating the records in log order gives the same state in
//! all three cases.
//!
//! # What keeps a crash during recovery harmless
//!
//! Replay changes pages in memory; those that must make room are written to blocks that the superblock does
//! not know. Only two things become durable before the first checkpoint: the new opening number in the
//! superblock, and the log's tail, which is written anew by [`Wal::open`](bedstone_wal::Wal::open), because
//! what was read of it may never have reached the medium (after a failed sync the kernel may show pages as
//! clean that it never wrote). Neither changes what the next recovery would do.
//!
//! # Order and batches
//!
//! Writes are collected over many records and applied a few MiB at a time, sorted, of each key only the last.
//! That is the same as applying them one by one, because writes to different keys do not touch each other.
//! Records about tables, and long values, are applied in their place, after what was collected before them.
//!
//! A commit in fragments is applied where its commit record stands. Its fragments are read again then, from
//! the first one on, which is not below C, because the apply slot held C back. Its writes come out of a byte
//! string, so a value of any length is taken piece by piece and memory stays bounded.
//!
//! What is in the log had its room before it got there, that of deletes on a full disk included. So replay draws on
//! the room that is kept back for those: a store that was killed on a full disk must open there.
//!
//! # What ends the log, and what is damage
//!
//! The log ends with the first record that fails its check. It is damage, and not the torn tail a crash
//! leaves, if it ends below L, or if a valid record further on proves that the bad place had been durable;
//! also if a record whose checksum is right makes no sense, names a table that cannot be, or lacks fragments.

use std::collections::HashMap;
use std::io::{BufRead, Read};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bedstone_bufpool::{PageId, Pool};
use bedstone_io::Disk;
use bedstone_io::defect::{self, Defect};
use bedstone_wal::{LogEnd, LogReader, Lsn, classify_end};

use crate::btree::node::CellValue;
use crate::btree::{
    BuildGate, NewValue, OPERATION_PAGES, Op, Outcome, PreparedOverflow, SourceError, Stamp, Tree, Write,
};
use crate::catalog::{self, CATALOG, Changes, Record, TableState, Tombstone};
use crate::error::{Error, Result};
use crate::options::{Limits, RecoveryProgress};
use crate::stats::RecoveryReport;
use crate::txn::record::{BadRecord, Body, FRAGMENT, FRAGMENT_HEADER, WriteFront};

/// Bytes of writes collected before they are applied.
const COLLECT: usize = 4 << 20;
/// Writes collected before they are applied.
const COLLECT_WRITES: usize = 64 << 10;
/// Log between two reports of progress.
const REPORT_EVERY: u64 = 16 << 20;

/// What recovery leaves for the opening of the database.
pub(crate) struct Recovered {
    pub(crate) tables: Vec<Arc<TableState>>,
    pub(crate) changes: Changes,
    pub(crate) end: LogEnd,
    pub(crate) report: RecoveryReport,
}

/// Where the parts of a database that is being opened are.
pub(crate) struct Place<'a> {
    pub(crate) disk: &'a Arc<dyn Disk>,
    pub(crate) redo: &'a Path,
    pub(crate) pool: &'a Pool,
    pub(crate) gate: &'a BuildGate,
    pub(crate) limits: Limits,
    pub(crate) progress: Option<&'a (dyn Fn(RecoveryProgress) + Send + Sync)>,
}

/// A table as replay knows it.
enum Known {
    Live { tree: Tree, name: String },
    Dropped { root: PageId },
}

/// A write waiting to be applied: where its bytes lie in [`Replay::bytes`].
struct Waiting {
    table: u32,
    start: usize,
    key_len: usize,
    value_len: Option<usize>,
    lsn: u64,
}

/// Replays the log onto the pages of the last checkpoint.
pub(crate) fn recover(place: &Place<'_>, opening: u32) -> Result<Recovered> {
    let superblock = place.pool.superblock();
    // The rule: C. The pages hold some commits between C and L in part, or not at all.
    let from = match defect::is(Defect::ReplayFromLogEnd) {
        true => superblock.log_end,
        false => superblock.replay_lsn,
    };
    let mut replay = Replay::begin(place, superblock.database_id)?;
    let mut report = RecoveryReport { from_lsn: from, opening, ..RecoveryReport::default() };
    let progress = |at_lsn: u64, commits: u64, done: bool| {
        if let Some(f) = place.progress {
            let known_end_lsn = superblock.log_end.max(at_lsn);
            f(RecoveryProgress { from_lsn: from, at_lsn, known_end_lsn, commits, done });
        }
    };
    let mut reader = LogReader::open(place.disk.clone(), place.redo, superblock.database_id, Lsn(from))?;
    let mut reported = from;
    progress(from, 0, false);
    while let Some(record) = reader.next()? {
        let (lsn, end) = (record.lsn.0, record.end.0);
        report.records += 1;
        if let Err(e) = replay.record(record.kind, lsn, record.payload) {
            return Err(e.locate(&reader, lsn));
        }
        if end - reported >= REPORT_EVERY {
            reported = end;
            progress(end, replay.commits, false);
        }
    }
    classify_end(&reader, Lsn(superblock.log_end))?.into_result()?;
    replay.flush()?;
    let end =
        reader.end().cloned().ok_or_else(|| Error::Internal("the log reader ended without an end".into()))?;
    report.end_lsn = end.lsn.0;
    report.end = end.reason.to_string();
    report.commits = replay.commits;
    report.clean = report.records == 0;
    let (tables, changes) = replay.finish(end.lsn.0);
    progress(end.lsn.0, report.commits, true);
    Ok(Recovered { tables, changes, end, report })
}

/// What stops replay.
enum Stop {
    /// The record makes no sense.
    Bad(String),
    Error(Error),
}

impl<E: Into<Error>> From<E> for Stop {
    fn from(e: E) -> Self {
        Stop::Error(e.into())
    }
}

impl From<BadRecord> for Stop {
    fn from(bad: BadRecord) -> Self {
        Stop::Bad(bad.to_string())
    }
}

impl Stop {
    /// The error with the place of the record in it.
    fn locate(self, reader: &LogReader, lsn: u64) -> Error {
        match self {
            Stop::Error(e) => e,
            Stop::Bad(what) => {
                let segment = reader.segments().iter().find(|s| (s.start.0..s.end().0).contains(&lsn));
                let (file, offset) = segment.map_or((PathBuf::new(), 0), |s| {
                    (s.path.clone(), bedstone_wal::SEGMENT_HEADER_BYTES + (lsn - s.start.0))
                });
                let detail = format!("a record with a right checksum makes no sense: {what}");
                Error::LogDamaged { file, offset, lsn, detail }
            }
        }
    }
}

struct Replay<'a> {
    place: &'a Place<'a>,
    database_id: [u8; 16],
    from: u64,
    tables: HashMap<u32, Known>,
    next_id: u32,
    recorded_next_id: u32,
    bytes: Vec<u8>,
    waiting: Vec<Waiting>,
    commits: u64,
}

impl<'a> Replay<'a> {
    fn begin(place: &'a Place<'a>, database_id: [u8; 16]) -> Result<Self> {
        let mut this = Self {
            place,
            database_id,
            from: place.pool.superblock().replay_lsn,
            tables: HashMap::new(),
            next_id: 1,
            recorded_next_id: 0,
            bytes: Vec::new(),
            waiting: Vec::new(),
            commits: 0,
        };
        if place.pool.is_live(PageId::CATALOG_ROOT) {
            this.load_catalog()?;
        } else {
            // The first opening, or the first checkpoint has not come yet.
            let mut reserve = place.pool.reserve_urgent(OPERATION_PAGES)?;
            let (_, pages) =
                Tree::create_at(place.pool, &mut reserve, catalog::CATALOG_TABLE, PageId::CATALOG_ROOT);
            let operation = place.pool.announce();
            for page in pages {
                page.publish(&operation);
            }
        }
        Ok(this)
    }

    fn load_catalog(&mut self) -> Result<()> {
        for (id, record) in read_catalog(self.place.pool)? {
            match record {
                CatalogEntry::NextId(next) => self.recorded_next_id = next,
                CatalogEntry::Table(Record::Live { root, name }) => {
                    self.tables.insert(id, Known::Live { tree: Tree { root, table: id }, name });
                }
                CatalogEntry::Table(Record::Tombstone { root, .. }) => {
                    self.tables.insert(id, Known::Dropped { root });
                }
            }
        }
        let above = self.tables.keys().max().map_or(1, |id| id + 1);
        self.next_id = above.max(self.recorded_next_id).max(1);
        Ok(())
    }

    fn finish(self, end: u64) -> (Vec<Arc<TableState>>, Changes) {
        let mut tables = Vec::new();
        let mut tombstones = Vec::new();
        for (id, known) in self.tables {
            match known {
                Known::Live { tree, name } => tables.push(TableState::new(id, tree.root, &name)),
                Known::Dropped { root } => tombstones.push(Tombstone::dropped(id, root, end)),
            }
        }
        tombstones.sort_by_key(|t| t.id);
        (tables, Changes { next_id: self.next_id, recorded_next_id: self.recorded_next_id, tombstones })
    }

    /// Replays one record.
    fn record(&mut self, kind: u8, lsn: u64, payload: &[u8]) -> std::result::Result<(), Stop> {
        match Body::decode(kind, payload)? {
            Body::Writes { mut writes, .. } => {
                while let Some(write) = writes.next()? {
                    let value_len = write.value.map(|v| v.len() as u64);
                    self.check_write(write.table, write.key.len(), value_len)?;
                    match write.value {
                        Some(mut value) if !self.in_leaf(write.key.len(), value.len() as u64) => {
                            let len = value.len() as u64;
                            self.long_value(write.table, write.key, len, &mut value, lsn)?;
                        }
                        value => self.collect(write.table, write.key, value, lsn)?,
                    }
                }
                self.commits += 1;
            }
            // Counts only once its commit record comes.
            Body::Fragment { .. } => {}
            Body::Commit { transaction, fragments, bytes, .. } => {
                self.fragments(transaction, fragments, bytes, lsn)?;
                self.commits += 1;
            }
            Body::CreateTable { table, name, .. } => {
                self.flush()?;
                self.create(table, name, lsn)?;
                self.commits += 1;
            }
            Body::DropTable { table, .. } => {
                self.flush()?;
                match self.tables.get(&table) {
                    None => return Err(unknown(table)),
                    Some(Known::Dropped { .. }) => {}
                    Some(Known::Live { tree, name }) => {
                        let root = tree.root;
                        self.put_record(table, &Record::Tombstone { root, name: name.clone() }, lsn)?;
                        self.tables.insert(table, Known::Dropped { root });
                    }
                }
                self.commits += 1;
            }
            Body::RenameTable { table, name, .. } => {
                match self.tables.get_mut(&table) {
                    None => return Err(unknown(table)),
                    Some(Known::Dropped { .. }) => {}
                    Some(Known::Live { tree, name: old }) => {
                        *old = name.to_owned();
                        let record = Record::Live { root: tree.root, name: name.to_owned() };
                        self.put_record(table, &record, lsn)?;
                    }
                }
                self.commits += 1;
            }
        }
        Ok(())
    }

    fn create(&mut self, table: u32, name: &str, lsn: u64) -> std::result::Result<(), Stop> {
        if !(1..=catalog::TABLE_MAX).contains(&table) || catalog::check_name(name).is_err() {
            return Err(Stop::Bad(format!("a table of number {table} and name {name:?} is made")));
        }
        self.next_id = self.next_id.max(table.saturating_add(1));
        if self.tables.contains_key(&table) {
            return Ok(());
        }
        let pool = self.place.pool;
        let mut reserve = pool.reserve_urgent(2 * OPERATION_PAGES)?;
        let (tree, pages) = Tree::create(pool, &mut reserve, table);
        let record = Record::Live { root: tree.root, name: name.to_owned() }.encode();
        let mut write = Write::Put(NewValue::Inline(&record));
        let key = catalog::key(table);
        CATALOG.write(pool, &mut reserve, &key, &mut write, &mut || Stamp::Lsn(lsn), &mut pages.into())?;
        self.tables.insert(table, Known::Live { tree, name: name.to_owned() });
        Ok(())
    }

    fn put_record(&self, table: u32, record: &Record, lsn: u64) -> Result<()> {
        let pool = self.place.pool;
        let mut reserve = pool.reserve_urgent(OPERATION_PAGES)?;
        let record = record.encode();
        let mut write = Write::Put(NewValue::Inline(&record));
        let key = catalog::key(table);
        CATALOG.write(pool, &mut reserve, &key, &mut write, &mut || Stamp::Lsn(lsn), &mut Vec::new())?;
        Ok(())
    }

    fn in_leaf(&self, key_len: usize, value_len: u64) -> bool {
        key_len as u64 + value_len <= self.place.limits.max_inline_bytes as u64
    }

    /// The write is one that this database can hold, and of a table that was made.
    fn check_write(
        &self,
        table: u32,
        key_len: usize,
        value_len: Option<u64>,
    ) -> std::result::Result<(), Stop> {
        let limits = &self.place.limits;
        if key_len > limits.max_key_bytes || value_len.is_some_and(|len| len > limits.max_value_bytes) {
            let value_len = value_len.unwrap_or(0);
            return Err(Stop::Bad(format!("a key of {key_len} and a value of {value_len} bytes")));
        }
        if self.tables.contains_key(&table) { Ok(()) } else { Err(unknown(table)) }
    }

    /// Keeps a write until enough have come together.
    fn collect(&mut self, table: u32, key: &[u8], value: Option<&[u8]>, lsn: u64) -> Result<()> {
        if matches!(self.tables.get(&table), Some(Known::Dropped { .. })) {
            return Ok(());
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self.waiting.push(Waiting {
            table,
            start,
            key_len: key.len(),
            value_len: value.map(<[u8]>::len),
            lsn,
        });
        if self.bytes.len() >= COLLECT || self.waiting.len() >= COLLECT_WRITES {
            self.flush()?;
        }
        Ok(())
    }

    /// Applies what was collected.
    fn flush(&mut self) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let bytes = &self.bytes;
        let key = |w: &Waiting| &bytes[w.start..w.start + w.key_len];
        // Stable: writes to one key stay in log order, and the last of them is the one that counts.
        self.waiting.sort_by(|a, b| a.table.cmp(&b.table).then_with(|| key(a).cmp(key(b))));
        let mut reserve = self.place.pool.reserve_urgent(OPERATION_PAGES)?;
        for run in self.waiting.chunk_by(|a, b| a.table == b.table) {
            let Some(Known::Live { tree, .. }) = self.tables.get(&run[0].table) else { continue };
            let mut ops: Vec<Op<'_, '_>> = run
                .chunk_by(|a, b| key(a) == key(b))
                .filter_map(|same| same.last())
                .map(|w| {
                    let at = w.start + w.key_len;
                    let write = match w.value_len {
                        Some(len) => Write::Put(NewValue::Inline(&bytes[at..at + len])),
                        None => Write::Delete,
                    };
                    Op { key: key(w), write, lsn: w.lsn }
                })
                .collect();
            tree.apply_sorted(self.place.pool, &mut reserve, &mut ops)?;
        }
        self.waiting.clear();
        self.bytes.clear();
        Ok(())
    }

    /// Puts a value that lies in pages of its own, in its place in the order of the log.
    fn long_value(
        &mut self,
        table: u32,
        key: &[u8],
        len: u64,
        source: &mut dyn Read,
        lsn: u64,
    ) -> std::result::Result<(), Stop> {
        let tree = match self.tables.get(&table) {
            Some(Known::Live { tree, .. }) => *tree,
            Some(Known::Dropped { .. }) => {
                std::io::copy(&mut source.take(len), &mut std::io::sink()).map_err(source_failed)?;
                return Ok(());
            }
            None => return Err(unknown(table)),
        };
        self.flush()?;
        let pool = self.place.pool;
        let pass = self.place.gate.enter();
        let mut reserve = pool.reserve_urgent(0)?;
        let built = match PreparedOverflow::build_from(pool, table, len, source, Some(&pass), &mut reserve) {
            Ok(built) => built,
            Err(SourceError::Pool(e)) => return Err(e.into()),
            Err(SourceError::Source { source, .. }) => return Err(source_failed(source)),
        };
        reserve.refill(OPERATION_PAGES)?;
        let mut write = Write::Put(NewValue::Overflow(built));
        match tree.write(pool, &mut reserve, key, &mut write, &mut || Stamp::Lsn(lsn), &mut Vec::new())? {
            Outcome::Applied { .. } => Ok(()),
            other => Err(Error::Internal(format!("a put in replay ended as {other:?}")).into()),
        }
    }

    /// Applies a commit whose writes lie in fragments.
    fn fragments(&mut self, first: u64, count: u32, bytes: u64, lsn: u64) -> std::result::Result<(), Stop> {
        if first < self.from || first >= lsn {
            return Err(Stop::Bad(format!(
                "fragments from lsn {first} on are committed, replay began at {}",
                self.from
            )));
        }
        let reader = LogReader::open(self.place.disk.clone(), self.place.redo, self.database_id, Lsn(first))?;
        let mut source =
            FragmentSource { reader, first, end: lsn, piece: Vec::new(), at: 0, count: 0, bytes: 0 };
        while let Some(front) = source.front()? {
            self.check_write(front.table, front.key_len, front.value_len)?;
            let mut key = vec![0; front.key_len];
            source.read_exact(&mut key).map_err(source_failed)?;
            match front.value_len {
                Some(len) if !self.in_leaf(front.key_len, len) => {
                    self.long_value(front.table, &key, len, &mut source, lsn)?;
                }
                Some(len) => {
                    let mut value = vec![0; len as usize];
                    source.read_exact(&mut value).map_err(source_failed)?;
                    self.collect(front.table, &key, Some(&value), lsn)?;
                }
                None => self.collect(front.table, &key, None, lsn)?,
            }
        }
        if (source.count, source.bytes) != (count, bytes) {
            let (found, found_bytes) = (source.count, source.bytes);
            let what =
                format!("{count} fragments of {bytes} bytes are committed, found {found} of {found_bytes}");
            return Err(Stop::Bad(what));
        }
        Ok(())
    }
}

fn unknown(table: u32) -> Stop {
    Stop::Bad(format!("it is about table {table}, which the catalog does not have and no record made"))
}

/// An error that came out of a [`FragmentSource`] through an interface that knows only the standard
/// library's.
fn source_failed(e: std::io::Error) -> Stop {
    match e.downcast::<Error>() {
        Ok(error) => Stop::Error(error),
        Err(e) => Stop::Bad(format!("the writes of a commit are cut off: {e}")),
    }
}

/// The byte string of a fragmented commit's writes, read from the log.
struct FragmentSource {
    reader: LogReader,
    first: u64,
    /// LSN of the commit record.
    end: u64,
    piece: Vec<u8>,
    at: usize,
    count: u32,
    bytes: u64,
}

impl FragmentSource {
    /// Reads the front of the next write; `None` at the end.
    fn front(&mut self) -> std::result::Result<Option<WriteFront>, Stop> {
        let mut front = Vec::with_capacity(crate::txn::record::WRITE_HEADER_MAX);
        loop {
            let Some(&byte) = self.fill_buf().map_err(source_failed)?.first() else {
                return if front.is_empty() {
                    Ok(None)
                } else {
                    Err(Stop::Bad("the last write is cut off".into()))
                };
            };
            self.consume(1);
            front.push(byte);
            if let Some(decoded) = WriteFront::decode(&front, 0)? {
                return Ok(Some(decoded));
            }
        }
    }

    /// The next fragment of the commit becomes the piece; `false` when there is none before the commit
    /// record.
    fn next_piece(&mut self) -> Result<bool> {
        self.piece.clear();
        self.at = 0;
        while let Some(record) = self.reader.next()? {
            if record.lsn.0 >= self.end {
                return Ok(false);
            }
            if record.kind != FRAGMENT {
                continue;
            }
            let Some((transaction, piece)) = record.payload.split_first_chunk::<FRAGMENT_HEADER>() else {
                continue;
            };
            let transaction = u64::from_le_bytes(*transaction);
            let own = if transaction == 0 { record.lsn.0 } else { transaction };
            if own == self.first {
                self.piece.extend_from_slice(piece);
                self.count += 1;
                self.bytes += piece.len() as u64;
                if !piece.is_empty() {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

impl BufRead for FragmentSource {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        if self.at == self.piece.len() {
            self.next_piece().map_err(std::io::Error::other)?;
        }
        Ok(&self.piece[self.at..])
    }

    fn consume(&mut self, n: usize) {
        self.at = (self.at + n).min(self.piece.len());
    }
}

impl Read for FragmentSource {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let bytes = self.fill_buf()?;
        let n = bytes.len().min(buf.len());
        buf[..n].copy_from_slice(&bytes[..n]);
        self.consume(n);
        Ok(n)
    }
}

/// What a record of the catalog's tree says.
pub(crate) enum CatalogEntry {
    NextId(u32),
    Table(Record),
}

/// Everything in the catalog's tree.
pub(crate) fn read_catalog(pool: &Pool) -> Result<Vec<(u32, CatalogEntry)>> {
    let mut entries = Vec::new();
    let mut scan = CATALOG.scan(pool, Bound::Unbounded, Bound::Unbounded);
    while let Some(entry) = scan.next()? {
        match entry.value {
            CellValue::Inline(value) => entries.push(decode_entry(entry.key, value)?),
            CellValue::Overflow(_) => return Err(bad_catalog("a record outside its leaf".into())),
        }
    }
    Ok(entries)
}

fn decode_entry(key: &[u8], value: &[u8]) -> Result<(u32, CatalogEntry)> {
    let decoded = catalog::decode_key(key).and_then(|id| {
        let entry = if id == catalog::CATALOG_TABLE {
            let bytes: [u8; 4] =
                value.try_into().map_err(|_| "a bad record of the next table number".to_owned())?;
            CatalogEntry::NextId(u32::from_le_bytes(bytes))
        } else {
            CatalogEntry::Table(Record::decode(value)?)
        };
        Ok((id, entry))
    });
    decoded.map_err(bad_catalog)
}

fn bad_catalog(detail: String) -> Error {
    let file = PathBuf::from(crate::create::DATA);
    Error::Corrupt { file, offset: 0, page: Some(PageId::CATALOG_ROOT.0), what: "the catalog", detail }
}
