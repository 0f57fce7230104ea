// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What KVM serves of a BAR by itself: memory (VRAM) as memory slots, doorbells as ioeventfds. What is memory to the guest is
//! memory to the devices, too: they reach it by DMA where the BAR decodes.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use ersatz_device_model::bus::{BarMapping, Doorbell};
use ersatz_device_model::dma::{MapAccess, MappedSpace};
use ersatz_guest_image::error_chain::chain;
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use vm_memory::{FileOffset, MmapRegion};
use vmm_sys_util::eventfd::EventFd;

use super::error::AttachError;

/// The machine's memory slots, and what devices reach by DMA. Slot numbers are given out lowest first.
pub struct MemorySlots {
    vm: Arc<VmFd>,
    dma: Arc<MappedSpace>,
    used: Mutex<BTreeSet<u32>>,
}

impl MemorySlots {
    /// The slots of `vm` from number `first` on; `dma` is where its devices do DMA.
    pub fn new(vm: Arc<VmFd>, first: u32, dma: Arc<MappedSpace>) -> Self {
        Self { vm, dma, used: Mutex::new((0..first).collect()) }
    }

    fn used(&self) -> std::sync::MutexGuard<'_, BTreeSet<u32>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn acquire(&self) -> u32 {
        let mut used = self.used();
        let number = used.iter().zip(0..).find(|&(&used, free)| used != free).map(|(_, free)| free);
        let number = number.unwrap_or(used.len() as u32);
        used.insert(number);
        number
    }

    fn release(&self, number: u32) {
        self.used().remove(&number);
    }

    /// Has KVM put `memory` at guest physical address `address`; with no memory, has it take the slot away.
    fn set(&self, number: u32, address: u64, memory: Option<&MmapRegion>) -> Result<(), kvm_ioctls::Error> {
        let region = kvm_userspace_memory_region {
            slot: number,
            flags: 0,
            guest_phys_addr: address,
            memory_size: memory.map_or(0, |memory| memory.size() as u64),
            userspace_addr: memory.map_or(0, |memory| memory.as_ptr() as u64),
        };
        // SAFETY: the memory is a mapping that `MappedMemory` keeps until it has taken the slot away.
        unsafe { self.vm.set_user_memory_region(region) }
    }
}

/// Memory of a BAR, in the guest's address space and in reach of devices for as long as this lives.
struct MappedMemory {
    slots: Arc<MemorySlots>,
    number: u32,
    address: u64,
    /// Unmapped after the slot is gone.
    memory: Arc<MmapRegion>,
}

impl MappedMemory {
    fn new(slots: &Arc<MemorySlots>, address: u64, mapping: &BarMapping) -> Result<Self, AttachError> {
        let length = usize::try_from(mapping.length)
            .map_err(|_| AttachError::Range { offset: mapping.offset, length: mapping.length })?;
        let file = FileOffset::from_arc(Arc::clone(&mapping.file), mapping.file_offset);
        let memory = MmapRegion::from_file(file, length).map_err(AttachError::Map)?;
        let number = slots.acquire();
        if let Err(error) = slots.set(number, address, Some(&memory)) {
            slots.release(number);
            return Err(AttachError::Slot { address, length: mapping.length, source: error.into() });
        }
        // From here on dropping it takes the slot away.
        let mapped = Self { slots: Arc::clone(slots), number, address, memory: Arc::new(memory) };
        slots
            .dma
            .map_region(address, Arc::clone(&mapped.memory), MapAccess::ReadWrite)
            .map_err(|source| AttachError::Dma { address, source })?;
        Ok(mapped)
    }
}

impl Drop for MappedMemory {
    fn drop(&mut self) {
        // Waits for the DMA under way. No other map overlaps this one, so it is taken away whole or was never there.
        if let Err(error) = self.slots.dma.unmap(self.address, self.memory.size() as u64) {
            log::error!("devices still reach the memory at {:#x}: {}", self.address, chain(&error));
        }
        match self.slots.set(self.number, self.address, None) {
            Ok(()) => self.slots.release(self.number),
            // Do not use the number again. KVM removes a slot whatever state the guest is in.
            Err(error) => log::error!("KVM does not remove the memory slot at {:#x}: {}", self.address, chain(&error)),
        }
    }
}

/// A doorbell that KVM signals, for as long as this lives.
struct AttachedDoorbell {
    vm: Arc<VmFd>,
    address: u64,
    event: Arc<EventFd>,
}

impl AttachedDoorbell {
    fn new(vm: &Arc<VmFd>, address: u64, event: &Arc<EventFd>) -> Result<Self, AttachError> {
        vm.register_ioevent(event, &IoEventAddress::Mmio(address), NoDatamatch)
            .map_err(|error| AttachError::Doorbell { address, source: error.into() })?;
        Ok(Self { vm: Arc::clone(vm), address, event: Arc::clone(event) })
    }
}

impl Drop for AttachedDoorbell {
    fn drop(&mut self) {
        let address = IoEventAddress::Mmio(self.address);
        if let Err(error) = self.vm.unregister_ioevent(&self.event, &address, NoDatamatch) {
            log::error!("KVM does not remove the doorbell at {:#x}: {}", self.address, chain(&error));
        }
    }
}

/// All that is attached of a BAR at its present address. Dropping it takes it out of the guest's address space.
#[derive(Default)]
pub struct Attachment {
    _memory: Vec<MappedMemory>,
    _doorbells: Vec<AttachedDoorbell>,
}

impl Attachment {
    /// Attaches what can be attached of the BAR at `range`; the errors say what cannot, and is trapped instead.
    pub fn new(
        slots: &Arc<MemorySlots>,
        range: &Range<u64>,
        mappings: &[BarMapping],
        doorbells: &[Doorbell],
    ) -> (Self, Vec<AttachError>) {
        let mut attachment = Self::default();
        let mut errors = Vec::new();
        for mapping in mappings {
            let result = place(range, mapping.offset, mapping.length)
                .and_then(|address| MappedMemory::new(slots, address, mapping));
            match result {
                Ok(memory) => attachment._memory.push(memory),
                Err(error) => errors.push(error),
            }
        }
        for doorbell in doorbells {
            let result = place(range, doorbell.offset, doorbell.width.into())
                .and_then(|address| AttachedDoorbell::new(&slots.vm, address, &doorbell.event));
            match result {
                Ok(doorbell) => attachment._doorbells.push(doorbell),
                Err(error) => errors.push(error),
            }
        }
        (attachment, errors)
    }
}

/// Guest physical address of a part of the BAR at `range`.
fn place(range: &Range<u64>, offset: u64, length: u64) -> Result<u64, AttachError> {
    let end = offset.checked_add(length).filter(|&end| length > 0 && end <= range.end - range.start);
    end.map(|_| range.start + offset).ok_or(AttachError::Range { offset, length })
}

#[cfg(test)]
mod tests {
    use ersatz_device_model::dma::{DmaError, DmaSpace};
    use kvm_ioctls::Kvm;
    use std::os::unix::fs::FileExt;

    use super::*;

    const BAR: Range<u64> = 0x1_0000_0000..0x1_0040_0000;

    fn mapping(offset: u64) -> BarMapping {
        let file = tempfile::tempfile().unwrap();
        file.set_len(2 << 20).unwrap();
        file.write_all_at(&[1, 2, 3, 4], 0x1000).unwrap();
        BarMapping { bar: 2, offset, length: 2 << 20, file: Arc::new(file), file_offset: 0 }
    }

    #[test]
    fn devices_reach_the_memory_where_the_bar_decodes_and_while_it_does() {
        let vm = Kvm::new().expect("these tests need /dev/kvm").create_vm().unwrap();
        let dma = Arc::new(MappedSpace::new());
        let slots = Arc::new(MemorySlots::new(Arc::new(vm), 0, dma.clone()));
        let mapping = mapping(2 << 20);
        let (attachment, errors) = Attachment::new(&slots, &BAR, std::slice::from_ref(&mapping), &[]);
        assert!(errors.is_empty(), "{errors:?}");
        let address = BAR.start + (2 << 20);
        assert_eq!(dma.open().load_u32(address + 0x1000), Ok(0x0403_0201));
        dma.open().store_u32(address + 0x2000, 7).unwrap();
        let mut stored = [0; 4];
        mapping.file.read_exact_at(&mut stored, 0x2000).unwrap();
        assert_eq!(stored, [7, 0, 0, 0]);
        assert_eq!(
            dma.open().load_u32(BAR.start),
            Err(DmaError::Unmapped(BAR.start)),
            "this part of the BAR is no memory"
        );
        drop(attachment);
        assert_eq!(dma.open().load_u32(address), Err(DmaError::Unmapped(address)));
        assert!(dma.is_empty() && slots.used().is_empty());
    }

    #[test]
    fn memory_in_the_place_of_other_memory_is_refused() {
        let vm = Kvm::new().expect("these tests need /dev/kvm").create_vm().unwrap();
        let dma = Arc::new(MappedSpace::new());
        let slots = Arc::new(MemorySlots::new(Arc::new(vm), 0, dma.clone()));
        let (_first, _) = Attachment::new(&slots, &BAR, &[mapping(0)], &[]);
        let overlapping = BAR.start - (1 << 20)..BAR.end;
        let (second, errors) = Attachment::new(&slots, &overlapping, &[mapping(1 << 20)], &[]);
        assert_eq!(errors.len(), 1);
        drop(second);
        assert_eq!(dma.open().load_u32(BAR.start + 0x1000), Ok(0x0403_0201), "the first is as it was");
        assert_eq!(slots.used().len(), 1);
    }

    #[test]
    fn parts_beyond_the_bar_are_refused() {
        let range = 0x1000..0x3000;
        assert_eq!(place(&range, 0x1000, 0x1000).unwrap(), 0x2000);
        assert!(place(&range, 0x1000, 0x1001).is_err());
        assert!(place(&range, u64::MAX, 2).is_err());
        assert!(place(&range, 0, 0).is_err());
    }
}
