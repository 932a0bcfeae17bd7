//! The types of typed tables, as the database remembers them.
//!
//! They lie in a table of their own, [`TYPES_TABLE`]. Key: the number of the table, as a `u32` key; so a renamed table
//! keeps its types, and a dropped one leaves none to a new table of its name. Value: the code of the tuple (version 1 as
//! a `u8`, name of the key type, name of the value type) as a key.

use super::{Key, Value, key};
use crate::db::Database;
use crate::error::{Error, Result};
use crate::table::Table;

/// The table that remembers the types of typed tables. It is a table like others, to look into or to copy, but not one
/// to open as a typed table.
pub const TYPES_TABLE: &str = "bedstone/types";

/// Version, name of the key type, name of the value type.
type Record = (u8, String, String);
const VERSION: u8 = 1;

fn asked<K: Key, V: Value>() -> (String, String) {
    (K::type_name(), V::type_name())
}

fn line((key, value): &(String, String)) -> String {
    format!("{key} -> {value}")
}

/// A typed table cannot have this name.
pub(super) fn check_name(name: &str) -> Result<()> {
    if name == TYPES_TABLE {
        let detail = "the types of typed tables lie in the table of this name";
        return Err(Error::InvalidTableName { name: name.to_owned(), detail });
    }
    Ok(())
}

/// The table has these types, or has them from now on if it has none. They are committed before this returns: in the
/// order of commits, and so in whatever survives a crash, they come before everything that is written with them.
pub(super) fn check<K: Key, V: Value>(table: &Table) -> Result<()> {
    let asked = asked::<K, V>();
    let db = table.database();
    loop {
        if let Some(stored) = stored(db, table)? {
            if stored == asked {
                return Ok(());
            }
            return Err(Error::TypeMismatch {
                table: table.name(),
                stored: line(&stored),
                asked: line(&asked),
            });
        }
        let record = key::encode::<Record>((VERSION, &asked.0, &asked.1));
        // If somebody else was faster: what he has stored counts.
        if db.table(TYPES_TABLE)?.insert_if_absent(key::encode::<u32>(table.id()), record)? {
            return Ok(());
        }
    }
}

fn stored(db: &Database, table: &Table) -> Result<Option<(String, String)>> {
    let Some(types) = db.open_table(TYPES_TABLE)? else { return Ok(None) };
    let Some(record) = types.get(key::encode::<u32>(table.id()))? else { return Ok(None) };
    let bad = |what| Error::Decode { table: TYPES_TABLE.to_owned(), what };
    match key::decode::<Record>(&record) {
        Ok((VERSION, key, value)) => Ok(Some((key, value))),
        Ok((other, ..)) => Err(bad(format!("types of table {:?} in version {other}", table.name()))),
        Err(e) => Err(bad(format!("types of table {:?}: {e}", table.name()))),
    }
}

/// Forgets the types of a table; tells whether there were any.
pub(super) fn forget(db: &Database, name: &str) -> Result<bool> {
    let Some(table) = db.open_table(name)? else {
        return Err(Error::TableNotFound { name: name.to_owned() });
    };
    match db.open_table(TYPES_TABLE)? {
        None => Ok(false),
        Some(types) => types.delete(key::encode::<u32>(table.id())),
    }
}
