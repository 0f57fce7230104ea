// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Time limits as users type them: `90`, `90s`, `5m`, `none`.

use std::time::Duration;

use thiserror::Error;

/// Why a text is not a time limit.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("not a time limit; type a number of seconds (90), minutes (5m), hours (1h), or none")]
pub struct LimitError;

/// A time limit; `None` for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(pub Option<Duration>);

/// Reads a time limit: whole seconds, or with one of the units s, m, h; `none` for no limit.
///
/// # Errors
///
/// Fails if the text is not of that form, or is zero, or over a year.
pub fn parse(text: &str) -> Result<Limit, LimitError> {
    const YEAR: u64 = 365 * 24 * 3600;
    if text == "none" {
        return Ok(Limit(None));
    }
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| LimitError)?;
    let factor = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(LimitError),
    };
    match number.checked_mul(factor) {
        Some(seconds @ 1..=YEAR) => Ok(Limit(Some(Duration::from_secs(seconds)))),
        _ => Err(LimitError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_minutes_hours_and_none() {
        let seconds = |n| Ok(Limit(Some(Duration::from_secs(n))));
        assert_eq!(parse("90"), seconds(90));
        assert_eq!(parse("90s"), seconds(90));
        assert_eq!(parse("5m"), seconds(300));
        assert_eq!(parse("1h"), seconds(3600));
        assert_eq!(parse("none"), Ok(Limit(None)));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "0", "s", "-1", "1.5", "5 m", "1d", "99999999999999999999", "18446744073709551615h"] {
            assert_eq!(parse(text), Err(LimitError), "{text:?}");
        }
    }
}
