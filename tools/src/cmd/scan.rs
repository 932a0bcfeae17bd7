//! `bedstone scan`.

use std::ffi::OsString;
use std::ops::Bound;
use std::path::PathBuf;

use bedstone::Table;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value as Json};

use crate::cli::{Global, KeyForm};
use crate::failure::{Answer, Failure};
use crate::out::Out;
use crate::{bytes, store};

/// How entries are printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Key, a tab, value; bytes that are no printable UTF-8 as \xNN, and \t \n \r \\ for these four
    Utf8,
    /// Key, a tab, value, both as 0x and hexadecimal digits
    Hex,
    /// A JSON object a line with "key" and "value"; "key_hex" or "value_hex" where the bytes are no UTF-8
    Json,
}

/// Print the entries of a range, in the order of their keys
///
/// Keys are ordered as bytes. --from is part of the range, --to is not.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    bedstone scan places.bed airports --prefix LSZ\n  \
    bedstone scan places.bed airports --from E --to F --limit 10 --format json\n  \
    bedstone scan places.bed airports --reverse | head -3")]
pub(crate) struct Scan {
    /// Directory of the database
    db: PathBuf,
    /// Name of the table
    table: String,
    /// Only keys that begin so
    #[arg(long, value_name = "P", conflicts_with_all = ["from", "to"])]
    prefix: Option<OsString>,
    /// Only keys from this one on
    #[arg(long, value_name = "K")]
    from: Option<OsString>,
    /// Only keys before this one
    #[arg(long, value_name = "K")]
    to: Option<OsString>,
    /// From the greatest key down
    #[arg(long)]
    reverse: bool,
    /// At most so many entries
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// How entries are printed
    #[arg(long, value_enum, default_value_t = Form::Utf8)]
    format: Form,
    #[command(flatten)]
    form: KeyForm,
}

impl Scan {
    pub(crate) fn run(&self, global: &Global) -> Result<Answer, Failure> {
        let parse = |key: &Option<OsString>| {
            key.as_deref().map(|key| bytes::parse(key, self.form.hex_keys)).transpose()
        };
        let (prefix, from, to) = (parse(&self.prefix)?, parse(&self.from)?, parse(&self.to)?);
        if let (Some(from), Some(to)) = (&from, &to)
            && from > to
        {
            return Err(Failure::Usage("--from is greater than --to: no key lies between them".into()));
        }
        let db = store::open(global, &self.db)?;
        let done = store::table(&db, &self.table).and_then(|table| self.print(&table, prefix, from, to));
        store::close(db, done.map(|()| Answer::Yes))
    }

    fn print(
        &self,
        table: &Table,
        prefix: Option<Vec<u8>>,
        from: Option<Vec<u8>>,
        to: Option<Vec<u8>>,
    ) -> Result<(), Failure> {
        let mut out = Out::new();
        let mut range = match prefix {
            Some(prefix) => table.prefix(prefix)?,
            None => {
                let lower = from.map_or(Bound::Unbounded, Bound::Included);
                let upper = to.map_or(Bound::Unbounded, Bound::Excluded);
                table.range::<Vec<u8>>((lower, upper))?
            }
        };
        for _ in 0..self.limit.unwrap_or(u64::MAX) {
            let entry = if self.reverse { range.next_back_ref()? } else { range.next_ref()? };
            let Some((key, value)) = entry else { break };
            match self.format {
                Form::Utf8 => out.line(format_args!("{}\t{}", bytes::text(key), bytes::text(value)))?,
                Form::Hex => out.line(format_args!("{}\t{}", bytes::hex(key), bytes::hex(value)))?,
                Form::Json => {
                    let mut object = Map::new();
                    bytes::put_json(&mut object, "key", key);
                    bytes::put_json(&mut object, "value", value);
                    out.json(&Json::Object(object))?;
                }
            }
        }
        out.finish()
    }
}
