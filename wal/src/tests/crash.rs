//! Power cuts at any operation, generation after generation, against a model of what may be found.

use std::sync::Arc;

use bedstone_io::Disk;
use bedstone_io::sim::{CutMode, SimDisk};

use super::{Rng, append, config, create, payload, read};
use crate::{Durability, Lsn, Wal, WalError, classify_end};

/// What was appended since the checkpoint, and how much of it was acknowledged.
#[derive(Default)]
struct Model {
    from: Lsn,
    records: Vec<(u64, usize)>,
    acknowledged: usize,
}

impl Model {
    /// Work until the power goes or `steps` are done.
    fn work(&mut self, wal: &Wal, rng: &mut Rng, steps: u64) -> Result<(), WalError> {
        for _ in 0..steps {
            let (number, len) = (rng.next(), rng.below(2500) as usize);
            let appended = append(wal, 1, &payload(number, len))?;
            self.records.push((number, len));
            match rng.below(6) {
                0 => {}
                1 => wal.wait(appended.end, Durability::Buffered)?,
                2 => wal.wait(appended.end, Durability::Relaxed)?,
                _ => {
                    wal.wait(appended.end, Durability::Sync)?;
                    self.acknowledged = self.records.len();
                }
            }
            if rng.below(5) == 0 {
                wal.step();
            }
            if rng.below(60) == 0 {
                wal.sync()?;
                // As if a checkpoint were durable here.
                *self = Model { from: wal.tail(), ..Model::default() };
                wal.recycle_below(self.from)?;
            }
        }
        Ok(())
    }

    /// Opens after a crash, with cuts during the opening too; what is found must be a prefix.
    fn reopen(&mut self, disk: &Arc<SimDisk>, opening: u32, seed: u64) -> Result<Wal, WalError> {
        let shared: Arc<dyn Disk> = disk.clone();
        let (found, reader) = read(&shared, self.from)?;
        assert!(
            (self.acknowledged..=self.records.len()).contains(&found.len()),
            "seed {seed}: found {} of {} records, {} were acknowledged; {:?}",
            found.len(),
            self.records.len(),
            self.acknowledged,
            reader.end()
        );
        for (record, &(number, len)) in found.iter().zip(&self.records) {
            assert_eq!(record.payload, payload(number, len), "seed {seed}");
        }
        let required = found.get(self.acknowledged.wrapping_sub(1)).map_or(self.from, |record| record.end);
        classify_end(&reader, required)?.into_result()?;
        let wal = Wal::open(shared, config(opening), reader.end().expect("the end was reached"))?;
        self.records.truncate(found.len());
        self.acknowledged = found.len();
        Ok(wal)
    }
}

#[test]
fn power_cuts_generation_after_generation() {
    for seed in 0..120 {
        let mut rng = Rng(seed);
        let mut disk = SimDisk::new(seed);
        drop(create(&(disk.clone() as Arc<dyn Disk>), config(1)));
        let mut model = Model::default();
        let mut opening = 1;
        for _ in 0..12 {
            let mode = match rng.below(4) {
                0 => CutMode::Keep,
                1 => CutMode::Drop,
                _ => CutMode::Random,
            };
            // Often within the opening itself.
            let n = if rng.below(3) == 0 { rng.below(12) } else { rng.below(150) };
            disk.set_cut_after(1 + n, mode);
            opening += 1;
            let outcome = model
                .reopen(&disk, opening, seed)
                .and_then(|wal| model.work(&wal, &mut rng, 200).map(|()| wal));
            match outcome {
                Ok(wal) => drop(wal),
                Err(error) => {
                    assert!(!error.is_damage(), "seed {seed}, opening {opening}: {error}");
                    assert!(!disk.is_powered(), "seed {seed}, opening {opening}: {error}");
                }
            }
            disk.cancel_cut();
            match rng.below(3) {
                0 if disk.is_powered() => {} // the process ends, the machine goes on
                _ => disk.power_cut(mode),
            }
            disk = disk.reopen();
        }
        disk.reseed(seed);
        model.reopen(&disk, opening + 1, seed).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}
