//! Bad input of every kind: each gives its own typed error that says what is wrong, where, and what to do, and nothing
//! acknowledged is lost.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use bedstone::{Database, Error, WriteBatch};
use bedstone_crashtest::kill::{Child, Said};
use bedstone_crashtest::setup::{
    Config, DIR, PAGE_SIZES, check_clean, real_builder, smallest_pool, temp_dir,
};
use bedstone_io::crc32c;
use bedstone_io::sim::SimDisk;

fn small() -> bedstone::Builder {
    real_builder()
        .page_size(4096)
        .pool_bytes(1 << 20)
        .huge_pages(false)
        .log_segment_bytes(256 << 10)
        .log_buffer_bytes(64 << 10)
}

/// Opens a real directory without naming a page size, as the tools do.
fn open(dir: &Path) -> Result<Database, Error> {
    real_builder().pool_bytes(1 << 20).huge_pages(false).open(dir)
}

fn message_names(error: &Error, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

/// A store on the real disk with a little data, closed.
fn store(dir: &Path) {
    let db = small().create(dir).unwrap();
    let table = db.table("t").unwrap();
    for i in 0..300u32 {
        table.put_with(i.to_be_bytes(), [i as u8; 100], bedstone::Durability::Relaxed).unwrap();
    }
    db.close().unwrap();
}

#[test]
fn a_directory_that_is_no_store() {
    let dir = temp_dir();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
    message_names(&error, &[&dir.path().display().to_string(), "create"]);
    let error = open(&dir.path().join("missing/too")).unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "looking left something behind");

    for bytes in [vec![], b"hello, world\n".to_vec(), vec![0; 200_000], vec![0xa5; 200_000]] {
        std::fs::write(dir.path().join("data"), &bytes).unwrap();
        let error = open(dir.path()).unwrap_err();
        let kind = matches!(error, Error::NotADatabase { .. } | Error::Corrupt { .. });
        assert!(kind, "{} bytes of data: {error:?}", bytes.len());
        message_names(&error, &["data"]);
        assert_eq!(std::fs::read(dir.path().join("data")).unwrap(), bytes, "a foreign file was changed");
        assert!(matches!(
            small().create(dir.path()),
            Err(Error::AlreadyExists { .. } | Error::NotADatabase { .. })
        ));
    }
}

#[test]
fn a_path_that_is_a_file() {
    let dir = temp_dir();
    let path = dir.path().join("file");
    std::fs::write(&path, b"text").unwrap();
    for error in [
        open(&path).unwrap_err(),
        small().create(&path).unwrap_err(),
        small().open_or_create(&path).unwrap_err(),
    ] {
        assert!(
            matches!(error, Error::NotFound { .. } | Error::NotADatabase { .. } | Error::Io(_)),
            "{error:?}"
        );
        message_names(&error, &["file"]);
    }
    assert_eq!(std::fs::read(&path).unwrap(), b"text");
}

#[test]
fn another_format_version() {
    let dir = temp_dir();
    store(dir.path());
    let path = dir.path().join("data");
    let mut bytes = std::fs::read(&path).unwrap();
    for slot in [0, 64 * 1024] {
        bytes[slot + 8..slot + 10].copy_from_slice(&41u16.to_le_bytes());
        let sum = crc32c(0, &bytes[slot..slot + 4092]);
        bytes[slot + 4092..slot + 4096].copy_from_slice(&sum.to_le_bytes());
    }
    std::fs::write(&path, &bytes).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(error, Error::UnsupportedVersion { found: 41, .. }), "{error:?}");
    message_names(&error, &["data", "41"]);
}

#[test]
fn a_truncated_data_file() {
    let dir = temp_dir();
    store(dir.path());
    let path = dir.path().join("data");
    let whole = std::fs::read(&path).unwrap();
    for len in [1, 4095, 4096, 70_000, 131_072, whole.len() - 4096, whole.len() - 1] {
        std::fs::write(&path, &whole[..len]).unwrap();
        let error = open(dir.path())
            .and_then(|db| db.check())
            .map(|report| assert!(!report.is_clean(), "cut to {len}"));
        if let Err(error) = error {
            assert!(
                error.is_corruption() || matches!(error, Error::NotADatabase { .. }),
                "cut to {len}: {error:?}"
            );
            message_names(&error, &["data"]);
        }
    }
    std::fs::write(&path, &whole).unwrap();
    check_clean(&open(dir.path()).unwrap()).unwrap();
}

#[test]
fn a_missing_log_segment() {
    let disk = SimDisk::new(1);
    let config = Config::small();
    let db = config.builder(&disk).create(DIR).unwrap();
    let table = db.table("t").unwrap();
    for i in 0..200u32 {
        table.put(i.to_be_bytes(), [i as u8; 1000]).unwrap();
    }
    let disk = disk.reopen();
    drop((table, db));
    let all = disk.snapshot();
    let logs: Vec<_> =
        disk.files().into_iter().filter(|path| path.extension().is_some_and(|ext| ext == "log")).collect();
    assert!(logs.len() >= 3, "{logs:?}");
    for log in &logs[..logs.len() - 1] {
        disk.restore(&all);
        let disk = disk.reopen();
        disk.remove_file(log).unwrap();
        let error = config.builder(&disk).open(DIR).unwrap_err();
        assert!(matches!(error, Error::MissingSegment { .. } | Error::LogDamaged { .. }), "{error:?}");
        message_names(&error, &["redo"]);
        // Put back, all is well: the refusal changed nothing.
        disk.copy_in(log, &all.copy_out(log).unwrap()).unwrap();
        let db = config.builder(&disk.reopen()).open(DIR).unwrap();
        assert_eq!(db.table("t").unwrap().iter().unwrap().count(), 200);
    }
}

#[test]
fn a_second_opener_in_the_same_process_and_in_another() {
    let dir = temp_dir();
    let place = dir.path().join("store");
    let db = small().create(&place).unwrap();
    db.table("t").unwrap().put(b"k", b"v").unwrap();
    let error = open(&place).unwrap_err();
    assert!(error.is_locked() && matches!(error, Error::Locked { .. }), "{error:?}");
    message_names(&error, &[&std::process::id().to_string(), "store"]);
    db.close().unwrap();

    // Another process, which holds the store until it is killed.
    let other = dir.path().join("other");
    let mut child = {
        let mut program = Command::new(env!("CARGO_BIN_EXE_worker"));
        program.args(["1", "1", "1000000"]);
        Child::start(program, &other).unwrap()
    };
    assert_eq!(child.listen(), Ok(Some(Said::Opened)));
    let error = open(&other).unwrap_err();
    let pid = child.id();
    child.kill().unwrap();
    child.end().unwrap();
    assert!(error.is_locked(), "{error:?}");
    message_names(&error, &[&pid.to_string()]);
    // The dead do not hold locks.
    check_clean(&open(&other).unwrap()).unwrap();
}

#[test]
fn keys_values_and_names_beyond_the_limits() {
    let disk = SimDisk::new(1);
    for page_size in PAGE_SIZES {
        let disk = disk.fork(1);
        let config = Config { page_size, pool_bytes: smallest_pool(page_size) * 2, ..Config::small() };
        let db = config.builder(&disk).create(DIR).unwrap();
        let limits = db.limits();
        assert!(
            limits.max_key_bytes * 4 <= page_size && limits.max_key_bytes * 5 >= page_size - 1024,
            "{limits:?}"
        );
        let table = db.table("t").unwrap();
        let longest = vec![b'k'; limits.max_key_bytes];
        table.put(&longest, b"v").unwrap();
        assert_eq!(table.get(&longest).unwrap().as_deref(), Some(&b"v"[..]));
        let longer = vec![b'k'; limits.max_key_bytes + 1];
        let too_long = |error: Error| {
            let (len, max) = (longer.len(), limits.max_key_bytes);
            assert!(
                matches!(error, Error::KeyTooLong { len: l, max: m } if (l, m) == (len, max)),
                "{error:?}"
            );
            message_names(&error, &[&len.to_string(), &max.to_string()]);
        };
        too_long(table.put(&longer, b"v").unwrap_err());
        too_long(table.put_reader(&longer, 1, &b"v"[..]).unwrap_err());
        // What cannot be there may be asked for.
        assert!(table.get(&longer).is_ok_and(|value| value.is_none()));
        assert!(!table.contains(&longer).unwrap());
        let mut batch = WriteBatch::new();
        batch.put(&table, b"good", b"1").unwrap();
        too_long(batch.put(&table, &longer, b"v").and_then(|()| db.write(batch)).unwrap_err());

        let error = table.put_reader(b"k", limits.max_value_bytes + 1, std::io::empty()).unwrap_err();
        assert!(matches!(error, Error::ValueTooLarge { .. }), "{error:?}");
        message_names(&error, &[&limits.max_value_bytes.to_string()]);

        for name in [String::new(), "a\nb".into(), "x".repeat(limits.max_table_name_bytes + 1)] {
            let error = db.table(&name).unwrap_err();
            assert!(matches!(error, Error::InvalidTableName { .. }), "{error:?}");
            assert!(matches!(db.rename_table("t", &name), Err(Error::InvalidTableName { .. })));
        }
        db.table(&"x".repeat(limits.max_table_name_bytes)).unwrap();

        // The empty key and the empty value are as good as any.
        table.put(b"", b"").unwrap();
        assert_eq!(table.get(b"").unwrap().as_deref(), Some(&b""[..]));
        assert_eq!(table.first().unwrap().unwrap().key(), b"");
        check_clean(&db).unwrap();
        db.close().unwrap();
    }
}

#[test]
fn options_that_cannot_be() {
    for page_size in PAGE_SIZES {
        let min = smallest_pool(page_size);
        let create = |bytes: usize| {
            Config { page_size, pool_bytes: bytes, ..Config::small() }.builder(&SimDisk::new(1)).create(DIR)
        };
        let error = create(min - 1).unwrap_err();
        assert!(
            matches!(error, Error::PoolTooSmall { given, min: m } if given == min - 1 && m == min),
            "{error:?}"
        );
        message_names(&error, &["pool_bytes", &min.to_string()]);
        create(min).unwrap().close().unwrap();
    }
    let disk = SimDisk::new(1);
    let with = |change: &dyn Fn(bedstone::Builder) -> bedstone::Builder| {
        change(Config::small().builder(&disk)).create(DIR)
    };
    for size in [0, 1, 512, 4095, 5000, 131_072] {
        assert!(
            matches!(with(&|b| b.page_size(size)), Err(Error::BadOption { option: "page_size", .. })),
            "{size}"
        );
    }
    for bytes in [0, 4096, 65_536 + 1] {
        assert!(
            matches!(with(&|b| b.log_segment_bytes(bytes)), Err(Error::BadOption { .. })),
            "segments of {bytes}"
        );
    }
    assert!(matches!(with(&|b| b.log_buffer_bytes(0)), Err(Error::BadOption { .. })));
    assert!(matches!(with(&|b| b.syncs_in_flight(0)), Err(Error::BadOption { .. })));
    assert!(matches!(with(&|b| b.syncs_in_flight(3)), Err(Error::BadOption { .. })));
    // A refused creation leaves nothing in the way of a good one.
    with(&|b| b).unwrap().close().unwrap();
    let error = Config::small().builder(&disk).page_size(8192).open(DIR).unwrap_err();
    assert!(matches!(error, Error::BadOption { option: "page_size", .. }), "{error:?}");
    message_names(&error, &["4096", "8192"]);
}

#[test]
fn a_table_that_is_gone_or_another_databases() {
    let (disk, other) = (SimDisk::new(1), SimDisk::new(2));
    let db = Config::small().builder(&disk).create(DIR).unwrap();
    let foreign = Config::small().builder(&other).create(DIR).unwrap();
    let table = db.table("t").unwrap();
    table.put(b"k", b"v").unwrap();
    let mut batch = WriteBatch::new();
    batch.put(&table, b"k", b"w").unwrap();
    assert!(matches!(foreign.write(batch), Err(Error::ForeignTable { .. })));
    assert!(db.drop_table("t").unwrap() && !db.drop_table("t").unwrap());
    assert!(matches!(table.get(b"k"), Err(Error::TableDropped { .. })));
    assert!(matches!(table.put(b"k", b"v"), Err(Error::TableDropped { .. })));
    let mut batch = WriteBatch::new();
    let added = batch.put(&table, b"k", b"w");
    assert!(matches!(added.and_then(|()| db.write(batch)), Err(Error::TableDropped { .. })));
    // A new table of that name is another one: the old handle does not see it.
    db.table("t").unwrap().put(b"k", b"new").unwrap();
    assert!(matches!(table.get(b"k"), Err(Error::TableDropped { .. })));
    assert!(matches!(db.rename_table("none", "x"), Err(Error::TableNotFound { .. })));
    let last = db.table("last").unwrap();
    db.close().unwrap();
    assert!(last.get(b"k").is_err() && last.put(b"k", b"v").is_err(), "a handle works after close");
}

/// The disk fills up: writers get the error before anything has happened, readers go on, deleting works, and writing
/// resumes by itself when there is space again.
#[test]
fn a_full_disk_and_space_again() {
    for extra in [0, 100_000, 300_000, 1_000_000] {
        let disk = SimDisk::new(extra);
        let config = Config { checkpoint_bytes: 64 << 10, ..Config::small() };
        let db = config.builder(&disk).create(DIR).unwrap();
        let table = db.table("t").unwrap();
        for i in 0..100u32 {
            table.put(i.to_be_bytes(), [1; 200]).unwrap();
        }
        disk.set_capacity(Some(disk.used() + extra));
        let mut written = 100u32;
        let error = loop {
            match table.put(written.to_be_bytes(), [1; 200]) {
                Ok(()) => written += 1,
                Err(error) => break error,
            }
            assert!(written < 1_000_000, "the disk never fills up");
        };
        assert!(matches!(error, Error::NoSpace { .. }) && error.is_no_space(), "{error:?}");
        message_names(&error, &[DIR, "space"]);
        assert!(!table.contains(written.to_be_bytes()).unwrap(), "a refused write happened");
        let long = table.put(b"long", vec![7; 3 << 20]).unwrap_err();
        assert!(long.is_no_space(), "{long:?}");
        for i in 0..written {
            assert_eq!(table.get(i.to_be_bytes()).unwrap().as_deref(), Some(&[1; 200][..]), "extra {extra}");
        }
        // Deleting works, if need be after a checkpoint that gives log space back; the store is never stuck.
        for i in 0..50u32 {
            let outcome = table.delete(i.to_be_bytes());
            assert!(
                outcome.as_ref().is_ok_and(|was_there| *was_there),
                "extra {extra}, key {i}: {outcome:?}"
            );
        }
        disk.set_capacity(None);
        for i in 0..50u32 {
            table
                .put(i.to_be_bytes(), [2; 200])
                .unwrap_or_else(|error| panic!("extra {extra}: with space again: {error}"));
        }
        check_clean(&db).unwrap();
        let disk = disk.reopen();
        drop((table, db));
        let db = config.builder(&disk).open(DIR).unwrap();
        let table = db.table("t").unwrap();
        assert_eq!(table.iter().unwrap().count(), written as usize);
        assert_eq!(table.get(0u32.to_be_bytes()).unwrap().as_deref(), Some(&[2; 200][..]));
        check_clean(&db).unwrap();
    }
}

/// Whatever the log's fill, somebody who deletes on a full disk gets space back in the end.
#[test]
fn deleting_works_on_a_full_disk_whatever_the_fill_of_the_log() {
    let disk = SimDisk::new(1);
    let config = Config { checkpoint_bytes: 64 << 10, ..Config::small() };
    let db = config.builder(&disk).create(DIR).unwrap();
    let table = db.table("t").unwrap();
    disk.set_capacity(Some(disk.used()));
    let written = (0..10_000u32).take_while(|i| table.put(i.to_be_bytes(), [1; 200]).is_ok()).count() as u32;
    assert!((1..10_000).contains(&written));
    for i in 0..written {
        let deleted = table
            .delete(i.to_be_bytes())
            .or_else(|_| db.checkpoint().and_then(|_| table.delete(i.to_be_bytes())));
        assert!(deleted.is_ok_and(|was_there| was_there), "key {i} of {written} cannot be deleted");
    }
}

/// Creating and opening on a disk without room: refused, and possible once there is.
#[test]
fn no_room_for_a_new_store() {
    for room in (0..100).map(|units| units * 4096).step_by(5) {
        let disk = SimDisk::new(room);
        disk.set_capacity(Some(room));
        let config = Config::small();
        match config.builder(&disk).create(DIR) {
            Ok(db) => drop(db.close()),
            Err(error) => assert!(error.is_no_space(), "{room} bytes: {error:?}"),
        }
        disk.set_capacity(None);
        let disk = disk.reopen();
        let db =
            config.builder(&disk).open_or_create(DIR).unwrap_or_else(|error| panic!("{room} bytes: {error}"));
        db.table("t").unwrap().put(b"k", b"v").unwrap();
        check_clean(&db).unwrap();
    }
}

/// Runs a shell script as root of a user and mount namespace of its own; `None` where that is not allowed.
fn in_namespace(script: &str) -> Option<std::process::Output> {
    let flags: &[&str] = &["--user", "--map-root-user", "--mount"];
    let allowed = Command::new("unshare").args(flags).arg("true").stderr(Stdio::null()).status();
    if !allowed.is_ok_and(|status| status.success()) {
        let text = "skipped: no user namespaces here\n";
        drop(std::io::stderr().write_all(text.as_bytes()));
        return None;
    }
    Some(Command::new("unshare").args(flags).args(["sh", "-ec", script]).output().unwrap())
}

/// Through the real kernel: a file system of 5 MiB fills up under a process that writes, and one mounted read-only
/// refuses to be written. The process reports the error and ends.
#[test]
fn a_real_file_system_that_is_full_or_read_only() {
    let dir = temp_dir();
    let (place, program) = (dir.path().display(), env!("CARGO_BIN_EXE_worker"));
    let run = format!("env BEDSTONE_CRASHTEST_CHILD='{place}/store' '{program}'");
    let script = format!("mount -t tmpfs -o size=5m none '{place}'; exec {run} 1 2 1000000");
    let Some(output) = in_namespace(&script) else { return };
    let said = |output: &std::process::Output| {
        let [out, err] =
            [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        assert!(!err.contains("panicked"), "{err}");
        out + &err
    };
    let text = said(&output);
    assert!(!output.status.success() && text.contains("NoSpace"), "{text}");
    assert!(text.starts_with("o\n"), "it never got as far as writing: {text}");

    let script = format!(
        "mount -t tmpfs -o size=32m none '{place}'; {run} 1 1 20; mount -o remount,ro '{place}'; exec {run} 1 1 20"
    );
    let Some(output) = in_namespace(&script) else { return };
    let text = said(&output);
    assert!(!output.status.success() && text.contains("Read-only file system"), "{text}");
    assert!(text.contains(&dir.path().display().to_string()), "{text}");
}
