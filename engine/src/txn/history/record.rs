//! The versions of one key as the history stores them.
//!
//! The value of a key in a history tree is a list, the oldest version first:
//!
//! | bytes | field |
//! |---|---|
//! | 8 | csn of the commit that replaced the version |
//! | 1 | 0 absent, 1 the value itself, 2 where the value lies in pages of its own |
//! | 4 | length of what follows |
//! | any | the value, or a reference to it |
//!
//! It never leaves this run of the program: after a crash nobody reads it.

use crate::btree::OverflowRef;
use crate::txn::versions::View;

const ABSENT: u8 = 0;
const INLINE: u8 = 1;
const LONG: u8 = 2;
/// Bytes of a version before its value.
const HEADER: usize = 13;

/// What a key had before a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Old {
    /// It was not there.
    Absent,
    /// This value.
    Inline(Vec<u8>),
    /// A value in pages of its own.
    Long(OverflowRef),
}

/// A version as it lies in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version<'l> {
    /// The commit that replaced it.
    pub(crate) csn: u64,
    kind: u8,
    bytes: &'l [u8],
}

impl Version<'_> {
    /// What the key had. `None` if the bytes make no sense.
    pub(crate) fn old(&self) -> Option<Old> {
        match self.kind {
            ABSENT => Some(Old::Absent),
            INLINE => Some(Old::Inline(self.bytes.to_vec())),
            LONG => OverflowRef::decode(self.bytes).map(Old::Long),
            _ => None,
        }
    }
}

/// The versions in a list, the oldest first. Ends where the bytes make no sense.
pub(crate) fn versions(list: &[u8]) -> impl Iterator<Item = Version<'_>> {
    let mut rest = list;
    std::iter::from_fn(move || {
        let (header, after) = rest.split_first_chunk::<HEADER>()?;
        let (csn, tail) = header.split_first_chunk::<8>()?;
        let (&kind, len) = tail.split_first()?;
        let len = u32::from_le_bytes(len.try_into().ok()?) as usize;
        let bytes = after.get(..len)?;
        rest = after.get(len..)?;
        Some(Version { csn: u64::from_le_bytes(*csn), kind, bytes })
    })
}

/// The version that a snapshot sees, if it is one of the list: the oldest whose replacement it does not see. All
/// later replacements are invisible to it as well (see [`crate::txn::versions`]).
pub(crate) fn seen_by<'l>(list: &'l [u8], view: &View) -> Option<Version<'l>> {
    versions(list).find(|version| !view.sees(version.csn))
}

/// Adds a version to the end of a list.
pub(crate) fn push(list: &mut Vec<u8>, csn: u64, old: &Old) {
    let reference;
    let (kind, bytes): (u8, &[u8]) = match old {
        Old::Absent => (ABSENT, &[]),
        Old::Inline(bytes) => (INLINE, bytes),
        Old::Long(value) => {
            reference = value.encode();
            (LONG, &reference)
        }
    };
    list.extend_from_slice(&csn.to_le_bytes());
    list.push(kind);
    list.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    list.extend_from_slice(bytes);
}

/// The list without the versions that none of the live snapshots sees. A snapshot that is taken later sees none of
/// them either: the commits that replaced them are over.
pub(crate) fn pruned(list: &[u8], live: &[std::sync::Arc<View>]) -> Vec<u8> {
    let mut wanted: Vec<u64> =
        live.iter().filter_map(|view| seen_by(list, view)).map(|version| version.csn).collect();
    wanted.sort_unstable();
    let mut kept = Vec::with_capacity(list.len());
    for version in versions(list) {
        if wanted.binary_search(&version.csn).is_ok() {
            kept.extend_from_slice(&version.csn.to_le_bytes());
            kept.push(version.kind);
            kept.extend_from_slice(&(version.bytes.len() as u32).to_le_bytes());
            kept.extend_from_slice(version.bytes);
        }
    }
    kept
}
