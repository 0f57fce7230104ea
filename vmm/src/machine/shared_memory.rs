// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A PCI function that is memory, shared with whoever made it: what QEMU calls `ivshmem-plain`.

use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ersatz_device_model::bus::{BarInfo, BarMapping, Effect, MsixMessage, PciFunction};
use ersatz_device_model::pci::aer::ErrorLog;
use ersatz_device_model::pci::capability::MsixLayout;
use ersatz_device_model::pci::function::{Change, Controls, Function, Identity};
use ersatz_guest_image::mailbox;

use super::config::FunctionFactory;

/// Class code: memory controller (05), RAM.
const CLASS: u32 = 0x05_00_00;
/// Size of BAR0, where registers would be.
const REGISTERS_SIZE: u64 = 4096;
/// An MSI-X vector that is never sent: config space has the capability anyway.
const MSIX: MsixLayout = MsixLayout { bar: 0, vectors: 1, table: 0, pending: 0x800 };

/// The function.
pub struct SharedMemory {
    function: Mutex<Function>,
    memory: Arc<File>,
    length: u64,
}

impl SharedMemory {
    /// What puts it into a slot. `memory` has `length` bytes, a power of two from a page on.
    pub fn factory(memory: Arc<File>, length: u64) -> FunctionFactory {
        let identity =
            Identity { vendor: mailbox::VENDOR, device: mailbox::DEVICE, class: CLASS, revision: 1, serial: 0 };
        let bar = |bar, size, high| BarInfo { bar, size, is_64bit: high, prefetchable: high };
        let bars = vec![bar(0, REGISTERS_SIZE, false), bar(mailbox::BAR, length, true)];
        let function = Mutex::new(Function::new(identity, bars, None, MSIX, Arc::new(ErrorLog::new(0))));
        Box::new(move |_| Ok(Arc::new(Self { function, memory, length }) as _))
    }

    fn function(&self) -> MutexGuard<'_, Function> {
        self.function.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PciFunction for SharedMemory {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        self.function().read(offset, data);
    }

    fn config_write(&self, offset: u16, data: &[u8]) -> Vec<Effect> {
        let mut function = self.function();
        let Change::Controls { before, after } = function.write(offset, data) else {
            return vec![Effect::Reset];
        };
        let address = |controls: &Controls, index: usize| controls.addresses.get(index).copied().flatten();
        let moved = |(index, info): (usize, &BarInfo)| {
            (address(&before, index) != address(&after, index))
                .then_some(Effect::BarMoved { bar: info.bar, address: address(&after, index) })
        };
        function.bars().iter().enumerate().filter_map(moved).collect()
    }

    fn bar_read(&self, _: u8, _: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn bar_write(&self, _: u8, _: u64, _: &[u8]) -> Vec<Effect> {
        Vec::new()
    }

    fn bars(&self) -> Vec<BarInfo> {
        self.function().bars().to_vec()
    }

    fn mappings(&self) -> Vec<BarMapping> {
        let file = Arc::clone(&self.memory);
        vec![BarMapping { bar: mailbox::BAR, offset: 0, length: self.length, file, file_offset: 0 }]
    }

    fn doorbells(&self) -> Vec<ersatz_device_model::bus::Doorbell> {
        Vec::new()
    }

    fn msix_vectors(&self) -> u16 {
        MSIX.vectors
    }

    fn msix_message(&self, _: u16) -> Option<MsixMessage> {
        None
    }

    fn reset(&self) -> Vec<Effect> {
        self.function().reset();
        vec![Effect::Reset]
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::super::config::BusConnections;
    use super::*;

    struct NoInterrupts;

    impl ersatz_device_model::interrupt::InterruptSink for NoInterrupts {
        fn signal(&self, _: u16) {}
    }

    fn function() -> Arc<dyn PciFunction> {
        let memory = Arc::new(tempfile::tempfile().unwrap());
        let dma = Arc::new(ersatz_device_model::dma::MappedSpace::new());
        let vm = kvm_ioctls::Kvm::new().expect("these tests need /dev/kvm").create_vm().unwrap();
        let connections = BusConnections {
            dma,
            interrupts: Arc::new(NoInterrupts),
            requester_id: 8,
            vm: Arc::new(vm),
            vcpus: Default::default(),
        };
        SharedMemory::factory(memory, 1 << 20)(connections).unwrap()
    }

    fn read32(function: &dyn PciFunction, offset: u16) -> u32 {
        let mut bytes = [0; 4];
        function.config_read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    #[test]
    fn it_has_the_ids_of_a_mailbox_and_its_memory_decodes_where_it_is_put() {
        let function = function();
        assert_eq!(read32(&*function, 0), u32::from(mailbox::DEVICE) << 16 | u32::from(mailbox::VENDOR));
        assert!(function.config_write(0x18, &0x8000_0000u32.to_le_bytes()).is_empty(), "decoding is off");
        let effects = function.config_write(4, &[2, 0]);
        let moved = Effect::BarMoved { bar: mailbox::BAR, address: Some(0x8000_0000) };
        assert!(effects.contains(&moved), "{effects:?}");
        let mappings = function.mappings();
        assert_eq!((mappings[0].bar, mappings[0].length), (mailbox::BAR, 1 << 20));
        let _ = mappings[0].file.as_fd();
        assert_eq!(function.reset(), [Effect::Reset]);
        assert_eq!(read32(&*function, 0x18) & !0xf, 0);
    }
}
