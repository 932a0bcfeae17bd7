//! What needs a process of its own (a seccomp filter, a limit, another holder of a lock, a mount): these
//! tests start the test binary again, with [`child`] as its only test and the scenario in the environment.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::AtomicU64;

use tempfile::TempDir;

use super::super::*;
use super::{ok, pattern, write_and_read};
use crate::testing;
use crate::traits::ReadOp;

const CHILD: &str = "BEDSTONE_IO_TEST_CHILD";
const CHILD_DIR: &str = "BEDSTONE_IO_TEST_DIR";

#[test]
fn one_lock_has_one_holder() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("LOCK");
    let disk = RealDisk::new(IoChoice::Pread, false).unwrap();
    // What a killed holder leaves behind locks nobody out.
    std::fs::write(&path, "4194999999\nand more").unwrap();
    let held = disk.lock(&path).unwrap();
    let own = std::process::id();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{own}\n"));
    let refused = disk.lock(&path).unwrap_err();
    assert!(refused.is_locked());
    assert!(refused.to_string().contains(&format!("held by process {own}")), "{refused}");
    let other = in_child("lock", dir.path());
    assert!(String::from_utf8_lossy(&other.stdout).contains(&format!("held by process {own}")), "{other:?}");
    drop(held);
    let other = in_child("lock", dir.path());
    assert!(String::from_utf8_lossy(&other.stdout).contains("the lock is mine"), "{other:?}");
    // That child ended without giving the lock back, as a killed one does.
    drop(disk.lock(&path).unwrap());
    assert!(disk.lock(&dir.path().join("no/LOCK")).unwrap_err().is_not_found());
}

#[test]
fn io_uring_forbidden_from_the_start() {
    for (scenario, name) in [("eperm", "EPERM"), ("enosys", "ENOSYS")] {
        let dir = TempDir::new().unwrap();
        let output = in_child(scenario, dir.path());
        assert!(String::from_utf8_lossy(&output.stdout).contains(name), "{output:?}");
    }
}

#[test]
fn io_uring_forbidden_while_rings_exist() {
    let dir = TempDir::new().unwrap();
    in_child("later", dir.path());
}

#[test]
fn a_file_size_limit_is_an_error_and_no_signal() {
    let dir = TempDir::new().unwrap();
    in_child("limit", dir.path());
    // Where no file may have a byte, and the signal would end the process: probes and the lock's text are files too.
    for blocks in ["0", "1"] {
        let dir = TempDir::new().unwrap();
        in_limited_child(&format!("ulimit -f {blocks}"), "no files", dir.path());
    }
}

#[test]
fn a_full_disk_is_an_error() {
    let dir = TempDir::new().unwrap();
    let script = r#"mount -t tmpfs -o size=1m none "$0" && exec "$@""#;
    in_mounting_child(script, "full", dir.path(), dir.path());
}

/// A program that is started while files are open inherits none of them: a lock would be held for as long as that
/// program runs, whatever became of its holder.
#[test]
fn a_program_started_meanwhile_inherits_no_file() {
    let dir = TempDir::new().unwrap();
    let disk = RealDisk::new(IoChoice::Auto, true).unwrap();
    let _lock = disk.lock(&dir.path().join("LOCK")).unwrap();
    let file = disk.open_direct(&dir.path().join("data"), OpenMode::CreateNew).unwrap();
    let _log = disk.open_log(&dir.path().join("log"), OpenMode::CreateNew).unwrap();
    write_and_read(&*file, 100, ALIGN, 1);
    let open_files = |process: u32| -> Vec<String> {
        std::fs::read_dir(format!("/proc/{process}/fd"))
            .unwrap()
            .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
            .map(|target| target.display().to_string())
            .filter(|target| target.contains("io_uring") || Path::new(target).starts_with(dir.path()))
            .collect()
    };
    assert!(open_files(std::process::id()).len() >= 3);
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    let inherited = open_files(child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(inherited.is_empty(), "{inherited:?}");
}

/// A ring needs memory that may be locked, and a descriptor. Where either is used up, now or from the start,
/// batches go another way, and nothing is lost for good.
#[test]
fn a_ring_that_cannot_be_had_is_done_without() {
    let dir = TempDir::new().unwrap();
    in_child("no memory", dir.path());
    let dir = TempDir::new().unwrap();
    in_child("no memory, later", dir.path());
    let dir = TempDir::new().unwrap();
    in_limited_child("ulimit -l 0", "no locked memory", dir.path());
    let dir = TempDir::new().unwrap();
    in_limited_child("ulimit -n 64", "no descriptors", dir.path());
}

/// tmpfs takes O_DIRECT and keeps the pages all the same, as btrfs does with checksummed files: it must be found
/// out by looking, and be told, and everything must work.
#[test]
fn a_file_system_that_caches_direct_writes_is_told_apart() {
    let dir = TempDir::new().unwrap();
    let script = r#"mount -t tmpfs -o size=8m none "$0" && exec "$@""#;
    in_mounting_child(script, "cached", dir.path(), dir.path());
}

#[test]
fn an_overlay_is_direct_or_says_that_it_is_not() {
    let dir = TempDir::new().unwrap();
    for name in ["lower", "upper", "work", "merged"] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
    }
    std::fs::write(dir.path().join("lower/old"), [5; 2 * ALIGN]).unwrap();
    let script = r#"cd "$0" && mount -t overlay -o userxattr,lowerdir=lower,upperdir=upper,workdir=work none merged && exec "$@""#;
    in_mounting_child(script, "overlay", dir.path(), &dir.path().join("merged"));
}

/// Runs [`child`] under what the shell's `limit` sets.
fn in_limited_child(limit: &str, scenario: &str, dir: &Path) {
    let mut command = Command::new("sh");
    command.args(["-c", &format!(r#"{limit} && exec "$0" "$@""#)]).arg(std::env::current_exe().unwrap());
    run_child(&mut command, scenario, dir);
}

/// Runs [`child`] in a mount name space of its own, after `script`, which is given `root` and then what to
/// execute. Skips the test, with a message, where this may not be done.
fn in_mounting_child(script: &str, scenario: &str, root: &Path, dir: &Path) {
    let command = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]).arg(root);
        command
    };
    match command().arg("true").output() {
        Ok(output) if output.status.success() => {
            let output = run_child(command().arg(std::env::current_exe().unwrap()), scenario, dir);
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
        }
        other => eprintln!("skipped: nothing can be mounted here: {other:?}"),
    }
}

#[test]
fn a_forked_child_uses_no_ring_and_no_thread_of_its_parent() {
    let dir = TempDir::new().unwrap();
    in_child("fork", dir.path());
}

#[test]
fn io_uring_forbidden_while_operations_are_in_flight() {
    use std::os::unix::process::ExitStatusExt;
    let dir = TempDir::new().unwrap();
    if RealDisk::new(IoChoice::Uring, true).is_err() {
        return eprintln!("skipped: no io_uring");
    }
    in_child("in flight, plain", dir.path());
    if !ring::defers() {
        return eprintln!("skipped: no deferring rings");
    }
    let output = child_command(
        &mut Command::new(std::env::current_exe().unwrap()),
        "in flight, deferring",
        dir.path(),
    );
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:#?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("in flight on a ring that is lost"),
        "{output:#?}"
    );
}

/// A ring that can no longer be entered while it has reads in flight, of a pipe that is still empty.
fn lose_a_ring_in_flight(deferring: bool) {
    const READS: usize = 65;
    let (reader, mut writer) = io::pipe().unwrap();
    let mut memory = AlignedBuf::zeroed(READS * ALIGN);
    let (told, thread) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            told.send(std::fs::read_link("/proc/thread-self").unwrap()).unwrap();
            let mut transfers: Vec<_> = memory
                .as_aligned_mut()
                .chunks(ALIGN)
                .map(|buf| transfer::Transfer::new(transfer::Memory::Read(buf.into_inner()), 0, 1))
                .collect();
            let outcome = ring::run_on_fresh(deferring, reader.as_fd(), &mut transfers);
            (outcome, transfers.iter().filter(|transfer| transfer.request().is_none()).count())
        });
        let syscall = Path::new("/proc").join(thread.recv().unwrap()).join("syscall");
        let is_entered = || std::fs::read_to_string(&syscall).unwrap().starts_with("426 ");
        while !is_entered() {
            std::thread::yield_now();
        }
        testing::deny_io_uring(libc::EPERM).unwrap();
        // A quarter of the depth, upon which the ring is entered again, for the 65th.
        let write = |writer: &mut io::PipeWriter, blocks| {
            for _ in 0..blocks {
                io::Write::write_all(writer, &[6; ALIGN]).unwrap();
            }
        };
        write(&mut writer, 16);
        while is_entered() {
            std::thread::yield_now();
        }
        write(&mut writer, 48);
        let (outcome, finished) = run.join().unwrap();
        assert_eq!(outcome.unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert_eq!(finished, 64);
    });
    assert!(memory[..64 * ALIGN].iter().all(|&b| b == 6) && memory[64 * ALIGN..].iter().all(|&b| b == 0));
}

/// Runs [`child`] with a scenario in a process of its own, which must end well.
fn in_child(scenario: &str, dir: &Path) -> Output {
    run_child(&mut Command::new(std::env::current_exe().unwrap()), scenario, dir)
}

fn child_command(command: &mut Command, scenario: &str, dir: &Path) -> Output {
    command
        .args(["real::tests::children::child", "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, scenario)
        .env(CHILD_DIR, dir)
        .output()
        .unwrap()
}

fn run_child(command: &mut Command, scenario: &str, dir: &Path) -> Output {
    let output = child_command(command, scenario, dir);
    assert!(output.status.success(), "scenario {scenario}: {output:#?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "scenario {scenario}: {output:#?}");
    output
}

#[test]
fn child() {
    let (Ok(scenario), Ok(dir)) = (std::env::var(CHILD), std::env::var(CHILD_DIR)) else { return };
    let dir = PathBuf::from(dir);
    let data = dir.join("data");
    match scenario.as_str() {
        "lock" => match RealDisk::new(IoChoice::Pread, true).unwrap().lock(&dir.join("LOCK")) {
            Ok(held) => {
                println!("the lock is mine");
                std::mem::forget(held);
            }
            Err(error) => println!("{error}"),
        },
        "eperm" | "enosys" => {
            testing::deny_io_uring(if scenario == "eperm" { libc::EPERM } else { libc::ENOSYS }).unwrap();
            let disk = RealDisk::new(IoChoice::Auto, true).unwrap();
            let file = disk.open_direct(&data, OpenMode::CreateNew).unwrap();
            write_and_read(&*file, 100, ALIGN, 1);
            let report = disk.report(&dir);
            println!("{report:?}");
            assert_eq!(report.mode, IoMode::Pread);
            let error = RealDisk::new(IoChoice::Uring, true).unwrap_err();
            assert!(matches!(error, SetupError::NoUring { .. }), "{error}");
        }
        "later" => {
            let Ok(disk) = RealDisk::new(IoChoice::Uring, true) else {
                return eprintln!("skipped: no io_uring");
            };
            let file = disk.open_direct(&data, OpenMode::CreateNew).unwrap();
            write_and_read(&*file, 100, ALIGN, 1);
            assert_eq!(disk.report(&dir).mode, IoMode::Uring);
            let meetings = std::sync::Barrier::new(4);
            let rounds = AtomicU64::new(0);
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        // A ring in each thread, and then none may be entered.
                        let mut back = AlignedBuf::zeroed(100 * ALIGN);
                        for _ in 0..2 {
                            let mut reads: Vec<_> = (0..)
                                .zip(back.as_aligned_mut().chunks(ALIGN))
                                .map(|(i, buf)| ReadOp { buf, offset: i * ALIGN as u64, result: ok() })
                                .collect();
                            file.read_batch(&mut reads);
                            assert!(reads.iter().all(|read| read.result.is_ok()));
                            drop(reads);
                            assert!(*back == *pattern(100 * ALIGN, 1));
                            rounds.fetch_add(1, Ordering::Relaxed);
                            meetings.wait();
                            meetings.wait();
                        }
                    });
                }
                meetings.wait();
                testing::deny_io_uring(libc::EPERM).unwrap();
                meetings.wait();
                meetings.wait();
                meetings.wait();
            });
            assert_eq!(rounds.into_inner(), 6);
            write_and_read(&*file, 100, ALIGN, 2);
            let report = disk.report(&dir);
            assert_eq!(report.mode, IoMode::Pread);
            assert!(
                report.reason.contains("worked at first") && report.reason.contains("EPERM"),
                "{report:?}"
            );
        }
        "limit" => {
            let disk = RealDisk::new(IoChoice::Auto, true).unwrap();
            let file = disk.open_direct(&data, OpenMode::CreateNew).unwrap();
            let log = disk.open_log(&dir.join("log"), OpenMode::CreateNew).unwrap();
            testing::limit_file_size(1 << 20).unwrap();
            file.allocate(1 << 20).unwrap();
            log.allocate_zeroed(1 << 20).unwrap();
            assert!(file.allocate((1 << 20) + 1).unwrap_err().is_no_space());
            assert!(log.allocate_zeroed((1 << 20) + 1).unwrap_err().is_no_space());
            assert_eq!((file.len().unwrap(), log.len().unwrap()), (1 << 20, 1 << 20));
            let block = AlignedBuf::zeroed(ALIGN);
            assert!(file.write_at(block.as_aligned(), 1 << 20).unwrap_err().is_no_space());
            assert!(log.write_at(b"x", 1 << 20).unwrap_err().is_no_space());
            // Half of the second block lies beyond the limit: a short answer, then an error.
            let half = log.write_at(&[1; 20], (1 << 20) - 10).unwrap_err();
            assert!(half.is_no_space() && half.op == Op::Write, "{half}");
        }
        "full" => {
            let disk = RealDisk::new(IoChoice::Auto, true).unwrap();
            let file = disk.open_direct(&data, OpenMode::CreateNew).unwrap();
            let log = disk.open_log(&dir.join("log"), OpenMode::CreateNew).unwrap();
            file.allocate(512 << 10).unwrap();
            let error = file.allocate(2 << 20).unwrap_err();
            assert!(error.is_no_space() && error.op == Op::Allocate, "{error}");
            let error = log.allocate_zeroed(2 << 20).unwrap_err();
            assert!(error.is_no_space() && error.op == Op::Allocate, "{error}");
            // What was allocated can still be written.
            write_and_read(&*file, 100, ALIGN, 4);
            let block = AlignedBuf::zeroed(ALIGN);
            assert!(file.write_at(block.as_aligned(), 1 << 20).unwrap_err().is_no_space());
            // A full disk is no reason to refuse direct I/O, here or to anybody who opens the file.
            let second = RealDisk::new(IoChoice::Auto, true).unwrap();
            second.open_direct(&data, OpenMode::ReadWrite).unwrap();
        }
        "overlay" => {
            let disk = RealDisk::new(IoChoice::Auto, true).unwrap();
            let report = disk.report(&dir);
            eprintln!("{report:?}");
            assert_eq!(report.file_system, "overlayfs");
            write_and_read(&*disk.open_direct(&data, OpenMode::CreateNew).unwrap(), 100, ALIGN, 1);
            // Writing to a file of the lower layer has it copied up.
            write_and_read(&*disk.open_direct(&dir.join("old"), OpenMode::ReadWrite).unwrap(), 100, ALIGN, 2);
            let strict = RealDisk::new(IoChoice::Auto, false).unwrap();
            match strict.open_direct(&data, OpenMode::ReadWrite) {
                Ok(file) => write_and_read(&*file, 100, ALIGN, 3),
                Err(error) => assert!(error.is_direct_refused() && !report.direct, "{error}"),
            }
        }
        "no files" => {
            let disk = RealDisk::new(IoChoice::Auto, true).unwrap();
            drop(disk.lock(&dir.join("LOCK")).unwrap());
            let file = disk.open_direct(&data, OpenMode::CreateNew).unwrap();
            let log = disk.open_log(&dir.join("log"), OpenMode::CreateNew).unwrap();
            assert!(file.allocate(ALIGN as u64).unwrap_err().is_no_space());
            assert!(log.allocate_zeroed(ALIGN as u64).unwrap_err().is_no_space());
            assert!(log.allocate(ALIGN as u64).unwrap_err().is_no_space());
        }
        "no memory" => {
            testing::deny_io_uring(libc::ENOMEM).unwrap();
            let disk = RealDisk::new(IoChoice::Auto, true).unwrap();
            write_and_read(&*disk.open_direct(&data, OpenMode::CreateNew).unwrap(), 100, ALIGN, 1);
            let report = disk.report(&dir);
            assert_eq!(report.mode, IoMode::Pread);
            assert!(
                report.reason.contains("ENOMEM") && report.reason.contains("RLIMIT_MEMLOCK"),
                "{report:?}"
            );
        }
        "no memory, later" => {
            let Ok(disk) = RealDisk::new(IoChoice::Uring, true) else {
                return eprintln!("skipped: no io_uring");
            };
            let file = disk.open_direct(&data, OpenMode::CreateNew).unwrap();
            write_and_read(&*file, 100, ALIGN, 1);
            testing::deny_io_uring(libc::ENOMEM).unwrap();
            write_and_read(&*file, 100, ALIGN, 2);
            // Want of memory may pass: io_uring is not given up.
            assert_eq!(disk.report(&dir).mode, IoMode::Uring);
        }
        "no locked memory" => {
            let disk = RealDisk::new(IoChoice::Auto, true).unwrap();
            write_and_read(&*disk.open_direct(&data, OpenMode::CreateNew).unwrap(), 100, ALIGN, 1);
            println!("{:?}", disk.report(&dir));
        }
        "no descriptors" => {
            let disk = RealDisk::new(IoChoice::Auto, true).unwrap();
            let file = disk.open_direct(&data, OpenMode::CreateNew).unwrap();
            let log = disk.open_log(&dir.join("log"), OpenMode::CreateNew).unwrap();
            let mut all = Vec::new();
            let refused = loop {
                match std::fs::File::open("/dev/null") {
                    Ok(one) => all.push(one),
                    Err(error) => break error,
                }
            };
            assert_eq!(refused.raw_os_error(), Some(libc::EMFILE));
            // Threads that would need a ring of their own.
            std::thread::scope(|scope| {
                scope.spawn(|| write_and_read(&*file, 100, ALIGN, 2));
            });
            log.write_at(b"still open", 0).unwrap();
            log.sync_data().unwrap();
            for error in [
                disk.open_direct(&data, OpenMode::ReadWrite).unwrap_err(),
                disk.open_log(&dir.join("new"), OpenMode::CreateNew).unwrap_err(),
                disk.lock(&dir.join("LOCK")).unwrap_err(),
                disk.sync_dir(&dir).unwrap_err(),
            ] {
                assert_eq!(error.source.raw_os_error(), Some(libc::EMFILE), "{error}");
                assert!(!error.is_direct_refused() && !error.is_locked(), "{error}");
            }
            drop(all);
            write_and_read(&*disk.open_direct(&data, OpenMode::ReadWrite).unwrap(), 100, ALIGN, 3);
            disk.lock(&dir.join("LOCK")).unwrap();
        }
        "cached" => {
            for choice in [IoChoice::Pread, IoChoice::Auto] {
                let disk = RealDisk::new(choice, true).unwrap();
                let report = disk.report(&dir);
                assert_eq!((&*report.file_system, report.direct), ("tmpfs", false), "{report:?}");
                assert!(report.reason.contains("not direct"), "{report:?}");
                let file = disk.open_direct(&dir.join(format!("{choice:?}")), OpenMode::CreateNew).unwrap();
                write_and_read(&*file, 100, ALIGN, 5);
            }
        }
        "in flight, plain" => lose_a_ring_in_flight(false),
        "in flight, deferring" => lose_a_ring_in_flight(true),
        "fork" => {
            for choice in [IoChoice::Pread, IoChoice::Auto] {
                let disk = RealDisk::new(choice, true).unwrap();
                let file = disk.open_direct(&dir.join(format!("{choice:?}")), OpenMode::CreateNew).unwrap();
                write_and_read(&*file, 100, ALIGN, 1);
                let lock = disk.lock(&dir.join("LOCK")).unwrap();
                let mut given = Some((disk, Arc::clone(&file), lock));
                assert!(testing::in_fork(|| {
                    write_and_read(&*file, 100, ALIGN, 2);
                    write_and_read(&*file, 100, ALIGN, 3);
                    given.take();
                }));
                write_and_read(&*file, 100, ALIGN, 4);
                let disk = RealDisk::new(choice, true).unwrap();
                assert!(given.is_some());
                assert!(
                    disk.lock(&dir.join("LOCK")).unwrap_err().is_locked(),
                    "the parent's lock must outlive the child"
                );
            }
        }
        other => panic!("no such scenario: {other}"),
    }
}
