//! `bedstone get`.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bedstone::Table;
use clap::Args;

use crate::cli::{Global, KeyForm};
use crate::failure::{Answer, Failure};
use crate::out::Out;
use crate::{bytes, store};

/// Print the value of a key
///
/// The value's bytes go to standard output as they are, with nothing added. Exits with 1 and prints nothing when the
/// key is absent.
#[derive(Args)]
#[command(after_help = "Example:\n  bedstone get places.bed airports LSZH | jq .name")]
pub(crate) struct Get {
    /// Directory of the database
    db: PathBuf,
    /// Name of the table
    table: String,
    /// The key
    key: OsString,
    #[command(flatten)]
    form: KeyForm,
}

impl Get {
    pub(crate) fn run(&self, global: &Global) -> Result<Answer, Failure> {
        let key = bytes::parse(&self.key, self.form.hex_keys)?;
        let db = store::open(global, &self.db)?;
        let answer = store::table(&db, &self.table).and_then(|table| print_value(&table, &key, &self.db));
        store::close(db, answer)
    }
}

/// Copies a value to standard output piece by piece, since it may be longer than the memory.
fn print_value(table: &Table, key: &[u8], db: &Path) -> Result<Answer, Failure> {
    let Some(mut value) = table.value_reader(key)? else { return Ok(Answer::No) };
    let mut out = Out::new();
    let mut piece = vec![0; 256 << 10];
    loop {
        match value.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => out.bytes(&piece[..n])?,
            Err(e) => return Err(reading_failed(e, db)),
        }
    }
    out.finish()?;
    Ok(Answer::Yes)
}

/// The engine's own error, which came wrapped in one of I/O.
fn reading_failed(e: io::Error, db: &Path) -> Failure {
    match e.downcast::<bedstone::Error>() {
        Ok(e) => e.into(),
        Err(source) => Failure::Input { path: db.into(), source },
    }
}
