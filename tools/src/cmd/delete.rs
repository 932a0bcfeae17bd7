//! `bedstone delete`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use crate::cli::{Global, KeyForm};
use crate::failure::{Answer, Failure};
use crate::{bytes, store};

/// Remove a key
///
/// Exits with 1 when the key was absent already.
#[derive(Args)]
#[command(after_help = "Example:\n  bedstone delete places.bed airports LSZH")]
pub(crate) struct Delete {
    /// Directory of the database
    db: PathBuf,
    /// Name of the table
    table: String,
    /// The key
    key: OsString,
    #[command(flatten)]
    form: KeyForm,
}

impl Delete {
    pub(crate) fn run(&self, global: &Global) -> Result<Answer, Failure> {
        let key = bytes::parse(&self.key, self.form.hex_keys)?;
        let db = store::open(global, &self.db)?;
        let removed = store::table(&db, &self.table).and_then(|table| Ok(table.delete(&key)?));
        store::close(db, removed.map(|was_there| if was_there { Answer::Yes } else { Answer::No }))
    }
}
