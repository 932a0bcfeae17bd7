//! Real records loaded by a process that is killed on the way: the airports file kept with the tools stands in for the
//! larger files that `--bin cities` is given.

use std::path::Path;
use std::process::Command;

#[test]
fn every_acknowledged_batch_of_airports_survives_kills() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/data/airports.csv");
    let dir = tempfile::tempdir().unwrap();
    let loader = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cities"));
        command.arg("load");
        command
    };
    let seen = bedstone_tests::cities::run(&loader, &dir.path().join("db"), &file, 3).unwrap();
    println!("{seen:?}");
    assert!(seen.acknowledged > 0);
}
