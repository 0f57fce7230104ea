// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! BAR2 by size: what it shows, what the engines reach beyond it, and what the bus is told.

use ersatz_abi::channel::Priority;
use ersatz_abi::command::Operation;
use ersatz_abi::list::Location;
use ersatz_abi::mmu::PageSize;
use ersatz_abi::regs;
use ersatz_device_model::bus::{Effect, PciFunction};
use ersatz_device_model::clock::HostClock;
use ersatz_device_model::{Gpu, GpuConfig, GpuError};
use vm_memory::{Bytes, GuestAddress};

use ersatz_device_testing::faults::{ASID, BASE, COMPUTE, bind, is_faulted, replayable, set};
use ersatz_device_testing::tables::{Space, page};
use ersatz_device_testing::{COMMAND, DATA, Host, Interrupts, LISTS, MEMORY_AND_MASTER, entry, system, vram};

const VRAM: u64 = 64 << 20;
/// The byte of the resizable BAR's control register that has the size.
const SIZE: u16 = 0x169;
const FLR_BYTE: u16 = 0x69;
const POWER_CONTROL: u16 = 0x44;

fn small_bar() -> Host {
    let mut config = GpuConfig::new(VRAM);
    config.bar_size = 2 << 20;
    Host::with(config, Interrupts::default())
}

/// Resizes as a driver does, and returns the effects on BAR2 for that.
fn resize(host: &Host, order: u8) -> Vec<Effect> {
    host.gpu.config_write(COMMAND, &[0]);
    let effects = host.gpu.config_write(SIZE, &[order]);
    host.gpu.config_write(COMMAND, &MEMORY_AND_MASTER.to_le_bytes());
    effects
}

fn shown(host: &Host) -> u64 {
    let size = host.gpu.bars().iter().find(|info| info.bar == 2).unwrap().size;
    assert_eq!(host.gpu.mappings()[0].length, size);
    size
}

#[test]
fn what_the_bar_does_not_show_is_reached_by_the_engines_alone() {
    let mut host = small_bar();
    assert_eq!((host.read64(regs::VRAM_SIZE.offset), shown(&host)), (VRAM, 2 << 20));
    let hidden = 32 << 20;
    host.memory.write_obj(0x1122_3344_5566_7788_u64, GuestAddress(DATA)).unwrap();
    let list = host.list(LISTS, &[entry(system(DATA), vram(hidden), 4096)]);
    host.enable(0, 1);
    host.execute(Operation::Copy(list), 1);
    let read = |offset| {
        let mut data = [0; 8];
        host.gpu.bar_read(2, offset, &mut data);
        u64::from_le_bytes(data)
    };
    assert_eq!([read(hidden), read((2 << 20) - 4)], [u64::MAX; 2], "beyond, and across the end");
    host.gpu.bar_write(2, hidden, &[0; 8]);
    assert_eq!(resize(&host, 6), [Effect::BarMoved { bar: 2, address: None }]);
    assert_eq!(shown(&host), VRAM);
    assert_eq!(read(hidden), 0x1122_3344_5566_7788, "written by the engine, not by the CPU");
}

#[test]
fn the_bus_hears_of_the_size_and_then_of_the_address() {
    let host = small_bar();
    host.gpu.config_write(COMMAND, &[0]);
    assert_eq!(host.gpu.config_write(SIZE, &[1]), [], "the size it has");
    assert_eq!(host.gpu.config_write(SIZE, &[3]), [Effect::BarMoved { bar: 2, address: None }]);
    let moves = ersatz_device_testing::moves(&host.gpu.config_write(COMMAND, &[2]));
    assert!(moves.contains(&(2, Some(0x100_0000_0000))), "{moves:?}");
    assert_eq!(host.gpu.config_write(SIZE, &[4]), [], "not while it decodes");
    assert_eq!(shown(&host), 8 << 20);
}

#[test]
fn sizes_end_with_vram_and_a_reset_goes_back_to_the_first() {
    let host = small_bar();
    for order in [0, 7, 20, 63] {
        assert_eq!(resize(&host, order), []);
        assert_eq!(shown(&host), 2 << 20);
    }
    for flr in [true, false] {
        resize(&host, 5);
        assert_eq!(shown(&host), 32 << 20);
        let effects = if flr { host.gpu.config_write(FLR_BYTE, &[0x80]) } else { host.gpu.reset() };
        assert_eq!((effects, shown(&host)), (vec![Effect::Reset], 2 << 20));
        host.start();
    }
}

#[test]
fn bars_that_cannot_be_are_refused() {
    for size in [0, 1 << 20, 3 << 20, VRAM * 2, u64::MAX] {
        let host = small_bar();
        let mut config = GpuConfig::new(VRAM);
        config.bar_size = size;
        let result =
            Gpu::new(config, host.space.clone(), host.interrupts.clone(), std::sync::Arc::new(HostClock::new()));
        assert!(matches!(result, Err(GpuError::BarSize { bar, vram: VRAM }) if bar == size), "{size:#x}");
    }
}

#[test]
fn the_size_is_one_of_those_on_offer_or_as_before() {
    let host = small_bar();
    let read = |at: u16| {
        let mut data = [0; 4];
        host.gpu.config_read(at, &mut data);
        u32::from_le_bytes(data)
    };
    let (capability, control) = (SIZE - 5, SIZE - 1);
    host.gpu.config_write(COMMAND, &[0]);
    for order in 0..64_u8 {
        let before = read(control);
        host.gpu.config_write(SIZE, &[order]);
        let is_offered = order < 28 && read(capability) & 1 << (order + 4) != 0;
        let expected = if is_offered { before & !0x3f00 | u32::from(order) << 8 } else { before };
        assert_eq!(read(control), expected, "{order}");
        assert_eq!(shown(&host), 1 << (20 + (expected >> 8 & 0x3f)));
    }
    assert_eq!(read(capability), 0x7e0, "2 MiB to 64 MiB");
}

/// In D3hot config space is alive, and the rule is the same: not while the command register says that memory decodes.
#[test]
fn who_sleeps_can_be_resized() {
    let host = small_bar();
    host.gpu.config_write(POWER_CONTROL, &[3]);
    assert_eq!(host.gpu.config_write(SIZE, &[5]), []);
    assert_eq!(shown(&host), 2 << 20, "decoding is on, though it sleeps");
    host.gpu.config_write(COMMAND, &[0]);
    assert_eq!(host.gpu.config_write(SIZE, &[5]), [Effect::BarMoved { bar: 2, address: None }]);
    host.gpu.config_write(POWER_CONTROL, &[0]);
    assert_eq!(shown(&host), 32 << 20, "it wakes with the size it was given");
    let moves = ersatz_device_testing::moves(&host.gpu.config_write(COMMAND, &[2]));
    assert!(moves.contains(&(2, Some(0x100_0000_0000))), "{moves:?}");
}

/// An address that the new size does not permit loses its low bits; a driver writes it anew.
#[test]
fn an_address_is_cut_to_the_new_size() {
    let host = small_bar();
    host.gpu.config_write(COMMAND, &[0]);
    host.gpu.config_write(0x18, &0x100_0620_0000_u64.to_le_bytes());
    let address = |host: &Host| {
        let moves = ersatz_device_testing::moves(&host.gpu.config_write(COMMAND, &[2]));
        host.gpu.config_write(COMMAND, &[0]);
        moves.iter().find(|(bar, _)| *bar == 2).unwrap().1
    };
    assert_eq!(address(&host), Some(0x100_0620_0000));
    host.gpu.config_write(SIZE, &[6]);
    assert_eq!(address(&host), Some(0x100_0400_0000));
    host.gpu.config_write(0x18, &0x100_0620_0000_u64.to_le_bytes());
    assert_eq!(address(&host), Some(0x100_0400_0000), "they cannot be written");
    host.gpu.config_write(SIZE, &[1]);
    assert_eq!(address(&host), Some(0x100_0400_0000), "nor do they come back");
}

/// Engines do not notice: a kernel that waits at a fault meanwhile goes on to what the BAR does not show.
#[test]
fn work_of_the_engines_goes_on() {
    let mut host = small_bar();
    let mut space = Space::new(&host, ASID, replayable(), Location::vram(1 << 20));
    bind(&host, 0, COMPUTE, Priority::Low);
    host.submit(set(BASE, 8, 9));
    host.wait_until("the fault", |host| is_faulted(host, 0));
    space.map(&host, BASE, page(Location::vram(48 << 20), PageSize::Small));
    let resize = |host: &Host, order| {
        // Bus mastering stays.
        host.gpu.config_write(COMMAND, &[0b100]);
        host.gpu.config_write(SIZE, &[order]);
        host.gpu.config_write(COMMAND, &MEMORY_AND_MASTER.to_le_bytes());
    };
    [6, 1, 3].iter().for_each(|order| resize(&host, *order));
    host.write32(regs::FAULT_REPLAY.offset, 1);
    resize(&host, 1);
    host.wait_until("its end", |host| host.fence() == 1);
    resize(&host, 6);
    assert_eq!(host.load(Location::vram(48 << 20)), 9);
}
