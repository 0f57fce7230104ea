// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Complaints of the guest's kernel, each with the lines that explain it.
//!
//! A complaint is a line ([`complaint`]); the kernel's messages that follow it (registers, backtrace) are kept with it up to the end
//! of its trace. A line that the kernel prints in answer to another complaint ("Oops:" behind "BUG:") is part of the first one.

use crate::console::log::{complaint, is_panic, message_text};

/// Most lines kept of one splat.
const LINES: usize = 80;
/// Most splats kept of one guest: a kernel that goes on after the first may repeat itself without end.
const SPLATS: usize = 16;
/// The line that ends a trace.
const END_OF_TRACE: &str = "---[ end ";
/// Messages that carry on a splat whose trace has ended.
const AFTERMATH: [&str; 3] = ["note: ", "Fixing recursive fault", "Kernel panic - not syncing"];

/// One complaint of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Splat {
    /// The complaint, without the time in front.
    pub title: String,
    /// Its lines as the console had them, the complaint first.
    pub lines: Vec<String>,
}

/// Collects the splats of one guest from its console, a line at a time.
#[derive(Debug, Default)]
pub struct Splats {
    found: Vec<Splat>,
    /// Whether lines go to the last splat.
    open: bool,
    /// Whether the last splat has had the line that ends its trace.
    ended: bool,
}

impl Splats {
    /// Takes the next line of the console. Returns whether it begins a splat.
    pub fn take(&mut self, line: &str) -> bool {
        let text = message_text(line);
        let title = complaint(line).or_else(|| is_panic(line).then_some(text));
        if let Some(title) = title {
            if self.open && !self.ended {
                self.keep(line);
                return false;
            }
            let is_aftermath = AFTERMATH.iter().any(|start| title.starts_with(start));
            let is_repeated = self.found.iter().any(|splat| splat.has(title));
            if is_repeated || self.found.len() == SPLATS {
                self.open = false;
                return false;
            }
            if is_aftermath && self.open {
                self.keep(line);
                return false;
            }
            self.found.push(Splat { title: title.to_owned(), lines: vec![line.to_owned()] });
            self.open = true;
            self.ended = false;
            return true;
        }
        if self.open && !text.is_empty() {
            if !self.ended || AFTERMATH.iter().any(|start| text.starts_with(start)) {
                self.keep(line);
            }
            self.ended |= text.starts_with(END_OF_TRACE);
        }
        false
    }

    /// The splats so far.
    pub fn found(&self) -> &[Splat] {
        &self.found
    }

    fn keep(&mut self, line: &str) {
        if let Some(splat) = self.found.last_mut().filter(|splat| splat.lines.len() < LINES) {
            splat.lines.push(line.to_owned());
        }
    }
}

impl Splat {
    /// Whether a message of the kernel is one of its lines, with or without a time in front: the runner and PID 1 repeat complaints.
    pub fn has(&self, message: &str) -> bool {
        let text = |line: &str| match message_text(line) {
            "" => line.to_owned(),
            text => text.to_owned(),
        };
        let wanted = text(message);
        self.lines.iter().any(|line| text(line) == wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn splats(text: &str) -> Vec<Splat> {
        let mut splats = Splats::default();
        text.lines().for_each(|line| {
            splats.take(line);
        });
        splats.found().to_vec()
    }

    #[test]
    fn a_splat_has_the_lines_up_to_the_end_of_its_trace() {
        let found = splats(
            "[ 1.0] hello\n[ 2.0] BUG: unable to handle page fault for address: 0\n[ 2.1] #PF: supervisor read\n\
             [ 2.1] Oops: Oops: 0000 [#1] SMP\nprinted by a program\n[ 2.2] RIP: 0010:f+0x1/0x2\n\
             [ 2.3] ---[ end trace 0 ]---\n[ 2.4] note: x[1] exited with irqs disabled\n[ 3.0] unrelated\n",
        );
        let [splat] = &found[..] else { panic!("{found:?}") };
        assert_eq!(splat.title, "BUG: unable to handle page fault for address: 0");
        assert_eq!(splat.lines.len(), 6, "{splat:?}");
        assert!(splat.lines.iter().all(|line| !line.contains("program") && !line.contains("unrelated")));
    }

    #[test]
    fn a_second_complaint_is_another_splat_and_a_repeated_one_is_none() {
        let found = splats(
            "[ 1.0] WARNING: a.c:1 at f+0x1/0x2, CPU#0: x/1\n[ 1.0] ---[ end trace 0 ]---\n[ 2.0] WARNING: b.c:1 at g\n\
             ersatz-init: kernel log: [ 1.0] WARNING: a.c:1 at f+0x1/0x2, CPU#0: x/1\n",
        );
        // The second one has no end, so the repeated line is taken as one of its lines.
        assert_eq!(found.iter().map(|splat| splat.title.as_str()).collect::<Vec<_>>().len(), 2);
        assert!(found[1].title.starts_with("WARNING: b.c"));
    }

    #[test]
    fn what_pid_1_finds_in_the_log_counts_if_the_console_did_not_have_it() {
        let found = splats("ersatz-init: kernel log: [ 1.0] refcount_t: underflow; use-after-free.\n");
        assert_eq!(found[0].title, "refcount_t: underflow; use-after-free.");
    }

    #[test]
    fn a_panic_by_itself_is_a_splat_and_one_behind_an_oops_is_part_of_it() {
        let panic = "[ 3.0] Kernel panic - not syncing: Fatal exception\n";
        assert_eq!(splats(panic).len(), 1);
        let found = splats(&format!("[ 1.0] Oops: 0 [#1]\n[ 1.1] ---[ end trace 0 ]---\n{panic}"));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].lines.len(), 3);
    }

    #[test]
    fn memory_is_bounded() {
        let mut splats = Splats::default();
        for number in 0..1000 {
            splats.take(&format!("[ {number}.0] WARNING: number {number}"));
            (0..200).for_each(|_| {
                splats.take("[ 1.0] more");
            });
            splats.take("[ 1.0] ---[ end trace 0 ]---");
        }
        assert_eq!(splats.found().len(), SPLATS);
        assert!(splats.found().iter().all(|splat| splat.lines.len() <= LINES));
    }
}
