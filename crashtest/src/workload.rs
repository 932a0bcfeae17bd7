//! What is crash-tested: a program's use of the store.

use std::collections::BTreeMap;

use bedstone::{Builder, Database, Durability};

/// A program's use of the store, as the drivers of this crate crash it: [`crate::kill`], [`crate::simulated`] and
/// [`crate::power_fs`]. [`crate::Standard`] is the one that tests Bedstone itself.
///
/// A workload writes in one or more *streams*, for instance one for each of its threads. The commits of a stream are
/// numbered from 1. A workload stores the number of a stream's last commit in that commit, so that
/// [`Workload::verify`] can tell from what it finds how far each stream has come; and it makes what a commit
/// writes depend on its number alone, so that it can tell what must be there.
pub trait Workload: Sync {
    /// Options for every opening of the store. A driver that simulates the disk sets disk and background itself.
    fn options(&self) -> Builder;

    /// Works on the store until it has done enough, or [`Acks::commit`] says to stop. It goes on where it finds the
    /// store, which an earlier call may have left at any moment.
    ///
    /// # Errors
    /// The store's. After a power cut on a simulated disk every call gives one; the workload just returns it.
    fn work(&self, db: &Database, acks: &Acks<'_>) -> bedstone::Result<()>;

    /// Looks at what a crash has left: every commit up to the `promised` number of its stream must be there, none in
    /// part. Gives the number of each stream's last commit that it found: what was seen once must stay.
    ///
    /// # Errors
    /// Says which promise was broken. Errors of the store are such a case.
    fn verify(&self, db: &Database, promised: &Numbers) -> Result<Numbers, String>;
}

/// The number of the last commit of each stream.
pub type Numbers = BTreeMap<u64, u64>;

/// Where a workload reports what the store has acknowledged.
pub struct Acks<'a> {
    report: &'a (dyn Fn(Ack) -> bool + Sync),
}

/// A commit that the store has acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// Its stream.
    pub stream: u64,
    /// Its number in the stream.
    pub number: u64,
    /// What the acknowledgement promises.
    pub durability: Durability,
}

impl<'a> Acks<'a> {
    /// Reports go to this function; it says whether the work is to go on.
    pub fn new(report: &'a (dyn Fn(Ack) -> bool + Sync)) -> Self {
        Self { report }
    }

    /// The store has acknowledged the `number`-th commit of `stream` with this durability. To be called right after each
    /// acknowledgement. Returns whether the work is to go on.
    #[must_use = "a driver ends the work by it"]
    pub fn commit(&self, stream: u64, number: u64, durability: Durability) -> bool {
        (self.report)(Ack { stream, number, durability })
    }
}

/// The acknowledgements heard so far, by what they promise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Promised {
    /// Must survive everything.
    durable: Numbers,
    /// Must survive the end of the process.
    process: Numbers,
    /// Acknowledgements heard.
    pub heard: u64,
}

impl Promised {
    /// Adds one. A commit that is durable makes the earlier ones of its stream so.
    pub fn add(&mut self, ack: Ack) {
        self.heard += 1;
        let raise = |numbers: &mut Numbers| {
            let number = numbers.entry(ack.stream).or_default();
            *number = (*number).max(ack.number);
        };
        match ack.durability {
            Durability::Sync => {
                raise(&mut self.durable);
                raise(&mut self.process);
            }
            Durability::Buffered => raise(&mut self.process),
            Durability::Relaxed => {}
        }
    }

    /// Adds what another one has heard.
    pub fn extend(&mut self, other: &Promised) {
        self.heard += other.heard;
        for (mine, other) in [(&mut self.durable, &other.durable), (&mut self.process, &other.process)] {
            for (stream, number) in other {
                let mine = mine.entry(*stream).or_default();
                *mine = (*mine).max(*number);
            }
        }
    }

    /// What was found after a recovery: it must survive whatever follows.
    ///
    /// # Errors
    /// If it is less than what was owed after a power cut: the workload's [`Workload::verify`] should have said so.
    pub fn found(&mut self, numbers: Numbers) -> Result<(), String> {
        for (stream, owed) in &self.durable {
            let found = numbers.get(stream).copied().unwrap_or_default();
            if found < *owed {
                return Err(format!(
                    "of stream {stream} commit {owed} was promised and {found} found, and the workload's verify let it pass"
                ));
            }
        }
        self.durable = numbers.clone();
        self.process = numbers;
        Ok(())
    }

    /// What must be there after the power has gone.
    pub fn after_power_cut(&self) -> &Numbers {
        &self.durable
    }

    /// What must be there after the process has ended.
    pub fn after_kill(&self) -> &Numbers {
        &self.process
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_are_as_strong_as_their_durability() {
        let mut promised = Promised::default();
        for (number, durability) in
            [(1, Durability::Sync), (2, Durability::Buffered), (3, Durability::Relaxed)]
        {
            promised.add(Ack { stream: 7, number, durability });
        }
        assert_eq!(promised.after_power_cut(), &Numbers::from([(7, 1)]));
        assert_eq!(promised.after_kill(), &Numbers::from([(7, 2)]));
        promised.found(Numbers::from([(7, 3)])).unwrap();
        assert!(promised.clone().found(Numbers::from([(7, 2)])).is_err());
        assert_eq!(promised.after_power_cut(), &Numbers::from([(7, 3)]));
    }
}
