// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Why a text is not a scenario.

use thiserror::Error;

/// Why a text is not a scenario: where, what is wrong, and what could stand there.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{scenario}:{line}: {}{problem}; expected {expected}", quoted(word))]
pub struct ParseError {
    /// The scenario's name.
    pub scenario: String,
    /// The line, from 1.
    pub line: u32,
    /// The word that is wrong; `None` if one is missing.
    pub word: Option<String>,
    /// What is wrong.
    pub problem: String,
    /// What could stand there.
    pub expected: String,
}

fn quoted(word: &Option<String>) -> String {
    word.as_ref().map(|word| format!("{word:?}: ")).unwrap_or_default()
}

/// A [`ParseError`] of a scenario whose name the place does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) line: u32,
    pub(super) word: Option<String>,
    pub(super) problem: String,
    pub(super) expected: String,
}

impl Trouble {
    /// Something about a line that is no single word of it.
    pub(super) fn whole(line: u32, problem: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { line, word: None, problem: problem.into(), expected: expected.into() }
    }

    /// Something about a word.
    pub(super) fn word(line: u32, word: &str, problem: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { word: Some(shortened(word)), ..Self::whole(line, problem, expected) }
    }
}

/// A word as far as an error shows it: a file that is no text may have words without end.
fn shortened(word: &str) -> String {
    const MOST: usize = 60;
    match word.char_indices().nth(MOST) {
        None => word.to_owned(),
        Some((end, _)) => format!("{}…", &word[..end]),
    }
}

impl ParseError {
    pub(super) fn new(scenario: &str, trouble: Trouble) -> Self {
        let Trouble { line, word, problem, expected } = trouble;
        Self { scenario: scenario.to_owned(), line, word, problem, expected }
    }
}
