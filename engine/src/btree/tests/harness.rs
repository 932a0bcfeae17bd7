//! A tree on a simulated disk, and a model to compare it with.

use crate::btree::chaos::SMALL_NODES;
use crate::btree::node::{limits, verify};
use crate::btree::{
    BuildGate, Found, NewValue, Op, Outcome, OverflowReader, PreparedOverflow, Result, Stamp, Tree, Write,
};
use bedstone_bufpool::{
    Background, CheckpointParams, FormatParams, PageHeader, PageId, PolicyKind, Pool, PoolConfig, VerifyPage,
};
use bedstone_io::Disk;
use bedstone_io::sim::SimDisk;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// What a tree should contain.
pub(super) type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// The table that all trees of the tests belong to.
pub(super) const TABLE: u32 = 7;

/// A small generator of numbers: the tests depend on nothing but their seeds (splitmix64).
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(super) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

struct VerifyNodes;

impl VerifyPage for VerifyNodes {
    fn verify(&self, header: &PageHeader, page: &[u8]) -> std::result::Result<(), String> {
        verify(header, page)
    }
}

/// Opens the pool of the data file on `disk`.
pub(super) fn open_pool(
    disk: &Arc<dyn Disk>,
    page_size: usize,
    frames: usize,
    background: Background,
) -> Pool {
    let config = PoolConfig {
        pool_bytes: page_size * frames,
        policy: PolicyKind::S3Fifo,
        huge_pages: false,
        background,
        verify: Arc::new(VerifyNodes),
    };
    Pool::open(disk, Path::new("data"), &config).expect("the data file opens")
}

/// A new data file with an empty tree in it, checkpointed.
pub(super) fn fresh(
    seed: u64,
    page_size: usize,
    frames: usize,
    background: Background,
) -> (Arc<SimDisk>, Pool, Tree) {
    fresh_table(seed, page_size, frames, background, TABLE)
}

fn fresh_table(
    seed: u64,
    page_size: usize,
    frames: usize,
    background: Background,
    table: u32,
) -> (Arc<SimDisk>, Pool, Tree) {
    let sim = SimDisk::new(seed);
    let disk: Arc<dyn Disk> = sim.clone();
    let params = FormatParams { page_size, database_id: [1; 16], start_lsn: 1 };
    Pool::format(&*disk, Path::new("data"), &params).expect("the disk takes a new file");
    // The names of the file are the caller's to make durable.
    disk.sync_dir(Path::new("")).expect("the directory syncs");
    let pool = open_pool(&disk, page_size, frames, background);
    let tree = plant(&pool, table);
    checkpoint(&pool, 1);
    (sim, pool, tree)
}

/// As [`fresh`], with a tree whose inner nodes hold only a few children.
pub(super) fn fresh_with_small_nodes(seed: u64, frames: usize) -> (Arc<SimDisk>, Pool, Tree) {
    fresh_table(seed, 4096, frames, Background::Threads, SMALL_NODES)
}

/// Makes an empty tree at the catalog's root id.
fn plant(pool: &Pool, table: u32) -> Tree {
    let mut reserve = pool.reserve(2).expect("two frames");
    let (tree, pages) = Tree::create_at(pool, &mut reserve, table, PageId::CATALOG_ROOT);
    let operation = pool.announce();
    for page in pages {
        page.publish(&operation);
    }
    tree
}

/// The tree of [`fresh`], after reopening.
pub(super) const TREE: Tree = Tree { root: PageId::CATALOG_ROOT, table: TABLE };

/// A whole checkpoint.
pub(super) fn checkpoint(pool: &Pool, lsn: u64) {
    let mut checkpoint = pool.begin_checkpoint().expect("the checkpoint begins");
    checkpoint.write_pages().expect("pages are written");
    checkpoint.finish(CheckpointParams { replay_lsn: lsn, log_end: lsn }).expect("the checkpoint ends");
}

/// A value as the tree takes it: prepared in pages of its own if it is long.
pub(super) fn new_value<'a, 'p>(
    tree: Tree,
    pool: &'p Pool,
    gate: &'p BuildGate,
    key: &[u8],
    value: &'a [u8],
) -> NewValue<'a, 'p> {
    if key.len() + value.len() <= limits(pool.page_size()).max_inline_cell {
        return NewValue::Inline(value);
    }
    let len = value.len() as u64;
    let pass = gate.needs_pass(pool.page_size(), len).then(|| gate.enter());
    let built = PreparedOverflow::build(pool, tree.table, len, &mut &value[..], pass.as_ref());
    NewValue::Overflow(built.expect("the value is built"))
}

/// Puts a value; says whether the key was there before.
pub(super) fn put(
    tree: Tree,
    pool: &Pool,
    gate: &BuildGate,
    key: &[u8],
    value: &[u8],
    lsn: u64,
) -> Result<bool> {
    let mut write = Write::Put(new_value(tree, pool, gate, key, value));
    match apply_one(tree, pool, key, &mut write, lsn)? {
        Outcome::Applied { existed, lsn: stamped } => {
            assert_eq!(stamped, lsn);
            Ok(existed)
        }
        other => panic!("{other:?} of a put"),
    }
}

/// Deletes a key; says whether it was there.
pub(super) fn delete(tree: Tree, pool: &Pool, key: &[u8], lsn: u64) -> Result<bool> {
    match apply_one(tree, pool, key, &mut Write::Delete, lsn)? {
        Outcome::Applied { existed, .. } => {
            assert!(existed);
            Ok(true)
        }
        Outcome::NotFound => Ok(false),
        Outcome::Busy => panic!("the stamp is never busy"),
    }
}

fn apply_one<'p>(
    tree: Tree,
    pool: &'p Pool,
    key: &[u8],
    write: &mut Write<'_, 'p>,
    lsn: u64,
) -> Result<Outcome> {
    let mut reserve = pool.reserve(4)?;
    let mut stamps = 0;
    let mut stamp = || {
        stamps += 1;
        assert_eq!(stamps, 1, "one stamp a change");
        Stamp::Lsn(lsn)
    };
    tree.write(pool, &mut reserve, key, write, &mut stamp, &mut Vec::new())
}

/// Applies a sorted batch of puts and deletes.
pub(super) fn apply(
    tree: Tree,
    pool: &Pool,
    gate: &BuildGate,
    batch: &BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    lsn: u64,
) -> Result<()> {
    let mut reserve = pool.reserve(4)?;
    let mut ops: Vec<Op<'_, '_>> = batch
        .iter()
        .map(|(key, value)| {
            let write = match value {
                Some(value) => Write::Put(new_value(tree, pool, gate, key, value)),
                None => Write::Delete,
            };
            Op { key, write, lsn }
        })
        .collect();
    tree.apply_sorted(pool, &mut reserve, &mut ops)
}

/// The bytes of a value found.
pub(super) fn bytes_of(tree: Tree, pool: &Pool, found: Found<'_>) -> Result<Vec<u8>> {
    match found {
        Found::Inline { pin, range } => Ok(pin[range].to_vec()),
        Found::Overflow { value, ticket } => OverflowReader::new(tree, pool, value, ticket)?.read_all(),
    }
}

pub(super) fn get(tree: Tree, pool: &Pool, key: &[u8]) -> Result<Option<Vec<u8>>> {
    tree.get(pool, key)?.map(|found| bytes_of(tree, pool, found)).transpose()
}

/// Everything in the tree, from the front.
pub(super) fn contents(tree: Tree, pool: &Pool) -> Result<Model> {
    use std::ops::Bound::Unbounded;
    let mut all = Model::new();
    let mut scan = tree.scan(pool, Unbounded, Unbounded);
    loop {
        let Some(entry) = scan.next()? else { return Ok(all) };
        let key = entry.key.to_vec();
        let value = match entry.value {
            crate::btree::node::CellValue::Inline(bytes) => bytes.to_vec(),
            crate::btree::node::CellValue::Overflow(value) => scan.front_reader(value)?.read_all()?,
        };
        assert!(all.last_key_value().is_none_or(|(last, _)| *last < key), "keys ascend");
        all.insert(key, value);
    }
}

/// Compares tree and model in every way, and the pages in use with those that the tree reaches.
pub(super) fn assert_same(tree: Tree, pool: &Pool, model: &Model) {
    assert!(contents(tree, pool).expect("the scan reads") == *model, "the scan gives what the model has");
    let mut reached = BTreeSet::new();
    let mut counts = (0, 0);
    tree.walk(pool, &mut |visit| {
        assert!(reached.insert(visit.page), "{:?} is reached twice", visit.page);
        if visit.kind == bedstone_bufpool::PageKind::Leaf {
            counts.0 += visit.entries;
            counts.1 += 1;
        }
        Ok(())
    })
    .expect("the tree is sound");
    assert_eq!(counts.0, model.len());
    let live: BTreeSet<PageId> = pool.live_pages().into_iter().collect();
    assert_eq!(
        live.difference(&reached).collect::<Vec<_>>(),
        Vec::<&PageId>::new(),
        "pages that nothing refers to"
    );
    assert_eq!(
        reached.difference(&live).collect::<Vec<_>>(),
        Vec::<&PageId>::new(),
        "free pages referred to"
    );
    let report = pool.check_space();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}
