//! Rows of nodes, as one level of a tree has them, against a model.

use super::layout::common_prefix;
use super::limits::Limits;
use super::testing::{PAGE_SIZES, Rng, Value, check, inner_content, leaf_content, page};
use super::{
    Change, Fit, Inner, InnerChange, InnerPlan, InnerSplit, Leaf, LeafMut, SplitPlan, build_inner_merged,
    build_merged, build_root_with_child, build_root_with_two, inner_merge_fits, limits, merge_fits,
    merged_bytes,
};
use bedstone_bufpool::{PageId, PageKind};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// The leaves of a tree, left to right.
struct Leaves {
    size: usize,
    pages: Vec<Vec<u8>>,
    scratch: Vec<u8>,
    splits: usize,
    merges: usize,
    compactions: usize,
}

impl Leaves {
    fn new(size: usize) -> Self {
        let mut first = page(size, PageKind::Leaf, 0);
        LeafMut::init(&mut first, &[], None);
        Self { size, pages: vec![first], scratch: Vec::new(), splits: 0, merges: 0, compactions: 0 }
    }

    fn covering(&self, key: &[u8]) -> usize {
        let mut found = (0..self.pages.len()).filter(|&i| Leaf::new(&self.pages[i]).covers(key));
        let at = found.next().expect("some leaf covers every key");
        assert_eq!(found.next(), None);
        at
    }

    fn get(&self, key: &[u8]) -> Option<Value> {
        let leaf = Leaf::new(&self.pages[self.covering(key)]);
        let at = leaf.search(key);
        assert_eq!(at.unwrap_or_else(|at| at), leaf.lower_bound(key));
        assert!(at.is_err() || leaf.candidate(key).is_some_and(|candidate| candidate <= at.unwrap()));
        at.ok().map(|at| leaf_content(leaf)[at].1.clone())
    }

    fn put(&mut self, key: &[u8], value: &Value) {
        let i = self.covering(key);
        let leaf = Leaf::new(&self.pages[i]);
        let cell = value.cell();
        let (change, fit) = match leaf.search(key) {
            Ok(at) => (Change::Update { at, value: cell }, leaf.fits_update(at, &cell)),
            Err(at) => (Change::Insert { at, key, value: cell }, leaf.fits(key.len(), &cell)),
        };
        self.compactions += usize::from(fit == Fit::AfterCompaction);
        if fit != Fit::No {
            LeafMut::new(&mut self.pages[i]).apply(&change, &mut self.scratch);
            return check(&self.pages[i]);
        }
        self.splits += 1;
        let (mut left, mut right) = (page(self.size, PageKind::Leaf, 0), page(self.size, PageKind::Leaf, 0));
        let plan = SplitPlan::of(leaf, change);
        plan.build_left(&mut left);
        plan.build_right(&mut right);
        check(&left);
        check(&right);
        assert_eq!(Leaf::new(&left).upper(), Some(plan.separator()));
        assert_eq!(Leaf::new(&right).lower(), plan.separator());
        assert_eq!((Leaf::new(&left).lower(), Leaf::new(&right).upper()), (leaf.lower(), leaf.upper()));
        assert_eq!(Leaf::new(&left).count(), plan.left_count());
        assert!(plan.left_count() > 0 && Leaf::new(&right).count() > 0);
        self.pages.splice(i..=i, [left, right]);
    }

    fn remove(&mut self, key: &[u8]) {
        let i = self.covering(key);
        if let Ok(at) = Leaf::new(&self.pages[i]).search(key) {
            LeafMut::new(&mut self.pages[i]).remove(at);
            check(&self.pages[i]);
        }
    }

    fn merge(&mut self, i: usize) {
        if i + 1 < self.pages.len() {
            let (left, right) = (Leaf::new(&self.pages[i]), Leaf::new(&self.pages[i + 1]));
            if merge_fits(left, right) {
                self.merges += 1;
                let mut merged = page(self.size, PageKind::Leaf, 0);
                build_merged(left, right, &mut merged);
                check(&merged);
                assert_eq!(Leaf::new(&merged).live_bytes(), merged_bytes(left, right));
                self.pages.splice(i..i + 2, [merged]);
            }
        }
    }

    fn content(&self) -> Vec<(Vec<u8>, Value)> {
        self.pages.iter().flat_map(|page| leaf_content(Leaf::new(page))).collect()
    }
}

fn run_leaves(seed: u64, size: usize, steps: usize) -> Leaves {
    let mut rng = Rng::new(seed);
    let Limits { max_key, max_inline_cell } = limits(size);
    // Some runs have short keys only, so that leaves hold many.
    let max_key = [max_key, max_key, 40, 8][rng.below(4)];
    let deletes = 1 + rng.below(6);
    let mut leaves = Leaves::new(size);
    let mut model: BTreeMap<Vec<u8>, Value> = BTreeMap::new();
    for step in 0..steps {
        let known = model.keys().nth(rng.below(model.len().max(1))).cloned();
        match (rng.below(10), known) {
            (0 | 1, Some(key)) => {
                let value = rng.value(key.len(), max_inline_cell);
                leaves.put(&key, &value);
                model.insert(key, value);
            }
            (n, Some(key)) if n < 2 + deletes.min(3) => {
                leaves.remove(&key);
                model.remove(&key);
            }
            (8, _) => {
                let i = rng.below(leaves.pages.len());
                leaves.merge(i);
            }
            _ => {
                let key = rng.key(max_key);
                let value = rng.value(key.len(), max_inline_cell);
                leaves.put(&key, &value);
                model.insert(key, value);
            }
        }
        let probe = rng.key(max_key);
        assert_eq!(leaves.get(&probe), model.get(&probe).cloned(), "seed {seed} size {size} step {step}");
    }
    assert_eq!(leaves.content(), model.into_iter().collect::<Vec<_>>(), "seed {seed} size {size}");
    leaves
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn rows_of_leaves_hold_what_was_put(seed in any::<u64>(), size in prop::sample::select(&PAGE_SIZES[..])) {
        run_leaves(seed, size, 500);
    }

    #[test]
    fn rows_of_inner_nodes_hold_what_was_put(seed in any::<u64>(), size in prop::sample::select(&PAGE_SIZES[..])) {
        run_inner_nodes(seed, size, 400);
    }
}

#[test]
fn the_model_reaches_every_path() {
    let (mut splits, mut merges, mut compactions) = (0, 0, 0);
    for seed in 0..8 {
        let leaves = run_leaves(seed, 4096, 600);
        splits += leaves.splits;
        merges += leaves.merges;
        compactions += leaves.compactions;
    }
    assert!(splits > 100 && merges > 10 && compactions > 20, "{splits} {merges} {compactions}");
}

/// The inner nodes of a level, left to right.
struct InnerNodes {
    size: usize,
    pages: Vec<Vec<u8>>,
    splits: usize,
}

impl InnerNodes {
    fn covering(&self, key: &[u8]) -> usize {
        (0..self.pages.len())
            .find(|&i| Inner::new(&self.pages[i]).covers(key))
            .expect("a node covers every key")
    }

    fn search(&self, key: &[u8]) -> PageId {
        let node = Inner::new(&self.pages[self.covering(key)]);
        let child = node.search(key);
        assert!(node.child_lower(child).as_slice() <= key);
        assert!(node.child_upper(child).is_none_or(|upper| key < upper.as_slice()));
        let below = node.search_below(key);
        assert_eq!(below, if child > 0 && node.child_lower(child) == key { child - 1 } else { child });
        node.child(child)
    }

    fn change(&mut self, i: usize, change: InnerChange<'_>) {
        let plan = InnerPlan::new(Inner::new(&self.pages[i]), change);
        let mut new = page(self.size, PageKind::Inner, 1);
        if plan.fits() {
            plan.build(&mut new);
            check(&new);
            self.pages[i] = new;
            return;
        }
        self.splits += 1;
        let mut right = page(self.size, PageKind::Inner, 1);
        let split = InnerSplit::of(plan);
        split.build_left(&mut new);
        split.build_right(&mut right);
        check(&new);
        check(&right);
        assert_eq!(Inner::new(&new).count() + 1, split.left_children());
        assert_eq!(Inner::new(&new).upper(), Some(split.separator()));
        assert_eq!(Inner::new(&right).lower(), split.separator());
        self.pages.splice(i..=i, [new, right]);
    }

    /// All separators (fences between the nodes included) and children.
    fn content(&self) -> (Vec<Vec<u8>>, Vec<PageId>) {
        let (mut separators, mut children) = (Vec::new(), Vec::new());
        for page in &self.pages {
            if !children.is_empty() {
                separators.push(Inner::new(page).lower().to_vec());
            }
            let (s, c) = inner_content(Inner::new(page));
            separators.extend(s);
            children.extend(c);
        }
        (separators, children)
    }
}

fn run_inner_nodes(seed: u64, size: usize, steps: usize) -> usize {
    let mut rng = Rng::new(seed);
    let max_key = [limits(size).max_key, 200, 30][rng.below(3)];
    let style = rng.below(3);
    let mut first = page(size, PageKind::Inner, 1);
    build_root_with_child(&mut first, PageId(100));
    let mut nodes = InnerNodes { size, pages: vec![first], splits: 0 };
    // Lower bound of each child, and the child.
    let mut model = BTreeMap::from([(Vec::new(), PageId(100))]);
    for step in 0..steps {
        let separator = match style {
            0 => format!("a long common beginning {:012}", step * 3).into_bytes(),
            1 => format!("a long common beginning {:012}", rng.below(1 << 30)).into_bytes(),
            _ => rng.key(max_key),
        };
        match rng.below(10) {
            0 if model.len() > 1 => {
                let i = rng.below(nodes.pages.len());
                let node = Inner::new(&nodes.pages[i]);
                if node.count() > 0 {
                    let child = rng.below(node.count());
                    model.remove(&node.child_upper(child).unwrap());
                    nodes.change(i, InnerChange::Merge { child });
                }
            }
            1 if model.len() > 8 => {
                let i = rng.below(nodes.pages.len());
                let node = Inner::new(&nodes.pages[i]);
                let first = rng.below(node.count() + 1);
                let count = rng.below(4).min(node.count()).min(node.count() + 1 - first);
                let bounds: Vec<_> = (0..count).map(|n| node.child_lower(first + n)).collect();
                model.retain(|bound, _| !bounds.contains(bound));
                if first == 0 && count > 0 {
                    let next = model.remove(&node.child_upper(count - 1).unwrap()).unwrap();
                    model.insert(bounds[0].clone(), next);
                }
                nodes.change(i, InnerChange::Remove { first, count });
            }
            2 => nodes.change(rng.below(nodes.pages.len()), InnerChange::None),
            3 if nodes.pages.len() > 1 => {
                let i = rng.below(nodes.pages.len() - 1);
                let (left, right) = (Inner::new(&nodes.pages[i]), Inner::new(&nodes.pages[i + 1]));
                if inner_merge_fits(left, right) {
                    let mut merged = page(size, PageKind::Inner, 1);
                    build_inner_merged(left, right, &mut merged);
                    check(&merged);
                    nodes.pages.splice(i..i + 2, [merged]);
                }
            }
            _ if !model.contains_key(&separator) => {
                let i = nodes.covering(&separator);
                let child = Inner::new(&nodes.pages[i]).search(&separator);
                let right = PageId(200 + step as u32);
                nodes.change(i, InnerChange::Split { child, separator: &separator, right });
                model.insert(separator, right);
            }
            _ => {}
        }
        let probe = rng.key(max_key);
        for key in [&probe, model.keys().nth(rng.below(model.len())).unwrap()] {
            let expected = *model.range(..=key.clone()).next_back().unwrap().1;
            assert_eq!(nodes.search(key), expected, "seed {seed} size {size} step {step}");
        }
    }
    let (separators, children) = nodes.content();
    assert_eq!(separators, model.keys().skip(1).cloned().collect::<Vec<_>>(), "seed {seed} size {size}");
    assert_eq!(children, model.values().copied().collect::<Vec<_>>(), "seed {seed} size {size}");
    nodes.splits
}

#[test]
fn inner_nodes_split() {
    let splits: usize = (0..12).map(|seed| run_inner_nodes(seed, 4096, 900)).sum();
    assert!(splits > 20, "{splits}");
}

#[test]
fn a_root_of_two() {
    let mut root = page(4096, PageKind::Inner, 2);
    build_root_with_two(&mut root, PageId(1), b"m", PageId(2));
    check(&root);
    let node = Inner::new(&root);
    assert_eq!([&b""[..], b"lzz", b"m", b"ma"].map(|key| node.child(node.search(key)).0), [1, 1, 2, 2]);
    assert_eq!(node.level(), 2);
}

/// A separator that shares nothing with the others, in a node whose separators all begin alike, at both ends.
#[test]
fn a_stranger_among_separators_with_a_long_common_part() {
    for size in PAGE_SIZES {
        let max_key = limits(size).max_key;
        for stranger in [vec![1], vec![0xff; max_key]] {
            let mut first = page(size, PageKind::Inner, 1);
            build_root_with_child(&mut first, PageId(100));
            let mut nodes = InnerNodes { size, pages: vec![first], splits: 0 };
            for n in 0u32.. {
                let mut separator = vec![b'k'; max_key - 4];
                separator.extend_from_slice(&n.to_be_bytes());
                let child = Inner::new(&nodes.pages[0]).search(&separator);
                let change = InnerChange::Split { child, separator: &separator, right: PageId(200 + n) };
                if !InnerPlan::new(Inner::new(&nodes.pages[0]), change).fits() {
                    break;
                }
                nodes.change(0, change);
            }
            let child = Inner::new(&nodes.pages[0]).search(&stranger);
            nodes.change(0, InnerChange::Split { child, separator: &stranger, right: PageId(999) });
            assert_eq!(nodes.search(&stranger), PageId(999));
            nodes.search(&[b'k'; 8]);
        }
    }
}

/// Ascending keys that leave exactly `free` bytes in the rightmost leaf, then one more key: the left half
/// keeps all if its new fence finds room.
#[test]
fn ascending_splits_that_fill_exactly() {
    for size in PAGE_SIZES {
        for free in 0..=24 {
            for key_len in [4, 24] {
                let key = |n: usize| format!("{n:0key_len$}").into_bytes();
                let mut row = Leaves::new(size);
                let cell = 10 + key_len + 150;
                let mut n = 0;
                while Leaf::new(&row.pages[0]).free_bytes() >= 2 * cell + free {
                    row.put(&key(n), &Value::Inline(vec![7; 150]));
                    n += 1;
                }
                let rest = Leaf::new(&row.pages[0]).free_bytes() - free;
                row.put(&key(n), &Value::Inline(vec![8; rest - 10 - key_len]));
                assert_eq!(Leaf::new(&row.pages[0]).free_bytes(), free);
                row.put(&key(n + 1), &Value::Inline(vec![9; 150]));
                assert_eq!(row.pages.len(), 2);
                assert_eq!(row.content().len(), n + 2);
                // The leftmost leaf has no prefix to gain, so its new fence needs room of its own.
                let fence = common_prefix(&key(n), &key(n + 1)) + 1;
                let kept = if free >= fence { n + 1 } else { n };
                assert_eq!(Leaf::new(&row.pages[0]).count(), kept, "{size} {free} {key_len}");
            }
        }
    }
}

/// Many ascending sequences side by side fill their leaves, though none but one of them runs at the tree's
/// right edge.
#[test]
fn sequences_with_prefixes_fill_their_leaves() {
    let mut row = Leaves::new(4096);
    for n in 0..500 {
        for tenant in 0..10 {
            let key = format!("tenant{tenant:02}/{n:08}").into_bytes();
            row.put(&key, &Value::Inline(vec![1; 80]));
        }
    }
    let live: usize = row.pages.iter().map(|page| Leaf::new(page).live_bytes()).sum();
    let full = live * 100 / (row.pages.len() * Leaf::new(&row.pages[0]).capacity());
    assert!(full >= 85, "{full} % full");
}

/// Full leaves of the longest keys and cells, and one cell more, at every place.
#[test]
fn the_longest_cells_always_split() {
    for size in [4096, 16384, 65536] {
        let Limits { max_key, max_inline_cell } = limits(size);
        for seed in 0..400 {
            let mut rng = Rng::new(seed);
            let mut row = Leaves::new(size);
            for _ in 0..24 {
                let mut key = vec![rng.below(3) as u8; max_key - rng.below(3)];
                let most = [4, key.len()][rng.below(2)];
                let at = rng.below(most);
                key[at] = rng.next() as u8;
                if rng.below(3) == 0 {
                    key.truncate(rng.below(20));
                }
                let value = vec![1; (max_inline_cell - key.len()).saturating_sub(rng.below(4))];
                row.put(&key, &Value::Inline(value));
            }
        }
    }
}

#[test]
fn a_merge_whose_prefix_shrinks_may_not_fit() {
    let size = 4096;
    let fill = |lower: &[u8], upper: &[u8], prefix: &[u8]| {
        let mut page = page(size, PageKind::Leaf, 0);
        let mut leaf = LeafMut::init(&mut page, lower, Some(upper));
        for n in 0..25u32 {
            let key = [prefix, &n.to_be_bytes()].concat();
            let at = leaf.view().search(&key).unwrap_err();
            leaf.insert(at, &key, super::CellValue::Inline(&[1; 10]), &mut Vec::new());
        }
        check(&page);
        page
    };
    let long = [b'k'; 60];
    let left = fill(&long, &[&long[..], &[1]].concat(), &long);
    let right = fill(&[&long[..], &[1]].concat(), b"z", &[&long[..], &[1]].concat());
    let (left, right) = (Leaf::new(&left), Leaf::new(&right));
    assert_eq!((left.prefix_len(), right.prefix_len()), (60, 0));
    assert!(left.live_bytes() + right.live_bytes() < left.capacity() && !merge_fits(left, right));
    assert_eq!(merged_bytes(left, right), 25 * (10 + 64 + 10) + 25 * (10 + 65 + 10) + 60 + 1);
}
