// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which tests to run: filters, exclusions and shards, applied to the list of names.

use clap::Args;
use regex::Regex;
use thiserror::Error;

/// Which tests to run, and in which order.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Tests")]
pub struct Selection {
    /// Run only tests that fit one of these: part of a name, a glob over the whole name (`fork.*`), or a regular expression (`/^fork|exec/`)
    #[arg(value_name = "FILTER", value_parser = Filter::parse)]
    filters: Vec<Filter>,
    /// Take filters as whole names
    #[arg(long)]
    exact: bool,
    /// Leave out tests that fit this filter; may be given more than once
    #[arg(long, value_name = "FILTER", value_parser = Filter::parse)]
    exclude: Vec<Filter>,
    /// Run only the Nth of M equal parts of what is selected
    #[arg(long, value_name = "N/M", value_parser = Shard::parse)]
    shard: Option<Shard>,
}

/// Why a text is not a filter or a shard.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SelectionError {
    /// The filter is empty.
    #[error("an empty filter fits every test; leave it out")]
    Empty,
    /// The expression between the slashes has an error.
    #[error("not a regular expression: {0}")]
    Regex(String),
    /// The glob has an error.
    #[error("not a glob: {0}; `*`, `?` and `[...]` have a meaning in it")]
    Glob(String),
    /// The shard is not N/M.
    #[error("not a shard; type 1/4 for the first of four, the last is 4/4")]
    Shard,
    /// Nothing is left to run.
    #[error("{0}; `ersatz test --list` has their names")]
    Nothing(String),
}

/// One filter, as the user typed it and as it is applied.
#[derive(Clone, Debug)]
pub struct Filter {
    text: String,
    pattern: Option<Regex>,
}

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    ///
    /// Fails if it is empty, or a glob or a regular expression with an error.
    pub fn parse(text: &str) -> Result<Self, SelectionError> {
        if text.is_empty() {
            return Err(SelectionError::Empty);
        }
        let between_slashes = text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'));
        let pattern = match between_slashes {
            Some(expression) => {
                Some(Regex::new(expression).map_err(|error| SelectionError::Regex(last_line(&error.to_string())))?)
            }
            None if text.contains(['*', '?', '[']) => Some(glob(text)?),
            None => None,
        };
        Ok(Self { text: text.to_owned(), pattern })
    }

    fn fits(&self, name: &str) -> bool {
        match &self.pattern {
            Some(pattern) => pattern.is_match(name),
            None => name.contains(&self.text),
        }
    }
}

/// Returns the regular expression that means the same as a glob.
fn glob(text: &str) -> Result<Regex, SelectionError> {
    let mut expression = String::from("^");
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        match character {
            '*' => expression.push_str(".*"),
            '?' => expression.push('.'),
            '[' => {
                let class: String = rest.by_ref().take_while(|character| *character != ']').collect();
                let (negation, set) = match class.strip_prefix('!') {
                    Some(set) => ("^", set),
                    None => ("", class.as_str()),
                };
                // A range is the only thing that keeps its meaning between the brackets.
                let set: String = set.chars().map(|c| if c == '-' { "-".to_owned() } else { escaped(c) }).collect();
                expression.push_str(&format!("[{negation}{set}]"));
            }
            other => expression.push_str(&escaped(other)),
        }
    }
    expression.push('$');
    Regex::new(&expression).map_err(|_| SelectionError::Glob(text.to_owned()))
}

fn escaped(character: char) -> String {
    let mut buffer = [0; 4];
    let text: &str = character.encode_utf8(&mut buffer);
    if character == '^' { "\\^".to_owned() } else { regex::escape(text) }
}

/// The line of a message of several that says what is wrong.
fn last_line(message: &str) -> String {
    let line = message.lines().last().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// One of several equal parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    number: usize,
    count: usize,
}

impl Shard {
    /// Reads `N/M`.
    ///
    /// # Errors
    ///
    /// Fails if it is not of that form, or N is not between 1 and M.
    pub fn parse(text: &str) -> Result<Self, SelectionError> {
        let numbers =
            text.split_once('/').and_then(|(number, count)| Some((number.parse().ok()?, count.parse().ok()?)));
        match numbers {
            Some((number, count)) if (1..=count).contains(&number) => Ok(Self { number, count }),
            _ => Err(SelectionError::Shard),
        }
    }
}

impl Selection {
    /// Returns the filters as the user typed them.
    pub fn filters(&self) -> impl Iterator<Item = &str> {
        self.filters.iter().map(|filter| filter.text.as_str())
    }

    /// Returns those of `names` that are selected, in the same order.
    ///
    /// # Errors
    ///
    /// Fails if none is, or a whole name is not one of them.
    pub fn of(&self, names: &[String]) -> Result<Vec<String>, SelectionError> {
        if let Some(unknown) = self.filters.iter().find(|filter| self.exact && !names.contains(&filter.text)) {
            return Err(SelectionError::Nothing(format!("no test is called {}", unknown.text)));
        }
        let fits = |filter: &Filter, name: &str| if self.exact { filter.text == name } else { filter.fits(name) };
        let is_selected = |name: &&String| {
            (self.filters.is_empty() || self.filters.iter().any(|filter| fits(filter, name)))
                && !self.exclude.iter().any(|filter| filter.fits(name))
        };
        let selected: Vec<String> = names.iter().filter(is_selected).cloned().collect();
        if selected.is_empty() {
            let filters: Vec<&str> = self.filters.iter().map(|filter| filter.text.as_str()).collect();
            return Err(SelectionError::Nothing(match filters[..] {
                [] => "all tests are excluded".to_owned(),
                _ if self.exclude.is_empty() => format!("no test fits {}", filters.join(" or ")),
                _ => format!("no test fits {} that is not excluded", filters.join(" or ")),
            }));
        }
        // Every Mth test, not M runs of neighbours: tests of one topic take about as long as each other.
        let Some(Shard { number, count }) = self.shard else { return Ok(selected) };
        Ok(selected.into_iter().skip(number - 1).step_by(count).collect())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use proptest::prelude::*;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        selection: Selection,
    }

    const NAMES: [&str; 5] = ["fork.child_first", "fork.exec", "hold.fork", "ksm.merge", "vram.fill"];

    fn select(words: &[&str]) -> Result<Vec<String>, SelectionError> {
        let line = Line::try_parse_from(std::iter::once(&"test").chain(words)).expect("good options");
        line.selection.of(&NAMES.map(str::to_owned))
    }

    #[test]
    fn filters_are_parts_globs_or_expressions() {
        assert_eq!(select(&[]).unwrap(), NAMES);
        assert_eq!(select(&["fork"]).unwrap(), ["fork.child_first", "fork.exec", "hold.fork"]);
        assert_eq!(select(&["fork.*"]).unwrap(), ["fork.child_first", "fork.exec"]);
        assert_eq!(select(&["[!f]*.f???"]).unwrap(), ["hold.fork", "vram.fill"]);
        assert_eq!(select(&["/^(ksm|vram)/"]).unwrap(), ["ksm.merge", "vram.fill"]);
        assert_eq!(select(&["fork", "--exclude", "/exec$/", "--exclude", "hold*"]).unwrap(), ["fork.child_first"]);
        assert_eq!(select(&["fork.exec", "--exact"]).unwrap(), ["fork.exec"]);
    }

    #[test]
    fn shards_are_parts_that_make_the_whole() {
        let mut all: Vec<String> = ["1/2", "2/2"].iter().flat_map(|part| select(&["--shard", part]).unwrap()).collect();
        all.sort();
        assert_eq!(all, NAMES);
        assert_eq!(select(&["--shard", "9/9"]), Ok(Vec::new()));
        for text in ["", "1", "0/2", "3/2", "1/0", "a/b", "1/2/3"] {
            assert_eq!(Shard::parse(text), Err(SelectionError::Shard), "{text}");
        }
    }

    #[test]
    fn a_selection_of_nothing_is_an_error() {
        assert!(select(&["nothing"]).unwrap_err().to_string().contains("no test fits nothing"));
        assert!(select(&["fork", "--exact"]).unwrap_err().to_string().contains("no test is called fork"));
        assert!(select(&["--exclude", "*"]).unwrap_err().to_string().contains("all tests are excluded"));
        assert!(matches!(Filter::parse("/(/"), Err(SelectionError::Regex(_))));
        assert!(matches!(Filter::parse("a[b-a]"), Err(SelectionError::Glob(_))));
        assert!(matches!(Filter::parse(""), Err(SelectionError::Empty)));
    }

    proptest! {
        #[test]
        fn no_filter_panics(text: String, name: String) {
            if let Ok(filter) = Filter::parse(&text) {
                filter.fits(&name);
            }
        }
    }
}
