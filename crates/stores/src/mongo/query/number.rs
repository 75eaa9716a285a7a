//! Numbers of all BSON types, compared by exact value (manual: "Numeric Types").

use std::cmp::{Ordering, Reverse};

use super::value::Value;
use crate::mongo::extjson::Kind;

/// A number.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Integer(i64),
    Double(f64),
    /// The bits of an IEEE 754 decimal in the binary integer encoding.
    Decimal(u128),
}

impl Number {
    /// Reads a value; `None` if it is not a number.
    pub(super) fn of(value: Value<'_>) -> Option<Self> {
        Some(match value.kind {
            Kind::Int32 => Self::Integer(i32::from_le_bytes(value.fixed()).into()),
            Kind::Int64 => Self::Integer(i64::from_le_bytes(value.fixed())),
            Kind::Double => Self::Double(f64::from_le_bytes(value.fixed())),
            Kind::Decimal128 => Self::Decimal(u128::from_le_bytes(value.fixed())),
            _ => return None,
        })
    }

    pub(super) fn is_nan(self) -> bool {
        match self {
            Self::Integer(_) => false,
            Self::Double(number) => number.is_nan(),
            Self::Decimal(bits) => matches!(Decimal::of(bits), Decimal::NaN),
        }
    }

    /// Compares by value; `NaN` equals `NaN` and is less than every other number.
    pub(super) fn compare(self, other: Self) -> Ordering {
        let order = match (self, other) {
            (Self::Integer(left), Self::Integer(right)) => Some(left.cmp(&right)),
            (Self::Double(left), Self::Double(right)) => left.partial_cmp(&right),
            _ => None,
        };
        order.unwrap_or_else(|| self.exact().cmp(&other.exact()))
    }

    /// The integral part, if it has 64 bits.
    pub(super) fn truncated(self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(number),
            // The lower bound is -2^63, the upper bound 2^63, and both are exact.
            Self::Double(number) => (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0)
                .contains(&number)
                .then_some(number.trunc() as i64),
            Self::Decimal(bits) => {
                let Decimal::Finite { negative, coefficient, exponent } = Decimal::of(bits) else { return None };
                let power = 10_u128.checked_pow(exponent.unsigned_abs());
                let whole = match power {
                    _ if coefficient == 0 => 0,
                    Some(power) if exponent >= 0 => coefficient.checked_mul(power)?,
                    None if exponent >= 0 => return None,
                    Some(power) => coefficient / power,
                    None => 0,
                };
                let whole = i128::try_from(whole).ok()?;
                i64::try_from(if negative { -whole } else { whole }).ok()
            }
        }
    }

    /// The value, if it is an integer of 64 bits.
    pub(super) fn integer(self) -> Option<i64> {
        self.truncated().filter(|whole| self.compare(Self::Integer(*whole)).is_eq())
    }

    fn exact(self) -> Exact {
        match self {
            Self::Integer(number) => Exact::finite(number < 0, &number.unsigned_abs().to_string(), 0),
            Self::Double(number) if number.is_nan() => Exact::NaN,
            Self::Double(number) if number.is_infinite() => Exact::infinite(number < 0.0),
            Self::Double(number) => {
                // A double has up to 767 significant decimal digits.
                let text = format!("{:.766e}", number.abs());
                let (digits, exponent) = text.split_once('e').unwrap_or((text.as_str(), "0"));
                let digits = digits.replace('.', "");
                let exponent: i32 = exponent.parse().unwrap_or_default();
                Exact::finite(number < 0.0, &digits, exponent - 766)
            }
            Self::Decimal(bits) => match Decimal::of(bits) {
                Decimal::NaN => Exact::NaN,
                Decimal::Infinite { negative } => Exact::infinite(negative),
                Decimal::Finite { negative, coefficient, exponent } => {
                    Exact::finite(negative, &coefficient.to_string(), exponent)
                }
            },
        }
    }
}

/// A decoded decimal.
#[derive(Clone, Copy, Debug)]
enum Decimal {
    NaN,
    Infinite { negative: bool },
    Finite { negative: bool, coefficient: u128, exponent: i32 },
}

impl Decimal {
    /// Decodes the bits (IEEE 754-2008, 3.5.2).
    fn of(bits: u128) -> Self {
        const MAX_COEFFICIENT: u128 = 10_u128.pow(34) - 1;
        let negative = bits >> 127 == 1;
        if (bits >> 123) & 0b1111 == 0b1111 {
            return if (bits >> 122) & 1 == 1 { Self::NaN } else { Self::Infinite { negative } };
        }
        // Coefficients of more than 34 digits are not canonical and count as zero. All of the large form have more.
        let is_large = (bits >> 125) & 0b11 == 0b11;
        let coefficient = bits & ((1 << 113) - 1);
        if is_large || coefficient > MAX_COEFFICIENT {
            return Self::Finite { negative, coefficient: 0, exponent: 0 };
        }
        let exponent = i32::try_from((bits >> 113) & 0x3FFF).unwrap_or_default() - 6176;
        Self::Finite { negative, coefficient, exponent }
    }
}

/// An exact value. The order of the variants is the order of the values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Exact {
    NaN,
    NegativeInfinity,
    Negative(Reverse<Magnitude>),
    Zero,
    Positive(Magnitude),
    Infinity,
}

/// `0.digits × 10^point`, without leading and trailing zeros in the digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Magnitude {
    point: i32,
    digits: String,
}

impl Exact {
    fn infinite(negative: bool) -> Self {
        if negative { Self::NegativeInfinity } else { Self::Infinity }
    }

    /// `digits × 10^exponent`
    fn finite(negative: bool, digits: &str, exponent: i32) -> Self {
        let digits = digits.trim_start_matches('0');
        if digits.is_empty() {
            return Self::Zero;
        }
        let point = i32::try_from(digits.len()).unwrap_or_default() + exponent;
        let magnitude = Magnitude { point, digits: digits.trim_end_matches('0').to_owned() };
        if negative { Self::Negative(Reverse(magnitude)) } else { Self::Positive(magnitude) }
    }
}
