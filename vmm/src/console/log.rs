// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is kept of a guest's console output: the last lines, and whether the kernel complained.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Lines kept.
const LINES: usize = 400;
/// Bytes kept of a line; the rest of a longer one is dropped.
const LINE_BYTES: usize = 1024;

/// Starts of messages by which a kernel reports that something is wrong with itself or with a module.
const COMPLAINTS: [&str; 16] = [
    "WARNING: ",
    "BUG: ",
    "kernel BUG at ",
    "Oops",
    "general protection fault",
    "Unable to handle kernel",
    "INFO: task ",
    "INFO: possible ",
    "INFO: trying to register non-static key",
    "rcu: INFO: ",
    "watchdog: BUG: ",
    "UBSAN: ",
    "KASAN: ",
    "refcount_t: ",
    "list_add corruption",
    "list_del corruption",
];

/// Before a message of the kernel's log that PID 1 repeats, since the console may not have shown it.
const REPEATED: &str = "ersatz-init: kernel log: ";

/// The line that ends a kernel.
const PANIC: &str = "Kernel panic - not syncing";

/// The console's lines and what they mean. Clones share one log.
#[derive(Clone, Debug, Default)]
pub struct ConsoleLog(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<String>,
    partial: Vec<u8>,
    total: u64,
    complaint: Option<String>,
    panic: Option<String>,
}

impl ConsoleLog {
    /// Returns an empty log.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next output of the console; lines may come in any pieces.
    pub fn push(&self, bytes: &[u8]) {
        let mut state = self.state();
        for &byte in bytes {
            if byte == b'\n' {
                state.end_line();
            } else if state.partial.len() < LINE_BYTES {
                state.partial.push(byte);
            }
        }
    }

    /// Returns the line that reports the kernel's panic.
    pub fn panic(&self) -> Option<String> {
        let state = self.state();
        // The machine may be gone before the line was ended.
        state.panic.clone().or_else(|| Some(clean(&state.partial)).filter(|line| is_panic(line)))
    }

    /// Returns the first complaint of the kernel.
    pub fn complaint(&self) -> Option<String> {
        self.state().complaint.clone()
    }

    /// Drops everything so far except the number of lines.
    pub fn clear(&self) {
        let mut state = self.state();
        *state = State { total: state.total, ..State::default() };
    }

    /// Number of lines so far; a mark for [`Self::since`].
    pub fn mark(&self) -> u64 {
        self.state().total
    }

    /// The lines after a mark, as far as they are kept.
    pub fn since(&self, mark: u64) -> Vec<String> {
        let state = self.state();
        let wanted = usize::try_from(state.total.saturating_sub(mark)).unwrap_or(usize::MAX);
        state.lines.iter().skip(state.lines.len().saturating_sub(wanted)).cloned().collect()
    }

    /// The last lines, with the unfinished one.
    pub fn last(&self, count: usize) -> Vec<String> {
        let state = self.state();
        let unfinished = Some(clean(&state.partial)).filter(|line| !line.is_empty());
        let all: Vec<String> = state.lines.iter().cloned().chain(unfinished).collect();
        all[all.len().saturating_sub(count)..].to_vec()
    }
}

impl State {
    fn end_line(&mut self) {
        let line = clean(&self.partial);
        self.partial.clear();
        if self.panic.is_none() && is_panic(&line) {
            self.panic = Some(line.clone());
        }
        if self.complaint.is_none() && complaint(&line).is_some() {
            self.complaint = Some(line.clone());
        }
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
        self.total += 1;
    }
}

/// Returns the text of the complaint that a line is, if it is one: without the time in front, however the line came.
pub fn complaint(line: &str) -> Option<&str> {
    let text = message_text(line);
    COMPLAINTS.iter().any(|complaint| text.starts_with(complaint)).then_some(text)
}

/// Returns the text of a kernel message as [`kernel_text`] does, also of one that PID 1 repeats.
pub fn message_text(line: &str) -> &str {
    kernel_text(line.strip_prefix(REPEATED).unwrap_or(line))
}

/// Whether a line reports the kernel's panic.
pub fn is_panic(line: &str) -> bool {
    kernel_text(line).starts_with(PANIC)
}

/// Returns the text of a kernel message, without the time and, where there is one, the task or CPU in front.
///
/// Programs in the guest print to the same console: one that prints "WARNING: " at the start of a line is taken for the
/// kernel only if a time stands in front. Empty for a line that is not the kernel's.
pub fn kernel_text(line: &str) -> &str {
    let Some(mut text) = bracketed(line, |inside| inside.contains('.')) else { return "" };
    // CONFIG_PRINTK_CALLER: "[   T42]", "[   C1]".
    if let Some(rest) = bracketed(text, |inside| inside.starts_with(['T', 'C'])) {
        text = rest;
    }
    text
}

/// What follows "[...] " at the start of a line, if the trimmed inside is as wanted.
fn bracketed(line: &str, wanted: impl Fn(&str) -> bool) -> Option<&str> {
    let (inside, rest) = line.strip_prefix('[')?.split_once(']')?;
    wanted(inside.trim_start()).then(|| rest.trim_start())
}

/// A line without control characters and escape sequences.
pub fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut result = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == '\x1b' && characters.peek() == Some(&'[') {
            characters.next();
            // Parameters, then one letter that ends the sequence.
            while characters.next().is_some_and(|c| !('@'..='~').contains(&c)) {}
        } else if character == '\t' || !character.is_control() {
            result.push(character);
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn log(text: &str) -> ConsoleLog {
        let log = ConsoleLog::new();
        text.as_bytes().chunks(3).for_each(|piece| log.push(piece));
        log
    }

    #[test]
    fn complaints_of_the_kernel_are_found() {
        for text in [
            "[    1.234567] WARNING: CPU: 0 PID: 1 at mm/memory.c:1 f+0x1/0x2",
            "[  101.000000][   T42] BUG: sleeping function called from invalid context",
            "[    1.5][    C1] watchdog: BUG: soft lockup - CPU#1 stuck for 23s!",
            "[    3.000001] Oops: Oops: 0002 [#1] SMP NOPTI",
            "[    3.0] kernel BUG at mm/rmap.c:99!",
            "[    3.0] INFO: task x:12 blocked for more than 120 seconds.",
            "ersatz-init: kernel log: [    3.000000] BUG: unable to handle page fault",
            "[    3.0] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
        ] {
            assert_eq!(log(&format!("boot\r\n{text}\r\nmore\r\n")).complaint().as_deref(), Some(text));
        }
    }

    #[test]
    fn what_only_looks_like_a_complaint_does_not_count() {
        for text in [
            "WARNING: said by a program",
            "[note] WARNING: said by a program",
            "[    0.1] Command line: WARNING: ",
            "[    0.1] BUGS are checked",
            "",
            "[",
            "[]",
        ] {
            assert_eq!(log(&format!("{text}\n")).complaint(), None, "{text}");
        }
    }

    #[test]
    fn a_panic_is_found_even_in_an_unfinished_line() {
        assert!(log("[  1.0] Kernel panic - not syncing: x\r\n").panic().is_some());
        assert!(log("[  1.0] Kernel panic - not syncing: x").panic().is_some());
        assert!(log("Kernel panic - not syncing: x\n").panic().is_none(), "said by a program");
    }

    #[test]
    fn the_last_lines_are_kept_without_control_characters() {
        let log = ConsoleLog::new();
        for number in 0..1000 {
            log.push(format!("\x1b[1;31mline\x1b[0m {number}\r\n").as_bytes());
        }
        log.push(b"unfinished");
        assert_eq!(log.last(3), ["line 998", "line 999", "unfinished"]);
        let mark = log.mark();
        log.push(b"\nnew\n");
        assert_eq!(log.since(mark), ["unfinished", "new"]);
        assert_eq!(log.last(usize::MAX).len(), LINES);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_memory_is_bounded(pieces: Vec<Vec<u8>>) {
            let log = ConsoleLog::new();
            pieces.iter().for_each(|piece| log.push(piece));
            prop_assert!(log.last(usize::MAX).len() <= LINES + 1);
            prop_assert!(log.state().partial.len() <= LINE_BYTES);
        }
    }
}
