// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How figures are written for people.

/// The binary units behind the byte, each 1024 times the one before.
const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// A count, in groups of three digits.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// An amount of memory, with the largest unit it fills; a decimal unless it is a whole number of them.
pub fn bytes(number: u64) -> String {
    if number < 1024 {
        return format!("{number} B");
    }
    let unit = (number.ilog2() / 10 - 1) as usize;
    let shift = 10 * (unit as u32 + 1);
    if number % (1 << shift) == 0 {
        format!("{} {}", number >> shift, UNITS[unit])
    } else {
        format!("{:.1} {}", number as f64 / (1u64 << shift) as f64, UNITS[unit])
    }
}

/// A time in nanoseconds, to three or four digits.
pub fn duration(nanoseconds: u64) -> String {
    match nanoseconds {
        0..1_000 => format!("{nanoseconds} ns"),
        1_000..1_000_000 => format!("{:.1} us", nanoseconds as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", nanoseconds as f64 / 1e6),
        _ => format!("{:.2} s", nanoseconds as f64 / 1e9),
    }
}

/// Bytes a second; `None` if no time passed.
pub fn bytes_per_second(bytes: u64, nanoseconds: u64) -> Option<f64> {
    (nanoseconds > 0).then(|| bytes as f64 * 1e9 / nanoseconds as f64)
}

/// A rate of bytes over a time, in MiB a second; a dash if no time passed.
pub fn rate(bytes: u64, nanoseconds: u64) -> String {
    bytes_per_second(bytes, nanoseconds)
        .map_or_else(|| "-".to_owned(), |rate| format!("{:.1} MiB/s", rate / f64::from(1u32 << 20)))
}

/// A time in seconds with all nine decimals.
pub fn seconds(nanoseconds: u64) -> String {
    format!("{}.{:09}", nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000)
}

/// `1 thing`, `2 things`.
pub fn counted(number: u64, thing: &str) -> String {
    format!("{} {thing}{}", count(number), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn figures_read_well() {
        assert_eq!(["0", "999", "1,000", "1,234,567"], [0, 999, 1000, 1_234_567].map(count).as_slice());
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(4096), "4 KiB");
        assert_eq!(bytes(4096 + 512), "4.5 KiB");
        assert_eq!(bytes(48 << 20), "48 MiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(duration(999), "999 ns");
        assert_eq!(duration(1_500), "1.5 us");
        assert_eq!(duration(12_345_678), "12.3 ms");
        assert_eq!(duration(61_000_000_000), "61.00 s");
        assert_eq!(rate(1 << 20, 500_000_000), "2.0 MiB/s");
        assert_eq!(rate(1 << 20, 0), "-");
        assert_eq!(seconds(1_000_000_002), "1.000000002");
        assert_eq!(counted(1, "event"), "1 event");
        assert_eq!(counted(1500, "event"), "1,500 events");
    }

    proptest! {
        #[test]
        fn every_number_has_a_text(number: u64, other: u64) {
            prop_assert_eq!(count(number).replace(',', ""), number.to_string());
            bytes(number);
            duration(number);
            rate(number, other);
        }
    }
}
