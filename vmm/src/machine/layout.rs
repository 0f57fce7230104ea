// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's physical address space: where RAM, the PCI windows and the fixed devices are.
//!
//! | from | to | what |
//! |---|---|---|
//! | 0 | 0xa_0000 | RAM: boot data of the VMM |
//! | 0xe_0000 | 0xf_0000 | ACPI tables |
//! | 0xf_fff0 | 0x10_0000 | RAM: code that resets the machine |
//! | 0x10_0000 | at most 0xc000_0000 | RAM: kernel from the bottom, initramfs at the top |
//! | 0xc000_0000 | 0xe000_0000 | PCI window for 32-bit BARs |
//! | 0xe000_0000 | 0xf000_0000 | ECAM: 1 MiB for each PCI bus |
//! | 0xfec0_0000 | 4 GiB | interrupt controllers, pages of KVM's own |
//! | 4 GiB | | the rest of RAM |
//! | above RAM | | PCI window for 64-bit BARs: half of the address space if they fit into that |
//!
//! The other half is for the guest kernel, which takes the pfns of device-private pages from where neither RAM nor a PCI
//! window is.

use std::ops::Range;

use thiserror::Error;

/// Granularity of guest memory.
pub const PAGE: u64 = 4096;
/// Least guest memory in bytes.
pub const MIN_MEMORY: u64 = 2 << 20;

/// End of the RAM that is below the boot ROM area of a PC.
pub const LOW_MEMORY_END: u64 = 0xa_0000;
/// Where the VMM puts the descriptor table that the boot CPU starts with.
pub const GDT: u64 = 0x500;
/// Where the VMM puts the boot parameters ("zero page").
pub const ZERO_PAGE: u64 = 0x7000;
/// Top of the stack that the boot CPU starts with.
pub const BOOT_STACK: u64 = 0x8ff0;
/// Where the VMM puts the page tables that the boot CPU starts with.
pub const PAGE_TABLES: u64 = 0x9000;
/// Where the VMM puts the kernel's command line.
pub const COMMAND_LINE: u64 = 0x2_0000;
/// Room for the command line in bytes, with its final NUL.
pub const COMMAND_LINE_ROOM: u64 = 0x1_0000;
/// Where the VMM puts the ACPI tables.
pub const ACPI_TABLES: Range<u64> = 0xe_0000..0xf_0000;
/// Where a processor in real mode looks for the BIOS.
pub const RESET_VECTOR: u64 = 0xf_fff0;
/// Start of the RAM above the first MiB.
pub const HIGH_MEMORY: u64 = 0x10_0000;

/// Most RAM below 4 GiB; there the PCI window begins.
pub const RAM_GAP: u64 = 0xc000_0000;
/// The PCI window for 32-bit BARs.
pub const WINDOW_32: Range<u64> = RAM_GAP..0xe000_0000;
/// Config space by ECAM, with room for 256 buses.
pub const ECAM: Range<u64> = 0xe000_0000..0xf000_0000;
/// What each bus has of it.
pub const ECAM_BUS: u64 = 1 << 20;
/// The I/O APIC.
pub const IO_APIC: u64 = 0xfec0_0000;
/// The local APICs.
pub const LOCAL_APIC: u64 = 0xfee0_0000;
/// A page that KVM needs on some processors to run real mode.
pub const IDENTITY_MAP_PAGE: u64 = 0xfffb_c000;
/// Three pages that KVM needs on some processors to run real mode.
pub const TASK_STATE_PAGES: u64 = 0xfffb_d000;
/// First address that takes more than 32 bits.
pub const FOUR_GIB: u64 = 1 << 32;
/// The 64-bit window starts at a multiple of this.
const WINDOW_64_ALIGNMENT: u64 = 1 << 30;

/// Why there can be no such address space.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LayoutError {
    /// Guest memory is too small or not whole pages.
    #[error("guest memory of {0} bytes: give at least {MIN_MEMORY} bytes, in multiples of {PAGE}")]
    Memory(u64),
    /// The processor's physical addresses are too short for this much RAM.
    #[error(
        "guest memory of {memory} bytes ends at {end:#x}, but this processor has {bits}-bit physical addresses; \
         give the guest less memory"
    )]
    PhysicalAddressBits {
        /// Guest memory in bytes.
        memory: u64,
        /// First address behind it.
        end: u64,
        /// Width of a physical address.
        bits: u8,
    },
}

/// The parts of the address space that depend on the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// RAM below the gap: from 0 to this.
    pub low_ram_end: u64,
    /// RAM above 4 GiB; empty if all of it is below.
    pub high_ram: Range<u64>,
    /// The PCI window for 64-bit BARs.
    pub window_64: Range<u64>,
    /// Width of a guest physical address in bits.
    pub physical_bits: u8,
}

impl Layout {
    /// Lays out `memory` bytes of RAM in an address space of `physical_bits` bits. All that is above is window.
    ///
    /// # Errors
    ///
    /// [`LayoutError`] if they do not fit.
    pub fn new(memory: u64, physical_bits: u8) -> Result<Self, LayoutError> {
        if memory < MIN_MEMORY || memory % PAGE != 0 {
            return Err(LayoutError::Memory(memory));
        }
        let limit = 1u64.checked_shl(physical_bits.into()).unwrap_or(u64::MAX);
        let low_ram_end = memory.min(RAM_GAP);
        let high_ram_end = FOUR_GIB.saturating_add(memory - low_ram_end);
        let window_start = high_ram_end.checked_next_multiple_of(WINDOW_64_ALIGNMENT);
        match window_start {
            Some(start) if start < limit => {
                Ok(Self { low_ram_end, high_ram: FOUR_GIB..high_ram_end, window_64: start..limit, physical_bits })
            }
            _ => Err(LayoutError::PhysicalAddressBits { memory, end: high_ram_end, bits: physical_bits }),
        }
    }

    /// The same layout with the 64-bit window in the lower half of the address space, and in the upper half. Low addresses
    /// are within reach of every kernel.
    pub fn by_half(&self) -> impl Iterator<Item = Self> + use<> {
        let whole = self.window_64.clone();
        let middle = 1u64.checked_shl(self.physical_bits.into()).unwrap_or(u64::MAX) / 2;
        let lower = whole.start..middle;
        let upper = whole.start.max(middle)..whole.end;
        let layout = self.clone();
        [lower, upper]
            .into_iter()
            .filter(|window| !window.is_empty())
            .map(move |window_64| Self { window_64, ..layout.clone() })
    }

    /// The halves, and then the whole: the smaller the better.
    pub fn by_window(&self) -> impl Iterator<Item = Self> + use<> {
        self.by_half().chain([self.clone()])
    }

    /// Whether a BAR may decode all of these addresses: they are in one of the windows.
    pub fn is_pci(&self, range: &Range<u64>) -> bool {
        [&WINDOW_32, &self.window_64]
            .into_iter()
            .any(|window| window.start <= range.start && range.start < range.end && range.end <= window.end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_memory_is_all_below_the_gap() {
        let layout = Layout::new(512 << 20, 40).unwrap();
        assert_eq!(layout.low_ram_end, 512 << 20);
        assert!(layout.high_ram.is_empty());
        assert_eq!(layout.window_64, 0x1_0000_0000..1 << 40);
    }

    #[test]
    fn memory_continues_above_the_gap() {
        let layout = Layout::new(4 << 30, 46).unwrap();
        assert_eq!(layout.low_ram_end, RAM_GAP);
        assert_eq!(layout.high_ram, 0x1_0000_0000..0x1_4000_0000);
        assert_eq!(layout.window_64.start, 0x1_4000_0000);
    }

    #[test]
    fn refuses_what_does_not_fit() {
        assert_eq!(Layout::new(4096, 40), Err(LayoutError::Memory(4096)));
        assert_eq!(Layout::new((4 << 20) + 1, 40), Err(LayoutError::Memory((4 << 20) + 1)));
        assert!(matches!(Layout::new(64 << 30, 36), Err(LayoutError::PhysicalAddressBits { bits: 36, .. })));
        assert!(Layout::new(!(PAGE - 1), 52).is_err());
    }

    #[test]
    fn a_window_of_half_the_space_leaves_the_other_half() {
        let windows = |memory, bits| {
            Layout::new(memory, bits).unwrap().by_window().map(|layout| layout.window_64).collect::<Vec<_>>()
        };
        let (start, middle, end) = (FOUR_GIB, 1 << 45, 1 << 46);
        assert_eq!(windows(1 << 30, 46), [start..middle, middle..end, start..end]);
        let start = 0xa_0000_0000;
        assert_eq!(windows(39 << 30, 36), [start..1 << 36, start..1 << 36], "RAM fills the lower half");
    }

    proptest! {
        #[test]
        fn all_memory_has_its_place(pages in 1u64..1 << 40, bits in 32u8..=52) {
            let memory = pages * PAGE;
            if let Ok(layout) = Layout::new(memory, bits) {
                prop_assert_eq!(layout.low_ram_end + (layout.high_ram.end - layout.high_ram.start), memory);
                prop_assert!(layout.low_ram_end <= WINDOW_32.start);
                prop_assert!(layout.high_ram.end <= layout.window_64.start);
                prop_assert!(layout.window_64.start < layout.window_64.end);
                prop_assert!(layout.window_64.end <= 1 << bits);
            }
        }

        #[test]
        fn nothing_but_windows_is_pci(start: u64, length in 1u64..1 << 41) {
            let layout = Layout::new(8 << 30, 46).unwrap();
            let range = start..start.saturating_add(length);
            if layout.is_pci(&range) {
                prop_assert!(range.end <= WINDOW_32.end || range.start >= layout.high_ram.end);
                prop_assert!(range.end <= layout.window_64.end);
            }
        }
    }
}
