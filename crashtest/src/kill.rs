//! Generations of a child process that works on one database and is killed by SIGKILL.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::rng::Rng;
use crate::setup::{assert_mode, temp_dir};
use crate::worker;

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The binary that acts as the child.
    pub program: PathBuf,
    /// Decides everything but the moments of the kills.
    pub seed: u64,
    /// Children to kill.
    pub generations: u64,
    /// Writer threads of each.
    pub threads: u64,
}

/// What was done.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Children killed.
    pub kills: u64,
    /// Those of them killed while they were opening the database.
    pub kills_while_opening: u64,
    /// Acknowledged commits verified.
    pub acknowledged: u64,
    /// Commits found at the end.
    pub commits: u64,
    /// The way of I/O.
    pub mode: String,
}

/// Kills children, and verifies the database after each.
///
/// # Errors
/// Says which promise was broken in which generation.
pub fn run(plan: &Plan) -> Result<Report, String> {
    let dir = temp_dir();
    let place = dir.path().join("store");
    let mut rng = Rng::of(&[plan.seed, 5]);
    let mut report = Report::default();
    let mut promised = BTreeMap::new();
    for generation in 0..plan.generations {
        let context = |what: String| format!("seed {}, generation {generation}: {what}", plan.seed);
        // Now and then at once, so that it dies while it is opened or recovers.
        let enough = if generation > 0 && rng.chance(1, 5) { 0 } else { 1 + rng.below(150) };
        let child = worker::start(&plan.program, &place, plan.seed, plan.threads, 100_000)
            .map_err(|error| context(error.to_string()))?;
        if enough == 0 {
            // Somewhere in the few milliseconds that opening takes.
            std::thread::sleep(std::time::Duration::from_micros(rng.below(15_000)));
        }
        let heard = worker::listen_and_kill(child, enough).map_err(context)?;
        report.kills += 1;
        report.kills_while_opening += u64::from(!heard.opened);
        report.acknowledged += heard.acknowledged;
        promised.extend(heard.promised);
        if !heard.opened && rng.chance(1, 2) {
            // Killed again before anybody looks.
            continue;
        }
        let numbers = reopen(&place, plan, &promised, &mut report).map_err(context)?;
        report.commits = numbers.iter().sum();
        promised = numbers.iter().enumerate().map(|(thread, number)| (thread as u64, *number)).collect();
    }
    reopen(&place, plan, &promised, &mut report)?;
    Ok(report)
}

fn reopen(
    place: &Path,
    plan: &Plan,
    promised: &BTreeMap<u64, u64>,
    report: &mut Report,
) -> Result<Vec<u64>, String> {
    let db = worker::builder(plan.seed)
        .open_or_create(place)
        .map_err(|error| format!("opening after the kill: {error} ({error:?})"))?;
    report.mode = assert_mode(&db);
    let numbers = worker::verify(&db, plan.seed, plan.threads, promised)?;
    db.close().map_err(|error| format!("closing: {error}"))?;
    Ok(numbers)
}
