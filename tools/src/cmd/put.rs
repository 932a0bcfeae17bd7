//! `bedstone put`.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bedstone::Table;
use clap::Args;

use crate::cli::{Global, KeyForm};
use crate::failure::{Answer, Failure};
use crate::{bytes, store};

/// Set the value of a key
///
/// Makes the database and the table if they are not there. When the command has ended with 0, the value is on the
/// medium.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    bedstone put places.bed notes today 'clear, wind from the west'\n  \
    bedstone put places.bed pictures LSZH --file zurich.jpg\n  \
    bedstone put places.bed raw 0x0001 0xcafe --hex-keys --hex-value")]
pub(crate) struct Put {
    /// Directory of the database
    db: PathBuf,
    /// Name of the table
    table: String,
    /// The key
    key: OsString,
    /// The value
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    value: Option<OsString>,
    /// Take the value from a file; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "hex_value")]
    file: Option<PathBuf>,
    /// The value on the command line is hexadecimal
    #[arg(long)]
    hex_value: bool,
    #[command(flatten)]
    form: KeyForm,
}

impl Put {
    pub(crate) fn run(&self, global: &Global) -> Result<Answer, Failure> {
        let key = bytes::parse(&self.key, self.form.hex_keys)?;
        let value = self.value.as_deref().map(|value| bytes::parse(value, self.hex_value)).transpose()?;
        let db = store::builder(global)?.open_or_create(&self.db)?;
        let put = || {
            let table = db.table(&self.table)?;
            match (&value, &self.file) {
                (Some(value), _) => Ok(table.put(&key, value)?),
                (None, Some(file)) => put_file(&table, &key, file),
                (None, None) => Err(Failure::Usage("neither VALUE nor --file was given".into())),
            }
        };
        let done = put().map(|()| Answer::Yes);
        store::close(db, done)
    }
}

/// Puts what a file holds; piece by piece if its length is known.
fn put_file(table: &Table, key: &[u8], path: &Path) -> Result<(), Failure> {
    let input = |source| Failure::Input { path: path.into(), source };
    if path == Path::new("-") {
        let limit = table.database().limits().max_value_bytes;
        let mut value = Vec::new();
        io::stdin().lock().take(limit.saturating_add(1)).read_to_end(&mut value).map_err(input)?;
        return Ok(table.put(key, value)?);
    }
    let file = File::open(path).map_err(input)?;
    let meta = file.metadata().map_err(input)?;
    if meta.is_file() {
        return Ok(table.put_reader(key, meta.len(), file)?);
    }
    Err(Failure::Usage(format!("{} is no regular file; pipe it in with --file -", path.display())))
}
