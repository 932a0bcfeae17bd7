//! The tests on real disks once more in processes that are forbidden io_uring, as containers forbid it, and with each
//! way of I/O forced. `deny-uring CMD ARGS` applies the filter and becomes the command, so that the whole suite can be
//! run under it: `deny-uring cargo test`.

use std::process::{Command, Output};

const DENY: &str = env!("CARGO_BIN_EXE_deny-uring");
const KILL: [&str; 5] = [env!("CARGO_BIN_EXE_bank"), "--generations", "6", "--threads", "3"];
const THREADS: [&str; 3] = [env!("CARGO_BIN_EXE_threads"), "--seconds", "3"];

fn run(command: &mut Command) -> (Output, String) {
    let output = command.output().unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output, text)
}

#[test]
fn all_is_kept_where_io_uring_is_forbidden() {
    for program in [&KILL[..], &THREADS[..]] {
        let (output, text) = run(Command::new(DENY).args(program).env_remove("BEDSTONE_IO"));
        assert!(output.status.success(), "{program:?}: {text}");
        assert!(text.contains("Pread") && text.contains("EPERM"), "the fallback was not in use: {text}");
    }
}

#[test]
fn all_is_kept_with_plain_system_calls() {
    for program in [&KILL[..], &THREADS[..]] {
        let (output, text) = run(Command::new(program[0]).args(&program[1..]).env("BEDSTONE_IO", "pread"));
        assert!(output.status.success() && text.contains("Pread"), "{program:?}: {text}");
    }
}

#[test]
fn all_is_kept_with_io_uring_and_its_absence_is_an_error_when_it_was_asked_for() {
    let (output, text) = run(Command::new(DENY).args(KILL).env("BEDSTONE_IO", "uring"));
    assert!(!output.status.success() && text.contains("io_uring"), "{text}");
    let (output, text) = run(Command::new(KILL[0]).args(&KILL[1..]).env("BEDSTONE_IO", "uring"));
    if text.contains("io_uring was asked for and does not work") {
        println!("skipped: no io_uring here");
        return;
    }
    assert!(output.status.success() && text.contains("Uring"), "{text}");
}
