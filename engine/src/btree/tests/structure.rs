//! Splits, merges, growth and shrinking, and what a refused stamp leaves behind.

use super::harness::*;
use crate::btree::node::limits;
use crate::btree::{BuildGate, NewValue, Outcome, Stamp, Tree, Write};
use bedstone_bufpool::{Background, PageId, PageKind, Pool};
use std::collections::BTreeMap;

/// Keys that are nearly as long as they may be, so that nodes have few children and trees many levels.
fn long_key(n: u64, page_size: usize) -> Vec<u8> {
    let mut key = n.to_be_bytes().to_vec();
    key.resize(limits(page_size).max_key, b'.');
    // The difference comes last: separators are as long as the keys.
    key.rotate_left(8);
    key
}

fn order(kind: u64, count: u64) -> Vec<u64> {
    let mut all: Vec<u64> = (0..count).collect();
    match kind {
        0 => {}
        1 => all.reverse(),
        _ => {
            let mut rng = Rng(kind);
            for i in (1..all.len()).rev() {
                all.swap(i, rng.below(i as u64 + 1) as usize);
            }
        }
    }
    all
}

#[test]
fn tall_trees_grow_and_shrink() {
    let page_size = 4096;
    let count = 400;
    for kind in 0..4 {
        let (_sim, pool, tree) = fresh(kind, page_size, 2048, Background::Manual);
        let gate = BuildGate::new(2048);
        let mut model = Model::new();
        for (i, n) in order(kind, count).into_iter().enumerate() {
            let key = long_key(n, page_size);
            put(tree, &pool, &gate, &key, b"v", i as u64 + 2).unwrap();
            model.insert(key, b"v".to_vec());
        }
        // Between two fences nearly all of a key is prefix; ascending loads leave the nodes without that.
        let levels = tree.height(&pool).unwrap();
        assert!(levels >= if kind == 0 { 5 } else { 3 }, "{levels} levels");
        assert_same(tree, &pool, &model);
        for (i, n) in order(3 - kind, count).into_iter().enumerate() {
            let key = long_key(n, page_size);
            assert!(delete(tree, &pool, &key, 1000 + i as u64).unwrap());
            model.remove(&key);
            if i % 50 == 0 {
                assert_same(tree, &pool, &model);
            }
        }
        assert_same(tree, &pool, &model);
        assert_eq!(tree.height(&pool).unwrap(), 2, "the root is low again");
        assert_eq!(pool.live_pages().len(), 2, "a root and a leaf are left");
    }
}

/// Keys that share nearly all of their bytes with a few others and none with the rest: separators and both
/// fences of inner nodes are as long as keys may be, and a node is full with two separators.
#[test]
fn nodes_full_with_two_separators() {
    let max_key = limits(4096).max_key;
    for seed in 2..8 {
        let (_sim, pool, tree) = fresh(seed, 4096, 2048, Background::Manual);
        let gate = BuildGate::new(2048);
        let mut model = Model::new();
        let key = |n: u64| [vec![(n / 12) as u8; max_key - 1], vec![(n % 12) as u8]].concat();
        for n in order(seed, 300) {
            put(tree, &pool, &gate, &key(n), b"value", n + 2).unwrap();
            model.insert(key(n), b"value".to_vec());
        }
        assert_same(tree, &pool, &model);
        for (i, n) in order(seed + 1, 300).into_iter().enumerate() {
            assert!(delete(tree, &pool, &key(n), n + 400).unwrap());
            model.remove(&key(n));
            if i % 30 == 0 {
                assert_same(tree, &pool, &model);
            }
        }
        assert_eq!((tree.height(&pool).unwrap(), pool.live_pages().len()), (2, 2));
    }
}

#[test]
fn deleting_everything_leaves_two_pages() {
    for (page_size, count) in [(4096, 6000), (16384, 12_000)] {
        for kind in 0..3 {
            let (_sim, pool, tree) = fresh(kind, page_size, 2048, Background::Manual);
            let batch: BTreeMap<Vec<u8>, Option<Vec<u8>>> =
                (0..count).map(|n: u64| (n.to_be_bytes().to_vec(), Some(vec![1; 40]))).collect();
            apply(tree, &pool, &BuildGate::new(2048), &batch, 5).unwrap();
            assert_eq!(tree.stats(&pool).unwrap().entries, count);
            for n in order(kind, count) {
                assert!(delete(tree, &pool, &n.to_be_bytes(), 6).unwrap());
            }
            assert_same(tree, &pool, &Model::new());
            assert_eq!((tree.height(&pool).unwrap(), pool.live_pages().len()), (2, 2), "{page_size} {kind}");
        }
    }
}

/// Ascending loads fill leaves to the last byte, and the split of such a leaf must find room for the fence
/// that it gains.
#[test]
fn leaves_filled_to_the_last_byte() {
    for page_size in [4096, 8192] {
        for len in 150..190 {
            let (_sim, pool, tree) = fresh(len, page_size, 256, Background::Manual);
            let gate = BuildGate::new(256);
            let mut model = Model::new();
            for n in 0..400u64 {
                let key = format!("{n:012}").into_bytes();
                let value = vec![n as u8; len as usize];
                put(tree, &pool, &gate, &key, &value, n + 2).unwrap();
                model.insert(key, value);
            }
            assert_same(tree, &pool, &model);
            let stats = tree.stats(&pool).unwrap();
            let full = stats.leaf_bytes * 100 / stats.leaf_capacity;
            assert!(full >= 80, "ascending inserts leave leaves {full} % full");
        }
    }
}

#[test]
fn batches_load_as_single_writes_do() {
    for seed in 0..6 {
        let mut rng = Rng(seed);
        let (_sim, pool, tree) = fresh(seed, 4096, 512, Background::Manual);
        let gate = BuildGate::new(512);
        let mut model = Model::new();
        for round in 0..40 {
            let spread = [50, 5_000, 500_000][(round % 3) as usize];
            let batch: BTreeMap<Vec<u8>, Option<Vec<u8>>> = (0..300)
                .map(|_| {
                    let key = rng.below(spread).to_be_bytes().to_vec();
                    let len = if rng.below(20) == 0 { 900 } else { 60 };
                    (key, (rng.below(4) > 0).then(|| vec![round as u8; rng.below(len) as usize]))
                })
                .collect();
            apply(tree, &pool, &gate, &batch, round + 2).unwrap();
            for (key, value) in batch {
                match value {
                    Some(value) => drop(model.insert(key, value)),
                    None => drop(model.remove(&key)),
                }
            }
        }
        assert_same(tree, &pool, &model);
    }
}

/// Makes a change with a stamp that refuses.
fn refused<'p>(tree: Tree, pool: &'p Pool, key: &[u8], write: &mut Write<'_, 'p>) {
    let before = pool.live_pages();
    let mut reserve = pool.reserve(8).unwrap();
    let (_, pages) = Tree::create(pool, &mut reserve, 99);
    let mut attach = Vec::from(pages);
    let mut asked = 0;
    let mut stamp = || {
        asked += 1;
        Stamp::Busy
    };
    let outcome = tree.write(pool, &mut reserve, key, write, &mut stamp, &mut attach).unwrap();
    assert_eq!((outcome, asked, attach.len()), (Outcome::Busy, 1, 2));
    assert_eq!(pool.live_pages(), before);
}

#[test]
fn a_refused_stamp_changes_nothing() {
    let (_sim, pool, tree) = fresh(1, 4096, 256, Background::Manual);
    let gate = BuildGate::new(256);
    let mut model = Model::new();
    // Each put is refused once and then made: with room in the leaf, with a split, with an overflow value, as
    // an update.
    for n in 0..200u64 {
        let key = (n % 150).to_be_bytes();
        let value = vec![n as u8; if n % 7 == 0 { 3000 } else { 200 }];
        let mut write = Write::Put(new_value(tree, &pool, &gate, &key, &value));
        refused(tree, &pool, &key, &mut write);
        let mut reserve = pool.reserve(8).unwrap();
        let outcome =
            tree.write(&pool, &mut reserve, &key, &mut write, &mut || Stamp::Lsn(n + 2), &mut Vec::new());
        assert_eq!(outcome.unwrap(), Outcome::Applied { lsn: n + 2, existed: n >= 150 });
        drop((write, reserve));
        model.insert(key.to_vec(), value);
        if n % 20 == 0 {
            assert_same(tree, &pool, &model);
        }
    }
    assert_same(tree, &pool, &model);
    for key in model.keys() {
        refused(tree, &pool, key, &mut Write::Delete);
    }
    assert_same(tree, &pool, &model);
}

#[test]
fn a_delete_of_nothing_is_not_stamped() {
    let (_sim, pool, tree) = fresh(1, 4096, 256, Background::Manual);
    let mut reserve = pool.reserve(4).unwrap();
    let mut stamp = || panic!("no stamp");
    let outcome =
        tree.write(&pool, &mut reserve, b"nothing", &mut Write::Delete, &mut stamp, &mut Vec::new());
    assert_eq!(outcome.unwrap(), Outcome::NotFound);
}

#[test]
fn attached_pages_come_with_the_change() {
    let (_sim, pool, tree) = fresh(1, 4096, 256, Background::Manual);
    let mut reserve = pool.reserve(8).unwrap();
    let (other, pages) = Tree::create(&pool, &mut reserve, 99);
    let mut attach = Vec::from(pages);
    assert!(!pool.is_live(other.root));
    let mut write = Write::Put(NewValue::Inline(b"root"));
    tree.write(&pool, &mut reserve, b"table", &mut write, &mut || Stamp::Lsn(2), &mut attach).unwrap();
    assert!(attach.is_empty() && pool.is_live(other.root));
    put(other, &pool, &BuildGate::new(256), b"key", b"value", 3).unwrap();
    assert_eq!(get(other, &pool, b"key").unwrap().as_deref(), Some(&b"value"[..]));
}

/// The LSN of a change is on the page that holds it, and splits and merges lose none.
#[test]
fn pages_know_their_highest_lsn() {
    let (_sim, pool, tree) = fresh(1, 4096, 512, Background::Manual);
    let gate = BuildGate::new(512);
    let mut rng = Rng(3);
    let mut newest: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    for lsn in 2..3000 {
        let key = rng.below(500).to_be_bytes().to_vec();
        if rng.below(3) > 0 {
            put(tree, &pool, &gate, &key, &vec![0; rng.below(300) as usize], lsn).unwrap();
        } else if !delete(tree, &pool, &key, lsn).unwrap() {
            continue;
        }
        newest.insert(key, lsn);
    }
    for (key, lsn) in newest {
        let guard = pool.guard();
        let mut page = tree.root;
        let pin = loop {
            let word = guard.word(page);
            match guard.inner(word) {
                Some(bytes) => {
                    let node = crate::btree::node::Inner::new(bytes);
                    page = node.child(node.search(&key));
                }
                None => break guard.pin(page, word, bedstone_bufpool::Access::Point).unwrap(),
            }
        };
        assert!(bedstone_bufpool::max_lsn(&pin) >= lsn);
    }
}

#[test]
fn a_tree_is_freed_in_steps() {
    for seed in 0..3 {
        let (_sim, pool, catalog) = fresh(seed, 4096, 512, Background::Manual);
        let gate = BuildGate::new(512);
        let mut reserve = pool.reserve(8).unwrap();
        let (tree, pages) = Tree::create(&pool, &mut reserve, TABLE);
        let mut write = Write::Put(NewValue::Inline(b"root"));
        catalog
            .write(&pool, &mut reserve, b"table", &mut write, &mut || Stamp::Lsn(2), &mut Vec::from(pages))
            .unwrap();
        let mut rng = Rng(seed);
        for lsn in 3..1500 {
            let key = [&[b'k'; 400][..], &rng.next().to_be_bytes()].concat();
            let len = if rng.below(10) == 0 { 20_000 } else { 100 };
            put(tree, &pool, &gate, &key, &rng.bytes(len), lsn).unwrap();
        }
        let (levels, pages) = (tree.height(&pool).unwrap(), pool.live_pages().len());
        assert!(levels >= 3 && pages > 200, "{levels} levels, {pages} pages");
        // One step at a time: whatever is left is a tree whose pages are exactly those in use.
        let mut steps = 0;
        loop {
            let mut asked = 0;
            let mut between = || {
                asked += 1;
                asked <= 1
            };
            if tree.free_all(&pool, &mut reserve, &mut between).unwrap() {
                break;
            }
            steps += 1;
            if steps % 40 == 0 {
                assert_eq!(reachable(tree, &pool), pool.live_pages().len() - 2);
            }
        }
        assert!(steps > 20);
        assert!(!pool.is_live(tree.root));
        assert!(tree.free_all(&pool, &mut reserve, &mut || true).unwrap(), "freeing what is free already");
        assert!(
            matches!(tree.get(&pool, b"x"), Err(bedstone_bufpool::PoolError::Free(page)) if page == tree.root)
        );
        drop((write, reserve));
        let model = Model::from([(b"table".to_vec(), b"root".to_vec())]);
        assert_same(catalog, &pool, &model);
    }
}

/// Pages reached from the root, without looking at fences: those of a tree being taken down do not agree.
fn reachable(tree: Tree, pool: &Pool) -> usize {
    let mut pages = vec![tree.root];
    let mut count = 0;
    while let Some(page) = pages.pop() {
        count += 1;
        pool.fault(page, bedstone_bufpool::Access::Point).unwrap();
        let guard = pool.guard();
        let word = guard.word(page);
        if let Some(bytes) = guard.inner(word) {
            let node = crate::btree::node::Inner::new(bytes);
            pages.extend(node.child_ids(0..node.count() + 1));
            continue;
        }
        let pin = guard.pin(page, word, bedstone_bufpool::Access::Point).unwrap();
        drop(guard);
        if bedstone_bufpool::PageHeader::read(&pin).kind == PageKind::Leaf as u8 {
            let leaf = crate::btree::node::Leaf::new(&pin);
            for i in 0..leaf.count() {
                if let crate::btree::node::CellValue::Overflow(value) = leaf.value(i) {
                    count += crate::btree::overflow::page_ids(pool, tree.table, value).unwrap().len();
                }
            }
        }
    }
    count
}

#[test]
fn damage_between_pages_is_told() {
    let (_sim, pool, tree) = fresh(1, 4096, 256, Background::Manual);
    let gate = BuildGate::new(256);
    for n in 0..500u64 {
        put(tree, &pool, &gate, &n.to_be_bytes(), &[0; 50], n + 2).unwrap();
    }
    // A leaf of the tree read as if it belonged to another one.
    let other = Tree { root: tree.root, table: TABLE + 1 };
    let error = get(other, &pool, &5u64.to_be_bytes()).unwrap_err();
    assert!(matches!(error, bedstone_bufpool::PoolError::Corrupt { page: Some(_), .. }), "{error}");
    // A root that is none.
    let leaf = pool.live_pages().into_iter().find(|&page| page != PageId::CATALOG_ROOT).unwrap();
    let error = get(Tree { root: leaf, table: TABLE }, &pool, b"x").unwrap_err();
    assert!(matches!(error, bedstone_bufpool::PoolError::Corrupt { .. }), "{error}");
    // A parent that refers to a page that is free.
    let victim = {
        let guard = pool.guard();
        let root = crate::btree::node::Inner::new(guard.inner(guard.word(tree.root)).unwrap());
        let page = root.child(1);
        let latch = guard.latch(page, guard.word(page)).unwrap();
        let operation = pool.announce();
        let lower = crate::btree::node::Leaf::new(latch.page()).lower().to_vec();
        latch.free(&operation);
        lower
    };
    let error = get(tree, &pool, &victim).unwrap_err();
    assert!(error.to_string().contains("free"), "{error}");
    let mut reserve = pool.reserve(4).unwrap();
    let mut write = Write::Put(NewValue::Inline(b""));
    let outcome =
        tree.write(&pool, &mut reserve, &victim, &mut write, &mut || Stamp::Lsn(9), &mut Vec::new());
    assert!(outcome.is_err());
}
