// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Sizes in bytes as people type them: `16G`, `256M`, `4096`.

use thiserror::Error;

/// Why a text is not a size.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SizeError {
    /// No digits in front, or something else than a unit behind them.
    #[error("not a number with one of the units K, M, G, T; type for example 256M or 16G")]
    Syntax,
    /// The number of bytes does not fit in 64 bits.
    #[error("more bytes than 64 bits can count; the largest size is 16777215T")]
    TooLarge,
}

/// The units, largest first, with their base-2 logarithm.
const UNITS: [(char, u32); 4] = [('T', 40), ('G', 30), ('M', 20), ('K', 10)];

/// Reads a size: digits, then nothing (bytes) or one of K, M, G, T (powers of 1024, either case, `iB` and `B` allowed).
///
/// # Errors
///
/// If the text is not of that form, or means more than 64 bits can hold.
pub fn parse(text: &str) -> Result<u64, SizeError> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(SizeError::Syntax);
    }
    let number: u64 = number.parse().map_err(|_| SizeError::TooLarge)?;
    let shift = match unit.trim_end_matches("iB").trim_end_matches('B').to_ascii_uppercase().as_str() {
        "" if unit.is_empty() || unit == "B" => 0,
        letter => UNITS.iter().find(|(c, _)| letter == c.to_string()).ok_or(SizeError::Syntax)?.1,
    };
    number.checked_mul(1 << shift).ok_or(SizeError::TooLarge)
}

/// Writes a size with the largest unit that divides it.
pub fn format(bytes: u64) -> String {
    for (unit, shift) in UNITS {
        if bytes != 0 && bytes % (1 << shift) == 0 {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_are_powers_of_1024() {
        assert_eq!(parse("0"), Ok(0));
        assert_eq!(parse("4096"), Ok(4096));
        assert_eq!(parse("4096B"), Ok(4096));
        assert_eq!(parse("3k"), Ok(3072));
        assert_eq!(parse("256M"), Ok(256 << 20));
        assert_eq!(parse("16GiB"), Ok(16 << 30));
        assert_eq!(parse("1TB"), Ok(1 << 40));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "G", "-1G", "1.5G", "1 G", "16X", "16GG", "16iB", "0x10", "1Gi"] {
            assert_eq!(parse(text), Err(SizeError::Syntax), "{text:?}");
        }
    }

    #[test]
    fn overflow_is_refused() {
        assert_eq!(parse("16777216T"), Err(SizeError::TooLarge));
        assert_eq!(parse("18446744073709551616"), Err(SizeError::TooLarge));
        assert_eq!(parse("16777215T"), Ok(16_777_215 << 40));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bytes: u64) {
            prop_assert_eq!(parse(&format(bytes)), Ok(bytes));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = parse(&text);
        }
    }
}
