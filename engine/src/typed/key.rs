//! Keys: byte strings that order as the values they stand for.

use super::CodecError;

/// Where in a key something lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Other components follow: the code must show where it ends.
    Inner,
    /// Nothing follows.
    Last,
}

/// What a typed table may have as its key.
///
/// It is implemented for integers, floating-point numbers, `bool`, `char`, `String`, `Vec<u8>`, `[u8; N]`, and for
/// options and tuples of keys. Floating-point numbers order as [`f64::total_cmp`] has it: -0.0 lies before 0.0, and
/// NaNs lie at the ends; each is a key of its own.
///
/// | type | bytes |
/// |---|---|
/// | `u8` to `u128` | big-endian |
/// | `i8` to `i128` | big-endian, the sign bit inverted |
/// | `f32`, `f64` | the bits big-endian; all of them inverted if the sign is set, else the sign bit alone |
/// | `bool` | 0 or 1 |
/// | `char` | its number as a `u32` |
/// | `[u8; N]` | its bytes |
/// | `String`, `Vec<u8>` | last in the key: their bytes. Inside: each byte 0 becomes 0 255, and 0 0 ends them |
/// | `Option` | 0 for `None`; 1 and the value |
/// | tuples of up to six | their components one behind the other |
///
/// Inside a tuple no code is the beginning of another code of the same type, which is why tuples order by their first
/// component, then by the second, and so on.
///
/// To implement it for a type of one's own, hand on to a type that has it, most easily a tuple. What must hold: codes
/// order, as bytes, as the values do; a code in [`Place::Inner`] is never the beginning of another one; decoding gives
/// the value that was encoded, and an error, not a panic, on bytes that no encoding gives.
///
/// ```
/// use bedstone::typed::{CodecError, Key, Place};
///
/// #[derive(Clone, Copy)]
/// struct Day { year: i16, day: u16 }
///
/// impl Key for Day {
///     type Ref<'a> = Day;
///     fn type_name() -> String { "Day".into() }
///     fn to_ref(&self) -> Day { *self }
///     fn encode(day: Day, place: Place, out: &mut Vec<u8>) {
///         <(i16, u16)>::encode((day.year, day.day), place, out);
///     }
///     fn decode(from: &mut &[u8], place: Place) -> Result<Self, CodecError> {
///         let (year, day) = Key::decode(from, place)?;
///         Ok(Day { year, day })
///     }
/// }
/// ```
pub trait Key: Sized + 'static {
    /// How a key is passed: `&str` for `String`, `&[u8]` for `Vec<u8>`, the number itself for numbers.
    type Ref<'a>: Copy;

    /// The name under which a database remembers the type. It must never change, nor name two types with different
    /// codes.
    fn type_name() -> String;

    /// The key as it is passed.
    fn to_ref(&self) -> Self::Ref<'_>;

    /// Appends the code of `key`.
    fn encode(key: Self::Ref<'_>, place: Place, out: &mut Vec<u8>);

    /// Takes a key off the front of `from`; all of `from` in [`Place::Last`], where what is left over is an error of
    /// the caller's to give.
    ///
    /// # Errors
    /// The bytes are no code of the type.
    fn decode(from: &mut &[u8], place: Place) -> Result<Self, CodecError>;
}

/// A key with a beginning that many share: the first component of a tuple, the first bytes of a string.
pub trait PrefixKey: Key {
    /// How the beginning is passed.
    type Prefix<'a>: Copy;

    /// Appends the bytes with which the codes of all such keys begin, and those of no others.
    fn encode_prefix(prefix: Self::Prefix<'_>, out: &mut Vec<u8>);
}

/// The bytes of a whole key.
pub(super) fn encode<K: Key>(key: K::Ref<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    K::encode(key, Place::Last, &mut out);
    out
}

/// The key that `bytes` are.
pub(super) fn decode<K: Key>(mut bytes: &[u8]) -> Result<K, CodecError> {
    let key = K::decode(&mut bytes, Place::Last)?;
    match bytes.len() {
        0 => Ok(key),
        n => Err(CodecError::new(format!("{n} bytes follow a whole {}", K::type_name()))),
    }
}

/// Takes `N` bytes off the front.
fn take<const N: usize>(from: &mut &[u8], name: &str) -> Result<[u8; N], CodecError> {
    let Some((bytes, rest)) = from.split_first_chunk() else {
        return Err(CodecError::new(format!("{name} has {N} bytes, {} are left", from.len())));
    };
    *from = rest;
    Ok(*bytes)
}

macro_rules! integers {
    ($($unsigned:ident $signed:ident,)*) => {$(
        impl Key for $unsigned {
            type Ref<'a> = Self;

            fn type_name() -> String {
                stringify!($unsigned).into()
            }

            fn to_ref(&self) -> Self {
                *self
            }

            fn encode(key: Self, _: Place, out: &mut Vec<u8>) {
                out.extend_from_slice(&key.to_be_bytes());
            }

            fn decode(from: &mut &[u8], _: Place) -> Result<Self, CodecError> {
                take(from, stringify!($unsigned)).map(Self::from_be_bytes)
            }
        }

        impl Key for $signed {
            type Ref<'a> = Self;

            fn type_name() -> String {
                stringify!($signed).into()
            }

            fn to_ref(&self) -> Self {
                *self
            }

            fn encode(key: Self, _: Place, out: &mut Vec<u8>) {
                out.extend_from_slice(&(key ^ Self::MIN).to_be_bytes());
            }

            fn decode(from: &mut &[u8], _: Place) -> Result<Self, CodecError> {
                take(from, stringify!($signed)).map(|bytes| Self::from_be_bytes(bytes) ^ Self::MIN)
            }
        }
    )*};
}

integers! { u8 i8, u16 i16, u32 i32, u64 i64, u128 i128, }

macro_rules! floats {
    ($($float:ident $bits:ident,)*) => {$(
        impl Key for $float {
            type Ref<'a> = Self;

            fn type_name() -> String {
                stringify!($float).into()
            }

            fn to_ref(&self) -> Self {
                *self
            }

            fn encode(key: Self, _: Place, out: &mut Vec<u8>) {
                const SIGN: $bits = 1 << ($bits::BITS - 1);
                let bits = key.to_bits();
                let ordered = if bits & SIGN == 0 { bits | SIGN } else { !bits };
                out.extend_from_slice(&ordered.to_be_bytes());
            }

            fn decode(from: &mut &[u8], _: Place) -> Result<Self, CodecError> {
                const SIGN: $bits = 1 << ($bits::BITS - 1);
                let ordered = $bits::from_be_bytes(take(from, stringify!($float))?);
                let bits = if ordered & SIGN == 0 { !ordered } else { ordered & !SIGN };
                Ok(Self::from_bits(bits))
            }
        }
    )*};
}

floats! { f32 u32, f64 u64, }

impl Key for bool {
    type Ref<'a> = Self;

    fn type_name() -> String {
        "bool".into()
    }

    fn to_ref(&self) -> Self {
        *self
    }

    fn encode(key: Self, _: Place, out: &mut Vec<u8>) {
        out.push(key.into());
    }

    fn decode(from: &mut &[u8], _: Place) -> Result<Self, CodecError> {
        match take(from, "bool")? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(CodecError::new(format!("a bool of {other}"))),
        }
    }
}

impl Key for char {
    type Ref<'a> = Self;

    fn type_name() -> String {
        "char".into()
    }

    fn to_ref(&self) -> Self {
        *self
    }

    fn encode(key: Self, _: Place, out: &mut Vec<u8>) {
        out.extend_from_slice(&u32::from(key).to_be_bytes());
    }

    fn decode(from: &mut &[u8], _: Place) -> Result<Self, CodecError> {
        let number = u32::from_be_bytes(take(from, "char")?);
        Self::from_u32(number).ok_or_else(|| CodecError::new(format!("there is no char {number:#x}")))
    }
}

impl<const N: usize> Key for [u8; N] {
    type Ref<'a> = &'a Self;

    fn type_name() -> String {
        format!("[u8; {N}]")
    }

    fn to_ref(&self) -> &Self {
        self
    }

    fn encode(key: &Self, _: Place, out: &mut Vec<u8>) {
        out.extend_from_slice(key);
    }

    fn decode(from: &mut &[u8], _: Place) -> Result<Self, CodecError> {
        take(from, "an array")
    }
}

/// Appends bytes of any length.
fn put_bytes(bytes: &[u8], place: Place, out: &mut Vec<u8>) {
    if place == Place::Last {
        return out.extend_from_slice(bytes);
    }
    for (i, piece) in bytes.split(|&b| b == 0).enumerate() {
        if i > 0 {
            out.extend_from_slice(&[0, 0xff]);
        }
        out.extend_from_slice(piece);
    }
    out.extend_from_slice(&[0, 0]);
}

/// Takes bytes of any length off the front.
fn take_bytes(from: &mut &[u8], place: Place) -> Result<Vec<u8>, CodecError> {
    if place == Place::Last {
        return Ok(std::mem::take(from).to_vec());
    }
    let mut bytes = Vec::new();
    loop {
        let zero = from.iter().position(|&b| b == 0);
        let Some((zero, &mark)) = zero.and_then(|at| from.get(at + 1).map(|mark| (at, mark))) else {
            return Err(CodecError::new("bytes inside a key that do not end"));
        };
        bytes.extend_from_slice(&from[..zero]);
        *from = &from[zero + 2..];
        match mark {
            0 => return Ok(bytes),
            0xff => bytes.push(0),
            other => return Err(CodecError::new(format!("byte {other} after a 0 inside a key"))),
        }
    }
}

impl Key for Vec<u8> {
    type Ref<'a> = &'a [u8];

    fn type_name() -> String {
        "bytes".into()
    }

    fn to_ref(&self) -> &[u8] {
        self
    }

    fn encode(key: &[u8], place: Place, out: &mut Vec<u8>) {
        put_bytes(key, place, out);
    }

    fn decode(from: &mut &[u8], place: Place) -> Result<Self, CodecError> {
        take_bytes(from, place)
    }
}

impl PrefixKey for Vec<u8> {
    type Prefix<'a> = &'a [u8];

    fn encode_prefix(prefix: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(prefix);
    }
}

impl Key for String {
    type Ref<'a> = &'a str;

    fn type_name() -> String {
        "str".into()
    }

    fn to_ref(&self) -> &str {
        self
    }

    fn encode(key: &str, place: Place, out: &mut Vec<u8>) {
        put_bytes(key.as_bytes(), place, out);
    }

    fn decode(from: &mut &[u8], place: Place) -> Result<Self, CodecError> {
        Self::from_utf8(take_bytes(from, place)?).map_err(|e| CodecError::new(e.to_string()))
    }
}

impl PrefixKey for String {
    type Prefix<'a> = &'a str;

    fn encode_prefix(prefix: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(prefix.as_bytes());
    }
}

impl<T: Key> Key for Option<T> {
    type Ref<'a> = Option<T::Ref<'a>>;

    fn type_name() -> String {
        format!("Option<{}>", T::type_name())
    }

    fn to_ref(&self) -> Option<T::Ref<'_>> {
        self.as_ref().map(T::to_ref)
    }

    fn encode(key: Option<T::Ref<'_>>, place: Place, out: &mut Vec<u8>) {
        out.push(key.is_some().into());
        if let Some(key) = key {
            T::encode(key, place, out);
        }
    }

    fn decode(from: &mut &[u8], place: Place) -> Result<Self, CodecError> {
        match take(from, "an option")? {
            [0] => Ok(None),
            [1] => T::decode(from, place).map(Some),
            [other] => Err(CodecError::new(format!("an option of {other}"))),
        }
    }
}

macro_rules! tuple {
    ($($part:ident $key:ident,)* ; $last:ident $last_key:ident) => {
        impl<$($part: Key,)* $last: Key> Key for ($($part,)* $last,) {
            type Ref<'a> = ($($part::Ref<'a>,)* $last::Ref<'a>,);

            fn type_name() -> String {
                let parts: &[String] = &[$($part::type_name(),)* $last::type_name()];
                format!("({})", parts.join(", "))
            }

            fn to_ref(&self) -> Self::Ref<'_> {
                let ($($key,)* $last_key,) = self;
                ($($key.to_ref(),)* $last_key.to_ref(),)
            }

            fn encode(key: Self::Ref<'_>, place: Place, out: &mut Vec<u8>) {
                let ($($key,)* $last_key,) = key;
                $($part::encode($key, Place::Inner, out);)*
                $last::encode($last_key, place, out);
            }

            fn decode(from: &mut &[u8], place: Place) -> Result<Self, CodecError> {
                Ok(($($part::decode(from, Place::Inner)?,)* $last::decode(from, place)?,))
            }
        }
    };
}

tuple! { ; A a }
tuple! { A a, ; B b }
tuple! { A a, B b, ; C c }
tuple! { A a, B b, C c, ; D d }
tuple! { A a, B b, C c, D d, ; E e }
tuple! { A a, B b, C c, D d, E e, ; F f }

macro_rules! leading {
    ($($rest:ident)*) => {
        impl<A: Key, $($rest: Key,)*> PrefixKey for (A, $($rest,)*) {
            type Prefix<'a> = A::Ref<'a>;

            fn encode_prefix(prefix: A::Ref<'_>, out: &mut Vec<u8>) {
                A::encode(prefix, Place::Inner, out);
            }
        }
    };
}

leading! { B }
leading! { B C }
leading! { B C D }
leading! { B C D E }
leading! { B C D E F }
