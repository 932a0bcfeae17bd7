//! The crate arrows of the architecture, and where unsafe code may be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Our own crates that each of our crates depends on, tests and benches of its own included.
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let name = |value: &serde_json::Value| value["name"].as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap().iter().map(name);
            (name(package), dependencies.filter(|other| other.starts_with("bedstone")).collect())
        })
        .collect()
}

#[test]
fn the_crates_depend_on_each_other_as_the_architecture_says() {
    let allowed: [(&str, &[&str]); 8] = [
        ("bedstone-io", &[]),
        ("bedstone-bufpool", &["bedstone-io"]),
        ("bedstone-wal", &["bedstone-io"]),
        ("bedstone", &["bedstone-bufpool", "bedstone-io", "bedstone-wal"]),
        ("bedstone-crashtest", &["bedstone", "bedstone-io"]),
        // Of bedstone-io its tests use the list of defects.
        ("bedstone-tools", &["bedstone", "bedstone-crashtest", "bedstone-io"]),
        ("bedstone-tests", &["bedstone", "bedstone-crashtest", "bedstone-io"]),
        ("bedstone-benches", &["bedstone"]),
    ];
    let arrows = arrows();
    let names: BTreeSet<&str> = arrows.keys().map(String::as_str).collect();
    assert_eq!(names, allowed.iter().map(|(name, _)| *name).collect());
    for (name, may) in allowed {
        for other in &arrows[name] {
            assert!(may.contains(&other.as_str()), "{name} must not depend on {other}");
        }
    }
}

#[test]
fn unsafe_code_is_forbidden_outside_the_pool_and_its_io() {
    for source in [
        "wal/src/lib.rs",
        "engine/src/lib.rs",
        "crashtest/src/lib.rs",
        "tools/src/main.rs",
        "tests/src/lib.rs",
        "benches/src/lib.rs",
    ] {
        let text = std::fs::read_to_string(root().join(source)).unwrap();
        assert!(text.contains("#![forbid(unsafe_code)]"), "{source} must forbid unsafe code");
    }
}
