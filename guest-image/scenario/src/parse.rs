// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reads the text of a scenario.
//!
//! The text is lines of words: first headers, then the blocks `setup`, `thread NAME` and `finally`, each followed by its steps. What
//! stands behind a `#` is comment. `words` takes lines apart, `header` and `step` read one line each, and `check` looks at what only the
//! whole can tell: whether names are those of something.

mod check;
mod error;
mod header;
mod step;
mod verbs;
mod words;

use crate::limits;
use crate::scenario::{FINALLY, Process, SETUP, Scenario, Step, Thread};

pub use error::ParseError;
use error::Trouble;
pub use verbs::{VERBS, Verb};
use words::Words;

/// Reads a scenario. `name` is what errors and reports call it.
///
/// # Errors
///
/// At the first line that is not as it must be.
pub fn parse(name: &str, text: &str) -> Result<Scenario, ParseError> {
    read(name, text).map_err(|trouble| ParseError::new(name, trouble))
}

/// The block that steps belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    Headers,
    Setup,
    Thread,
    Finally,
}

fn read(name: &str, text: &str) -> Result<Scenario, Trouble> {
    if text.len() > limits::TEXT_BYTES {
        let problem = format!("the text has {} bytes", text.len());
        return Err(Trouble::whole(1, problem, format!("at most {} bytes", limits::TEXT_BYTES)));
    }
    let mut scenario = Scenario { name: name.to_owned(), title: title(text), ..Scenario::default() };
    let mut block = Block::Headers;
    for (line, number) in text.lines().zip(1..) {
        let mut words = Words::of(line, number);
        if !words.is_empty() {
            block = read_line(&mut scenario, block, &mut words)?;
        }
    }
    check::check(&scenario)?;
    Ok(scenario)
}

/// The first line, if it is a comment.
fn title(text: &str) -> String {
    let first = text.lines().next().unwrap_or_default().trim();
    first.strip_prefix('#').map(|title| title.trim_start_matches('#').trim().to_owned()).unwrap_or_default()
}

/// Reads a line that is not empty; returns the block that the next one is in.
fn read_line(scenario: &mut Scenario, block: Block, words: &mut Words<'_>) -> Result<Block, Trouble> {
    let next = match words.first() {
        SETUP if block == Block::Headers => Block::Setup,
        SETUP => return Err(words.trouble("setup stands before all threads, and once", "thread NAME, or finally")),
        FINALLY if block != Block::Finally => Block::Finally,
        FINALLY => return Err(words.trouble("there is one finally", "a step")),
        "thread" if block != Block::Finally => {
            let thread = thread(words, scenario.threads.len())?;
            scenario.threads.push(thread);
            return Ok(Block::Thread);
        }
        "thread" => return Err(words.trouble("finally is the last block", "a step")),
        _ => return read_in_block(scenario, block, words).map(|()| block),
    };
    words.skip();
    words.end()?;
    Ok(next)
}

fn read_in_block(scenario: &mut Scenario, block: Block, words: &mut Words<'_>) -> Result<(), Trouble> {
    let steps = match block {
        Block::Headers => return header::read(scenario, words),
        Block::Setup => &mut scenario.setup,
        Block::Finally => &mut scenario.finally,
        Block::Thread => match scenario.threads.last_mut() {
            Some(thread) => &mut thread.steps,
            None => return Err(words.trouble("no thread has begun", "thread NAME")),
        },
    };
    if steps.len() >= limits::STEPS {
        return Err(words.trouble("the block has too many steps", format!("at most {}", limits::STEPS)));
    }
    let step: Step = step::read(words)?;
    steps.push(step);
    Ok(())
}

fn thread(words: &mut Words<'_>, before: usize) -> Result<Thread, Trouble> {
    if before >= limits::THREADS {
        return Err(words.trouble("there are too many threads", format!("at most {}", limits::THREADS)));
    }
    words.skip();
    let name = words.name("a thread's name")?;
    if name == SETUP || name == FINALLY {
        return Err(words.trouble_before("that is the name of a block", "another name"));
    }
    let mut thread = Thread { name, cpu: None, process: Process::First, steps: Vec::new() };
    while let Some(word) = words.next() {
        match word.split_once('=') {
            None if word == "of" => thread.process = Process::Child(words.name("the name of a forked process")?),
            Some(("cpu", _)) => {
                thread.cpu = Some(words.value(word, "the number of a CPU, 0 to 63", |&cpu: &u8| cpu < 64)?)
            }
            _ => return Err(words.trouble_before("a thread has no such property", "of CHILD, cpu=N, or nothing more")),
        }
    }
    Ok(thread)
}

#[cfg(test)]
mod tests;
