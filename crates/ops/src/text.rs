//! Phrases that several messages share.

/// Extrapolations are capped at 30 days.
pub const FAR_SECONDS: u64 = 30 * 86_400;

/// Formats the collections of which none is selected, naming the first few.
pub fn none_of(collections: &[String]) -> String {
    const NAMED: usize = 5;
    let more = if collections.len() > NAMED { ", …" } else { "" };
    let named = collections.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    format!("none of the {} existing collections: {named}{more}", collections.len())
}

/// Counts documents: "1 document", "1,200 documents".
pub fn documents(count: u64) -> String {
    format!("{} {}", thousands(count), if count == 1 { "document" } else { "documents" })
}

/// Counts changes: "1 change", "1,200 changes".
pub fn entries(number: u64) -> String {
    format!("{} {}", thousands(number), if number == 1 { "change" } else { "changes" })
}

/// Formats with thousands separators.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats with about two significant digits: "950", "3.1k", "40k", "214M".
pub fn short(number: f64) -> String {
    let (divisor, unit) = match number {
        number if number < 999.5 => (1.0, ""),
        number if number < 999_500.0 => (1e3, "k"),
        number if number < 999_500_000.0 => (1e6, "M"),
        _ => (1e9, "G"),
    };
    let scaled = number / divisor;
    if unit.is_empty() || scaled >= 9.95 { format!("{scaled:.0}{unit}") } else { format!("{scaled:.1}{unit}") }
}

/// Formats bytes in the largest unit that yields at least one.
pub fn bytes(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.0} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.0} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

/// Formats an extrapolated duration.
pub fn estimate(seconds: f64) -> String {
    let far = FAR_SECONDS as f64;
    if seconds >= far { format!("over {}", duration(far)) } else { duration(seconds) }
}

/// Describes when a backlog ends; `None` before the first rate is known.
pub fn outlook(eta_seconds: Option<f64>, out_per_second: Option<f64>) -> Option<String> {
    match eta_seconds {
        Some(seconds) => Some(format!("ETA {}", estimate(seconds))),
        None => out_per_second.map(|_| "not shrinking".to_owned()),
    }
}

/// Formats a duration with about two significant digits.
pub fn duration(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        seconds if seconds < 10.0 => format!("{seconds:.1} s"),
        seconds if seconds < 90.0 => format!("{seconds:.0} s"),
        seconds if seconds < 5_400.0 => format!("{:.0} min", seconds / 60.0),
        seconds if seconds < 172_800.0 => format!("{:.1} h", seconds / 3_600.0),
        seconds => format!("{:.0} days", seconds / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_numbers_have_two_or_three_digits() {
        for (number, text) in [
            (0.0, "0"),
            (950.4, "950"),
            (999.6, "1.0k"),
            (3_120.0, "3.1k"),
            (9_960.0, "10k"),
            (40_000.0, "40k"),
            (999_600.0, "1.0M"),
            (214_000_000.0, "214M"),
            (2e9, "2.0G"),
        ] {
            assert_eq!(short(number), text);
        }
    }

    #[test]
    fn bytes_have_the_largest_unit() {
        for (count, text) in [(7, "7 B"), (2_048, "2 KiB"), (5 << 20, "5 MiB"), (2_254_857_830, "2.1 GiB")] {
            assert_eq!(bytes(count), text);
        }
    }
}
