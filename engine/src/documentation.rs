//! The long documents: how Bedstone is built, what lies on the medium, and how it is tested.

pub mod architecture {
    #![doc = include_str!("../docs/ARCHITECTURE.md")]
}

pub mod format {
    #![doc = include_str!("../docs/FORMAT.md")]
}

pub mod testing {
    #![doc = include_str!("../docs/TESTING.md")]
}

/// Compiles the first program of the README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
