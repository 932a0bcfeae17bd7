//! Checking a whole database: every page, every chain, every unit of space.

use crate::stats::TableStats;

/// Something found wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The table, if it is one's.
    pub table: Option<String>,
    /// The page, if it is one.
    pub page: Option<u32>,
    /// What is wrong.
    pub what: String,
}

/// What the check found in one table.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TableCheck {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: u32,
    /// Its shape.
    pub stats: TableStats,
}

/// What the check found.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct CheckReport {
    /// Everything wrong; empty when all is well.
    pub problems: Vec<Problem>,
    /// Every table that could be walked.
    pub tables: Vec<TableCheck>,
    /// Pages in use.
    pub pages: u64,
    /// Bytes of the data file.
    pub file_bytes: u64,
    /// Bytes of it that nothing uses.
    pub free_bytes: u64,
}

impl CheckReport {
    /// Nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }
}
