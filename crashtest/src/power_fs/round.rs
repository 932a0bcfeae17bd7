//! One crash state: put on a disk, recovered by the kernel and by the store, verified, and cut again now and then.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bedstone::{Database, Error};

use crate::rng::Rng;
use crate::seeds::panic_text;
use crate::setup::check_clean;
use crate::workload::{Numbers, Workload};

use super::image::Image;
use super::mounts::{Loop, Mounted};
use super::record::{Crashed, Fate};
use super::recording::{Duty, Recording};
use super::{FileSystem, STORE, Station};

/// How a round failed.
pub(super) enum Failed {
    /// A promise was broken; with the disk on which it was.
    Broken {
        /// Which, and after what.
        what: String,
        /// The disk after the cut, before anybody recovered it.
        image: Box<Image>,
    },
    /// The round could not be done.
    CannotRun(String),
}

/// What was done.
#[derive(Default)]
pub(super) struct Counts {
    states: u64,
    second_cuts: u64,
    without_store: u64,
    recordings: u64,
    acknowledged: u64,
    writes: u64,
    flushes: u64,
    ways: BTreeSet<String>,
}

impl Counts {
    pub(super) fn recorded(&mut self, recording: &Recording) {
        self.recordings += 1;
        self.acknowledged += recording.acknowledged() as u64;
        self.writes += recording.history.writes() as u64;
        self.flushes += recording.history.flushes() as u64;
    }

    pub(super) fn add(&mut self, other: Self) {
        self.states += other.states;
        self.second_cuts += other.second_cuts;
        self.without_store += other.without_store;
        self.ways.extend(other.ways);
    }

    pub(super) fn told(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("crash states", self.states),
            ("second cuts", self.second_cuts),
            ("states before there was a store", self.without_store),
            ("recordings", self.recordings),
            ("acknowledged commits", self.acknowledged),
            ("recorded writes", self.writes),
            ("recorded flushes", self.flushes),
        ]
    }

    pub(super) fn notes(&self, file_system: FileSystem) -> Vec<String> {
        let (unit, whole) = file_system.tears();
        let except = if whole > 0 { ", the superblock whole" } else { "" };
        let mut notes: Vec<String> = self.ways.iter().cloned().collect();
        notes.push(format!("writes torn at multiples of {unit} bytes{except}"));
        notes
    }
}

/// A disk with its loop device, on which crash states are tried one after the other.
pub(super) struct Lane<'w> {
    // Before the station: detached before the disk goes.
    device: Loop,
    station: Station,
    file_system: FileSystem,
    workload: &'w dyn Workload,
}

impl<'w> Lane<'w> {
    pub(super) fn new(
        station: Station,
        file_system: FileSystem,
        workload: &'w dyn Workload,
    ) -> Result<Self, String> {
        Ok(Self { device: Loop::attach(&station.file)?, station, file_system, workload })
    }

    /// The round of this number.
    pub(super) fn round(
        &self,
        recording: &Recording,
        seed: u64,
        round: u64,
        counts: &mut Counts,
    ) -> Result<(), Failed> {
        let mut rng = Rng::of(&[seed, round, 22]);
        let (unit, whole) = self.file_system.tears();
        let (position, fate) = recording.draw(&mut rng);
        let mut crashed = recording.history.crash(position, fate, unit, whole, &mut rng);
        let mut duty = recording.duty(position);
        let mut said = describe(position, recording.history.end(), fate, &crashed);
        counts.states += 1;
        loop {
            let image = crashed.image;
            let again = rng.chance(1, 3);
            let exchanged = self.device.exchange(|| {
                self.station.disk.put(image.clone());
                if again {
                    self.station.disk.record();
                }
            });
            exchanged.map_err(Failed::CannotRun)?;
            let tried = catch_unwind(AssertUnwindSafe(|| self.recover(&duty, counts)));
            let tried = tried.unwrap_or_else(|panic| Err(Trouble::Broken(panic_text(&*panic))));
            let history = self.station.disk.recorded();
            let found = tried.map_err(|trouble| match trouble {
                Trouble::CannotRun(what) => Failed::CannotRun(what),
                Trouble::Broken(what) => {
                    let promised = duty.promised.after_power_cut();
                    let what = format!("{said}; promised {promised:?}: {what}");
                    Failed::Broken { what, image: Box::new(image) }
                }
            })?;
            let Some(history) = history else { return Ok(()) };
            let position = history.draw(&mut rng);
            let fate = Fate::draw(&mut rng);
            crashed = history.crash(position, fate, unit, whole, &mut rng);
            if position >= found.position {
                let grown = duty.promised.found(found.numbers);
                grown.map_err(|what| Failed::Broken { what, image: Box::new(crashed.image.clone()) })?;
                duty.store = true;
            }
            said = format!("{said}; cut again {}", describe(position, history.end(), fate, &crashed));
            counts.second_cuts += 1;
        }
    }

    /// Mounts what is on the disk, opens the store and looks at it.
    fn recover(&self, duty: &Duty, counts: &mut Counts) -> Result<Found, Trouble> {
        let mounted = Mounted::mount(self.file_system, self.device.device(), &self.station.dir)
            .map_err(|what| Trouble::CannotRun(format!("the file system did not survive the cut: {what}")))?;
        if !self.station.disk.was_read() {
            return Err(Trouble::CannotRun("the kernel mounted what it remembered of another disk".into()));
        }
        let found = self.look(duty, counts)?;
        mounted.unmount().map_err(Trouble::CannotRun)?;
        Ok(found)
    }

    fn look(&self, duty: &Duty, counts: &mut Counts) -> Result<Found, Trouble> {
        let store = self.station.dir.join(STORE);
        let opened = match self.workload.options().open(&store) {
            Err(Error::NotFound { .. }) if !duty.store => {
                counts.without_store += 1;
                // What a creation left must not be in the way of another one.
                self.workload.options().create(&store)
            }
            other => other,
        };
        let db = opened.map_err(|error| Trouble::Broken(format!("opening: {error} ({error:?})")))?;
        let (position, _) = self.station.disk.position();
        self.way(&db, counts)?;
        let numbers = self.workload.verify(&db, duty.promised.after_power_cut()).map_err(Trouble::Broken)?;
        check_clean(&db).map_err(Trouble::Broken)?;
        db.close().map_err(|error| Trouble::Broken(format!("closing: {error} ({error:?})")))?;
        Ok(Found { numbers, position })
    }

    /// The way of I/O, which must be past the page cache: else the disk would be told nothing in time.
    fn way(&self, db: &Database, counts: &mut Counts) -> Result<(), Trouble> {
        let report = db.io_report();
        if !report.direct {
            let reason = report.reason;
            return Err(Trouble::CannotRun(format!("the store's I/O is not direct: {reason}")));
        }
        counts.ways.insert(format!("{:?}, direct, {} ({})", report.mode, report.file_system, report.reason));
        Ok(())
    }
}

/// What was found, and the position in the record of the recovery at which the store was open.
struct Found {
    numbers: Numbers,
    position: u64,
}

enum Trouble {
    Broken(String),
    CannotRun(String),
}

fn describe(position: u64, end: u64, fate: Fate, crashed: &Crashed) -> String {
    format!("at event {position} of {end}, {fate:?}: {}", crashed.facts)
}
