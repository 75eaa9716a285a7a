//! Writes the values of [`super::reader`] as extended JSON.

use std::io::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bson::Decimal128;
use tidewheel_core::time::Civil;

use super::reader::{Elements, Kind, length, string, terminated};
use super::{Form, Malformed};

/// MongoDB itself rejects documents nested more than 200 levels deep; more levels than this are forged, and would
/// overflow the stack.
const MAX_DEPTH: usize = 256;

/// The first millisecond of the year 10000: from then on, and before 1970, relaxed dates are numbers too.
const YEAR_10000: i64 = 253_402_300_800_000;

const HEX: &[u8; 16] = b"0123456789abcdef";

pub(super) fn document(out: &mut Vec<u8>, bytes: &[u8], form: Form, depth: usize) -> Result<(), Malformed> {
    let mut elements = Elements::new(bytes)?;
    out.push(b'{');
    let mut first = true;
    while let Some(element) = elements.next()? {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        text(out, element.name, form);
        out.push(b':');
        value(out, element.kind, element.value, form, depth + 1)?;
    }
    out.push(b'}');
    Ok(())
}

fn array(out: &mut Vec<u8>, bytes: &[u8], form: Form, depth: usize) -> Result<(), Malformed> {
    let mut elements = Elements::new(bytes)?;
    out.push(b'[');
    let mut first = true;
    while let Some(element) = elements.next()? {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        value(out, element.kind, element.value, form, depth + 1)?;
    }
    out.push(b']');
    Ok(())
}

pub(super) fn value(out: &mut Vec<u8>, kind: Kind, bytes: &[u8], form: Form, depth: usize) -> Result<(), Malformed> {
    if depth > MAX_DEPTH {
        return Err(Malformed("nesting too deep"));
    }
    match kind {
        Kind::Double => double(out, f64::from_le_bytes(exactly(bytes)?), form),
        Kind::String => text(out, string(bytes)?, form),
        Kind::Document => document(out, bytes, form, depth)?,
        Kind::Array => array(out, bytes, form, depth)?,
        Kind::Binary => binary(out, bytes, form)?,
        Kind::Undefined => out.extend_from_slice(br#"{"$undefined":true}"#),
        Kind::ObjectId => object_id(out, bytes),
        Kind::Boolean => out.extend_from_slice(if bytes == [0] { b"false" } else { b"true" }),
        Kind::DateTime => date(out, i64::from_le_bytes(exactly(bytes)?), form),
        Kind::Null => out.extend_from_slice(b"null"),
        Kind::Regex => regex(out, bytes, form)?,
        Kind::DbPointer => {
            let (namespace, id) = bytes.split_at(bytes.len() - 12);
            out.extend_from_slice(br#"{"$dbPointer":{"$ref":"#);
            text(out, string(namespace)?, form);
            out.extend_from_slice(br#","$id":"#);
            object_id(out, id);
            out.extend_from_slice(b"}}");
        }
        Kind::Code => wrapped_text(out, "$code", string(bytes)?, form),
        Kind::Symbol => wrapped_text(out, "$symbol", string(bytes)?, form),
        Kind::CodeWithScope => code_with_scope(out, bytes, form, depth)?,
        Kind::Int32 => {
            let number = i32::from_le_bytes(exactly(bytes)?);
            match form {
                Form::Relaxed => append(out, format_args!("{number}")),
                Form::Canonical => append(out, format_args!(r#"{{"$numberInt":"{number}"}}"#)),
            }
        }
        Kind::Int64 => {
            let number = i64::from_le_bytes(exactly(bytes)?);
            match form {
                Form::Relaxed => append(out, format_args!("{number}")),
                Form::Canonical => append(out, format_args!(r#"{{"$numberLong":"{number}"}}"#)),
            }
        }
        Kind::Timestamp => {
            let number = u64::from_le_bytes(exactly(bytes)?);
            let (seconds, increment) = (number >> 32, number & u64::from(u32::MAX));
            append(out, format_args!(r#"{{"$timestamp":{{"t":{seconds},"i":{increment}}}}}"#));
        }
        Kind::Decimal128 => {
            let number = Decimal128::from_bytes(exactly(bytes)?);
            append(out, format_args!(r#"{{"$numberDecimal":"{number}"}}"#));
        }
        Kind::MaxKey => out.extend_from_slice(br#"{"$maxKey":1}"#),
        Kind::MinKey => out.extend_from_slice(br#"{"$minKey":1}"#),
    }
    Ok(())
}

fn exactly<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Malformed> {
    bytes.try_into().map_err(|_| Malformed("wrong value length"))
}

fn append(out: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    out.write_fmt(arguments).expect("a Vec takes everything");
}

/// A JSON string, with its quotes. Bytes that are not UTF-8 become U+FFFD in the relaxed form. In the canonical one,
/// which preserves identity, each becomes the escape of a lone surrogate, `\udc80` to `\udcff`, which no text can
/// contain.
fn text(out: &mut Vec<u8>, bytes: &[u8], form: Form) {
    let mut write = |text: &str| {
        serde_json::to_writer(&mut *out, text).expect("a Vec takes every string");
    };
    match std::str::from_utf8(bytes) {
        Ok(text) => write(text),
        Err(_) if form == Form::Relaxed => write(&String::from_utf8_lossy(bytes)),
        Err(_) => {
            out.push(b'"');
            for chunk in bytes.utf8_chunks() {
                let quoted = serde_json::to_string(chunk.valid()).expect("every string is JSON");
                out.extend_from_slice(&quoted.as_bytes()[1..quoted.len() - 1]);
                for byte in chunk.invalid() {
                    append(out, format_args!("\\udc{byte:02x}"));
                }
            }
            out.push(b'"');
        }
    }
}

fn wrapped_text(out: &mut Vec<u8>, name: &str, bytes: &[u8], form: Form) {
    append(out, format_args!(r#"{{"{name}":"#));
    text(out, bytes, form);
    out.push(b'}');
}

fn object_id(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(br#"{"$oid":""#);
    for byte in bytes {
        out.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
    out.extend_from_slice(br#""}"#);
}

fn double(out: &mut Vec<u8>, number: f64, form: Form) {
    if number.is_nan() {
        out.extend_from_slice(br#"{"$numberDouble":"NaN"}"#);
    } else if number.is_infinite() {
        let sign = if number < 0.0 { "-" } else { "" };
        append(out, format_args!(r#"{{"$numberDouble":"{sign}Infinity"}}"#));
    } else if form == Form::Relaxed {
        // The shortest text that round-trips, with a point or an exponent.
        serde_json::to_writer(out, &number).expect("a Vec takes every number");
    } else {
        let point = if number.fract() == 0.0 { ".0" } else { "" };
        append(out, format_args!(r#"{{"$numberDouble":"{number}{point}"}}"#));
    }
}

/// Replaces `$binary` in the canonical form for a value of subtype 2 without its inner length.
pub(crate) const UNMEASURED: &str = "$binaryWithoutLength";

fn binary(out: &mut Vec<u8>, bytes: &[u8], form: Form) -> Result<(), Malformed> {
    let subtype = *bytes.get(4).ok_or(Malformed("binary value without subtype"))?;
    let mut data = &bytes[5..];
    // Subtype 2 repeats the length inside the data. MongoDB also stores values without it.
    if subtype == 2 {
        match data.split_first_chunk() {
            Some((inner, rest)) if usize::try_from(i32::from_le_bytes(*inner)) == Ok(rest.len()) => data = rest,
            _ if form == Form::Canonical => {
                let data = BASE64_STANDARD.encode(data);
                append(out, format_args!(r#"{{"{UNMEASURED}":{{"base64":"{data}"}}}}"#));
                return Ok(());
            }
            _ => {}
        }
    }
    let data = BASE64_STANDARD.encode(data);
    append(out, format_args!(r#"{{"$binary":{{"base64":"{data}","subType":"{subtype:02x}"}}}}"#));
    Ok(())
}

fn regex(out: &mut Vec<u8>, bytes: &[u8], form: Form) -> Result<(), Malformed> {
    let pattern = terminated(bytes)?;
    let mut options = terminated(&bytes[pattern.len() + 1..])?.to_vec();
    options.sort_unstable();
    out.extend_from_slice(br#"{"$regularExpression":{"pattern":"#);
    text(out, pattern, form);
    out.extend_from_slice(br#","options":"#);
    text(out, &options, form);
    out.extend_from_slice(b"}}");
    Ok(())
}

fn code_with_scope(out: &mut Vec<u8>, bytes: &[u8], form: Form, depth: usize) -> Result<(), Malformed> {
    let rest = bytes.get(4..).ok_or(Malformed("truncated code with scope"))?;
    let end = length(rest)?.saturating_add(4);
    let (code, scope) = rest.split_at_checked(end).ok_or(Malformed("truncated code with scope"))?;
    out.extend_from_slice(br#"{"$code":"#);
    text(out, string(code)?, form);
    out.extend_from_slice(br#","$scope":"#);
    document(out, scope, form, depth + 1)?;
    out.push(b'}');
    Ok(())
}

fn date(out: &mut Vec<u8>, millis: i64, form: Form) {
    if form == Form::Canonical || !(0..YEAR_10000).contains(&millis) {
        append(out, format_args!(r#"{{"$date":{{"$numberLong":"{millis}"}}}}"#));
        return;
    }
    let Civil { year, month, day, hour, minute, second, millis: fraction } = Civil::of(millis);
    append(out, format_args!(r#"{{"$date":"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"#));
    if fraction != 0 {
        let digits = [b'0' + (fraction / 100) as u8, b'0' + (fraction / 10 % 10) as u8, b'0' + (fraction % 10) as u8];
        let used = 3 - digits.iter().rev().take_while(|digit| **digit == b'0').count();
        out.push(b'.');
        out.extend_from_slice(&digits[..used]);
    }
    out.extend_from_slice(br#"Z"}"#);
}
