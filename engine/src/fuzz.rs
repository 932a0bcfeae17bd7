//! Fuzz targets: functions of any bytes that must not panic, loop for ever or take memory without bound, and that check
//! what they can beyond that, mostly that what is decoded is, encoded again, the same. cargo-fuzz runs them (`fuzz/` at
//! the repository's root), and so does an ordinary test over the corpus that it has found.

use bedstone_io::fuzz::Input;

use crate::catalog::{self, CATALOG_TABLE, Record};
use crate::txn::history::{Old, push, versions};
use crate::txn::record::{Body, WriteFront, WriteHeader, commit, table_record};
use crate::typed::{Key, Place, Value};

pub use bedstone_bufpool::fuzz::{is_sealed, map_block, mend_data_file, page_envelope, page_map, superblock};
pub use bedstone_wal::fuzz::{log_directory, mend_records, segment_header};

/// A fuzz target.
pub type Target = fn(&[u8]);

/// The decoders of everything that lies on a disk, by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("catalog_record", catalog_record),
    ("history_record", history_record),
    ("log_directory", log_directory),
    ("log_record", log_record),
    ("map_block", map_block),
    ("page", page),
    ("page_envelope", page_envelope),
    ("page_map", page_map),
    ("segment_header", segment_header),
    ("superblock", superblock),
    ("typed_key", typed_key),
    ("typed_value", typed_value),
];

/// A page of a tree or of a long value: what the check of its structure accepts must be good for reading every entry,
/// for making the same page anew, and for changes and splits.
pub fn page(data: &[u8]) {
    crate::btree::node::fuzz_page(data);
}

/// A record of the log: its kind, then the payload.
pub fn log_record(data: &[u8]) {
    let mut input = Input::new(data);
    let (kind, payload) = (input.u8(), input.rest());
    let Ok(body) = Body::decode(kind, payload) else { return };
    match body {
        Body::Writes { unix_ms, mut writes } => {
            assert_eq!(payload[..8], unix_ms.to_le_bytes());
            let mut again = Vec::new();
            let mut all = Vec::new();
            while let Ok(Some(write)) = writes.next() {
                assert!(all.len() < payload.len(), "more writes than bytes");
                all.push(write);
                match write.value {
                    Some(value) => {
                        let header = WriteHeader::put(write.table, write.key.len(), value.len() as u64);
                        again.extend_from_slice(header.as_slice());
                        again.extend_from_slice(write.key);
                        again.extend_from_slice(value);
                    }
                    None => {
                        again.extend_from_slice(WriteHeader::delete(write.table, write.key.len()).as_slice());
                        again.extend_from_slice(write.key);
                    }
                }
            }
            // Lengths have more codes than the writer's, so the writes are compared and not the bytes.
            let again = [&unix_ms.to_le_bytes()[..], &again].concat();
            let Ok(Body::Writes { mut writes, .. }) = Body::decode(kind, &again) else {
                panic!("writes were encoded to something else");
            };
            for write in all {
                assert_eq!(writes.next(), Ok(Some(write)));
            }
            assert_eq!(writes.next(), Ok(None));
            fronts(&payload[8..]);
        }
        Body::Fragment { transaction, piece } => {
            assert_eq!([&transaction.to_le_bytes()[..], piece].concat(), payload);
        }
        Body::Commit { transaction, fragments, bytes, unix_ms } => {
            assert_eq!(commit(transaction, fragments, bytes, unix_ms), payload);
        }
        Body::CreateTable { unix_ms, table, name } | Body::RenameTable { unix_ms, table, name } => {
            assert_eq!([&table_record(unix_ms, table)[..], name.as_bytes()].concat(), payload);
        }
        Body::DropTable { unix_ms, table } => assert_eq!(table_record(unix_ms, table), payload),
    }
}

/// The front of a write is found byte by byte, as in fragments, where it is found at once.
fn fronts(bytes: &[u8]) {
    let whole = WriteFront::decode(bytes, 0);
    for len in 0..=bytes.len().min(64) {
        match (WriteFront::decode(&bytes[..len], 0), &whole) {
            (Ok(None), _) => {}
            (Ok(Some(front)), Ok(Some(whole))) => {
                assert!(front.len <= len);
                assert_eq!(
                    (front.table, front.key_len, front.value_len, front.len),
                    (whole.table, whole.key_len, whole.value_len, whole.len)
                );
                return;
            }
            (Err(_), Err(_)) => return,
            (part, _) => panic!("{part:?} of {len} bytes, {whole:?} of all"),
        }
    }
}

/// An entry of the catalog: four bytes of key, then the record.
pub fn catalog_record(data: &[u8]) {
    let mut input = Input::new(data);
    let (key, value) = (input.bytes(4), input.rest());
    if let Ok(id) = catalog::decode_key(key) {
        assert_eq!(catalog::key(id), key);
    }
    let record = Record::decode(value);
    if let Ok(record) = &record {
        assert_eq!(record.encode(), value, "a record that no writer writes was taken for one");
    }
    match (catalog::table_info(key, value), record) {
        (Ok(Some(info)), Ok(Record::Live { root, name })) => {
            assert_eq!((info.name, info.root_page), (name, root.0));
        }
        (Ok(Some(_)), _) => panic!("a table that the record does not tell of"),
        (Ok(None), Ok(Record::Live { .. })) => assert_eq!(catalog::decode_key(key), Ok(CATALOG_TABLE)),
        _ => {}
    }
}

/// A list of old values of a key.
pub fn history_record(data: &[u8]) {
    let mut again = Vec::new();
    let mut understood = true;
    for version in versions(data) {
        assert!(again.len() < data.len(), "more versions than bytes");
        match version.old() {
            Some(old) => push(&mut again, version.csn, &old),
            None => understood = false,
        }
        if let Some(Old::Absent) = version.old() {
            // Whatever its length says: nothing of it counts.
            understood = false;
        }
    }
    assert!(!understood || data.starts_with(&again), "versions were encoded to something else");
    if !data.is_empty() {
        // How a transaction stores what it wrote in a tree of its own.
        let written = crate::txn::write_set::untag_for_fuzzing(data);
        assert!(written.is_none_or(|value| value.len() + 1 == data.len()));
    }
}

/// A key of a typed table: the type, then the bytes.
pub fn typed_key(data: &[u8]) {
    fn one<K: Key>(bytes: &[u8]) {
        for place in [Place::Last, Place::Inner] {
            let mut rest = bytes;
            if let Ok(key) = K::decode(&mut rest, place) {
                let mut again = Vec::new();
                K::encode(key.to_ref(), place, &mut again);
                let used = &bytes[..bytes.len() - rest.len()];
                assert_eq!(again, used, "{}: a key was encoded to something else", K::type_name());
            }
        }
    }
    // Two codes in one input: they order as their values do.
    fn ordered<K: Key + Ord>(bytes: &[u8]) {
        one::<K>(bytes);
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let whole = |mut bytes| K::decode(&mut bytes, Place::Last).ok().filter(|_| bytes.is_empty());
        if let (Some(a), Some(b)) = (whole(first), whole(second)) {
            assert_eq!(a.cmp(&b), first.cmp(second), "{}", K::type_name());
        }
    }
    let mut input = Input::new(data);
    let (kind, bytes) = (input.u8(), input.rest());
    match kind % 16 {
        0 => ordered::<u8>(bytes),
        1 => ordered::<i16>(bytes),
        2 => ordered::<u64>(bytes),
        3 => ordered::<i128>(bytes),
        4 => one::<f32>(bytes),
        5 => one::<f64>(bytes),
        6 => ordered::<bool>(bytes),
        7 => ordered::<char>(bytes),
        8 => ordered::<String>(bytes),
        9 => ordered::<Vec<u8>>(bytes),
        10 => ordered::<[u8; 5]>(bytes),
        11 => ordered::<Option<String>>(bytes),
        12 => ordered::<(String, u32)>(bytes),
        13 => ordered::<(Option<i8>, Vec<u8>, bool)>(bytes),
        14 => ordered::<(Vec<u8>, Option<(char, String)>, u8, i64, String, Vec<u8>)>(bytes),
        _ => one::<(f64, Option<f32>, String)>(bytes),
    }
}

/// A value of a typed table: the type, then the bytes.
pub fn typed_value(data: &[u8]) {
    fn one<V: Value>(bytes: &[u8], again: impl Fn(&V::Owned, &mut Vec<u8>)) {
        if let Ok(value) = V::decode(bytes) {
            let mut out = Vec::new();
            again(&value, &mut out);
            assert_eq!(out, bytes, "{}: a value was encoded to something else", V::type_name());
        }
    }
    macro_rules! by_value {
        ($type:ty, $bytes:expr) => {
            one::<$type>($bytes, |value, out| {
                let mut scratch = Vec::new();
                let code =
                    <$type as Value>::encode(*value, &mut scratch).expect("what was decoded has a code");
                out.extend_from_slice(code);
            })
        };
    }
    let mut input = Input::new(data);
    let (kind, bytes) = (input.u8(), input.rest());
    match kind % 8 {
        0 => by_value!(u32, bytes),
        1 => by_value!(i64, bytes),
        2 => by_value!(f64, bytes),
        3 => by_value!(bool, bytes),
        4 => by_value!(char, bytes),
        5 => by_value!((), bytes),
        6 => one::<String>(bytes, |value, out| out.extend_from_slice(value.as_bytes())),
        _ => one::<[u8; 7]>(bytes, |value, out| out.extend_from_slice(value)),
    }
}
