// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guest memory as a file: made, and copied from one file to another with its holes.
//!
//! A booted guest uses a tenth of the memory it was given, or less. Pages it never touched are holes, and so are, in a snapshot,
//! those that hold nothing but zeros.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, SealFlags, SeekFrom as Seeking, fcntl_add_seals, memfd_create, seek};
use rustix::io::Errno;

/// Bytes looked at at a time.
const PIECE: usize = 1 << 20;
/// Granularity of holes.
const PAGE: usize = 4096;

/// Memory of `size` bytes, all zeros, in a file without a name that cannot change its size.
///
/// # Errors
///
/// Fails if the system has no room.
pub fn new_memory(name: &str, size: u64) -> io::Result<File> {
    let memory = File::from(memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    memory.set_len(size)?;
    fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(memory)
}

/// Copies the first `length` bytes of memory to a file, leaving out pages of zeros, which must be holes there.
///
/// # Errors
///
/// Fails if reading or writing fails.
pub fn save(memory: &File, length: u64, target: &File) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    for_each_piece(memory, length, |offset, size| {
        let piece = &mut buffer[..size];
        memory.read_exact_at(piece, offset)?;
        write_without_zeros(target, offset, piece)
    })
}

/// Copies what is in the first `length` bytes of a file to memory that is all zeros.
///
/// # Errors
///
/// Fails if reading or writing fails.
pub fn load(source: &File, length: u64, memory: &File) -> io::Result<()> {
    let (mut from, mut to) = (source.try_clone()?, memory.try_clone()?);
    for_each_extent(source, length, |start, end| {
        from.seek(SeekFrom::Start(start))?;
        to.seek(SeekFrom::Start(start))?;
        let copied = io::copy(&mut (&mut from).take(end - start), &mut to)?;
        if copied == end - start { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    })
}

/// Writes the pages of a piece that are not all zeros, neighbours together.
fn write_without_zeros(target: &File, offset: u64, piece: &[u8]) -> io::Result<()> {
    let mut run: Option<usize> = None;
    let pages = piece.chunks(PAGE).map(|page| page.iter().any(|&byte| byte != 0));
    for (index, used) in pages.chain([false]).enumerate() {
        let position = (index * PAGE).min(piece.len());
        match (used, run) {
            (true, None) => run = Some(position),
            (false, Some(start)) => {
                target.write_all_at(&piece[start..position], offset + start as u64)?;
                run = None;
            }
            _ => {}
        }
    }
    Ok(())
}

fn for_each_piece(file: &File, length: u64, mut visit: impl FnMut(u64, usize) -> io::Result<()>) -> io::Result<()> {
    for_each_extent(file, length, |mut start, end| {
        while start < end {
            let size = usize::try_from(end - start).unwrap_or(PIECE).min(PIECE);
            visit(start, size)?;
            start += size as u64;
        }
        Ok(())
    })
}

/// Visits the parts of the first `length` bytes of a file that are not holes, by start and end.
fn for_each_extent(file: &File, length: u64, mut visit: impl FnMut(u64, u64) -> io::Result<()>) -> io::Result<()> {
    let mut position = 0;
    while position < length {
        let start = match seek(file.as_fd(), Seeking::Data(position)) {
            Ok(start) if start < length => start,
            Ok(_) | Err(Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        // There is a hole at the end of every file.
        let end = seek(file.as_fd(), Seeking::Hole(start))?.min(length);
        visit(start, end)?;
        position = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use proptest::prelude::*;

    use super::*;

    const SIZE: u64 = 16 << 20;

    #[test]
    fn memory_keeps_its_size() {
        let memory = new_memory("test", SIZE).unwrap();
        assert!(memory.set_len(SIZE / 2).is_err());
        assert!(memory.set_len(SIZE * 2).is_err());
        memory.set_len(SIZE).unwrap();
    }

    #[test]
    fn zeros_take_no_room_and_come_back_as_zeros() {
        let memory = new_memory("test", SIZE).unwrap();
        memory.write_all_at(&vec![0; 4 << 20], 0).unwrap();
        memory.write_all_at(&[7; 100], (3 << 20) + 5000).unwrap();
        let file = tempfile::tempfile().unwrap();
        save(&memory, SIZE, &file).unwrap();
        assert!(file.metadata().unwrap().blocks() * 512 <= 64 << 10, "{} blocks", file.metadata().unwrap().blocks());
        let restored = new_memory("test", SIZE).unwrap();
        load(&file, SIZE, &restored).unwrap();
        let mut bytes = [0; 102];
        restored.read_exact_at(&mut bytes, (3 << 20) + 4999).unwrap();
        assert_eq!((bytes[0], bytes[101]), (0, 0));
        assert!(bytes[1..101].iter().all(|&byte| byte == 7));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn whatever_is_written_comes_back(
            writes in prop::collection::vec((0..SIZE - 20_000, 1usize..20_000, any::<u8>()), 0..20)
        ) {
            let (memory, restored) = (new_memory("a", SIZE).unwrap(), new_memory("b", SIZE).unwrap());
            for (offset, length, byte) in writes {
                memory.write_all_at(&vec![byte; length], offset).unwrap();
            }
            let file = tempfile::tempfile().unwrap();
            save(&memory, SIZE, &file).unwrap();
            load(&file, SIZE, &restored).unwrap();
            let read = |file: &File| {
                let mut bytes = vec![0; SIZE as usize];
                file.read_exact_at(&mut bytes, 0).unwrap();
                bytes
            };
            prop_assert!(read(&memory) == read(&restored));
        }
    }
}
