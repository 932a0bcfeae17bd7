//! The harness of Bedstone's durability tests: a seeded generator of operations, the model they are compared with, an
//! oracle that knows what may survive a crash, and drivers that run them on the simulated disk, in child processes that
//! are killed, and on many threads.
//!
//! The test binaries in `tests/` run a few seconds of each; the binaries in `src/bin/` run the same for as long as
//! wanted.
#![forbid(unsafe_code)]

pub mod bank;
pub mod cities;
pub mod isolation;
pub mod kill;
pub mod larger;
pub mod model;
pub mod ops;
pub mod oracle;
pub mod rng;
pub mod run;
pub mod scenario;
pub mod seeds;
pub mod setup;
pub mod shape;
pub mod threads;
pub mod transactions;
pub mod view;
pub mod worker;
