//! What follows from the lists alone, before any graph: who wrote what, what each transaction saw, the order of the
//! versions of each key, and the anomalies that show here already.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::check::{Anomaly, Finding};
use super::history::{Element, End, History, Key, Op, show_list};

/// Where an element comes from.
#[derive(Debug, Clone, Copy)]
pub struct Write {
    /// The transaction that appended it.
    pub txn: usize,
    /// The key.
    pub key: Key,
    /// Whether the same transaction appended to the key again later.
    pub intermediate: bool,
}

/// The version of a key that a transaction saw, its own appends taken off.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The key.
    pub key: Key,
    /// The version.
    pub list: Vec<Element>,
    /// Whether only a range showed it.
    pub by_range: bool,
}

/// What a transaction counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It took effect: it was acknowledged, or was under way in a crash and somebody saw its writes.
    Effective,
    /// It did not, as far as anybody saw. What it read came from a snapshot all the same.
    ReaderOnly,
}

/// All of that.
#[derive(Debug)]
pub struct Lists {
    /// By element.
    pub writes: HashMap<Element, Write>,
    /// By transaction, one entry for each key it read.
    pub seen: Vec<Vec<Seen>>,
    /// By transaction.
    pub standing: Vec<Standing>,
    /// The longest list seen, by key and phase.
    pub orders: BTreeMap<(Key, u32), Vec<Element>>,
    /// What is wrong already.
    pub findings: Vec<Finding>,
    /// Keys that anybody appended to.
    keys: BTreeSet<Key>,
}

impl Lists {
    /// Looks at every list of a history. `readers_wait` as in [`super::Options`].
    pub fn of(history: &History, readers_wait: bool) -> Self {
        let mut lists = Self {
            writes: HashMap::new(),
            seen: Vec::new(),
            standing: Vec::new(),
            orders: BTreeMap::new(),
            findings: Vec::new(),
            keys: BTreeSet::new(),
        };
        lists.note_writes(history);
        for number in 0..history.txns.len() {
            let seen = lists.walk(history, number);
            lists.seen.push(seen);
        }
        lists.judge_sources(history);
        lists.judge_orders(history);
        let lost = lists.judge_survival(history, readers_wait);
        lists.judge_updates(history, &lost);
        lists
    }

    fn find(&mut self, anomaly: Anomaly, txns: &[usize], keys: &[Key], text: String) {
        self.findings.push(Finding { anomaly, txns: txns.to_vec(), keys: keys.to_vec(), text });
    }

    fn note_writes(&mut self, history: &History) {
        for (txn, record) in history.txns.iter().enumerate() {
            let mut last: HashMap<Key, Element> = HashMap::new();
            for op in &record.ops {
                let Op::Append { key, element } = op else { continue };
                self.keys.insert(*key);
                if let Some(before) = last.insert(*key, *element)
                    && let Some(write) = self.writes.get_mut(&before)
                {
                    write.intermediate = true;
                }
                let write = Write { txn, key: *key, intermediate: false };
                if let Some(other) = self.writes.insert(*element, write) {
                    let text =
                        format!("T{} and T{txn} both append {element}: the history is unusable", other.txn);
                    self.find(Anomaly::Duplicate, &[other.txn, txn], &[*key], text);
                }
            }
        }
    }

    /// Follows one transaction through its operations.
    fn walk(&mut self, history: &History, number: usize) -> Vec<Seen> {
        #[derive(Default)]
        struct Held {
            base: Option<usize>,
            own: Vec<Element>,
        }
        let mut held: BTreeMap<Key, Held> = BTreeMap::new();
        let mut seen: Vec<Seen> = Vec::new();
        for op in &history.txns[number].ops {
            let views: Vec<(Key, &[Element], bool)> = match op {
                Op::Append { key, element } => {
                    held.entry(*key).or_default().own.push(*element);
                    continue;
                }
                Op::Read { key, list } => vec![(*key, list, false)],
                Op::Range { low, high, found } => {
                    // What is not in the answer was looked for as well. Keys that nobody ever appended to may be
                    // left out.
                    let mut keys: BTreeSet<Key> = found.keys().copied().collect();
                    keys.extend(self.keys.range(*low..*high));
                    let list = |key| found.get(&key).map_or(&[][..], |list| &list[..]);
                    keys.into_iter().map(|key| (key, list(key), true)).collect()
                }
            };
            for (key, list, by_range) in views {
                let Held { base, own } = held.entry(key).or_default();
                let what = || format!("T{number} read key {key} as {}", show_list(list));
                if !list.ends_with(own) {
                    let text = format!("{}, but had appended {} itself", what(), show_list(own));
                    self.find(Anomaly::Internal, &[number], &[key], text);
                    continue;
                }
                let version = &list[..list.len() - own.len()];
                match *base {
                    Some(at) => {
                        if seen[at].list != version {
                            let first = show_list(&seen[at].list);
                            let text = format!("{}, but first as {first} and its own appends", what());
                            self.find(Anomaly::NonRepeatableRead, &[number], &[key], text);
                        }
                        seen[at].by_range &= by_range;
                    }
                    None => {
                        *base = Some(seen.len());
                        if version.iter().any(|e| self.writes.get(e).is_some_and(|write| write.txn == number))
                        {
                            let text = format!("{}, with appends of its own that were not there yet", what());
                            self.find(Anomaly::Internal, &[number], &[key], text);
                        }
                        seen.push(Seen { key, list: version.to_vec(), by_range });
                    }
                }
            }
        }
        seen
    }

    /// Where the elements of each list come from, and so which unknown transactions took effect.
    fn judge_sources(&mut self, history: &History) {
        self.standing = history
            .txns
            .iter()
            .map(|txn| if txn.end == End::Committed { Standing::Effective } else { Standing::ReaderOnly })
            .collect();
        let all = std::mem::take(&mut self.seen);
        for (number, seen) in all.iter().enumerate() {
            for Seen { key, list, .. } in seen {
                let what = || format!("T{number} read key {key} as {}", show_list(list));
                let mut once = BTreeSet::new();
                for element in list {
                    if !once.insert(element) {
                        let text = format!("{}: {element} is there twice", what());
                        self.find(Anomaly::Duplicate, &[number], &[*key], text);
                    }
                    let Some(write) = self.writes.get(element).copied().filter(|write| write.key == *key)
                    else {
                        let text = format!("{}: nobody appended {element} to this key", what());
                        self.find(Anomaly::Invented, &[number], &[*key], text);
                        continue;
                    };
                    match history.txns[write.txn].end {
                        End::Aborted if write.txn != number => {
                            let text = format!("{}: {element} is of T{}, rolled back", what(), write.txn);
                            self.find(Anomaly::G1a, &[number, write.txn], &[*key], text);
                        }
                        End::Unknown if write.txn != number => self.standing[write.txn] = Standing::Effective,
                        _ => {}
                    }
                }
                if let Some(write) = list.last().and_then(|element| self.writes.get(element)).copied()
                    && write.intermediate
                    && write.txn != number
                    && write.key == *key
                {
                    let text = format!("{}: T{} appended more to it", what(), write.txn);
                    self.find(Anomaly::G1b, &[number, write.txn], &[*key], text);
                }
            }
        }
        self.seen = all;
    }

    /// The versions of a key are the beginnings of one list.
    fn judge_orders(&mut self, history: &History) {
        let mut longest: BTreeMap<(Key, u32), (usize, &[Element])> = BTreeMap::new();
        for (number, seen) in self.seen.iter().enumerate() {
            for Seen { key, list, .. } in seen {
                let entry = longest.entry((*key, history.txns[number].phase)).or_insert((number, list));
                if list.len() > entry.1.len() {
                    *entry = (number, list);
                }
            }
        }
        let mut findings = Vec::new();
        for (number, seen) in self.seen.iter().enumerate() {
            for Seen { key, list, .. } in seen {
                let (other, order) = longest[&(*key, history.txns[number].phase)];
                if !order.starts_with(list) {
                    let (one, two) = (show_list(list), show_list(order));
                    let text =
                        format!("T{number} read key {key} as {one}, T{other} as {two}: no order gives both");
                    findings.push(Finding {
                        anomaly: Anomaly::IncompatibleOrder,
                        txns: vec![number, other],
                        keys: vec![*key],
                        text,
                    });
                }
            }
        }
        self.orders = longest.into_iter().map(|(at, (_, list))| (at, list.to_vec())).collect();
        self.findings.append(&mut findings);
    }

    /// Whether an element was there in a phase; `None` if nobody looked.
    fn holds(&self, key: Key, element: Element, phase: u32) -> Option<bool> {
        self.orders.get(&(key, phase)).map(|order| order.contains(&element))
    }

    /// What is acknowledged stays, and a crash takes back whole transactions only, with all that read them. Returns
    /// the transactions that a crash took back.
    fn judge_survival(&mut self, history: &History, readers_wait: bool) -> BTreeSet<usize> {
        let phases: BTreeSet<u32> = history.txns.iter().map(|txn| txn.phase).collect();
        let mut appends: Vec<Vec<(Key, Element)>> = vec![Vec::new(); history.txns.len()];
        for (element, write) in &self.writes {
            appends[write.txn].push((write.key, *element));
        }
        // The last moment at which somebody began who looked at the key, by key and phase.
        let mut looked: HashMap<(Key, u32), u64> = HashMap::new();
        for (number, seen) in self.seen.iter().enumerate() {
            for Seen { key, .. } in seen {
                let moment = looked.entry((*key, history.txns[number].phase)).or_default();
                *moment = history.txns[number].began.max(*moment);
            }
        }
        let mut lost = BTreeSet::new();
        for (number, txn) in history.txns.iter().enumerate() {
            appends[number].sort_unstable();
            if txn.end == End::Aborted || appends[number].is_empty() {
                continue;
            }
            let mut survived = None;
            for phase in phases.range(txn.phase..) {
                let same = *phase == txn.phase;
                if same && txn.end == End::Unknown {
                    continue;
                }
                let (mut there, mut gone) = (Vec::new(), Vec::new());
                for (key, element) in &appends[number] {
                    let asked = !same || looked.get(&(*key, *phase)).is_some_and(|began| *began > txn.ended);
                    match self.holds(*key, *element, *phase) {
                        Some(true) => there.push((*key, *element)),
                        Some(false) if asked => gone.push((*key, *element)),
                        _ => {}
                    }
                }
                let show = |all: &[(Key, Element)]| {
                    let all: Vec<String> = all.iter().map(|(key, e)| format!("{e} of key {key}")).collect();
                    all.join(", ")
                };
                let keys: Vec<Key> = gone.iter().map(|(key, _)| *key).collect();
                if !same && !there.is_empty() && !gone.is_empty() {
                    let (there, gone) = (show(&there), show(&gone));
                    let text = format!("of T{number} ({}) a crash left {there} but not {gone}", txn.end);
                    self.find(Anomaly::TornCommit, &[number], &keys, text);
                } else if !gone.is_empty() && (txn.end == End::Committed || survived == Some(true)) {
                    let text =
                        format!("T{number} ({}) appended {}, gone in phase {phase}", txn.end, show(&gone));
                    self.find(Anomaly::Vanished, &[number], &keys, text);
                } else if !there.is_empty() && survived == Some(false) {
                    let text =
                        format!("T{number} was lost in a crash, {} is there in phase {phase}", show(&there));
                    self.find(Anomaly::Invented, &[number], &keys, text);
                }
                if !there.is_empty() {
                    survived = Some(true);
                } else if !gone.is_empty() {
                    survived = Some(false);
                }
            }
            if txn.end == End::Unknown && survived == Some(false) {
                lost.insert(number);
            }
        }
        let mut findings = Vec::new();
        for (number, seen) in self.seen.iter().enumerate() {
            let txn = &history.txns[number];
            let promised = match txn.end {
                End::Committed => readers_wait || txn.writes(),
                End::Unknown => self.standing[number] == Standing::Effective && !lost.contains(&number),
                End::Aborted => false,
            };
            if !promised {
                continue;
            }
            for Seen { key, list, .. } in seen {
                let source = |element| self.writes.get(element).map(|write| write.txn);
                let Some(from) = list.iter().filter_map(source).find(|from| lost.contains(from)) else {
                    continue;
                };
                // A transaction that is itself of the phase and unknown is effective only if it was seen later.
                if from == number || history.txns[from].phase != txn.phase {
                    continue;
                }
                if txn.end == End::Unknown && !self.seen_after(history, number) {
                    continue;
                }
                findings.push(Finding {
                    anomaly: Anomaly::ReadOfLost,
                    txns: vec![number, from],
                    keys: vec![*key],
                    text: format!(
                        "T{number} ({}) read key {key} as {}, and a crash took T{from} back",
                        txn.end,
                        show_list(list)
                    ),
                });
            }
        }
        self.findings.append(&mut findings);
        lost
    }

    /// Whether something of this transaction was there in a later phase.
    fn seen_after(&self, history: &History, number: usize) -> bool {
        let phase = history.txns[number].phase;
        self.orders.iter().filter(|((_, at), _)| *at > phase).any(|((_, _), order)| {
            order.iter().any(|element| self.writes.get(element).is_some_and(|write| write.txn == number))
        })
    }

    /// Two that took effect and replaced the same version of a key.
    fn judge_updates(&mut self, history: &History, lost: &BTreeSet<usize>) {
        let mut updates: BTreeMap<(Key, &[Element]), Vec<usize>> = BTreeMap::new();
        for (number, seen) in self.seen.iter().enumerate() {
            if self.standing[number] != Standing::Effective || lost.contains(&number) {
                continue;
            }
            for Seen { key, list, .. } in seen {
                let appends = |op: &Op| matches!(op, Op::Append { key: to, .. } if to == key);
                if history.txns[number].ops.iter().any(appends) {
                    updates.entry((*key, list)).or_default().push(number);
                }
            }
        }
        let clashes: Vec<Finding> = updates
            .into_iter()
            .filter(|(_, txns)| txns.len() > 1)
            .map(|((key, list), txns)| {
                let names: Vec<String> = txns.iter().map(|txn| format!("T{txn}")).collect();
                let text = format!(
                    "{} all read key {key} as {} and appended to it",
                    names.join(" and "),
                    show_list(list)
                );
                Finding { anomaly: Anomaly::LostUpdate, txns, keys: vec![key], text }
            })
            .collect();
        self.findings.extend(clashes);
    }
}
