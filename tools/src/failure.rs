//! How a command ends when it does not end well: what is said and with which code the process exits.

use std::error::Error as _;
use std::io::{self, Write};
use std::path::PathBuf;

/// The command ran, and its answer is no.
pub(crate) const NO: u8 = 1;
/// The command could not run, or not to its end.
pub(crate) const CANNOT: u8 = 2;
/// The command was called wrongly.
pub(crate) const USAGE: u8 = 3;

/// What a command that ran found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// All as asked for.
    Yes,
    /// Absent, damaged, or not all of it; the command has said so itself.
    No,
}

/// Why a command did not run to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Whoever read standard output has gone away. That is no error: it has seen enough.
    #[error("standard output was closed")]
    BrokenPipe,
    /// Standard output cannot be written.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    /// An input file cannot be read.
    #[error("cannot read {}", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] bedstone::Error),
    /// The command was called wrongly in a way that only the data could show.
    #[error("{0}")]
    Usage(String),
    /// Anything else, in words that say what to do.
    #[error("{0}")]
    Cannot(String),
}

/// For what is written to standard output; errors of other files are given their names where they arise.
impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::BrokenPipe => Failure::BrokenPipe,
            _ => Failure::Output(e),
        }
    }
}

impl Failure {
    /// The code to exit with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Failure::BrokenPipe => 0,
            Failure::Usage(_) => USAGE,
            _ => CANNOT,
        }
    }

    /// What happened, its causes and what to do, for people.
    pub(crate) fn text(&self) -> String {
        let mut said = self.words();
        let mut text = format!("bedstone: {said}");
        let mut cause = self.source();
        while let Some(e) = cause {
            let words = e.to_string();
            // Many messages repeat their cause; once is enough.
            if !said.contains(&words) {
                text.push_str("\n  because: ");
                text.push_str(&words);
                said = words;
            }
            cause = e.source();
        }
        if let Some(advice) = self.advice() {
            text.push_str("\n  what to do: ");
            text.push_str(advice);
        }
        text
    }

    /// What happened. Where the engine advises a programmer what to call, this advises what to type.
    fn words(&self) -> String {
        use bedstone::Error;
        match self {
            Failure::Engine(Error::NotFound { path }) => {
                format!("there is no database at {}; load and put make one", path.display())
            }
            Failure::Engine(Error::AlreadyExists { path }) => {
                format!("there is a database at {} already; name a directory without one", path.display())
            }
            Failure::Engine(Error::PoolTooSmall { given, min }) => format!(
                "a pool of {} bytes is too small, at least {} are needed with this page size; raise --pool-mib",
                crate::bytes::count(*given as u64),
                crate::bytes::count(*min as u64)
            ),
            _ => self.to_string(),
        }
    }

    /// Says it on standard error.
    pub(crate) fn print(&self) {
        // With standard error gone there is nobody left to tell.
        let _ = writeln!(io::stderr(), "{}", self.text());
    }

    /// What to do, where the engine's message does not say it itself.
    fn advice(&self) -> Option<&'static str> {
        let Failure::Engine(bedstone::Error::Io(e)) = self else { return None };
        if e.is_direct_refused() {
            return Some(
                "put the database on a disk file system such as ext4 or xfs, or pass --allow-buffered to go \
                 through the page cache",
            );
        }
        if e.is_no_space() {
            return Some(
                "free some space on this file system and repeat the command; nothing committed is lost",
            );
        }
        match e.source.kind() {
            io::ErrorKind::PermissionDenied => {
                Some("run it as the owner of the directory; opening a database writes to it")
            }
            io::ErrorKind::ReadOnlyFilesystem => {
                Some("opening a database writes to it; page-dump and log-dump only read")
            }
            io::ErrorKind::NotFound => Some("check the path"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_was_said_already_is_not_repeated() {
        let e = Failure::Input { path: "x.csv".into(), source: io::Error::other("the tape is torn") };
        assert_eq!(e.text(), "bedstone: cannot read x.csv\n  because: the tape is torn");
        let e = Failure::Cannot("cannot: the tape is torn".into());
        assert_eq!(e.text(), "bedstone: cannot: the tape is torn");
    }

    #[test]
    fn codes() {
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).exit_code(), 0);
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::StorageFull)).exit_code(), CANNOT);
        assert_eq!(Failure::Usage("no".into()).exit_code(), USAGE);
    }
}
