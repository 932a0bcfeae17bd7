//! Cycles of dependencies: whether there are any that a level forbids, and the shortest of each class to show.

use std::collections::VecDeque;

use super::check::Anomaly;
use super::graph::{Edge, Kind, components};

/// A cycle: each edge begins where the one before ended, the first where the last ended.
#[derive(Debug, Clone)]
pub struct Cycle {
    /// Its class.
    pub anomaly: Anomaly,
    /// Its edges.
    pub edges: Vec<Edge>,
}

/// What a step of a search may use, and what the whole walk must have.
struct Search<'a> {
    count: usize,
    /// Edges out of each node that are allowed.
    out: Vec<Vec<&'a Edge>>,
    /// Whether two rw edges in a row are allowed.
    adjacent: bool,
    /// Whether a walk may go through no transaction twice.
    simple: bool,
}

/// State of a walk: what came so far, as far as the class depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    node: usize,
    last_rw: bool,
    /// Of the rw edges so far: one, or more.
    several: bool,
    /// Whether two came in a row.
    adjacent: bool,
}

impl State {
    fn code(self) -> usize {
        self.node * 8
            + usize::from(self.last_rw)
            + 2 * usize::from(self.several)
            + 4 * usize::from(self.adjacent)
    }

    fn after(self, edge: &Edge) -> Self {
        let rw = edge.kind.is_rw();
        Self {
            node: edge.to,
            last_rw: rw,
            several: self.several || rw,
            adjacent: self.adjacent || (rw && self.last_rw),
        }
    }
}

impl<'a> Search<'a> {
    fn new(count: usize, edges: &[&'a Edge], adjacent: bool) -> Self {
        let mut out: Vec<Vec<&Edge>> = vec![Vec::new(); count];
        for edge in edges {
            out[edge.from].push(edge);
        }
        Self { count, out, adjacent, simple: true }
    }

    /// The shortest walk that begins with `first`, ends where that begins, and is `wanted` by its end
    /// state.
    fn shortest(&self, first: &'a Edge, wanted: impl Fn(State) -> bool) -> Option<Vec<Edge>> {
        let start = State { node: first.to, last_rw: first.kind.is_rw(), several: false, adjacent: false };
        let mut came: Vec<Option<(State, &Edge)>> = vec![None; self.count * 8];
        let mut visited = vec![false; self.count * 8];
        let mut queue = VecDeque::from([start]);
        visited[start.code()] = true;
        while let Some(state) = queue.pop_front() {
            for edge in &self.out[state.node] {
                let next = state.after(edge);
                if next.adjacent && !self.adjacent {
                    continue;
                }
                if edge.to == first.from {
                    // The first edge follows upon the last.
                    let round = next.last_rw && first.kind.is_rw();
                    let whole = State { adjacent: next.adjacent || round, ..next };
                    if (round && !self.adjacent) || !wanted(whole) {
                        continue;
                    }
                    let mut walk = vec![**edge];
                    let mut at = state;
                    while let Some((before, edge)) = came[at.code()] {
                        walk.push(*edge);
                        at = before;
                    }
                    walk.push(*first);
                    walk.reverse();
                    if !self.simple || is_simple(&walk) {
                        return Some(walk);
                    }
                    continue;
                }
                if !std::mem::replace(&mut visited[next.code()], true) {
                    came[next.code()] = Some((state, edge));
                    queue.push_back(next);
                }
            }
        }
        None
    }

    fn shortest_of(
        &self,
        firsts: impl Iterator<Item = &'a Edge>,
        wanted: impl Fn(State) -> bool,
    ) -> Option<Vec<Edge>> {
        let mut best: Option<Vec<Edge>> = None;
        for first in firsts {
            if let Some(walk) = self.shortest(first, &wanted)
                && best.as_ref().is_none_or(|best| walk.len() < best.len())
            {
                best = Some(walk);
            }
            // No cycle is shorter than two.
            if best.as_ref().is_some_and(|best| best.len() == 2) {
                break;
            }
        }
        best
    }
}

fn is_simple(walk: &[Edge]) -> bool {
    let mut nodes: Vec<usize> = walk.iter().map(|edge| edge.from).collect();
    nodes.sort_unstable();
    nodes.windows(2).all(|pair| pair[0] != pair[1])
}

/// Whether no snapshots explain the edges. With a snapshot and a commit for each transaction, in this order, ww, wr
/// and rt go from the commit of the one to the snapshot of the other, and rw goes from the snapshot to the commit: a
/// cycle in that graph is a closed walk without two rw in a row, and the reverse. This is linear where the search for
/// the shortest cycle is not.
fn tangled(count: usize, edges: &[&Edge]) -> bool {
    let (snapshot, commit) = (|txn: usize| 2 * txn, |txn: usize| 2 * txn + 1);
    let own = (0..count).map(|txn| (snapshot(txn), commit(txn)));
    let others = edges.iter().map(|edge| {
        if edge.kind.is_rw() {
            (snapshot(edge.from), commit(edge.to))
        } else {
            (commit(edge.from), snapshot(edge.to))
        }
    });
    let mut component = components(2 * count, own.chain(others));
    component.sort_unstable();
    component.windows(2).any(|pair| pair[0] == pair[1])
}

/// The shortest cycle of each class that snapshots forbid, in each component. None if and only if there is none.
pub fn without_adjacent(count: usize, edges: &[&Edge]) -> Vec<Cycle> {
    if !tangled(count, edges) {
        return Vec::new();
    }
    let component = components(count, edges.iter().map(|edge| (edge.from, edge.to)));
    let mut cycles = Vec::new();
    for inside in by_component(edges, &component) {
        let of = |wanted: &dyn Fn(Kind) -> bool| -> Vec<&Edge> {
            inside.iter().copied().filter(|edge| wanted(edge.kind)).collect()
        };
        let mut add = |anomaly, walk: Option<Vec<Edge>>| {
            if let Some(edges) = walk {
                cycles.push(Cycle { anomaly, edges });
            }
        };
        let of_time = |kind| kind == Kind::Rt;
        let writes = of(&|kind| kind == Kind::Ww || of_time(kind));
        let search = Search::new(count, &writes, false);
        add(
            Anomaly::G0,
            search.shortest_of(writes.iter().copied().filter(|edge| edge.kind == Kind::Ww), |_| true),
        );
        let flow = of(&|kind| !kind.is_rw());
        let search = Search::new(count, &flow, false);
        add(
            Anomaly::G1c,
            search.shortest_of(flow.iter().copied().filter(|edge| edge.kind == Kind::Wr), |_| true),
        );
        // One rw, the first edge.
        let antis = || inside.iter().copied().filter(|edge| edge.kind.is_rw());
        add(Anomaly::GSingle, search.shortest_of(antis(), |_| true));
        let search = Search::new(count, &inside, false);
        add(Anomaly::GNonadjacent, search.shortest_of(antis(), |state| state.several));
    }
    if cycles.is_empty() {
        // The search keeps one walk for each state, and all that it kept went through some transaction twice.
        let search = Search { simple: false, ..Search::new(count, edges, false) };
        let antis = edges.iter().copied().filter(|edge| edge.kind.is_rw());
        let walk = search.shortest_of(antis, |_| true);
        cycles.extend(walk.map(|edges| Cycle { anomaly: Anomaly::GNonadjacent, edges }));
    }
    cycles
}

/// The shortest cycle with two rw edges in a row, in each component: of keys read by themselves, and of ranges.
pub fn with_adjacent(count: usize, edges: &[&Edge]) -> Vec<Cycle> {
    let component = components(count, edges.iter().map(|edge| (edge.from, edge.to)));
    let mut cycles = Vec::new();
    for inside in by_component(edges, &component) {
        let items: Vec<&Edge> = inside.iter().copied().filter(|edge| edge.kind != Kind::RwRange).collect();
        let search = Search::new(count, &items, true);
        let antis = items.iter().copied().filter(|edge| edge.kind == Kind::Rw);
        if let Some(edges) = search.shortest_of(antis, |state| state.adjacent) {
            cycles.push(Cycle { anomaly: Anomaly::G2Item, edges });
        }
        let search = Search::new(count, &inside, true);
        let antis = inside.iter().copied().filter(|edge| edge.kind == Kind::RwRange);
        if let Some(edges) = search.shortest_of(antis, |state| state.adjacent) {
            cycles.push(Cycle { anomaly: Anomaly::G2, edges });
        }
    }
    cycles
}

/// The edges within each component of more than one node.
fn by_component<'a>(edges: &[&'a Edge], component: &[usize]) -> Vec<Vec<&'a Edge>> {
    let mut inside: std::collections::BTreeMap<usize, Vec<&Edge>> = std::collections::BTreeMap::new();
    for edge in edges {
        if component[edge.from] == component[edge.to] {
            inside.entry(component[edge.from]).or_default().push(edge);
        }
    }
    inside.into_values().collect()
}
