//! Bedstone: an embeddable, ordered key-value storage engine.
//!
//! Data pages travel by direct I/O between the disk and a buffer pool that the engine manages itself; the redo
//! log is appended through the page cache and made durable by `fdatasync`. A write is durable when its log
//! record is; checkpoints write pages out of place and switch to them with one superblock, so there are no torn
//! pages to repair and recovery is a replay of the log after the newest superblock.
//!
//! ```no_run
//! # fn main() -> Result<(), bedstone::Error> {
//! let db = bedstone::Database::open_or_create("places.bed")?;
//! let cities = db.table("cities")?;
//! cities.put(b"CH/Zurich", b"47.37 8.54")?; // durable when it returns
//! if let Some(value) = cities.get(b"CH/Zurich")? {
//!     assert_eq!(&*value, b"47.37 8.54"); // the value points into the buffer pool
//! }
//! for entry in cities.prefix(b"CH/")? {
//!     let entry = entry?;
//!     println!("{:?} = {:?}", entry.key(), entry.value());
//! }
//! db.close()
//! # }
//! ```
//!
//! Keys and values are byte strings; keys are ordered as bytes. [`Database::limits`] names every limit. The features
//! `typed` and `serde` add tables whose keys and values have types: the module `typed`.

#![forbid(unsafe_code)]

mod batch;
mod btree;
mod catalog;
mod check;
mod checkpoint;
mod create;
mod db;
#[cfg(any(doc, doctest))]
pub mod documentation;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzz;
pub mod inspect;
mod options;
mod range;
mod recovery;
mod shared;
mod snapshot;
mod stats;
mod stepping;
mod table;
#[cfg(test)]
mod tests;
mod transaction;
mod txn;
#[cfg(feature = "typed")]
pub mod typed;
mod update;
mod value;

pub use batch::WriteBatch;
pub use check::{CheckReport, Problem, TableCheck};
pub use db::{CommitInfo, Database, TableInfo};
pub use error::{Error, Result};
pub use options::{Background, Builder, Durability, IoChoice, Limits, Policy, RecoveryProgress};
pub use range::{Entry, Key, Range};
pub use snapshot::{Snapshot, SnapshotInfo, SnapshotOptions, SnapshotRange};
pub use stats::{CheckpointInfo, RecoveryReport, Stats, TableStats};
pub use stepping::{CheckpointStep, Work};
pub use table::Table;
pub use transaction::{Savepoint, Transaction};
pub use txn::ticket::CommitTicket;
pub use update::UpdateOptions;
pub use value::{Value, ValueReader};

pub use bedstone_bufpool::PoolStats;
pub use bedstone_io::{IoMode, IoReport};
pub use bedstone_wal::WalStats;
