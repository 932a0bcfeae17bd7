//! Typed tables: the order of codes, round trips, bytes of all kinds, types at open, and reading and writing everywhere.

#[cfg(feature = "serde")]
mod with_serde;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use bedstone_io::sim::SimDisk;

use super::*;
use crate::{Background, Database, Error, WriteBatch};

fn open(disk: &Arc<SimDisk>) -> Database {
    Database::builder()
        .disk(disk.clone())
        .background(Background::Manual)
        .page_size(4096)
        .pool_bytes(1 << 20)
        .log_segment_bytes(256 << 10)
        .log_buffer_bytes(64 << 10)
        .open_or_create("/db")
        .unwrap()
}

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Small, large and every kind of number in between.
    fn bits(&mut self) -> u128 {
        let bits = u128::from(self.next()) << 64 | u128::from(self.next());
        let cut = bits >> self.below(128);
        if self.below(2) == 0 { cut } else { !cut }
    }

    /// Short, and mostly of the bytes that codes use for themselves.
    fn bytes(&mut self) -> Vec<u8> {
        let len = self.below(6);
        (0..len)
            .map(|_| [0, 0, 1, 0xfe, 0xff, 0xff, b'a', self.next() as u8][self.below(8) as usize])
            .collect()
    }

    fn string(&mut self) -> String {
        let len = self.below(5);
        (0..len)
            .map(|_| ['\0', '\u{1}', 'a', 'b', 'ü', '\u{ff}', '\u{10ffff}'][self.below(7) as usize])
            .collect()
    }
}

/// Values in random pairs: codes order as the values do, in both places; what was encoded comes back; no code inside a
/// key is the beginning of another.
fn keys_order<K: Key + Debug>(make: impl Fn(&mut Rng) -> K, compare: impl Fn(&K, &K) -> Ordering) {
    let mut rng = Rng(7);
    for round in 0..20_000 {
        let (a, b) = (make(&mut rng), make(&mut rng));
        let expected = compare(&a, &b);
        for place in [Place::Inner, Place::Last] {
            let code = |key: &K| {
                let mut out = Vec::new();
                K::encode(key.to_ref(), place, &mut out);
                out
            };
            let (code_a, code_b) = (code(&a), code(&b));
            assert_eq!(code_a.cmp(&code_b), expected, "round {round}, {place:?}: {a:?} and {b:?}");
            if place == Place::Inner {
                let begins = code_b.starts_with(&code_a) && expected != Ordering::Equal;
                assert!(!begins, "round {round}: the code of {a:?} begins that of {b:?}");
                let both = [&code_a[..], &code_b[..]].concat();
                let mut rest = &both[..];
                for key in [&a, &b] {
                    let back = K::decode(&mut rest, place).unwrap();
                    assert_eq!(compare(&back, key), Ordering::Equal, "{back:?} for {key:?}");
                }
                assert!(rest.is_empty());
            } else {
                let back: K = key::decode(&code_a).unwrap();
                assert_eq!(compare(&back, &a), Ordering::Equal, "{back:?} for {a:?}");
            }
        }
    }
}

#[test]
fn codes_of_numbers_order_as_numbers() {
    keys_order(|rng| rng.bits() as u8, u8::cmp);
    keys_order(|rng| rng.bits() as u16, u16::cmp);
    keys_order(|rng| rng.bits() as u32, u32::cmp);
    keys_order(|rng| rng.bits() as u64, u64::cmp);
    keys_order(|rng| rng.bits(), u128::cmp);
    keys_order(|rng| rng.bits() as i8, i8::cmp);
    keys_order(|rng| rng.bits() as i16, i16::cmp);
    keys_order(|rng| rng.bits() as i32, i32::cmp);
    keys_order(|rng| rng.bits() as i64, i64::cmp);
    keys_order(|rng| rng.bits() as i128, i128::cmp);
    keys_order(|rng| f32::from_bits(rng.bits() as u32), f32::total_cmp);
    keys_order(|rng| f64::from_bits(rng.bits() as u64), f64::total_cmp);
    keys_order(|rng| -((rng.below(40) as f64 - 20.0) / 4.0), f64::total_cmp);
    keys_order(|rng| rng.below(2) == 1, bool::cmp);
    keys_order(|rng| char::from_u32(rng.bits() as u32 & 0x1f_ffff).unwrap_or('\0'), char::cmp);
    let edges =
        [f64::NEG_INFINITY, f64::MIN, -1.0, -0.0, 0.0, f64::MIN_POSITIVE, 1.0, f64::INFINITY, f64::NAN];
    assert!(edges.map(key::encode::<f64>).is_sorted_by(|a, b| a < b));
    assert!([i64::MIN, -1, 0, 1, i64::MAX].map(key::encode::<i64>).is_sorted_by(|a, b| a < b));
}

#[test]
fn codes_of_strings_options_and_tuples_order_as_they_do() {
    keys_order(Rng::bytes, Vec::cmp);
    keys_order(Rng::string, String::cmp);
    keys_order(|rng| [rng.bits() as u8, rng.bits() as u8, 0], <[u8; 3]>::cmp);
    let option = |rng: &mut Rng| (rng.below(3) > 0).then(|| rng.bytes());
    keys_order(option, Option::cmp);
    keys_order(|rng| (rng.below(3) > 0).then(|| option(rng)), Option::cmp);
    keys_order(|rng| (rng.bytes(),), Ord::cmp);
    keys_order(|rng| (rng.bytes(), rng.bytes()), Ord::cmp);
    keys_order(|rng| (rng.string(), rng.bits() as i32 % 3, rng.string()), Ord::cmp);
    keys_order(|rng| ((rng.bytes(), rng.bytes()), option(rng), rng.bytes()), Ord::cmp);
    keys_order(|rng| (rng.below(2) as u8, rng.bytes(), (rng.bytes(), rng.below(2) == 0)), Ord::cmp);
    keys_order(
        |rng| {
            let few = |rng: &mut Rng| rng.below(3) as u8;
            (few(rng), option(rng), few(rng) as i16, rng.bytes(), few(rng) == 0, rng.string())
        },
        Ord::cmp,
    );
}

/// Bytes at random, and codes that were cut or changed: an error, or a key with just this code.
fn bytes_never_panic<K: Key>(make: impl Fn(&mut Rng) -> K) {
    let mut rng = Rng(11);
    for _ in 0..5_000 {
        let mut bytes = match rng.below(3) {
            0 => [rng.bytes(), rng.bytes(), rng.bytes(), rng.bytes()].concat(),
            _ => key::encode::<K>(make(&mut rng).to_ref()),
        };
        match rng.below(4) {
            0 => bytes.truncate(rng.below(bytes.len() as u64 + 1) as usize),
            1 => bytes.push(rng.next() as u8),
            2 if !bytes.is_empty() => {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << rng.below(8);
            }
            _ => {}
        }
        if let Ok(key) = key::decode::<K>(&bytes) {
            assert_eq!(key::encode::<K>(key.to_ref()), bytes, "two codes of one {}", K::type_name());
        }
    }
}

#[test]
fn keys_decode_from_any_bytes_or_give_an_error() {
    bytes_never_panic(|rng| rng.bits() as u32);
    bytes_never_panic(|rng| f64::from_bits(rng.next()));
    bytes_never_panic(|rng| rng.below(2) == 0);
    bytes_never_panic(|_| 'ü');
    bytes_never_panic(Rng::string);
    bytes_never_panic(|rng| (rng.string(), rng.bytes()));
    bytes_never_panic(|rng| {
        (Some(rng.bytes()), (rng.below(2) == 0, 'x'), [1u8, 2], Some(Some(rng.bits() as i16)))
    });
    for bad in [&b"a"[..], b"a\0", b"a\0\x01", b"\xff\0\0"] {
        assert!(key::decode::<(String, Vec<u8>)>(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn names_of_types_stay_as_they_are() {
    assert_eq!(<(u8, i128, f64, bool, char, String)>::type_name(), "(u8, i128, f64, bool, char, str)");
    assert_eq!(<(Option<Vec<u8>>, [u8; 16])>::type_name(), "(Option<bytes>, [u8; 16])");
    assert_eq!(<((u16,), f32)>::type_name(), "((u16), f32)");
    assert_eq!(<() as Value>::type_name(), "()");
    assert_eq!(<Vec<u8> as Value>::type_name(), "bytes");
    assert_eq!(<String as Value>::type_name(), "str");
    assert_eq!(<[u8; 4] as Value>::type_name(), "[u8; 4]");
    assert_eq!(<i64 as Value>::type_name(), "i64");
}

/// The value comes back, and bytes one shorter or longer are refused where the length is fixed.
fn value_comes_back<V: Value<Owned: PartialEq + Debug>>(value: V::Ref<'_>, expected: V::Owned, fixed: bool) {
    let mut scratch = Vec::new();
    let bytes = V::encode(value, &mut scratch).unwrap().to_vec();
    assert_eq!(V::decode(&bytes).unwrap(), expected);
    if fixed {
        assert!(V::decode(&[&bytes[..], &[0]].concat()).is_err());
        assert!(bytes.is_empty() || V::decode(&bytes[1..]).is_err());
    }
}

#[test]
fn values_come_back_and_bad_ones_are_refused() {
    value_comes_back::<u8>(7, 7, true);
    value_comes_back::<u16>(0x1234, 0x1234, true);
    value_comes_back::<i64>(-5, -5, true);
    value_comes_back::<u128>(u128::MAX - 1, u128::MAX - 1, true);
    value_comes_back::<f64>(-1.5, -1.5, true);
    value_comes_back::<bool>(true, true, true);
    value_comes_back::<char>('ü', 'ü', true);
    value_comes_back::<()>((), (), true);
    value_comes_back::<[u8; 3]>(b"abc", *b"abc", true);
    value_comes_back::<Vec<u8>>(b"a\0b", b"a\0b".to_vec(), false);
    value_comes_back::<String>("", String::new(), false);
    assert!(<bool as Value>::decode(&[2]).is_err());
    assert!(<char as Value>::decode(&[0, 0xd8, 0, 0]).is_err());
    assert!(<String as Value>::decode(b"\xff").is_err());
}

#[test]
fn a_typed_table_does_what_a_map_does() {
    let disk = SimDisk::new(1);
    let db = open(&disk);
    let table = db.typed_table::<(i32, String), u64>("t").unwrap();
    let mut model = BTreeMap::new();
    let mut rng = Rng(3);
    for i in 0..2000 {
        let (number, name) = (rng.below(9) as i32 - 4, rng.string());
        if rng.below(4) == 0 {
            let there = model.remove(&(number, name.clone())).is_some();
            assert_eq!(table.delete((number, &name)).unwrap(), there);
        } else {
            table.put((number, &name), i).unwrap();
            model.insert((number, name), i);
        }
    }
    let all = |range: TypedRange<'_, (i32, String), u64>| range.map(Result::unwrap).collect::<Vec<_>>();
    let owned = |entry: (&(i32, String), &u64)| (entry.0.clone(), *entry.1);
    assert_eq!(all(table.iter().unwrap()), model.iter().map(owned).collect::<Vec<_>>());
    let mut backwards: Vec<_> = table.iter().unwrap().rev().map(Result::unwrap).collect();
    backwards.reverse();
    assert_eq!(backwards, model.iter().map(owned).collect::<Vec<_>>());
    for _ in 0..300 {
        let (a, b) = ((rng.below(9) as i32 - 4, rng.string()), (rng.below(9) as i32 - 4, rng.string()));
        assert_eq!(table.get(a.to_ref()).unwrap(), model.get(&a).copied());
        assert_eq!(table.contains(b.to_ref()).unwrap(), model.contains_key(&b));
        let expected: Vec<_> = model.iter().filter(|(key, _)| (&a..&b).contains(key)).map(owned).collect();
        assert_eq!(all(table.range(a.to_ref()..b.to_ref()).unwrap()), expected, "{a:?}..{b:?}");
        let expected: Vec<_> = model.iter().filter(|(key, _)| (&a..=&b).contains(key)).map(owned).collect();
        assert_eq!(all(table.range(a.to_ref()..=b.to_ref()).unwrap()), expected, "{a:?}..={b:?}");
        let expected: Vec<_> = model.iter().filter(|(key, _)| key.0 == a.0).map(owned).collect();
        assert_eq!(all(table.prefix(a.0).unwrap()), expected, "prefix {}", a.0);
    }
    let keys: Vec<_> = model.keys().take(50).cloned().chain([(99, "x".into())]).collect();
    let expected: Vec<_> = keys.iter().map(|key| model.get(key).copied()).collect();
    assert_eq!(table.multi_get(keys.iter().map(Key::to_ref)).unwrap(), expected);
    assert_eq!(table.first().unwrap(), model.first_key_value().map(owned));
    assert_eq!(table.last().unwrap(), model.last_key_value().map(owned));
    let gone = model.keys().filter(|key| key.0 == 2).count() as u64;
    assert_eq!(table.delete_range((2, "")..(3, "")).unwrap(), gone);
    assert!(table.prefix(2).unwrap().next().is_none());
}

#[test]
fn prefixes_of_strings_are_their_first_letters() {
    let disk = SimDisk::new(2);
    let db = open(&disk);
    let table = db.typed_table::<String, ()>("t").unwrap();
    let mut batch = WriteBatch::new();
    for name in ["", "C", "CH", "CH/Bern", "CH/Zug", "CI", "D"] {
        table.put_in(&mut batch, name, ()).unwrap();
    }
    table.delete_in(&mut batch, "CI").unwrap();
    db.write(batch).unwrap();
    let found: Vec<String> = table.prefix("CH").unwrap().map(|entry| entry.unwrap().0).collect();
    assert_eq!(found, ["CH", "CH/Bern", "CH/Zug"]);
    assert_eq!(table.range("CH/".."D").unwrap().count(), 2);
    assert_eq!(table.iter().unwrap().count(), 6);
}

#[test]
fn other_types_are_refused_at_open() {
    let disk = SimDisk::new(3);
    let db = open(&disk);
    let table = db.typed_table::<u32, String>("t").unwrap();
    table.put(1, "one").unwrap();
    drop(db.typed_table::<u32, String>("t").unwrap());
    let refused = |result: crate::Result<()>| match result {
        Err(Error::TypeMismatch { table, stored, asked }) => (table, stored, asked),
        other => panic!("{other:?}"),
    };
    let (name, stored, asked) = refused(db.typed_table::<i32, String>("t").map(drop));
    assert_eq!((&*name, &*stored, &*asked), ("t", "u32 -> str", "i32 -> str"));
    refused(db.typed_table::<u32, Vec<u8>>("t").map(drop));
    // Its types are its own after renaming, and after the process has died.
    db.rename_table("t", "u").unwrap();
    let disk = disk.reopen();
    drop((table, db));
    let db = open(&disk);
    refused(db.typed_table::<i32, String>("u").map(drop));
    assert_eq!(db.typed_table::<u32, String>("u").unwrap().get(1).unwrap().unwrap(), "one");
    // A new table of an old name has none, nor has one whose types were forgotten.
    db.drop_table("u").unwrap();
    drop(db.typed_table::<i8, ()>("u").unwrap());
    assert!(db.forget_table_types("u").unwrap());
    assert!(!db.forget_table_types("u").unwrap());
    drop(db.typed_table::<u8, ()>("u").unwrap());
    assert!(matches!(db.forget_table_types("v"), Err(Error::TableNotFound { .. })));
    // The table of the types is not for typed use, and what it holds is not trusted.
    assert!(matches!(db.typed_table::<u8, ()>(TYPES_TABLE), Err(Error::InvalidTableName { .. })));
    let types = db.table(TYPES_TABLE).unwrap();
    let id = db.table("u").unwrap().id();
    for bad in [&b""[..], b"\x01", b"\x02u8\0\0()", b"\x01u8\0\x07()", b"\x01\xff\0\0()"] {
        types.put(key::encode::<u32>(id), bad).unwrap();
        assert!(matches!(db.typed_table::<u8, ()>("u"), Err(Error::Decode { .. })), "{bad:?}");
    }
}

#[test]
fn bytes_that_are_no_entries_give_errors_that_name_them() {
    let disk = SimDisk::new(4);
    let db = open(&disk);
    let table = db.typed_table::<u16, u32>("t").unwrap();
    table.put(0x6161, 1).unwrap();
    table.put(0x6363, 3).unwrap();
    table.table().put("bb", "short").unwrap();
    table.table().put("c", [0; 4]).unwrap();
    let what = |e: Error| match e {
        Error::Decode { table, what } if table == "t" => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(what(table.get(0x6262).unwrap_err()), "the value of key \"bb\": u32 has 4 bytes, not 5");
    assert!(table.contains(0x6262).unwrap());
    what(table.multi_get([0x6161, 0x6262]).unwrap_err());
    // An iterator goes on behind them.
    let found: Vec<_> = table.iter().unwrap().map(|entry| entry.map_err(what)).collect();
    let expected = [
        Ok((0x6161, 1)),
        Err("the value of key \"bb\": u32 has 4 bytes, not 5".into()),
        Err("key \"c\": u16 has 2 bytes, 1 are left".into()),
        Ok((0x6363, 3)),
    ];
    assert_eq!(found, expected);
    let backwards: Vec<_> = table.iter().unwrap().rev().map(|entry| entry.map_err(what)).collect();
    assert!(backwards.iter().rev().eq(&expected));
}

#[test]
fn snapshots_transactions_and_batches_are_typed_too() {
    let disk = SimDisk::new(5);
    let db = open(&disk);
    let table = db.typed_table::<(u8, u8), String>("t").unwrap();
    for (i, name) in [(1, "one"), (2, "two"), (3, "three")] {
        table.put((0, i), name).unwrap();
    }
    let snapshot = db.begin_read().unwrap();
    let mut tx = db.begin_write().unwrap();
    table.put_in(&mut tx, (0, 2), "zwei").unwrap();
    table.put_in(&mut tx, (1, 0), "zehn").unwrap();
    assert!(table.delete_in(&mut tx, (0, 1)).unwrap());
    assert!(!table.delete_in(&mut tx, (0, 1)).unwrap());
    assert_eq!(table.delete_range_in(&mut tx, (0, 3)..=(0, 9)).unwrap(), 1);
    let names = |range: TypedRange<'_, (u8, u8), String>| -> Vec<String> {
        range.map(|entry| entry.unwrap().1).collect()
    };
    let (old, new) = (["one", "two", "three"], ["zwei", "zehn"]);
    assert_eq!(names(table.iter_in(&tx).unwrap()), new);
    assert_eq!(names(table.prefix_in(&tx, 1).unwrap()), ["zehn"]);
    assert_eq!(table.multi_get_in(&tx, [(0, 1), (0, 2)]).unwrap(), [None, Some("zwei".into())]);
    assert_eq!(table.get((0, 2)).unwrap().unwrap(), "two");
    tx.commit().unwrap();
    assert_eq!(names(table.iter_in(&db).unwrap()), new);
    assert_eq!(names(table.iter_in(&snapshot).unwrap()), old);
    assert_eq!(names(table.range_in(&snapshot, (0, 2)..).unwrap()), old[1..]);
    assert_eq!(table.get_in(&snapshot, (0, 1)).unwrap().unwrap(), "one");
    assert!(!table.contains_in(&snapshot, (1, 0)).unwrap());
    assert_eq!(table.first_in(&snapshot).unwrap().unwrap().0, (0, 1));
    assert_eq!(table.last_in(&snapshot).unwrap().unwrap().0, (0, 3));
    let other = open(&SimDisk::new(6));
    assert!(matches!(table.get_in(&other, (0, 1)), Err(Error::ForeignTable { .. })));
    assert!(matches!(table.get_in(&other.begin_read().unwrap(), (0, 1)), Err(Error::ForeignTable { .. })));
}
