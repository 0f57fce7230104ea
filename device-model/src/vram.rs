// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device's own memory: a sparse memfd that the bus maps for the guest and the engines map for themselves.
//!
//! A terabyte costs nothing but address space until somebody touches a page of it. The file is sealed against changes
//! of its size, so handing out the descriptor gives nobody the means to raise SIGBUS here.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use ersatz_abi::pci::{VRAM_MAX, VRAM_MIN};
use thiserror::Error;
use vm_memory::mmap::MmapRegionError;
use vm_memory::{FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

/// Why there is no VRAM.
#[derive(Debug, Error)]
pub enum VramError {
    /// The size is not one the device can have.
    #[error("VRAM of {0:#x} bytes: it must be a power of two from 2 MiB to 1 TiB")]
    Size(u64),
    /// The kernel gave no memory file of that size.
    #[error("cannot create a memory file of {size:#x} bytes for VRAM")]
    Create {
        /// Size in bytes.
        size: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file could not be mapped.
    #[error("cannot map {size:#x} bytes of VRAM; is the address space limited (ulimit -v)?")]
    Map {
        /// Size in bytes.
        size: u64,
        /// Why.
        #[source]
        source: MmapRegionError,
    },
}

/// The device's memory.
#[derive(Debug)]
pub struct Vram {
    file: Arc<File>,
    region: MmapRegion,
}

impl Vram {
    /// Zeroed memory of `size` bytes: a power of two from [`VRAM_MIN`] to [`VRAM_MAX`].
    ///
    /// # Errors
    ///
    /// Whatever [`VramError`] lists.
    pub fn new(size: u64) -> Result<Self, VramError> {
        if !size.is_power_of_two() || !(VRAM_MIN..=VRAM_MAX).contains(&size) {
            return Err(VramError::Size(size));
        }
        let length = usize::try_from(size).map_err(|_| VramError::Size(size))?;
        let file = sealed_memory_file(size).map_err(|source| VramError::Create { size, source })?;
        let duplicate = file.try_clone().map_err(|source| VramError::Create { size, source })?;
        let region = MmapRegion::from_file(FileOffset::new(duplicate, 0), length)
            .map_err(|source| VramError::Map { size, source })?;
        Ok(Self { file: Arc::new(file), region })
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.region.size() as u64
    }

    /// The file behind it, [`Self::size`] bytes from offset zero.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Part of it; `None` if the range does not lie wholly inside.
    pub fn slice(&self, offset: u64, length: u64) -> Option<VolatileSlice<'_>> {
        self.region.get_slice(usize::try_from(offset).ok()?, usize::try_from(length).ok()?).ok()
    }

    /// Gives all pages back: everything reads as zero again, through every mapping.
    ///
    /// # Errors
    ///
    /// What `fallocate` says.
    pub fn clear(&self) -> io::Result<()> {
        let length = i64::try_from(self.size()).map_err(io::Error::other)?;
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: the descriptor is open for as long as `self.file` lives; the call takes no pointers.
        check(unsafe { libc::fallocate(self.file.as_raw_fd(), mode, 0, length) })
    }
}

fn sealed_memory_file(size: u64) -> io::Result<File> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a NUL-terminated string that outlives the call.
    let descriptor = unsafe { libc::memfd_create(c"ersatz-vram".as_ptr(), flags) };
    check(descriptor)?;
    // SAFETY: the call above returned this descriptor, and nothing else owns it.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
    file.set_len(size)?;
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: the descriptor is that of `file`; F_ADD_SEALS takes an integer.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
    Ok(file)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
