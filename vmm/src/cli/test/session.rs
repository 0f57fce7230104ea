// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The results of all guests of a run, on their way to the reporter and to the status line.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::collector::{Collector, Step};
use super::progress::StatusLine;
use super::reporter::{Reporter, Summary};
use super::rerun::Rerun;
use super::result::{Counts, TestResult};
use crate::cli::guest::Mode;
use crate::console::log::clean;
use crate::threads::{Role, spawn};

/// Longest line that is looked at; the rest of a longer one is dropped.
const LINE_BYTES: usize = 4096;
/// How often the status line is drawn while nothing happens.
const TICK: Duration = Duration::from_millis(500);
/// How many of the slowest tests are named.
const SLOWEST: usize = 3;

/// The results. Clones share them.
#[derive(Clone)]
pub struct Session(Arc<Mutex<State>>);

struct State {
    reporter: Box<dyn Reporter>,
    status_line: StatusLine,
    rerun: Rerun,
    counts: Counts,
    begun: Instant,
    /// Names of planned tests without a result.
    not_run: Vec<String>,
    slowest: Vec<(String, Duration)>,
}

impl Session {
    /// Returns a session without results.
    ///
    /// # Errors
    ///
    /// Fails if the status line is to be shown and the system has no thread for it.
    pub fn new(reporter: Box<dyn Reporter>, status_line: StatusLine, rerun: Rerun) -> io::Result<Self> {
        let is_shown = status_line.is_shown();
        let state = Arc::new(Mutex::new(State {
            reporter,
            status_line,
            rerun,
            counts: Counts::default(),
            begun: Instant::now(),
            not_run: Vec::new(),
            slowest: Vec::new(),
        }));
        if is_shown {
            let weak = Arc::downgrade(&state);
            spawn(Role::StatusLine, move || {
                while let Some(state) = weak.upgrade() {
                    state.lock().unwrap_or_else(PoisonError::into_inner).status_line.draw();
                    drop(state);
                    thread::sleep(TICK);
                }
            })?;
        }
        Ok(Self(state))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `show` without the status line in the way.
    fn show(&self, show: impl FnOnce(&mut State) -> io::Result<()>) -> io::Result<()> {
        let mut state = self.state();
        state.status_line.erase();
        let shown = show(&mut state);
        state.status_line.draw();
        shown
    }

    /// The tests `names` begin with a memory type.
    ///
    /// # Errors
    ///
    /// As all functions here, fails if the report cannot be written.
    pub fn begin(&self, mode: Mode, names: Vec<String>) -> io::Result<()> {
        self.show(|state| {
            state.counts = Counts { planned: names.len(), ..Counts::default() };
            state.begun = Instant::now();
            state.status_line.begin(names.len());
            state.not_run = names;
            state.slowest.clear();
            state.reporter.begin(mode, state.counts.planned)
        })
    }

    /// A test begins.
    pub fn started(&self, name: &str) {
        self.state().status_line.started(name);
    }

    /// A test has ended; `seed` is what its random contents came from.
    pub fn ended(&self, mut result: TestResult, seed: Option<&str>) -> io::Result<()> {
        self.show(|state| {
            state.counts.add(&result.verdict);
            state.status_line.ended(&result.name);
            if let Some(index) = state.not_run.iter().position(|name| *name == result.name) {
                state.not_run.remove(index);
            }
            if let Some(duration) = result.duration {
                state.slowest.push((result.name.clone(), duration));
                state.slowest.sort_by_key(|(_, duration)| std::cmp::Reverse(*duration));
                state.slowest.truncate(SLOWEST);
            }
            if result.cause().is_some() {
                result.rerun = Some(state.rerun.line(&result.name, result.mode, seed));
            }
            state.reporter.result(&result)
        })
    }

    fn take(&self, step: Step, seed: Option<&str>) -> io::Result<()> {
        match step {
            Step::Started(name) => {
                self.started(&name);
                Ok(())
            }
            Step::Ended(result) => self.ended(result, seed),
            Step::Other(text) => self.show(|state| state.reporter.other(&text)),
        }
    }

    /// Returns the numbers so far.
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// The tests with a memory type are over.
    pub fn end(&self, mode: Mode, status: u8, ending: Option<&str>) -> io::Result<()> {
        let mut state = self.state();
        let State { reporter, status_line, counts, begun, not_run, slowest, .. } = &mut *state;
        status_line.erase();
        status_line.begin(0);
        let duration = begun.elapsed();
        reporter.end(&Summary { mode, counts: *counts, duration, status, ending, not_run, slowest })
    }

    /// All is over.
    pub fn finish(&self) -> io::Result<()> {
        self.state().reporter.finish()
    }
}

/// The console of one guest, whose tests' report goes to a session. Clones share it.
#[derive(Clone)]
pub struct Console(Arc<Mutex<ConsoleState>>);

struct ConsoleState {
    session: Session,
    collector: Collector,
    partial: Vec<u8>,
}

impl Console {
    /// Returns the console of a guest with this memory type.
    pub fn new(session: Session, mode: Mode) -> Self {
        Self(Arc::new(Mutex::new(ConsoleState { session, collector: Collector::new(mode), partial: Vec::new() })))
    }

    fn state(&self) -> MutexGuard<'_, ConsoleState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns why the tests could not be run, if they have said so.
    pub fn bail_out(&self) -> Option<String> {
        self.state().collector.bail_out().map(str::to_owned)
    }

    /// Reports the test that was under way when the guest ended, as `unfinished` makes it of what is known.
    pub fn end(&self, unfinished: impl FnOnce(&mut Collector) -> Option<TestResult>) -> io::Result<()> {
        let mut state = self.state();
        let result = unfinished(&mut state.collector);
        result.map_or(Ok(()), |result| state.session.ended(result, state.collector.seed()))
    }
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state();
        for &byte in bytes {
            if byte == b'\n' {
                let line = clean(&std::mem::take(&mut state.partial));
                if let Some(step) = state.collector.take(&line) {
                    state.session.take(step, state.collector.seed())?;
                }
            } else if state.partial.len() < LINE_BYTES {
                state.partial.push(byte);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::test::reporter::Format;
    use crate::console::log::ConsoleLog;
    use crate::console::recorder::Recorder;
    use crate::outcome::Outcome;

    #[test]
    fn a_console_in_pieces_becomes_a_report() {
        let out = Recorder::default();
        let reporter = Format::Human.reporter(Box::new(out.clone()), 1, None);
        let session = Session::new(reporter, StatusLine::new(false), Rerun::default()).unwrap();
        session.begin(Mode::Private, ["a.b", "a.c", "a.d"].map(str::to_owned).to_vec()).unwrap();
        let mut console = Console::new(session.clone(), Mode::Private);
        let text = b"[  1.0] hello\r\nKTAP version 1\r\n1..3\r\n# seed 0x5\r\n# started a.b\r\n\
            # ended a.b after 3 ms: passed\r\nok 1 a.b\r\n# started a.c\r\n";
        text.chunks(5).for_each(|piece| console.write_all(piece).unwrap());
        let log = ConsoleLog::new();
        console.end(|collector| collector.unfinished(&Outcome::Panicked, &log)).unwrap();
        session.end(Mode::Private, 121, Some("why")).unwrap();
        let shown = out.text();
        assert!(shown.starts_with("pass  a.b (3 ms)\nFAIL  a.c: the guest kernel panicked\n"), "{shown}");
        assert!(shown.contains("run it again: ersatz test --mode private --seed 0x5 --exact a.c\n"), "{shown}");
        assert!(shown.contains("private: 1 passed, 1 failed, 0 skipped, 1 not run in "), "{shown}");
        assert_eq!(session.counts(), Counts { planned: 3, passed: 1, failed: 1, skipped: 0 });
    }
}
