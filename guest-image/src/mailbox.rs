// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The mailbox: memory by which the host hands a run over to a guest that was restored from a snapshot.
//!
//! It is BAR2 of an `ivshmem-plain` device of QEMU, or of the function of the VMM that looks the same: memory that host and guest
//! share, with no driver. A restored guest is in the middle of looking at it. The host writes a [`Header`] and behind it the
//! archives of [`run`](crate::run), and last the state that says that they are there. All numbers are little-endian.
//!
//! ```text
//! 0x00  8  magic                     0x20  4  number of GPUs that come with the run
//! 0x08  4  state (0 empty, 1 full)   0x28  8  wall clock, nanoseconds since 1970
//! 0x10  8  length of the archives    0x40 64  random bytes for the guest's generator
//! 0x1000   the archives
//! ```

mod reader;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use thiserror::Error;

pub use self::reader::{Archives, Mailbox, ReadError};

/// PCI vendor of the device.
pub const VENDOR: u16 = 0x1af4;
/// PCI device id of the device.
pub const DEVICE: u16 = 0x1110;
/// The BAR that is the memory.
pub const BAR: u8 = 2;
/// Size of the memory in bytes. Only what is written takes any.
pub const SIZE: u64 = 1 << 30;
/// Where the archives begin.
pub const ARCHIVES: u64 = 0x1000;

/// First bytes of a mailbox that was ever written.
const MAGIC: u64 = u64::from_le_bytes(*b"ersatz-1");
/// Offset of the state.
const STATE: usize = 8;
/// The state of a full mailbox.
const FULL: u32 = 1;
/// Bytes of the header.
pub const HEADER_SIZE: usize = 0x80;
/// Offset of the random bytes.
const SEED: usize = 0x40;
/// Number of random bytes.
pub const SEED_SIZE: usize = 64;

/// What is in front of the archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Length of the archives in bytes.
    pub length: u64,
    /// Number of GPUs that come with the run.
    pub gpus: u32,
    /// The wall clock, as time since 1970.
    pub wall_clock: Duration,
    /// Random bytes that no other guest gets.
    pub seed: [u8; SEED_SIZE],
}

/// Why the content of a full mailbox is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MailboxError {
    /// Written by another version.
    #[error("the mailbox is of another version (magic {0:#x}); host and guest must be of one build")]
    Version(u64),
    /// The archives would not fit in.
    #[error("the mailbox claims {0} bytes of archives, and has room for {room}", room = SIZE - ARCHIVES)]
    Length(u64),
}

/// Puts a run into a mailbox, the state last.
///
/// # Errors
///
/// Fails if the archives do not fit, or the memory cannot be written.
pub fn fill(memory: &File, header: &Header, archives: &[u8]) -> io::Result<()> {
    if archives.len() as u64 != header.length || header.length > SIZE - ARCHIVES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("a run of {} bytes does not fit into a mailbox of {SIZE}", archives.len()),
        ));
    }
    memory.write_all_at(archives, ARCHIVES)?;
    memory.write_all_at(&header.encode(), 0)?;
    memory.write_all_at(&FULL.to_le_bytes(), STATE as u64)
}

impl Header {
    /// The header as bytes, its state still that of an empty mailbox.
    fn encode(&self) -> [u8; HEADER_SIZE] {
        let nanoseconds = u64::try_from(self.wall_clock.as_nanos()).unwrap_or(u64::MAX);
        let mut bytes = [0; HEADER_SIZE];
        let mut put = |offset: usize, value: &[u8]| bytes[offset..offset + value.len()].copy_from_slice(value);
        put(0, &MAGIC.to_le_bytes());
        put(0x10, &self.length.to_le_bytes());
        put(0x20, &self.gpus.to_le_bytes());
        put(0x28, &nanoseconds.to_le_bytes());
        put(SEED, &self.seed);
        bytes
    }

    /// Whether the state says that the mailbox is full.
    fn is_full(bytes: &[u8; HEADER_SIZE]) -> bool {
        u32_at(bytes, STATE) == FULL
    }

    /// Reads the header; `None` while the mailbox is empty.
    ///
    /// # Errors
    ///
    /// Fails if it is full and its content is not valid.
    pub fn decode(bytes: &[u8; HEADER_SIZE]) -> Result<Option<Self>, MailboxError> {
        if !Self::is_full(bytes) {
            return Ok(None);
        }
        let (magic, length) = (u64_at(bytes, 0), u64_at(bytes, 0x10));
        if magic != MAGIC {
            return Err(MailboxError::Version(magic));
        }
        if length > SIZE - ARCHIVES {
            return Err(MailboxError::Length(length));
        }
        let mut seed = [0; SEED_SIZE];
        seed.copy_from_slice(&bytes[SEED..SEED + SEED_SIZE]);
        Ok(Some(Self {
            length,
            gpus: u32_at(bytes, 0x20),
            wall_clock: Duration::from_nanos(u64_at(bytes, 0x28)),
            seed,
        }))
    }
}

fn u32_at(bytes: &[u8; HEADER_SIZE], offset: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(value)
}

fn u64_at(bytes: &[u8; HEADER_SIZE], offset: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let mut seed = [0; SEED_SIZE];
        seed.iter_mut().zip(1..).for_each(|(byte, number)| *byte = number);
        Header { length: 5, gpus: 2, wall_clock: Duration::from_nanos(1_234_567_890_123), seed }
    }

    fn read(memory: &File) -> Result<Option<Header>, MailboxError> {
        let mut bytes = [0; HEADER_SIZE];
        memory.read_exact_at(&mut bytes, 0).unwrap();
        Header::decode(&bytes)
    }

    #[test]
    fn what_was_put_in_is_found() {
        let memory = tempfile::tempfile().unwrap();
        memory.set_len(SIZE).unwrap();
        assert_eq!(read(&memory), Ok(None));
        fill(&memory, &header(), b"hello").unwrap();
        assert_eq!(read(&memory), Ok(Some(header())));
        let mut archives = [0; 5];
        memory.read_exact_at(&mut archives, ARCHIVES).unwrap();
        assert_eq!(&archives, b"hello");
    }

    #[test]
    fn a_run_that_does_not_fit_is_refused() {
        let memory = tempfile::tempfile().unwrap();
        assert!(fill(&memory, &Header { length: 4, ..header() }, b"hello").is_err());
        assert_eq!(memory.metadata().unwrap().len(), 0);
    }

    #[test]
    fn a_header_that_makes_no_sense_is_refused() {
        let mut bytes = header().encode();
        assert_eq!(Header::decode(&bytes), Ok(None));
        bytes[STATE] = 1;
        bytes[0x17] = 0xff;
        assert!(matches!(Header::decode(&bytes), Err(MailboxError::Length(_))));
        bytes[0] ^= 1;
        assert!(matches!(Header::decode(&bytes), Err(MailboxError::Version(_))));
        bytes[STATE] = 2;
        assert_eq!(Header::decode(&bytes), Ok(None));
    }
}
