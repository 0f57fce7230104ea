// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The messages of vfio-user as bytes: decoding what a client sends, encoding what it gets.
//!
//! Pure functions over byte slices: nothing here touches a socket or the device, so a fuzzer can own the input. Numbers are
//! in the byte order of the machine, which the two ends share.

use thiserror::Error;
use vfio_user::Command;

/// Size of the header that starts every message.
pub const HEADER_BYTES: usize = 16;
/// Most bytes of data one REGION_READ or REGION_WRITE may carry; the client is told by the version reply.
pub const MAX_DATA_BYTES: u32 = 64 << 10;
/// Most bytes any message may have: a REGION_WRITE with all the data there may be.
pub const MAX_MESSAGE_BYTES: u32 = HEADER_BYTES as u32 + 16 + MAX_DATA_BYTES;
/// Most file descriptors one message may carry; the client is told by the version reply.
pub const MAX_MESSAGE_FDS: usize = 8;

/// Bits 3:0 of the flags: what kind of message it is.
const TYPE_MASK: u32 = 0xf;
const TYPE_COMMAND: u32 = 0;
const TYPE_REPLY: u32 = 1;
/// The sender wants no reply.
const NO_REPLY: u32 = 1 << 4;
/// The reply says why there is none.
const ERROR: u32 = 1 << 5;

/// Why a message cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// The size in the header is no size of a message: where the next one starts is unknown.
    #[error("a message claims {0} bytes; {HEADER_BYTES} to {MAX_MESSAGE_BYTES} are possible")]
    Size(u32),
    /// The message is not a command.
    #[error("a message of type {0} where only commands make sense")]
    NotACommand(u32),
    /// No such command, or one that only a server sends.
    #[error("command {0} is not one that this server knows")]
    UnknownCommand(u16),
    /// The message is shorter or longer than its command says.
    #[error("command {command} with a body of {found} bytes instead of {expected}")]
    Length {
        /// The command.
        command: u16,
        /// Bytes it should have.
        expected: usize,
        /// Bytes it has.
        found: usize,
    },
    /// More data is asked for than the version reply allows.
    #[error("an access of {0} bytes; at most {MAX_DATA_BYTES} were agreed on")]
    Count(u32),
    /// The capabilities of a VERSION are not NUL-terminated JSON.
    #[error("the capabilities in VERSION are not a NUL-terminated JSON object")]
    Capabilities,
}

/// The header of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The sender's number for this message; the reply has the same.
    pub id: u16,
    /// What it is about, not yet checked.
    pub command: u16,
    /// Size of the whole message in bytes, at least [`HEADER_BYTES`] and at most [`MAX_MESSAGE_BYTES`].
    pub size: u32,
    flags: u32,
}

impl Header {
    /// Decodes a header.
    ///
    /// # Errors
    ///
    /// [`WireError::Size`]; there is then no way to go on with this client.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, WireError> {
        let mut fields = Fields(bytes);
        let header = Self { id: fields.u16(), command: fields.u16(), size: fields.u32(), flags: fields.u32() };
        if (HEADER_BYTES as u32..=MAX_MESSAGE_BYTES).contains(&header.size) {
            Ok(header)
        } else {
            Err(WireError::Size(header.size))
        }
    }

    /// Number of bytes behind the header.
    pub fn body_bytes(&self) -> usize {
        (self.size as usize).saturating_sub(HEADER_BYTES)
    }

    /// Whether the client waits for a reply: it sent a command and did not say that it wants none.
    pub fn wants_reply(&self) -> bool {
        self.flags & (TYPE_MASK | NO_REPLY) == TYPE_COMMAND
    }

    /// The reply to this message: a header, then the parts of the body.
    pub fn reply(&self, body: &[&[u8]]) -> Vec<u8> {
        self.answer(TYPE_REPLY, 0, body)
    }

    /// The reply that says that there is none, with an `errno` value.
    pub fn error_reply(&self, errno: i32) -> Vec<u8> {
        self.answer(TYPE_REPLY | ERROR, errno.unsigned_abs(), &[])
    }

    fn answer(&self, flags: u32, errno: u32, body: &[&[u8]]) -> Vec<u8> {
        let size = HEADER_BYTES + body.iter().map(|part| part.len()).sum::<usize>();
        let mut bytes = Vec::with_capacity(size);
        bytes.extend(self.id.to_ne_bytes());
        bytes.extend(self.command.to_ne_bytes());
        // Bodies are at most MAX_DATA_BYTES and a few words.
        bytes.extend(u32::try_from(size).unwrap_or(u32::MAX).to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(errno.to_ne_bytes());
        body.iter().for_each(|part| bytes.extend_from_slice(part));
        bytes
    }
}

/// A command, decoded. The numbers mean what the client says they mean; none is checked against the device yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Agree on a version; first of all.
    Version {
        /// Must be 0.
        major: u16,
        /// The newest minor version the client knows.
        minor: u16,
    },
    /// Map memory of the client for DMA.
    DmaMap {
        /// `DmaMapFlags`.
        flags: u32,
        /// Offset in the file whose descriptor comes along.
        offset: u64,
        /// First bus address.
        address: u64,
        /// Bytes.
        size: u64,
    },
    /// Take maps away.
    DmaUnmap {
        /// `DmaUnmapFlags`.
        flags: u32,
        /// First bus address.
        address: u64,
        /// Bytes.
        size: u64,
        /// The body as it came, which is what the reply repeats.
        body: &'a [u8],
    },
    /// How many regions and interrupts are there?
    DeviceInfo,
    /// What is this region?
    RegionInfo {
        /// How much room for the answer the client has.
        argsz: u32,
        /// The region.
        index: u32,
    },
    /// What is this interrupt?
    IrqInfo {
        /// The interrupt.
        index: u32,
    },
    /// Connect interrupts to the event descriptors that come along, or disconnect them.
    SetIrqs {
        /// `VFIO_IRQ_SET_*`.
        flags: u32,
        /// The interrupt.
        index: u32,
        /// First vector of it.
        start: u32,
        /// Number of vectors.
        count: u32,
    },
    /// Read a region.
    RegionRead {
        /// Byte offset in the region.
        offset: u64,
        /// The region.
        region: u32,
        /// Bytes, at most [`MAX_DATA_BYTES`].
        count: u32,
    },
    /// Write a region.
    RegionWrite {
        /// Byte offset in the region.
        offset: u64,
        /// The region.
        region: u32,
        /// What to write, at most [`MAX_DATA_BYTES`].
        data: &'a [u8],
    },
    /// Reset the device.
    Reset,
}

impl<'a> Request<'a> {
    /// Decodes the body of a message.
    ///
    /// # Errors
    ///
    /// Any [`WireError`] but `Size`; the message is to be answered with an error, and the next one may be fine.
    pub fn decode(header: &Header, body: &'a [u8]) -> Result<Self, WireError> {
        if header.flags & TYPE_MASK != TYPE_COMMAND {
            return Err(WireError::NotACommand(header.flags & TYPE_MASK));
        }
        let unknown = WireError::UnknownCommand(header.command);
        let command = Command::n(header.command).ok_or(unknown)?;
        let exactly = |expected: usize| {
            if body.len() == expected {
                Ok(Fields(body))
            } else {
                Err(WireError::Length { command: header.command, expected, found: body.len() })
            }
        };
        Ok(match command {
            Command::Version => Self::version(body)?,
            Command::DmaMap => {
                let mut fields = exactly(32)?;
                fields.u32(); // argsz: how much room for a reply, which has no body
                Self::DmaMap { flags: fields.u32(), offset: fields.u64(), address: fields.u64(), size: fields.u64() }
            }
            Command::DmaUnmap => {
                let mut fields = exactly(24)?;
                fields.u32();
                Self::DmaUnmap { flags: fields.u32(), address: fields.u64(), size: fields.u64(), body }
            }
            Command::DeviceGetInfo => exactly(16).map(|_| Self::DeviceInfo)?,
            Command::DeviceGetRegionInfo => {
                let mut fields = exactly(32)?;
                let argsz = fields.u32();
                fields.u32();
                Self::RegionInfo { argsz, index: fields.u32() }
            }
            Command::GetIrqInfo => {
                let mut fields = exactly(16)?;
                fields.u64();
                Self::IrqInfo { index: fields.u32() }
            }
            Command::SetIrqs => {
                let mut fields = exactly(20)?;
                fields.u32();
                Self::SetIrqs { flags: fields.u32(), index: fields.u32(), start: fields.u32(), count: fields.u32() }
            }
            Command::RegionRead => {
                let (offset, region, count) = exactly(16)?.access()?;
                Self::RegionRead { offset, region, count }
            }
            Command::RegionWrite => {
                let Some((fixed, data)) = body.split_at_checked(16) else {
                    return Err(WireError::Length { command: header.command, expected: 16, found: body.len() });
                };
                let (offset, region, count) = Fields(fixed).access()?;
                if data.len() != count as usize {
                    return Err(WireError::Length {
                        command: header.command,
                        expected: 16 + count as usize,
                        found: body.len(),
                    });
                }
                Self::RegionWrite { offset, region, data }
            }
            Command::DeviceReset => exactly(0).map(|_| Self::Reset)?,
            Command::Unknown
            | Command::GetRegionIoFds
            | Command::DmaRead
            | Command::DmaWrite
            | Command::UserDirtyPages => {
                return Err(unknown);
            }
        })
    }

    /// A VERSION: two numbers, then optional capabilities, of which this server needs none but that they are well-formed.
    fn version(body: &'a [u8]) -> Result<Self, WireError> {
        let Some((mut fields, text)) = body.split_at_checked(4).map(|(fixed, text)| (Fields(fixed), text)) else {
            return Err(WireError::Length { command: Command::Version as u16, expected: 4, found: body.len() });
        };
        if !text.is_empty() {
            let json = text.strip_suffix(b"\0").ok_or(WireError::Capabilities)?;
            serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(json)
                .map_err(|_| WireError::Capabilities)?;
        }
        Ok(Self::Version { major: fields.u16(), minor: fields.u16() })
    }
}

/// Reads numbers off the front of bytes whose length was checked; beyond the end they are zero.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (value, rest) = self.0.split_first_chunk().map_or(([0; N], &[][..]), |(value, rest)| (*value, rest));
        self.0 = rest;
        value
    }

    fn u16(&mut self) -> u16 {
        u16::from_ne_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_ne_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_ne_bytes(self.take())
    }

    /// The fixed part of REGION_READ and REGION_WRITE: offset, region, count.
    fn access(&mut self) -> Result<(u64, u32, u32), WireError> {
        let (offset, region, count) = (self.u64(), self.u32(), self.u32());
        if count <= MAX_DATA_BYTES { Ok((offset, region, count)) } else { Err(WireError::Count(count)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(command: Command, size: usize, flags: u32) -> Header {
        Header { id: 7, command: command as u16, size: size as u32, flags }
    }

    fn decode(command: Command, body: &[u8]) -> Result<Request<'_>, WireError> {
        Request::decode(&header(command, HEADER_BYTES + body.len(), 0), body)
    }

    #[test]
    fn sizes_that_lose_the_place_are_refused() {
        let mut bytes = [0; HEADER_BYTES];
        for size in [0, 15, MAX_MESSAGE_BYTES + 1, u32::MAX] {
            bytes[4..8].copy_from_slice(&size.to_ne_bytes());
            assert_eq!(Header::decode(&bytes), Err(WireError::Size(size)));
        }
        bytes[4..8].copy_from_slice(&16u32.to_ne_bytes());
        assert_eq!(Header::decode(&bytes).map(|header| header.body_bytes()), Ok(0));
    }

    #[test]
    fn a_count_that_contradicts_the_size_is_refused() {
        let mut body = vec![0; 20];
        body[12..16].copy_from_slice(&8u32.to_ne_bytes());
        let wrong = WireError::Length { command: Command::RegionWrite as u16, expected: 24, found: 20 };
        assert_eq!(decode(Command::RegionWrite, &body), Err(wrong));
        body[12..16].copy_from_slice(&4u32.to_ne_bytes());
        assert_eq!(
            decode(Command::RegionWrite, &body),
            Ok(Request::RegionWrite { offset: 0, region: 0, data: &[0; 4] })
        );
    }

    #[test]
    fn an_access_of_gigabytes_is_refused_before_memory_is_taken_for_it() {
        let mut body = [0; 16];
        body[12..16].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(decode(Command::RegionRead, &body), Err(WireError::Count(u32::MAX)));
    }

    #[test]
    fn capabilities_without_nul_are_refused() {
        assert_eq!(decode(Command::Version, b"\0\0\0\0{}"), Err(WireError::Capabilities));
        assert_eq!(decode(Command::Version, b"\0\0\0\0{\0"), Err(WireError::Capabilities));
        assert_eq!(decode(Command::Version, b"\0\0\0\0[]\0"), Err(WireError::Capabilities));
        assert!(decode(Command::Version, b"\0\0\0\0{}\0").is_ok());
        assert!(decode(Command::Version, b"\0\0\0\0").is_ok());
        assert!(decode(Command::Version, b"\0").is_err());
    }

    #[test]
    fn replies_and_server_commands_are_not_commands() {
        let reply = header(Command::DeviceReset, HEADER_BYTES, TYPE_REPLY);
        assert_eq!(Request::decode(&reply, &[]), Err(WireError::NotACommand(1)));
        assert!(!reply.wants_reply());
        assert_eq!(decode(Command::DmaRead, &[0; 16]), Err(WireError::UnknownCommand(11)));
        let unknown = Header { id: 1, command: 4711, size: 16, flags: 0 };
        assert_eq!(Request::decode(&unknown, &[]), Err(WireError::UnknownCommand(4711)));
    }

    #[test]
    fn an_error_reply_names_the_message() {
        let bytes = header(Command::DmaMap, 48, 0).error_reply(libc::EINVAL);
        assert_eq!(bytes[0..2], 7u16.to_ne_bytes());
        assert_eq!(bytes[4..8], 16u32.to_ne_bytes());
        assert_eq!(bytes[8..12], (TYPE_REPLY | ERROR).to_ne_bytes());
        assert_eq!(bytes[12..16], 22u32.to_ne_bytes());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(head: [u8; HEADER_BYTES], body: Vec<u8>, command in 0u16..16) {
            if let Ok(mut header) = Header::decode(&head) {
                let _ = Request::decode(&header, &body);
                header.command = command;
                header.flags = 0;
                let _ = Request::decode(&header, &body);
            }
        }
    }
}
