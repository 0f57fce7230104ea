// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A driver that does anything at any time: faults answered or not, channels and address spaces switched under the work of engines,
//! invalidations, sleep, resets of every kind. Nothing hangs, the oracle finds the device's part in order, and in the end all
//! channels work.

use ersatz_abi::channel::{ChannelState, Priority};
use ersatz_abi::command::{Command, Operation};
use ersatz_abi::kernel::Kernel;
use ersatz_abi::list::Location;
use ersatz_abi::mmu::{AddressSpaceControl, InvalidateTarget, Invalidation, PageSize};
use ersatz_abi::regs;
use ersatz_device_model::bus::PciFunction;
use proptest::prelude::*;
use vm_memory::Bytes;

use ersatz_device_testing::faults::{ASID, BASE, COMPUTE, COPY, bind, enable_buffer, records, replayable, ring};
use ersatz_device_testing::tables::{Space, page};
use ersatz_device_testing::{COMMAND, Host, LISTS, MEMORY_AND_MASTER, command, entry, reg};

const POWER_CONTROL: u16 = 0x44;
const FLR_BYTE: u16 = 0x69;
const CHANNELS: u32 = 4;
const PAGES: u64 = 8;

#[derive(Clone, Copy, Debug)]
enum Act {
    Submit(u32, Work),
    Enable(u32),
    Disable(u32),
    Reset(u32),
    /// Waits until no channel is at work.
    Wait,
    Replay,
    Cancel(u32),
    Read,
    Map(u64),
    Unmap(u64),
    Invalidate(Invalidation),
    Space(bool),
    Buffer(bool),
    Master(bool),
    Sleep(bool),
    ResetDevice,
    ResetFunction,
    ResetBus,
}

#[derive(Clone, Copy, Debug)]
enum Work {
    Set(u64),
    Sum,
    Prefetch,
    Copy(u64),
    Invalidate,
}

fn act() -> impl Strategy<Value = Act> {
    let channel = || 0..CHANNELS;
    let work = prop_oneof![
        (0..PAGES).prop_map(Work::Set),
        Just(Work::Sum),
        Just(Work::Prefetch),
        (0..PAGES).prop_map(Work::Copy),
        Just(Work::Invalidate)
    ];
    let invalidation = prop_oneof![
        Just(Invalidation::All),
        Just(Invalidation::AddressSpace(ASID)),
        (0..PAGES).prop_map(|page| Invalidation::Range { asid: ASID, address: BASE + page * 4096, length: 4096 }),
    ];
    prop_oneof![
        20 => (channel(), work).prop_map(|(channel, work)| Act::Submit(channel, work)),
        3 => channel().prop_map(Act::Enable),
        3 => channel().prop_map(Act::Disable),
        3 => channel().prop_map(Act::Reset),
        6 => Just(Act::Wait),
        8 => Just(Act::Replay),
        3 => channel().prop_map(Act::Cancel),
        4 => Just(Act::Read),
        10 => (0..PAGES).prop_map(Act::Map),
        6 => (0..PAGES).prop_map(Act::Unmap),
        4 => invalidation.prop_map(Act::Invalidate),
        2 => any::<bool>().prop_map(Act::Space),
        2 => any::<bool>().prop_map(Act::Buffer),
        1 => any::<bool>().prop_map(Act::Master),
        1 => any::<bool>().prop_map(Act::Sleep),
        1 => Just(Act::ResetDevice),
        1 => Just(Act::ResetFunction),
        1 => Just(Act::ResetBus),
    ]
}

struct Driver {
    host: Host,
    space: Space,
    fences: [u64; CHANNELS as usize],
}

impl Driver {
    fn new() -> Self {
        let host = Host::new();
        let space = Space::new(&host, ASID, replayable(), Location::system(0x300_0000));
        let driver = Self { host, space, fences: [0; CHANNELS as usize] };
        enable_buffer(&driver.host);
        driver
    }

    /// Whether registers can be reached, and take what is written.
    fn is_there(&self) -> bool {
        self.host.read32(regs::ID.offset) == regs::DEVICE_MAGIC && self.host.read32(regs::CONTROL.offset) == 0
    }

    fn finish_resets(&self) {
        if self.host.read32(regs::ID.offset) == regs::DEVICE_MAGIC {
            self.host.wait_until("the reset of the device", |host| host.read32(regs::CONTROL.offset) == 0);
        }
    }

    /// Resets a channel and enables it, on a copy engine if it is odd.
    fn begin(&mut self, channel: u32) {
        self.host.write32(reg(channel, regs::CHANNEL_CONTROL), 2);
        let control = |host: &Host| host.read32(reg(channel, regs::CHANNEL_CONTROL));
        self.host.wait_until("the reset of a channel", |host| control(host) & 2 == 0);
        self.host.put[channel as usize] = 0;
        self.fences[channel as usize] = 0;
        let priority = [Priority::Low, Priority::High][(channel / 2) as usize];
        bind(&self.host, channel, if channel % 2 == 0 { COMPUTE } else { COPY }, priority);
    }

    fn submit(&mut self, channel: u32, work: Work) {
        let is_fresh = matches!(self.host.status(channel).state(), Some(ChannelState::Disabled | ChannelState::Error));
        let is_full = self.host.put[channel as usize] - self.host.read32(reg(channel, regs::GET)) >= 60;
        if is_fresh || is_full {
            self.begin(channel);
        }
        let fence = &mut self.fences[channel as usize];
        *fence += 1;
        let fence = Some(*fence);
        let length = PAGES * 4096;
        let is_compute = channel % 2 == 0;
        let operation = match work {
            Work::Set(page) if is_compute => {
                let destination = BASE + page * 4096;
                Operation::Kernel(Kernel::Set { destination, length: length - page * 4096, pattern: page })
            }
            Work::Sum if is_compute => Operation::Kernel(Kernel::Sum { source: BASE, length, result: BASE }),
            Work::Prefetch if is_compute => Operation::Kernel(Kernel::Prefetch { address: BASE, length }),
            Work::Copy(page) if !is_compute => {
                let there = Location::virtual_address(BASE + page * 4096);
                let entries = [entry(there, Location::vram(1 << 20), 4096), entry(Location::vram(0), there, 4096)];
                Operation::Copy(self.host.list(LISTS + u64::from(channel) * 4096 + page * 64, &entries))
            }
            _ => Operation::Invalidate(Invalidation::AddressSpace(ASID)),
        };
        self.host.submit_to(channel, Command { fence, interrupt: true, ..command(operation) });
    }

    fn act(&mut self, act: Act) {
        let host = &self.host;
        match act {
            Act::Master(on) => drop(host.gpu.config_write(COMMAND, &[if on { 0b110 } else { 0b010 }])),
            Act::Sleep(on) => drop(host.gpu.config_write(POWER_CONTROL, &[if on { 3 } else { 0 }])),
            Act::ResetFunction => self.restart(|host| drop(host.gpu.config_write(FLR_BYTE, &[0x80]))),
            Act::ResetBus => self.restart(|host| drop(host.gpu.reset())),
            _ if !self.is_there() => {}
            Act::ResetDevice => {
                host.write32(regs::CONTROL.offset, 1);
                self.finish_resets();
                self.set_up();
            }
            Act::Submit(channel, work) => self.submit(channel, work),
            Act::Enable(channel) => {
                if host.status(channel).state() != Some(ChannelState::Error)
                    && host.read64(reg(channel, regs::RING_BASE)) != 0
                {
                    host.write32(reg(channel, regs::CHANNEL_CONTROL), 1);
                }
            }
            Act::Disable(channel) => host.write32(reg(channel, regs::CHANNEL_CONTROL), 0),
            Act::Reset(channel) => self.begin(channel),
            Act::Wait => host.wait_until("all to rest", |host| {
                (0..CHANNELS).all(|channel| host.status(channel).state() != Some(ChannelState::Busy))
            }),
            Act::Replay => host.write32(regs::FAULT_REPLAY.offset, 1),
            Act::Cancel(channel) => host.write32(regs::FAULT_CANCEL.offset, channel),
            Act::Read if host.read32(ring(regs::NOTIFICATION_CONTROL)) == 0 => {}
            Act::Read => drop(records(host)),
            Act::Map(number) => {
                let home = if number % 2 == 0 {
                    Location::vram(number * 4096)
                } else {
                    Location::system(ersatz_device_testing::DATA + number * 4096)
                };
                self.space.map(host, BASE + number * 4096, page(home, PageSize::Small));
            }
            Act::Unmap(number) => self.space.unmap(host, BASE + number * 4096, PageSize::Small),
            Act::Invalidate(invalidation) => {
                let (InvalidateTarget(target), address, length) = invalidation.encode();
                host.write64(regs::INVALIDATE_ADDRESS.offset, address);
                host.write64(regs::INVALIDATE_LENGTH.offset, length);
                host.write32(regs::INVALIDATE.offset, target as u32);
            }
            Act::Space(on) => self.switch_space(on),
            Act::Buffer(on) => {
                host.write32(ring(regs::NOTIFICATION_CONTROL), 0);
                host.wait_until("the buffer to stop", |host| host.read32(ring(regs::NOTIFICATION_CONTROL)) == 0);
                if on {
                    self.clear_buffer();
                    enable_buffer(&self.host);
                }
            }
        }
    }

    fn switch_space(&self, on: bool) {
        let control = if on { replayable().with_enable(true) } else { AddressSpaceControl(0) };
        let register = regs::address_space_register(ASID.into(), regs::ADDRESS_SPACE_CONTROL).unwrap();
        self.host.write32(register, control.0);
    }

    fn clear_buffer(&self) {
        self.host
            .memory
            .write_slice(&[0; 512], vm_memory::GuestAddress(ersatz_device_testing::faults::BUFFER))
            .unwrap();
    }

    fn restart(&mut self, reset: impl FnOnce(&Host)) {
        reset(&self.host);
        self.host.start();
        self.set_up();
    }

    /// What a driver does after a reset that has cleared the device's registers.
    fn set_up(&mut self) {
        self.clear_buffer();
        enable_buffer(&self.host);
        self.space = Space::new(&self.host, ASID, replayable(), Location::system(0x300_0000));
        self.host.memory.write_slice(&[0; 64 * 4096], vm_memory::GuestAddress(0x300_0000)).unwrap();
    }

    /// Whatever was done to the device, all channels work: each executes what it is given, and its fence comes.
    fn works(&mut self) {
        self.host.gpu.config_write(POWER_CONTROL, &[0]);
        self.host.gpu.config_write(COMMAND, &MEMORY_AND_MASTER.to_le_bytes());
        self.finish_resets();
        self.switch_space(true);
        for number in 0..PAGES {
            self.act(Act::Map(number));
        }
        self.host.invalidate(Invalidation::All);
        for channel in 0..CHANNELS {
            self.begin(channel);
            self.submit(channel, if channel % 2 == 0 { Work::Set(0) } else { Work::Copy(0) });
        }
        self.host.wait_until("the end of all", |host| (0..CHANNELS).all(|channel| host.fence_of(channel) == 1));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_driver_brings_the_device_down(acts in proptest::collection::vec(act(), 1..80)) {
        let mut driver = Driver::new();
        for act in acts {
            driver.act(act);
        }
        driver.works();
    }
}
