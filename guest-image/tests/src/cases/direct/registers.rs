// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a driver finds first: the function in configuration space, the registers, and how they are accessed.

use ersatz_abi::ABI_VERSION;
use ersatz_abi::counter::Counter;
use ersatz_abi::mmu::ADDRESS_SPACES;
use ersatz_abi::pci::{CLASS_CODE, MSIX_VECTORS, REVISION, VENDOR_ID};
use ersatz_abi::regs::{self, MmuConfiguration};

use crate::config_space::capability;
use crate::direct::gpu::Gpu;
use crate::suite::test_list;
use crate::vram_bar::VramBar;

test_list! { "direct_registers":
    the_device_says_what_it_has.direct();
    a_wide_register_goes_by_halves.direct();
    the_clock_goes_on.direct();
}

fn the_device_says_what_it_has() {
    let gpu = Gpu::claim();
    let config = gpu.config();
    assert_eq!(config.read16(0x00), VENDOR_ID);
    assert_eq!(config.read32(0x08), CLASS_CODE << 8 | u32::from(REVISION));
    let vectors = config.read16(config.capability(capability::MSIX) + 2) & 0x7ff;
    assert_eq!((vectors + 1, gpu.configuration().vectors()), (MSIX_VECTORS, MSIX_VECTORS.into()));
    for id in [capability::POWER_MANAGEMENT, capability::EXPRESS] {
        assert_ne!(config.capability(id), 0);
    }
    let registers = gpu.registers();
    assert_eq!(registers.read32(regs::VERSION), ABI_VERSION);
    assert!(registers.read64(regs::VRAM_SIZE) >= VramBar::of(gpu.function()).size());
    assert_eq!(MmuConfiguration(registers.read32(regs::MMU_CONFIGURATION)).address_spaces(), ADDRESS_SPACES);
    assert!(!gpu.copy_engines().is_empty() && !gpu.compute_engines().is_empty());
}

fn a_wide_register_goes_by_halves() {
    let gpu = Gpu::claim();
    let registers = gpu.registers();
    let (low, high) = (regs::INVALIDATE_ADDRESS.offset, regs::INVALIDATE_ADDRESS.offset + 4);
    let counted = gpu.count([Counter::BadAccesses], || {
        registers.write32_at(low, 0x89ab_cdef);
        registers.write32_at(high, 0x0123_4567);
        assert_eq!(registers.read64(regs::INVALIDATE_ADDRESS), 0x0123_4567_89ab_cdef);
        registers.write64(regs::INVALIDATE_ADDRESS, 0xfedc_ba98_7654_3210);
        assert_eq!([low, high].map(|half| registers.read32_at(half)), [0x7654_3210, 0xfedc_ba98]);
    });
    assert_eq!(counted, [0]);
}

fn the_clock_goes_on() {
    let gpu = Gpu::claim();
    let times = [(); 100].map(|()| gpu.registers().read64(regs::TIMESTAMP));
    assert!(times.is_sorted() && times[0] != times[99], "{times:?}");
    // The log has it; there is no reading it back.
    gpu.registers().write64(regs::MARK, times[0]);
    assert!(!gpu.status().bad_access());
}
