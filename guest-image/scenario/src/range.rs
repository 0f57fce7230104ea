// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory by name: `r`, `r[3]`, `r[0..16]`, `r[1M..2M]`.

use std::fmt::{self, Display, Formatter};

use crate::limits::PAGE;
use crate::quantity::Size;

/// The unit in which a part's bounds were written, for its `Display`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Numbers of pages.
    Pages,
    /// Sizes with a letter.
    Bytes,
}

/// A part of a named range. Bounds are in bytes, multiples of a page, and the part is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// How the text has it.
    pub unit: Unit,
}

impl Part {
    /// Reads what stands in the brackets: a page's number, or two bounds.
    pub fn parse(text: &str) -> Option<Self> {
        let part = match text.split_once("..") {
            None => {
                let (start, unit) = bound(text)?;
                (unit == Unit::Pages).then_some(Self { start, end: start.checked_add(PAGE)?, unit })?
            }
            Some((start, end)) => {
                let ((start, first), (end, last)) = (bound(start)?, bound(end)?);
                // Zero is zero in either unit.
                let unit = if first == Unit::Bytes || last == Unit::Bytes { Unit::Bytes } else { Unit::Pages };
                let agree = |bound: u64, of: Unit| bound == 0 || of == unit;
                (agree(start, first) && agree(end, last)).then_some(Self { start, end, unit })?
            }
        };
        (part.start < part.end && part.start % PAGE == 0 && part.end % PAGE == 0).then_some(part)
    }
}

/// A bound in bytes.
fn bound(text: &str) -> Option<(u64, Unit)> {
    let size = Size::parse(text)?.0;
    if text.ends_with(|last: char| last.is_ascii_digit()) {
        size.checked_mul(PAGE).map(|bytes| (bytes, Unit::Pages))
    } else {
        Some((size, Unit::Bytes))
    }
}

impl Display for Part {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.unit {
            Unit::Pages if self.end - self.start == PAGE => write!(f, "[{}]", self.start / PAGE),
            Unit::Pages => write!(f, "[{}..{}]", self.start / PAGE, self.end / PAGE),
            Unit::Bytes => write!(f, "[{}..{}]", Size(self.start), Size(self.end)),
        }
    }
}

/// A named range, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The name that `map` gave it.
    pub name: String,
    /// Which part; `None` is all of it.
    pub part: Option<Part>,
}

impl Range {
    /// Offset and length in bytes in a range of `size` bytes.
    pub fn within(&self, size: u64) -> (u64, u64) {
        self.part.map_or((0, size), |part| (part.start, part.end - part.start))
    }
}

impl Display for Range {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.part.map_or(Ok(()), |part| part.fmt(f))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_pages_or_bytes() {
        let pages = |start, end| Part { start: start * PAGE, end: end * PAGE, unit: Unit::Pages };
        assert_eq!(Part::parse("3"), Some(pages(3, 4)));
        assert_eq!(Part::parse("0..16"), Some(pages(0, 16)));
        assert_eq!(Part::parse("1M..2M"), Some(Part { start: 1 << 20, end: 2 << 20, unit: Unit::Bytes }));
        assert_eq!(Part::parse("0..2M").map(|part| part.to_string()), Some("[0..2M]".into()));
        for text in ["", "..", "3..3", "4..3", "1K..4K", "1M", "1..2M", "3..", "-1", "18446744073709551615"] {
            assert_eq!(Part::parse(text), None, "{text}");
        }
    }
}
