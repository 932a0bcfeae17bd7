//! What the n-th commit of a stream is: decided by seed, stream and number alone.

use bedstone::Durability;

use crate::model::Change;
use crate::rng::Rng;
use crate::simulation::shape::value_of;

/// Tables that all streams write to, each to keys of its own.
pub(super) const SHARED: [&str; 3] = ["north", "south", "west"];
/// Where each commit leaves its number.
pub(super) const COUNTERS: &str = "counters";
/// Keys of each stream in each shared table.
const KEYS: u64 = 300;
/// Each stream makes a table of its own, writes to it and drops it, again and again: a turn has so many commits,
const TURN: u64 = 24;
/// this one makes the table,
const CREATE: u64 = 7;
/// and this one drops it.
const DROP: u64 = 19;

/// The table of a stream's own.
pub(super) fn own_table(stream: u64) -> String {
    format!("own {stream:02}")
}

/// The key under which a stream leaves its number.
pub(super) fn counter_key(stream: u64) -> Vec<u8> {
    format!("{stream:02}").into_bytes()
}

/// How a commit is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// By a batch.
    Batch,
    /// By a transaction that reads, and takes some of its writes back.
    Transaction,
    /// The stream's own table is made, and then the number is left.
    Create,
    /// The stream's own table is dropped, and then the number is left.
    Drop,
}

/// One commit.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) kind: Kind,
    /// What it changes, but for the number that it leaves.
    pub(super) changes: Vec<Change>,
    /// What the end of the counter's value is.
    pub(super) filler: Vec<u8>,
    /// Drawn; the plan may say otherwise.
    pub(super) durability: Durability,
}

/// The kind of a commit that makes or drops a table, if it is one.
pub(super) fn table_change(number: u64) -> Option<Kind> {
    match number % TURN {
        CREATE => Some(Kind::Create),
        DROP => Some(Kind::Drop),
        _ => None,
    }
}

/// The `number`-th commit (from 1) of a stream.
pub(super) fn commit_of(seed: u64, stream: u64, number: u64) -> Commit {
    let mut rng = Rng::of(&[seed, stream, number]);
    let durability = match rng.below(10) {
        0..=5 => Durability::Sync,
        6 | 7 => Durability::Buffered,
        _ => Durability::Relaxed,
    };
    let filler_len = rng.index(120);
    let filler = rng.bytes(filler_len);
    if let Some(kind) = table_change(number) {
        let name = own_table(stream);
        let change = if kind == Kind::Create { Change::Create(name) } else { Change::Drop(name) };
        return Commit { kind, changes: vec![change], filler, durability };
    }
    let kind = if rng.chance(2, 5) { Kind::Transaction } else { Kind::Batch };
    let has_own = (CREATE..DROP).contains(&(number % TURN));
    let count = *rng.pick(&[0, 1, 1, 3, 10, 60]);
    let mut changes = Vec::new();
    for _ in 0..count {
        let own = has_own && rng.chance(1, 4);
        let table = if own { own_table(stream) } else { (*rng.pick(&SHARED)).to_owned() };
        let key = format!("{stream:02}/{:05}", rng.below(KEYS)).into_bytes();
        if rng.chance(1, 3) {
            changes.push(Change::Delete { table, key });
        } else {
            let len = match rng.below(80) {
                0 => rng.index(300_000),
                1 | 2 => rng.index(60_000),
                3..=10 => rng.index(3000),
                _ => rng.index(200),
            };
            changes.push(Change::Put { table, key, value: value_of(rng.next(), len) });
        }
    }
    Commit { kind, changes, filler, durability }
}
