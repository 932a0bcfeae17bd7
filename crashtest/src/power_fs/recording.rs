//! A process works on a store, in a fresh file system or in what a power cut has left of an earlier one, and the disk below
//! is recorded.

use std::process::Command;

use crate::rng::Rng;
use crate::workload::{Ack, Promised};

use super::image::Image;
use super::mounts::{Loop, Mounted, format};
use super::record::{Fate, History};
use super::{FileSystem, STORE, Station};
use crate::kill::{Child, Said};
use crate::verdict::Failure;

/// Bytes written after which a record is long enough: it is kept in memory.
const MOST_BYTES: u64 = 96 << 20;

/// What a disk must keep.
#[derive(Clone, Default)]
pub(super) struct Duty {
    pub(super) promised: Promised,
    /// There must be a store.
    pub(super) store: bool,
}

/// A disk after a power cut, on which the next process goes on.
pub(super) struct Left {
    pub(super) image: Image,
    pub(super) duty: Duty,
}

/// What the disk was told, and what was promised meanwhile.
pub(super) struct Recording {
    pub(super) history: History,
    /// What the disk had to keep at the beginning.
    before: Duty,
    /// The position at which the process was heard to have the store open.
    opened: Option<u64>,
    /// With the position at which each was heard; whatever made it true lies before that.
    acks: Vec<(u64, Ack)>,
}

impl Recording {
    /// Makes one, on what was left by a cut, or with a new file system. Both begin on the station's disk with a loop device
    /// of their own, so that nothing of what the kernel remembers of one disk comes to another.
    pub(super) fn make(
        station: &Station,
        file_system: FileSystem,
        left: Option<Left>,
        child: Command,
        rng: &mut Rng,
    ) -> Result<Self, Failure> {
        let enough = *rng.pick(&[50, 300, 1500, 4000]);
        let before = match left {
            Some(Left { image, duty }) => {
                station.disk.put(image);
                duty
            }
            None => {
                station.disk.put(station.blank.clone());
                let device = Loop::attach(&station.file).map_err(Failure::CannotRun)?;
                format(file_system, device.device()).map_err(Failure::CannotRun)?;
                Duty::default()
            }
        };
        let device = Loop::attach(&station.file).map_err(Failure::CannotRun)?;
        station.disk.record();
        let mounted =
            Mounted::mount(file_system, device.device(), &station.dir).map_err(Failure::CannotRun)?;
        let mut worker = Child::start(child, &station.dir.join(STORE))?;
        let (mut opened, mut acks) = (None, Vec::new());
        while acks.len() < enough {
            let Some(said) = worker.listen()? else { break };
            let (position, bytes) = station.disk.position();
            match said {
                Said::Opened => opened = opened.or(Some(position)),
                Said::Acknowledged(ack) => acks.push((position, ack)),
            }
            if bytes > MOST_BYTES {
                break;
            }
        }
        worker.kill()?;
        worker.end()?;
        let history = station.disk.recorded().expect("it was begun above");
        mounted.unmount().map_err(Failure::CannotRun)?;
        Ok(Self { history, before, opened, acks })
    }

    /// Commits heard of.
    pub(super) fn acknowledged(&self) -> usize {
        self.acks.len()
    }

    /// A moment for the power to go: just when something was acknowledged, at a flush, while the store is created, or at
    /// any time; and what becomes of the writes.
    pub(super) fn draw(&self, rng: &mut Rng) -> (u64, Fate) {
        let position = match rng.below(10) {
            0..=3 if !self.acks.is_empty() => rng.pick(&self.acks).0,
            4 => rng.between(0, self.opened.unwrap_or(self.history.end())),
            _ => self.history.draw(rng),
        };
        (position, Fate::draw(rng))
    }

    /// What must survive a cut at this position.
    pub(super) fn duty(&self, position: u64) -> Duty {
        let mut duty = self.before.clone();
        for (_, ack) in self.acks.iter().take_while(|(heard, _)| *heard <= position) {
            duty.promised.add(*ack);
        }
        duty.store |= self.opened.is_some_and(|opened| opened <= position);
        duty
    }

    /// A disk after a cut at some moment, for the next process to go on with.
    pub(super) fn left(&self, file_system: FileSystem, rng: &mut Rng) -> Left {
        let (position, fate) = self.draw(rng);
        let (unit, whole) = file_system.tears();
        let image = self.history.crash(position, fate, unit, whole, rng).image;
        Left { image, duty: self.duty(position) }
    }
}
