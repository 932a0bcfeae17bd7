//! Rules of durability broken on purpose, so that a test can prove that the crash tests notice: an alarm that has never
//! rung may be out of order.
//!
//! A process that is started with the environment variable [`VARIABLE`] set to the name of a [`Defect`] breaks that one
//! rule, and says so once on standard error. Each rule is broken at the one place where it is kept otherwise, by a question
//! to [`is`].
//!
//! No program that keeps data can get into this by chance. The switch exists only in builds that have both the feature
//! `defects`, which nothing but tests turns on, and debug assertions; in every other build [`is`] is a constant `false`, and
//! the compiler leaves out what hangs on it, the reading of the variable included. The variable is read once, so no rule
//! changes while a process runs, and child processes inherit it.

/// Names the defect of a process.
pub const VARIABLE: &str = "BEDSTONE_DEFECT";

macro_rules! defects {
    ($($(#[doc = $rule:literal])+ $variant:ident = $name:literal,)+) => {
        /// A rule that can be broken.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Defect {
            $($(#[doc = $rule])+ $variant,)+
        }

        impl Defect {
            /// Every one.
            pub const ALL: &[Defect] = &[$(Defect::$variant),+];

            /// As the variable names it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Defect::$variant => $name,)+
                }
            }
        }
    };
}

defects! {
    /// Commits are acknowledged without the `fdatasync` of the log.
    SkipLogSync = "skip-log-sync",
    /// Those who wait for a sync that is under way are acknowledged before it has ended.
    AckBeforeSync = "ack-before-sync",
    /// A failed `fdatasync` of the log is repeated, and its success believed.
    RetryFailedSync = "retry-failed-sync",
    /// A superblock is written over images that were not made durable before it.
    SkipDataSync = "skip-data-sync",
    /// Both superblocks are written before either is synced.
    SuperblocksAtOnce = "superblocks-at-once",
    /// Blocks are given out again as soon as nothing but the last durable checkpoint needs them.
    ReuseEarly = "reuse-early",
    /// Log segments are given up before the checkpoint that makes them superfluous is durable.
    RecycleEarly = "recycle-early",
    /// A batch goes into the log as two commits.
    HalfBatch = "half-batch",
    /// Replay begins where the log ended at the checkpoint, not at the first commit that may be missing in the pages.
    ReplayFromLogEnd = "replay-from-log-end",
    /// What recovery has read of the log is relied on as if it were durable.
    TrustPageCache = "trust-page-cache",
    /// The checksum of a page is not compared, neither with the image's own nor with the page map's.
    IgnoreChecksum = "ignore-checksum",
    /// The checksums of a log record are not compared.
    IgnoreLogChecksum = "ignore-log-checksum",
    /// The name of a new database is not made durable.
    SkipDirSync = "skip-dir-sync",
    /// The name of a log segment is not made durable before it is written to.
    SkipSegmentDirSync = "skip-segment-dir-sync",
}

/// Whether this process has the defect.
#[cfg(not(all(feature = "defects", debug_assertions)))]
#[inline(always)]
pub const fn is(_defect: Defect) -> bool {
    false
}

/// Whether this process has the defect.
///
/// # Panics
/// If the variable names none that there is.
#[cfg(all(feature = "defects", debug_assertions))]
pub fn is(defect: Defect) -> bool {
    static CHOSEN: std::sync::LazyLock<Option<Defect>> = std::sync::LazyLock::new(|| {
        let name = std::env::var(VARIABLE).unwrap_or_default();
        if name.is_empty() {
            return None;
        }
        let Some(chosen) = Defect::ALL.iter().copied().find(|defect| defect.name() == name) else {
            let names: Vec<_> = Defect::ALL.iter().map(|defect| defect.name()).collect();
            panic!("{VARIABLE}={name}: there is no such defect; there are {}", names.join(", "));
        };
        eprintln!("{VARIABLE}={name}: this process breaks promises on purpose");
        Some(chosen)
    });
    *CHOSEN == Some(defect)
}

#[cfg(test)]
mod tests {
    use super::Defect;

    #[test]
    fn names_differ() {
        let names: std::collections::BTreeSet<_> = Defect::ALL.iter().map(|defect| defect.name()).collect();
        assert_eq!(names.len(), Defect::ALL.len());
    }
}
