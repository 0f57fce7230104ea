// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Commands to a running QEMU, over its monitor protocol.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};
use thiserror::Error;

/// How long QEMU may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest message that is read: registers of many processors as text, with plenty to spare.
const MESSAGE_BYTES: u64 = 4 << 20;
/// Most events between a command and its answer.
const EVENTS: usize = 1000;

/// Why QEMU did not answer.
#[derive(Debug, Error)]
pub enum QmpError {
    /// The connection failed, or it took too long.
    #[error("the connection to QEMU's monitor failed")]
    Connection(#[from] io::Error),
    /// What came is not the protocol.
    #[error("QEMU's monitor sent something that is not JSON")]
    Protocol(#[from] serde_json::Error),
    /// There is no answer among its messages.
    #[error("QEMU's monitor did not answer {0}")]
    Unanswered(String),
    /// QEMU refused.
    #[error("QEMU refused {command}: {reason}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's reason.
        reason: String,
    },
}

/// A connection to a monitor.
#[derive(Debug)]
pub struct Monitor {
    reader: BufReader<UnixStream>,
    ready: bool,
}

impl Monitor {
    /// Returns a monitor on a connected socket whose other end QEMU was started with.
    ///
    /// # Errors
    ///
    /// Fails if the socket cannot be set up.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { reader: BufReader::new(stream), ready: false })
    }

    /// Executes a command; returns its result.
    ///
    /// # Errors
    ///
    /// Fails if QEMU does not answer, or refuses.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value, QmpError> {
        if !self.ready {
            self.read()?; // the greeting
            self.command("qmp_capabilities", &json!({}))?;
            self.ready = true;
        }
        self.command(command, arguments)
    }

    /// Executes a command of the human monitor; returns what it prints.
    ///
    /// # Errors
    ///
    /// As [`Self::execute`].
    pub fn human(&mut self, line: &str) -> Result<String, QmpError> {
        let printed = self.execute("human-monitor-command", &json!({ "command-line": line }))?;
        Ok(printed.as_str().unwrap_or_default().to_owned())
    }

    /// Reads a byte from an I/O port of the guest, as its processor would.
    ///
    /// # Errors
    ///
    /// As [`Self::execute`], or if QEMU does not print a byte.
    pub fn port_byte(&mut self, port: u16) -> Result<u8, QmpError> {
        let line = format!("i /b {port:#x}");
        let printed = self.human(&line)?;
        // portb[0x03f9] = 0x05
        let value = printed.rsplit("0x").next().and_then(|digits| u8::from_str_radix(digits.trim(), 16).ok());
        value.ok_or(QmpError::Unanswered(line))
    }

    fn command(&mut self, command: &str, arguments: &Value) -> Result<Value, QmpError> {
        let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
        line.push('\n');
        self.reader.get_mut().write_all(line.as_bytes())?;
        // Events may come first.
        for _ in 0..EVENTS {
            let mut message = self.read()?;
            if let Some(value) = message.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = message.get("error") {
                let reason = error["desc"].as_str().unwrap_or("no reason given").to_owned();
                return Err(QmpError::Refused { command: command.to_owned(), reason });
            }
        }
        Err(QmpError::Unanswered(command.to_owned()))
    }

    fn read(&mut self) -> Result<Value, QmpError> {
        let mut line = Vec::new();
        (&mut self.reader).take(MESSAGE_BYTES).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Err(QmpError::Connection(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(serde_json::from_slice(&line)?)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// A monitor whose other end sends these lines.
    fn monitor(lines: &'static str) -> Monitor {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        thread::spawn(move || {
            theirs.write_all(lines.as_bytes()).unwrap();
            // Read on, so that commands find room.
            io::copy(&mut theirs, &mut io::sink())
        });
        Monitor::new(ours).unwrap()
    }

    #[test]
    fn the_answer_is_found_among_events() {
        let mut monitor = monitor(
            "{\"QMP\": {}}\n{\"return\": {}}\n{\"event\": \"RESUME\"}\n{\"return\": \"RIP=1\"}\n{\"return\": {}}\n",
        );
        assert_eq!(monitor.human("info registers -a").unwrap(), "RIP=1");
        assert!(monitor.execute("inject-nmi", &json!({})).is_ok());
    }

    #[test]
    fn a_port_is_read_off_what_is_printed() {
        let mut good = monitor("{\"QMP\": {}}\n{\"return\": {}}\n{\"return\": \"portb[0x03f9] = 0x05\\r\\n\"}\n");
        assert_eq!(good.port_byte(0x3f9).unwrap(), 5);
        let mut bad = monitor("{\"QMP\": {}}\n{\"return\": {}}\n{\"return\": \"unknown command: 'i'\"}\n");
        assert!(bad.port_byte(0x3f9).is_err());
    }

    #[test]
    fn a_refusal_has_its_reason() {
        let mut monitor = monitor("{\"QMP\": {}}\n{\"return\": {}}\n{\"error\": {\"desc\": \"no way\"}}\n");
        let error = monitor.execute("inject-nmi", &json!({})).unwrap_err();
        assert_eq!(error.to_string(), "QEMU refused inject-nmi: no way");
    }

    #[test]
    fn nonsense_and_silence_are_errors() {
        assert!(matches!(monitor("hello\n").human("x"), Err(QmpError::Protocol(_)) | Err(QmpError::Unanswered(_))));
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(matches!(Monitor::new(ours).unwrap().human("x"), Err(QmpError::Connection(_))));
    }
}
