//! Runs a command in which io_uring is refused, as container runtimes refuse it: a seccomp filter answers EPERM to its
//! system calls in the command and all it starts. `deny-uring cargo test --workspace`
#![forbid(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// Operation not permitted.
const EPERM: i32 = 1;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("usage: deny-uring COMMAND [ARGUMENT]...");
        return ExitCode::from(3);
    };
    if let Err(error) = bedstone_io::testing::deny_io_uring(EPERM) {
        eprintln!("the seccomp filter could not be installed: {error}");
        return ExitCode::from(2);
    }
    let error = Command::new(&program).args(arguments).exec();
    eprintln!("{} could not be started: {error}", program.display());
    ExitCode::from(2)
}
