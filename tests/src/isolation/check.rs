//! The verdict on a history.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};

use super::cycles::{Cycle, with_adjacent, without_adjacent};
use super::graph::{Edge, edges, time_edges};
use super::history::{History, Key};
use super::lists::{Lists, Standing};

/// Everything that can be wrong with a history; the table of the module [`super`] explains them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the table of the module explains them")]
pub enum Anomaly {
    Duplicate,
    Invented,
    Vanished,
    TornCommit,
    ReadOfLost,
    IncompatibleOrder,
    Internal,
    NonRepeatableRead,
    LostUpdate,
    G0,
    G1a,
    G1b,
    G1c,
    GSingle,
    GNonadjacent,
    G0Time,
    G1cTime,
    GSingleTime,
    GNonadjacentTime,
    G2Item,
    G2,
    G2ItemTime,
    G2Time,
}

impl Anomaly {
    /// The name as the literature has it, where it has one.
    pub fn name(self) -> &'static str {
        match self {
            Anomaly::Duplicate => "duplicate element",
            Anomaly::Invented => "invented element",
            Anomaly::Vanished => "vanished commit",
            Anomaly::TornCommit => "torn commit",
            Anomaly::ReadOfLost => "read of the lost",
            Anomaly::IncompatibleOrder => "incompatible order",
            Anomaly::Internal => "internal",
            Anomaly::NonRepeatableRead => "non-repeatable read",
            Anomaly::LostUpdate => "lost update",
            Anomaly::G0 => "G0",
            Anomaly::G1a => "G1a",
            Anomaly::G1b => "G1b",
            Anomaly::G1c => "G1c",
            Anomaly::GSingle => "G-single",
            Anomaly::GNonadjacent => "G-nonadjacent",
            Anomaly::G0Time => "G0-realtime",
            Anomaly::G1cTime => "G1c-realtime",
            Anomaly::GSingleTime => "G-single-realtime",
            Anomaly::GNonadjacentTime => "G-nonadjacent-realtime",
            Anomaly::G2Item => "G2-item",
            Anomaly::G2 => "G2",
            Anomaly::G2ItemTime => "G2-item-realtime",
            Anomaly::G2Time => "G2-realtime",
        }
    }

    /// The same class of cycle, with an edge of time in it.
    fn timed(self) -> Self {
        match self {
            Anomaly::G0 => Anomaly::G0Time,
            Anomaly::G1c => Anomaly::G1cTime,
            Anomaly::GSingle => Anomaly::GSingleTime,
            Anomaly::GNonadjacent => Anomaly::GNonadjacentTime,
            Anomaly::G2Item => Anomaly::G2ItemTime,
            Anomaly::G2 => Anomaly::G2Time,
            other => other,
        }
    }

    /// Whether snapshots allow it.
    fn is_skew(self) -> bool {
        matches!(self, Anomaly::G2Item | Anomaly::G2 | Anomaly::G2ItemTime | Anomaly::G2Time)
    }
}

/// What was promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Snapshot isolation for everybody.
    SnapshotIsolation,
    /// Serializability for everybody.
    Serializable,
    /// To each transaction what it asked for: [`super::Txn::serializable`].
    AsAsked,
}

/// How to judge.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// What was promised.
    pub level: Level,
    /// Whether a transaction sees all that had ended before it began.
    pub real_time: bool,
    /// Whether a transaction that only reads waits at its commit until what it read is durable. If not, a crash may
    /// take back what it saw.
    pub readers_wait: bool,
}

impl Options {
    /// The level, in real time, with readers that do not wait.
    pub fn new(level: Level) -> Self {
        Self { level, real_time: true, readers_wait: false }
    }
}

/// One anomaly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub anomaly: Anomaly,
    /// Between which transactions.
    pub txns: Vec<usize>,
    /// At which keys.
    pub keys: Vec<Key>,
    /// Why, in words.
    pub text: String,
}

/// The verdict.
#[derive(Debug, Clone)]
pub struct Report {
    /// What the level forbids and was found.
    pub forbidden: Vec<Finding>,
    /// Write skew that the level allows. Many of them show that the run had enough conflicts to mean something.
    pub allowed: Vec<Finding>,
    /// The transactions of the findings, as text.
    pub involved: BTreeMap<usize, String>,
}

impl Report {
    /// Whether nothing forbidden was found.
    pub fn is_clean(&self) -> bool {
        self.forbidden.is_empty()
    }

    /// The kinds of what was found.
    pub fn kinds(&self) -> BTreeSet<Anomaly> {
        self.forbidden.iter().map(|finding| finding.anomaly).collect()
    }
}

/// Judges a history.
pub fn check(history: &History, options: &Options) -> Report {
    let mut lists = Lists::of(history, options.readers_wait);
    let mut findings = std::mem::take(&mut lists.findings);
    let count = history.txns.len();
    let edges = edges(history, &lists);

    // Snapshots: what transactions read that took no effect counts as well.
    let all: Vec<&Edge> = edges.iter().collect();
    let mut cycles = without_adjacent(count, &all);
    if cycles.is_empty() && options.real_time {
        let time = time_edges(history, |_| true);
        cycles.extend(timed(without_adjacent(count, &edges.iter().chain(&time).collect::<Vec<_>>())));
    }
    findings.extend(cycles.into_iter().map(finding));

    // Serializability: only of what took effect, and of those to whom it was promised.
    let effective = |txn: usize| lists.standing[txn] == Standing::Effective;
    let promised = |edge: &Edge| options.level != Level::AsAsked || history.txns[edge.from].serializable;
    let binding: Vec<&Edge> = all
        .into_iter()
        .filter(|edge| effective(edge.from) && effective(edge.to) && (promised(edge) || !edge.kind.is_rw()))
        .collect();
    let mut skews = with_adjacent(count, &binding);
    if skews.is_empty() && options.real_time && options.level != Level::SnapshotIsolation {
        let time = time_edges(history, effective);
        skews.extend(timed(with_adjacent(count, &binding.into_iter().chain(&time).collect::<Vec<_>>())));
    }
    findings.extend(skews.into_iter().map(finding));

    let (allowed, forbidden): (Vec<Finding>, Vec<Finding>) = findings
        .into_iter()
        .partition(|finding| finding.anomaly.is_skew() && options.level == Level::SnapshotIsolation);
    let involved = forbidden
        .iter()
        .flat_map(|finding| &finding.txns)
        .map(|txn| (*txn, format!("T{txn} {}", history.txns[*txn])))
        .collect();
    Report { forbidden, allowed, involved }
}

fn timed(cycles: Vec<Cycle>) -> impl Iterator<Item = Cycle> {
    cycles.into_iter().map(|cycle| Cycle { anomaly: cycle.anomaly.timed(), ..cycle })
}

fn finding(cycle: Cycle) -> Finding {
    let mut text = format!("a cycle of {}", cycle.edges.len());
    for edge in &cycle.edges {
        text += "\n    ";
        text += &edge.show();
    }
    let keys: BTreeSet<Key> =
        cycle.edges.iter().filter(|edge| edge.kind != super::graph::Kind::Rt).map(|edge| edge.key).collect();
    Finding {
        anomaly: cycle.anomaly,
        txns: cycle.edges.iter().map(|edge| edge.from).collect(),
        keys: keys.into_iter().collect(),
        text,
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        /// Examples of each kind.
        const SHOWN: usize = 3;
        if self.is_clean() {
            return write!(f, "nothing forbidden");
        }
        let mut shown = BTreeSet::new();
        for kind in self.kinds() {
            let all: Vec<&Finding> =
                self.forbidden.iter().filter(|finding| finding.anomaly == kind).collect();
            writeln!(f, "{}: {}", kind.name(), all.len())?;
            for finding in all.iter().take(SHOWN) {
                writeln!(f, "  {}", finding.text)?;
                shown.extend(finding.txns.iter().copied());
            }
        }
        writeln!(f, "where")?;
        for txn in shown {
            writeln!(f, "  {}", self.involved.get(&txn).map_or("", |text| text))?;
        }
        Ok(())
    }
}
