//! Opening a damaged store, reading everything in every way, and judging the answers.

use std::path::Path;

use bedstone::{CheckReport, Database, Error};
use bedstone_io::IoError;
use bedstone_io::sim::SimDisk;

use super::victim::{FIRST_UNIT, UNIT, Victim};
use crate::model::{Model, show};
use crate::rng::Rng;
use crate::setup::DIR;

/// What came of a damage.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(super) enum Outcome {
    Refused,
    ReadError,
    FoundByCheck,
    TornTail,
    Harmless,
}

impl Outcome {
    /// Under what it is counted.
    pub(super) fn name(self) -> &'static str {
        match self {
            Outcome::Refused => "refused at open",
            Outcome::ReadError => "read errors",
            Outcome::FoundByCheck => "found by check",
            Outcome::TornTail => "taken for a torn tail",
            Outcome::Harmless => "harmless",
        }
    }
}

/// What an error must name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// The damaged file.
    pub(super) file: &'a Path,
    /// Where the damaged image in it begins, if it is one: that and no other may be blamed.
    pub(super) image: Option<u64>,
    /// Files have come, gone or changed places: which of them is the wrong one is anybody's guess, so their directory is
    /// enough.
    pub(super) whole: bool,
}

impl Victim {
    /// Damages a copy of the medium, opens it, reads everything in every way, and judges. So many of the last commits may
    /// be missing.
    pub(super) fn suffer(
        &self,
        place: Place<'_>,
        may_lose: usize,
        damage: impl Fn(&SimDisk) -> Result<(), IoError>,
    ) -> Result<Outcome, String> {
        let damaged = || {
            let disk = SimDisk::new(1);
            disk.restore(&self.now);
            let disk = disk.reopen();
            damage(&disk).map_err(|error| format!("the damage could not be done: {error}"))?;
            Ok::<_, String>(disk)
        };
        let disk = damaged()?;
        let db = match self.config.builder(&disk).open(DIR) {
            Ok(db) => db,
            Err(error) => return names_the_place(&error, place).map(|()| Outcome::Refused),
        };
        let mut verdicts = self.holds.iter().take(1 + may_lose).map(|holds| read_all(&db, holds, place));
        let verdict = match verdicts.next() {
            Some(Err(first)) => match verdicts.find_map(Result::ok).ok_or(first)? {
                Outcome::Harmless => Outcome::TornTail,
                other => other,
            },
            Some(Ok(outcome)) => outcome,
            None => return Err("nothing to compare with".into()),
        };
        match db.check() {
            Ok(report) if report.is_clean() && verdict == Outcome::ReadError => {
                Err("reads failed and the check finds nothing".into())
            }
            Ok(report) if report.is_clean() && verdict == Outcome::Harmless => {
                // The store has mended what it could: so the damage is looked at before it was opened.
                match self.needed.hurt(&*damaged()?) {
                    Some(what) => Err(format!("nothing noticed that this is not what was written: {what}")),
                    None => Ok(verdict),
                }
            }
            Ok(report) if report.is_clean() => Ok(verdict),
            Ok(report) => {
                check_names_the_place(&report, place)?;
                Ok(if verdict == Outcome::Harmless { Outcome::FoundByCheck } else { verdict })
            }
            Err(error) => names_the_place(&error, place).map(|()| verdict),
        }
    }

    /// Opens a copy of the medium, turns some bits of its data file, and reads everything.
    pub(super) fn suffer_while_open(&self, seed: u64) -> Result<Outcome, String> {
        let mut rng = Rng::of(&[seed, 22]);
        let data = self.data();
        let disk = SimDisk::new(seed);
        disk.restore(&self.now);
        let disk = disk.reopen();
        let db = self.config.builder(&disk).open(DIR).map_err(|error| format!("open: {error}"))?;
        let units = disk.copy_out(&data).map_err(|error| error.to_string())?.len() as u64 / UNIT;
        for _ in 0..5 {
            let at = (FIRST_UNIT + rng.below(units - FIRST_UNIT)) * UNIT + rng.below(UNIT);
            disk.flip_bit(&data, at, rng.below(8) as u32).map_err(|error| error.to_string())?;
        }
        read_all(&db, &self.holds[0], Place { file: &data, image: None, whole: false })
    }
}

/// The error tells of damage, and of the place that is damaged.
fn names_the_place(error: &Error, place: Place<'_>) -> Result<(), String> {
    let kind = error.is_corruption()
        || matches!(
            error,
            Error::NotADatabase { .. }
                | Error::UnsupportedVersion { .. }
                | Error::NotFound { .. }
                | Error::Io(_)
        );
    let text = error.to_string();
    if !kind {
        return Err(format!("an error of the wrong kind: {error} ({error:?})"));
    }
    let named = if place.whole { place.file.parent().unwrap_or(place.file) } else { place.file };
    if !text.contains(&*named.to_string_lossy()) {
        return Err(format!("the error does not name {}: {text}", named.display()));
    }
    match (error, place.image) {
        (Error::Corrupt { offset, page: Some(_), .. }, Some(image)) if *offset != image => {
            Err(format!("the error names another image than that at {image}: {text}"))
        }
        _ => Ok(()),
    }
}

/// One of the problems found is the damage.
fn check_names_the_place(report: &CheckReport, place: Place<'_>) -> Result<(), String> {
    let Some(image) = place.image else { return Ok(()) };
    let named = format!("at offset {image} ");
    match report.problems.iter().any(|problem| problem.what.contains(&named)) {
        true => Ok(()),
        false => Err(format!("the check does not name the image at {image}: {:?}", report.problems)),
    }
}

/// Everything read is right, or the read fails with an error that names the place; nothing is left out in silence.
fn read_all(db: &Database, holds: &Model, place: Place<'_>) -> Result<Outcome, String> {
    let mut outcome = Outcome::Harmless;
    let mut failed = |error: Error| {
        outcome = Outcome::ReadError;
        names_the_place(&error, place)
    };
    for (name, map) in &holds.tables {
        let table = match db.open_table(name) {
            Ok(Some(table)) => table,
            Ok(None) => return Err(format!("table {name} is gone without an error")),
            Err(error) => {
                failed(error)?;
                continue;
            }
        };
        for (key, value) in map {
            match table.get(key) {
                Ok(Some(got)) if got[..] == value[..] => {}
                Ok(got) => return Err(format!("get of {} gave {:?}", show(key), got.as_deref().map(show))),
                Err(error) => failed(error)?,
            }
        }
        for backward in [false, true] {
            let mut scan = match table.iter() {
                Ok(scan) => scan,
                Err(error) => {
                    failed(error)?;
                    continue;
                }
            };
            let mut expected: Vec<_> = map.iter().collect();
            if backward {
                expected.reverse();
            }
            let mut expected = expected.into_iter();
            loop {
                let entry = if backward { scan.next_back() } else { scan.next() };
                match (entry, expected.next()) {
                    (None, None) => break,
                    (Some(Ok(entry)), Some((key, value)))
                        if entry.key() == key && entry.value()[..] == value[..] => {}
                    (Some(Err(error)), _) => {
                        failed(error)?;
                        // It must not go on past the gap.
                        let next = if backward { scan.next_back() } else { scan.next() };
                        if !matches!(next, Some(Err(_))) {
                            return Err("an iterator went on after an error".into());
                        }
                        break;
                    }
                    (got, want) => {
                        let got = got.map(|entry| entry.map(|entry| show(entry.key())));
                        return Err(format!(
                            "a scan gave {got:?} instead of {:?}",
                            want.map(|want| show(want.0))
                        ));
                    }
                }
            }
        }
    }
    if let Ok(tables) = db.tables()
        && let Some(odd) = tables.iter().find(|table| !holds.tables.contains_key(&table.name))
    {
        return Err(format!("there is a table {odd:?}"));
    }
    Ok(outcome)
}
