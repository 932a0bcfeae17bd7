//! The dependencies between the transactions of a history.

use std::collections::BTreeMap;

use super::history::{Element, History, Key};
use super::lists::{Lists, Standing};

/// What an edge says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The second wrote the version after one of the first.
    Ww,
    /// The second read a version of the first.
    Wr,
    /// The first ended before the second began.
    Rt,
    /// The first read a version that the second replaced, of a key that it asked for.
    Rw,
    /// The same, of a key that only a range covered.
    RwRange,
}

impl Kind {
    /// Whether it is an anti-dependency.
    pub fn is_rw(self) -> bool {
        matches!(self, Kind::Rw | Kind::RwRange)
    }
}

/// An edge, with its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// The earlier transaction.
    pub from: usize,
    /// The later one.
    pub to: usize,
    /// What it says.
    pub kind: Kind,
    /// The key; 0 for [`Kind::Rt`].
    pub key: Key,
    /// The element that the later one wrote (ww, rw) or read (wr).
    pub element: Element,
}

impl Edge {
    /// The reason in words.
    pub fn show(&self) -> String {
        let Self { from, to, kind, key, element } = self;
        match kind {
            Kind::Ww => format!(
                "T{from} -ww-> T{to}: T{to} appended {element} to key {key} after an append of T{from}"
            ),
            Kind::Wr => format!("T{from} -wr-> T{to}: T{to} read key {key} with {element} of T{from}"),
            Kind::Rw => {
                format!("T{from} -rw-> T{to}: T{from} read key {key} before {element} of T{to} was in it")
            }
            Kind::RwRange => {
                format!(
                    "T{from} -rw-> T{to}: T{from} read a range with key {key} before {element} of T{to} was in it"
                )
            }
            Kind::Rt => format!("T{from} -rt-> T{to}: T{from} had ended when T{to} began"),
        }
    }
}

/// The edges that follow from the lists: at most one of each kind between two transactions. Transactions that took no
/// effect have edges to and from what they read, none for what they wrote.
pub fn edges(history: &History, lists: &Lists) -> Vec<Edge> {
    let mut found: BTreeMap<(usize, usize, Kind), (Key, Element)> = BTreeMap::new();
    let mut add = |from: usize, to: usize, kind: Kind, key: Key, element: Element| {
        if from != to {
            found.entry((from, to, kind)).or_insert((key, element));
        }
    };
    let writer = |key: Key, element: &Element| {
        let write = lists.writes.get(element).filter(|write| write.key == key)?;
        (lists.standing[write.txn] == Standing::Effective).then_some(write.txn)
    };
    for ((key, _), order) in &lists.orders {
        let mut before: Option<usize> = None;
        for element in order {
            let Some(txn) = writer(*key, element) else { continue };
            if let Some(before) = before {
                add(before, txn, Kind::Ww, *key, *element);
            }
            before = Some(txn);
        }
    }
    for (number, seen) in lists.seen.iter().enumerate() {
        for version in seen {
            let key = version.key;
            let order = &lists.orders[&(key, history.txns[number].phase)];
            if !order.starts_with(&version.list) {
                continue;
            }
            if let Some((element, from)) =
                version.list.iter().rev().find_map(|element| Some((*element, writer(key, element)?)))
            {
                add(from, number, Kind::Wr, key, element);
            }
            let next = order[version.list.len()..]
                .iter()
                .find_map(|element| Some((*element, writer(key, element)?)));
            if let Some((element, to)) = next {
                add(number, to, if version.by_range { Kind::RwRange } else { Kind::Rw }, key, element);
            }
        }
    }
    found
        .into_iter()
        .map(|((from, to, kind), (key, element))| Edge { from, to, kind, key, element })
        .collect()
}

/// The order of time among some transactions: an edge for each pair of which one ended before the other began, save
/// those that follow from two others.
pub fn time_edges(history: &History, among: impl Fn(usize) -> bool) -> Vec<Edge> {
    let txns = &history.txns;
    let mut by_end: Vec<usize> = (0..txns.len()).filter(|number| among(*number)).collect();
    by_end.sort_by_key(|number| txns[*number].ended);
    let mut ended = by_end.into_iter().peekable();
    // Those that have ended, and before no other that has ended began.
    let mut front: Vec<usize> = Vec::new();
    let mut edges = Vec::new();
    for (to, txn) in txns.iter().enumerate().filter(|(number, _)| among(*number)) {
        while let Some(number) = ended.next_if(|number| txns[*number].ended < txn.began) {
            front.retain(|before| txns[*before].ended >= txns[number].began);
            front.push(number);
        }
        edges.extend(front.iter().map(|from| Edge { from: *from, to, kind: Kind::Rt, key: 0, element: 0 }));
    }
    edges
}

/// Strongly connected components (Tarjan: "Depth-first search and linear graph algorithms", SIAM J. Comput. 1972),
/// without recursion: the component of each of `count` nodes.
pub fn components(count: usize, edges: impl Iterator<Item = (usize, usize)>) -> Vec<usize> {
    const NONE: usize = usize::MAX;
    let mut next: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (from, to) in edges {
        next[from].push(to);
    }
    let (mut index, mut low) = (vec![NONE; count], vec![NONE; count]);
    let (mut component, mut stack, mut numbers) = (vec![NONE; count], Vec::new(), 0);
    let mut components = 0;
    for root in 0..count {
        if index[root] != NONE {
            continue;
        }
        let mut path = vec![(root, 0)];
        while let Some((node, at)) = path.last_mut() {
            let node = *node;
            if *at == 0 {
                index[node] = numbers;
                low[node] = numbers;
                numbers += 1;
                stack.push(node);
            }
            if let Some(to) = next[node].get(*at).copied() {
                *at += 1;
                if index[to] == NONE {
                    path.push((to, 0));
                } else if component[to] == NONE {
                    low[node] = low[node].min(index[to]);
                }
                continue;
            }
            // A node without edges comes here at its first visit; every other one at its last.
            path.pop();
            if let Some((parent, _)) = path.last() {
                low[*parent] = low[*parent].min(low[node]);
            }
            if low[node] == index[node] {
                while let Some(member) = stack.pop() {
                    component[member] = components;
                    if member == node {
                        break;
                    }
                }
                components += 1;
            }
        }
    }
    component
}
