// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The words of a line, taken one after the other.

use std::str::FromStr;

use super::error::Trouble;
use crate::limits;
use crate::range::{Part, Range};

/// The words of a line.
#[derive(Debug)]
pub(super) struct Words<'a> {
    line: u32,
    words: Vec<&'a str>,
    taken: usize,
}

impl<'a> Words<'a> {
    /// Takes a line apart; `#` begins a comment.
    pub(super) fn of(line: &'a str, number: u32) -> Self {
        let text = line.split_once('#').map_or(line, |(text, _)| text);
        Self { line: number, words: text.split_whitespace().collect(), taken: 0 }
    }

    /// The number of the line.
    pub(super) fn line(&self) -> u32 {
        self.line
    }

    /// Whether the line has no words.
    pub(super) fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The first word of a line that has some.
    pub(super) fn first(&self) -> &'a str {
        self.words.first().copied().unwrap_or_default()
    }

    /// Takes a word that is known.
    pub(super) fn skip(&mut self) {
        self.taken += 1;
    }

    /// Takes the next word, if there is one.
    pub(super) fn next(&mut self) -> Option<&'a str> {
        let word = self.words.get(self.taken).copied();
        self.taken += usize::from(word.is_some());
        word
    }

    /// Takes the next word if it is this one.
    pub(super) fn take(&mut self, word: &str) -> bool {
        let is_next = self.words.get(self.taken) == Some(&word);
        self.taken += usize::from(is_next);
        is_next
    }

    /// Takes the next word, which must be there.
    pub(super) fn word(&mut self, expected: impl Into<String>) -> Result<&'a str, Trouble> {
        match self.next() {
            Some(word) => Ok(word),
            None => Err(Trouble::whole(self.line, "the line ends too early", expected)),
        }
    }

    /// Fails if there are more words.
    pub(super) fn end(&self) -> Result<(), Trouble> {
        match self.words.get(self.taken) {
            None => Ok(()),
            Some(word) => Err(Trouble::word(self.line, word, "the line goes on", "the end of the line")),
        }
    }

    /// Something is wrong with the next word, or, behind the last one, with the line.
    pub(super) fn trouble(&self, problem: impl Into<String>, expected: impl Into<String>) -> Trouble {
        match self.words.get(self.taken) {
            Some(word) => Trouble::word(self.line, word, problem, expected),
            None => Trouble::whole(self.line, problem, expected),
        }
    }

    /// Something is wrong with the word that was taken last.
    pub(super) fn trouble_before(&self, problem: impl Into<String>, expected: impl Into<String>) -> Trouble {
        let last = self.taken.checked_sub(1).and_then(|index| self.words.get(index)).copied().unwrap_or_default();
        Trouble::word(self.line, last, problem, expected)
    }

    /// Takes a word that `read` makes something of.
    pub(super) fn read<T>(
        &mut self,
        expected: impl Into<String>,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<T, Trouble> {
        let expected = expected.into();
        let word = self.word(expected.clone())?;
        read(word).ok_or_else(|| self.trouble_before("that is something else", expected))
    }

    /// Takes one of some names.
    pub(super) fn one_of<T: FromStr>(&mut self, names: &[&str]) -> Result<T, Trouble> {
        self.read(names.join(", "), |word| word.parse().ok())
    }

    /// The value of `key=value`, the word that was taken last.
    pub(super) fn value<T: FromStr>(
        &self,
        word: &str,
        expected: &str,
        fits: impl FnOnce(&T) -> bool,
    ) -> Result<T, Trouble> {
        let value = word.split_once('=').and_then(|(_, value)| value.parse().ok()).filter(fits);
        value.ok_or_else(|| self.trouble_before("the value does not fit", expected))
    }

    /// Takes a name: a lower-case letter, then letters, digits, `-` and `_`.
    pub(super) fn name(&mut self, what: &str) -> Result<String, Trouble> {
        let expected =
            format!("{what}: a lower-case letter, then letters, digits, - or _, {} at most", limits::NAME_BYTES);
        self.read(expected, |word| is_name(word).then(|| word.to_owned()))
    }

    /// Takes a range.
    pub(super) fn range(&mut self) -> Result<Range, Trouble> {
        self.read("a range: NAME, NAME[PAGE], NAME[PAGE..PAGE] or NAME[SIZE..SIZE]", range)
    }

    /// Takes all words that are left.
    pub(super) fn rest(&mut self) -> Vec<String> {
        let rest = self.words[self.taken.min(self.words.len())..].iter().map(|&word| word.to_owned()).collect();
        self.taken = self.words.len();
        rest
    }
}

/// Whether a word can be a name.
fn is_name(word: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    word.len() <= limits::NAME_BYTES && word.starts_with(|c: char| c.is_ascii_lowercase()) && word.bytes().all(is_part)
}

/// Reads a range.
pub(super) fn range(word: &str) -> Option<Range> {
    let (name, part) = match word.split_once('[') {
        None => (word, None),
        Some((name, rest)) => (name, Some(Part::parse(rest.strip_suffix(']')?)?)),
    };
    is_name(name).then(|| Range { name: name.to_owned(), part })
}
