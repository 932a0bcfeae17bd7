//! Making the system forget what it caches of a store.

use std::fs::File;
use std::path::Path;

use bedstone_benches::Result;
use bedstone_benches::proc::files_under;
use rustix::fs::{Advice, fadvise};

/// Writes back and drops every page that the page cache holds of the files under `dir`. The store must be closed:
/// pages of a file that is mapped into memory stay.
pub fn forget(dir: &Path) -> Result<()> {
    for path in files_under(dir)? {
        let file = File::open(&path)?;
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}
