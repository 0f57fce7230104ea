// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Any sequence of config accesses: what the effects told the bus is where config space says the BARs are.
#![no_main]

use arbitrary::Arbitrary;
use ersatz_device_model::bus::{BarInfo, Effect, PciFunction};
use ersatz_device_model_fuzz::{Machine, VRAM};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Step {
    Write { offset: u16, data: [u8; 8], length: u8 },
    Header { offset: u8, value: u32 },
    Read { offset: u16, length: u16 },
    Reset,
}

fn size(bars: &[BarInfo], bar: u8) -> Option<u64> {
    bars.iter().find(|info| info.bar == bar).map(|info| info.size)
}

fn dword(machine: &Machine, offset: u16) -> u32 {
    let mut data = [0; 4];
    machine.gpu.config_read(offset, &mut data);
    u32::from_le_bytes(data)
}

fn check(machine: &Machine, told: &[Option<u64>; 6]) {
    assert_eq!(dword(machine, 0), 0xe52a_1234);
    let decoding = dword(machine, 4) & 2 != 0 && dword(machine, 0x44) & 3 == 0;
    let bars = machine.gpu.bars();
    assert_eq!((size(&bars, 0), size(&bars, 4)), (Some(512 << 10), Some(8 << 10)));
    let shown = size(&bars, 2).unwrap();
    assert!(shown.is_power_of_two() && (2 << 20..=VRAM).contains(&shown));
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
}

fuzz_target!(|steps: Vec<Step>| {
    let machine = Machine::new();
    let mut told = [None; 6];
    for step in steps.iter().take(64) {
        let before = machine.gpu.bars();
        let effects = match step {
            Step::Write { offset, data, length } => {
                machine.gpu.config_write(offset % 4200, &data[..usize::from(*length).min(data.len())])
            }
            Step::Header { offset, value } => machine.gpu.config_write((offset & 0x7c).into(), &value.to_le_bytes()),
            Step::Read { offset, length } => {
                machine.gpu.config_read(*offset, &mut vec![0; usize::from(*length % 5000)]);
                Vec::new()
            }
            Step::Reset => machine.gpu.reset(),
        };
        for effect in effects {
            match effect {
                Effect::BarMoved { bar, address } => {
                    let moved = told[usize::from(bar)] != address || size(&before, bar) != size(&machine.gpu.bars(), bar);
                    assert!(moved, "a move that is none");
                    told[usize::from(bar)] = address;
                }
                Effect::Reset => told = [None; 6],
                Effect::MsixChanged { .. } | Effect::MsixControlChanged | Effect::MsixSend { .. } => {}
            }
        }
        check(&machine, &told);
    }
    machine.still_works();
});
