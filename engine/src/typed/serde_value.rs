//! Values of the types that serde knows, in the format of postcard.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Deserializer, Visitor};
use serde::{Serialize, de, forward_to_deserialize_any};

use super::{CodecError, Value};

/// The value type of typed tables whose values are `T`s, stored in the [format of postcard]: numbers in as few bytes as
/// they need, no names of fields. Values are passed as `&T` and given out as `T`; there are no values of this type
/// itself.
///
/// The type is remembered by the name that serde has for it, and for a struct the names of its fields: bytes of
/// postcard do not tell by themselves what they are. So a struct that gains, loses or renames a field, or gains an
/// alias for one, is another type, and opening its table gives [`crate::Error::TypeMismatch`] (`#[serde(rename = "...")]` keeps an old name, and
/// [`crate::Database::forget_table_types`] forgets what is stored). Types of fields and variants of an enum are not
/// compared. Add variants at the end.
///
/// Not every type fits: postcard does not have `deserialize_any`, which untagged enums and `serde_json::Value` need; nor
/// `skip_serializing_if`. A type that contains itself is decoded as deep as its bytes say: do not decode bytes of an
/// enemy into one.
///
/// [format of postcard]: https://postcard.jamesmunns.com/
pub struct Serde<T>(PhantomData<fn() -> T>);

impl<T> fmt::Debug for Serde<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Serde")
    }
}

impl<T: Serialize + DeserializeOwned + 'static> Value for Serde<T> {
    type Ref<'a> = &'a T;
    type Owned = T;

    fn type_name() -> String {
        match T::deserialize(Probe) {
            Err(Shape::Seen(shape)) => format!("postcard {shape}"),
            // It was made without looking at anything, or its own code has put another error in place of the probe's.
            Ok(_) | Err(Shape::Hidden) => "postcard".into(),
        }
    }

    fn encode<'a, 'v: 'a>(value: &'v T, scratch: &'a mut Vec<u8>) -> Result<&'a [u8], CodecError> {
        *scratch = postcard::to_extend(value, std::mem::take(scratch))
            .map_err(|e| CodecError::new(format!("postcard: {e}")))?;
        Ok(scratch)
    }

    fn decode(bytes: &[u8]) -> Result<T, CodecError> {
        let (value, rest) =
            postcard::take_from_bytes(bytes).map_err(|e| CodecError::new(format!("postcard: {e}")))?;
        match rest.len() {
            0 => Ok(value),
            n => Err(CodecError::new(format!("{n} bytes follow a whole value"))),
        }
    }
}

/// Gives no data: it answers the first question that a type asks with the error that says which one it was.
struct Probe;

/// What a type asks for first.
#[derive(Debug)]
enum Shape {
    Seen(String),
    Hidden,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a probe of the type, not of data")
    }
}

impl std::error::Error for Shape {}

impl de::Error for Shape {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Shape::Hidden
    }
}

type Probed<V> = Result<V, Shape>;

fn seen<V>(shape: impl Into<String>) -> Probed<V> {
    Err(Shape::Seen(shape.into()))
}

macro_rules! plain {
    ($($method:ident $name:literal,)*) => {$(
        fn $method<V: Visitor<'de>>(self, _: V) -> Probed<V::Value> {
            seen($name)
        }
    )*};
}

impl<'de> Deserializer<'de> for Probe {
    type Error = Shape;

    plain! {
        deserialize_any "any", deserialize_bool "bool", deserialize_char "char",
        deserialize_u8 "u8", deserialize_u16 "u16", deserialize_u32 "u32", deserialize_u64 "u64",
        deserialize_u128 "u128",
        deserialize_i8 "i8", deserialize_i16 "i16", deserialize_i32 "i32", deserialize_i64 "i64",
        deserialize_i128 "i128",
        deserialize_f32 "f32", deserialize_f64 "f64",
        deserialize_str "str", deserialize_string "str", deserialize_bytes "bytes", deserialize_byte_buf "bytes",
        deserialize_unit "()", deserialize_seq "sequence", deserialize_map "map",
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Probed<V::Value> {
        match visitor.visit_some(self) {
            Err(Shape::Seen(shape)) => seen(format!("Option<{shape}>")),
            _ => seen("Option"),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, _: V) -> Probed<V::Value> {
        seen(name)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, _: V) -> Probed<V::Value> {
        seen(format!("{name}(1)"))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, _: V) -> Probed<V::Value> {
        seen(format!("({len})"))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        _: V,
    ) -> Probed<V::Value> {
        seen(format!("{name}({len})"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Probed<V::Value> {
        seen(format!("{name} {{{}}}", fields.join(", ")))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Probed<V::Value> {
        seen(name)
    }

    forward_to_deserialize_any! { identifier ignored_any }

    /// As postcard has it, so that a type with two codes shows the one that is stored.
    fn is_human_readable(&self) -> bool {
        false
    }
}
