//! Records between delimiters, with the names of their columns in the first line.

use std::io::Read;
use std::path::{Path, PathBuf};

use csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder};
use serde_json::{Map, Value as Json};

use super::{Item, Record, Records, Skipped, number_key};
use crate::failure::Failure;

/// A file of comma- or tab-separated values. A record's value is a JSON object of strings with the columns in the
/// file's order; nothing is guessed about types.
pub(crate) struct Delimited<R> {
    reader: Reader<R>,
    path: PathBuf,
    columns: Vec<String>,
    /// Index of the key column.
    key: Option<usize>,
    number: u64,
    record: ByteRecord,
}

impl<R: Read> Delimited<R> {
    /// Comma-separated values, quoted as RFC 4180 says. Fails on a header in which `key` is missing or a name
    /// appears twice.
    pub(crate) fn csv(input: R, path: &Path, key: Option<&str>) -> Result<Self, Failure> {
        Self::new(ReaderBuilder::new().from_reader(input), path, key)
    }

    /// Tab-separated values without any quoting. Fails as [`Delimited::csv`] does.
    pub(crate) fn tsv(input: R, path: &Path, key: Option<&str>) -> Result<Self, Failure> {
        Self::new(ReaderBuilder::new().delimiter(b'\t').quoting(false).from_reader(input), path, key)
    }

    fn new(mut reader: Reader<R>, path: &Path, key: Option<&str>) -> Result<Self, Failure> {
        let header = reader.byte_headers().map_err(|e| failure(path, e))?;
        let columns = header
            .iter()
            .map(|name| String::from_utf8(name.to_vec()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| Failure::Usage(format!("the header of {} is not UTF-8", path.display())))?;
        if let Some(twice) =
            columns.iter().enumerate().find_map(|(i, c)| columns[..i].contains(c).then_some(c))
        {
            return Err(Failure::Usage(format!(
                "column {twice:?} appears twice in the header of {}",
                path.display()
            )));
        }
        let key = match key {
            None => None,
            Some(name) => Some(columns.iter().position(|c| c == name).ok_or_else(|| {
                Failure::Usage(format!(
                    "{} has no column {name:?}; its columns are {}",
                    path.display(),
                    columns.join(", ")
                ))
            })?),
        };
        Ok(Self { reader, path: path.into(), columns, key, number: 0, record: ByteRecord::new() })
    }

    /// What to make of the record just read, which begins on `line`.
    fn item(&self, line: u64) -> Item {
        let skip = |reason, detail| Item::Skipped(Skipped { line, reason, detail });
        let mut object = Map::with_capacity(self.columns.len());
        for (column, field) in self.columns.iter().zip(&self.record) {
            let Ok(text) = std::str::from_utf8(field) else {
                return skip("not UTF-8", format!("column {column:?}"));
            };
            object.insert(column.clone(), text.into());
        }
        let key = match self.key {
            None => number_key(self.number),
            Some(index) => match self.record.get(index) {
                None | Some([]) => {
                    return skip("no key", format!("column {:?} is empty", self.columns[index]));
                }
                Some(field) => field.to_vec(),
            },
        };
        Item::Record(Record {
            number: self.number,
            line,
            key,
            value: Json::Object(object).to_string().into_bytes(),
        })
    }
}

impl<R: Read> Records for Delimited<R> {
    fn next_item(&mut self) -> Result<Option<Item>, Failure> {
        match self.reader.read_byte_record(&mut self.record) {
            Ok(false) => Ok(None),
            Ok(true) => {
                self.number += 1;
                let line = self.record.position().map_or(0, csv::Position::line);
                Ok(Some(self.item(line)))
            }
            Err(e) => match e.kind() {
                ErrorKind::UnequalLengths { pos, expected_len, len } => {
                    self.number += 1;
                    Ok(Some(Item::Skipped(Skipped {
                        line: pos.as_ref().map_or(0, csv::Position::line),
                        reason: "wrong number of fields",
                        detail: format!("{len} fields, the header has {expected_len}"),
                    })))
                }
                _ => Err(failure(&self.path, e)),
            },
        }
    }
}

fn failure(path: &Path, e: csv::Error) -> Failure {
    Failure::Input { path: path.into(), source: e.into() }
}

#[cfg(test)]
mod tests {
    use super::super::tests::all;
    use super::*;

    fn csv<'a>(text: &'a str, key: Option<&str>) -> Result<Delimited<&'a [u8]>, Failure> {
        Delimited::csv(text.as_bytes(), Path::new("t.csv"), key)
    }

    #[test]
    fn records_become_objects_in_the_order_of_the_columns() {
        let text = "z,name\r\n1,\"Lausanne, VD\"\r\n2,\"two\nlines, \"\"quoted\"\"\"\r\n";
        let expected = vec![
            Ok(("1".into(), r#"{"z":"1","name":"Lausanne, VD"}"#.into())),
            Ok(("2".into(), r#"{"z":"2","name":"two\nlines, \"quoted\""}"#.into())),
        ];
        assert_eq!(all(csv(text, Some("z")).unwrap()), expected);
    }

    #[test]
    fn what_is_skipped_counts_and_the_rest_is_read() {
        let text = "k,v\na,1\n,2\nb\n\nc,\"x\ny\"\nd,4,5\ne,6\n";
        let expected = vec![
            Ok(("a".into(), r#"{"k":"a","v":"1"}"#.into())),
            Err((3, "no key")),
            Err((4, "wrong number of fields")),
            Ok(("c".into(), r#"{"k":"c","v":"x\ny"}"#.into())),
            Err((8, "wrong number of fields")),
            Ok(("e".into(), r#"{"k":"e","v":"6"}"#.into())),
        ];
        assert_eq!(all(csv(text, Some("k")).unwrap()), expected);
        let keys: Vec<_> = all(csv(text, None).unwrap()).into_iter().flatten().map(|(key, _)| key).collect();
        assert_eq!(keys, ["000000000001", "000000000002", "000000000004", "000000000006"]);
    }

    #[test]
    fn bytes_that_are_no_text_are_skipped() {
        let records = Delimited::csv(&b"k,v\na,\xff\nb,2\n"[..], Path::new("t"), Some("k")).unwrap();
        assert_eq!(all(records), [Err((2, "not UTF-8")), Ok(("b".into(), r#"{"k":"b","v":"2"}"#.into()))]);
    }

    #[test]
    fn tabs_without_quotes() {
        let records = Delimited::tsv(&b"k\tv\na\t\"5\" tall\n"[..], Path::new("t"), Some("k")).unwrap();
        assert_eq!(all(records), [Ok(("a".into(), r#"{"k":"a","v":"\"5\" tall"}"#.into()))]);
    }

    #[test]
    fn headers_that_cannot_be_used() {
        let e = csv("a,b\n1,2\n", Some("c")).err().unwrap();
        assert!(e.to_string().contains("a, b"), "{e}");
        assert!(csv("a,a\n1,2\n", None).is_err());
        assert!(all(csv("", None).unwrap()).is_empty());
        assert!(csv("", Some("a")).is_err());
        assert_eq!(
            all(csv("\u{feff}a\n1\n", Some("a")).unwrap()).len(),
            1,
            "a byte order mark is no part of a name"
        );
    }
}
