//! A set of writes that are committed together or not at all.
//!
//! The writes are kept as the log will hold them, one behind the other, so that a batch whose keys were added
//! in ascending order goes into the log without being copied again.

use bedstone_io::defect::{self, Defect};

use crate::db::Database;
use crate::error::{Error, Result};
use crate::table::Table;
use crate::txn::record::WriteHeader;

/// Writes to any tables of one database, in order; the last write of a key wins. [`crate::Database::write`]
/// commits them all at once.
#[derive(Debug)]
pub struct WriteBatch {
    /// The writes as the log holds them.
    bytes: Vec<u8>,
    writes: Vec<BatchWrite>,
    /// The tables written to, each once.
    tables: Vec<Table>,
    /// Every write so far goes to a greater (table, key) than the one before it.
    ascending: bool,
}

/// One write of a batch: where its bytes lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchWrite {
    /// Index of the table among the batch's.
    pub(crate) table: u32,
    /// Bytes in front of the key.
    header: u8,
    is_put: bool,
    key_len: u32,
    value_len: u32,
    start: u64,
}

impl Default for WriteBatch {
    fn default() -> Self {
        Self { bytes: Vec::new(), writes: Vec::new(), tables: Vec::new(), ascending: true }
    }
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a put. Fails on a key or value beyond the limits, or on a table of another database than the
    /// batch's first; the batch is then as before.
    pub fn put(&mut self, table: &Table, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.add(table, key.as_ref(), Some(value.as_ref()))
    }

    /// Adds a delete; deleting what is not there is no error. Fails as [`WriteBatch::put`] does.
    pub fn delete(&mut self, table: &Table, key: impl AsRef<[u8]>) -> Result<()> {
        self.add(table, key.as_ref(), None)
    }

    fn add(&mut self, table: &Table, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let shared = table.shared();
        shared.check_key(key)?;
        let value_len = value.map_or(0, <[u8]>::len);
        shared.check_value(value_len as u64)?;
        if let Some(first) = self.tables.first()
            && !first.database().is_same(table.database())
        {
            return Err(Error::ForeignTable { name: table.name() });
        }
        let header = match value {
            Some(value) => WriteHeader::put(table.id(), key.len(), value.len() as u64),
            None => WriteHeader::delete(table.id(), key.len()),
        };
        let bytes = self.bytes.len() as u64 + (header.as_slice().len() + key.len() + value_len) as u64;
        let max = shared.limits.max_batch_bytes;
        if bytes > max {
            return Err(Error::BatchTooLarge { bytes, max });
        }
        let index = self.table_index(table);
        if self.ascending
            && let Some(last) = self.writes.last()
        {
            let before = (self.tables[last.table as usize].id(), last.key(&self.bytes));
            self.ascending = before < (table.id(), key);
        }
        let start = self.bytes.len() as u64;
        self.bytes.extend_from_slice(header.as_slice());
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self.writes.push(BatchWrite {
            table: index,
            header: header.as_slice().len() as u8,
            is_put: value.is_some(),
            key_len: key.len() as u32,
            value_len: value_len as u32,
            start,
        });
        Ok(())
    }

    fn table_index(&mut self, table: &Table) -> u32 {
        // The table written to last comes again most often; there are seldom more than a few.
        let last = self.writes.last().map(|w| w.table);
        if let Some(last) = last
            && self.tables[last as usize].id() == table.id()
        {
            return last;
        }
        let found = self.tables.iter().position(|t| t.id() == table.id());
        found.unwrap_or_else(|| {
            self.tables.push(table.clone());
            self.tables.len() - 1
        }) as u32
    }

    /// Number of writes.
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Bytes of the writes as the log will hold them.
    pub fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Takes all writes out; the memory is kept for the next ones.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.writes.clear();
        self.tables.clear();
        self.ascending = true;
    }

    /// It frees space in the end, so it may draw on room that is kept back.
    pub(crate) fn only_deletes(&self) -> bool {
        self.writes.iter().all(BatchWrite::is_delete)
    }

    /// Brings the writes into the order of tables and keys, and of several to one key keeps the last.
    pub(crate) fn sort(&mut self) {
        if self.ascending {
            return;
        }
        let (bytes, tables) = (&self.bytes, &self.tables);
        let mut order: Vec<(u32, u64, u32)> = (self.writes.iter().enumerate())
            .map(|(i, w)| (tables[w.table as usize].id(), key_head(w.key(bytes)), i as u32))
            .collect();
        let writes = &self.writes;
        let key = |i: u32| writes[i as usize].key(bytes);
        order.sort_unstable_by(|a, b| {
            (a.0, a.1).cmp(&(b.0, b.1)).then_with(|| key(a.2).cmp(key(b.2))).then(a.2.cmp(&b.2))
        });
        let kept = (0..order.len())
            .filter(|&i| {
                order.get(i + 1).is_none_or(|next| next.0 != order[i].0 || key(next.2) != key(order[i].2))
            })
            .map(|i| writes[order[i].2 as usize])
            .collect();
        self.writes = kept;
    }

    pub(crate) fn tables(&self) -> &[Table] {
        &self.tables
    }

    pub(crate) fn writes(&self) -> &[BatchWrite] {
        &self.writes
    }

    pub(crate) fn raw(&self) -> &[u8] {
        &self.bytes
    }

    /// The writes as the log is to hold them, in order; long runs come as one piece.
    pub(crate) fn pieces(&self) -> Vec<&[u8]> {
        if self.ascending && !defect::is(Defect::HalfBatch) {
            return vec![&self.bytes];
        }
        self.writes.iter().map(|w| w.encoded(&self.bytes)).collect()
    }

    /// The batch's tables all belong to `db`.
    pub(crate) fn belongs_to(&self, db: &Database) -> Result<()> {
        match self.tables.first() {
            Some(table) if !table.database().is_same(db) => Err(Error::ForeignTable { name: table.name() }),
            _ => Ok(()),
        }
    }
}

impl BatchWrite {
    fn encoded<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        let start = self.start as usize;
        &bytes[start..start + usize::from(self.header) + self.key_len as usize + self.value_len as usize]
    }

    pub(crate) fn key<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        let start = self.start as usize + usize::from(self.header);
        &bytes[start..start + self.key_len as usize]
    }

    pub(crate) fn is_delete(&self) -> bool {
        !self.is_put
    }

    /// `None` is a delete.
    pub(crate) fn value<'b>(&self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let start = self.start as usize + usize::from(self.header) + self.key_len as usize;
        self.is_put.then(|| &bytes[start..start + self.value_len as usize])
    }
}

/// The first eight bytes of a key as a number that orders like them.
fn key_head(key: &[u8]) -> u64 {
    let mut head = [0; 8];
    let n = key.len().min(8);
    head[..n].copy_from_slice(&key[..n]);
    u64::from_be_bytes(head)
}
