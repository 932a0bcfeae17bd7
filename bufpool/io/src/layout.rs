//! Descriptions of what lies on the medium, as data: which field of a structure stands where.
//!
//! The crates that define structures describe them with [`layout!`](crate::layout!), which takes names, offsets and
//! sizes from the structures that the code reads and writes through. FORMAT.md has the same tables for people, and a
//! test compares the two. Nothing here is used while a database runs.

use std::fmt;

/// A structure on the medium: fields with fixed places, and behind them those whose length varies.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Its name, the heading of its table in FORMAT.md.
    pub name: &'static str,
    /// What offsets and sizes count.
    pub measure: Measure,
    /// Where it begins in the page, block or record that holds it.
    pub base: usize,
    /// Length of the fields with fixed places together.
    pub size: usize,
    /// The fields with fixed places, in order and without gaps.
    pub fields: &'static [Field],
    /// What follows: one behind the other, the first right behind the fixed fields.
    pub tail: &'static [Tail],
}

/// What the numbers of a [`Layout`] count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Bytes.
    Bytes,
    /// Bits of a little-endian integer, the lowest first.
    Bits,
}

/// A field with a fixed place.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Where it begins, from the structure's beginning.
    pub offset: usize,
    /// Its length.
    pub size: usize,
}

/// A field whose length varies.
#[derive(Debug, Clone, Copy)]
pub struct Tail {
    /// Its name.
    pub name: &'static str,
    /// Its length.
    pub size: TailSize,
}

/// Length of a field that varies.
#[derive(Debug, Clone, Copy)]
pub enum TailSize {
    /// An array of elements of so many bytes each.
    Each(usize),
    /// From so many to so many bytes.
    Between(usize, usize),
    /// As many bytes as another field says, or up to the end.
    Any,
}

impl Layout {
    /// A layout in bytes; [`layout!`](crate::layout!) is the usual way to one.
    pub const fn new(name: &'static str, size: usize, fields: &'static [Field]) -> Self {
        Self { name, measure: Measure::Bytes, base: 0, size, fields, tail: &[] }
    }

    /// A layout of the bits of an integer.
    pub const fn of_bits(name: &'static str, size: usize, fields: &'static [Field]) -> Self {
        Self { measure: Measure::Bits, ..Self::new(name, size, fields) }
    }

    /// The same structure, which begins at `base` of what holds it.
    #[must_use]
    pub const fn at(self, base: usize) -> Self {
        Self { base, ..self }
    }

    /// The same structure with fields of varying length behind it.
    #[must_use]
    pub const fn then(self, tail: &'static [Tail]) -> Self {
        Self { tail, ..self }
    }

    /// What its table says, a row for each field: offset, size and name.
    pub fn rows(&self) -> Vec<[String; 3]> {
        let fixed = self.fields.iter().map(|field| {
            [(self.base + field.offset).to_string(), field.size.to_string(), field.name.to_owned()]
        });
        let tail = self.tail.iter().enumerate().map(|(at, tail)| {
            let offset = if at == 0 { (self.base + self.size).to_string() } else { String::new() };
            [offset, tail.size.to_string(), tail.name.to_owned()]
        });
        fixed.chain(tail).collect()
    }

    /// Why the fixed fields do not cover the structure without gap or overlap, if they do not.
    pub fn gap(&self) -> Option<String> {
        let mut end = 0;
        for field in self.fields {
            if field.offset != end {
                return Some(format!(
                    "{}: {} is at {}, expected at {end}",
                    self.name, field.name, field.offset
                ));
            }
            end += field.size;
        }
        (end != self.size)
            .then(|| format!("{}: the fields end at {end}, the structure at {}", self.name, self.size))
    }
}

impl Tail {
    /// A field of so many bytes as another one says, or up to the end.
    pub const fn any(name: &'static str) -> Self {
        Self { name, size: TailSize::Any }
    }

    /// An array of elements of `bytes` bytes each.
    pub const fn each(name: &'static str, bytes: usize) -> Self {
        Self { name, size: TailSize::Each(bytes) }
    }

    /// A field of `min` to `max` bytes.
    pub const fn between(name: &'static str, min: usize, max: usize) -> Self {
        Self { name, size: TailSize::Between(min, max) }
    }
}

impl fmt::Display for TailSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Each(bytes) => write!(f, "{bytes} each"),
            Self::Between(min, max) if min == max => write!(f, "{min}"),
            Self::Between(min, max) => write!(f, "{min} to {max}"),
            Self::Any => f.write_str("any"),
        }
    }
}

/// Numbers that have a name: codes of a field, or constants of the format.
#[derive(Debug, Clone, Copy)]
pub struct Numbers {
    /// What they are, the heading of their table in FORMAT.md.
    pub name: &'static str,
    /// Name and number of each, in the order of the table.
    pub entries: &'static [(&'static str, u64)],
}

/// Size of the field that `_field` leads to; for [`layout!`](crate::layout!).
#[doc(hidden)]
pub const fn size_of_field<S, T>(_field: fn(&S) -> &T) -> usize {
    size_of::<T>()
}

/// The [`Layout`] of a struct: `layout!("Name", Type { field => "its name", ... })`. It does not
/// compile unless every field is named.
///
/// ```
/// #[repr(C)]
/// struct Front {
///     kind: u8,
///     flags: [u8; 3],
///     count: u32,
/// }
///
/// let front = bedstone_io::layout!("Front", Front { kind => "kind", flags => "flags", count => "count" });
/// assert_eq!(front.size, 8);
/// assert_eq!(front.rows()[2], ["4", "4", "count"]);
/// assert_eq!(front.gap(), None);
/// ```
#[macro_export]
macro_rules! layout {
    ($name:literal, $type:ident { $($field:ident => $label:literal),+ $(,)? }) => {{
        const _: fn(&$type) = |whole| {
            let $type { $($field: _),+ } = whole;
        };
        $crate::layout::Layout::new(
            $name,
            size_of::<$type>(),
            const {
                &[$($crate::layout::Field {
                    name: $label,
                    offset: ::std::mem::offset_of!($type, $field),
                    size: $crate::layout::size_of_field(|whole: &$type| &whole.$field),
                }),+]
            },
        )
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    struct Holed {
        small: u8,
        large: u32,
    }

    #[test]
    fn holes_between_fields_are_found() {
        let holed = layout!("Holed", Holed { small => "small", large => "large" });
        assert_eq!(holed.gap().unwrap(), "Holed: large is at 4, expected at 1");
        let short = Layout::of_bits("Short", 8, &[Field { name: "low", offset: 0, size: 7 }]);
        assert!(short.gap().unwrap().contains("end at 7"));
    }

    #[test]
    fn rows_count_from_the_base() {
        const TAIL: &[Tail] = &[Tail::each("ids", 4), Tail::between("length", 1, 3), Tail::any("rest")];
        let layout =
            Layout::new("Outer", 2, &[Field { name: "count", offset: 0, size: 2 }]).at(32).then(TAIL);
        let rows = layout.rows();
        let rows: Vec<Vec<&str>> = rows.iter().map(|row| row.iter().map(String::as_str).collect()).collect();
        assert_eq!(rows[0], ["32", "2", "count"]);
        assert_eq!(rows[1], ["34", "4 each", "ids"]);
        assert_eq!(rows[2], ["", "1 to 3", "length"]);
        assert_eq!(rows[3], ["", "any", "rest"]);
    }
}
