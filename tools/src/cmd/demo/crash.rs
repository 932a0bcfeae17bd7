//! The part of the demonstration that kills a process and looks for what it was promised.

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bedstone::Database;

use super::report::Report;
use super::{AIRPORTS_TABLE, reads, writer};
use crate::bytes::count;
use crate::cli::Global;
use crate::failure::Failure;
use crate::records::Record;
use crate::store;

/// So many acknowledged commits are waited for before the kill.
const ENOUGH: usize = 500;
const SIGKILL: i32 = 9;

/// A commit of the writer: thread and number.
type Commit = (u32, u64);

/// Starts the writer, kills it, opens the database again and compares. Returns the database.
pub(crate) fn show(
    global: &Global,
    path: &Path,
    records: &[Record],
    report: &mut Report,
) -> Result<Database, Failure> {
    report.title("A process that commits is killed with SIGKILL")?;
    let (acknowledged, signal) = kill_a_writer(global, path)?;
    report.line(format_args!(
        "{} threads, each commit an atomic batch of {} entries in two tables",
        writer::THREADS,
        2 * writer::ENTRIES
    ))?;
    report.check(signal == Some(SIGKILL), "the process died of SIGKILL, in the middle of its work")?;
    report.check(
        acknowledged.len() >= ENOUGH,
        format_args!("it had reported {} commits as acknowledged", count(acknowledged.len() as u64)),
    )?;

    report.title("The database is opened again")?;
    let db = store::open(global, path)?;
    let compared = compare(&db, &acknowledged, records, report);
    match compared {
        Ok(()) => Ok(db),
        Err(e) => store::close(db, Err(e)),
    }
}

fn compare(
    db: &Database,
    acknowledged: &[Commit],
    records: &[Record],
    report: &mut Report,
) -> Result<(), Failure> {
    let recovery = db.recovery();
    report.line(format_args!(
        "recovery replayed {} commits from the log; its end: {}",
        count(recovery.commits),
        recovery.end
    ))?;
    let found = found(db)?;
    let whole = 2 * writer::ENTRIES;
    let missing = acknowledged.iter().filter(|commit| found.get(commit) != Some(&whole)).count();
    let in_part = found.values().filter(|entries| **entries != whole).count();
    let unreported = found.len() - (acknowledged.len() - missing).min(found.len());
    report.check(
        missing == 0,
        format_args!("every one of the {} acknowledged commits is there", count(acknowledged.len() as u64)),
    )?;
    report.check(in_part == 0, "no commit is there in part")?;
    report.line(format_args!(
        "{unreported} more commits are there whole: the kill came between their commit and their report"
    ))?;
    reads::compare_all(&store::table(db, AIRPORTS_TABLE)?, records, report)
}

/// Runs the writer until it has reported enough, kills it, and returns what it reported and the signal it died of.
fn kill_a_writer(global: &Global, path: &Path) -> Result<(Vec<Commit>, Option<i32>), Failure> {
    let cannot = |what: &str, e: &dyn std::fmt::Display| Failure::Cannot(format!("cannot {what}: {e}"));
    let this = env::current_exe().map_err(|e| cannot("find the path of this program", &e))?;
    let mut command = Command::new(this);
    command.arg(writer::WRITER).arg(path).args(["--pool-mib", &global.pool_mib.to_string()]);
    if global.allow_buffered {
        command.arg("--allow-buffered");
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = child.map_err(|e| cannot("start the process that commits", &e))?;
    let reported = read_reports(&mut child);
    // Killed already if all went well; whatever happened it must not go on.
    let killed = child.kill();
    let status = child.wait().map_err(|e| cannot("wait for the process that commits", &e))?;
    killed.map_err(|e| cannot("kill the process that commits", &e))?;
    Ok((reported?, status.signal()))
}

/// Reads reports and kills the child when there are enough. Reports that were in the pipe by then count: what they
/// tell was acknowledged.
fn read_reports(child: &mut Child) -> Result<Vec<Commit>, Failure> {
    let Some(pipe) = child.stdout.take() else {
        return Err(Failure::Cannot("the process that commits has no standard output".into()));
    };
    let mut pipe = BufReader::new(pipe);
    let mut acknowledged = Vec::new();
    let mut line = String::new();
    loop {
        line.clear();
        let read = pipe.read_line(&mut line);
        if read.map_err(|e| Failure::Cannot(format!("cannot read what was acknowledged: {e}")))? == 0 {
            return Ok(acknowledged);
        }
        // A line without an end is the report that the kill cut short.
        let Some((thread, commit)) = line.strip_suffix('\n').and_then(|line| line.split_once(' ')) else {
            continue;
        };
        match (thread.parse(), commit.parse()) {
            (Ok(thread), Ok(commit)) => acknowledged.push((thread, commit)),
            _ => return Err(Failure::Cannot(format!("the process that commits reported {line:?}"))),
        }
        if acknowledged.len() == ENOUGH {
            child
                .kill()
                .map_err(|e| Failure::Cannot(format!("cannot kill the process that commits: {e}")))?;
        }
    }
}

/// How many entries of each commit are there, with the value they must have.
fn found(db: &Database) -> Result<BTreeMap<Commit, u32>, Failure> {
    let mut found = BTreeMap::new();
    for name in writer::TABLES {
        let table = store::table(db, name)?;
        let mut entries = table.iter()?;
        while let Some((key, value)) = entries.next_ref()? {
            let Some((thread, commit, entry)) = parse(key) else {
                return Err(Failure::Cannot(format!(
                    "table {name:?} holds a key that nobody wrote: {key:?}"
                )));
            };
            let right = value == writer::value(thread, commit, entry).as_bytes();
            *found.entry((thread, commit)).or_default() += u32::from(right);
        }
    }
    Ok(found)
}

/// Thread, commit and entry of a key.
fn parse(key: &[u8]) -> Option<(u32, u64, u32)> {
    let mut parts = std::str::from_utf8(key).ok()?.split('/');
    let parsed = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_can_be_taken_apart() {
        assert_eq!(parse(writer::key(3, 17, 2).as_bytes()), Some((3, 17, 2)));
        for wrong in [&b""[..], b"1/2", b"1/2/3/4", b"a/2/3", b"\xff"] {
            assert_eq!(parse(wrong), None);
        }
    }
}
