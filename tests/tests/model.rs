//! Random operations against ordered maps, on the simulated disk, with power cuts at random operations and during
//! recovery. Longer: `bedstone crash-test DIR --mode power --minutes 60`.

use bedstone_crashtest::{Plan, power, seeds, simulation};

/// Seeds of the ordinary run; the first disk of each is a model run.
const SEEDS: std::ops::Range<u64> = 0..80;

#[test]
fn random_operations_and_power_cuts_keep_every_promise() {
    let first = |seed| match power::disk(&Plan::rounds(seed, 1), 0, false) {
        Ok(power::Done::Model(_)) => Ok(()),
        Ok(power::Done::Standard(_)) => Err("the first disk is no model run".into()),
        Err(failure) => Err(failure.to_string()),
    };
    let failures = seeds::run_seeds(SEEDS, seeds::cores(), 3, first);
    let text = failures.iter().map(|(seed, what)| {
        format!(
            "seed {seed}: {what}  again: cargo run -p bedstone-tools -- crash-test /tmp --mode power --seed {seed} \
             --only 0\n"
        )
    });
    assert!(failures.is_empty(), "{}", text.collect::<String>());
}

#[test]
fn a_seed_decides_everything() {
    for seed in 3..11 {
        let [first, second] = [(); 2].map(|()| simulation::run(seed, 120, false).unwrap().fingerprint);
        assert_eq!(first, second, "seed {seed} did not do the same twice");
    }
}
