//! One adapter for each peer.

pub mod canopydb;
pub mod fjall;
pub mod lmdb;
pub mod redb;
pub mod rocksdb;
pub mod sled;
pub mod sqlite;

/// Keys and values as an iterator gives them out one by one.
type Pair<K, V, E> = Result<(K, V), E>;

/// Shows up to `limit` entries of an iterator to `seen`.
fn show<K: AsRef<[u8]>, V: AsRef<[u8]>, E: Into<bedstone_benches::Error>>(
    entries: impl Iterator<Item = Pair<K, V, E>>,
    limit: usize,
    mut seen: impl FnMut(&[u8], &[u8]),
) -> bedstone_benches::Result<()> {
    for entry in entries.take(limit) {
        let (key, value) = entry.map_err(Into::into)?;
        seen(key.as_ref(), value.as_ref());
    }
    Ok(())
}
