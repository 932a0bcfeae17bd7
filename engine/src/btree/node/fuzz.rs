//! The fuzz target of a page: bytes that [`verify`] accepts must be good for everything that is done with a node.

use super::{
    CellValue, Change, Fit, Inner, InnerChange, InnerPlan, InnerSplit, Leaf, LeafMut, OverflowData,
    OverflowIndex, OverflowRef, SplitPlan, build_overflow_data, build_overflow_index, limits, verify,
};
use bedstone_bufpool::{HEADER_BYTES, PageHeader, PageId, PageKind};
use bedstone_io::fuzz::{Input, fitted};

/// One page. Input: the page size and seven bytes that choose changes, the length of the front, the front, the back;
/// between the two there are zeros, so that nodes with few cells are short inputs.
pub(crate) fn page(data: &[u8]) {
    let mut input = Input::new(data);
    let size = 4096 << (input.u8() % 5);
    let changes: [u8; 7] = std::array::from_fn(|_| input.u8());
    let front_len = usize::from(input.u16()).min(size);
    let mut page = fitted(input.bytes(front_len), size);
    let back = input.rest();
    let back = &back[back.len().saturating_sub(size - front_len)..];
    let at = size - back.len();
    page[at..].copy_from_slice(back);
    let header = PageHeader::read(&page);
    if verify(&header, &page).is_err() {
        return;
    }
    match PageKind::from_byte(header.kind) {
        Some(PageKind::Leaf) => leaf(&page, changes),
        Some(PageKind::Inner) => inner(&page, changes),
        Some(PageKind::OverflowIndex) => {
            let index = OverflowIndex::new(&page);
            let ids: Vec<PageId> = index.ids().collect();
            let mut again = page.clone();
            build_overflow_index(&mut again, index.level(), &ids);
            assert!(again == page, "an index page that no writer writes");
        }
        Some(PageKind::OverflowData) => {
            let mut again = page.clone();
            build_overflow_data(&mut again, OverflowData::new(&page).bytes());
            assert!(again == page, "a data page that no writer writes");
        }
        None => panic!("a page without a kind was accepted"),
    }
}

fn check(page: &[u8]) {
    if let Err(what) = verify(&PageHeader::read(page), page) {
        panic!("a change of a page that was accepted gave one that is not: {what}");
    }
}

/// A page with the envelope of `page` and nothing else.
fn like(page: &[u8]) -> Vec<u8> {
    fitted(&page[..HEADER_BYTES], page.len())
}

/// Key and value of every cell.
fn cells(leaf: Leaf<'_>) -> Vec<(Vec<u8>, CellValue<'_>)> {
    let cells = leaf.cells().map(|cell| (cell.key, cell.value.expect("a leaf has values")));
    cells.collect()
}

fn leaf(page: &[u8], changes: [u8; 7]) {
    let leaf = Leaf::new(page);
    let all = cells(leaf);
    for (i, (key, _)) in all.iter().enumerate() {
        assert!(leaf.covers(key) && leaf.search(key) == Ok(i) && leaf.lower_bound(key) == i);
    }
    // The same leaf made from nothing.
    let (mut again, mut scratch) = (like(page), Vec::new());
    let mut made = LeafMut::init(&mut again, leaf.lower(), leaf.upper());
    for (i, (key, value)) in all.iter().enumerate() {
        made.insert(i, key, *value, &mut scratch);
    }
    check(&again);
    assert_eq!(cells(Leaf::new(&again)), all);

    // One change of it, which is made in place or by a split.
    let [what, which, len, short, long, first, second] = changes;
    let limits = limits(page.len());
    let bytes = vec![long; (usize::from(len) << (short % 8)).min(limits.max_inline_cell)];
    let reference = OverflowRef { len: 1 + u64::from(len), index: PageId(1 + u32::from(which)), crc: 7 };
    let mut key = leaf.lower().to_vec();
    key.extend_from_slice(&[first, second]);
    key.truncate(limits.max_key);
    let room = |key: usize| match what & 1 {
        0 => CellValue::Inline(&bytes[..bytes.len().min(limits.max_inline_cell - key)]),
        _ => CellValue::Overflow(reference),
    };
    let at = usize::from(which) % all.len().max(1);
    let change = match leaf.search(&key) {
        Err(at) if what & 2 == 0 && leaf.covers(&key) => {
            Change::Insert { at, key: &key, value: room(key.len()) }
        }
        _ if all.is_empty() => return,
        _ => Change::Update { at, value: room(leaf.key_len(at)) },
    };
    let (fit, count) = match &change {
        Change::Insert { key, value, .. } => (leaf.fits(key.len(), value), all.len() + 1),
        Change::Update { at, value } => (leaf.fits_update(*at, value), all.len()),
        #[cfg(test)]
        Change::None => (Fit::InPlace, all.len()),
    };
    if fit == Fit::No {
        let (mut left, mut right) = (like(page), like(page));
        let plan = SplitPlan::of(leaf, change);
        plan.build_left(&mut left);
        plan.build_right(&mut right);
        check(&left);
        check(&right);
        assert_eq!(Leaf::new(&left).count() + Leaf::new(&right).count(), count);
        return;
    }
    let mut changed = page.to_vec();
    let mut leaf = LeafMut::new(&mut changed);
    leaf.apply(&change, &mut scratch);
    assert_eq!(leaf.view().count(), count);
    if what & 4 == 0 {
        leaf.compact(&mut scratch);
    }
    leaf.remove(at);
    check(&changed);
    let mut leaf = LeafMut::new(&mut changed);
    while leaf.view().count() > 0 {
        leaf.remove(usize::from(which) % leaf.view().count());
    }
    check(&changed);
}

fn inner(page: &[u8], changes: [u8; 7]) {
    let node = Inner::new(page);
    assert!(node.level() > 0 && node.live_bytes() <= node.capacity());
    let mut separator = Vec::new();
    for i in 0..node.count() {
        node.separator_to(i, &mut separator);
        assert!(node.covers(&separator));
        assert_eq!((node.search(&separator), node.search_below(&separator)), (i + 1, i));
        assert_eq!((node.child_upper(i).as_ref(), &node.child_lower(i + 1)), (Some(&separator), &separator));
    }
    let [what, which, count, first, second, ..] = changes;
    let children = node.count() + 1;
    let at = usize::from(which) % children;
    let mut key = node.child_lower(at);
    key.extend_from_slice(&[first, second]);
    key.truncate(limits(page.len()).max_key);
    let inside = node.child_lower(at) < key && node.child_upper(at).is_none_or(|upper| key < upper);
    // Any page but none and the node itself.
    let right = PageId(PageHeader::read(page).page.0.checked_add(1).unwrap_or(1));
    let change = match what % 3 {
        0 if inside => InnerChange::Split { child: at, separator: &key, right },
        1 if at + 1 < children => InnerChange::Merge { child: at },
        _ => {
            InnerChange::Remove { first: at, count: usize::from(count).min(children - 1).min(children - at) }
        }
    };
    let plan = InnerPlan::new(node, change);
    if plan.fits() {
        let mut changed = like(page);
        plan.build(&mut changed);
        check(&changed);
        assert_eq!(Inner::new(&changed).count(), plan.count());
    } else {
        let (mut left, mut right) = (like(page), like(page));
        let split = InnerSplit::of(plan);
        split.build_left(&mut left);
        split.build_right(&mut right);
        check(&left);
        check(&right);
        assert_eq!(Inner::new(&left).count() + Inner::new(&right).count() + 1, plan.count());
    }
}
