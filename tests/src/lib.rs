//! Drivers of Bedstone's own tests beside the crash tests (`bedstone-crashtest`): isolation, a bank, many threads, data
//! larger than memory.
//!
//! The test binaries in `tests/` run a few seconds of each; the binaries in `src/bin/` run the same for as long as
//! wanted.
#![forbid(unsafe_code)]

pub mod bank;
pub mod cities;
pub mod isolation;
pub mod larger;
pub mod liar;
pub mod threads;
pub mod transactions;
