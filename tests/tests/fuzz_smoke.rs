//! The fuzz targets over their corpus and over changes of it: what fuzzing has found stays found, without a nightly
//! compiler. `fuzz/README.md` says how to fuzz in earnest.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use bedstone_crashtest::fuzz::{self, Target};
use bedstone_crashtest::rng::{Rng, mix};

/// Changes of each file of the corpus, by target; those of whole databases take longer.
fn changes(target: &str) -> u64 {
    let usual = match target {
        "operations" => 4,
        "data_file" => 30,
        "log_directory" | "page_map" => 300,
        _ => 2000,
    };
    let times = std::env::var("BEDSTONE_FUZZ_TIMES").ok().and_then(|times| times.parse().ok());
    usual * times.unwrap_or(1)
}

/// An input that takes longer is taken for one that never ends.
const HANGS_AFTER: Duration = Duration::from_secs(120);

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus")
}

/// The inputs in the folder of a target, by name.
fn inputs(target: &str) -> Vec<(String, Vec<u8>)> {
    let Ok(folder) = fs::read_dir(corpus().join(target)) else { return Vec::new() };
    let mut inputs: Vec<_> = folder
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
        })
        .collect();
    inputs.sort();
    inputs
}

/// One change after the other, of the kinds that fuzzers make.
fn changed(seed: u64, inputs: &[(String, Vec<u8>)], which: usize) -> Vec<u8> {
    const INTERESTING: [u64; 12] =
        [0, 1, 7, 8, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX];
    let rng = &mut Rng::new(seed);
    let mut bytes = inputs[which].1.clone();
    for _ in 0..1 + rng.below(4) {
        let len = bytes.len();
        let at = rng.index(len + 1);
        match rng.below(8) {
            0 | 1 if at < len => bytes[at] ^= 1 << rng.below(8),
            2 if at < len => bytes[at] = rng.next() as u8,
            3 => {
                let width = (1 << rng.below(4)).min(len - at);
                let number = rng.pick(&INTERESTING).wrapping_add(rng.below(3)).wrapping_sub(1);
                bytes[at..at + width].copy_from_slice(&number.to_le_bytes()[..width]);
            }
            4 => {
                let new = rng.index(9);
                let new = rng.bytes(new);
                bytes.splice(at..at, new);
            }
            5 => {
                let count = rng.index(16).min(len - at);
                bytes.drain(at..at + count);
            }
            6 => {
                let count = rng.index(64).min(len - at);
                let copy = bytes[at..at + count].to_vec();
                let to = rng.index(len + 1);
                bytes.splice(to..to, copy);
            }
            _ => {
                let other = &rng.pick(inputs).1;
                let from = rng.index(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn again(target: &str, bytes: &[u8]) -> String {
    format!(
        "  input: {}\n  again: BEDSTONE_FUZZ_INPUT={target}:HEX cargo test -p bedstone-tests --test fuzz_smoke one_input -- \
         --nocapture",
        hex(bytes)
    )
}

/// Runs one input and says what it is if it panics.
fn run(name: &str, target: Target, what: &str, bytes: &[u8], watch: &dyn Fn(String)) {
    watch(format!("{name}, {what}\n{}", again(name, bytes)));
    if catch_unwind(|| target(bytes)).is_err() {
        panic!("fuzz target {name} failed on {what}\n{}", again(name, bytes));
    }
}

/// Ends the process when one input takes too long: there is no other way out of an endless loop.
fn watched(work: impl FnOnce(&dyn Fn(String))) {
    let (send, receive) = channel::<String>();
    let watcher = std::thread::spawn(move || {
        let mut now = String::new();
        loop {
            match receive.recv_timeout(HANGS_AFTER) {
                Ok(next) => now = next,
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    eprintln!("a fuzz target does not end: {now}");
                    std::process::exit(101);
                }
            }
        }
    });
    let send = Mutex::new(send);
    work(&|what| send.lock().unwrap().send(what).unwrap());
    drop(send);
    watcher.join().unwrap();
}

#[test]
fn every_target_survives_its_corpus_and_changes_of_it() {
    watched(|watch| {
        for (name, target) in fuzz::targets() {
            let inputs = inputs(name);
            for (file, bytes) in &inputs {
                run(name, target, &format!("corpus file {file}"), bytes, watch);
            }
            for (which, (file, _)) in inputs.iter().enumerate() {
                for change in 0..changes(name) {
                    let seed = mix(change ^ mix(which as u64));
                    let bytes = changed(seed, &inputs, which);
                    run(
                        name,
                        target,
                        &format!("change {change} (seed {seed}) of corpus file {file}"),
                        &bytes,
                        watch,
                    );
                }
            }
        }
    });
}

#[test]
fn one_input() {
    let Ok(asked) = std::env::var("BEDSTONE_FUZZ_INPUT") else { return };
    let (name, hex) = asked.split_once(':').expect("BEDSTONE_FUZZ_INPUT is TARGET:HEX");
    let digits = hex.as_bytes().chunks(2).map(|digits| std::str::from_utf8(digits).unwrap());
    let bytes: Vec<u8> = digits.map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect();
    fuzz::run(name, &bytes);
}

#[test]
fn every_target_has_a_corpus_and_is_fuzzed_and_nothing_else_is() {
    let names: BTreeSet<String> = fuzz::targets().iter().map(|(name, _)| (*name).to_owned()).collect();
    let found = |folder: PathBuf| -> BTreeSet<String> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    assert_eq!(found(corpus()), names, "the folders of fuzz/corpus");
    let files: BTreeSet<String> = names.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(found(corpus().join("../fuzz_targets")), files, "the files of fuzz/fuzz_targets");
    let manifest = fs::read_to_string(corpus().join("../Cargo.toml")).unwrap();
    for name in &names {
        assert!(!inputs(name).is_empty(), "fuzz/corpus/{name} is empty");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in fuzz/Cargo.toml");
    }
}

/// What the corpus begins with is what the format of today gives. With `BEDSTONE_WRITE_SEEDS=1` it is written anew.
#[test]
fn the_seeds_are_in_the_corpus() {
    let write = std::env::var_os("BEDSTONE_WRITE_SEEDS").is_some();
    let seeds = fuzz::seeds::seeds().unwrap();
    let mut names = BTreeSet::new();
    for (target, name, bytes) in seeds {
        let path = corpus().join(target).join(format!("seed-{name}"));
        if write {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        let there = fs::read(&path).unwrap_or_default();
        assert!(there == bytes, "{} is out of date: BEDSTONE_WRITE_SEEDS=1 writes it anew", path.display());
        assert!(names.insert(path), "two seeds of one name");
    }
    for (target, _) in fuzz::targets() {
        for (name, _) in inputs(target) {
            let path = corpus().join(target).join(&name);
            assert!(
                !name.starts_with("seed-") || names.contains(&path),
                "{} is no seed any more",
                path.display()
            );
        }
    }
}
