//! Skewed choice of keys: few are asked for often, most hardly ever.

use crate::data::{Rng, mix};

/// Zipf-distributed choice among `items` items: the k-th most frequent one comes up in proportion to `1 / k^theta`.
///
/// The method of Gray et al., "Quickly Generating Billion-Record Synthetic Databases" (SIGMOD 1994), with the ranks
/// scattered over the items by a hash as the Yahoo! Cloud Serving Benchmark does, so that frequent keys are not
/// neighbours.
#[derive(Debug, Clone)]
pub struct Zipf {
    items: u64,
    theta: f64,
    zeta: f64,
    alpha: f64,
    eta: f64,
}

impl Zipf {
    /// The usual skew.
    pub const THETA: f64 = 0.99;

    /// A choice among `items` items (at least 2), `theta` strictly between 0 and 1. Takes time in proportion to
    /// `items`.
    pub fn new(items: u64, theta: f64) -> Self {
        let items = items.max(2);
        let zeta: f64 = (1..=items).map(|k| (k as f64).powf(-theta)).sum();
        let zeta2 = 1.0 + 0.5f64.powf(theta);
        let eta = (1.0 - (2.0 / items as f64).powf(1.0 - theta)) / (1.0 - zeta2 / zeta);
        Self { items, theta, zeta, alpha: 1.0 / (1.0 - theta), eta }
    }

    /// Rank of the next choice; 0 is the most frequent one.
    pub fn rank(&self, rng: &mut Rng) -> u64 {
        let u = rng.unit();
        let uz = u * self.zeta;
        if uz < 1.0 {
            return 0;
        }
        if uz < 1.0 + 0.5f64.powf(self.theta) {
            return 1;
        }
        let rank = self.items as f64 * (self.eta * u - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.items - 1)
    }

    /// The next item.
    pub fn item(&self, rng: &mut Rng) -> u64 {
        mix(self.rank(rng)) % self.items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequent_ranks_come_up_as_often_as_they_should() {
        let zipf = Zipf::new(1_000, Zipf::THETA);
        let mut rng = Rng::new(1);
        let draws = 200_000;
        let mut counts = vec![0u32; 1_000];
        for _ in 0..draws {
            counts[usize::try_from(zipf.rank(&mut rng)).unwrap()] += 1;
        }
        for rank in [0u32, 1] {
            let expected = f64::from(draws) / (f64::from(rank + 1).powf(Zipf::THETA) * zipf.zeta);
            let got = f64::from(counts[rank as usize]);
            assert!((got - expected).abs() < expected * 0.05, "rank {rank}: {got} of {expected}");
        }
        assert!(counts[0] > 50 * counts[500]);
    }
}
