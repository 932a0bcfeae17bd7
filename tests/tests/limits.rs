//! What a process may be refused (memory, descriptors, memory that is locked, files beyond a length), and forks. This binary starts
//! itself under a limit that the shell sets, writes until it may not go on, and says what was acknowledged: every refusal
//! is an error (or, where Rust has none for want of memory, the end of the process), and all of it is there afterwards.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bedstone::{Builder, Error, WriteBatch};
use bedstone_crashtest::setup::{check_clean, real_builder, temp_dir};
use bedstone_io::testing;

const SCENARIO: &str = "BEDSTONE_LIMITS_SCENARIO";
const PLACE: &str = "BEDSTONE_LIMITS_PLACE";

const SIGXFSZ: i32 = 25;
const SIGABRT: i32 = 6;

fn small() -> Builder {
    real_builder()
        .page_size(4096)
        .pool_bytes(2 << 20)
        .huge_pages(false)
        .log_segment_bytes(256 << 10)
        .log_buffer_bytes(64 << 10)
        .checkpoint_log_bytes(1 << 20)
}

fn value(i: u64) -> Vec<u8> {
    (0..600).map(|j| (i * 31 + j) as u8).collect()
}

/// What a child said.
struct Child {
    output: Output,
    text: String,
    acknowledged: u64,
}

/// Runs [`child`] under `limit`, a command of the shell.
fn under(limit: &str, scenario: &str, place: &Path) -> Child {
    // Under a limit there may be no ring, which is an error only for those who insist on one.
    let io = std::env::var("BEDSTONE_IO").ok().filter(|choice| choice != "uring");
    let output = Command::new("sh")
        .env("BEDSTONE_IO", io.unwrap_or_default())
        .args(["-c", &format!(r#"{limit} && exec "$0" "$@""#)])
        .arg(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture", "--test-threads=1"])
        .env(SCENARIO, scenario)
        .env(PLACE, place)
        .output()
        .unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let acknowledged = text.lines().filter(|line| line.starts_with("acknowledged ")).count() as u64;
    Child { output, text, acknowledged }
}

impl Child {
    /// It ended by itself, without a panic.
    fn ended_well(&self) -> bool {
        self.output.status.success() && !self.text.contains("panicked")
    }

    /// All that was acknowledged is there, with at most the commit that was under way; the store works.
    fn kept(&self, place: &Path, what: &str) {
        let db =
            small().open_or_create(place).unwrap_or_else(|error| panic!("{what}: {error}\n{}", self.text));
        let table = db.table("t").unwrap();
        let there = table.iter().unwrap().count() as u64;
        assert!(
            there == self.acknowledged || there == self.acknowledged + 1,
            "{what}: {there} of {}\n{}",
            self.acknowledged,
            self.text
        );
        for i in 0..there {
            let found = table.get(i.to_be_bytes()).unwrap();
            assert_eq!(found.as_deref(), Some(&value(i)[..]), "{what}: key {i}");
        }
        table.put(b"afterwards", b"writable").unwrap();
        check_clean(&db).unwrap();
    }
}

#[test]
fn child() {
    let (Ok(scenario), Ok(place)) = (std::env::var(SCENARIO), std::env::var(PLACE)) else { return };
    let say = |text: String| {
        let mut out = std::io::stdout().lock();
        out.write_all(format!("\n{text}\n").as_bytes()).and_then(|()| out.flush()).unwrap();
    };
    let builder = if scenario == "large pool" { small().pool_bytes(4 << 30) } else { small() };
    let db = match builder.open_or_create(PathBuf::from(place)) {
        Ok(db) => db,
        Err(error) => return say(format!("refused: {error:?}: {error}")),
    };
    let table = match db.table("t") {
        Ok(table) => table,
        Err(error) => return say(format!("refused: {error:?}: {error}")),
    };
    say(format!("opened: {:?}", db.io_report()));
    let most: u64 = if scenario == "fill" { 100_000 } else { 300 };
    for i in 0..most {
        match table.put(i.to_be_bytes(), value(i)) {
            Ok(()) => say(format!("acknowledged {i}")),
            Err(error) => {
                assert!(!matches!(error, Error::Internal(_)), "{error:?}");
                say(format!("failed: {error:?}: {error}"));
                break;
            }
        }
    }
    if scenario == "fork" {
        let mut given = Some((db, table));
        for closed in [false, true] {
            let ended = testing::in_fork(|| {
                let (db, table) = given.take().unwrap();
                drop(table);
                if closed {
                    assert!(db.close().is_err());
                }
            });
            say(format!("the child ended well: {ended}"));
        }
        let (db, table) = given.unwrap();
        table.put(300_u64.to_be_bytes(), value(300)).unwrap();
        say("acknowledged 300".into());
        db.checkpoint().unwrap();
        return say(format!("closed: {:?}", db.close()));
    }
    if scenario == "hog" {
        let mut batch = WriteBatch::new();
        for i in 0.. {
            batch.put(&table, format!("never {i}"), vec![7; 1 << 20]).unwrap();
        }
    }
    for i in 0..50u64 {
        drop(table.get(i.to_be_bytes()).unwrap());
    }
    say(format!("closed: {:?}", db.close()));
}

/// RLIMIT_FSIZE: the system's answer to a write beyond it is a signal that ends the process, before any error.
#[test]
fn a_limit_on_the_length_of_files_is_a_full_disk_and_no_signal() {
    let (mut refused, mut filled) = (0, 0);
    // In blocks of 512 or 1024 bytes, as the shell counts.
    for blocks in [0, 1, 8, 100, 300, 600, 1200, 3000] {
        let dir = temp_dir();
        let place = dir.path().join("store");
        let child = under(&format!("ulimit -f {blocks}"), "fill", &place);
        let what = format!("{blocks} blocks");
        assert_ne!(child.output.status.signal(), Some(SIGXFSZ), "{what}: {}", child.text);
        assert!(child.ended_well(), "{what}: {}", child.text);
        let error = child.text.lines().find(|line| line.starts_with("failed") || line.starts_with("refused"));
        let error = error.unwrap_or_else(|| panic!("{what}: no limit was met: {}", child.text));
        assert!(error.contains("NoSpace"), "{what}: {error}");
        refused += u32::from(error.starts_with("refused"));
        filled += u32::from(error.starts_with("failed") && child.acknowledged > 100);
        child.kept(&place, &what);
    }
    assert!(refused > 0 && filled > 0, "{refused} refused, {filled} filled");
}

/// RLIMIT_NOFILE: opening needs a few descriptors, a log segment and each thread's ring one more.
#[test]
fn too_few_descriptors_are_an_error() {
    let (mut refused, mut worked) = (0, 0);
    for descriptors in (5..40).step_by(2) {
        let dir = temp_dir();
        let place = dir.path().join("store");
        let child = under(&format!("ulimit -n {descriptors}"), "some", &place);
        let what = format!("{descriptors} descriptors");
        assert!(child.ended_well(), "{what}: {}", child.text);
        if child.text.contains("refused: ") {
            assert!(child.text.contains("Too many open files"), "{what}: {}", child.text);
            refused += 1;
        } else if child.text.contains("failed: ") {
            assert!(child.text.contains("Too many open files"), "{what}: {}", child.text);
        } else {
            assert!(child.acknowledged == 300 && child.text.contains("closed: Ok"), "{what}: {}", child.text);
            worked += 1;
        }
        child.kept(&place, &what);
    }
    assert!(refused > 0 && worked > 0, "{refused} refused, {worked} worked");
}

/// RLIMIT_AS: a pool that cannot be mapped is an error that says so. Tables that are reserved for far more than is ever
/// used give way. When the program itself gets no memory any more, Rust ends the process, and nothing is lost.
#[test]
fn memory_that_cannot_be_had_is_an_error_or_the_end_of_the_process() {
    let dir = temp_dir();
    let place = dir.path().join("store");
    let child = under("ulimit -v 1500000", "large pool", &place);
    assert!(
        child.ended_well() && child.text.contains("refused: ") && child.text.contains("cannot map"),
        "{}",
        child.text
    );
    assert!(child.text.contains("pool_bytes"), "{}", child.text);
    child.kept(&place, "a pool of 4 GiB in 1.5");

    let dir = temp_dir();
    let place = dir.path().join("store");
    let child = under("ulimit -v 1500000", "some", &place);
    assert!(child.ended_well() && child.acknowledged == 300, "{}", child.text);
    child.kept(&place, "a small pool in 1.5 GiB");

    let dir = temp_dir();
    let place = dir.path().join("store");
    let child = under("ulimit -v 1500000", "hog", &place);
    assert_eq!(child.output.status.signal(), Some(SIGABRT), "{}", child.text);
    assert!(child.text.contains("memory allocation of") && child.acknowledged == 300, "{}", child.text);
    child.kept(&place, "no memory for a batch");

    // As little as it takes: whatever it is that fails, at opening or later, nothing acknowledged goes.
    for megabytes in (20..400).step_by(20) {
        let dir = temp_dir();
        let place = dir.path().join("store");
        let child = under(&format!("ulimit -v {}", megabytes * 1000), "some", &place);
        child.kept(&place, &format!("{megabytes} megabytes"));
    }
}

/// A forked child that drops or closes the parent's database neither waits for threads that are not there nor touches the
/// parent's files.
#[test]
fn a_forked_child_does_not_close_its_parents_database() {
    let dir = temp_dir();
    let place = dir.path().join("store");
    let child = under("true", "fork", &place);
    assert!(child.ended_well() && child.text.contains("closed: Ok"), "{}", child.text);
    assert_eq!(child.text.matches("the child ended well: true").count(), 2, "{}", child.text);
    assert_eq!(child.acknowledged, 301);
    child.kept(&place, "after two forks");
}

/// RLIMIT_MEMLOCK: rings counted against it on older systems. There is always a way without them.
#[test]
fn no_locked_memory_is_no_hindrance() {
    let dir = temp_dir();
    let place = dir.path().join("store");
    let child = under("ulimit -l 0 && unset BEDSTONE_IO", "some", &place);
    assert!(child.ended_well() && child.acknowledged == 300, "{}", child.text);
    child.kept(&place, "no locked memory");
}
