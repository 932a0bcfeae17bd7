//! The log, record by record.

use std::path::Path;
use std::sync::Arc;

use bedstone_io::Disk;
use bedstone_wal::{EndState, LogReader, Lsn, classify_end};

use super::dump::{LogBody, LogEndDump, LogEntry, LogOp};
use crate::error::Result;
use crate::txn::record::{BadRecord, Body, Writes};

/// The records of the log one after the other.
#[derive(Debug)]
pub struct LogDump {
    reader: LogReader,
    /// How far the superblock says that the log had reached.
    required: Lsn,
}

impl LogDump {
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        database_id: [u8; 16],
        from: u64,
        required: u64,
    ) -> Result<Self> {
        Ok(Self { reader: LogReader::open(disk, dir, database_id, Lsn(from))?, required: Lsn(required) })
    }

    /// The next record; `None` at the end of the log.
    ///
    /// # Errors
    /// An I/O error. A record whose content cannot be understood is no error, see [`LogBody::Unreadable`].
    pub fn next_entry(&mut self) -> Result<Option<LogEntry>> {
        let Some(record) = self.reader.next()? else { return Ok(None) };
        let body = body(record.kind, record.payload)
            .unwrap_or_else(|bad| LogBody::Unreadable { detail: bad.to_string() });
        Ok(Some(LogEntry {
            lsn: record.lsn.0,
            end: record.end.0,
            kind: record.kind,
            opening: record.opening,
            durable_lsn: record.durable_lsn.0,
            payload_bytes: record.payload.len() as u64,
            body,
        }))
    }

    /// Where and why the log ended. Reads what is left of it if need be, and what lies behind its end, to tell a torn
    /// tail from damage.
    ///
    /// # Errors
    /// An I/O error.
    pub fn end(&mut self) -> Result<LogEndDump> {
        while self.reader.next()?.is_some() {}
        let state = classify_end(&self.reader, self.required)?;
        let (lsn, reason) = self
            .reader
            .end()
            .map_or((self.reader.position().0, String::new()), |end| (end.lsn.0, end.reason.to_string()));
        let damage = match state {
            EndState::Torn => None,
            EndState::Damaged { file, offset, why, .. } => {
                Some(format!("{}: offset {offset}: {why}", file.display()))
            }
        };
        Ok(LogEndDump { lsn, reason, damage })
    }
}

fn body(kind: u8, payload: &[u8]) -> std::result::Result<LogBody, BadRecord> {
    Ok(match Body::decode(kind, payload)? {
        Body::Writes { unix_ms, writes } => LogBody::Writes { unix_ms, ops: ops(writes)? },
        Body::Fragment { transaction, piece } => LogBody::Fragment { transaction, bytes: piece.len() as u64 },
        Body::Commit { transaction, fragments, bytes, unix_ms } => {
            LogBody::Commit { unix_ms, transaction, fragments, bytes }
        }
        Body::CreateTable { unix_ms, table, name } => {
            LogBody::CreateTable { unix_ms, table, name: name.to_owned() }
        }
        Body::DropTable { unix_ms, table } => LogBody::DropTable { unix_ms, table },
        Body::RenameTable { unix_ms, table, name } => {
            LogBody::RenameTable { unix_ms, table, name: name.to_owned() }
        }
    })
}

fn ops(mut writes: Writes<'_>) -> std::result::Result<Vec<LogOp>, BadRecord> {
    let mut ops = Vec::new();
    while let Some(write) = writes.next()? {
        ops.push(LogOp {
            table: write.table,
            key: write.key.to_vec(),
            value: write.value.map(<[u8]>::to_vec),
        });
    }
    Ok(ops)
}
