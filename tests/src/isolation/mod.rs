//! A checker of isolation: it records what transactions did and saw, and proves from that alone that no order of them
//! explains it, or that one may.
//!
//! Every key holds the list of the numbers appended to it; every number is appended once. So a list that is read tells
//! which transaction wrote it, and which ones before, in which order (Kingsbury, Alvaro: "Elle: Inferring Isolation
//! Anomalies from Experimental Observations", PVLDB 14(3), 2020). From the lists follow the dependencies of Adya
//! ("Weak Consistency: A Generalized Theory and Optimistic Implementations for Distributed Transactions", MIT 1999;
//! Adya, Liskov, O'Neil: "Generalized Isolation Level Definitions", ICDE 2000) between the transactions:
//!
//! - ww: one overwrote the version of the other,
//! - wr: one read the version of the other,
//! - rw: one read the version that the other overwrote. A key that was looked for and not found, by itself or in a
//!   range, was read as the empty list, so phantoms are edges like any others,
//! - rt: one ended before the other began.
//!
//! # What the levels forbid
//!
//! | anomaly | what it is | snapshot isolation | serializable |
//! |---|---|---|---|
//! | G0 | cycle of ww: writes of transactions interleave | forbidden | forbidden |
//! | G1a, aborted read | a version was read whose writer was rolled back | forbidden | forbidden |
//! | G1b, intermediate read | a version was read that its writer changed again | forbidden | forbidden |
//! | G1c | cycle of ww and wr: information flows in a circle | forbidden | forbidden |
//! | G-single, read skew | cycle with exactly one rw: part of a commit was seen | forbidden | forbidden |
//! | G-nonadjacent, long fork | cycle with several rw, no two in a row: two readers disagree on the order of writers | forbidden | forbidden |
//! | lost update | two read the same version, both replaced it | forbidden | forbidden |
//! | G2-item, write skew | cycle with two rw in a row, of keys read by themselves | allowed | forbidden |
//! | G2, phantom | the same where a range was read | allowed | forbidden |
//! | internal | a transaction did not see its own writes | forbidden | forbidden |
//! | non-repeatable read | a transaction read a key twice and saw two versions | forbidden | forbidden |
//! | incompatible order | two lists of a key, neither the beginning of the other | forbidden | forbidden |
//! | vanished, duplicate, invented element | an acknowledged append is not there, is there twice, was never made | forbidden | forbidden |
//! | torn commit | a crash left a part of a commit | forbidden | forbidden |
//! | read of the lost | a survivor had read what a crash took back | forbidden | forbidden |
//! | any cycle with rt | as above, of transactions one after the other: something old was read | forbidden | forbidden |
//!
//! G0 to G2 are Adya's. That snapshot isolation allows exactly the cycles with two rw in a row is the theorem of
//! Fekete, Liarokapis, O'Neil, O'Neil, Shasha ("Making Snapshot Isolation Serializable", TODS 2005) and its converse
//! by Cerone and Gotsman ("Analysing Snapshot Isolation", PODC 2016); the name G-nonadjacent is Jepsen's, the lost
//! update is P4 of Berenson and others ("A Critique of ANSI SQL Isolation Levels", SIGMOD 1995). Snapshots are taken
//! when a transaction begins and hold every commit that ended before, hence the cycles with rt are forbidden too
//! ("strong" snapshot isolation, and strict serializability); [`check::Options::real_time`] leaves them out.
//!
//! Why no cycle without two rw in a row can be: let a transaction take its snapshot at S and commit at C. An edge ww,
//! wr or rt from 1 to 2 says C1 < S2, an edge rw says S1 < C2. As S < C of the same transaction, ww-like edges and
//! single rw between them chain to a contradiction in every closed walk. Only rw after rw breaks the chain.
//!
//! Where transactions of both levels are mixed, the serializable ones are held to this (after the mixed serialization
//! graph of Adya, section 5.5): no cycle whose rw edges all leave serializable transactions.
//!
//! # What is not found
//!
//! The checker is sound: what it names did happen. It sees only what transactions saw, so more histories find more.
//! Appends nobody read have no place in the order of their key; a final transaction that reads all keys leaves none.

pub mod check;
pub mod cycles;
pub mod engine;
pub mod exhaustive;
pub mod fake;
pub mod graph;
pub mod history;
pub mod lists;
pub mod run;
pub mod store;

pub use check::{Anomaly, Finding, Level, Options, Report};
pub use history::{End, History, Op, Txn};
