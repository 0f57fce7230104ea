// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What only the whole can tell: whether names are those of something, and whether an order can come about.

use std::collections::{BTreeMap, BTreeSet};

use super::error::Trouble;
use crate::call::{Awaited, Call, Hold};
use crate::disk::UringTransfer;
use crate::limits;
use crate::quantity::Size;
use crate::range::Range;
use crate::scenario::{Process, Scenario, Sequence, Step};

/// What names stand for.
struct Names<'a> {
    /// Ranges, and the most bytes that each ever has.
    ranges: BTreeMap<&'a str, u64>,
    /// Ranges that get another size.
    resized: BTreeSet<&'a str>,
    threads: BTreeMap<&'a str, &'a [Step]>,
    children: BTreeSet<&'a str>,
}

/// Fails at the first step that cannot be meant so.
pub(super) fn check(scenario: &Scenario) -> Result<(), Trouble> {
    let names = Names::of(scenario)?;
    for thread in &scenario.threads {
        if let Process::Child(child) = &thread.process {
            let line = thread.steps.first().map_or(1, |step| step.line);
            names.check_child(child, line)?;
        }
    }
    let last = scenario.threads.len() + 1;
    for (index, sequence) in scenario.sequences().enumerate() {
        let is_thread = index != 0 && index != last;
        for (at, step) in sequence.steps.iter().enumerate() {
            names.check_step(&sequence, step)?;
            check_order(step, sequence.steps.get(at + 1), is_thread)?;
        }
    }
    check_barriers(scenario)
}

impl<'a> Names<'a> {
    fn of(scenario: &'a Scenario) -> Result<Self, Trouble> {
        let mut names = Self {
            ranges: BTreeMap::new(),
            resized: BTreeSet::new(),
            threads: BTreeMap::new(),
            children: BTreeSet::new(),
        };
        for thread in &scenario.threads {
            let line = thread.steps.first().map_or(1, |step| step.line);
            if names.threads.insert(&thread.name, &thread.steps).is_some() {
                return Err(Trouble::word(line, &thread.name, "two threads have this name", "a name for each"));
            }
        }
        let steps = || scenario.sequences().flat_map(|sequence| sequence.steps);
        steps().try_for_each(|step| names.add(step))?;
        for step in steps() {
            if let Call::Resize { name, size } = &step.call {
                if let Some(most) = names.ranges.get_mut(name.as_str()) {
                    *most = (*most).max(*size);
                    names.resized.insert(name);
                }
            }
        }
        Ok(names)
    }

    /// Notes what a step gives a name to.
    fn add(&mut self, step: &'a Step) -> Result<(), Trouble> {
        let too_many = |what: &str, most: usize| Trouble::whole(step.line, what, format!("at most {most}"));
        match &step.call {
            Call::Map { name, size, options } => {
                if options.huge == Some(true) && size % (2 << 20) != 0 {
                    let word = Size(*size).to_string();
                    return Err(Trouble::word(step.line, &word, "huge pages have 2M", "a multiple of 2M"));
                }
                if self.ranges.insert(name, *size).is_some() {
                    return Err(Trouble::word(step.line, name, "two ranges have this name", "a name for each"));
                }
                if self.ranges.len() > limits::RANGES {
                    return Err(too_many("there are too many ranges", limits::RANGES));
                }
            }
            Call::Fork(child) => {
                if child == "parent" || !self.children.insert(child) {
                    return Err(Trouble::word(step.line, child, "that is another process's name", "a name for each"));
                }
                if self.children.len() > limits::CHILDREN {
                    return Err(too_many("there are too many forked processes", limits::CHILDREN));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn check_step(&self, sequence: &Sequence<'_>, step: &Step) -> Result<(), Trouble> {
        step.call.ranges().into_iter().try_for_each(|range| self.check_range(range, step.line))?;
        match &step.call {
            Call::Resize { name, .. } => self.check_range(&Range { name: name.clone(), part: None }, step.line),
            Call::MremapOnto { range, target, .. } => self.check_equal(range, target, step.line),
            Call::Kill(child) | Call::Join(child) => self.check_child(child, step.line),
            Call::Vmread { process, .. }
            | Call::Vmwrite { process, .. }
            | Call::Peek { process, .. }
            | Call::Poke { process, .. }
                if process != "parent" =>
            {
                self.check_child(process, step.line)
            }
            Call::Direct { range, .. } | Call::Uring(UringTransfer { range, .. }) => {
                self.check_on_disk(range, step.line)
            }
            Call::Wait { thread, awaited } => self.check_thread(sequence, thread, *awaited == Awaited::Held, step.line),
            Call::Resume(thread) => self.check_thread(sequence, thread, true, step.line),
            _ => Ok(()),
        }
    }

    fn check_range(&self, range: &Range, line: u32) -> Result<(), Trouble> {
        let Some(&most) = self.ranges.get(range.name.as_str()) else {
            return Err(Trouble::word(
                line,
                &range.to_string(),
                "nothing of this name is mapped",
                one_of(self.ranges.keys()),
            ));
        };
        match range.part {
            Some(part) if part.end > most => {
                let expected = format!("a part of {} pages, {}", most / limits::PAGE, Size(most));
                Err(Trouble::word(line, &range.to_string(), "the part reaches beyond its range", expected))
            }
            _ => Ok(()),
        }
    }

    fn check_on_disk(&self, range: &Range, line: u32) -> Result<(), Trouble> {
        let end = |size: &u64| range.part.map_or(*size, |part| part.end);
        if self.ranges.get(range.name.as_str()).is_none_or(|size| end(size) <= limits::DISK_BYTES) {
            return Ok(());
        }
        let expected = format!("a part that ends at {} or before", Size(limits::DISK_BYTES));
        Err(Trouble::word(line, &range.to_string(), "the scenario's disk is smaller", expected))
    }

    fn check_equal(&self, range: &Range, target: &Range, line: u32) -> Result<(), Trouble> {
        let length = |range: &Range| self.ranges.get(range.name.as_str()).map(|&size| range.within(size).1);
        // How large a range is that gets another size, only the system knows at that moment.
        let is_resized = |range: &Range| range.part.is_none() && self.resized.contains(range.name.as_str());
        if length(range) == length(target) || is_resized(range) || is_resized(target) {
            return Ok(());
        }
        let expected = format!("as many bytes as {range}: {}", length(range).map(Size).unwrap_or(Size(0)));
        Err(Trouble::word(line, &target.to_string(), "the ranges are not of one size", expected))
    }

    fn check_child(&self, child: &str, line: u32) -> Result<(), Trouble> {
        if self.children.contains(child) {
            return Ok(());
        }
        let expected = format!("a process that a fork names: {}", one_of(self.children.iter()));
        Err(Trouble::word(line, child, "no process has this name", expected))
    }

    fn check_thread(&self, own: &Sequence<'_>, name: &str, held: bool, line: u32) -> Result<(), Trouble> {
        let others = self.threads.iter().filter(|(other, steps)| **other != own.name && (!held || has_hold(steps)));
        match self.threads.get(name) {
            Some(steps) if name != own.name && (!held || has_hold(steps)) => Ok(()),
            Some(_) if name == own.name => {
                Err(Trouble::word(line, name, "a thread cannot wait for itself", one_of(others.map(|(name, _)| name))))
            }
            Some(_) => {
                Err(Trouble::word(line, name, "nothing holds this thread", one_of(others.map(|(name, _)| name))))
            }
            None => Err(Trouble::word(line, name, "no thread has this name", one_of(others.map(|(name, _)| name)))),
        }
    }
}

fn has_hold(steps: &[Step]) -> bool {
    steps.iter().any(|step| matches!(step.call, Call::Hold(_)))
}

fn one_of<'a>(names: impl Iterator<Item = &'a &'a str>) -> String {
    let names: Vec<&str> = names.copied().collect();
    if names.is_empty() { "nothing: there is none".into() } else { format!("one of {}", names.join(", ")) }
}

/// A hold needs a call to hold, and somebody to let it go on.
fn check_order(step: &Step, next: Option<&Step>, is_thread: bool) -> Result<(), Trouble> {
    let Call::Hold(Hold { point, .. }) = &step.call else {
        let waits = matches!(step.call, Call::Wait { .. } | Call::Resume(_) | Call::Barrier(_));
        return if waits && !is_thread {
            let word = step.call.to_string();
            Err(Trouble::word(
                step.line,
                &word,
                "other threads do not run beside setup and finally",
                "a step of a thread",
            ))
        } else {
            Ok(())
        };
    };
    if !is_thread {
        let problem = "nobody could let setup or finally go on";
        return Err(Trouble::word(step.line, &point.to_string(), problem, "hold in a thread"));
    }
    match next {
        Some(next) if !next.call.is_synchronisation() => Ok(()),
        _ => Err(Trouble::word(
            step.line,
            &point.to_string(),
            "no call follows that could be held",
            "a call in the next line",
        )),
    }
}

/// A barrier that one thread names is passed at once, which cannot be meant.
fn check_barriers(scenario: &Scenario) -> Result<(), Trouble> {
    let mut uses: BTreeMap<&str, (u32, BTreeSet<&str>)> = BTreeMap::new();
    for thread in &scenario.threads {
        for step in &thread.steps {
            if let Call::Barrier(name) = &step.call {
                let (line, threads) = uses.entry(name).or_insert((step.line, BTreeSet::new()));
                *line = step.line;
                threads.insert(&thread.name);
            }
        }
    }
    for (count, (name, (line, threads))) in uses.iter().enumerate() {
        if threads.len() < 2 {
            return Err(Trouble::word(*line, name, "one thread alone has this barrier", "the same in another thread"));
        }
        if count >= limits::BARRIERS {
            let expected = format!("at most {}", limits::BARRIERS);
            return Err(Trouble::word(*line, name, "there are too many barriers", expected));
        }
    }
    Ok(())
}
