// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The end of the control socket that asks.

use std::io::{self, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use super::line::{Line, read_line};
use super::protocol::{Envelope, Failure, Greeting, PROTOCOL, Request, VERSION};

/// How long the server may take for its greeting.
const GREETING: Duration = Duration::from_secs(10);
/// Longest answer in bytes: 256 rules or what a TLB holds take some hundred KiB.
const MAX_ANSWER: usize = 16 << 20;

/// A connection to a server.
#[derive(Debug)]
pub struct ControlClient {
    path: PathBuf,
    stream: BufReader<UnixStream>,
    greeting: Greeting,
    /// Identifies the next request.
    next: u64,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("cannot reach a device at {path}; is `ersatz run --control {path}` running?")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to {path} broke")]
    Stream {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// What listens there does not speak the protocol.
    #[error("{0} is not a control socket of this version of ersatz; name the socket of --control")]
    Protocol(PathBuf),
    /// The request cannot be written.
    #[error("cannot write the request")]
    Request(#[from] serde_json::Error),
    /// The server has refused.
    #[error("{}", .0.message)]
    Failed(Failure),
}

/// An answer.
#[derive(Deserialize)]
struct Answer {
    id: Option<Value>,
    #[serde(rename = "return")]
    result: Option<Value>,
    error: Option<Failure>,
}

impl ControlClient {
    /// Connects to a server.
    ///
    /// # Errors
    ///
    /// Fails if nobody listens there, or it is not a control socket.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let failed = |source| ClientError::Connect { path: path.to_owned(), source };
        let stream = UnixStream::connect(path).map_err(failed)?;
        stream.set_read_timeout(Some(GREETING)).map_err(failed)?;
        let mut stream = BufReader::new(stream);
        let other = || ClientError::Protocol(path.to_owned());
        let Ok(Line::Text(line)) = read_line(&mut stream, MAX_ANSWER) else { return Err(other()) };
        let greeting: Greeting = serde_json::from_slice(&line).map_err(|_| other())?;
        if (greeting.protocol.as_str(), greeting.version) != (PROTOCOL, VERSION) {
            return Err(other());
        }
        stream.get_ref().set_read_timeout(None).map_err(failed)?;
        Ok(Self { path: path.to_owned(), stream, greeting, next: 1 })
    }

    /// The server's greeting.
    pub fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    /// Sends a request for a GPU, and waits for its answer.
    ///
    /// # Errors
    ///
    /// Fails if the server refuses, or the connection breaks.
    pub fn ask(&mut self, request: &Request, gpu: u8) -> Result<Value, ClientError> {
        let id = self.next;
        self.next += 1;
        let mut line = serde_json::to_vec(&Envelope::new(request, gpu, id)?)?;
        line.push(b'\n');
        let answer = self.exchange(&line).map_err(|source| ClientError::Stream { path: self.path.clone(), source })?;
        let answer: Answer = serde_json::from_slice(&answer).map_err(|_| ClientError::Protocol(self.path.clone()))?;
        match answer.error {
            Some(failure) => Err(ClientError::Failed(failure)),
            None if answer.id != Some(id.into()) => Err(ClientError::Protocol(self.path.clone())),
            None => Ok(answer.result.unwrap_or(Value::Null)),
        }
    }

    fn exchange(&mut self, line: &[u8]) -> io::Result<Vec<u8>> {
        self.stream.get_mut().write_all(line)?;
        match read_line(&mut self.stream, MAX_ANSWER)? {
            Line::Text(line) => Ok(line),
            Line::TooLong => Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long")),
            Line::End => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the device has ended it")),
        }
    }
}
