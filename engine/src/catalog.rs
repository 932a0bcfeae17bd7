//! The catalog: which tables there are.
//!
//! It is a tree like every other, with table number 0 and its root on the first page of the database. Key:
//! the number of a table, 4 bytes, big-endian. Value: a [`Record`]; FORMAT.md has its table.
//!
//! The record under number 0 holds, as a u32, the lowest number that no table ever had; it counts only if it
//! is larger than what the other records say.
//!
//! # One leaf operation each
//!
//! Everything about a table is one record, so that making, renaming and dropping it changes one leaf of the
//! catalog, at the same instant at which its log record is appended. *Making* builds root and first leaf
//! unpublished and publishes them under the announcement of that change: a checkpoint has either all three or
//! none, and a crash leaks nothing.
//!
//! *Dropping* replaces the record by a tombstone. It takes every key stripe first, so no commit is between
//! log and trees; later ones see the mark on the table. The pages are given back afterwards, a piece at a
//! time, without log records: a tree that was partly given back is still a tree, its tombstone still says
//! where the root is, and opening goes on with the rest. The root goes last. Whether it has gone already is
//! seen by the table number in its envelope: numbers are never used twice, so a page that has the number is
//! the root, and one that has not is somebody else's.
//!
//! The *tombstone* goes once the pages are back and the durable replay LSN has passed the drop's record.
//! Until then replay may meet writes to the table, and the tombstone is how it knows to skip them; from then
//! on no record of the table can be read again. The LSN is known for drops of this run; for older tombstones
//! the end of the log at opening serves, which is not below it. Removing a record is a change of the
//! catalog's leaf that no log record tells of; losing it in a crash only brings the tombstone back. Before
//! the first tombstone goes, the record under number 0 is raised, so that the number of a table that left no
//! trace is not given out again.
//!
//! *Temporary trees* are tombstones from the beginning ([`crate::txn::temp_tree`]): whatever opens the database
//! next gives them back.
//!
//! # Replay
//!
//! A create record makes the table unless the catalog has its number, live or as tombstone; a drop record
//! makes a tombstone unless there is none to make; a rename sets the name of a live table. Each gives the
//! same result however often it is repeated in log order, which is all that replay asks for.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bedstone_bufpool::PageId;
use parking_lot::{Mutex, MutexGuard, RwLock};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::btree::Tree;
use crate::db::TableInfo;
use crate::error::{Error, Result};
use crate::txn::history::History;
use crate::txn::temp_tree::TempMark;

/// Number of the catalog's own tree.
pub(crate) const CATALOG_TABLE: u32 = 0;
/// The catalog's tree.
pub(crate) const CATALOG: Tree = Tree { root: PageId::CATALOG_ROOT, table: CATALOG_TABLE };
/// Longest name of a table, in bytes.
pub(crate) const NAME_MAX: usize = 255;
/// What the tombstone of a temporary tree has as its name.
pub(crate) const TEMPORARY: &str = "(temporary)";
/// Largest number of a table.
pub(crate) const TABLE_MAX: u32 = u32::MAX - 1;

const LIVE: u8 = 1;
const TOMBSTONE: u8 = 2;

/// A table as every handle of it sees it.
#[derive(Debug)]
pub(crate) struct TableState {
    pub(crate) id: u32,
    pub(crate) tree: Tree,
    pub(crate) name: RwLock<String>,
    pub(crate) history: History,
    dropped: AtomicBool,
}

impl TableState {
    pub(crate) fn new(id: u32, root: PageId, name: &str) -> Arc<Self> {
        Arc::new(Self {
            id,
            tree: Tree { root, table: id },
            name: RwLock::new(name.to_owned()),
            history: History::default(),
            dropped: AtomicBool::new(false),
        })
    }

    /// The table was not dropped.
    #[inline]
    pub(crate) fn usable(&self) -> Result<()> {
        if self.is_dropped() { Err(self.dropped_error()) } else { Ok(()) }
    }

    #[inline]
    pub(crate) fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::Acquire)
    }

    #[cold]
    fn dropped_error(&self) -> Error {
        Error::TableDropped { name: self.name.read().clone() }
    }

    pub(crate) fn mark_dropped(&self) {
        self.dropped.store(true, Ordering::Release);
    }
}

/// A dropped table of which something is left, or a temporary tree ([`crate::txn::temp_tree`]).
#[derive(Debug, Clone)]
pub(crate) struct Tombstone {
    pub(crate) id: u32,
    pub(crate) root: PageId,
    /// The drop's record is not above this position.
    pub(crate) lsn: u64,
    /// All pages were given back.
    pub(crate) emptied: bool,
    /// A temporary tree made in this run.
    pub(crate) temporary: Option<Arc<TempMark>>,
}

impl Tombstone {
    /// That of a table whose drop has its record not above `lsn`.
    pub(crate) fn dropped(id: u32, root: PageId, lsn: u64) -> Self {
        Self { id, root, lsn, emptied: false, temporary: None }
    }

    /// That of a temporary tree.
    pub(crate) fn temporary(id: u32, root: PageId, mark: Arc<TempMark>) -> Self {
        Self { id, root, lsn: 0, emptied: false, temporary: Some(mark) }
    }

    pub(crate) fn tree(&self) -> Tree {
        Tree { root: self.root, table: self.id }
    }

    /// Nobody uses the tree any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.temporary.as_ref().is_none_or(|mark| !mark.is_in_use())
    }

    /// No record of the log that replay could still read is about the tree, if replay begins at `replay_lsn`.
    pub(crate) fn is_past(&self, replay_lsn: u64) -> bool {
        self.temporary.is_some() || self.lsn < replay_lsn
    }
}

/// A record of the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    Live { root: PageId, name: String },
    Tombstone { root: PageId, name: String },
}

/// A [`Record`] as stored, without its name.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct StoredRecord {
    state: u8,
    flags: u8,
    reserved: [u8; 2],
    root: U32,
}

#[cfg(test)]
pub(crate) const LAYOUT: bedstone_io::layout::Layout = bedstone_io::layout!(
    "Catalog record",
    StoredRecord { state => "state", flags => "flags", reserved => "reserved", root => "root" }
)
.then(&[bedstone_io::layout::Tail::between("name", 1, NAME_MAX)]);

#[cfg(test)]
pub(crate) const STATES: bedstone_io::layout::Numbers = bedstone_io::layout::Numbers {
    name: "States of a table",
    entries: &[("live", LIVE as u64), ("tombstone", TOMBSTONE as u64)],
};

impl Record {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (state, root, name) = match self {
            Record::Live { root, name } => (LIVE, root, name),
            Record::Tombstone { root, name } => (TOMBSTONE, root, name),
        };
        let stored = StoredRecord { state, flags: 0, reserved: [0; 2], root: U32::new(root.0) };
        [stored.as_bytes(), name.as_bytes()].concat()
    }

    /// Takes a record apart; the error says what is wrong with it.
    pub(crate) fn decode(bytes: &[u8]) -> std::result::Result<Self, String> {
        let Ok((stored, name)) = StoredRecord::ref_from_prefix(bytes) else {
            let least = size_of::<StoredRecord>();
            return Err(format!("a catalog record of {} bytes, at least {least} expected", bytes.len()));
        };
        if stored.flags != 0 || stored.reserved != [0; 2] {
            return Err("a catalog record with flags this version does not know".into());
        }
        let root = PageId(stored.root.get());
        let name = match std::str::from_utf8(name) {
            Ok(name) if !name.is_empty() && name.len() <= NAME_MAX && root != PageId::NONE => name.to_owned(),
            _ => return Err("a catalog record with a bad name or root".into()),
        };
        match stored.state {
            LIVE => Ok(Record::Live { root, name }),
            TOMBSTONE => Ok(Record::Tombstone { root, name }),
            other => Err(format!("a catalog record of state {other}")),
        }
    }
}

/// The key of a table's record.
pub(crate) fn key(id: u32) -> [u8; 4] {
    id.to_be_bytes()
}

/// What a key of the catalog's tree names; the error says what is wrong with it.
pub(crate) fn decode_key(bytes: &[u8]) -> std::result::Result<u32, String> {
    let key: [u8; 4] =
        bytes.try_into().map_err(|_| format!("a catalog key of {} bytes, 4 expected", bytes.len()))?;
    match u32::from_be_bytes(key) {
        id if id > TABLE_MAX => Err(format!("a table of number {id}, the largest is {TABLE_MAX}")),
        id => Ok(id),
    }
}

/// What an entry of the catalog's tree says to a tool: a table that is there, or nothing that it shows.
pub(crate) fn table_info(key: &[u8], value: &[u8]) -> std::result::Result<Option<TableInfo>, String> {
    let id = decode_key(key)?;
    if id == CATALOG_TABLE {
        return Ok(None);
    }
    Ok(match Record::decode(value)? {
        Record::Live { root, name } => Some(TableInfo { name, id, root_page: root.0 }),
        Record::Tombstone { .. } => None,
    })
}

/// Checks a name that a user gives.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let detail = if name.is_empty() {
        "it is empty"
    } else if name.len() > NAME_MAX {
        "it has more than 255 bytes"
    } else if name.chars().any(char::is_control) {
        "it contains a control character"
    } else {
        return Ok(());
    };
    Err(Error::InvalidTableName { name: name.chars().take(64).collect(), detail })
}

/// What of the catalog is in memory.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    names: RwLock<HashMap<String, Arc<TableState>>>,
    /// Held by whoever changes the catalog: such changes happen one at a time.
    changes: Mutex<Changes>,
    /// Held by whoever gives back what dropped tables left; taken before `changes`.
    pub(crate) upkeep: Mutex<()>,
}

/// What only those who change the catalog look at.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// The number of the next table.
    pub(crate) next_id: u32,
    /// The number that the record under 0 holds; 0 if there is none.
    pub(crate) recorded_next_id: u32,
    pub(crate) tombstones: Vec<Tombstone>,
}

impl Catalog {
    pub(crate) fn new(tables: Vec<Arc<TableState>>, changes: Changes) -> Self {
        let names = tables.into_iter().map(|t| (t.name.read().clone(), t.clone())).collect();
        Self { names: RwLock::new(names), changes: Mutex::new(changes), upkeep: Mutex::new(()) }
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<TableState>> {
        self.names.read().get(name).cloned()
    }

    /// All tables, by name.
    pub(crate) fn all(&self) -> Vec<Arc<TableState>> {
        let mut all: Vec<(String, Arc<TableState>)> =
            self.names.read().iter().map(|(name, t)| (name.clone(), t.clone())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all.into_iter().map(|(_, t)| t).collect()
    }

    pub(crate) fn change(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock()
    }

    pub(crate) fn insert(&self, table: &Arc<TableState>) {
        self.names.write().insert(table.name.read().clone(), table.clone());
    }

    pub(crate) fn remove(&self, name: &str) {
        self.names.write().remove(name);
    }

    pub(crate) fn rename(&self, table: &Arc<TableState>, to: &str) {
        let mut names = self.names.write();
        let from = std::mem::replace(&mut *table.name.write(), to.to_owned());
        names.remove(&from);
        names.insert(to.to_owned(), table.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_bad_ones_are_refused() {
        for record in [
            Record::Live { root: PageId(7), name: "places".into() },
            Record::Tombstone { root: PageId(u32::MAX), name: "ü".repeat(127) },
        ] {
            assert_eq!(Record::decode(&record.encode()).unwrap(), record);
        }
        let good = Record::Live { root: PageId(7), name: "x".into() }.encode();
        for cut in 0..good.len() {
            assert!(Record::decode(&good[..cut]).is_err(), "cut at {cut}");
        }
        for (at, byte) in [(0, 3), (0, 0), (1, 1), (3, 9), (8, 0xff)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert!(Record::decode(&bad).is_err(), "byte {at} = {byte}");
        }
        assert!(decode_key(b"abc").is_err());
        assert!(decode_key(&key(TABLE_MAX)).is_ok() && decode_key(&key(u32::MAX)).is_err());
        assert_eq!(decode_key(&key(77)).unwrap(), 77);
    }

    #[test]
    fn names_are_checked() {
        for good in ["a", "places", "ünïcode", &"x".repeat(255)] {
            check_name(good).unwrap();
        }
        for bad in ["", "a\nb", "a\0", &"x".repeat(256)] {
            assert!(matches!(check_name(bad), Err(Error::InvalidTableName { .. })), "{bad:?}");
        }
    }
}
