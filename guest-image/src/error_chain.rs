// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Printing an error with its causes. The text of an error never contains that of its source, so every message goes through here.

use std::error::Error;
use std::fmt;

/// Displays an error and its causes in one line.
#[derive(Clone, Copy, Debug)]
pub struct ErrorChain<'a>(&'a (dyn Error + 'static));

/// Returns the error and its causes as something to display.
pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> ErrorChain<'a> {
    ErrorChain(error)
}

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |error: &dyn Error| error.to_string().replace('\n', "; ");
        let mut last = line(self.0);
        f.write_str(&last)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            let text = line(error);
            // Errors of other crates may repeat their source.
            if !last.ends_with(&text) {
                write!(f, ": {text}")?;
                last = text;
            }
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot do it")]
    struct Outer(#[source] std::num::ParseIntError);

    #[derive(Debug, thiserror::Error)]
    #[error("failed:\n{0}")]
    struct Repeating(#[source] std::num::ParseIntError);

    #[test]
    fn causes_follow_in_one_line_and_once() {
        let cause = || "x".parse::<u8>().unwrap_err();
        assert_eq!(chain(&cause()).to_string(), "invalid digit found in string");
        assert_eq!(chain(&Outer(cause())).to_string(), "cannot do it: invalid digit found in string");
        assert_eq!(chain(&Repeating(cause())).to_string(), "failed:; invalid digit found in string");
    }
}
