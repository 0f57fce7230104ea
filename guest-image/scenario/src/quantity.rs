// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Sizes (`4K`, `2M`, `1G`) and times (`5ms`, `4s`) as texts.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

const UNITS: [(char, u32); 3] = [('G', 30), ('M', 20), ('K', 10)];

/// A number of bytes, shown in the largest unit that divides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl Size {
    /// Reads a number with an optional unit K, M or G. `None` if the text is something else, or too much for 64 bits.
    pub fn parse(text: &str) -> Option<Self> {
        let unit = UNITS.into_iter().find(|&(letter, _)| text.ends_with(letter));
        let (digits, shift) = unit.map_or((text, 0), |(_, shift)| (&text[..text.len() - 1], shift));
        number(digits)?.checked_mul(1 << shift).map(Self)
    }
}

impl Display for Size {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match UNITS.into_iter().find(|&(_, shift)| self.0 != 0 && self.0 % (1 << shift) == 0) {
            Some((letter, shift)) => write!(f, "{}{letter}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A time, shown in whole microseconds, milliseconds or seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Duration);

impl Time {
    /// Reads a number with the unit us, ms or s.
    pub fn parse(text: &str) -> Option<Self> {
        let (digits, microseconds) = if let Some(digits) = text.strip_suffix("us") {
            (digits, 1)
        } else if let Some(digits) = text.strip_suffix("ms") {
            (digits, 1_000)
        } else {
            (text.strip_suffix('s')?, 1_000_000)
        };
        number(digits)?.checked_mul(microseconds).map(|time| Self(Duration::from_micros(time)))
    }
}

impl Display for Time {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0.as_micros() {
            time if time % 1_000_000 == 0 => write!(f, "{}s", time / 1_000_000),
            time if time % 1_000 == 0 => write!(f, "{}ms", time / 1_000),
            time => write!(f, "{time}us"),
        }
    }
}

/// Reads a decimal number: digits alone, without a sign.
pub fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Reads a byte, decimal or as `0x` and hexadecimal digits.
pub fn byte(text: &str) -> Option<u8> {
    match text.strip_prefix("0x") {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => u8::from_str_radix(digits, 16).ok(),
        Some(_) => None,
        None => number(text)?.try_into().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_they_are_shown() {
        for (text, bytes) in [("0", 0), ("5", 5), ("4K", 4096), ("2M", 2 << 20), ("1G", 1 << 30), ("1025K", 1025 << 10)]
        {
            assert_eq!(Size::parse(text), Some(Size(bytes)), "{text}");
            assert_eq!(Size(bytes).to_string(), text);
        }
        for text in ["", "K", "-1", "+1", "1k", "1.5M", "99999999999G", "18446744073709551616", "1é"] {
            assert_eq!(Size::parse(text), None, "{text}");
        }
    }

    #[test]
    fn times_are_read_as_they_are_shown() {
        for (text, microseconds) in [("7us", 7), ("5ms", 5_000), ("4s", 4_000_000), ("0s", 0)] {
            let time = Time(Duration::from_micros(microseconds));
            assert_eq!(Time::parse(text), Some(time), "{text}");
            assert_eq!(time.to_string(), text);
        }
        for text in ["", "s", "5", "5m", "-5ms", "99999999999999s"] {
            assert_eq!(Time::parse(text), None, "{text}");
        }
    }

    #[test]
    fn bytes_are_decimal_or_hexadecimal() {
        assert_eq!((byte("7"), byte("0xa5"), byte("255")), (Some(7), Some(0xa5), Some(255)));
        assert_eq!((byte("256"), byte("0x"), byte("0x+1"), byte("seven")), (None, None, None, None));
    }
}
