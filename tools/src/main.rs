//! The `bedstone` command: loads, queries, checks and dumps Bedstone databases, and shows in a demonstration what
//! they do. Every command is a thin layer over the library and has a file of its own in `cmd`.
//!
//! Results go to standard output, everything else to standard error. Exit codes: 0 done; 1 the command ran and its
//! answer is no (the key is absent, damage was found, a record was skipped); 2 it could not run; 3 it was called
//! wrongly.

#![forbid(unsafe_code)]

mod bytes;
mod cli;
mod cmd;
mod failure;
mod out;
mod progress;
mod records;
mod store;

use std::process::ExitCode;

use clap::Parser;

use crate::failure::{Answer, Failure};

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A reader that has gone away wants neither help nor complaints.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { failure::USAGE } else { 0 });
        }
    };
    if let cli::Command::CrashTest(test) = &cli.command
        && let Some(code) = test.child_main(&cli.global)
    {
        return code;
    }
    match cmd::run(cli) {
        Ok(Answer::Yes) | Err(Failure::BrokenPipe) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(failure::NO),
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.exit_code())
        }
    }
}
