// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guest memory: one memfd, mapped once for each range of RAM.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;
use std::sync::Arc;

use thiserror::Error;
use vm_memory::mmap::FromRangesError;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};

use super::layout::Layout;

/// Why there is no guest memory.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// The memfd could not be made or sized.
    #[error("cannot make a memory file of {size} bytes for the guest")]
    File {
        /// Guest memory in bytes.
        size: u64,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A range does not fit into this process.
    #[error("guest memory of {0} bytes is more than this process can map")]
    TooLarge(u64),
    /// `mmap` refused.
    #[error("cannot map the guest's memory of {size} bytes")]
    Map {
        /// Guest memory in bytes.
        size: u64,
        /// What the system said.
        #[source]
        source: FromRangesError,
    },
}

/// Makes the RAM of `layout`, all zeros, none of it resident yet.
///
/// # Errors
///
/// [`MemoryError`] if the system does not give it.
pub fn allocate(layout: &Layout) -> Result<GuestMemoryMmap, MemoryError> {
    let high_size = layout.high_ram.end - layout.high_ram.start;
    let size = layout.low_ram_end + high_size;
    let file = memfd(c"guest-memory", size).map_err(|source| MemoryError::File { size, source })?;
    let file = Arc::new(file);
    let length = |bytes: u64| usize::try_from(bytes).map_err(|_| MemoryError::TooLarge(size));

    let mut ranges =
        vec![(GuestAddress(0), length(layout.low_ram_end)?, Some(FileOffset::from_arc(Arc::clone(&file), 0)))];
    if high_size > 0 {
        ranges.push((
            GuestAddress(layout.high_ram.start),
            length(high_size)?,
            Some(FileOffset::from_arc(file, layout.low_ram_end)),
        ));
    }
    GuestMemoryMmap::from_ranges_with_files(ranges).map_err(|source| MemoryError::Map { size, source })
}

/// An anonymous file of `size` bytes in memory.
fn memfd(name: &CStr, size: u64) -> io::Result<File> {
    // SAFETY: `name` is a NUL-terminated string that outlives the call.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above made `fd`, and nothing else owns it.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(size)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestMemoryBackend};

    use super::*;

    #[test]
    fn memory_above_the_gap_is_its_own_region() {
        let layout = Layout::new((3 << 30) + (64 << 20), 40).unwrap();
        let memory = allocate(&layout).unwrap();
        assert_eq!(memory.num_regions(), 2);
        memory.write_obj(0x1234_5678_u32, GuestAddress(0x1_0000_0000)).unwrap();
        assert_eq!(memory.read_obj::<u32>(GuestAddress(0)).unwrap(), 0);
        assert_eq!(memory.read_obj::<u32>(GuestAddress(0x1_0000_0000)).unwrap(), 0x1234_5678);
        assert!(memory.read_obj::<u32>(GuestAddress(0xc000_0000)).is_err());
    }
}
