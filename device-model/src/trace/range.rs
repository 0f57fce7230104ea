// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Ranges, and how they are typed: of addresses (`0x1000..0x3000`, `0x1000+8K`, `0x1000`) and of times (`1.5ms..2s`).

use thiserror::Error;

use crate::size;

/// Why a text is not a range.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RangeError {
    /// Not a range of addresses.
    #[error(
        "not a range of addresses; type FIRST..END, FIRST+SIZE or one address, for example 0x1000..0x3000 or 0x1000+8K"
    )]
    Address,
    /// Not a range of times.
    #[error(
        "not a range of times; type FROM..TO with units s, ms, us or ns, either end may be left out: 1.5ms..2s or 3s.."
    )]
    Time,
    /// Nothing can lie in it.
    #[error("the range is empty: its end must lie behind its start")]
    Empty,
}

/// A range of numbers, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

impl Range {
    /// Every number.
    pub const ALL: Self = Self { first: 0, last: u64::MAX };

    /// One number.
    pub const fn point(number: u64) -> Self {
        Self { first: number, last: number }
    }

    /// The `length` numbers from `first` on, cut off at the last number there is; a length of zero counts as one.
    pub const fn with_length(first: u64, length: u64) -> Self {
        Self { first, last: first.saturating_add(length.saturating_sub(1)) }
    }

    /// Whether the number lies in the range.
    pub const fn contains(self, number: u64) -> bool {
        self.first <= number && number <= self.last
    }

    /// Whether any number lies in both ranges.
    pub const fn overlaps(self, other: Self) -> bool {
        other.first <= self.last && self.first <= other.last
    }

    /// Reads a range of addresses: `FIRST..END` (END not included), `FIRST+SIZE`, or one address; hexadecimal with `0x`, else
    /// decimal.
    ///
    /// # Errors
    ///
    /// [`RangeError::Address`] or [`RangeError::Empty`].
    pub fn of_addresses(text: &str) -> Result<Self, RangeError> {
        if let Some((first, end)) = text.split_once("..") {
            return Self::until(address(first)?, address(end)?);
        }
        if let Some((first, length)) = text.split_once('+') {
            let (first, length) = (address(first)?, size::parse(length).map_err(|_| RangeError::Address)?);
            let more = length.checked_sub(1).ok_or(RangeError::Empty)?;
            return Ok(Self { first, last: first.checked_add(more).ok_or(RangeError::Address)? });
        }
        address(text).map(Self::point)
    }

    /// Reads a range of times, in nanoseconds: `FROM..TO` (TO not included), either end may be left out.
    ///
    /// # Errors
    ///
    /// [`RangeError::Time`] or [`RangeError::Empty`].
    pub fn of_times(text: &str) -> Result<Self, RangeError> {
        let (from, to) = text.split_once("..").ok_or(RangeError::Time)?;
        if from.is_empty() && to.is_empty() {
            return Err(RangeError::Time);
        }
        let first = if from.is_empty() { 0 } else { time(from)? };
        if to.is_empty() { Ok(Self { first, last: u64::MAX }) } else { Self::until(first, time(to)?) }
    }

    /// Writes a range of addresses so that [`Self::of_addresses`] reads it.
    pub fn to_addresses(self) -> String {
        match self.last.checked_add(1) {
            Some(end) => format!("{:#x}..{end:#x}", self.first),
            None => format!("{:#x}+{}", self.first, (self.last - self.first).saturating_add(1)),
        }
    }

    /// Writes a range of times so that [`Self::of_times`] reads it.
    pub fn to_times(self) -> String {
        match self.last.checked_add(1) {
            Some(end) => format!("{}ns..{end}ns", self.first),
            None => format!("{}ns..", self.first),
        }
    }

    fn until(first: u64, end: u64) -> Result<Self, RangeError> {
        match end.checked_sub(1) {
            Some(last) if first <= last => Ok(Self { first, last }),
            _ => Err(RangeError::Empty),
        }
    }
}

fn address(text: &str) -> Result<u64, RangeError> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) if digits.starts_with(|c: char| c.is_ascii_hexdigit()) => u64::from_str_radix(digits, 16),
        Some(_) => return Err(RangeError::Address),
        None if text.starts_with(|c: char| c.is_ascii_digit()) => text.parse(),
        None => return Err(RangeError::Address),
    };
    parsed.map_err(|_| RangeError::Address)
}

/// Reads a time: digits, perhaps a point and more digits, and a unit. Exact to the nanosecond.
fn time(text: &str) -> Result<u64, RangeError> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let digits: u32 = match unit {
        "s" => 9,
        "ms" => 6,
        "us" => 3,
        "ns" => 0,
        // Zero is zero in any unit.
        "" if number == "0" => 0,
        _ => return Err(RangeError::Time),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) || number.ends_with('.') {
        return Err(RangeError::Time);
    }
    let nanoseconds = whole.parse::<u64>().ok().and_then(|whole| whole.checked_mul(10u64.pow(digits)));
    // What is finer than a nanosecond is dropped.
    let fraction = &fraction[..fraction.len().min(digits as usize)];
    let scale = 10u64.pow(digits - fraction.len() as u32);
    let fraction = if fraction.is_empty() { 0 } else { fraction.parse::<u64>().map_err(|_| RangeError::Time)? * scale };
    nanoseconds.and_then(|whole| whole.checked_add(fraction)).ok_or(RangeError::Time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn address_ranges() {
        let range = |first, last| Ok(Range { first, last });
        assert_eq!(Range::of_addresses("0x1000..0x3000"), range(0x1000, 0x2fff));
        assert_eq!(Range::of_addresses("0x1000+8K"), range(0x1000, 0x2fff));
        assert_eq!(Range::of_addresses("4096"), range(4096, 4096));
        assert_eq!(Range::of_addresses("0xffffffffffffffff+1"), range(u64::MAX, u64::MAX));
        assert_eq!(Range::of_addresses("2..2"), Err(RangeError::Empty));
        assert_eq!(Range::of_addresses("3..2"), Err(RangeError::Empty));
        assert_eq!(Range::of_addresses("3+0"), Err(RangeError::Empty));
        for text in ["", "x", "0x", "0x+1", "+1", "1..", "..1", "-1", "0x1..y", "1+1X", "0xffffffffffffffff+2", "0x1_0"]
        {
            assert_eq!(Range::of_addresses(text), Err(RangeError::Address), "{text:?}");
        }
    }

    #[test]
    fn time_ranges() {
        let range = |first, last| Ok(Range { first, last });
        assert_eq!(Range::of_times("1.5ms..2s"), range(1_500_000, 1_999_999_999));
        assert_eq!(Range::of_times("0..1us"), range(0, 999));
        assert_eq!(Range::of_times("..1us"), range(0, 999));
        assert_eq!(Range::of_times("3s.."), range(3_000_000_000, u64::MAX));
        assert_eq!(Range::of_times("0.0000000019s..2ns"), range(1, 1));
        assert_eq!(Range::of_times("2s..1s"), Err(RangeError::Empty));
        for text in [
            "",
            "..",
            "1..2",
            "1s",
            "s..",
            "1.s..2s",
            ".5s..2s",
            "1m..",
            "-1s..",
            "1e3s..",
            "99999999999s..",
            "1.2.3s..",
        ] {
            assert_eq!(Range::of_times(text), Err(RangeError::Time), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String, digits in "[0-9.smunx+]{0,24}") {
            for text in [text, digits] {
                let _ = (Range::of_addresses(&text), Range::of_times(&text));
            }
        }

        #[test]
        fn what_is_written_is_read(first: u64, length in 1u64.., near_the_end: bool) {
            let first = if near_the_end { u64::MAX - first % 4 } else { first };
            let range = Range::with_length(first, length);
            // A text has no length for all numbers there are.
            if range != Range::ALL {
                prop_assert_eq!(Range::of_addresses(&range.to_addresses()), Ok(range));
            }
            prop_assert_eq!(Range::of_times(&range.to_times()), Ok(range));
        }

        #[test]
        fn touching_is_symmetric(first: u64, second: u64, length in 1u64..1 << 40, other in 1u64..1 << 40) {
            let (one, another) = (Range::with_length(first, length), Range::with_length(second, other));
            prop_assert_eq!(one.overlaps(another), another.overlaps(one));
            prop_assert_eq!(one.overlaps(Range::point(second)), one.contains(second));
        }
    }
}
