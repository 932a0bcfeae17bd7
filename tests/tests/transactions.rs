//! The long runs of `--bin transactions`, short: a transaction larger than its memory and than the pool, its processes
//! killed; a snapshot held open over many updates; the measurement of what a snapshot costs.

use std::path::Path;
use std::time::Duration;

use bedstone_crashtest::setup::temp_dir;
use bedstone_tests::transactions::figures::{self, Figures};
use bedstone_tests::transactions::held::{self, Held};
use bedstone_tests::transactions::large::{self, Large};

fn large(data_bytes: u64, transactions: u64) -> Large {
    Large { data_bytes, pool_bytes: 4 << 20, transaction_memory: 256 << 10, transactions, seed: 1 }
}

#[test]
fn transactions_larger_than_pool_and_memory() {
    let dir = temp_dir();
    let plan = large(12 << 20, 3);
    let seen = large::run(&plan, &dir.path().join("db"), &mut |_| {}).unwrap();
    println!("{seen:?}");
    let writes: Vec<_> = seen.each.iter().map(|one| (one.puts, one.deletes)).collect();
    assert!(writes[0].1 == 0 && writes[1].1 > 0 && writes[2].0 > writes[2].1, "{writes:?}");
}

#[test]
fn killed_large_transactions_are_there_wholly_or_not_at_all() {
    let dir = temp_dir();
    let program = Path::new(env!("CARGO_BIN_EXE_transactions"));
    let seen =
        large::kill(&large(2 << 20, 1), program, dir.path(), 8, &mut |line| println!("{line}")).unwrap();
    assert_eq!(seen.len(), 8);
}

#[test]
fn a_snapshot_held_over_many_updates_costs_one_old_value_of_each_key() {
    let dir = temp_dir();
    let plan = Held { keys: 5_000, updates: 60_000, threads: 2, gets: 500, pool_bytes: 4 << 20, seed: 1 };
    let seen = held::run(&plan, &dir.path().join("db"), &mut |line| println!("{line}")).unwrap();
    let [_, held, _] = &seen.moments[..] else { panic!("three moments") };
    // The value that the snapshot sees and the one replaced last, 100 bytes each, with what the list says about them. Twelve
    // updates of each key would be four times as much.
    assert!(held.held_bytes > 0 && held.held_bytes < plan.keys * 400, "{held:?}");
}

#[test]
fn the_cost_of_a_snapshot_is_measured_for_all_cases() {
    let dir = temp_dir();
    let plan =
        Figures { keys: 2_000, rounds: 1, time: Duration::from_millis(2), pool_bytes: 4 << 20, seed: 1 };
    let seen = figures::run(&plan, &dir.path().join("db"), &mut |_| {}).unwrap();
    assert_eq!(seen.rows.len(), 6);
    assert!(seen.rows.iter().all(|row| row.rates.iter().all(|rate| *rate > 0.0)), "{seen:?}");
}
