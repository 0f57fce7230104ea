// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What holds at any time, and what works after a reset, whatever a guest has done.

use ersatz_abi::channel::{CONTROL_BLOCK_FENCE, ChannelState};
use ersatz_abi::command::{Cause, Command, List, ListEntry, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::fault::{AccessKind, FaultKind, FaultRecord};
use ersatz_abi::kernel::Kernel;
use ersatz_abi::list::Location;
use ersatz_abi::mmu::{AddressSpaceControl, Invalidation, PageSize};
use ersatz_abi::notification::RECORD_BYTES;
use ersatz_abi::regs::{self, Access};
use ersatz_device_model::bus::{Effect, PciFunction};
use vm_memory::{Bytes, GuestAddress};

use crate::small_machine::{
    Binding, CHANNELS, COMPUTE, Machine, RAM, READ_ONLY, block, doorbell, encoded, reg, space_reg, tables,
};

/// What is in the memory that the device may only read: a table of pages, which a walk can read and not mark.
pub fn read_only_page() -> [u8; 4096] {
    let mut bytes = [0; 4096];
    for (index, word) in (0..).zip(bytes.chunks_exact_mut(8)) {
        let location = Location::system(RAM / 2 + index % 16 * 4096);
        word.copy_from_slice(&tables::page(location, PageSize::Small).to_le_bytes());
    }
    bytes
}

impl Machine {
    /// What holds at any time while the function answers. Engines may work, and no other thread.
    pub fn check(&self) {
        let bad_accesses = self.gpu.counter(Counter::BadAccesses);
        assert_eq!(self.read32(regs::ID.offset), regs::DEVICE_MAGIC);
        (0..CHANNELS).for_each(|channel| self.check_channel(channel));
        for base in [regs::FAULT_RING_BASE, regs::ACCESS_RING_BASE] {
            self.check_notifications(base);
        }
        for register in regs::DEVICE_REGISTERS.iter().filter(|register| register.access != Access::WriteOnly) {
            if register.width == 8 {
                self.read64(register.offset)
            } else {
                self.read32(register.offset).into()
            };
        }
        assert_eq!(self.gpu.counter(Counter::BadAccesses), bad_accesses, "a register that cannot be read");
        self.must("the acknowledgement", |machine| {
            let requested = machine.read64(regs::INVALIDATE_REQUESTED.offset);
            // A reset may come between.
            machine.read64(regs::INVALIDATE_ACKNOWLEDGED.offset) >= requested || machine.is_resetting()
        });
        let mut page = [0; 4096];
        self.read_only.read_slice(&mut page, GuestAddress(READ_ONLY)).expect("RAM");
        assert!(page == read_only_page(), "read-only memory was written");
    }

    /// Whether a reset of the device by register is under way.
    pub fn is_resetting(&self) -> bool {
        regs::Status(self.read32(regs::STATUS.offset)).resetting()
    }

    fn check_channel(&self, channel: u32) {
        let control = reg(channel, regs::CHANNEL_CONTROL);
        let resetting = regs::ChannelControl(self.read32(control)).reset();
        let before = self.status(channel);
        let faulted = self.read64(regs::FAULTED_CHANNELS.offset) & (1 << channel) != 0;
        let any_error = regs::Status(self.read32(regs::STATUS.offset)).channel_error();
        let after = self.status(channel);
        for status in [before, after] {
            let state = status.state().expect("a known state");
            let error = status.error().expect("a known error");
            assert_eq!(state == ChannelState::Error, error != ErrorCode::None);
        }
        // An engine may make it wait at a fault or stop meanwhile; only a driver makes it go on, and only a reset ends an error.
        if !resetting {
            assert!(
                faulted || before.state() != Some(ChannelState::Faulted),
                "it waits, and is not among those that do"
            );
            assert!(
                !faulted || after.state() == Some(ChannelState::Faulted),
                "it is among those that wait, and does not"
            );
            assert!(any_error || before.state() != Some(ChannelState::Error));
        }
    }

    fn check_notifications(&self, base: u32) {
        let at = |register: regs::Register| base + register.offset;
        let order = self.read32(at(regs::NOTIFICATION_ORDER));
        let get = self.read32(at(regs::NOTIFICATION_GET));
        let put = self.read32(at(regs::NOTIFICATION_PUT));
        if self.read32(at(regs::NOTIFICATION_CONTROL)) != 0 {
            assert!(put.wrapping_sub(get) <= 1 << order, "{put} - {get} records in a ring of order {order}");
        }
    }

    /// After a reset everything works, whatever came before.
    pub fn still_works(&self) {
        assert!(self.gpu.reset().contains(&Effect::Reset));
        self.switch_on();
        self.check();
        assert_eq!(self.read64(regs::FAULTED_CHANNELS.offset), 0);
        assert_eq!(self.read64(regs::INVALIDATE_REQUESTED.offset), 0);
        for channel in 0..CHANNELS {
            self.memory.write_slice(&[0; 4096], GuestAddress(block(channel))).expect("RAM");
        }
        self.copies();
        self.faults_and_goes_on();
        self.check();
    }

    /// A copy engine copies from VRAM, by an address of the bus.
    fn copies(&self) {
        const LIST: u64 = 0x5000;
        let (from, to) = (Location::vram(0x3000), Location::system(RAM - 8));
        self.store(from, 0x5ca1_ab1e);
        let entry = ListEntry { source: from, destination: to, length: 8, tag: 0 };
        self.store_words(LIST, &entry.encode());
        self.run(1, Binding { engine: 1, ..Binding::default() }, Operation::Copy(List { address: LIST, count: 1 }));
        assert_eq!(self.memory.read_obj::<u64>(GuestAddress(to.address)).expect("RAM"), 0x5ca1_ab1e);
    }

    /// The compute engine writes to virtual addresses, waits where there is nothing, and goes on when there is.
    fn faults_and_goes_on(&self) {
        const RECORDS: u64 = 0x6000;
        const UNMAPPED: u64 = 100;
        let root = tables::build(self);
        self.memory.write_slice(&[0; 4096], GuestAddress(RECORDS)).expect("RAM");
        self.write64(regs::FAULT_RING_BASE + regs::NOTIFICATION_BASE.offset, RECORDS);
        self.write32(regs::FAULT_RING_BASE + regs::NOTIFICATION_ORDER.offset, 4);
        self.write32(regs::FAULT_RING_BASE + regs::NOTIFICATION_CONTROL.offset, 1);
        self.write64(space_reg(3, regs::ADDRESS_SPACE_ROOT), root);
        let control = AddressSpaceControl(0).with_enable(true).with_replayable(true).with_track(true);
        self.write32(space_reg(3, regs::ADDRESS_SPACE_CONTROL), control.0);
        let kernel = Kernel::Set { destination: UNMAPPED << 12, length: 4096, pattern: 0xfeed };
        self.begin(0, Binding { engine: COMPUTE, asid: 3, priority: 2 }, Operation::Kernel(kernel));
        self.must("the fault", |machine| machine.status(0).state() == Some(ChannelState::Faulted));
        let words = [0, 1, 2, 3].map(|word| {
            self.memory.read_obj::<u64>(GuestAddress(RECORDS + word * RECORD_BYTES / 4)).expect("RAM").to_le()
        });
        let record = FaultRecord::decode(&words).expect("a record");
        assert_eq!((record.address, record.asid, record.channel, record.number), (UNMAPPED << 12, 3, 0, 1));
        assert_eq!((record.access, record.kind), (AccessKind::Write, FaultKind::NotPresent));
        let page = Location::system(RAM - 4096);
        self.store(tables::entry(3, UNMAPPED), tables::page(page, PageSize::Small));
        self.write32(regs::FAULT_REPLAY.offset, 1);
        self.must_have_fence(0);
        assert_eq!(self.memory.read_obj::<u64>(GuestAddress(page.address + 4088)).expect("RAM"), 0xfeed);
        self.reset_channel(0);
        self.run(0, Binding::default(), Operation::Invalidate(Invalidation::AddressSpace(3)));
    }

    /// Executes a command on a channel that is disabled, and as after a reset.
    fn run(&self, channel: u32, binding: Binding, operation: Operation) {
        self.begin(channel, binding, operation);
        self.must_have_fence(channel);
    }

    fn begin(&self, channel: u32, binding: Binding, operation: Operation) {
        self.memory.write_slice(&[0; 4096], GuestAddress(block(channel))).expect("RAM");
        let command = Command { operation, cause: Cause::Other, fence: Some(7), interrupt: true, tag: 0 };
        self.submit(channel, &encoded(&[command]), 1);
        self.enable(channel, binding);
        self.write32(doorbell(channel), 0);
    }

    fn must_have_fence(&self, channel: u32) {
        let fence = GuestAddress(block(channel) + CONTROL_BLOCK_FENCE);
        self.must("the fence", |machine| machine.memory.read_obj::<u64>(fence).is_ok_and(|value| value == 7));
    }
}
