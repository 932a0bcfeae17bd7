//! Commits: the order they have ([`stripes`]), how far they have come ([`slots`]), what they write into the
//! log ([`record`]), and how they are made ([`commit`], [`batch`], [`ddl`], and [`fragments`] for those too
//! large for one record).

pub(crate) mod batch;
pub(crate) mod commit;
pub(crate) mod ddl;
pub(crate) mod fragments;
pub(crate) mod record;
pub(crate) mod slots;
pub(crate) mod stripes;
