// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where a guest's console output goes: to the log, and to a sink.

use std::io::{self, Write};

use super::log::ConsoleLog;

/// How console output is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As it is: for a terminal in raw mode.
    Raw,
    /// Lines end as they do in files: for pipes, files, and terminals as they come.
    Text,
}

/// Writes to the log and to a sink. A sink that fails is not written to again; the log goes on.
pub struct ConsoleOutput {
    log: ConsoleLog,
    sink: Option<Box<dyn Write + Send>>,
    style: Style,
}

impl ConsoleOutput {
    /// Returns an output to `log`, and to `sink` in this style.
    pub fn new(log: ConsoleLog, sink: Option<Box<dyn Write + Send>>, style: Style) -> Self {
        Self { log, sink, style }
    }
}

impl Write for ConsoleOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.log.push(bytes);
        if let Some(sink) = &mut self.sink {
            let shown = match self.style {
                Style::Raw => sink.write_all(bytes),
                Style::Text => {
                    let kept: Vec<u8> = bytes.iter().copied().filter(|&byte| byte != b'\r').collect();
                    sink.write_all(&kept)
                }
            };
            // `ersatz run | head` does not end the guest: the exit status still counts.
            if shown.is_err() {
                self.sink = None;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.sink.as_mut().is_some_and(|sink| sink.flush().is_err()) {
            self.sink = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::recorder::Recorder;

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    #[test]
    fn text_has_the_line_ends_of_files() {
        let sink = Recorder::default();
        let mut output = ConsoleOutput::new(ConsoleLog::new(), Some(Box::new(sink.clone())), Style::Text);
        output.write_all(b"a\r\nb\r\n").unwrap();
        assert_eq!(sink.text(), "a\nb\n");
    }

    #[test]
    fn a_closed_pipe_does_not_keep_lines_from_the_log() {
        let log = ConsoleLog::new();
        let mut output = ConsoleOutput::new(log.clone(), Some(Box::new(Broken)), Style::Raw);
        output.write_all(b"one\ntwo\n").unwrap();
        output.flush().unwrap();
        assert_eq!(log.last(2), ["one", "two"]);
    }
}
