// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the user sees while steps run: on a terminal one live line for each running step, in a pipe a line at each
//! step's start and end.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Prints what happens. Shared by all threads of a run.
pub struct Progress {
    terminal: Option<MultiProgress>,
    started: Instant,
}

/// A step that is running.
pub struct Stage<'a> {
    progress: &'a Progress,
    title: String,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Prints to standard error: live if that is a terminal.
    pub fn new() -> Self {
        let terminal = std::io::stderr().is_terminal().then(MultiProgress::new);
        Self { terminal, started: Instant::now() }
    }

    /// Shows a step as running.
    pub fn stage(&self, title: &str) -> Stage<'_> {
        let bar = self.terminal.as_ref().map(|terminal| {
            let style =
                ProgressStyle::with_template("         {spinner} {msg} {elapsed:.dim}").expect("a fixed template");
            let bar = terminal.add(ProgressBar::new_spinner().with_style(style).with_message(title.to_owned()));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if bar.is_none() {
            self.say(&format!("{title} ..."));
        }
        Stage { progress: self, title: title.to_owned(), started: Instant::now(), bar }
    }

    /// Prints a line, with the time since the start.
    pub fn say(&self, line: &str) {
        let line = format!("[{:7.1}] {line}", self.started.elapsed().as_secs_f64());
        match &self.terminal {
            // A line that cannot be printed has no reader.
            Some(terminal) => terminal.println(line).unwrap_or_default(),
            None => eprintln!("{line}"),
        }
    }
}

impl Stage<'_> {
    /// Says something about the step, in a line of its own.
    pub fn say(&self, what: &str) {
        self.progress.say(&format!("{}: {what}", self.title));
    }

    /// Says what the step is at.
    pub fn at(&self, what: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(format!("{}: {what}", self.title)),
            None => self.say(what),
        }
    }

    /// Shows something that will soon be outdated; on a terminal only.
    pub fn glance(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{}: {what}", self.title));
        }
    }

    /// The step is done.
    pub fn done(self) {
        let seconds = self.started.elapsed().as_secs_f64();
        self.say(&format!("done in {seconds:.1} s"));
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
