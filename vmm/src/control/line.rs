// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Lines of limited length.

use std::io::{self, BufRead, Read};

/// Longest line in bytes, with its end.
pub const MAX_LINE: usize = 64 << 10;

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A line, without its end.
    Text(Vec<u8>),
    /// More than `most` bytes, and no end among them.
    TooLong,
    /// The stream has ended; half a line before its end is none.
    End,
}

/// Reads a line of at most `most` bytes.
///
/// # Errors
///
/// Fails if the stream does.
pub fn read_line(stream: &mut impl BufRead, most: usize) -> io::Result<Line> {
    let mut line = Vec::new();
    stream.take(most as u64).read_until(b'\n', &mut line)?;
    Ok(match line.pop() {
        Some(b'\n') => Line::Text(line),
        Some(_) if line.len() + 1 >= most => Line::TooLong,
        _ => Line::End,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(mut bytes: &[u8], most: usize) -> Vec<Line> {
        let mut lines = Vec::new();
        loop {
            let line = read_line(&mut bytes, most).unwrap();
            let is_last = !matches!(line, Line::Text(_));
            lines.push(line);
            if is_last {
                return lines;
            }
        }
    }

    #[test]
    fn lines_end_and_have_a_limit() {
        let text = |text: &str| Line::Text(text.into());
        assert_eq!(lines(b"ab\n\nc", 3), [text("ab"), text(""), Line::End]);
        assert_eq!(lines(b"abc\n", 3), [Line::TooLong]);
        assert_eq!(lines(b"abc\n", 4), [text("abc"), Line::End]);
    }

    proptest! {
        #[test]
        fn no_line_is_longer_than_its_limit(bytes in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200), most in 1_usize..50) {
            for line in lines(&bytes, most) {
                prop_assert!(!matches!(line, Line::Text(line) if line.len() >= most));
            }
        }
    }
}
