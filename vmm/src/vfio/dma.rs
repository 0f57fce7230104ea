// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Keeps the IOMMU's maps in step with what devices of the guest reach by DMA.
//!
//! Guest memory is mapped and thereby locked. So are the BARs of devices that are handed to the guest, for DMA from one to another.
//! The memory of modelled devices is not: to map it would be to lock it, and most of it has never been touched.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use ersatz_device_model::dma::{MapObserver, MappedRegion};
use ersatz_guest_image::error_chain::chain;
use rustix::process::{Resource, getrlimit};
use vfio_ioctls::VfioContainer;

use super::error::VfioError;

/// The IOMMU's maps of one container.
pub struct DmaMaps {
    container: Arc<VfioContainer>,
    group: u32,
    /// Addresses that the IOMMU does not translate.
    reserved: Vec<Range<u64>>,
    /// Why guest memory is not mapped.
    failure: Mutex<Option<VfioError>>,
}

/// What a region is to the IOMMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Guest memory.
    Memory,
    /// Part of a BAR of a device that is handed to the guest.
    Bar,
    /// Memory of a modelled device.
    Modelled,
}

fn kind(region: &MappedRegion<'_>) -> Kind {
    match region.file().map(|offset| offset.file().metadata()) {
        None => Kind::Memory,
        Some(Ok(metadata)) if metadata.is_file() => Kind::Modelled,
        Some(_) => Kind::Bar,
    }
}

impl DmaMaps {
    /// The maps of a container that has a group with these reserved addresses.
    pub fn new(container: Arc<VfioContainer>, group: u32, reserved: Vec<Range<u64>>) -> Self {
        Self { container, group, reserved, failure: Mutex::default() }
    }

    /// Takes why guest memory is not mapped, if it is not.
    pub fn take_failure(&self) -> Option<VfioError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn map(&self, region: &MappedRegion<'_>) -> Result<(), VfioError> {
        let (address, length) = (region.address, region.length());
        let memory = region.memory;
        // SAFETY: until the map is removed the memory is used in this process by raw pointers alone, atomically or volatilely: it is a
        // guest's. It is unmapped from this process only after `unmapped` has returned, or else stays locked in the container.
        let result = unsafe { self.container.vfio_dma_map(address, memory.size(), memory.as_ptr()) };
        result.map_err(|source| match (&source, overlap(&self.reserved, &(address..address + length))) {
            (_, Some(reserved)) => VfioError::Reserved { group: self.group, ram: address..address + length, reserved },
            (vfio_ioctls::VfioError::IommuDmaMap(error), None) if error.errno() == libc::ENOMEM => {
                let limit = getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX);
                VfioError::MemoryLock { needed: length, limit }
            }
            _ => VfioError::Map { address, length, source },
        })
    }
}

/// The first of some ranges that overlaps another one.
fn overlap(ranges: &[Range<u64>], with: &Range<u64>) -> Option<Range<u64>> {
    ranges.iter().find(|range| range.start < with.end && with.start < range.end).cloned()
}

impl MapObserver for DmaMaps {
    fn mapped(&self, region: &MappedRegion<'_>) {
        let kind = kind(region);
        if kind == Kind::Modelled {
            return;
        }
        match (self.map(region), kind) {
            (Ok(()), _) => {}
            (Err(error), Kind::Memory) => {
                self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
            (Err(error), _) => log::info!("other devices do not reach a BAR: {}", chain(&error)),
        }
    }

    fn unmapped(&self, _: u64, _: u64, regions: &[MappedRegion<'_>]) {
        for region in regions.iter().filter(|region| kind(region) != Kind::Modelled) {
            if let Err(error) = self.container.vfio_dma_unmap(region.address, region.memory.size()) {
                // What was not mapped is not unmapped either.
                log::debug!("the IOMMU does not unmap {:#x}: {}", region.address, chain(&error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ersatz_device_model::dma::MapAccess;
    use vm_memory::{FileOffset, MmapRegion};

    use super::*;

    #[test]
    fn memory_of_modelled_devices_is_told_from_guest_memory() {
        let kind_of = |memory: MmapRegion| {
            kind(&MappedRegion { address: 0, access: MapAccess::ReadWrite, memory: &Arc::new(memory) })
        };
        assert_eq!(kind_of(MmapRegion::new(4096).unwrap()), Kind::Memory);
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        assert_eq!(kind_of(MmapRegion::from_file(FileOffset::new(file, 0), 4096).unwrap()), Kind::Modelled);
    }

    #[test]
    fn memory_that_overlaps_reserved_addresses_is_found() {
        let reserved = [0xfee0_0000..0xfef0_0000, 0x1000..0x2000];
        assert_eq!(overlap(&reserved, &(0..0x1001)), Some(0x1000..0x2000));
        assert_eq!(overlap(&reserved, &(0x2000..0xfee0_0000)), None);
    }
}
