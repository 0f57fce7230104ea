// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guest memory: anonymous memory, one mapping for each range of RAM, in huge pages where the host has them.
//!
//! Anonymous memory and not a memfd, because of huge pages: by default Linux gives them to the former and never to the
//! latter. A guest's first touch of a page costs a page fault of KVM, so a boot has hundreds of those instead of tens of
//! thousands, which is most noticeable where KVM itself runs in a virtual machine.

use thiserror::Error;
use vm_memory::mmap::MmapRegionError;
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionCollectionError, GuestRegionMmap, MmapRegion};

use super::layout::Layout;

/// Why there is no guest memory.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// A range does not fit into this process.
    #[error("guest memory of {0} bytes is more than this process can map")]
    TooLarge(u64),
    /// `mmap` refused.
    #[error("cannot map {size} bytes of memory for the guest")]
    Map {
        /// Length of the range in bytes.
        size: u64,
        /// The system's error.
        #[source]
        source: MmapRegionError,
    },
    /// The ranges of RAM overlap or wrap around.
    #[error("the ranges of guest memory do not make an address space")]
    Ranges(#[source] GuestRegionCollectionError),
}

/// Makes the RAM of `layout`, all zeros, none of it resident yet.
///
/// # Errors
///
/// [`MemoryError`] if the system does not give it.
pub fn allocate(layout: &Layout) -> Result<GuestMemoryMmap, MemoryError> {
    let low_ram = 0..layout.low_ram_end;
    let regions = [&low_ram, &layout.high_ram]
        .into_iter()
        .filter(|range| !range.is_empty())
        .map(|range| {
            let size = range.end - range.start;
            let length = usize::try_from(size).map_err(|_| MemoryError::TooLarge(size))?;
            let region = MmapRegion::new(length).map_err(|source| MemoryError::Map { size, source })?;
            advise_huge_pages(&region);
            GuestRegionMmap::new(region, GuestAddress(range.start)).ok_or(MemoryError::TooLarge(size))
        })
        .collect::<Result<Vec<_>, _>>()?;
    GuestMemoryMmap::from_regions(regions).map_err(MemoryError::Ranges)
}

/// Asks for huge pages. Where they cannot be had the guest is slower, no more.
fn advise_huge_pages(region: &MmapRegion) {
    // SAFETY: the range is one mapping, which this advice leaves as it is but for the size of its pages.
    let result = unsafe { libc::madvise(region.as_ptr().cast(), region.size(), libc::MADV_HUGEPAGE) };
    if result != 0 {
        log::debug!("no huge pages for the guest: {}", std::io::Error::last_os_error());
    }
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
