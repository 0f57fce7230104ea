// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The messages between PID 1 of the outer machine and the host.
//!
//! One byte stream each way, cut into frames: kind (1 byte), length of the body (4 bytes, little-endian), body. That a
//! single stream carries console, files and exit status keeps them in order: when [`Message::Ended`] arrives, all
//! output has arrived before it. The host trusts nothing that comes out of the machine: frames are bounded, and
//! a malformed one is a [`ChannelError`].

use thiserror::Error;

/// Most bytes in the body of a frame.
pub const MAX_BODY: usize = 64 << 10;

/// Bytes before the body.
const HEADER: usize = 5;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Host to outer machine: bytes for the command's standard input; none at all means end of file.
    Input(Vec<u8>),
    /// Host to outer machine: send this signal to the command.
    Signal(u8),
    /// PID 1 is alive; sent about once a second.
    Heartbeat,
    /// PID 1 came to this point.
    Stage(String),
    /// The command runs from here on.
    Started,
    /// From the command's standard output.
    Output(Vec<u8>),
    /// From the command's standard error.
    ErrorOutput(Vec<u8>),
    /// A file of [`Job::collect`](super::Job::collect), by index; its content follows.
    FileBegin {
        /// Index in the list.
        index: u32,
        /// Length in bytes.
        length: u64,
    },
    /// Part of the file begun last. Parts that are never sent are holes.
    FileData {
        /// Where in the file.
        offset: u64,
        /// What is there.
        data: Vec<u8>,
    },
    /// The command could not be run: why.
    Failed(String),
    /// The last message: the command ended with this status, as a shell has it (128 plus the signal that killed it).
    Ended(u8),
}

/// Why a stream is malformed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChannelError {
    /// A frame is longer than any sender makes one.
    #[error("a frame of {0} bytes on the outer machine's channel, where at most {MAX_BODY} are allowed")]
    TooLong(u32),
    /// A frame of no known kind, or of the wrong length or content for its kind.
    #[error("a frame of kind {kind:#04x} with {length} bytes on the outer machine's channel is malformed")]
    Malformed {
        /// The kind.
        kind: u8,
        /// Length of the body.
        length: usize,
    },
}

mod kind {
    pub const INPUT: u8 = 1;
    pub const SIGNAL: u8 = 3;
    pub const HEARTBEAT: u8 = 0x10;
    pub const STAGE: u8 = 0x11;
    pub const STARTED: u8 = 0x12;
    pub const OUTPUT: u8 = 0x13;
    pub const ERROR_OUTPUT: u8 = 0x14;
    pub const FILE_BEGIN: u8 = 0x15;
    pub const FILE_DATA: u8 = 0x16;
    pub const FAILED: u8 = 0x17;
    pub const ENDED: u8 = 0x18;
}

impl Message {
    /// The message as a frame. A body that is too long is cut, which happens to no message made of
    /// [`Message::MAX_DATA`] bytes or fewer.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, mut body) = match self {
            Self::Input(data) => (kind::INPUT, data.clone()),
            Self::Signal(signal) => (kind::SIGNAL, vec![*signal]),
            Self::Heartbeat => (kind::HEARTBEAT, Vec::new()),
            Self::Stage(text) => (kind::STAGE, text.clone().into_bytes()),
            Self::Started => (kind::STARTED, Vec::new()),
            Self::Output(data) => (kind::OUTPUT, data.clone()),
            Self::ErrorOutput(data) => (kind::ERROR_OUTPUT, data.clone()),
            Self::FileBegin { index, length } => {
                (kind::FILE_BEGIN, [&index.to_le_bytes()[..], &length.to_le_bytes()].concat())
            }
            Self::FileData { offset, data } => (kind::FILE_DATA, [&offset.to_le_bytes()[..], data].concat()),
            Self::Failed(text) => (kind::FAILED, text.clone().into_bytes()),
            Self::Ended(status) => (kind::ENDED, vec![*status]),
        };
        body.truncate(MAX_BODY);
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
        [&[kind][..], &length, &body].concat()
    }

    /// Most bytes to put into one message.
    pub const MAX_DATA: usize = MAX_BODY - 8;

    fn decode(kind: u8, body: &[u8]) -> Option<Self> {
        let text = || String::from_utf8_lossy(body).into_owned();
        Some(match kind {
            kind::INPUT => Self::Input(body.to_vec()),
            kind::SIGNAL => Self::Signal(single(body)?),
            kind::HEARTBEAT => empty(body).then_some(Self::Heartbeat)?,
            kind::STAGE => Self::Stage(text()),
            kind::STARTED => empty(body).then_some(Self::Started)?,
            kind::OUTPUT => Self::Output(body.to_vec()),
            kind::ERROR_OUTPUT => Self::ErrorOutput(body.to_vec()),
            kind::FILE_BEGIN => {
                let (index, length) = body.split_first_chunk::<4>()?;
                Self::FileBegin {
                    index: u32::from_le_bytes(*index),
                    length: u64::from_le_bytes(length.try_into().ok()?),
                }
            }
            kind::FILE_DATA => {
                let (offset, data) = body.split_first_chunk::<8>()?;
                Self::FileData { offset: u64::from_le_bytes(*offset), data: data.to_vec() }
            }
            kind::FAILED => Self::Failed(text()),
            kind::ENDED => Self::Ended(single(body)?),
            _ => return None,
        })
    }
}

fn empty(body: &[u8]) -> bool {
    body.is_empty()
}

fn single(body: &[u8]) -> Option<u8> {
    match body {
        [byte] => Some(*byte),
        _ => None,
    }
}

/// Cuts a byte stream into messages.
#[derive(Debug, Default)]
pub struct Decoder {
    pending: Vec<u8>,
}

impl Decoder {
    /// Takes bytes as they arrive and passes every complete message to `sink`.
    ///
    /// # Errors
    ///
    /// Fails if they are malformed. The stream cannot be used from there on.
    pub fn push(&mut self, bytes: &[u8], mut sink: impl FnMut(Message)) -> Result<(), ChannelError> {
        self.pending.extend_from_slice(bytes);
        let mut rest = &self.pending[..];
        while let Some((header, body)) = rest.split_first_chunk::<HEADER>() {
            let [kind, length @ ..] = *header;
            let length = u32::from_le_bytes(length);
            let Some(length) = usize::try_from(length).ok().filter(|length| *length <= MAX_BODY) else {
                return Err(ChannelError::TooLong(length));
            };
            let Some((body, behind)) = body.split_at_checked(length) else { break };
            sink(Message::decode(kind, body).ok_or(ChannelError::Malformed { kind, length })?);
            rest = behind;
        }
        let done = self.pending.len() - rest.len();
        self.pending.drain(..done);
        Ok(())
    }

    /// Whether all that was taken so far were whole messages.
    pub fn is_between_messages(&self) -> bool {
        self.pending.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Message> {
        vec![
            Message::Input(b"ls\r".to_vec()),
            Message::Input(Vec::new()),
            Message::Signal(15),
            Message::Heartbeat,
            Message::Stage("loading modules".to_owned()),
            Message::Started,
            Message::Output(vec![0, 1, 255]),
            Message::ErrorOutput(b"oh".to_vec()),
            Message::FileBegin { index: 1, length: 1 << 40 },
            Message::FileData { offset: 1 << 39, data: vec![7; Message::MAX_DATA] },
            Message::Failed("no /dev/kvm".to_owned()),
            Message::Ended(121),
        ]
    }

    fn decode(stream: &[u8], chunk: usize) -> Result<Vec<Message>, ChannelError> {
        let mut decoder = Decoder::default();
        let mut messages = Vec::new();
        for bytes in stream.chunks(chunk) {
            decoder.push(bytes, |message| messages.push(message))?;
        }
        Ok(messages)
    }

    #[test]
    fn every_message_survives_however_the_stream_is_cut() {
        let stream: Vec<u8> = samples().iter().flat_map(Message::encode).collect();
        for chunk in [1, 3, 4096, stream.len()] {
            assert_eq!(decode(&stream, chunk).unwrap(), samples(), "in chunks of {chunk}");
        }
    }

    #[test]
    fn an_unfinished_frame_is_kept_for_later() {
        let frame = Message::Ended(3).encode();
        assert_eq!(decode(&frame[..frame.len() - 1], 100).unwrap(), []);
        let mut decoder = Decoder::default();
        for (byte, is_between) in [(0, true), (1, false), (frame.len() - 1, false), (frame.len(), true)] {
            let mut decoder = Decoder::default();
            decoder.push(&frame[..byte], |_| ()).unwrap();
            assert_eq!(decoder.is_between_messages(), is_between, "after {byte} bytes");
        }
        decoder.push(&frame, |_| ()).unwrap();
        assert!(decoder.is_between_messages());
    }

    #[test]
    fn frames_that_are_too_long_are_refused_before_they_are_stored() {
        assert_eq!(decode(&[0x13, 1, 0, 1, 0], 5), Err(ChannelError::TooLong(65537)));
        assert_eq!(decode(&[0x13, 255, 255, 255, 255], 5), Err(ChannelError::TooLong(u32::MAX)));
    }

    #[test]
    fn malformed_frames_are_refused() {
        for (kind, body) in
            [(0, &b""[..]), (0xff, b"x"), (0x10, b"x"), (0x18, b""), (0x18, b"ab"), (2, b"abc"), (0x15, b"")]
        {
            let length = u8::try_from(body.len()).unwrap();
            let frame = [&[kind, length, 0, 0, 0][..], body].concat();
            assert_eq!(decode(&frame, 100), Err(ChannelError::Malformed { kind, length: body.len() }));
        }
    }

    #[test]
    fn a_malformed_frame_spoils_what_follows_but_not_what_came_before() {
        let stream = [Message::Heartbeat.encode(), vec![0; 5], Message::Heartbeat.encode()].concat();
        let mut messages = Vec::new();
        let result = Decoder::default().push(&stream, |message| messages.push(message));
        assert!(result.is_err());
        assert_eq!(messages, [Message::Heartbeat]);
    }
}
