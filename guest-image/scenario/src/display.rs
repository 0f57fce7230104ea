// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The text of a scenario, as [`parse()`](crate::parse()) reads it back.

use std::fmt::{self, Display, Formatter};

use ersatz_uapi::MemoryType;

use crate::limits;
use crate::quantity::{Size, Time};
use crate::scenario::{FINALLY, Guest, Process, SETUP, Scenario, Shows, Step, Thread};

/// The word for a memory type.
const fn memory_name(memory: MemoryType) -> &'static str {
    match memory {
        MemoryType::Private => "private",
        MemoryType::Coherent => "coherent",
    }
}

impl Display for Guest {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        if !self.memory.is_empty() {
            let names: Vec<_> = self.memory.iter().map(|&memory| memory_name(memory)).collect();
            words.push(format!("memory={}", names.join(",")));
        }
        words.extend(self.vram.map(|bytes| format!("vram={}", Size(bytes))));
        words.extend(self.vcpus.map(|count| format!("vcpus={count}")));
        words.extend(self.ram.map(|bytes| format!("ram={}", Size(bytes))));
        for (header, words) in
            [("guest", &words), ("kernel-args", &self.kernel_args), ("driver-args", &self.driver_args)]
        {
            if !words.is_empty() {
                writeln!(f, "{header} {}", words.join(" "))?;
            }
        }
        Ok(())
    }
}

impl Display for Shows {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "shows {}", self.symptom)?;
        if self.kernels.is_empty() { Ok(()) } else { write!(f, " on {}", self.kernels.join(" ")) }
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.call.fmt(f)?;
        if !self.may_differ.is_empty() {
            f.write_str(" may-differ")?;
        }
        self.may_differ.iter().try_for_each(|aspect| write!(f, " {aspect}"))
    }
}

impl Display for Thread {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "thread {}", self.name)?;
        if let Process::Child(child) = &self.process {
            write!(f, " of {child}")?;
        }
        self.cpu.map_or(Ok(()), |cpu| write!(f, " cpu={cpu}"))
    }
}

impl Display for Scenario {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if !self.title.is_empty() {
            writeln!(f, "# {}", self.title)?;
        }
        self.guest.fmt(f)?;
        self.shows.iter().try_for_each(|shows| writeln!(f, "{shows}"))?;
        if self.hold_limit != limits::USUAL_HOLD {
            writeln!(f, "holds-at-most {}", Time(self.hold_limit))?;
        }
        if self.deadline != limits::USUAL_DEADLINE {
            writeln!(f, "deadline {}", Time(self.deadline))?;
        }
        let titles = std::iter::once(SETUP.to_owned())
            .chain(self.threads.iter().map(Thread::to_string))
            .chain(std::iter::once(FINALLY.to_owned()));
        for ((index, title), sequence) in titles.enumerate().zip(self.sequences()) {
            let is_thread = index != 0 && index <= self.threads.len();
            if is_thread || !sequence.steps.is_empty() {
                writeln!(f, "\n{title}")?;
                sequence.steps.iter().try_for_each(|step| writeln!(f, "  {step}"))?;
            }
        }
        Ok(())
    }
}
