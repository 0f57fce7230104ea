// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A cell of the matrix: one state, one call, and the scenario that they make.

use std::fmt::Write;

use ersatz_uapi::MemoryType;

use super::call::{CALLS, Call};
use super::known::{self, Known};
use super::state::{STATES, Size, State};

/// The pattern of all names.
const ALL: &str = "*";

/// A cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The row: what memory is.
    pub state: &'static State,
    /// The column: what is done to it.
    pub call: &'static Call,
    /// How VRAM is registered.
    pub memory: MemoryType,
}

/// States and calls by their names, `STATE,.../CALL,...`; `*` is all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The states, in the order of the table.
    pub states: Vec<&'static State>,
    /// The calls, in the order of the table.
    pub calls: Vec<&'static Call>,
}

impl Slice {
    /// Reads a slice.
    ///
    /// # Errors
    ///
    /// Fails with a message if a part is missing, or a name is not that of a state or call.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (states, calls) =
            text.split_once('/').ok_or("a slice is STATES/CALLS, as in huge,split/munmap or */fork")?;
        let state = |name: &str| STATES.iter().position(|state| state.name == name);
        let call = |name: &str| CALLS.iter().position(|call| call.name == name);
        let states = positions(states, STATES.len(), &state)
            .map_err(|name| unknown("state", name, names(STATES, |state| state.name)))?;
        let calls = positions(calls, CALLS.len(), &call)
            .map_err(|name| unknown("call", name, names(CALLS, |call| call.name)))?;
        let states = STATES.iter().enumerate().filter(|(index, _)| states.contains(index));
        let calls = CALLS.iter().enumerate().filter(|(index, _)| calls.contains(index));
        Ok(Self { states: states.map(|(_, state)| state).collect(), calls: calls.map(|(_, call)| call).collect() })
    }

    /// The cells of a memory type that make sense, state by state.
    pub fn cells(&self, memory: MemoryType) -> Vec<Cell> {
        let pairs = self.states.iter().flat_map(|state| self.calls.iter().map(move |call| (*state, *call)));
        let cells = pairs.map(|(state, call)| Cell { state, call, memory });
        cells.filter(|cell| cell.senseless().is_none()).collect()
    }
}

fn names<T>(all: &'static [T], name: impl Fn(&'static T) -> &'static str) -> String {
    all.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn unknown(what: &str, name: &str, all: String) -> String {
    format!("no {what} is called \"{name}\"; there are {all}")
}

/// The positions of comma-separated names, or the name that has none.
fn positions<'a>(text: &'a str, count: usize, find: &dyn Fn(&str) -> Option<usize>) -> Result<Vec<usize>, &'a str> {
    if text == ALL {
        return Ok((0..count).collect());
    }
    text.split(',').map(|name| find(name).ok_or(name)).collect()
}

impl Cell {
    /// Its name.
    pub fn name(&self) -> String {
        format!("{}/{}", self.state.name, self.call.name)
    }

    /// Why it makes no sense, if it makes none.
    pub fn senseless(&self) -> Option<&'static str> {
        match self.state.memory {
            Some(memory) if memory != self.memory => Some("the state does not exist with this memory type"),
            _ => self.call.senseless(self.state),
        }
    }

    /// The fault of the kernel that it is known to show.
    pub fn known(&self) -> Option<&'static Known> {
        known::find(self.state.name, self.call.name, self.memory)
    }

    /// The text of its scenario.
    pub fn text(&self) -> String {
        let Self { state, call, memory } = self;
        let mut text = format!("# {}: {}; {}\n", self.name(), state.title, call.title);
        let memory = match memory {
            MemoryType::Private => "private",
            MemoryType::Coherent => "coherent",
        };
        // Writing to a string does not fail.
        if let Some(known) = self.known() {
            let _ = writeln!(text, "#\n# {}: {}", known.entry, known.what);
        }
        let _ = writeln!(text, "\nguest memory={memory} vram=64M vcpus=2");
        if let Some(known) = self.known() {
            let symptoms: Vec<_> = known.symptoms.iter().map(|symptom| symptom.name()).collect();
            let on = if known.kernels.is_empty() { String::new() } else { format!(" on {}", known.kernels.join(" ")) };
            let _ = writeln!(text, "shows {}{on}", symptoms.join(" "));
        }
        text.push_str("holds-at-most 2s\ndeadline 5s\n");
        block(&mut text, "setup", state.setup.iter().copied(), state.size);
        let wait = state.held.map(|_| "wait mover held");
        block(&mut text, "thread caller", wait.into_iter().chain(call.steps.iter().copied()), state.size);
        if let Some(migration) = state.held {
            block(&mut text, "thread mover", ["hold migrate_vma_pages", migration], state.size);
            // The call has begun by then, and may be waiting for the mover.
            block(&mut text, "thread releaser", ["wait mover held", "sleep 20ms", "resume mover"], state.size);
        }
        if !call.child.is_empty() {
            block(&mut text, "thread forked of child", call.child.iter().copied(), state.size);
        }
        if state.shared {
            let steps = ["wait caller done", "read r", "write {p} 6", "read r"];
            block(&mut text, "thread other of sharer", steps, state.size);
        }
        block(&mut text, "finally", state.reads.iter().copied(), state.size);
        text
    }
}

fn block<'a>(text: &mut String, title: &str, steps: impl IntoIterator<Item = &'a str>, size: Size) {
    let names = match size {
        Size::Small => {
            [("{a}", "r[0..8]"), ("{b}", "r[8..16]"), ("{size}", "64K"), ("{half}", "32K"), ("{double}", "128K")]
        }
        Size::Huge => {
            [("{a}", "r[0..1M]"), ("{b}", "r[1M..2M]"), ("{size}", "2M"), ("{half}", "1M"), ("{double}", "4M")]
        }
    };
    text.push_str(&format!("\n{title}\n"));
    for step in steps {
        let step = names.iter().fold(step.replace("{p}", "r[1]"), |step, (name, value)| step.replace(name, value));
        text.push_str(&format!("  {step}\n"));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ersatz_scenario::parse;

    use super::super::known::KNOWN;
    use super::*;

    fn all(memory: MemoryType) -> Vec<Cell> {
        Slice::parse("*/*").unwrap().cells(memory)
    }

    #[test]
    fn every_cell_is_a_scenario() {
        for cell in all(MemoryType::Private).into_iter().chain(all(MemoryType::Coherent)) {
            let text = cell.text();
            let scenario = parse(&cell.name(), &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert!(scenario.title.starts_with(&cell.name()));
            assert_eq!(scenario.guest.memory, [cell.memory]);
            assert_eq!(scenario.shows.is_empty(), cell.known().is_none());
        }
    }

    #[test]
    fn there_are_many_cells_and_names_are_of_one_thing() {
        assert!(all(MemoryType::Private).len() >= 400);
        let states: BTreeSet<_> = STATES.iter().map(|state| state.name).collect();
        let calls: BTreeSet<_> = CALLS.iter().map(|call| call.name).collect();
        assert_eq!((states.len(), calls.len()), (STATES.len(), CALLS.len()));
    }

    #[test]
    fn every_known_fault_is_of_cells_that_there_are() {
        for known in KNOWN {
            for (state, call) in known.states.iter().flat_map(|state| known.calls.iter().map(move |call| (state, call)))
            {
                let slice = Slice::parse(&format!("{state}/{call}")).unwrap_or_else(|error| panic!("{error}"));
                let memory = known.memory.unwrap_or(MemoryType::Private);
                assert_eq!(slice.cells(memory).len(), 1, "{state}/{call} of {}", known.entry);
            }
        }
    }

    #[test]
    fn a_slice_is_in_the_order_of_the_table() {
        let slice = Slice::parse("huge,small/write,read").unwrap();
        let names: Vec<_> = slice.cells(MemoryType::Private).iter().map(Cell::name).collect();
        assert_eq!(names, ["small/read", "small/write", "huge/read", "huge/write"]);
        assert!(Slice::parse("huge").is_err());
        assert!(Slice::parse("huge/nothing").unwrap_err().contains("munmap"));
        assert!(Slice::parse("/read").unwrap_err().contains("state"));
    }

    #[test]
    fn what_makes_no_sense_is_not_a_cell() {
        let count = |slice: &str| Slice::parse(slice).unwrap().cells(MemoryType::Private).len();
        assert_eq!((count("small/collapse"), count("huge/collapse"), count("forked/exit")), (0, 1, 0));
    }
}
