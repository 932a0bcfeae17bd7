//! Durability crash tests for programs that use Bedstone, and of Bedstone itself.
//!
//! A program's use of the store is a [`Workload`]: how it opens the store, what it does, and how it sees that nothing is
//! lost. The drivers crash it:
//!
//! | driver | the store lives | what happens to it |
//! |---|---|---|
//! | [`kill::run`] | on the real disk | its process is killed by SIGKILL at random moments, while it opens the store too |
//! | [`simulated::power_cuts`] | on a simulated disk | the power goes at random operations; what no sync covered is kept, dropped or torn |
//! | [`simulated::faults`] | on a simulated disk | every operation fails in turn, once and for good |
//! | [`power_fs::run`] | on a real ext4 or XFS (root) | the power goes at random moments below the file system |
//!
//! [`Standard`] is the workload with which Bedstone tests itself. What needs to know the store's insides or the answers to
//! every call has drivers of its own, without a workload: [`power`] (model runs, see [`simulation`]), [`fault`], [`rot`] and
//! [`full`]. The command `bedstone crash-test` runs all of them.
//!
//! Every run is told by a [`Plan`] what to do, and ends with a [`Verdict`]: [`Kept`] with its counts, or a [`Failure`] that
//! says which promise was broken or why it could not run.
//!
//! ```
//! use bedstone::{Builder, Database, Durability, Result};
//! use bedstone_crashtest::{Acks, Numbers, Plan, Workload, simulated, unwatched};
//!
//! /// A journal: entry n is the text of n. Its one stream is number 0.
//! struct Journal;
//!
//! impl Workload for Journal {
//!     fn options(&self) -> Builder {
//!         Database::builder().pool_bytes(2 << 20).page_size(4096)
//!     }
//!
//!     fn work(&self, db: &Database, acks: &Acks<'_>) -> Result<()> {
//!         let entries = db.table("entries")?;
//!         let mut number = entries.iter()?.count() as u64;
//!         loop {
//!             number += 1;
//!             entries.put(number.to_be_bytes(), number.to_string())?;
//!             if !acks.commit(0, number, Durability::Sync) {
//!                 return Ok(());
//!             }
//!         }
//!     }
//!
//!     fn verify(&self, db: &Database, promised: &Numbers) -> std::result::Result<Numbers, String> {
//!         let text = |error: bedstone::Error| error.to_string();
//!         let entries = db.table("entries").map_err(text)?;
//!         let mut last = 0_u64;
//!         for entry in entries.iter().map_err(text)? {
//!             let (key, value) = entry.map_err(text)?.into_parts();
//!             last += 1;
//!             if *key != last.to_be_bytes() || *value != *last.to_string().as_bytes() {
//!                 return Err(format!("entry {last} is not as it was written"));
//!             }
//!         }
//!         match promised.get(&0) {
//!             Some(promise) if last < *promise => Err(format!("{promise} entries were promised, {last} are there")),
//!             _ => Ok(Numbers::from([(0, last)])),
//!         }
//!     }
//! }
//!
//! let kept = simulated::power_cuts(&Plan::rounds(1, 5), &Journal, &unwatched)?;
//! assert_eq!(kept.count("disks"), 5);
//! # Ok::<(), bedstone_crashtest::Failure>(())
//! ```
#![forbid(unsafe_code)]

mod cases;
pub mod fault;
pub mod full;
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
pub mod rot;
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
pub use verdict::{Again, Failure, Kept, Verdict};
pub use workload::{Ack, Acks, Numbers, Promised, Workload};
