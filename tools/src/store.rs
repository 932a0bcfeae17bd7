//! Opening databases for commands.

use std::path::Path;

use bedstone::{Builder, Database, IoChoice, Table};

use crate::cli::Global;
use crate::failure::Failure;

/// The options that the command line and the environment give.
pub(crate) fn builder(global: &Global) -> Result<Builder, Failure> {
    let pool_bytes = global
        .pool_mib
        .checked_mul(1 << 20)
        .ok_or_else(|| Failure::Usage(format!("--pool-mib {} is more than there can be", global.pool_mib)))?;
    let io = IoChoice::from_env().map_err(|e| Failure::Cannot(e.to_string()))?;
    Ok(Database::builder().pool_bytes(pool_bytes).allow_buffered(global.allow_buffered).io(io))
}

/// Opens a database that must exist.
pub(crate) fn open(global: &Global, path: &Path) -> Result<Database, Failure> {
    Ok(builder(global)?.open(path)?)
}

/// A table that must exist.
pub(crate) fn table(db: &Database, name: &str) -> Result<Table, Failure> {
    if let Some(table) = db.open_table(name)? {
        return Ok(table);
    }
    let names: Vec<_> = db.tables()?.into_iter().map(|table| format!("{:?}", table.name)).collect();
    let there =
        if names.is_empty() { "it has none".to_owned() } else { format!("there are {}", names.join(", ")) };
    Err(Failure::Cannot(format!("{} has no table {name:?}; {there}", db.path().display())))
}

/// Ends a command that used the database: closes it, so that the next opening has nothing to replay. What the
/// command found out stands; when that was a failure, it is what gets reported.
pub(crate) fn close<T>(db: Database, result: Result<T, Failure>) -> Result<T, Failure> {
    let closed = db.close();
    let found = result?;
    closed?;
    Ok(found)
}
