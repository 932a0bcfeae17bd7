//! The command line.

use clap::{Args, Parser, Subcommand};

use crate::cmd;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the command ran and its answer is no: the key is absent, damage was found, a record was skipped
  2  the command could not run, or not to its end
  3  the command was called wrongly

Environment:
  BEDSTONE_IO=auto|uring|pread  how batches of direct I/O go to the kernel; auto (the default) takes
                                io_uring where a probe shows that it works, else pread and pwrite";

/// Loads, queries, checks and dumps Bedstone databases.
///
/// A database is a directory, and one process at a time has it open; page-dump and log-dump only read its files.
/// Begin with `bedstone demo`.
#[derive(Parser)]
#[command(name = "bedstone", version, after_help = EXIT_CODES, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Args, Clone)]
pub(crate) struct Global {
    /// Memory for the buffer pool, in MiB
    #[arg(long, global = true, value_name = "N", default_value_t = 256)]
    pub(crate) pool_mib: usize,
    /// Go through the page cache where the file system refuses direct I/O, instead of failing
    #[arg(long, global = true)]
    pub(crate) allow_buffered: bool,
}

/// The commands. Each has its options and its code in a file of its own.
#[derive(Subcommand)]
pub(crate) enum Command {
    Demo(cmd::demo::Demo),
    #[command(name = cmd::demo::WRITER, hide = true)]
    DemoWriter(cmd::demo::Writer),
    Load(cmd::load::Load),
    Get(cmd::get::Get),
    Put(cmd::put::Put),
    Delete(cmd::delete::Delete),
    Scan(cmd::scan::Scan),
    Tables(cmd::tables::Tables),
    Stat(cmd::stat::Stat),
    Check(cmd::check::Check),
    PageDump(cmd::page_dump::PageDump),
    LogDump(cmd::log_dump::LogDump),
    CrashTest(cmd::crash_test::CrashTest),
}

/// How keys are written on the command line.
#[derive(Args, Clone, Copy)]
pub(crate) struct KeyForm {
    /// Keys on the command line are hexadecimal, for example 0x00ff; without it they are the bytes typed
    #[arg(long)]
    pub(crate) hex_keys: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
