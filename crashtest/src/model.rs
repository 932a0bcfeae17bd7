//! What a database ought to hold: ordered maps by name, and the commits that change them.

use std::collections::BTreeMap;
use std::sync::Arc;

/// A value; shared, because models are copied at every crash.
pub type Bytes = Arc<[u8]>;
/// The contents of one table.
pub type Map = BTreeMap<Vec<u8>, Bytes>;

/// One change of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Sets a key.
    Put {
        /// The table's name.
        table: String,
        /// The key.
        key: Vec<u8>,
        /// Its new value.
        value: Bytes,
    },
    /// Removes a key.
    Delete {
        /// The table's name.
        table: String,
        /// The key.
        key: Vec<u8>,
    },
    /// Makes a table.
    Create(String),
    /// Drops a table.
    Drop(String),
    /// Renames a table.
    Rename {
        /// Its name until now.
        from: String,
        /// Its new name.
        to: String,
    },
}

/// Everything a database holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    /// The tables, by name.
    pub tables: BTreeMap<String, Map>,
}

impl Model {
    /// Carries out one commit. Changes of tables that are not there do nothing, as the engine refuses them.
    pub fn apply(&mut self, commit: &[Change]) {
        for change in commit {
            match change {
                Change::Put { table, key, value } => {
                    if let Some(map) = self.tables.get_mut(table) {
                        map.insert(key.clone(), value.clone());
                    }
                }
                Change::Delete { table, key } => {
                    if let Some(map) = self.tables.get_mut(table) {
                        map.remove(key);
                    }
                }
                Change::Create(name) => {
                    self.tables.entry(name.clone()).or_default();
                }
                Change::Drop(name) => {
                    self.tables.remove(name);
                }
                Change::Rename { from, to } => {
                    if let Some(map) = self.tables.remove(from) {
                        self.tables.insert(to.clone(), map);
                    }
                }
            }
        }
    }

    /// The table's contents; empty if there is no such table.
    pub fn table(&self, name: &str) -> &Map {
        static EMPTY: Map = Map::new();
        self.tables.get(name).unwrap_or(&EMPTY)
    }

    /// Entries of all tables together.
    pub fn entries(&self) -> usize {
        self.tables.values().map(Map::len).sum()
    }

    /// The first thing in which `found` is not like this model, in words.
    pub fn difference(&self, found: &Model) -> Option<String> {
        for name in self.tables.keys() {
            if !found.tables.contains_key(name) {
                return Some(format!("table {name:?} is missing"));
            }
        }
        for (name, got) in &found.tables {
            let Some(want) = self.tables.get(name) else {
                return Some(format!("table {name:?} should not be there"));
            };
            for (key, value) in want {
                match got.get(key) {
                    None => return Some(format!("{name:?}: key {} is missing", show(key))),
                    Some(other) if other != value => {
                        return Some(format!(
                            "{name:?}: key {} has {} instead of {}",
                            show(key),
                            show(other),
                            show(value)
                        ));
                    }
                    Some(_) => {}
                }
            }
            if let Some(key) = got.keys().find(|key| !want.contains_key(*key)) {
                return Some(format!("{name:?}: key {} should not be there", show(key)));
            }
        }
        None
    }
}

/// Bytes for a message: a beginning of them, and how many there are.
pub fn show(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(24)];
    let rest = if bytes.len() > head.len() { "..." } else { "" };
    format!("\"{}{rest}\" ({} bytes)", head.escape_ascii(), bytes.len())
}
