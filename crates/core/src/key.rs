//! Document keys: the `_id` as text, identical for all `_id`s that MongoDB treats as equal.
//!
//! MongoDB compares numbers by value, regardless of their types: the integer 1, the long 1, the double 1.0 and the
//! decimal 1.00 are one `_id`, alone or inside a compound `_id`. A replacement may change the numeric type of an `_id`,
//! so events carry either type. In a key each number has the smallest type that holds it exactly: int, long, double,
//! decimal. ObjectIds, strings and ints are written as canonical extended JSON writes them.

use std::borrow::Cow;

use sha2::{Digest as _, Sha256};

use crate::hex::hex;

/// The form of keys that this release writes. 1 was canonical extended JSON, which distinguishes numeric types.
pub const FORM: u32 = 2;

/// Maximum size of a key in bytes. A document with a longer key is parked, because each of its points and entries
/// carries the key.
pub const MAX_BYTES: usize = 1 << 20;

/// Returns the key for an `_id` in canonical extended JSON, or for a key of an earlier form.
pub fn canonical(id: &str) -> Cow<'_, str> {
    if !["\"$numberL", "\"$numberD", "\"$symbol\""].iter().any(|part| id.contains(part)) {
        return Cow::Borrowed(id);
    }
    let mut out = String::with_capacity(id.len());
    let mut rest = id;
    while let Some(first) = rest.chars().next() {
        let (taken, replaced) = match first {
            '"' => (string_end(rest), None),
            '{' => wrapped(rest).map_or((1, None), |(taken, replaced)| (taken, replaced)),
            other => (other.len_utf8(), None),
        };
        let (taken, after) = rest.split_at(taken);
        out.push_str(replaced.as_deref().unwrap_or(taken));
        rest = after;
    }
    Cow::Owned(out)
}

/// Whether a key has the current form.
pub fn is_canonical(key: &str) -> bool {
    canonical(key) == key
}

/// Returns a placeholder for a key above [`MAX_BYTES`]. It identifies no document.
pub fn clipped(key: &str) -> String {
    const SHOWN: usize = 128;
    let begins: String = key.chars().take(SHOWN).collect();
    let digest = hex(&Sha256::digest(key.as_bytes())[..16]);
    serde_json::json!({ CLIPPED: { "begins": begins, "bytes": key.len(), "sha256": digest } }).to_string()
}

/// Whether a key is [`clipped`].
pub fn is_clipped(key: &str) -> bool {
    key.strip_prefix("{\"").is_some_and(|rest| rest.starts_with(CLIPPED))
}

/// The only field of a clipped key.
pub const CLIPPED: &str = "$clipped";

/// Length in bytes of the JSON string at the start of `text`, quotes included; all of `text` if the string is
/// unterminated.
fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The typed value at the start of `text`: its length in bytes, and its replacement. The `$numberLong` inside a date is
/// not a number.
fn wrapped(text: &str) -> Option<(usize, Option<String>)> {
    if text.starts_with(r#"{"$date":{"#) {
        return text.find("}}").map(|end| (end + 2, None));
    }
    if let Some(rest) = text.strip_prefix(r#"{"$symbol":"#) {
        // MongoDB compares symbols and strings alike.
        let end = string_end(rest);
        return rest[end..].starts_with('}').then(|| (text.len() - rest.len() + end + 1, Some(rest[..end].to_owned())));
    }
    let (kind, rest) = text.strip_prefix(r#"{"$number"#)?.split_once(r#"":""#)?;
    let (number, after) = rest.split_once(r#""}"#)?;
    let replaced = match kind {
        "Long" => whole(number.parse().ok()?),
        "Double" => double(number.parse().ok()?),
        "Decimal" => decimal(number)?,
        _ => return None,
    };
    Some((text.len() - after.len(), Some(replaced)))
}

fn whole(number: i64) -> String {
    match i32::try_from(number) {
        Ok(number) => format!(r#"{{"$numberInt":"{number}"}}"#),
        Err(_) => format!(r#"{{"$numberLong":"{number}"}}"#),
    }
}

fn double(number: f64) -> String {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if number.is_nan() {
        r#"{"$numberDouble":"NaN"}"#.to_owned()
    } else if number.is_infinite() {
        let sign = if number < 0.0 { "-" } else { "" };
        format!(r#"{{"$numberDouble":"{sign}Infinity"}}"#)
    } else if number.fract() == 0.0 && (-LIMIT..LIMIT).contains(&number) {
        whole(number as i64)
    } else {
        let point = if number.fract() == 0.0 { ".0" } else { "" };
        format!(r#"{{"$numberDouble":"{number}{point}"}}"#)
    }
}

fn decimal(text: &str) -> Option<String> {
    let (negative, unsigned) = text.strip_prefix('-').map_or((false, text), |unsigned| (true, unsigned));
    match unsigned.to_ascii_lowercase().as_str() {
        "nan" | "snan" => return Some(double(f64::NAN)),
        "inf" | "infinity" => return Some(double(if negative { f64::NEG_INFINITY } else { f64::INFINITY })),
        _ => {}
    }
    let number = Digits::parse(unsigned)?;
    let sign = if negative { "-" } else { "" };
    let Digits { digits, exponent } = &number;
    if digits.is_empty() {
        return Some(whole(0));
    }
    let plain = format!("{sign}{digits}e{exponent}");
    if (0..19).contains(exponent)
        && let Ok(number) = format!("{sign}{digits}{}", "0".repeat(usize::try_from(*exponent).ok()?)).parse::<i64>()
    {
        return Some(whole(number));
    }
    // Equal only if the double's exact decimal expansion is this decimal.
    let nearest: f64 = plain.parse().ok()?;
    if nearest.is_finite() && Digits::parse(&format!("{:.766e}", nearest.abs()))? == number {
        return Some(double(nearest));
    }
    Some(format!(r#"{{"$numberDecimal":"{sign}{}"}}"#, number.text()))
}

/// A number: `digits` without leading or trailing zeros, times ten to the `exponent`. Zero has no digits.
#[derive(Debug, PartialEq, Eq)]
struct Digits {
    digits: String,
    exponent: i64,
}

impl Digits {
    /// Parses an unsigned decimal, with or without a point and an exponent.
    fn parse(text: &str) -> Option<Self> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse().ok()?),
            None => (text, 0_i64),
        };
        let (before, behind) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{before}{behind}");
        if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let digits = all.trim_start_matches('0');
        let kept = digits.trim_end_matches('0');
        let exponent = exponent - i64::try_from(behind.len()).ok()? + i64::try_from(digits.len() - kept.len()).ok()?;
        Some(Self { digits: kept.to_owned(), exponent: if kept.is_empty() { 0 } else { exponent } })
    }

    /// Formats the number as MongoDB formats decimals.
    fn text(&self) -> String {
        let Self { digits, exponent } = self;
        let length = i64::try_from(digits.len()).unwrap_or(i64::MAX);
        let adjusted = exponent + length - 1;
        if *exponent > 0 || adjusted < -6 {
            let (first, rest) = digits.split_at(1);
            let point = if rest.is_empty() { "" } else { "." };
            return format!("{first}{point}{rest}E{adjusted:+}");
        }
        let behind = usize::try_from(-exponent).unwrap_or(0);
        let padded = format!("{digits:0>width$}", width = behind + 1);
        let (before, after) = padded.split_at(padded.len() - behind);
        if after.is_empty() { before.to_owned() } else { format!("{before}.{after}") }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(kind: &str, text: &str) -> String {
        canonical(&format!(r#"{{"$number{kind}":"{text}"}}"#)).into_owned()
    }

    fn int(number: i64) -> String {
        format!(r#"{{"$numberInt":"{number}"}}"#)
    }

    #[test]
    fn numbers_of_equal_value_share_one_key() {
        for (kind, text) in [
            ("Int", "1"),
            ("Long", "1"),
            ("Double", "1.0"),
            ("Double", "1"),
            ("Decimal", "1"),
            ("Decimal", "1.00"),
            ("Decimal", "0.01E+2"),
            ("Decimal", "1000E-3"),
        ] {
            assert_eq!(key(kind, text), int(1), "{kind} {text}");
        }
        for (kind, text) in [("Double", "0.0"), ("Double", "-0.0"), ("Decimal", "-0E+3"), ("Decimal", "0.000")] {
            assert_eq!(key(kind, text), int(0), "{kind} {text}");
        }
        assert_eq!(key("Decimal", "-1.50"), key("Double", "-1.5"));
        assert_eq!(key("Decimal", "1E+20"), key("Double", "100000000000000000000.0"));
        assert_eq!(key("Decimal", "9223372036854775807"), key("Long", "9223372036854775807"));
        assert_eq!(key("Decimal", "9223372036854775808"), key("Double", "9223372036854775808.0"));
        assert_eq!(key("Double", "-9223372036854775808.0"), key("Long", "-9223372036854775808"));
        for text in ["NaN", "-NaN"] {
            assert_eq!(key("Decimal", text), key("Double", "NaN"));
        }
        assert_eq!(key("Decimal", "-Infinity"), key("Double", "-Infinity"));
        assert_eq!(key("Decimal", "0.100"), key("Decimal", "1E-1"));
    }

    #[test]
    fn numbers_of_different_value_have_different_keys() {
        // As mongod 6.0.5 compares them.
        let exact = "0.1000000000000000055511151231257827021181583404541015625";
        let different = [
            ("Double", "0.1"),
            ("Decimal", "0.1"),
            ("Decimal", "0.1000000000000000055511151231257827"),
            ("Long", "9007199254740993"),
            ("Double", "9007199254740992.0"),
            ("Double", "1e23"),
            ("Decimal", "1E+23"),
            ("Double", "NaN"),
            ("Double", "Infinity"),
            ("Int", "0"),
        ];
        let keys: std::collections::HashSet<_> = different.iter().map(|(kind, text)| key(kind, text)).collect();
        assert_eq!(keys.len(), different.len());
        assert_eq!(key("Decimal", exact), key("Double", "0.1"));
    }

    #[test]
    fn canonical_keys_stay_unchanged() {
        for key in [
            r#"{"$oid":"65f000000000000000000001"}"#,
            r#""text with \" and {\"$numberLong\":\"1\"}""#,
            r#"{"$numberInt":"7"}"#,
            r#"{"$date":{"$numberLong":"7"}}"#,
            r#"{"$date":{"$numberLong":"7"},"b":{"$date":{"$numberLong":"-9"}}}"#,
            r#"{"$numberDecimal":"0.1"}"#,
            r#"{"$numberDecimal":"1E-7"}"#,
            r#"{"$numberDouble":"1.5"}"#,
            r#"{"$numberLong":"4294967296"}"#,
            r#"{"$timestamp":{"t":1,"i":2}}"#,
            "null",
            r#"{"$numberLong":"no number"}"#,
            r#"{"$numberLong":"1"#,
        ] {
            assert_eq!(canonical(key), key);
            assert!(is_canonical(key));
        }
    }

    #[test]
    fn compound_ids_are_canonicalized_and_keep_field_order() {
        let old = r#"{"b":{"$numberLong":"1"},"a":[{"$numberDouble":"2.0"},{"$date":{"$numberLong":"3"}}],"n":{"$numberDecimal":"1.10"}}"#;
        let new = r#"{"b":{"$numberInt":"1"},"a":[{"$numberInt":"2"},{"$date":{"$numberLong":"3"}}],"n":{"$numberDecimal":"1.1"}}"#;
        assert_eq!(canonical(old), new);
        assert!(!is_canonical(old) && is_canonical(new));
        let swapped = r#"{"a":{"$numberInt":"1"},"b":{"$numberInt":"2"}}"#;
        assert_eq!(canonical(swapped), swapped);
    }

    #[test]
    fn symbol_and_equal_string_share_one_key() {
        assert_eq!(canonical(r#"{"$symbol":"a\"}b"}"#), r#""a\"}b""#);
        assert_eq!(canonical(r#"{"k":{"$symbol":"a"}}"#), r#"{"k":"a"}"#);
    }

    #[test]
    fn clipped_keys_are_short_and_distinct() {
        let [a, b] = ["a", "b"].map(|last| format!("\"{}{last}\"", "ü".repeat(MAX_BYTES)));
        assert_ne!(clipped(&a), clipped(&b));
        assert!(clipped(&a).len() < 500 && is_clipped(&clipped(&a)));
        assert!(clipped(&a).contains(&format!("\"bytes\":{}", a.len())));
        for key in ["\"$clipped\"", "{\"a\":1}", "", "{"] {
            assert!(!is_clipped(key), "{key}");
        }
    }

    proptest! {
        #[test]
        fn canonicalizing_a_key_is_idempotent(value in any::<f64>(), whole in any::<i64>(), coefficient in any::<u64>(), exponent in -40i32..40) {
            for key in [
                format!(r#"{{"$numberDouble":"{value}"}}"#),
                format!(r#"{{"$numberLong":"{whole}"}}"#),
                format!(r#"{{"$numberDecimal":"{coefficient}E{exponent}"}}"#),
            ] {
                let once = canonical(&key).into_owned();
                prop_assert!(is_canonical(&once), "{} {}", key, once);
            }
        }

        #[test]
        fn equal_numbers_of_any_two_types_have_equal_keys(number in any::<i32>(), zeros in 0usize..6) {
            let decimal = format!("{number}.{}", "0".repeat(zeros + 1));
            let expected = format!(r#"{{"$numberInt":"{number}"}}"#);
            for (kind, text) in [("Long", number.to_string()), ("Double", f64::from(number).to_string()), ("Decimal", decimal)] {
                prop_assert_eq!(key(kind, &text), expected.clone());
            }
            let half = f64::from(number) / 2.0;
            prop_assert_eq!(key("Double", &half.to_string()), key("Decimal", &half.to_string()));
        }

        #[test]
        fn string_ids_are_never_changed(text in ".*") {
            let key = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(canonical(&key), key.as_str());
            let _ = canonical(&text);
        }
    }
}
