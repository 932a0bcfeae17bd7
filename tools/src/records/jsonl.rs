//! One JSON document on each line.

use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::{Item, Record, Records, Skipped, number_key};
use crate::failure::Failure;

/// Longer lines are skipped, so that a file without line ends does not fill the memory.
const LINE_BYTES_MAX: usize = 64 << 20;

/// A file of JSON lines. A record's value is its line as it stands, without the white space around it. Blank lines
/// are no records.
pub(crate) struct JsonLines<R> {
    input: BufReader<R>,
    path: PathBuf,
    /// Name of the key column.
    key: Option<String>,
    number: u64,
    line: u64,
    line_bytes_max: usize,
    buffer: Vec<u8>,
}

/// What reading one line came to.
enum Line {
    /// There is none.
    End,
    /// It is in the buffer, without its line end.
    Whole,
    /// It was longer than the limit and has been passed over.
    TooLong,
}

impl<R: Read> JsonLines<R> {
    /// The lines of `input`, which messages call `path`, with their keys in the member `key` of each object.
    pub(crate) fn new(input: R, path: &Path, key: Option<&str>) -> Self {
        Self {
            input: BufReader::with_capacity(256 << 10, input),
            path: path.into(),
            key: key.map(str::to_owned),
            number: 0,
            line: 0,
            line_bytes_max: LINE_BYTES_MAX,
            buffer: Vec::new(),
        }
    }

    fn read_line(&mut self) -> io::Result<Line> {
        self.buffer.clear();
        // One byte more than allowed, for the line end.
        let limit = self.line_bytes_max as u64 + 1;
        if self.input.by_ref().take(limit).read_until(b'\n', &mut self.buffer)? == 0 {
            return Ok(Line::End);
        }
        if self.buffer.last() == Some(&b'\n') {
            self.buffer.pop();
            return Ok(Line::Whole);
        }
        if self.buffer.len() <= self.line_bytes_max {
            return Ok(Line::Whole);
        }
        self.buffer.clear();
        self.input.skip_until(b'\n')?;
        Ok(Line::TooLong)
    }

    /// What to make of the text of a line.
    fn item(&self, text: &[u8]) -> Item {
        let skip = |reason, detail| Item::Skipped(Skipped { line: self.line, reason, detail });
        let document = match serde_json::from_slice::<Json>(text) {
            Ok(document) => document,
            Err(e) => return skip("not JSON", e.to_string()),
        };
        let key = match &self.key {
            None => number_key(self.number),
            Some(column) => {
                let Json::Object(object) = document else {
                    return skip("not a JSON object", String::new());
                };
                match object.get(column) {
                    Some(Json::String(text)) if !text.is_empty() => text.clone().into_bytes(),
                    Some(Json::Number(number)) => number.to_string().into_bytes(),
                    Some(Json::Bool(truth)) => truth.to_string().into_bytes(),
                    Some(Json::Array(_) | Json::Object(_)) => {
                        return skip("no key", format!("{column:?} is neither text nor number"));
                    }
                    Some(Json::String(_)) => return skip("no key", format!("{column:?} is empty")),
                    Some(Json::Null) => return skip("no key", format!("{column:?} is null")),
                    None => return skip("no key", format!("there is no {column:?}")),
                }
            }
        };
        Item::Record(Record { number: self.number, line: self.line, key, value: text.to_vec() })
    }
}

impl<R: Read> Records for JsonLines<R> {
    fn next_item(&mut self) -> Result<Option<Item>, Failure> {
        loop {
            let read =
                self.read_line().map_err(|source| Failure::Input { path: self.path.clone(), source })?;
            if let Line::End = read {
                return Ok(None);
            }
            self.line += 1;
            if let Line::TooLong = read {
                self.number += 1;
                return Ok(Some(Item::Skipped(Skipped {
                    line: self.line,
                    reason: "line too long",
                    detail: format!("more than {} bytes", self.line_bytes_max),
                })));
            }
            let mut text = &self.buffer[..];
            if self.line == 1 {
                text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
            }
            let text = text.trim_ascii();
            if text.is_empty() {
                continue;
            }
            self.number += 1;
            return Ok(Some(self.item(text)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::all;
    use super::*;

    fn lines<'a>(text: &'a str, key: Option<&str>) -> JsonLines<&'a [u8]> {
        JsonLines::new(text.as_bytes(), Path::new("t.jsonl"), key)
    }

    #[test]
    fn a_line_is_kept_as_it_stands() {
        let text = "{\"k\" : \"ä\", \"n\":1.50}\r\n\n  {\"k\":17,\"n\":1e400000}  \n{\"k\":true}";
        let keyed: Vec<_> = all(lines(text, Some("k")));
        assert_eq!(keyed[0], Ok(("ä".into(), "{\"k\" : \"ä\", \"n\":1.50}".into())));
        // A number that no machine number can hold is not JSON to the reader in use, and is said to be skipped.
        assert_eq!(keyed[1], Err((3, "not JSON")));
        assert_eq!(keyed[2], Ok(("true".into(), "{\"k\":true}".into())));
    }

    #[test]
    fn what_is_skipped_counts_and_the_rest_is_read() {
        let text = "{\"k\":\"\"}\n{\n\n[1]\n{\"j\":1}\n{\"k\":null}\n{\"k\":[]}\n{\"k\":5}\n";
        let expected = vec![
            Err((1, "no key")),
            Err((2, "not JSON")),
            Err((4, "not a JSON object")),
            Err((5, "no key")),
            Err((6, "no key")),
            Err((7, "no key")),
            Ok(("5".into(), "{\"k\":5}".into())),
        ];
        assert_eq!(all(lines(text, Some("k"))), expected);
        let keys: Vec<_> = all(lines(text, None)).into_iter().flatten().map(|(key, _)| key).collect();
        assert_eq!(keys[1..3], ["000000000003", "000000000004"], "numbers count records, not lines");
    }

    #[test]
    fn long_lines_are_passed_over() {
        for (text, skipped) in
            [("[12345]\n[1]\n", 0), ("[123456]\n[1]", 1), ("[12345]", 0), ("[1234567890]", 1)]
        {
            let mut records = lines(text, None);
            records.line_bytes_max = 7;
            let items = all(records);
            assert_eq!(
                items.iter().filter(|i| **i == Err((1, "line too long"))).count(),
                skipped,
                "{text:?}"
            );
            assert_eq!(items.len(), text.lines().count());
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_skipped() {
        let records = JsonLines::new(&b"\"\xff\"\n\xef\xbb\xbf1"[..], Path::new("t"), None);
        assert_eq!(all(records), [Err((1, "not JSON")), Err((2, "not JSON"))]);
        assert_eq!(all(lines("\u{feff}1", None)), [Ok(("000000000001".into(), "1".into()))]);
    }
}
