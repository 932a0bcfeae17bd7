//! Keys and values between bytes, the command line and the terminal.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;

use serde_json::{Map, Value as Json};

use crate::failure::Failure;

/// The bytes that an argument stands for: itself, or with `hex` the bytes whose hexadecimal digits it gives (with or
/// without `0x` before them).
pub(crate) fn parse(argument: &OsStr, hex: bool) -> Result<Vec<u8>, Failure> {
    if !hex {
        return Ok(argument.as_bytes().to_vec());
    }
    let wrong = |detail: &str| {
        Failure::Usage(format!(
            "{:?} is not hexadecimal ({detail}); write two digits a byte, for example 0x00ff",
            argument.to_string_lossy()
        ))
    };
    let text = argument.to_str().ok_or_else(|| wrong("not UTF-8"))?;
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text).as_bytes();
    if digits.len() % 2 != 0 {
        return Err(wrong("an odd number of digits"));
    }
    let nibble = |digit: u8| (digit as char).to_digit(16).map(|n| n as u8);
    digits
        .chunks_exact(2)
        .map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?))
        .collect::<Option<Vec<u8>>>()
        .ok_or_else(|| wrong("a character that is no digit"))
}

/// The bytes as hexadecimal digits, with `0x` before them, so that [`parse`] takes them back.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("0x");
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The bytes as text on one line: UTF-8 as it is, with `\t`, `\n`, `\r`, `\\`, and `\xNN` for other control
/// characters and for bytes that are no UTF-8. Different bytes give different texts.
pub(crate) fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '\t' => text.push_str("\\t"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                c if c.is_control() => {
                    let mut utf8 = [0; 4];
                    for byte in c.encode_utf8(&mut utf8).bytes() {
                        let _ = write!(text, "\\x{byte:02x}");
                    }
                }
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// [`text`], cut after about `limit` characters with a note of how many bytes there are in all.
pub(crate) fn short_text(bytes: &[u8], limit: usize) -> String {
    let full = text(&bytes[..bytes.len().min(4 * limit)]);
    match full.char_indices().nth(limit) {
        Some((cut, _)) => format!("{}... ({} bytes)", &full[..cut], bytes.len()),
        None if bytes.len() > 4 * limit => format!("{full}... ({} bytes)", bytes.len()),
        None => full,
    }
}

/// Puts bytes into a JSON object: as the string `name` if they are UTF-8, else as hexadecimal digits in `name_hex`.
pub(crate) fn put_json(object: &mut Map<String, Json>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.into(), text.into()),
        Err(_) => object.insert(format!("{name}_hex"), hex(bytes).into()),
    };
}

/// A number of bytes for people: `1.5 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = "bytes";
    for next in units {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "bytes" { format!("{bytes} bytes") } else { format!("{value:.1} {unit}") }
}

/// A number with its thousands set apart: `28,298`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_both_ways() {
        let parse = |text: &str| parse(OsStr::new(text), true);
        for bytes in [&b""[..], b"\0", b"\x00\xff\x7f", b"abc"] {
            assert_eq!(parse(&hex(bytes)).unwrap(), bytes);
        }
        assert_eq!(parse("0XaB").unwrap(), [0xab]);
        assert_eq!(parse("AB").unwrap(), [0xab]);
        for wrong in ["0x1", "zz", "0xg0", "ää"] {
            assert_eq!(parse(wrong).unwrap_err().exit_code(), crate::failure::USAGE, "{wrong}");
        }
    }

    #[test]
    fn text_is_one_line_and_tells_bytes_apart() {
        assert_eq!(text("Zürich".as_bytes()), "Zürich");
        assert_eq!(text(b"a\tb\nc\\d\0e\xff"), "a\\tb\\nc\\\\d\\x00e\\xff");
        assert_ne!(text(b"\\x00"), text(b"\0"));
        assert_eq!(text("\u{85}".as_bytes()), "\\xc2\\x85");
    }

    #[test]
    fn short_text_says_how_much_there_is() {
        assert_eq!(short_text(b"abc", 3), "abc");
        assert_eq!(short_text(b"abcd", 3), "abc... (4 bytes)");
        assert_eq!(short_text("äöüß".as_bytes(), 2), "äö... (8 bytes)");
        // Cut in the middle of a character by the look-ahead: still no panic and still a note.
        assert!(short_text("ä".repeat(100).as_bytes(), 1).ends_with("(200 bytes)"));
    }

    #[test]
    fn json_keeps_what_is_no_text() {
        let mut object = Map::new();
        put_json(&mut object, "key", "Ü".as_bytes());
        put_json(&mut object, "value", b"\xff");
        assert_eq!(Json::Object(object).to_string(), r#"{"key":"Ü","value_hex":"0xff"}"#);
    }

    #[test]
    fn figures_for_people() {
        assert_eq!(
            (size(0), size(1023), size(1536)),
            ("0 bytes".into(), "1023 bytes".into(), "1.5 KiB".into())
        );
        assert_eq!((count(0), count(999), count(28298)), ("0".into(), "999".into(), "28,298".into()));
    }
}
