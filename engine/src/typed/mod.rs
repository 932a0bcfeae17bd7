//! Typed tables: keys and values of Rust's types over the byte strings of [`crate::Table`]. Cargo feature `typed`; values
//! of every type that serde knows with the feature `serde`.
//!
//! The codes of keys keep the order of the values, so ranges mean what they say: see [`Key`]. The types of a table are
//! remembered in the database when it is first opened as a typed one, and compared ever after.
//!
#![cfg_attr(feature = "serde", doc = "```no_run")]
#![cfg_attr(not(feature = "serde"), doc = "```ignore")]
//! use bedstone::{Database, typed::Serde};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Reading {
//!     celsius: f32,
//!     remark: Option<String>,
//! }
//!
//! fn main() -> bedstone::Result<()> {
//!     let db = Database::open_or_create("weather.bed")?;
//!     // By station, then by time; opening it with other types is an error.
//!     let readings = db.typed_table::<(String, u64), Serde<Reading>>("readings")?;
//!     readings.put(("Zurich", 1_760_000_000), &Reading { celsius: 11.5, remark: None })?;
//!
//!     for entry in readings.range(("Zurich", 0)..("Zurich", 1_800_000_000))?.rev() {
//!         let ((station, time), reading) = entry?;
//!         println!("{station} {time} {}", reading.celsius);
//!     }
//!     for entry in readings.prefix("Zurich")? {
//!         entry?; // all of one station
//!     }
//!     db.update(|tx| {
//!         if let Some(mut last) = readings.get_in(tx, ("Zurich", 1_760_000_000))? {
//!             last.remark = Some("checked".into());
//!             readings.put_in(tx, ("Zurich", 1_760_000_000), &last)?;
//!         }
//!         Ok(())
//!     })?;
//!     let snapshot = db.begin_read()?;
//!     let first = readings.first_in(&snapshot)?;
//!     assert!(first.is_some());
//!     db.close()
//! }
#![doc = "```"]

mod access;
mod key;
mod range;
#[cfg(feature = "serde")]
mod serde_value;
mod table;
#[cfg(test)]
mod tests;
mod types;
mod value;

use std::borrow::Cow;
use std::fmt;

pub use access::{Reader, Writer};
pub use key::{Key, Place, PrefixKey};
pub use range::TypedRange;
#[cfg(feature = "serde")]
pub use serde_value::Serde;
pub use table::TypedTable;
pub use types::TYPES_TABLE;
pub use value::Value;

/// Why a value has no code, or why bytes are the code of no value. Typed tables make [`crate::Error::Encode`] and
/// [`crate::Error::Decode`] of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodecError(Cow<'static, str>);

impl CodecError {
    /// An error with a message, such as "a bool of 2".
    pub fn new(what: impl Into<Cow<'static, str>>) -> Self {
        Self(what.into())
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CodecError {}
