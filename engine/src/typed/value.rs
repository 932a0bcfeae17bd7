//! Values: types that are stored as byte strings.

use super::CodecError;

/// What a typed table may have as its value.
///
/// It is implemented for `Vec<u8>` and `String` (their bytes), `[u8; N]`, integers and floating-point numbers
/// (little-endian, so that `i64` is what [`crate::Table::add`] counts in), `bool`, `char` and `()`; with the feature
/// `serde` also for `Serde<T>`, which is for every type that serde knows.
pub trait Value: 'static {
    /// How a value is passed: `&str` for `String`, `&[u8]` for `Vec<u8>`, `&T` for `Serde<T>`, a number itself.
    type Ref<'a>;

    /// How a value is given out.
    type Owned;

    /// The name under which a database remembers the type. It must never change, nor name two types with different
    /// codes.
    fn type_name() -> String;

    /// The bytes of `value`: its own, or some that it has written to `scratch`, which is empty.
    ///
    /// # Errors
    /// The value cannot be stored.
    fn encode<'a, 'v: 'a>(value: Self::Ref<'v>, scratch: &'a mut Vec<u8>) -> Result<&'a [u8], CodecError>;

    /// The value that `bytes` are.
    ///
    /// # Errors
    /// The bytes are no code of the type.
    fn decode(bytes: &[u8]) -> Result<Self::Owned, CodecError>;
}

impl Value for Vec<u8> {
    type Ref<'a> = &'a [u8];
    type Owned = Self;

    fn type_name() -> String {
        "bytes".into()
    }

    fn encode<'a, 'v: 'a>(value: &'v [u8], _: &'a mut Vec<u8>) -> Result<&'a [u8], CodecError> {
        Ok(value)
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        Ok(bytes.to_vec())
    }
}

impl Value for String {
    type Ref<'a> = &'a str;
    type Owned = Self;

    fn type_name() -> String {
        "str".into()
    }

    fn encode<'a, 'v: 'a>(value: &'v str, _: &'a mut Vec<u8>) -> Result<&'a [u8], CodecError> {
        Ok(value.as_bytes())
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|e| CodecError::new(e.to_string()))
    }
}

/// Exactly `N` bytes.
fn exactly<const N: usize>(bytes: &[u8], name: &str) -> Result<[u8; N], CodecError> {
    let wrong = || CodecError::new(format!("{name} has {N} bytes, not {}", bytes.len()));
    bytes.try_into().map_err(|_| wrong())
}

impl<const N: usize> Value for [u8; N] {
    type Ref<'a> = &'a Self;
    type Owned = Self;

    fn type_name() -> String {
        format!("[u8; {N}]")
    }

    fn encode<'a, 'v: 'a>(value: &'v Self, _: &'a mut Vec<u8>) -> Result<&'a [u8], CodecError> {
        Ok(value)
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        exactly(bytes, "an array")
    }
}

macro_rules! numbers {
    ($($number:ident)*) => {$(
        impl Value for $number {
            type Ref<'a> = Self;
            type Owned = Self;

            fn type_name() -> String {
                stringify!($number).into()
            }

            fn encode<'a, 'v: 'a>(value: Self, scratch: &'a mut Vec<u8>) -> Result<&'a [u8], CodecError> {
                scratch.extend_from_slice(&value.to_le_bytes());
                Ok(scratch)
            }

            fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
                exactly(bytes, stringify!($number)).map(Self::from_le_bytes)
            }
        }
    )*};
}

numbers! { u8 u16 u32 u64 u128 i8 i16 i32 i64 i128 f32 f64 }

impl Value for bool {
    type Ref<'a> = Self;
    type Owned = Self;

    fn type_name() -> String {
        "bool".into()
    }

    fn encode<'a, 'v: 'a>(value: Self, _: &'a mut Vec<u8>) -> Result<&'a [u8], CodecError> {
        Ok(if value { &[1] } else { &[0] })
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        match exactly(bytes, "bool")? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(CodecError::new(format!("a bool of {other}"))),
        }
    }
}

impl Value for char {
    type Ref<'a> = Self;
    type Owned = Self;

    fn type_name() -> String {
        "char".into()
    }

    fn encode<'a, 'v: 'a>(value: Self, scratch: &'a mut Vec<u8>) -> Result<&'a [u8], CodecError> {
        scratch.extend_from_slice(&u32::from(value).to_le_bytes());
        Ok(scratch)
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let number = u32::from_le_bytes(exactly(bytes, "char")?);
        Self::from_u32(number).ok_or_else(|| CodecError::new(format!("there is no char {number:#x}")))
    }
}

/// For tables that only say which keys there are.
impl Value for () {
    type Ref<'a> = Self;
    type Owned = Self;

    fn type_name() -> String {
        "()".into()
    }

    fn encode<'a, 'v: 'a>((): Self, _: &'a mut Vec<u8>) -> Result<&'a [u8], CodecError> {
        Ok(&[])
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        exactly(bytes, "()").map(|[]| ())
    }
}
