//! Human-readable durations, sizes and ratios: `15s`, `1h30m`, `8MiB`, `0.05`.

use std::time::Duration;

/// Time units in milliseconds, longest first.
const TIME: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Size units in bytes, largest first.
const SIZE: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

/// Parses a duration: integers with the units `d`, `h`, `m`, `s` and `ms`, concatenated. A bare number other than zero is rejected
/// as ambiguous.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    sum_of(text, &TIME).map(Duration::from_millis)
}

/// Parses a size: an integer with one of the units `B`, `kB`, `KiB`, `MB`, `MiB`, `GB` and `GiB`.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    sum_of(text, &SIZE)
}

/// Formats a duration in the fewest units.
pub(crate) fn show_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".into();
    }
    let mut text = String::new();
    for (unit, length) in TIME {
        if rest >= length {
            text += &format!("{}{unit}", rest / length);
            rest %= length;
        }
    }
    text
}

/// Formats a size in the largest binary unit that divides it.
pub(crate) fn show_size(bytes: u64) -> String {
    let binary =
        SIZE.iter().filter(|(unit, length)| unit.ends_with("iB") && bytes != 0 && bytes.is_multiple_of(*length));
    let (unit, length) = binary.max_by_key(|(_, length)| length).copied().unwrap_or(("B", 1));
    format!("{}{unit}", bytes / length)
}

/// Millionths in one.
const WHOLE: u32 = 1_000_000;

/// Parses a ratio from 0 to 1 into millionths, rounding.
pub(crate) fn parse_share(text: &str) -> Option<u32> {
    let share: f64 = text.trim().parse().ok()?;
    (0.0..=1.0).contains(&share).then(|| (share * f64::from(WHOLE)).round() as u32)
}

/// Formats a ratio in the fewest digits.
pub(crate) fn show_share(millionths: u32) -> String {
    share(millionths).to_string()
}

/// Converts millionths to a ratio from 0 to 1.
pub(crate) fn share(millionths: u32) -> f64 {
    f64::from(millionths) / f64::from(WHOLE)
}

fn sum_of(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    if rest == "0" {
        return Some(0);
    }
    let mut sum = 0u64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let tail = tail.trim_start();
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (name, tail) = tail.split_at(letters);
        let (_, length) = units.iter().find(|(unit, _)| *unit == name)?;
        sum = sum.checked_add(number.parse::<u64>().ok()?.checked_mul(*length)?)?;
        rest = tail.trim_start();
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_round_trip() {
        for (text, millis) in
            [("250ms", 250), ("15s", 15_000), ("2h", 7_200_000), ("1h30m", 5_400_000), ("7d", 604_800_000), ("0s", 0)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
            assert_eq!(show_duration(Duration::from_millis(millis)), text);
        }
        for text in ["", "15", "s", "15 parsecs", "-1s", "1.5s", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(parse_duration(text), None, "{text:?} was accepted");
        }
    }

    #[test]
    fn ratios_are_parsed_and_formatted() {
        for (text, millionths, shown) in
            [("1", WHOLE, "1"), ("0.05", 50_000, "0.05"), ("1e-6", 1, "0.000001"), ("0.0000001", 0, "0"), ("0", 0, "0")]
        {
            assert_eq!(parse_share(text), Some(millionths), "{text}");
            assert_eq!(show_share(millionths), shown);
        }
        for text in ["", "1.000001", "-1", "half", "nan", "inf"] {
            assert_eq!(parse_share(text), None, "{text:?} was accepted");
        }
    }

    #[test]
    fn sizes_are_parsed_and_formatted() {
        for (text, bytes) in [("8MiB", 8 << 20), ("1GiB", 1 << 30), ("500B", 500), ("16KiB", 16 << 10), ("0B", 0)] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
            assert_eq!(show_size(bytes), text);
        }
        assert_eq!(parse_size("2MB"), Some(2_000_000));
        assert_eq!(parse_size("8"), None);
        assert_eq!(parse_size("8mib"), None);
    }
}
