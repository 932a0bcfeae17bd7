//! Long values: building, reading, replacing, giving up.

use super::harness::*;
use crate::btree::node::MAX_VALUE_BYTES;
use crate::btree::{BuildGate, Found, OverflowReader, PreparedOverflow, SourceError};
use bedstone_bufpool::Background;
use std::io::Read;

#[test]
fn values_of_all_shapes_come_back() {
    for page_size in [4096, 16384, 65536] {
        let (_sim, pool, tree) = fresh(1, page_size, 256, Background::Manual);
        let gate = BuildGate::new(256);
        let data = page_size - 36;
        let ids = (page_size - 40) / 4;
        let mut lens = vec![page_size / 4, data - 1, data, data + 1, 2 * data, 10 * data + 5, 40 * data];
        if page_size == 4096 {
            // One index page full, and one id more: a second level.
            lens.extend([ids * data, ids * data + 1]);
        }
        let mut model = Model::new();
        for (i, len) in lens.into_iter().enumerate() {
            let key = format!("key {i}").into_bytes();
            let value = Rng(i as u64).bytes(len);
            put(tree, &pool, &gate, &key, &value, i as u64 + 2).unwrap();
            let found = tree.get(&pool, &key).unwrap().unwrap();
            let Found::Overflow { value: reference, ticket } = found else { panic!("the value is long") };
            let mut reader = OverflowReader::new(tree, &pool, reference, ticket).unwrap();
            assert_eq!(reader.len(), len as u64);
            // In uneven pieces, and the rest at once.
            let mut start = vec![0; 1000];
            reader.read_exact(&mut start).unwrap();
            let rest = reader.read_all().unwrap();
            assert!([start, rest].concat() == value, "{len} bytes in pages of {page_size}");
            assert_eq!(reader.read(&mut [0; 10]).unwrap(), 0);
            model.insert(key, value);
        }
        assert_same(tree, &pool, &model);
    }
}

#[test]
fn a_reader_sees_the_value_it_came_for() {
    let (_sim, pool, tree) = fresh(1, 4096, 128, Background::Manual);
    let gate = BuildGate::new(128);
    let (old, new) = (Rng(1).bytes(200_000), Rng(2).bytes(100_000));
    put(tree, &pool, &gate, b"key", &old, 2).unwrap();
    let Some(Found::Overflow { value, ticket }) = tree.get(&pool, b"key").unwrap() else {
        panic!("a long value")
    };
    let mut reader = OverflowReader::new(tree, &pool, value, ticket).unwrap();
    let mut start = vec![0; 5000];
    reader.read_exact(&mut start).unwrap();
    // Replaced, deleted, and everything pushed out of the pool meanwhile.
    put(tree, &pool, &gate, b"key", &new, 3).unwrap();
    checkpoint(&pool, 3);
    assert!(delete(tree, &pool, b"key", 4).unwrap());
    for n in 0..2000u64 {
        put(tree, &pool, &gate, &n.to_be_bytes(), &[0; 300], n + 5).unwrap();
    }
    checkpoint(&pool, 3000);
    assert!([start, reader.read_all().unwrap()].concat() == old);
    drop(reader);
    for n in 0..2000u64 {
        assert!(delete(tree, &pool, &n.to_be_bytes(), 4000).unwrap());
    }
    checkpoint(&pool, 5000);
    assert_same(tree, &pool, &Model::new());
}

/// Gives some bytes and then an error.
struct Failing(usize);

impl Read for Failing {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.0 == 0 {
            return Err(std::io::Error::other("the source broke"));
        }
        let len = out.len().min(self.0);
        self.0 -= len;
        Ok(len)
    }
}

#[test]
fn a_value_given_up_leaves_nothing() {
    let (_sim, pool, tree) = fresh(1, 4096, 256, Background::Manual);
    let gate = BuildGate::new(256);
    let keep = gate.unpublished_pages();
    for pages in [1, 2, keep - 1, keep + 1, 3 * keep, 40 * keep] {
        let len = (pages * 4000) as u64;
        let pass = gate.needs_pass(4096, len).then(|| gate.enter());
        // The source ends early: at the beginning, in the middle, one byte before the end, by an error.
        for bytes in [0, len / 2, len - 1] {
            let mut short = std::io::repeat(1).take(bytes);
            let error = PreparedOverflow::build(&pool, TABLE, len, &mut short, pass.as_ref()).unwrap_err();
            assert!(matches!(error, SourceError::Source { read, .. } if read <= bytes), "{error}");
            let mut failing = Failing(bytes as usize);
            assert!(PreparedOverflow::build(&pool, TABLE, len, &mut failing, pass.as_ref()).is_err());
        }
        // Built and not wanted any more.
        let built =
            PreparedOverflow::build(&pool, TABLE, len, &mut std::io::repeat(2), pass.as_ref()).unwrap();
        drop((built, pass));
        assert!(gate.try_close().is_some(), "nobody is inside");
        assert_same(tree, &pool, &Model::new());
    }
}

#[test]
fn the_gate_lets_no_epoch_end_within_a_value() {
    let gate = BuildGate::new(1024);
    let pass = gate.enter();
    assert!(gate.try_close().is_none());
    let second = pass.clone();
    drop(pass);
    assert!(gate.try_close().is_none(), "one is still inside");
    drop(second);
    let closed = gate.try_close().expect("nobody is inside");
    assert!(gate.try_close().is_none(), "closed once");
    let entered = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _pass = gate.enter();
            entered.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        // Nothing can be waited for here: that it does not enter shows only if it did.
        for _ in 0..1000 {
            std::thread::yield_now();
        }
        assert!(!entered.load(std::sync::atomic::Ordering::SeqCst));
        drop(closed);
    });
    assert!(entered.into_inner());
    drop(gate.close());
}

#[test]
fn lengths_beyond_the_limit_are_refused_by_the_reader() {
    let (_sim, pool, tree) = fresh(1, 4096, 128, Background::Manual);
    for len in [0, MAX_VALUE_BYTES + 1, u64::MAX] {
        let value = crate::btree::OverflowRef { len, index: tree.root, crc: 0 };
        assert!(OverflowReader::new(tree, &pool, value, pool.ticket()).is_err());
    }
}
