// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What KVM serves of a BAR by itself: memory (VRAM) as memory slots, doorbells as ioeventfds.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use ersatz_device_model::bus::{BarMapping, Doorbell};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use vm_memory::{FileOffset, MmapRegion};
use vmm_sys_util::eventfd::EventFd;

use super::AttachError;

/// The machine's memory slots. Numbers are given out lowest first.
pub struct MemorySlots {
    vm: Arc<VmFd>,
    used: Mutex<BTreeSet<u32>>,
}

impl MemorySlots {
    /// The slots of `vm` from number `first` on.
    pub fn new(vm: Arc<VmFd>, first: u32) -> Self {
        Self { vm, used: Mutex::new((0..first).collect()) }
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

/// Memory of a BAR, in the guest's address space for as long as this lives.
struct MappedMemory {
    slots: Arc<MemorySlots>,
    number: u32,
    address: u64,
    /// Unmapped after the slot is gone.
    _memory: MmapRegion,
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
        Ok(Self { slots: Arc::clone(slots), number, address, _memory: memory })
    }
}

impl Drop for MappedMemory {
    fn drop(&mut self) {
        match self.slots.set(self.number, self.address, None) {
            Ok(()) => self.slots.release(self.number),
            // Do not use the number again. KVM removes a slot whatever state the guest is in.
            Err(error) => log::error!("KVM does not remove the memory slot at {:#x}: {error}", self.address),
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
            log::error!("KVM does not remove the doorbell at {:#x}: {error}", self.address);
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
    use super::*;

    #[test]
    fn parts_beyond_the_bar_are_refused() {
        let range = 0x1000..0x3000;
        assert_eq!(place(&range, 0x1000, 0x1000).unwrap(), 0x2000);
        assert!(place(&range, 0x1000, 0x1001).is_err());
        assert!(place(&range, u64::MAX, 2).is_err());
        assert!(place(&range, 0, 0).is_err());
    }
}
