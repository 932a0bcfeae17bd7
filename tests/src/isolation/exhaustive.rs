//! The same verdicts by trying everything: for histories of a few transactions, looks for an order that gives exactly
//! what was read, and in which whoever began after the end of another comes after it. Slow and simple, to compare the
//! checker with. Knows no crashes.

use std::collections::BTreeMap;

use super::history::{Element, End, History, Key, Op, Txn};

type State = BTreeMap<Key, Vec<Element>>;

/// Runs a transaction on a state: what it leaves, or `None` if it would not have read what it did.
fn replay(txn: &Txn, state: &State) -> Option<State> {
    let mut state = state.clone();
    for op in &txn.ops {
        match op {
            Op::Read { key, list } => {
                if state.get(key).map_or(&[][..], |held| held) != *list {
                    return None;
                }
            }
            Op::Append { key, element } => state.entry(*key).or_default().push(*element),
            Op::Range { low, high, found } => {
                if !state.range(*low..*high).eq(found) {
                    return None;
                }
            }
        }
    }
    Some(state)
}

/// Whether the committed transactions can have run one after the other.
pub fn is_serializable(history: &History) -> bool {
    fn search(left: &mut Vec<&Txn>, state: &State) -> bool {
        if left.is_empty() {
            return true;
        }
        for at in 0..left.len() {
            let late = left.iter().any(|other| other.ended < left[at].began);
            if !late && let Some(after) = replay(left[at], state) {
                let txn = left.remove(at);
                if search(left, &after) {
                    return true;
                }
                left.insert(at, txn);
            }
        }
        false
    }
    let mut committed: Vec<&Txn> = history.txns.iter().filter(|txn| txn.end == End::Committed).collect();
    search(&mut committed, &State::new())
}

/// Whether every transaction, those that were rolled back too, can have read from a snapshot, and no two with a write
/// of the same key were under way at once and committed.
pub fn is_snapshot_isolated(history: &History) -> bool {
    let mut waiting: Vec<&Txn> = history.txns.iter().collect();
    search(&mut waiting, &mut Vec::new(), &State::new())
}

/// `open`: those that have taken their snapshot, with the keys that were committed since.
fn search<'t>(waiting: &mut Vec<&'t Txn>, open: &mut Vec<(&'t Txn, Vec<Key>)>, state: &State) -> bool {
    if waiting.is_empty() && open.is_empty() {
        return true;
    }
    // One that does not write is over with its snapshot, at any moment that fits, so the first that fits is taken.
    for at in 0..waiting.len() {
        let txn = waiting[at];
        let before = |other: &&Txn| other.ended < txn.began;
        let late =
            waiting.iter().any(before) || open.iter().map(|(other, _)| *other).any(|other| before(&other));
        if late || replay(txn, state).is_none() {
            continue;
        }
        waiting.remove(at);
        let ends = txn.end != End::Committed || !txn.writes();
        if !ends {
            open.push((txn, Vec::new()));
        }
        let found = search(waiting, open, state);
        if !ends {
            open.pop();
        }
        waiting.insert(at, txn);
        if found || ends {
            return found;
        }
    }
    for at in 0..open.len() {
        let (txn, changed) = open[at].clone();
        let appends: Vec<(Key, Element)> = txn
            .ops
            .iter()
            .filter_map(|op| if let Op::Append { key, element } = op { Some((*key, *element)) } else { None })
            .collect();
        if appends.iter().any(|(key, _)| changed.contains(key)) {
            continue;
        }
        let mut after = state.clone();
        let mut others = open.clone();
        others.remove(at);
        for (key, element) in appends {
            after.entry(key).or_default().push(element);
            others.iter_mut().for_each(|(_, changed)| changed.push(key));
        }
        if search(waiting, &mut others, &after) {
            return true;
        }
    }
    false
}
