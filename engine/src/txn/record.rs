//! What the engine writes into the log: the payloads of its records.
//!
//! Records are logical: they name a table and a key, never a page, and say what the key's value is
//! afterwards, never how it came about. Repeating a record that is in the pages already therefore changes
//! nothing, which is what lets replay begin at any position at or before the oldest commit that may be
//! missing.
//!
//! A commit is one *writes* record, or *fragments* of the byte string of its writes, cut anywhere, and a *commit*
//! record that makes them count. Making, dropping and renaming a table are records of their own. FORMAT.md has the
//! tables.
//!
//! A *time* is the wall clock in milliseconds since 1970. A *transaction* is the LSN of its first fragment;
//! the first fragment itself carries 0 there, because its LSN is not known before it is appended. The commit
//! record says how many fragments and how many bytes of writes belong to the transaction, so that a missing
//! one is noticed.
//!
//! A write is its kind, the table, the lengths as LEB128 numbers, the key, and for a put the value.
//!
//! All integers are little-endian.

use std::fmt;

#[cfg(test)]
use bedstone_io::layout::{Layout, Numbers, Tail};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

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

/// Front of a [`WRITES`] record.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct WritesStored {
    time: U64,
}

/// Front of a [`FRAGMENT`] record.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct FragmentStored {
    transaction: U64,
}

/// A [`COMMIT`] record.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct CommitStored {
    transaction: U64,
    fragments: U32,
    bytes: U64,
    time: U64,
}

/// The front of a record about a table.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct TableStored {
    time: U64,
    table: U32,
}

/// The front of a write, up to its lengths.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct WriteStored {
    kind: u8,
    table: U32,
}

/// Most bytes of a key's length.
const KEY_LEN_BYTES: usize = 3;
/// Most bytes of a value's length.
const VALUE_LEN_BYTES: usize = 5;

/// Most bytes a write has in front of its key.
pub(crate) const WRITE_HEADER_MAX: usize = size_of::<WriteStored>() + KEY_LEN_BYTES + VALUE_LEN_BYTES;
/// Bytes in front of the writes of a [`WRITES`] record.
pub(crate) const WRITES_HEADER: usize = size_of::<WritesStored>();
/// Bytes in front of the piece in a [`FRAGMENT`] record.
pub(crate) const FRAGMENT_HEADER: usize = size_of::<FragmentStored>();
/// Bytes of a [`COMMIT`] record.
pub(crate) const COMMIT_BYTES: usize = size_of::<CommitStored>();
/// Bytes of a record about a table, without a name.
pub(crate) const TABLE_BYTES: usize = size_of::<TableStored>();

#[cfg(test)]
pub(crate) const LAYOUTS: &[Layout] = &[
    bedstone_io::layout!("Writes", WritesStored { time => "time" }).then(&[Tail::any("writes")]),
    bedstone_io::layout!("Fragment", FragmentStored { transaction => "transaction" })
        .then(&[Tail::any("piece")]),
    bedstone_io::layout!("Commit", CommitStored {
        transaction => "transaction",
        fragments => "fragments",
        bytes => "bytes",
        time => "time",
    }),
    bedstone_io::layout!("Record about a table", TableStored { time => "time", table => "table" })
        .then(&[Tail::any("name")]),
    bedstone_io::layout!("Write", WriteStored { kind => "kind", table => "table" }).then(&[
        Tail::between("key length", 1, KEY_LEN_BYTES),
        Tail::between("value length", 1, VALUE_LEN_BYTES),
        Tail::any("key"),
        Tail::any("value"),
    ]),
];

#[cfg(test)]
pub(crate) const NUMBERS: &[Numbers] = &[
    Numbers {
        name: "Record kinds",
        entries: &[
            ("writes", WRITES as u64),
            ("fragment", FRAGMENT as u64),
            ("commit", COMMIT as u64),
            ("create table", CREATE_TABLE as u64),
            ("drop table", DROP_TABLE as u64),
            ("rename table", RENAME_TABLE as u64),
        ],
    },
    Numbers { name: "Write kinds", entries: &[("put", PUT as u64), ("delete", DELETE as u64)] },
];

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
        let front = WriteStored { kind, table: U32::new(table) };
        bytes[..size_of::<WriteStored>()].copy_from_slice(front.as_bytes());
        let mut header = Self { bytes, len: size_of::<WriteStored>() as u8 };
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
        // The kind is looked at as soon as there is one byte.
        let Some(&kind) = bytes.first() else { return Ok(None) };
        if kind != PUT && kind != DELETE {
            return bad(at, format!("expected a write of kind {PUT} or {DELETE}, found {kind}"));
        }
        let Ok((front, mut rest)) = WriteStored::ref_from_prefix(bytes) else { return Ok(None) };
        let table = front.table.get();
        let mut len = size_of::<WriteStored>();
        let Some(key_len) = varint(&mut rest, &mut len, KEY_LEN_BYTES, at)? else { return Ok(None) };
        let value_len = if kind == PUT {
            let Some(n) = varint(&mut rest, &mut len, VALUE_LEN_BYTES, at)? else { return Ok(None) };
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
    fn take<T: FromBytes + KnownLayout + Immutable + Unaligned>(&mut self) -> Result<&'a T, BadRecord> {
        let left = &self.bytes[self.at..];
        match T::ref_from_prefix(left) {
            Ok((fields, _)) => {
                self.at += size_of::<T>();
                Ok(fields)
            }
            Err(_) => bad(self.at, format!("{} bytes expected, {} left", size_of::<T>(), left.len())),
        }
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
                let front: &WritesStored = f.take()?;
                Body::Writes { unix_ms: front.time.get(), writes: Writes { bytes: f.rest(), at: 0 } }
            }
            FRAGMENT => {
                let front: &FragmentStored = f.take()?;
                Body::Fragment { transaction: front.transaction.get(), piece: f.rest() }
            }
            COMMIT => {
                let all: &CommitStored = f.take()?;
                f.end()?;
                Body::Commit {
                    transaction: all.transaction.get(),
                    fragments: all.fragments.get(),
                    bytes: all.bytes.get(),
                    unix_ms: all.time.get(),
                }
            }
            CREATE_TABLE | DROP_TABLE | RENAME_TABLE => {
                let front: &TableStored = f.take()?;
                let (unix_ms, table) = (front.time.get(), front.table.get());
                match kind {
                    CREATE_TABLE => Body::CreateTable { unix_ms, table, name: f.name()? },
                    RENAME_TABLE => Body::RenameTable { unix_ms, table, name: f.name()? },
                    _ => {
                        f.end()?;
                        Body::DropTable { unix_ms, table }
                    }
                }
            }
            other => return bad(0, format!("a record of kind {other}, which this version does not know")),
        })
    }
}

/// The payload of a [`COMMIT`] record.
pub(crate) fn commit(transaction: u64, fragments: u32, bytes: u64, unix_ms: u64) -> [u8; COMMIT_BYTES] {
    zerocopy::transmute!(CommitStored {
        transaction: U64::new(transaction),
        fragments: U32::new(fragments),
        bytes: U64::new(bytes),
        time: U64::new(unix_ms),
    })
}

/// The fixed front of a record about a table; a name may follow it.
pub(crate) fn table_record(unix_ms: u64, table: u32) -> [u8; TABLE_BYTES] {
    zerocopy::transmute!(TableStored { time: U64::new(unix_ms), table: U32::new(table) })
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
