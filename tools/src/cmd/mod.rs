//! The commands, one file each.

pub(crate) mod check;
pub(crate) mod crash_test;
pub(crate) mod delete;
pub(crate) mod demo;
pub(crate) mod get;
pub(crate) mod load;
pub(crate) mod log_dump;
pub(crate) mod page_dump;
pub(crate) mod put;
pub(crate) mod scan;
pub(crate) mod stat;
pub(crate) mod tables;

use crate::cli::{Cli, Command};
use crate::failure::{Answer, Failure};

/// Runs the command that was asked for.
pub(crate) fn run(cli: Cli) -> Result<Answer, Failure> {
    let global = &cli.global;
    match cli.command {
        Command::Demo(demo) => demo.run(global),
        Command::DemoWriter(writer) => writer.run(global),
        Command::Load(load) => load.run(global),
        Command::Get(get) => get.run(global),
        Command::Put(put) => put.run(global),
        Command::Delete(delete) => delete.run(global),
        Command::Scan(scan) => scan.run(global),
        Command::Tables(tables) => tables.run(global),
        Command::Stat(stat) => stat.run(global),
        Command::Check(check) => check.run(global),
        Command::PageDump(dump) => dump.run(),
        Command::LogDump(dump) => dump.run(),
        Command::CrashTest(test) => test.run(global),
    }
}
