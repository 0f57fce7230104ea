// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One snapshot on disk, as one file: guest memory with its holes, the machine's state behind it, and at the end what says where
//! they are. Being one file, it is published by giving it a name: it is whole or not there.
//!
//! ```text
//! 0                guest memory
//! memory           state of the machine, as QEMU wrote it
//! memory + state   footer: magic, length of the memory, length of the state; 8 bytes each, little-endian
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::ram;

/// The first bytes of the footer; the digit is the version of the format.
const MAGIC: [u8; 8] = *b"ersatzS1";
/// Bytes of the footer.
const FOOTER: u64 = 24;
/// Longest state that is taken for one: a hundred times what machines have.
const STATE_MAX: u64 = 64 << 20;

/// A snapshot that was opened. It stays good when its file is removed.
#[derive(Debug)]
pub struct Snapshot {
    file: File,
    memory: u64,
    state: u64,
}

impl Snapshot {
    /// Writes a snapshot to an empty file.
    ///
    /// # Errors
    ///
    /// Fails if reading or writing fails.
    pub fn write(file: &File, memory: &File, state: &[u8]) -> io::Result<()> {
        let length = memory.metadata()?.len();
        ram::save(memory, length, file)?;
        file.write_all_at(state, length)?;
        let footer = [MAGIC, length.to_le_bytes(), (state.len() as u64).to_le_bytes()].concat();
        file.write_all_at(&footer, length + state.len() as u64)?;
        file.sync_all()
    }

    /// Opens a snapshot.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be read, or is not one.
    pub fn open(file: File) -> io::Result<Self> {
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "this is not a snapshot, or not all of one");
        let length = file.metadata()?.len();
        let mut footer = [0; FOOTER as usize];
        file.read_exact_at(&mut footer, length.checked_sub(FOOTER).ok_or_else(invalid)?)?;
        let [magic, memory, state] = [0, 8, 16].map(|at| {
            let mut word = [0; 8];
            word.copy_from_slice(&footer[at..at + 8]);
            word
        });
        let (memory, state) = (u64::from_le_bytes(memory), u64::from_le_bytes(state));
        let whole = memory.checked_add(state).and_then(|sum| sum.checked_add(FOOTER));
        if magic != MAGIC || whole != Some(length) || state > STATE_MAX {
            return Err(invalid());
        }
        Ok(Self { file, memory, state })
    }

    /// Size of the guest's memory in bytes.
    pub fn memory_size(&self) -> u64 {
        self.memory
    }

    /// The file, which begins with the guest's memory. It must not be written to.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Copies the guest's memory to one of the same size that is all zeros.
    ///
    /// # Errors
    ///
    /// Fails if reading or writing fails.
    pub fn load_memory(&self, memory: &File) -> io::Result<()> {
        ram::load(&self.file, self.memory, memory)
    }

    /// The state of the machine, in a file of its own without a name.
    ///
    /// # Errors
    ///
    /// Fails if reading or writing fails.
    pub fn state(&self) -> io::Result<File> {
        let mut bytes = vec![0; usize::try_from(self.state).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, self.memory)?;
        let file = ram::new_memory("ersatz-state", self.state)?;
        file.write_all_at(&bytes, 0)?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn written() -> File {
        let memory = ram::new_memory("test", 1 << 20).unwrap();
        memory.write_all_at(b"memory", 5000).unwrap();
        let file = tempfile::tempfile().unwrap();
        Snapshot::write(&file, &memory, b"state").unwrap();
        file
    }

    #[test]
    fn what_was_written_is_opened() {
        let snapshot = Snapshot::open(written()).unwrap();
        assert_eq!(snapshot.memory_size(), 1 << 20);
        let memory = ram::new_memory("test", 1 << 20).unwrap();
        snapshot.load_memory(&memory).unwrap();
        let mut bytes = [0; 6];
        memory.read_exact_at(&mut bytes, 5000).unwrap();
        assert_eq!(&bytes, b"memory");
        let mut state = String::new();
        snapshot.state().unwrap().read_to_string(&mut state).unwrap();
        assert_eq!(state, "state");
    }

    #[test]
    fn what_is_not_a_whole_snapshot_is_refused() {
        assert!(Snapshot::open(tempfile::tempfile().unwrap()).is_err());
        let length = written().metadata().unwrap().len();
        for cut in [1, FOOTER, FOOTER + 1, length / 2] {
            let file = written();
            file.set_len(length - cut).unwrap();
            assert!(Snapshot::open(file).is_err(), "{cut} bytes cut off");
        }
        for at in 0..FOOTER {
            let file = written();
            file.write_all_at(&[0xff], length - FOOTER + at).unwrap();
            assert!(Snapshot::open(file).is_err(), "byte {at} of the footer");
        }
    }
}
