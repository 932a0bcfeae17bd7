//! The process that is killed, from both sides: what it says over its standard output, and how its parent listens.
//!
//! It is the parent's own program, run once more with [`CHILD`] in its environment. It says `o` when the store is open,
//! `a STREAM NUMBER DURABILITY` for every acknowledged commit, and `x` or `?` with words when it fails: the store is to
//! blame, or it could not run.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child as Process, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use bedstone::{Database, Durability, Error};

use crate::verdict::Failure;
use crate::workload::{Ack, Acks, Workload};

/// The environment variable that makes a program the child: the store's directory.
pub const CHILD: &str = "BEDSTONE_CRASHTEST_CHILD";

/// A child that is silent for so long hangs: the slowest disk acknowledges something within it.
const SILENCE: Duration = Duration::from_secs(120);

/// What a child says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// The store is open.
    Opened,
    /// A commit was acknowledged.
    Acknowledged(Ack),
}

/// A running child. It is killed when this is dropped.
#[derive(Debug)]
pub struct Child {
    process: Process,
    /// Its lines, read by a thread that ends with its output.
    lines: Receiver<std::io::Result<String>>,
}

/// Whether this process is a child.
pub fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// If this process is a child, works on the store and says so; gives the code to exit with. `None` if it is not.
///
/// To be called at the beginning of `main`, before anything is printed.
pub fn child_main(workload: &dyn Workload) -> Option<ExitCode> {
    let dir = std::env::var_os(CHILD)?;
    let words = |error: &Error| format!("{error} ({error:?})").replace('\n', " ");
    let db = match workload.options().open_or_create(Path::new(&dir)) {
        Ok(db) => db,
        Err(error) => {
            say(&format!("{} opening: {}\n", sign(&error), words(&error)));
            return Some(ExitCode::FAILURE);
        }
    };
    if !say("o\n") {
        return Some(ExitCode::SUCCESS);
    }
    let report = |ack: Ack| say(&format!("a {} {} {}\n", ack.stream, ack.number, name(ack.durability)));
    let outcome = workload.work(&db, &Acks::new(&report)).and_then(|()| Database::close(db));
    Some(match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{} {}\n", sign(&error), words(&error)));
            ExitCode::FAILURE
        }
    })
}

/// How an error of the child is told: as the store's fault, or as something that tells nothing of the store.
fn sign(error: &Error) -> char {
    let circumstances = match error {
        Error::Io(e) => e.is_direct_refused() || e.source.kind() == std::io::ErrorKind::PermissionDenied,
        Error::BadOption { .. } | Error::PoolTooSmall { .. } => true,
        _ => false,
    };
    if circumstances || error.is_no_space() { '?' } else { 'x' }
}

/// One write of few bytes: a pipe takes it whole or not at all. `false` if nobody listens any more.
fn say(line: &str) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_ok()
}

fn name(durability: Durability) -> &'static str {
    match durability {
        Durability::Sync => "sync",
        Durability::Buffered => "buffered",
        Durability::Relaxed => "relaxed",
    }
}

impl Child {
    /// Starts `program`, a program that calls [`child_main`], as a child that works on the store in `dir`.
    ///
    /// # Errors
    /// [`Failure::CannotRun`] if it cannot be started.
    pub fn start(mut program: Command, dir: &Path) -> Result<Self, Failure> {
        program.env(CHILD, dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut process = program.spawn().map_err(|error| {
            Failure::CannotRun(format!("the child process {program:?} cannot be started: {error}"))
        })?;
        let stdout = process.stdout.take().expect("its output was asked for");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { process, lines })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Kills it by SIGKILL. What it has said before can still be heard.
    ///
    /// # Errors
    /// [`Failure::CannotRun`] if it cannot be killed.
    pub fn kill(&mut self) -> Result<(), Failure> {
        self.process
            .kill()
            .map_err(|error| Failure::CannotRun(format!("the child process cannot be killed: {error}")))
    }

    /// What it says next; `None` once it has ended and all was heard. A line without an end, which a kill may leave, is
    /// not heard.
    ///
    /// # Errors
    /// [`Failure::Broken`] or [`Failure::CannotRun`] with the child's words, if it failed. [`Failure::Broken`] if it was
    /// silent for two minutes: it hangs.
    pub fn listen(&mut self) -> Result<Option<Said>, Failure> {
        match self.lines.recv_timeout(SILENCE) {
            Ok(Ok(line)) => parse(&line),
            Ok(Err(error)) => Err(Failure::CannotRun(format!("the child process cannot be heard: {error}"))),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => Err(Failure::broken(format!(
                "the working process has been silent for {} s: it hangs",
                SILENCE.as_secs()
            ))),
        }
    }

    /// Waits for its end. A child that ended by itself and badly, a panic for instance, is a failure of the store.
    ///
    /// # Errors
    /// As said, and [`Failure::CannotRun`] if it cannot be waited for.
    pub fn end(mut self) -> Result<(), Failure> {
        use std::os::unix::process::ExitStatusExt;
        let status = self.process.wait().map_err(|error| {
            Failure::CannotRun(format!("the child process cannot be waited for: {error}"))
        })?;
        if status.success() || status.signal() == Some(SIGKILL) {
            Ok(())
        } else {
            Err(Failure::broken(format!("the working process ended by itself: {status}")))
        }
    }
}

const SIGKILL: i32 = 9;

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail for one that was waited for; so does nothing else.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn parse(line: &str) -> Result<Option<Said>, Failure> {
    let strange = || Failure::CannotRun(format!("the child process said {line:?}"));
    let (sign, rest) = line.split_once(' ').unwrap_or((line, ""));
    match sign {
        "o" => Ok(Some(Said::Opened)),
        "x" => Err(Failure::broken(format!("the working process failed: {rest}"))),
        "?" => Err(Failure::CannotRun(format!("the working process: {rest}"))),
        "a" => {
            let words: Vec<&str> = rest.split(' ').collect();
            let &[stream, number, durability] = &words[..] else { return Err(strange()) };
            let durability = match durability {
                "sync" => Durability::Sync,
                "buffered" => Durability::Buffered,
                "relaxed" => Durability::Relaxed,
                _ => return Err(strange()),
            };
            let (Ok(stream), Ok(number)) = (stream.parse(), number.parse()) else { return Err(strange()) };
            Ok(Some(Said::Acknowledged(Ack { stream, number, durability })))
        }
        _ => Err(strange()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_child_says_is_understood() {
        assert_eq!(parse("o"), Ok(Some(Said::Opened)));
        let ack = Ack { stream: 3, number: 17, durability: Durability::Buffered };
        assert_eq!(parse("a 3 17 buffered"), Ok(Some(Said::Acknowledged(ack))));
        assert!(
            matches!(parse("x it is wrong"), Err(Failure::Broken { what, .. }) if what.contains("it is wrong"))
        );
        assert!(matches!(parse("? no room"), Err(Failure::CannotRun(what)) if what.contains("no room")));
        for strange in ["", "b", "a", "a 1 2", "a 1 x sync", "a 1 2 never", "a 1 2 sync 4"] {
            assert!(matches!(parse(strange), Err(Failure::CannotRun(_))), "{strange:?}");
        }
    }
}
