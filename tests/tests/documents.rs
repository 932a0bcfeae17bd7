//! The documents of the repository: the tests that TESTING.md names exist, and links lead somewhere.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The files below `dir` whose names end with `extension`, without what was built and what git keeps.
fn files(dir: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                files(&path, extension, found);
            }
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

fn all_files(extension: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    files(&root(), extension, &mut found);
    found
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            (path, text)
        })
        .collect()
}

/// The functions of a Rust file.
fn functions(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let rest = line.trim_start().strip_prefix("fn ")?;
        Some(rest.split(['(', '<']).next().unwrap_or_default())
    })
}

/// The sections of TESTING.md whose tables name tests.
const TABLES: [&str; 3] = ["## Promises and faults", "## Fault classes", "## Traps others paid for"];

/// The rows of the table in a section of TESTING.md, without its head, cells apart.
fn rows<'d>(document: &'d str, section: &str) -> Vec<Vec<&'d str>> {
    let (_, text) = document.split_once(section).unwrap_or_else(|| panic!("there is no section {section:?}"));
    let text = text.split_once("\n## ").map_or(text, |(text, _)| text);
    let rows = text.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

/// The names of tests in a text: code without an upper-case letter that has an underscore.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2).filter(|text| {
        text.contains('_') && text.bytes().all(|b| b.is_ascii_lowercase() || b"_0123456789".contains(&b))
    })
}

#[test]
fn every_test_that_is_named_exists() {
    let sources = all_files("rs");
    let existing: BTreeSet<&str> = sources.iter().flat_map(|(_, text)| functions(text)).collect();
    let document = std::fs::read_to_string(root().join("engine/docs/TESTING.md")).unwrap();
    let mut missing = Vec::new();
    for section in TABLES {
        let rows = rows(&document, section);
        assert!(rows.len() > 20, "only {} rows were found in {section:?}", rows.len());
        for row in &rows {
            let tests = row.last().unwrap();
            let named: Vec<&str> = names(tests).collect();
            // What is not tested has a reason instead.
            let excused =
                ["Nothing to test:", "Not tested:", "all of `"].iter().any(|why| tests.contains(why));
            assert!(!named.is_empty() || excused, "{section:?} has neither a test nor a reason: {row:?}");
            missing.extend(named.into_iter().filter(|name| !existing.contains(name)));
        }
    }
    assert!(missing.is_empty(), "TESTING.md names tests that do not exist: {missing:#?}");
}

#[test]
fn every_class_of_faults_has_its_tests_or_a_reason() {
    let document = std::fs::read_to_string(root().join("engine/docs/TESTING.md")).unwrap();
    let numbers: Vec<String> =
        rows(&document, "## Fault classes").iter().map(|row| row.first().unwrap().to_string()).collect();
    assert_eq!(numbers, (1..=23).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    for (path, text) in all_files("md") {
        let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
        for link in links.filter(|link| !link.contains("://") && !link.starts_with('#')) {
            let target = link.split('#').next().unwrap_or_default();
            if !path.parent().unwrap().join(target).exists() {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}
