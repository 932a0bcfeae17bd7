//! The benchmarks' common ground: what a storage engine must offer to be measured, the data, the workloads, and the
//! runner that measures several engines side by side.
//!
//! Figures taken at different times do not compare: machines have neighbours, disks have moods. So every engine of a
//! run does the same work within the same round, rounds follow each other, and a comparison is the median of the
//! ratios *within* the rounds. Nothing counts before its result was checked: each workload knows from the data's
//! generator what an honest engine must answer, and an engine that answers otherwise ends the run.
//!
//! - [`engine`]: the traits [`Engine`] and [`Reader`], and [`Settings`];
//! - [`data`]: keys, values and batches, all from one seed; [`zipf`]: skewed choice of keys;
//! - [`plan`]: a workload with its sizes, its operations and the expected checksum; [`measure`]: carrying it out;
//! - [`stand`]: one engine with its directory, and [`Contender`], what the runner sees of it;
//! - [`runner`]: rounds and their statistics; [`report`]: markdown tables;
//! - [`conform`]: what every adapter must do before it is measured;
//! - [`bedstone`]: the engine this is about; [`btreemap`]: the standard library's map, the yardstick without a disk.
#![forbid(unsafe_code)]

pub mod bedstone;
pub mod btreemap;
pub mod conform;
pub mod data;
pub mod engine;
pub mod measure;
pub mod plan;
pub mod proc;
pub mod report;
pub mod runner;
pub mod stand;
pub mod zipf;

pub use data::{Batch, DataSet, KEY_LEN, Key, KeyOrder};
pub use engine::{Durability, Effective, Engine, Error, Reader, Reads, Result, Settings};
pub use plan::{Plan, Sizes, Workload};
pub use runner::{Outcome, Sample, run_rounds};
pub use stand::{Contender, Stand, Store};
