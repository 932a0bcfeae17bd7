//! A workload that lies, which every crash test that cuts the power must catch.

use bedstone::{Builder, Database, Durability, Result};
use bedstone_crashtest::{Acks, Numbers, Plan, Standard, Workload};

/// The standard workload, whose commits are handed to nobody yet when it reports them as synced.
#[derive(Debug)]
pub struct Liar(Standard);

impl Liar {
    /// The liar of this plan.
    pub fn new(plan: &Plan) -> Self {
        Self(Standard::new(&Plan { durability: Some(Durability::Relaxed), ..plan.clone() }))
    }
}

impl Workload for Liar {
    fn options(&self) -> Builder {
        self.0.options()
    }

    fn work(&self, db: &Database, acks: &Acks<'_>) -> Result<()> {
        self.0.work(db, &Acks::new(&|ack| acks.commit(ack.stream, ack.number, Durability::Sync)))
    }

    fn verify(&self, db: &Database, promised: &Numbers) -> std::result::Result<Numbers, String> {
        self.0.verify(db, promised)
    }
}
