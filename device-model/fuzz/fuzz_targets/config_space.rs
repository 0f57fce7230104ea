// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Any sequence of config accesses, while DMA is refused now and then: what the effects told the bus is where config
//! space says the BARs are, how large they are too, and what it says of errors is kept and forgotten as it should be.
#![no_main]

use arbitrary::Arbitrary;
use ersatz_abi::channel::ChannelState;
use ersatz_abi::command::{Cause, Command, List, ListEntry, Operation};
use ersatz_abi::list::Location;
use ersatz_device_model::bus::{BarInfo, Effect, PciFunction};
use ersatz_device_testing::small_machine::{Binding, Machine, READ_ONLY, encoded};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Step {
    Write {
        offset: u16,
        data: [u8; 8],
        length: u8,
    },
    Header {
        offset: u8,
        value: u32,
    },
    Extended {
        offset: u8,
        value: u32,
    },
    /// As a driver resizes BAR2.
    Resize {
        order: u8,
        address: u32,
    },
    /// DMA to where nothing is, or to what can only be read.
    Refuse {
        refusal: Refusal,
        unmask: bool,
    },
    Read {
        offset: u16,
        length: u16,
    },
    Reset,
}

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Read,
    Write,
    ReadOnly,
}

fn size(bars: &[BarInfo], bar: u8) -> Option<u64> {
    bars.iter().find(|info| info.bar == bar).map(|info| info.size)
}

fn dword(machine: &Machine, offset: u16) -> u32 {
    let mut data = [0; 4];
    machine.gpu.config_read(offset, &mut data);
    u32::from_le_bytes(data)
}

/// Size of VRAM, and how much of it BAR2 shows after a reset.
const SIZES: [u64; 2] = [64 << 20, 8 << 20];
/// Offsets, and what is there at power-on, of the AER registers that survive a function level reset.
const AER: [(u16, u32); 9] = [
    (0x104, 0),
    (0x108, 1 << 22),
    (0x10c, FATAL),
    (0x114, 1 << 13),
    (0x118, 0),
    (0x11c, 0),
    (0x120, 0),
    (0x124, 0),
    (0x128, 0),
];
/// Errors that are fatal at power-on: data link protocol, malformed TLP, internal.
const FATAL: u32 = 1 << 4 | 1 << 18 | 1 << 22;
/// Error bits of the PCI status register, in the upper half of its dword: aborts received, system error signalled.
const STATUS: u32 = (1 << 12 | 1 << 13 | 1 << 14) << 16;
/// Likewise of Device Status: non-fatal, fatal.
const DEVICE_STATUS: u32 = (1 << 1 | 1 << 2) << 16;

struct Bus {
    machine: Machine,
    /// Where BARs are, as effects said.
    told: [Option<u64>; 6],
}

impl Bus {
    fn aer(&self) -> [u32; AER.len()] {
        AER.map(|(offset, _)| dword(&self.machine, offset))
    }

    fn write(&mut self, offset: u16, data: &[u8]) {
        let (bars, aer) = (self.machine.gpu.bars(), self.aer());
        let effects = self.machine.gpu.config_write(offset, data);
        if effects.contains(&Effect::Reset) {
            assert_eq!(self.aer(), aer, "a function level reset leaves what is sticky");
        } else if aer[4] == 22 && self.aer()[4] == 22 {
            assert_eq!(self.aer()[5..], aer[5..], "the log holds the first error");
        }
        self.take(&bars, effects);
    }

    fn take(&mut self, before: &[BarInfo], effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::BarMoved { bar, address } => {
                    let told = &mut self.told[usize::from(bar)];
                    let resized = size(before, bar) != size(&self.machine.gpu.bars(), bar);
                    assert!(*told != address || resized, "a move that is none");
                    *told = address;
                }
                Effect::Reset => {
                    self.told = [None; 6];
                    assert_eq!(size(&self.machine.gpu.bars(), 2), Some(SIZES[1]));
                    assert_eq!((dword(&self.machine, 4) & STATUS, dword(&self.machine, 0x68) & DEVICE_STATUS), (0, 0));
                }
                Effect::MsixChanged { .. } | Effect::MsixControlChanged | Effect::MsixSend { .. } => {}
                Effect::MappingsChanged { .. } | Effect::Gone => {
                    panic!("no access does that to this device: {effect:?}")
                }
            }
        }
    }

    fn reset(&mut self) {
        let bars = self.machine.gpu.bars();
        let effects = self.machine.gpu.reset();
        self.take(&bars, effects);
        assert_eq!(self.aer(), AER.map(|(_, value)| value));
    }

    fn resize(&mut self, order: u8, address: u32) {
        let order = u32::from(order) % 64;
        let command = dword(&self.machine, 4) as u8;
        self.write(4, &[command & !2]);
        let before = size(&self.machine.gpu.bars(), 2);
        self.write(0x168, &(order << 8).to_le_bytes());
        let offered = order < 28 && dword(&self.machine, 0x164) & 1 << (4 + order) != 0;
        assert_eq!(offered, (1..=6).contains(&order), "from 2 MiB to all of VRAM");
        assert_eq!(size(&self.machine.gpu.bars(), 2), if offered { Some(1 << (20 + order)) } else { before });
        self.write(0x18, &(u64::from(address) << 20).to_le_bytes());
        self.write(4, &[command | 2]);
    }

    fn refuse(&mut self, refusal: Refusal, unmask: bool) {
        const LIST: u64 = 0x5000;
        if unmask {
            self.write(0x108, &[0; 4]);
        }
        // In D3hot, or with nothing decoded, registers do not answer.
        self.write(0x44, &[0]);
        self.write(4, &[6]);
        let machine = &self.machine;
        let place = Location::system(if refusal == Refusal::ReadOnly { READ_ONLY } else { 1 << 40 });
        let (source, destination) =
            if refusal == Refusal::Read { (place, Location::vram(0)) } else { (Location::vram(0), place) };
        machine.store_words(LIST, &ListEntry { source, destination, length: 4096, tag: 0 }.encode());
        let operation = Operation::Copy(List { address: LIST, count: 1 });
        let command = Command { operation, cause: Cause::Other, fence: None, interrupt: false, tag: 0 };
        machine.reset_channel(0);
        machine.submit(0, &encoded(&[command]), 1);
        machine.enable(0, Binding::default());
        machine.must("the end", |machine| machine.status(0).state() == Some(ChannelState::Error));
        let [status, mask, severity, _, pointer, ..] = self.aer();
        assert!(status == 1 << 22 && (mask & 1 << 22 != 0 || pointer == 22));
        let detected = if severity & 1 << 22 != 0 { 1 << 18 } else { 1 << 17 };
        assert_ne!(dword(machine, 0x68) & detected, 0);
        let aborted = if refusal == Refusal::ReadOnly { 1 << 28 } else { 1 << 29 };
        assert_ne!(dword(machine, 4) & aborted, 0);
    }

    fn check(&self) {
        let Self { machine, told } = self;
        assert_eq!(dword(machine, 0), 0xe52a_1234);
        let decoding = dword(machine, 4) & 2 != 0 && dword(machine, 0x44) & 3 == 0;
        let bars = machine.gpu.bars();
        assert_eq!((size(&bars, 0), size(&bars, 4)), (Some(512 << 10), Some(8 << 10)));
        let shown = size(&bars, 2).unwrap();
        assert!(shown.is_power_of_two() && (2 << 20..=SIZES[0]).contains(&shown));
        assert_eq!((dword(machine, 0x168) >> 8 & 0x3f) + 20, shown.ilog2());
        assert_eq!(machine.gpu.mappings()[0].length, shown);
        for BarInfo { bar, size, is_64bit, .. } in bars {
            let register = 0x10 + u16::from(bar) * 4;
            let low = dword(machine, register);
            assert_eq!(low & 0xf, if is_64bit { 0b1100 } else { 0 });
            let high = if is_64bit { u64::from(dword(machine, register + 4)) << 32 } else { 0 };
            let base = high | u64::from(low & !0xf);
            assert_eq!(base % size, 0);
            match told[usize::from(bar)] {
                Some(address) => assert!(decoding && address == base),
                None => {
                    let end = if is_64bit { size.wrapping_neg() } else { (1 << 32) - size };
                    assert!(!decoding || base == 0 || base >= end, "BAR {bar} at {base:#x} was not told of");
                }
            }
        }
        let extended = [0x100, 0x150, 0x160].map(|offset| dword(machine, offset));
        assert_eq!(extended, [0x1502_0001, 0x1601_0003, 0x0001_0015]);
        let [status, _, _, _, pointer, ..] = self.aer();
        assert!(status & !(1 << 22) == 0 && dword(machine, 0x110) == 0);
        assert!(pointer == 0 || (pointer == 22 && status != 0));
    }
}

fuzz_target!(|steps: Vec<Step>| {
    let [vram, shown] = SIZES;
    let mut bus = Bus { machine: Machine::with_vram(vram, shown), told: [None; 6] };
    for step in steps.iter().take(64) {
        match *step {
            Step::Write { offset, data, length } => {
                bus.write(offset % 4200, &data[..usize::from(length).min(data.len())]);
            }
            Step::Header { offset, value } => bus.write((offset & 0x7c).into(), &value.to_le_bytes()),
            Step::Extended { offset, value } => {
                bus.write(0x100 + u16::from(offset & 0x7c), &value.to_le_bytes());
            }
            Step::Resize { order, address } => bus.resize(order, address),
            Step::Refuse { refusal, unmask } => bus.refuse(refusal, unmask),
            Step::Read { offset, length } => {
                bus.machine.gpu.config_read(offset, &mut vec![0; usize::from(length % 5000)]);
            }
            Step::Reset => bus.reset(),
        }
        bus.check();
    }
    bus.machine.still_works();
});
