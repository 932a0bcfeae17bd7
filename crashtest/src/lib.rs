//! Durability crash tests for programs that use Bedstone, and of Bedstone itself: a seeded generator of operations, the
//! model they are compared with, an oracle that knows what may survive a crash, and drivers that run them on the
//! simulated disk and in child processes that are killed.
#![forbid(unsafe_code)]

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzz;
pub mod kill;
pub mod model;
pub mod oracle;
mod plan;
pub mod power;
pub mod power_fs;
pub mod rng;
mod rounds;
pub mod scenario;
pub mod seeds;
pub mod setup;
pub mod simulated;
pub mod simulation;
pub mod standard;
mod verdict;
pub mod view;
mod workload;

pub use plan::{Limit, Pace, Plan, Progress, unwatched};
pub use rounds::run_rounds;
pub use standard::Standard;
pub use verdict::{Failure, Kept, Verdict};
pub use workload::{Ack, Acks, Numbers, Promised, Workload};
