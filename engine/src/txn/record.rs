//! What the engine writes into the log: the payloads of its records.
//!
//! Records are logical: they name a table and a key, never a page, and say what the key's value is
//! afterwards, never how it came about. Repeating a record that is in the pages already therefore changes
//! nothing, which is what lets replay begin at any position at or before the oldest commit that may be
//! missing.
//!
//! | kind | name | payload |
//! |---|---|---|
//! | 1 | writes | time u64, then writes to the end: a whole commit |
//! | 2 | fragment | transaction u64, then a piece of the byte string of its writes, cut anywhere |
//! | 3 | commit | transaction u64, fragments u32, bytes u64, time u64: commits the fragments |
//! | 4 | create table | time u64, table u32, name to the end |
//! | 5 | drop table | time u64, table u32 |
//! | 6 | rename table | time u64, table u32, new name to the end |
//!
//! A *time* is the wall clock in milliseconds since 1970. A *transaction* is the LSN of its first fragment;
//! the first fragment itself carries 0 there, because its LSN is not known before it is appended. The commit
//! record says how many fragments and how many bytes of writes belong to the transaction, so that a missing
//! one is noticed.
//!
//! One write:
//!
//! | size | field | meaning |
//! |---|---|---|
//! | 1 | kind | 1 put, 2 delete |
//! | 4 | table | number of the table |
//! | 1 to 3 | key length | LEB128 |
//! | 1 to 5 | value length | LEB128, puts only |
//! | | key | |
//! | | value | puts only |
//!
//! All integers are little-endian.

use std::fmt;

/// Kind byte of a record that holds a whole commit.
pub(crate) const WRITES: u8 = 1;
/// Kind byte of a piece of a large commit.
pub(crate) const FRAGMENT: u8 = 2;
/// Kind byte of the record that commits fragments.
pub(crate) const COMMIT: u8 = 3;
/// Kind byte of the making of a table.
pub(crate) const CREATE_TABLE: u8 = 4;
/// Kind byte of the dropping of a table.
pub(crate) const DROP_TABLE: u8 = 5;
/// Kind byte of the renaming of a table.
pub(crate) const RENAME_TABLE: u8 = 6;

const PUT: u8 = 1;
const DELETE: u8 = 2;

/// Most bytes a write has in front of its key.
pub(crate) const WRITE_HEADER_MAX: usize = 1 + 4 + 3 + 5;
/// Bytes in front of the writes of a [`WRITES`] record.
pub(crate) const WRITES_HEADER: usize = 8;
/// Bytes in front of the piece in a [`FRAGMENT`] record.
pub(crate) const FRAGMENT_HEADER: usize = 8;
/// Bytes of a [`COMMIT`] record.
pub(crate) const COMMIT_BYTES: usize = 8 + 4 + 8 + 8;
/// A record whose checksum is right but whose content makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadRecord {
    /// Byte offset in the payload (or in the byte string of a transaction's writes).
    pub(crate) at: u64,
    /// Expected and found.
    pub(crate) what: String,
}

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {} of the payload: {}", self.at, self.what)
    }
}

fn bad<T>(at: usize, what: impl Into<String>) -> Result<T, BadRecord> {
    Err(BadRecord { at: at as u64, what: what.into() })
}

/// The front of a write, encoded: everything before the key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WriteHeader {
    bytes: [u8; WRITE_HEADER_MAX],
    len: u8,
}

impl WriteHeader {
    /// The header of a put.
    pub(crate) fn put(table: u32, key_len: usize, value_len: u64) -> Self {
        let mut header = Self::begin(PUT, table, key_len);
        header.varint(value_len);
        header
    }

    /// The header of a delete.
    pub(crate) fn delete(table: u32, key_len: usize) -> Self {
        Self::begin(DELETE, table, key_len)
    }

    fn begin(kind: u8, table: u32, key_len: usize) -> Self {
        let mut bytes = [0; WRITE_HEADER_MAX];
        bytes[0] = kind;
        bytes[1..5].copy_from_slice(&table.to_le_bytes());
        let mut header = Self { bytes, len: 5 };
        header.varint(key_len as u64);
        header
    }

    fn varint(&mut self, mut n: u64) {
        loop {
            let low = (n & 0x7f) as u8;
            n >>= 7;
            self.bytes[usize::from(self.len)] = low | if n > 0 { 0x80 } else { 0 };
            self.len += 1;
            if n == 0 {
                return;
            }
        }
    }

    /// The encoded bytes.
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// The front of a write, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WriteFront {
    pub(crate) table: u32,
    pub(crate) key_len: usize,
    /// Length of the value; `None` is a delete.
    pub(crate) value_len: Option<u64>,
    /// Bytes of the front itself.
    pub(crate) len: usize,
}

impl WriteFront {
    /// Decodes the front of a write from the beginning of `bytes`. `Ok(None)`: there are too few bytes to
    /// tell. `at` is their offset, for messages.
    pub(crate) fn decode(bytes: &[u8], at: usize) -> Result<Option<Self>, BadRecord> {
        let Some((&kind, rest)) = bytes.split_first() else { return Ok(None) };
        if kind != PUT && kind != DELETE {
            return bad(at, format!("expected a write of kind {PUT} or {DELETE}, found {kind}"));
        }
        let Some((table, mut rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let table = u32::from_le_bytes(*table);
        let mut len = 5;
        let Some(key_len) = varint(&mut rest, &mut len, 3, at)? else { return Ok(None) };
        let value_len = if kind == PUT {
            let Some(n) = varint(&mut rest, &mut len, 5, at)? else { return Ok(None) };
            Some(n)
        } else {
            None
        };
        Ok(Some(Self { table, key_len: key_len as usize, value_len, len }))
    }
}

/// A LEB128 number of at most `max` bytes from the front of `bytes`, which is moved on, as is `len`.
fn varint(bytes: &mut &[u8], len: &mut usize, max: usize, at: usize) -> Result<Option<u64>, BadRecord> {
    let mut n = 0u64;
    for i in 0..max {
        let Some((&byte, rest)) = bytes.split_first() else { return Ok(None) };
        *bytes = rest;
        *len += 1;
        n |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(Some(n));
        }
    }
    bad(at + *len, format!("a length of more than {max} bytes"))
}

/// A write, decoded in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogWrite<'a> {
    pub(crate) table: u32,
    pub(crate) key: &'a [u8],
    /// `None` is a delete.
    pub(crate) value: Option<&'a [u8]>,
}

/// The writes of a [`WRITES`] record one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Writes<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Writes<'a> {
    /// The next write; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<LogWrite<'a>>, BadRecord> {
        let rest = &self.bytes[self.at..];
        if rest.is_empty() {
            return Ok(None);
        }
        let at = WRITES_HEADER + self.at;
        let Some(front) = WriteFront::decode(rest, at)? else {
            return bad(at, "the last write is cut off");
        };
        let body = &rest[front.len..];
        let value_len = front.value_len.unwrap_or(0);
        let Some(end) = usize::try_from(value_len).ok().and_then(|n| n.checked_add(front.key_len)) else {
            return bad(at, format!("a value of {value_len} bytes"));
        };
        if end > body.len() {
            return bad(at, format!("a write of {end} bytes where {} are left", body.len()));
        }
        let (key, value) = body[..end].split_at(front.key_len);
        self.at += front.len + end;
        Ok(Some(LogWrite { table: front.table, key, value: front.value_len.map(|_| value) }))
    }
}

/// A record, decoded.
#[derive(Debug, Clone)]
pub(crate) enum Body<'a> {
    Writes { unix_ms: u64, writes: Writes<'a> },
    Fragment { transaction: u64, piece: &'a [u8] },
    Commit { transaction: u64, fragments: u32, bytes: u64, unix_ms: u64 },
    CreateTable { unix_ms: u64, table: u32, name: &'a str },
    DropTable { unix_ms: u64, table: u32 },
    RenameTable { unix_ms: u64, table: u32, name: &'a str },
}

/// Reads fixed fields off the front of a payload.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], BadRecord> {
        match self.bytes[self.at..].first_chunk::<N>() {
            Some(chunk) => {
                self.at += N;
                Ok(*chunk)
            }
            None => bad(self.at, format!("{N} bytes expected, {} left", self.bytes.len() - self.at)),
        }
    }

    fn u64(&mut self) -> Result<u64, BadRecord> {
        self.take().map(u64::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, BadRecord> {
        self.take().map(u32::from_le_bytes)
    }

    fn rest(self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    fn name(self) -> Result<&'a str, BadRecord> {
        let at = self.at;
        std::str::from_utf8(self.rest())
            .or_else(|e| bad(at + e.valid_up_to(), "a table name that is not UTF-8"))
    }

    fn end(self) -> Result<(), BadRecord> {
        let (at, left) = (self.at, self.bytes.len() - self.at);
        if left == 0 { Ok(()) } else { bad(at, format!("{left} bytes too many")) }
    }
}

impl<'a> Body<'a> {
    /// Takes the payload of a record of `kind` apart. Nothing in it is trusted.
    pub(crate) fn decode(kind: u8, payload: &'a [u8]) -> Result<Self, BadRecord> {
        let mut f = Fields { bytes: payload, at: 0 };
        Ok(match kind {
            WRITES => {
                let unix_ms = f.u64()?;
                Body::Writes { unix_ms, writes: Writes { bytes: f.rest(), at: 0 } }
            }
            FRAGMENT => {
                let transaction = f.u64()?;
                Body::Fragment { transaction, piece: f.rest() }
            }
            COMMIT => {
                let (transaction, fragments) = (f.u64()?, f.u32()?);
                let (bytes, unix_ms) = (f.u64()?, f.u64()?);
                f.end()?;
                Body::Commit { transaction, fragments, bytes, unix_ms }
            }
            CREATE_TABLE => {
                let (unix_ms, table) = (f.u64()?, f.u32()?);
                Body::CreateTable { unix_ms, table, name: f.name()? }
            }
            DROP_TABLE => {
                let (unix_ms, table) = (f.u64()?, f.u32()?);
                f.end()?;
                Body::DropTable { unix_ms, table }
            }
            RENAME_TABLE => {
                let (unix_ms, table) = (f.u64()?, f.u32()?);
                Body::RenameTable { unix_ms, table, name: f.name()? }
            }
            other => return bad(0, format!("a record of kind {other}, which this version does not know")),
        })
    }
}

/// The payload of a [`COMMIT`] record.
pub(crate) fn commit(transaction: u64, fragments: u32, bytes: u64, unix_ms: u64) -> [u8; COMMIT_BYTES] {
    let mut out = [0; COMMIT_BYTES];
    out[0..8].copy_from_slice(&transaction.to_le_bytes());
    out[8..12].copy_from_slice(&fragments.to_le_bytes());
    out[12..20].copy_from_slice(&bytes.to_le_bytes());
    out[20..28].copy_from_slice(&unix_ms.to_le_bytes());
    out
}

/// The fixed front of a record about a table; a name may follow it.
pub(crate) fn table_record(unix_ms: u64, table: u32) -> [u8; 12] {
    let mut out = [0; 12];
    out[0..8].copy_from_slice(&unix_ms.to_le_bytes());
    out[8..12].copy_from_slice(&table.to_le_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Longest key a write can carry; page sizes allow far less.
    const KEY_LEN_MAX: usize = (1 << 21) - 1;

    type Op = (u32, Vec<u8>, Option<Vec<u8>>);

    fn encode(ops: &[Op], unix_ms: u64) -> Vec<u8> {
        let mut out = unix_ms.to_le_bytes().to_vec();
        for (table, key, value) in ops {
            match value {
                Some(value) => {
                    out.extend_from_slice(WriteHeader::put(*table, key.len(), value.len() as u64).as_slice());
                    out.extend_from_slice(key);
                    out.extend_from_slice(value);
                }
                None => {
                    out.extend_from_slice(WriteHeader::delete(*table, key.len()).as_slice());
                    out.extend_from_slice(key);
                }
            }
        }
        out
    }

    fn read_all(bytes: &[u8]) -> Result<(), BadRecord> {
        for kind in 0..=7 {
            if let Body::Writes { mut writes, .. } = Body::decode(kind, bytes)? {
                while writes.next()?.is_some() {}
            }
        }
        Ok(())
    }

    #[test]
    fn headers_have_room_for_the_greatest_lengths() {
        let header = WriteHeader::put(u32::MAX, KEY_LEN_MAX, 1 << 30);
        assert!(header.as_slice().len() <= WRITE_HEADER_MAX);
        let front = WriteFront::decode(header.as_slice(), 0).unwrap().unwrap();
        assert_eq!((front.table, front.key_len, front.value_len), (u32::MAX, KEY_LEN_MAX, Some(1 << 30)));
    }

    #[test]
    fn other_records_come_back() {
        let payload = commit(1, 2, 3, 4);
        let Body::Commit { transaction: 1, fragments: 2, bytes: 3, unix_ms: 4 } =
            Body::decode(COMMIT, &payload).unwrap()
        else {
            panic!("{:?}", Body::decode(COMMIT, &payload))
        };
        let mut payload = table_record(9, 7).to_vec();
        assert!(matches!(Body::decode(DROP_TABLE, &payload), Ok(Body::DropTable { unix_ms: 9, table: 7 })));
        payload.extend_from_slice("städte".as_bytes());
        assert!(Body::decode(DROP_TABLE, &payload).is_err());
        assert!(matches!(
            Body::decode(CREATE_TABLE, &payload),
            Ok(Body::CreateTable { unix_ms: 9, table: 7, name: "städte" })
        ));
        assert!(Body::decode(RENAME_TABLE, &payload[..payload.len() - 1]).is_ok());
        assert!(Body::decode(CREATE_TABLE, &payload[..15]).is_err(), "cut inside a character");
    }

    proptest! {
        #[test]
        fn writes_come_back(ops in proptest::collection::vec(
            (any::<u32>(), proptest::collection::vec(any::<u8>(), 0..300),
             proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300))), 0..20)) {
            let payload = encode(&ops, 77);
            let Body::Writes { unix_ms, mut writes } = Body::decode(WRITES, &payload).unwrap() else { unreachable!() };
            prop_assert_eq!(unix_ms, 77);
            for (table, key, value) in &ops {
                let write = writes.next().unwrap().unwrap();
                prop_assert_eq!(write, LogWrite { table: *table, key, value: value.as_deref() });
            }
            prop_assert!(writes.next().unwrap().is_none());
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_all(&bytes);
            for kind in 0..=255 {
                if let Ok(Body::Writes { mut writes, .. }) = Body::decode(kind, &bytes) {
                    while let Ok(Some(_)) = writes.next() {}
                }
            }
        }

        #[test]
        fn a_cut_record_is_refused_or_shorter(cut in 0usize..1000) {
            let ops = vec![(1, vec![1; 10], Some(vec![2; 200])), (2, vec![3; 5], None)];
            let whole = encode(&ops, 1);
            let bytes = &whole[..cut % whole.len()];
            if let Ok(Body::Writes { mut writes, .. }) = Body::decode(WRITES, bytes) {
                let mut n = 0;
                while let Ok(Some(_)) = writes.next() { n += 1; }
                prop_assert!(n < 2);
            }
        }
    }
}
