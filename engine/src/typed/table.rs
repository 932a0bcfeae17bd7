//! The handle of a typed table.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};

use super::access::sealed::Write;
use super::access::{Bounds, Reader, Writer};
use super::range::{TypedRange, decode_error};
use super::{Key, PrefixKey, Value, key, types};
use crate::db::{CommitInfo, Database};
use crate::error::{Error, Result, shown};
use crate::options::Durability;
use crate::table::Table;
use crate::transaction::Transaction;

impl Database {
    /// The table of this name with keys of type `K` and values of type `V`, made if it is not there. A table that was
    /// never opened as a typed one gets these types, whatever it holds; they are committed before this returns.
    ///
    /// ```
    /// # fn main() -> bedstone::Result<()> {
    /// # let dir = std::env::temp_dir().join(format!("bedstone-typed-{}.bed", std::process::id()));
    /// # let db = bedstone::Database::builder().allow_buffered(true).create(&dir)?;
    /// let ages = db.typed_table::<String, u32>("ages")?;
    /// ages.put("Ada", 36)?;
    /// assert_eq!(ages.get("Ada")?, Some(36));
    ///
    /// let by_age = db.typed_table::<(u32, String), ()>("by age")?;
    /// by_age.put((36, "Ada"), ())?;
    /// by_age.put((7, "Bea"), ())?;
    /// let first = by_age.range((1, "")..)?.next();
    /// assert_eq!(first.transpose()?, Some(((7, "Bea".into()), ())));
    /// assert!(db.typed_table::<String, i64>("ages").is_err());
    /// # db.close()?;
    /// # drop(std::fs::remove_dir_all(dir));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::TypeMismatch`] if the table has other types; [`Error::InvalidTableName`] also for
    /// [`super::TYPES_TABLE`]; as [`Database::table`] and, where types are stored, as [`Table::put`].
    pub fn typed_table<K: Key, V: Value>(&self, name: &str) -> Result<TypedTable<K, V>> {
        types::check_name(name)?;
        let table = self.table(name)?;
        types::check::<K, V>(&table)?;
        Ok(TypedTable { table, types: PhantomData })
    }

    /// Forgets the types of the table of this name; tells whether it had any. What it holds stays as it is, and is read
    /// with the types with which the table is next opened. For types that got another name with the same code.
    ///
    /// # Errors
    /// [`Error::TableNotFound`], and as [`Table::delete`].
    pub fn forget_table_types(&self, name: &str) -> Result<bool> {
        types::forget(self, name)
    }
}

/// A table whose keys are `K`s and whose values are `V`s: [`Database::typed_table`]. Cheap to clone, usable from many
/// threads, like the [`Table`] below it.
///
/// Keys and values are passed as [`Key::Ref`] and [`Value::Ref`] (`&str` for `String`) and given out whole. Methods whose
/// names end in `_in` read from a [`crate::Snapshot`], a [`Transaction`] or the [`Database`], and write to a
/// [`Transaction`] or a [`crate::WriteBatch`].
///
/// Limits count the bytes of the codes, which [`Key`] tells: a byte 0 in a string that is not the
/// last component counts twice.
///
/// Every method that reads may give [`Error::Decode`], which means that something else was written to the table through
/// [`TypedTable::table`], or that a type has changed and kept its name; every method that writes a value may give
/// [`Error::Encode`]. Nothing was written then.
pub struct TypedTable<K, V> {
    table: Table,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K, V> Clone for TypedTable<K, V> {
    fn clone(&self) -> Self {
        Self { table: self.table.clone(), types: PhantomData }
    }
}

impl<K, V> fmt::Debug for TypedTable<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedTable").field(&self.table).finish()
    }
}

/// The range as bytes.
fn bounds<'k, K: Key>(range: &impl RangeBounds<K::Ref<'k>>) -> Bounds {
    let encode = |bound: Bound<&K::Ref<'k>>| bound.map(|key| key::encode::<K>(*key));
    (encode(range.start_bound()), encode(range.end_bound()))
}

impl<K: Key, V: Value> TypedTable<K, V> {
    /// The table as one of byte strings.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The database it belongs to.
    pub fn database(&self) -> &Database {
        self.table.database()
    }

    fn decode(&self, key: &[u8], value: &[u8]) -> Result<V::Owned> {
        V::decode(value).map_err(|e| decode_error(&self.table, "the value of ", key, &e))
    }

    /// Calls `f` with the bytes of a key and a value.
    fn encoded<T>(
        &self,
        key: K::Ref<'_>,
        value: V::Ref<'_>,
        f: impl FnOnce(&[u8], &[u8]) -> Result<T>,
    ) -> Result<T> {
        let key = key::encode::<K>(key);
        let mut scratch = Vec::new();
        let value = V::encode(value, &mut scratch).map_err(|e| Error::Encode {
            table: self.table.name(),
            what: format!("the value of {}: {e}", shown(Some(&key))),
        })?;
        f(&key, value)
    }

    /// The value of `key`. Errors as [`Table::get`].
    pub fn get(&self, key: K::Ref<'_>) -> Result<Option<V::Owned>> {
        self.get_in(self.database(), key)
    }

    /// [`TypedTable::get`] from a snapshot or a transaction.
    pub fn get_in(&self, reader: &impl Reader, key: K::Ref<'_>) -> Result<Option<V::Owned>> {
        let key = key::encode::<K>(key);
        let value = reader.value(&self.table, &key)?;
        value.map(|value| self.decode(&key, &value)).transpose()
    }

    /// Whether there is a value for `key`; it is not decoded. Errors as [`Table::get`].
    pub fn contains(&self, key: K::Ref<'_>) -> Result<bool> {
        self.contains_in(self.database(), key)
    }

    /// [`TypedTable::contains`] from a snapshot or a transaction.
    pub fn contains_in(&self, reader: &impl Reader, key: K::Ref<'_>) -> Result<bool> {
        reader.holds(&self.table, &key::encode::<K>(key))
    }

    /// The values of many keys, in the order of `keys`; faster than as many calls of [`TypedTable::get`]. Errors as
    /// [`Table::multi_get`].
    pub fn multi_get<'k>(&self, keys: impl IntoIterator<Item = K::Ref<'k>>) -> Result<Vec<Option<V::Owned>>> {
        self.multi_get_in(self.database(), keys)
    }

    /// [`TypedTable::multi_get`] from a snapshot or a transaction.
    pub fn multi_get_in<'k>(
        &self,
        reader: &impl Reader,
        keys: impl IntoIterator<Item = K::Ref<'k>>,
    ) -> Result<Vec<Option<V::Owned>>> {
        let keys: Vec<Vec<u8>> = keys.into_iter().map(key::encode::<K>).collect();
        let values = reader.values(&self.table, &keys)?;
        let decode = |(key, value): (&Vec<u8>, Option<crate::Value<'_>>)| {
            value.map(|value| self.decode(key, &value)).transpose()
        };
        keys.iter().zip(values).map(decode).collect()
    }

    /// The entries whose keys lie in `range`. Errors as [`Table::range`].
    pub fn range<'k>(&self, range: impl RangeBounds<K::Ref<'k>>) -> Result<TypedRange<'_, K, V>> {
        self.range_in(self.database(), range)
    }

    /// [`TypedTable::range`] from a snapshot or a transaction.
    pub fn range_in<'t, 'k>(
        &'t self,
        reader: &'t impl Reader,
        range: impl RangeBounds<K::Ref<'k>>,
    ) -> Result<TypedRange<'t, K, V>> {
        Ok(TypedRange::new(&self.table, reader.walk(&self.table, bounds::<K>(&range))?))
    }

    /// All entries. Errors as [`Table::iter`].
    pub fn iter(&self) -> Result<TypedRange<'_, K, V>> {
        self.range(..)
    }

    /// [`TypedTable::iter`] from a snapshot or a transaction.
    pub fn iter_in<'t>(&'t self, reader: &'t impl Reader) -> Result<TypedRange<'t, K, V>> {
        self.range_in(reader, ..)
    }

    /// The entry with the smallest key. Errors as [`Table::first`].
    pub fn first(&self) -> Result<Option<(K, V::Owned)>> {
        self.iter()?.next().transpose()
    }

    /// [`TypedTable::first`] from a snapshot or a transaction.
    pub fn first_in(&self, reader: &impl Reader) -> Result<Option<(K, V::Owned)>> {
        self.iter_in(reader)?.next().transpose()
    }

    /// The entry with the greatest key. Errors as [`Table::last`].
    pub fn last(&self) -> Result<Option<(K, V::Owned)>> {
        self.iter()?.next_back().transpose()
    }

    /// [`TypedTable::last`] from a snapshot or a transaction.
    pub fn last_in(&self, reader: &impl Reader) -> Result<Option<(K, V::Owned)>> {
        self.iter_in(reader)?.next_back().transpose()
    }

    /// Sets the value of `key`: a commit of its own. Errors as [`Table::put`].
    pub fn put(&self, key: K::Ref<'_>, value: V::Ref<'_>) -> Result<()> {
        self.encoded(key, value, |key, value| self.table.put(key, value))
    }

    /// [`TypedTable::put`] with the durability given.
    pub fn put_with(&self, key: K::Ref<'_>, value: V::Ref<'_>, durability: Durability) -> Result<CommitInfo> {
        self.encoded(key, value, |key, value| self.table.put_with(key, value, durability))
    }

    /// Puts into a transaction or a batch. Errors as [`Transaction::put`] and [`crate::WriteBatch::put`].
    pub fn put_in(&self, writer: &mut impl Writer, key: K::Ref<'_>, value: V::Ref<'_>) -> Result<()> {
        self.encoded(key, value, |key, value| writer.set(&self.table, key, value))
    }

    /// Removes `key`; tells whether it was there. Errors as [`Table::delete`].
    pub fn delete(&self, key: K::Ref<'_>) -> Result<bool> {
        self.table.delete(key::encode::<K>(key))
    }

    /// [`TypedTable::delete`] with the durability given.
    pub fn delete_with(&self, key: K::Ref<'_>, durability: Durability) -> Result<bool> {
        self.table.delete_with(key::encode::<K>(key), durability)
    }

    /// Deletes in a transaction, which tells whether the key was there, or in a batch, which does not. Errors as
    /// [`Transaction::delete`] and [`crate::WriteBatch::delete`].
    pub fn delete_in<W: Writer>(&self, writer: &mut W, key: K::Ref<'_>) -> Result<<W as Write>::Deleted> {
        writer.remove(&self.table, &key::encode::<K>(key))
    }

    /// Removes all keys in `range`, all or none; tells how many were there. Errors as [`Table::delete_range`].
    pub fn delete_range<'k>(&self, range: impl RangeBounds<K::Ref<'k>>) -> Result<u64> {
        self.table.delete_range::<Vec<u8>>(bounds::<K>(&range))
    }

    /// [`TypedTable::delete_range`] in a transaction. Errors as [`Transaction::delete_range`].
    pub fn delete_range_in<'k>(
        &self,
        tx: &mut Transaction,
        range: impl RangeBounds<K::Ref<'k>>,
    ) -> Result<u64> {
        tx.delete_range::<Vec<u8>>(&self.table, bounds::<K>(&range))
    }
}

impl<K: PrefixKey, V: Value> TypedTable<K, V> {
    /// The entries whose keys have this first component, if they are tuples; or begin with it, if they are strings.
    /// Errors as [`Table::prefix`].
    pub fn prefix(&self, prefix: K::Prefix<'_>) -> Result<TypedRange<'_, K, V>> {
        self.prefix_in(self.database(), prefix)
    }

    /// [`TypedTable::prefix`] from a snapshot or a transaction.
    pub fn prefix_in<'t>(
        &'t self,
        reader: &'t impl Reader,
        prefix: K::Prefix<'_>,
    ) -> Result<TypedRange<'t, K, V>> {
        let mut bytes = Vec::new();
        K::encode_prefix(prefix, &mut bytes);
        Ok(TypedRange::new(&self.table, reader.walk_prefix(&self.table, &bytes)?))
    }
}
