//! Commits: the order they have ([`stripes`]), how far they have come ([`slots`]), what they write into the
//! log ([`record`]), and how they are made ([`commit`], [`batch`], [`ddl`], and [`fragments`] for those too
//! large for one record).
//!
//! Transactions: what a snapshot sees ([`versions`]), the old values it needs ([`history`]), how both are read
//! ([`view`], [`merge`]), what a transaction has written ([`write_set`], [`temp_tree`]), and when it may commit
//! ([`validation`]).

pub(crate) mod batch;
pub(crate) mod commit;
pub(crate) mod commit_set;
pub(crate) mod ddl;
pub(crate) mod fragments;
pub(crate) mod history;
pub(crate) mod merge;
pub(crate) mod record;
pub(crate) mod slots;
pub(crate) mod stripes;
pub(crate) mod temp_tree;
pub(crate) mod ticket;
pub(crate) mod validation;
pub(crate) mod versions;
pub(crate) mod view;
pub(crate) mod write_set;
