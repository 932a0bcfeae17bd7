//! What a run records, and its form as text: one line for each transaction, which a person can read and the checker
//! can read again.
//!
//! ```text
//! T3 client 1 phase 0 at 12..19 committed serializable: read 4 [1 2]; append 4 3; range 4..7 {4 [1 2 3], 6 [9]}
//! ```

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter, Write as _};

/// A key. Stores may write it as they like, as long as the order stays.
pub type Key = u64;
/// A number appended, unique in a history.
pub type Element = u64;

/// One operation, with its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Reads a key; absent is empty.
    Read {
        /// Which.
        key: Key,
        /// What it held.
        list: Vec<Element>,
    },
    /// Appends a number to the list that the key held as read last.
    Append {
        /// To which.
        key: Key,
        /// What.
        element: Element,
    },
    /// Reads all keys from `low` to before `high`.
    Range {
        /// The first.
        low: Key,
        /// The first after it.
        high: Key,
        /// What was there; the keys not in here were absent.
        found: BTreeMap<Key, Vec<Element>>,
    },
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was told that it had committed.
    Committed,
    /// It was rolled back, or refused.
    Aborted,
    /// The commit was under way when the store went down.
    Unknown,
}

/// One transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Txn {
    /// Who made it.
    pub client: u64,
    /// How often the store had been opened anew before.
    pub phase: u32,
    /// A moment before it began.
    pub began: u64,
    /// A moment after it ended; for [`End::Unknown`] one at which it was decided, so after the crash.
    pub ended: u64,
    /// How.
    pub end: End,
    /// Whether it asked to be serializable, not only isolated by a snapshot.
    pub serializable: bool,
    /// What it did, in order, as far as it got.
    pub ops: Vec<Op>,
}

/// All that was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// By the moment of beginning; the index is the name: T0, T1, ...
    pub txns: Vec<Txn>,
}

impl Txn {
    /// Whether it appends anything.
    pub fn writes(&self) -> bool {
        self.ops.iter().any(|op| matches!(op, Op::Append { .. }))
    }
}

impl History {
    /// Orders the transactions by beginning.
    pub fn new(mut txns: Vec<Txn>) -> Self {
        txns.sort_by_key(|txn| txn.began);
        Self { txns }
    }

    /// Reads what [`Display`] wrote. Empty lines and those that begin with `#` say nothing.
    ///
    /// # Errors
    /// Names the line that is not of this form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut txns = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let txn = parse_txn(line).ok_or_else(|| format!("line {}: {line}", number + 1))?;
            txns.push(txn);
        }
        if !txns.is_sorted_by_key(|txn| txn.began) {
            return Err("the transactions are not in the order of their beginnings".into());
        }
        Ok(Self { txns })
    }
}

fn parse_txn(line: &str) -> Option<Txn> {
    let (head, ops) = line.split_once(':')?;
    let words: Vec<&str> = head.split_whitespace().collect();
    let [_, "client", client, "phase", phase, "at", times, end, rest @ ..] = &words[..] else { return None };
    let (began, ended) = times.split_once("..")?;
    Some(Txn {
        client: client.parse().ok()?,
        phase: phase.parse().ok()?,
        began: began.parse().ok()?,
        ended: ended.parse().ok()?,
        end: match *end {
            "committed" => End::Committed,
            "aborted" => End::Aborted,
            "unknown" => End::Unknown,
            _ => return None,
        },
        serializable: match rest {
            [] => false,
            ["serializable"] => true,
            _ => return None,
        },
        ops: ops
            .split(';')
            .map(str::trim)
            .filter(|op| !op.is_empty())
            .map(parse_op)
            .collect::<Option<Vec<Op>>>()?,
    })
}

fn parse_op(text: &str) -> Option<Op> {
    let (word, rest) = text.split_once(' ')?;
    let (first, rest) = rest.trim().split_once(' ')?;
    match word {
        "read" => Some(Op::Read { key: first.parse().ok()?, list: parse_list(rest)? }),
        "append" => Some(Op::Append { key: first.parse().ok()?, element: rest.trim().parse().ok()? }),
        "range" => {
            let (low, high) = first.split_once("..")?;
            let inner = rest.trim().strip_prefix('{')?.strip_suffix('}')?;
            let mut found = BTreeMap::new();
            for entry in inner.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
                let (key, list) = entry.split_once(' ')?;
                found.insert(key.parse().ok()?, parse_list(list)?);
            }
            Some(Op::Range { low: low.parse().ok()?, high: high.parse().ok()?, found })
        }
        _ => None,
    }
}

fn parse_list(text: &str) -> Option<Vec<Element>> {
    let inner = text.trim().strip_prefix('[')?.strip_suffix(']')?;
    inner.split_whitespace().map(|number| number.parse().ok()).collect()
}

/// A list as it stands in the text.
pub fn show_list(list: &[Element]) -> String {
    let mut text = String::from("[");
    for (at, element) in list.iter().enumerate() {
        let _ = write!(text, "{}{element}", if at == 0 { "" } else { " " });
    }
    text + "]"
}

impl Display for Op {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Op::Read { key, list } => write!(f, "read {key} {}", show_list(list)),
            Op::Append { key, element } => write!(f, "append {key} {element}"),
            Op::Range { low, high, found } => {
                let found: Vec<String> =
                    found.iter().map(|(key, list)| format!("{key} {}", show_list(list))).collect();
                write!(f, "range {low}..{high} {{{}}}", found.join(", "))
            }
        }
    }
}

impl Display for End {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            End::Committed => "committed",
            End::Aborted => "aborted",
            End::Unknown => "unknown",
        })
    }
}

impl Display for Txn {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Txn { client, phase, began, ended, end, serializable, ops } = self;
        let level = if *serializable { " serializable" } else { "" };
        write!(f, "client {client} phase {phase} at {began}..{ended} {end}{level}: ")?;
        for (at, op) in ops.iter().enumerate() {
            write!(f, "{}{op}", if at == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl Display for History {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (number, txn) in self.txns.iter().enumerate() {
            writeln!(f, "T{number} {txn}")?;
        }
        Ok(())
    }
}
