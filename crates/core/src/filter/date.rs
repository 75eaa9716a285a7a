//! Dates in filters.

use crate::time::{days_in_month, days_since_epoch};

/// Seconds of a day.
const DAY: i64 = 86_400;

/// A time in UTC, to the nanosecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    /// Seconds since the Unix epoch, rounded down.
    pub seconds: i64,
    /// Nanoseconds since that second: 0 to 999,999,999.
    pub nanos: u32,
}

impl Date {
    /// Parses a date in RFC 3339.
    ///
    /// The time of day, the time zone and its minutes are optional, a space may replace the `T` or precede the time
    /// zone, and a signed year may have more digits. A leap second becomes the second before it.
    pub fn parse(text: &str) -> Option<Self> {
        let mut rest = Rest(text.as_bytes());
        let days = rest.days()?;
        let (second_of_day, nanos, offset) = if rest.is_empty() { (0, 0, 0) } else { rest.time()? };
        if !rest.is_empty() {
            return None;
        }
        let local = days * i128::from(DAY) + i128::from(second_of_day);
        Some(Self { seconds: i64::try_from(local).ok()?.checked_sub(offset)?, nanos })
    }
}

/// The unread part of a text.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads the date as days since the Unix epoch.
    fn days(&mut self) -> Option<i128> {
        let year = self.year()?;
        self.expect(b'-')?;
        let month = self.two_digits()?;
        self.expect(b'-')?;
        let day = self.two_digits()?;
        let exists = (1..=12).contains(&month) && (1..=days_in_month(year, month)).contains(&day);
        exists.then(|| days_since_epoch(year, month, day))
    }

    /// Reads `YYYY`, or a sign and a longer year.
    fn year(&mut self) -> Option<i64> {
        let (sign, shortest) = if self.skip(b'+') {
            (1, 5)
        } else if self.skip(b'-') {
            (-1, 4)
        } else {
            return Some(self.two_digits()? * 100 + self.two_digits()?);
        };
        let digits = self.digits();
        if digits.len() < shortest {
            return None;
        }
        let append = |year: i64, digit: &u8| year.checked_mul(10)?.checked_add(i64::from(digit - b'0'));
        Some(sign * digits.iter().try_fold(0, append)?)
    }

    /// Reads the time of day as seconds and nanoseconds, and the offset of its time zone in seconds.
    fn time(&mut self) -> Option<(i64, u32, i64)> {
        if !self.skip(b'T') {
            self.expect(b' ')?;
        }
        let hour = self.two_digits()?;
        self.expect(b':')?;
        let minute = self.two_digits()?;
        self.expect(b':')?;
        let second = match self.two_digits()? {
            60 => 59,
            second => second,
        };
        let nanos = if self.skip(b'.') { self.nanos()? } else { 0 };
        let offset = self.offset()?;
        let exists = hour < 24 && minute < 60 && second < 60;
        exists.then_some((hour * 3_600 + minute * 60 + second, nanos, offset))
    }

    /// Reads the digits of a fraction, and truncates it to nanoseconds.
    fn nanos(&mut self) -> Option<u32> {
        let digits = self.digits();
        if digits.is_empty() {
            return None;
        }
        let digit = |at: usize| digits.get(at).map_or(0, |digit| u32::from(digit - b'0'));
        Some((0..9).fold(0_u32, |nanos, at| nanos * 10 + digit(at)))
    }

    /// Reads the offset of a time zone, in seconds; UTC if there is none.
    fn offset(&mut self) -> Option<i64> {
        if self.is_empty() {
            return Some(0);
        }
        let _ = self.skip(b' ');
        if self.skip(b'Z') {
            return Some(0);
        }
        let sign = if self.skip(b'-') {
            -1
        } else {
            self.expect(b'+')?;
            1
        };
        let hours = self.two_digits()?;
        let minutes = if self.is_empty() {
            0
        } else {
            let _ = self.skip(b':');
            self.two_digits()?
        };
        (hours < 24 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60))
    }

    /// Reads all digits up to another character.
    fn digits(&mut self) -> &'a [u8] {
        let end = self.0.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(self.0.len());
        let (digits, rest) = self.0.split_at(end);
        self.0 = rest;
        digits
    }

    fn two_digits(&mut self) -> Option<i64> {
        let [tens, ones, rest @ ..] = self.0 else { return None };
        if !tens.is_ascii_digit() || !ones.is_ascii_digit() {
            return None;
        }
        self.0 = rest;
        Some(i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.skip(byte).then_some(())
    }

    /// Skips this character in upper or lower case; returns whether it came next.
    fn skip(&mut self, byte: u8) -> bool {
        match self.0.split_first() {
            Some((first, rest)) if first.eq_ignore_ascii_case(&byte) => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> Option<i64> {
        Date::parse(text).map(|date| date.seconds)
    }

    #[test]
    fn date_is_parsed_with_and_without_time() {
        for (text, expected) in [
            ("1970-01-01", 0),
            ("1970-01-02T00:00:00Z", DAY),
            ("1969-12-31t23:59:59z", -1),
            ("2000-02-29 00:00:00", 951_782_400),
            ("1900-01-10", -2_208_211_200),
            ("1996-12-19T16:39:57-08:00", 851_042_397),
            ("1996-12-19T16:39:57-08", 851_042_397),
            ("1996-12-19 16:39:57 -0800", 851_042_397),
            ("1990-12-31T23:59:60Z", 662_687_999),
            ("0000-01-01T00:00:00Z", -62_167_219_200),
            ("-0001-12-31T23:59:59Z", -62_167_219_201),
            ("+10000-01-01", 253_402_300_800),
            ("+292277026596-12-04T15:30:07Z", i64::MAX),
            ("-292277022657-01-27T08:29:52Z", i64::MIN),
        ] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn fraction_is_truncated_to_nanoseconds() {
        for (text, nanos) in [("00.5Z", 500_000_000), ("00.000000001Z", 1), ("00.9999999999Z", 999_999_999)] {
            let date = Date::parse(&format!("1970-01-01T00:01:{text}"));
            assert_eq!(date, Some(Date { seconds: 60, nanos }), "{text}");
        }
    }

    #[test]
    fn invalid_date_is_rejected() {
        for text in [
            "",
            "soon",
            "1970",
            "1970-1-1",
            "1970-00-01",
            "1970-13-01",
            "1970-02-29",
            "1900-02-29",
            "1970-04-31",
            "1970-01-00",
            "1970-01-01T",
            "1970-01-01T00:00Z",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:60:00Z",
            "1970-01-01T00:00:61Z",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00:00+24:00",
            "1970-01-01T00:00:00+00:",
            "1970-01-01T00:00:00Zulu",
            "+1970-01-01",
            "-970-01-01",
            "+292277026596-12-04T15:30:08Z",
            "+99999999999999999999-01-01",
            "１970-01-01",
        ] {
            assert_eq!(Date::parse(text), None, "{text}");
        }
    }
}
