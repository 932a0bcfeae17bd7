//! Rounds, and what they say together.

use std::time::Duration;

use crate::engine::Result;
use crate::plan::Plan;
use crate::stand::Contender;

/// The work of one contender in one round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Operations done.
    pub ops: u64,
    /// Time they took, from the first thread's start to the last one's end.
    pub elapsed: Duration,
    /// Checksum of what was read; `None` where none is defined.
    pub checksum: Option<u64>,
    /// Inserts only: the time until the store was at rest again.
    pub settled: Option<Duration>,
    /// Bytes fetched from the device meanwhile, where known.
    pub device_bytes: Option<u64>,
}

impl Sample {
    /// Operations a second.
    pub fn rate(&self) -> f64 {
        self.ops as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// All rounds of one contender.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The contender's name.
    pub name: String,
    /// Its samples, in the order of the rounds.
    pub samples: Vec<Sample>,
    /// Bytes its store occupied.
    pub disk_bytes: Option<u64>,
}

/// Median, smallest and largest of some figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of at least one figure; `None` of none.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let half = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 };
        Some(Self { median, min, max })
    }
}

impl Outcome {
    /// Operations a second over the rounds.
    pub fn rate(&self) -> Option<Spread> {
        Spread::of(self.samples.iter().map(Sample::rate))
    }

    /// How many times this one's rate the rate of `baseline` is, round by round.
    pub fn ratio_of(&self, baseline: &Outcome) -> Option<Spread> {
        Spread::of(baseline.samples.iter().zip(&self.samples).map(|(base, own)| base.rate() / own.rate()))
    }
}

/// Runs `plan` on every contender in each of `rounds` rounds, after a round that does not count if the workload wants
/// one. Who begins changes from round to round. Ends with an error that names the contender as soon as one fails, or
/// answers anything but what the plan expects.
pub fn run_rounds(contenders: &mut [Box<dyn Contender>], plan: &Plan, rounds: usize) -> Result<Vec<Outcome>> {
    let count = contenders.len();
    let mut samples = vec![Vec::new(); count];
    let warm_up = usize::from(plan.workload.wants_warm_up());
    for round in 0..rounds + warm_up {
        for turn in 0..count {
            let who = (round + turn) % count;
            let result = contenders[who].sample(plan, round).and_then(|sample| {
                match (plan.expected, sample.checksum) {
                    (Some(expected), Some(got)) if expected != got => {
                        Err(format!("wrong answers: checksum {got:#x}, expected {expected:#x}").into())
                    }
                    _ => Ok(sample),
                }
            });
            let sample = result.map_err(|error| {
                format!("{} in {}, round {round}: {error}", contenders[who].name(), plan.workload.name())
            })?;
            if round >= warm_up {
                samples[who].push(sample);
            }
        }
    }
    Ok(contenders
        .iter()
        .zip(samples)
        .map(|(contender, samples)| Outcome {
            name: contender.name().to_owned(),
            samples,
            disk_bytes: contender.disk_bytes(),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
    }
}
