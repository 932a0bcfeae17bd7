//! Fuzz targets of whole databases on the simulated disk, and the list of all targets.

mod data_file;
pub mod seeds;

pub use bedstone::fuzz::Target;
pub use data_file::data_file;

use crate::rng::Rng;
use crate::simulation;

/// Every fuzz target, by name. Each has a folder in `fuzz/corpus`.
pub fn targets() -> Vec<(&'static str, Target)> {
    let mut targets = bedstone::fuzz::TARGETS.to_vec();
    targets.push(("data_file", data_file));
    targets.push(("operations", operations));
    targets
}

/// Operations against a model, with kills and power cuts: the bytes make the choices of a model run.
///
/// # Panics
/// If the database does not do what the model does.
pub fn operations(data: &[u8]) {
    // About as many operations as the bytes decide.
    let count = 4 + (data.len() / 6).min(200);
    if let Err(what) = simulation::run_with(Rng::from_bytes(data), count, None, false) {
        panic!("{what}");
    }
}

/// Runs the target of this name.
///
/// # Panics
/// If there is none, and if the target finds something.
pub fn run(name: &str, data: &[u8]) {
    let target = targets().into_iter().find(|(other, _)| *other == name);
    let Some((_, target)) = target else { panic!("there is no fuzz target {name:?}") };
    target(data);
}
