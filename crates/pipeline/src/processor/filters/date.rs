//! Dates in the formats of `strftime`.

use std::fmt::Write;

use tidewheel_core::time::{days_in_month, days_since_epoch};

/// The supported directives, without `%`.
const DIRECTIVES: &str = "aAbBdDeFhHIjmMnpRsStTuwyYzZ%";

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// A part of a format.
#[derive(Clone, Copy, Debug)]
enum Part<'a> {
    Literal(&'a str),
    Directive { letter: char, padded: bool },
}

/// A parsed format.
#[derive(Debug)]
pub(super) struct Format<'a>(Vec<Part<'a>>);

impl<'a> Format<'a> {
    /// Parses a format; the error names the first unsupported directive.
    pub(super) fn parse(format: &'a str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = format;
        while let Some((literal, directive)) = rest.split_once('%') {
            if !literal.is_empty() {
                parts.push(Part::Literal(literal));
            }
            let unpadded = directive.strip_prefix('-');
            let directive = unpadded.unwrap_or(directive);
            let flag = if unpadded.is_some() { "-" } else { "" };
            let mut letters = directive.chars();
            match letters.next() {
                Some(letter) if DIRECTIVES.contains(letter) => {
                    parts.push(Part::Directive { letter, padded: unpadded.is_none() });
                }
                unknown => {
                    let letter = unknown.map(String::from).unwrap_or_default();
                    let known: Vec<String> = DIRECTIVES.chars().map(|letter| format!("%{letter}")).collect();
                    return Err(format!(
                        "unsupported directive \"%{flag}{letter}\": expected one of {}, numbers also without padding, as in %-d",
                        known.join(" ")
                    ));
                }
            }
            rest = letters.as_str();
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest));
        }
        Ok(Self(parts))
    }
}

/// A time with the offset from UTC in which it was written. Years are those of the proleptic Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Date {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    /// Minutes east of UTC.
    offset: i64,
}

impl Date {
    /// Parses RFC 3339, with years of 4 to 9 digits that may be negative: so the text of a document represents BSON dates.
    /// The time of day, its seconds and the offset are optional.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut rest = Rest(text.trim());
        let negative = rest.skip("-");
        let digits = rest.0.find('-')?;
        if !(4..=9).contains(&digits) {
            return None;
        }
        let year = rest.number(digits)?;
        let year = if negative { -year } else { year };
        rest.skip("-").then_some(())?;
        let month = rest.number(2)?;
        rest.skip("-").then_some(())?;
        let day = rest.number(2)?;
        let mut date = Self { year, month, day, hour: 0, minute: 0, second: 0, offset: 0 };
        if rest.skip("T") || rest.skip("t") || rest.skip(" ") {
            date.hour = rest.number(2)?;
            rest.skip(":").then_some(())?;
            date.minute = rest.number(2)?;
            if rest.skip(":") {
                date.second = rest.number(2)?;
                if rest.skip(".") {
                    let fraction = rest.0.bytes().take_while(u8::is_ascii_digit).count();
                    if fraction == 0 {
                        return None;
                    }
                    rest.0 = &rest.0[fraction..];
                }
            }
            let east = rest.skip("+");
            if east || rest.skip("-") {
                let hours = rest.number(2)?;
                rest.skip(":");
                let minutes = rest.number(2)?;
                if hours > 23 || minutes > 59 {
                    return None;
                }
                let minutes = 60 * hours + minutes;
                date.offset = if east { minutes } else { -minutes };
            } else {
                let _ = rest.skip("Z") || rest.skip("z");
            }
        }
        let in_range = (1..=12).contains(&month)
            && (1..=days_in_month(year, month)).contains(&day)
            && date.hour < 24
            && date.minute < 60
            // A leap second.
            && date.second <= 60;
        (in_range && rest.0.is_empty()).then_some(date)
    }

    /// Formats the date.
    pub(super) fn format(&self, format: &Format<'_>) -> String {
        let mut out = String::new();
        for part in &format.0 {
            match *part {
                Part::Literal(text) => out.push_str(text),
                Part::Directive { letter, padded } => self.directive(&mut out, letter, padded),
            }
        }
        out
    }

    fn directive(&self, out: &mut String, letter: char, padded: bool) {
        let Self { year, month, day, hour, minute, second, offset } = *self;
        let days = days(year, month, day);
        // The first of January 1970 was a Thursday.
        let weekday = (days + 4).rem_euclid(7);
        let month_name = MONTHS[month as usize - 1];
        let day_name = WEEKDAYS[weekday as usize];
        let nested = |out: &mut String, letters: &str| {
            for letter in letters.chars() {
                match letter {
                    ':' | '/' | '-' => out.push(letter),
                    _ => self.directive(out, letter, true),
                }
            }
        };
        match letter {
            'a' => out.push_str(&day_name[..3]),
            'A' => out.push_str(day_name),
            'b' | 'h' => out.push_str(&month_name[..3]),
            'B' => out.push_str(month_name),
            'd' => number(out, day, 2, padded),
            'D' => nested(out, "m/d/y"),
            'e' if padded && day < 10 => {
                out.push(' ');
                number(out, day, 1, false);
            }
            'e' => number(out, day, 1, false),
            'F' => nested(out, "Y-m-d"),
            'H' => number(out, hour, 2, padded),
            'I' => number(out, (hour + 11) % 12 + 1, 2, padded),
            'j' => number(out, days - self::days(year, 1, 1) + 1, 3, padded),
            'm' => number(out, month, 2, padded),
            'M' => number(out, minute, 2, padded),
            'n' => out.push('\n'),
            'p' => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            'R' => nested(out, "H:M"),
            's' => number(out, ((days * 24 + hour) * 60 + minute - offset) * 60 + second, 1, false),
            'S' => number(out, second, 2, padded),
            't' => out.push('\t'),
            'T' => nested(out, "H:M:S"),
            'u' => number(out, (weekday + 6) % 7 + 1, 1, false),
            'w' => number(out, weekday, 1, false),
            'y' => number(out, year.rem_euclid(100), 2, padded),
            'Y' => number(out, year, 4, padded),
            'Z' if offset == 0 => out.push_str("UTC"),
            'z' | 'Z' => {
                out.push(if offset < 0 { '-' } else { '+' });
                number(out, offset.abs() / 60, 2, true);
                if letter == 'Z' {
                    out.push(':');
                }
                number(out, offset.abs() % 60, 2, true);
            }
            // `Format::parse` rejects all others but `%%`.
            other => out.push(other),
        }
    }
}

/// Appends a number with at least `width` digits if it is padded.
fn number(out: &mut String, number: i64, width: usize, padded: bool) {
    let (sign, digits) = (if number < 0 { "-" } else { "" }, number.unsigned_abs());
    let width = if padded { width } else { 1 };
    // Writing to a string does not fail.
    let _ = write!(out, "{sign}{digits:0width$}");
}

/// Days from the Unix epoch to a date whose year has at most nine digits.
fn days(year: i64, month: i64, day: i64) -> i64 {
    i64::try_from(days_since_epoch(year, month, day)).expect("nine digits of years are fewer days than an i64 holds")
}

/// The text that is still to be parsed.
struct Rest<'a>(&'a str);

impl Rest<'_> {
    /// Whether the text starts with `prefix`, which is then consumed.
    fn skip(&mut self, prefix: &str) -> bool {
        match self.0.strip_prefix(prefix) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    /// Consumes a number of exactly so many digits.
    fn number(&mut self, digits: usize) -> Option<i64> {
        let (number, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        if number.bytes().all(|byte| byte.is_ascii_digit()) { number.parse().ok() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidewheel_core::time::{Civil, rfc3339};

    use super::*;

    fn format(date: &str, format: &str) -> String {
        Date::parse(date).unwrap_or_else(|| panic!("{date}")).format(&Format::parse(format).unwrap())
    }

    #[test]
    fn every_directive_is_that_of_strftime() {
        let afternoon = "2024-03-01T15:04:05.25Z";
        for (directive, text) in [
            ("%Y-%m-%d", "2024-03-01"),
            ("%y %-m %-d %e", "24 3 1  1"),
            ("%H:%M:%S", "15:04:05"),
            ("%-I %I %p", "3 03 PM"),
            ("%a %A %b %h %B", "Fri Friday Mar Mar March"),
            ("%j %-j %u %w", "061 61 5 5"),
            ("%F %T %R %D", "2024-03-01 15:04:05 15:04 03/01/24"),
            ("%s", "1709305445"),
            ("%z %Z", "+0000 UTC"),
            ("100%%%n%tü", "100%\n\tü"),
            ("", ""),
        ] {
            assert_eq!(format(afternoon, directive), text, "{directive}");
        }
        assert_eq!(format("2024-03-01T00:30:00-02:30", "%I:%M %p %z %Z %s"), "12:30 AM -0230 -02:30 1709262000");
        assert_eq!(format("2023-12-31T12:00:00Z", "%I %p %j %u %w"), "12 PM 365 7 0");
    }

    #[test]
    fn unsupported_directive_is_named() {
        for (format, named) in
            [("%Q", "\"%Q\""), ("a %-f b", "\"%-f\""), ("100%", "\"%\""), ("%-", "\"%-\""), ("%ü", "\"%ü\"")]
        {
            let error = Format::parse(format).unwrap_err();
            assert!(error.contains(&format!("unsupported directive {named}")), "{error}");
            assert!(error.contains("%Y"), "{error}");
        }
    }

    #[test]
    fn dates_of_documents_are_parsed() {
        for (text, formatted) in [
            ("2024-02-29", "2024-02-29 00:00:00"),
            ("2024-02-29 10:00", "2024-02-29 10:00:00"),
            ("2016-12-31t23:59:60z", "2016-12-31 23:59:60"),
            ("2024-02-29T10:00:00.123456789+0200", "2024-02-29 10:00:00"),
            ("10000-01-01T00:00:00Z", "10000-01-01 00:00:00"),
            ("-0001-01-01T00:00:00Z", "-0001-01-01 00:00:00"),
        ] {
            assert_eq!(format(text, "%F %T"), formatted, "{text}");
        }
        for text in [
            "",
            "yesterday",
            "2024",
            "2024-1-1",
            "2023-02-29",
            "2024-13-01",
            "2024-00-01",
            "2024-01-00",
            "2024-01-01T",
            "2024-01-01T24:00:00Z",
            "2024-01-01T10:60:00Z",
            "2024-01-01T10:00:00.Z",
            "2024-01-01T10:00:00Zx",
            "2024-01-01T10:00:00+24:00",
            "+2024-01-01",
            "20240101",
            "1234567890-01-01",
            "２０２４-01-01",
            "2024-01-0ü",
        ] {
            assert_eq!(Date::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_bson_date_keeps_its_second(millis: i64) {
            let text = rfc3339(millis);
            let seconds = millis.div_euclid(1_000);
            prop_assert_eq!(format(&text, "%s"), seconds.to_string());
            let Civil { year, month, day, .. } = Civil::of(millis);
            prop_assert_eq!(days(year, month, day), millis.div_euclid(86_400_000));
        }

        #[test]
        fn any_text_is_parsed_without_a_panic(text in ".{0,30}", pattern in ".{0,10}") {
            let _ = Date::parse(&text);
            if let Ok(pattern) = Format::parse(&pattern) {
                let _ = Date::parse("2024-03-01").unwrap().format(&pattern);
            }
        }
    }
}
