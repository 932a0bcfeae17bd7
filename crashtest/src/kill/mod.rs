//! Child processes that work on a store and are killed by SIGKILL at random moments, while they open it and recover too.
//!
//! What the kernel was given survives the end of a process, so this finds what is wrong in the order of steps within the
//! program and in recovery, on the real disk and with real threads; it cannot find a missing sync. For that there are
//! [`crate::simulated`] and [`crate::power_fs`].

mod child;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bedstone::{Database, Error};

pub use child::{CHILD, Child, Said, child_main, is_child};

use crate::plan::{Pace, Plan, Progress};
use crate::rng::Rng;
use crate::setup::check_clean;
use crate::verdict::{Failure, Kept, Verdict};
use crate::workload::{Promised, Workload};

/// The program that runs now, with its arguments: what a child is usually made of.
///
/// # Errors
/// [`Failure::CannotRun`] if its path is not known.
pub fn this_program() -> Result<Command, Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::CannotRun(format!("the path of this program is not known: {error}")))?;
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1));
    Ok(command)
}

/// Kills children again and again, and verifies after each that every acknowledged commit is there, none in part, and
/// that the check finds nothing. A round is a child that was killed. `child` makes the command of a program that calls
/// [`child_main`] with the same workload; `dir` is where the store is made, and must not exist.
///
/// Counts: `kills`, `killed before it was open`, `acknowledged commits`, `recoveries verified`.
///
/// # Errors
/// [`Failure::Broken`] with what was lost; the store is left as it was found. [`Failure::CannotRun`].
pub fn run(
    plan: &Plan,
    workload: &dyn Workload,
    dir: &Path,
    child: &dyn Fn() -> Result<Command, Failure>,
    watch: &(dyn Fn(&Progress) + Sync),
) -> Verdict {
    let pace = Pace::begin(plan, "kills", None, watch);
    let mut run = Run {
        workload,
        dir,
        rng: Rng::of(&[plan.seed, 5]),
        promised: Promised::default(),
        kills_while_opening: 0,
        recoveries: 0,
        notes: Vec::new(),
    };
    let left =
        |kill| format!("after kill {kill} of seed {}; the store is left in {}", plan.seed, dir.display());
    let mut kills = 0;
    while pace.goes_on(kills) {
        run.round(child()?, kills).map_err(|failure| failure.and(&left(kills + 1)))?;
        kills += 1;
    }
    run.verify().map_err(|failure| failure.and(&left(kills)))?;
    Ok(Kept {
        counts: vec![
            ("kills", kills),
            ("killed before it was open", run.kills_while_opening),
            ("acknowledged commits", run.promised.heard),
            ("recoveries verified", run.recoveries),
        ],
        notes: run.notes,
        took: pace.elapsed(),
    })
}

struct Run<'a> {
    workload: &'a dyn Workload,
    dir: &'a Path,
    rng: Rng,
    promised: Promised,
    kills_while_opening: u64,
    recoveries: u64,
    notes: Vec<String>,
}

impl Run<'_> {
    fn round(&mut self, program: Command, kills: u64) -> Result<(), Failure> {
        // Now and then in the few milliseconds that opening and recovering take.
        let at_once = kills > 0 && self.rng.chance(1, 4);
        let opened = self.start_and_kill(program, at_once)?;
        if !opened {
            self.kills_while_opening += 1;
            if self.rng.chance(1, 2) {
                // Killed again before anybody looks.
                return Ok(());
            }
        }
        self.verify()
    }

    /// Whether the child had opened the store.
    fn start_and_kill(&mut self, program: Command, at_once: bool) -> Result<bool, Failure> {
        let mut child = Child::start(program, self.dir)?;
        let mut opened = false;
        let (enough, pause) = if at_once {
            (0, self.rng.below(15_000))
        } else {
            (1 + self.rng.below(200), self.rng.below(3_000))
        };
        let mut heard = 0;
        while heard < enough {
            match child.listen()? {
                Some(Said::Opened) => opened = true,
                Some(Said::Acknowledged(ack)) => {
                    self.promised.add(ack);
                    heard += 1;
                }
                None => break,
            }
        }
        // The random moment itself: a child is as likely to be within a commit or a checkpoint as it is for long.
        std::thread::sleep(Duration::from_micros(pause));
        child.kill()?;
        loop {
            match child.listen() {
                Ok(Some(Said::Opened)) => opened = true,
                Ok(Some(Said::Acknowledged(ack))) => self.promised.add(ack),
                Ok(None) => break,
                // The kill cuts its last line anywhere.
                Err(Failure::CannotRun(_)) => {}
                Err(broken) => return Err(broken),
            }
        }
        child.end()?;
        Ok(opened)
    }

    fn verify(&mut self) -> Result<(), Failure> {
        let db =
            self.workload.options().open_or_create(self.dir).map_err(|error| failure("opening", &error))?;
        if self.notes.is_empty() {
            self.notes.push(io_note(&db));
        }
        let found = self.workload.verify(&db, self.promised.after_kill()).map_err(Failure::broken)?;
        check_clean(&db).map_err(Failure::broken)?;
        self.promised.found(found).map_err(Failure::broken)?;
        self.recoveries += 1;
        if self.rng.chance(1, 2) {
            db.close().map_err(|error| failure("closing", &error))?;
        }
        Ok(())
    }
}

/// The way of I/O that a run had, for its notes.
pub(crate) fn io_note(db: &Database) -> String {
    let report = db.io_report();
    format!("I/O: {:?}, direct: {}, {} ({})", report.mode, report.direct, report.file_system, report.reason)
}

/// What an error of the parent's own use of the store is. Nobody else uses the store: a lock that is held was left by the
/// child.
fn failure(what: &str, error: &Error) -> Failure {
    let refused = matches!(error, Error::Io(e) if e.is_direct_refused());
    if refused || error.is_no_space() {
        Failure::CannotRun(format!("{what} the store: {error}"))
    } else {
        Failure::broken(format!("{what} after the kill: {error} ({error:?})"))
    }
}
