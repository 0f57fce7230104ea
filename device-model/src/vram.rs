// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device's own memory: a sparse memfd that the bus maps for the guest and the engines map for themselves.
//!
//! A terabyte costs nothing but address space until a page of it is touched. The file is sealed against changes
//! of its size, so a process that gets the descriptor cannot make an access raise SIGBUS here.

use std::fs::File;
use std::io;
use std::sync::Arc;

use ersatz_abi::error::ErrorCode;
use ersatz_abi::pci::{VRAM_MAX, VRAM_MIN};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, memfd_create};
use thiserror::Error;
use vm_memory::mmap::MmapRegionError;
use vm_memory::{FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

use crate::handed_over::HandedOverPages;
use crate::poison::PoisonedPages;

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
    poisoned: PoisonedPages,
    handed_over: HandedOverPages,
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
        Ok(Self {
            file: Arc::new(file),
            region,
            poisoned: PoisonedPages::default(),
            handed_over: HandedOverPages::new(size),
        })
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

    /// The pages that have lost their content.
    pub(crate) fn poisoned(&self) -> &PoisonedPages {
        &self.poisoned
    }

    /// The pages that are the host's.
    pub(crate) fn handed_over(&self) -> &HandedOverPages {
        &self.handed_over
    }

    /// Why no engine accesses `length` bytes from an offset on, and the page that is the reason; `None` if they can.
    #[inline]
    pub(crate) fn refusal(&self, offset: u64, length: u64) -> Option<(ErrorCode, u64)> {
        if let Some(page) = self.poisoned.first_in(offset, length) {
            return Some((ErrorCode::Poisoned, page));
        }
        self.handed_over.first_in(offset, length).map(|page| (ErrorCode::HandedOver, page))
    }

    /// Makes part of it read as zero, and gives its pages back to the host. A range that does not lie wholly inside stays as it is.
    pub(crate) fn zero(&self, offset: u64, length: u64) {
        let Some(slice) = self.slice(offset, length) else { return };
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if length > 0 && fallocate(&*self.file, mode, offset, length).is_err() {
            let page = [0_u8; 4096];
            let pieces = slice.len().div_ceil(page.len());
            let rest = |piece: usize| slice.offset(piece * page.len()).ok();
            (0..pieces).filter_map(rest).for_each(|slice| slice.copy_from(&page));
        }
    }

    /// Gives all pages back: everything reads as zero again, through every mapping.
    ///
    /// # Errors
    ///
    /// What `fallocate` says.
    pub fn clear(&self) -> io::Result<()> {
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&*self.file, mode, 0, self.size())?)
    }
}

fn sealed_memory_file(size: u64) -> io::Result<File> {
    let file = File::from(memfd_create(c"ersatz-vram", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    file.set_len(size)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use vm_memory::Bytes;

    use super::*;

    #[test]
    fn sizes_are_powers_of_two_in_range() {
        for size in [0, 1, VRAM_MIN - 1, VRAM_MIN / 2, 3 << 20, VRAM_MAX + 4096, VRAM_MAX * 2, u64::MAX] {
            assert!(matches!(Vram::new(size), Err(VramError::Size(refused)) if refused == size), "{size:#x}");
        }
        assert_eq!(Vram::new(VRAM_MIN).unwrap().size(), VRAM_MIN);
    }

    #[test]
    fn a_terabyte_costs_the_pages_that_are_touched() {
        let vram = Vram::new(VRAM_MAX).unwrap();
        vram.slice(VRAM_MAX - 8, 8).unwrap().write_obj(0x0123_4567_89ab_cdef_u64, 0).unwrap();
        assert!(vram.file().metadata().unwrap().blocks() * 512 <= 2 << 20, "one page, huge at most");
        assert_eq!(vram.slice(VRAM_MAX - 8, 8).unwrap().read_obj::<u64>(0).unwrap(), 0x0123_4567_89ab_cdef);
    }

    #[test]
    fn slices_end_where_vram_does() {
        let vram = Vram::new(VRAM_MIN).unwrap();
        assert!(vram.slice(0, VRAM_MIN).is_some());
        for (offset, length) in [(1, VRAM_MIN), (VRAM_MIN, 1), (VRAM_MIN - 7, 8), (u64::MAX, 2), (8, u64::MAX)] {
            assert!(vram.slice(offset, length).is_none(), "{offset:#x} + {length:#x}");
        }
    }

    #[test]
    fn clearing_gives_the_pages_back() {
        let vram = Vram::new(VRAM_MIN).unwrap();
        vram.slice(4096, 8).unwrap().write_obj(u64::MAX, 0).unwrap();
        vram.clear().unwrap();
        assert_eq!(vram.file().metadata().unwrap().blocks(), 0);
        assert_eq!(vram.slice(4096, 8).unwrap().read_obj::<u64>(0).unwrap(), 0);
    }

    #[test]
    fn a_part_is_zeroed_and_given_back() {
        let vram = Vram::new(VRAM_MIN).unwrap();
        for page in 0..3_u64 {
            vram.slice(page * 4096, 8).unwrap().write_obj(page + 7, 0).unwrap();
        }
        vram.zero(4096, 4096);
        vram.zero(VRAM_MIN - 4096, 8192);
        let read = |page: u64| vram.slice(page * 4096, 8).unwrap().read_obj::<u64>(0).unwrap();
        assert_eq!([read(0), read(1), read(2)], [7, 0, 9]);
    }

    #[test]
    fn nobody_can_truncate_the_file() {
        let vram = Vram::new(VRAM_MIN).unwrap();
        assert!(vram.file().set_len(0).is_err());
        assert!(vram.file().set_len(VRAM_MIN * 2).is_err());
    }
}
