//! Rot: the files of a small store are damaged while it is closed, one damage at a time, and while it is open. Each
//! damage is answered by an error that names the place, is found by the check, or is provably harmless; wrong data is
//! never served, nothing is lost in silence, nothing panics.
//!
//! A round is one damage. With fewer rounds than there are damages a sample is tried, spread evenly over all of them. The
//! seed draws the store: page size, tables, lengths of values, transactions, how it ended. Every bit of headers is
//! turned, other bytes are sampled. The plan's durability is not asked: what is damaged is a medium at rest.

mod damage;
mod judge;
mod list;
mod needed;
mod victim;

use std::path::PathBuf;

use crate::cases::{Cases, Mode, Tally, replay as replay_case, run_all, run_picked};
use crate::plan::{Plan, Progress};
use crate::verdict::{Failure, Verdict};
use damage::Damage;
use judge::{Outcome, Place};
use victim::{FIRST_UNIT, UNIT, Victim};

const MODE: Mode = Mode {
    name: "rot",
    what: "corruptions tried",
    counts: &["refused at open", "read errors", "found by check", "taken for a torn tail", "harmless"],
};

/// What is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theme {
    /// Bits of one superblock, which must be survived, and of both, which must be refused.
    Superblocks,
    /// Bits of every block of the data file: nodes, long values, map blocks, free space.
    Blocks,
    /// Blocks and sectors of the data file zeroed, overwritten, swapped, or as they were earlier (a lost write).
    Replaced,
    /// Bits and sectors of the log.
    Log,
    /// Files cut short.
    Cuts,
    /// Files removed, replaced by foreign ones or by their own past, swapped, or added.
    Files,
    /// Bits of the data file that turn while the store is open.
    WhileOpen,
}

impl Theme {
    /// All of them.
    pub const ALL: [Theme; 7] = [
        Theme::Superblocks,
        Theme::Blocks,
        Theme::Replaced,
        Theme::Log,
        Theme::Cuts,
        Theme::Files,
        Theme::WhileOpen,
    ];
}

/// Damages a store in every way there is. Counts: "corruptions tried", and of them "refused at open", "read errors",
/// "found by check" (and by no read), "taken for a torn tail" (the last commits are gone, and nothing on the medium could
/// prove that they had been durable) and "harmless" (nothing that is in use was hit).
pub fn run(plan: &Plan, watch: &(dyn Fn(&Progress) + Sync)) -> Verdict {
    run_all(&MODE, plan, watch, Rot::draw)
}

/// The same with one theme only.
pub fn run_theme(plan: &Plan, theme: Theme, watch: &(dyn Fn(&Progress) + Sync)) -> Verdict {
    run_picked(&MODE, plan, watch, Rot::draw, |rot, case| rot.damages[case as usize].theme == theme)
}

/// Runs one case of [`run`] again: of the plan its seed counts.
///
/// # Errors
/// Says which promise was broken, or that there is no such case.
pub fn replay(plan: &Plan, case: u64) -> Result<(), Failure> {
    replay_case(&MODE, plan.seed, case, Rot::draw)
}

/// One case.
struct Case {
    theme: Theme,
    /// The file that an error must name.
    file: PathBuf,
    damage: Damage,
}

/// A store and everything that may happen to it.
struct Rot {
    victim: Victim,
    damages: Vec<Case>,
}

impl Rot {
    fn draw(seed: u64) -> Result<Self, String> {
        let victim = Victim::draw(seed).map_err(|error| format!("making the store: {error}"))?;
        let file = victim.data();
        let unhurt = victim.suffer(Place { file: &file, image: None, whole: false }, 0, |_| Ok(()))?;
        if unhurt != Outcome::Harmless {
            return Err(format!("without damage: {unhurt:?}"));
        }
        let damages = list::all(&victim, seed);
        Ok(Self { victim, damages })
    }
}

impl Cases for Rot {
    fn len(&self) -> u64 {
        self.damages.len() as u64
    }

    fn name(&self, case: u64) -> String {
        let case = &self.damages[case as usize];
        format!("{:?} of {} ({})", case.damage, case.file.display(), self.victim.shape)
    }

    fn run(&self, case: u64, tally: &mut Tally) -> Result<(), String> {
        let Case { theme, file, damage } = &self.damages[case as usize];
        let outcome = match damage {
            Damage::WhileOpen { seed } => self.victim.suffer_while_open(*seed)?,
            damage => {
                let data = self.victim.data();
                let in_data = damage.offset().filter(|_| *file == data);
                let image = in_data.and_then(|at| self.victim.needed.image(file, at));
                let place = Place { file, image, whole: damage.is_whole() };
                let may_lose = damage.may_lose(&self.victim, file);
                let outcome =
                    self.victim.suffer(place, may_lose, |disk| damage.strike(disk, &self.victim, file))?;
                let unused = in_data.is_some_and(|at| at >= FIRST_UNIT * UNIT) && image.is_none();
                if unused && outcome != Outcome::Harmless {
                    return Err(format!("nothing uses these bytes, and yet: {outcome:?}"));
                }
                outcome
            }
        };
        match (damage, outcome) {
            (Damage::FlipBoth { .. }, Outcome::Refused) => {}
            (Damage::FlipBoth { .. }, outcome) => {
                return Err(format!("a store without a valid superblock was opened: {outcome:?}"));
            }
            (_, Outcome::Refused | Outcome::ReadError | Outcome::TornTail)
                if *theme == Theme::Superblocks =>
            {
                return Err(format!("one damaged superblock of two was not survived: {outcome:?}"));
            }
            _ => {}
        }
        tally.add(outcome.name(), 1);
        Ok(())
    }
}
