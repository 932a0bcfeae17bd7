//! Reading records out of files: what becomes a key, what becomes a value, and what is skipped and why.

mod delimited;
mod jsonl;

use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;

pub(crate) use delimited::Delimited;
pub(crate) use jsonl::JsonLines;

use crate::failure::Failure;

/// How a file lays out its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Comma-separated values with a header line, quoted as RFC 4180 says
    Csv,
    /// Tab-separated values with a header line; quotes are ordinary characters
    Tsv,
    /// One JSON document on each line
    Jsonl,
}

/// A record: what `load` puts into the table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Its place in the file, from 1; records that are skipped count.
    pub(crate) number: u64,
    /// The line it begins on, from 1.
    pub(crate) line: u64,
    /// Its key.
    pub(crate) key: Vec<u8>,
    /// The record as JSON.
    pub(crate) value: Vec<u8>,
}

/// A record that cannot be loaded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Skipped {
    /// The line it begins on, from 1.
    pub(crate) line: u64,
    /// The kind of reason, the same words for every record skipped for it.
    pub(crate) reason: &'static str,
    /// What exactly, where the reason alone does not say it; else empty.
    pub(crate) detail: String,
}

/// The next thing in a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// A record.
    Record(Record),
    /// Something that is none.
    Skipped(Skipped),
}

/// A file of records.
pub(crate) trait Records {
    /// The next record, or why it is skipped; `None` at the end of the file. Fails when the file cannot be read any
    /// further.
    fn next_item(&mut self) -> Result<Option<Item>, Failure>;
}

/// Opens `input`, which messages call `name`, as records of `format` with their keys in column `key`.
pub(crate) fn open<'a>(
    input: impl Read + 'a,
    name: &Path,
    format: Format,
    key: Option<&str>,
) -> Result<Box<dyn Records + 'a>, Failure> {
    Ok(match format {
        Format::Csv => Box::new(Delimited::csv(input, name, key)?),
        Format::Tsv => Box::new(Delimited::tsv(input, name, key)?),
        Format::Jsonl => Box::new(JsonLines::new(input, name, key)),
    })
}

/// The format that a file's name tells.
pub(crate) fn format_of(path: &Path) -> Result<Format, Failure> {
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or("").to_ascii_lowercase();
    match extension.as_str() {
        "csv" => Ok(Format::Csv),
        "tsv" | "tab" => Ok(Format::Tsv),
        "jsonl" | "ndjson" => Ok(Format::Jsonl),
        "gz" | "zst" | "xz" | "bz2" => Err(Failure::Usage(format!(
            "{} is compressed; unpack it on the way, for example: gunzip -c {0} | bedstone load DB TABLE - --format jsonl",
            path.display()
        ))),
        _ => Err(Failure::Usage(format!(
            "the name {} does not tell the format; say --format csv, tsv or jsonl",
            path.display()
        ))),
    }
}

/// The key of a record that has no key column: its number in 12 decimal digits, so that the order of keys is the
/// order of the file and a key can be typed.
pub(crate) fn number_key(number: u64) -> Vec<u8> {
    format!("{number:012}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Key and value, or line and reason.
    type Seen = Result<(String, String), (u64, &'static str)>;

    /// Keys and values of a file, or the line and reason of what is skipped.
    pub(super) fn all(mut records: impl Records) -> Vec<Seen> {
        let mut all = Vec::new();
        while let Some(item) = records.next_item().unwrap() {
            all.push(match item {
                Item::Record(r) => {
                    Ok((String::from_utf8(r.key).unwrap(), String::from_utf8(r.value).unwrap()))
                }
                Item::Skipped(s) => Err((s.line, s.reason)),
            });
        }
        assert!(records.next_item().unwrap().is_none(), "the end is final");
        all
    }

    #[test]
    fn names_tell_formats() {
        assert_eq!(format_of(Path::new("a/b.CSV")).unwrap(), Format::Csv);
        assert_eq!(format_of(Path::new("b.ndjson")).unwrap(), Format::Jsonl);
        for (name, word) in [("cities.jsonl.gz", "gunzip"), ("b.txt", "--format"), ("-", "--format")] {
            let e = format_of(Path::new(name)).unwrap_err();
            assert!(e.to_string().contains(word), "{e}");
            assert_eq!(e.exit_code(), crate::failure::USAGE);
        }
    }

    #[test]
    fn number_keys_are_in_order() {
        assert_eq!(number_key(7), b"000000000007");
        assert!(number_key(9) < number_key(10));
        assert!(number_key(99_999_999_999) < number_key(100_000_000_000));
    }
}
